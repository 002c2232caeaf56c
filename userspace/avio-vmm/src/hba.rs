// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! An adapter as the VMM's threads share it: its registers, and the module behind them.
//!
//! What changes a LUN holds the lock on the registers over the module's call, so that the module's state of a LUN and
//! what the guest sees never come apart. Those calls are quick, but for the first try of a stop, which the guest has to wait
//! for. The module takes no backing of which the host's page cache has something to write; that is done before, by a thread
//! that has no lock, but for the start and the guest's reset.
//!
//! Lock order: the inventory, a PCI function, its registers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use avio_abi::pci::state;
use avio_abi::stor::{lun_flags, LunInfo};
use avio_control::Limits;

use crate::backend::{Error, Events, Served, Stor};
use crate::inventory::Lun;
use crate::registers::{Offer, Registers, Stop};
use crate::resets::Resets;

/// How long the guest may take to let go of a LUN that is gone before another takes its place, and how often to look.
const LET_GO: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(10);

/// Flags of a LUN that the VMM decides.
const OURS: u32 = lun_flags::GATED | lun_flags::LOST;

/// Why a LUN was not detached.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// The guest uses it.
    #[error(
        "the guest uses LUN {0}; take it out of use there (unmount it), or remove it by force"
    )]
    InUse(u32),
    /// The module's reason.
    #[error(transparent)]
    Module(#[from] Error),
}

/// The adapter.
pub struct Hba {
    /// PCI device number.
    pub slot: usize,
    /// Most queue pairs.
    pub max_queues: u32,
    /// The module's side.
    pub stor: Arc<Stor>,
    registers: Mutex<Registers<Served>>,
    quiesced: Arc<AtomicBool>,
    /// The module may still have disks of LUNs that were removed.
    leaving: AtomicBool,
}

impl Hba {
    /// Shares an adapter.
    pub fn new(slot: usize, offer: Offer, stor: Stor, events: Events, resets: Resets) -> Self {
        let max_queues = offer.max_queues;
        let stor = Arc::new(stor);
        let quiesced = Arc::new(AtomicBool::new(false));
        let served = Served::new(stor.clone(), events, resets, quiesced.clone());
        Self {
            slot,
            max_queues,
            stor,
            registers: Mutex::new(Registers::new(offer, served)),
            quiesced,
            leaving: AtomicBool::new(false),
        }
    }

    /// The registers.
    pub fn registers(&self) -> MutexGuard<'_, Registers<Served>> {
        self.registers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches a LUN, with its gate closed if it is `foreign` to the guest. One of which the host's page cache has something
    /// to write is refused.
    pub fn attach(&self, number: u32, lun: &Lun, foreign: bool) -> Result<(), Error> {
        let mut registers = self.registers();
        let info = self.add(number, lun, foreign)?;
        registers.set_lun(number, info);
        Ok(())
    }

    /// Detaches a LUN; with `force` although the guest uses it.
    pub fn detach(&self, number: u32, force: bool) -> Result<(), DetachError> {
        let mut registers = self.registers();
        if registers.in_use(number) && !force {
            return Err(DetachError::InUse(number));
        }
        // A lost one may be missing already.
        if registers.lun(number).flags & lun_flags::PRESENT != 0 {
            self.remove(number, force)?;
        }
        registers.set_lun(number, LunInfo::default());
        Ok(())
    }

    /// Puts another such backing in a LUN's place; if that fails, `old` again.
    pub fn replace(
        &self,
        number: u32,
        old: Option<&Lun>,
        new: &Lun,
        foreign: bool,
        force: bool,
    ) -> Result<(), Error> {
        // What the module would refuse it refuses before the old one has gone.
        self.stor
            .try_lun(&new.backing.file, readonly(new), new.cgroup.as_deref())?;
        let mut registers = self.registers();
        let gated = registers.lun(number).flags & lun_flags::GATED != 0;
        self.remove(number, force)?;
        let result = self.add(number, new, foreign);
        let info = match (&result, old) {
            (Ok(info), _) => *info,
            (Err(_), Some(old)) => self.add(number, old, gated).unwrap_or_default(),
            (Err(_), None) => LunInfo::default(),
        };
        if result.is_ok() {
            // Another LUN, even if it looks the same.
            registers.set_lun(number, LunInfo::default());
        }
        registers.set_lun(number, info);
        result.map(drop)
    }

    /// Looks at a LUN's backing again, and sets whether it is lost, and whether it is foreign to the guest if that is
    /// known.
    pub fn update(&self, number: u32, lost: bool, foreign: Option<bool>) -> Result<(), Error> {
        let mut registers = self.registers();
        let mut flags = registers.lun(number).flags & OURS;
        let mut set = |flag: u32, on| flags = if on { flags | flag } else { flags & !flag };
        set(lun_flags::LOST, lost);
        if let Some(foreign) = foreign {
            set(lun_flags::GATED, foreign);
        }
        let info = self.stor.update_lun(number, flags)?;
        registers.set_lun(number, info);
        Ok(())
    }

    /// Whether a LUN is there.
    pub fn has(&self, number: u32) -> bool {
        self.registers().lun(number).flags & lun_flags::PRESENT != 0
    }

    /// Whether the guest may still have requests for a LUN that is gone.
    pub fn clings_to(&self, number: u32) -> bool {
        self.registers().clings_to(number)
    }

    /// Whether the guest lets go of a LUN that is gone, for which this waits a little.
    pub fn is_let_go(&self, number: u32) -> bool {
        let end = Instant::now() + LET_GO;
        while self.clings_to(number) {
            if Instant::now() >= end {
                return false;
            }
            thread::sleep(LOOK);
        }
        true
    }

    /// Whether a LUN is there and the guest may use it.
    pub fn is_open(&self, number: u32) -> bool {
        let flags = self.registers().lun(number).flags;
        flags & lun_flags::PRESENT != 0 && flags & lun_flags::GATED == 0
    }

    /// Goes on with a stop that is not complete. Whether there is one still.
    pub fn is_stopping(&self) -> bool {
        if self.registers().state() != state::STOPPING {
            return false;
        }
        match self.stor.stop() {
            Ok(Stop::Done) => self.registers().stopped(),
            Ok(Stop::Pending) => return true,
            Err(error) => {
                tracing::debug!("{}", crate::error_chain(&error));
                return true;
            }
        }
        false
    }

    /// Whether the module still has disks of removed LUNs, whose backings have not given back what they have. It lets
    /// go of others.
    pub fn has_leaving_disks(&self) -> bool {
        if !self.leaving.load(Ordering::Relaxed) {
            return false;
        }
        let left = self.stor.has_leaving_disks().unwrap_or(false);
        self.leaving.store(left, Ordering::Relaxed);
        left
    }

    /// Takes no more requests. Whether nothing is in flight any more; if not, to be called again.
    pub fn quiesce(&self) -> Result<bool, Error> {
        let stop = self.stor.quiesce()?;
        self.quiesced.store(true, Ordering::Relaxed);
        Ok(stop == Stop::Done)
    }

    /// Goes on after a quiesce.
    pub fn resume(&self) -> Result<(), Error> {
        self.stor.resume()?;
        self.quiesced.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Whether it is quiesced; a reset or start by the guest ends that.
    pub fn is_quiesced(&self) -> bool {
        self.quiesced.load(Ordering::Relaxed)
    }

    fn remove(&self, number: u32, force: bool) -> Result<(), Error> {
        self.stor.remove_lun(number, force)?;
        self.leaving.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn add(&self, number: u32, lun: &Lun, foreign: bool) -> Result<LunInfo, Error> {
        let gated = if foreign { lun_flags::GATED } else { 0 };
        let backing = &lun.backing;
        let info = self.stor.add_lun(
            number,
            &backing.file,
            readonly(lun) | gated,
            lun.serial(),
            backing.facts.wwn,
            lun.cgroup.as_deref(),
        )?;
        if lun.disk.limits != Limits::default() {
            if let Err(error) = self.stor.set_limits(number, &lun.disk.limits) {
                let _ = self.remove(number, true);
                return Err(error);
            }
        }
        tracing::debug!(number, path = %lun.disk.path.display(), foreign, "disk attached");
        Ok(info)
    }
}

fn readonly(lun: &Lun) -> u32 {
    if lun.disk.readonly {
        lun_flags::READ_ONLY
    } else {
        0
    }
}
