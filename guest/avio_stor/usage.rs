// SPDX-License-Identifier: GPL-2.0

//! Which LUNs are open, which the device is told, and the gate before those whose backing was replaced.
//!
//! An open of a gated LUN fails. What was open before keeps a dead disk, see [`crate::luns`].

use crate::lun::{disk_name, read, texts};
use crate::registers::Registers;
use avio_abi::pci::reg;
use avio_sys::guest::disk::Opener;
use avio_sys::guest::index::Index;
use core::mem::replace;
use kernel::device;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::str::CStr;
use kernel::sync::aref::ARef;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{Arc, Mutex};

/// Bits in a word of LUNS_IN_USE.
const WORD_BITS: usize = 32;

/// What is known of a LUN without any lock.
struct State {
    gated: Atomic<u32>,
    /// How many opens were refused since the gate closed.
    refused: Atomic<u32>,
    /// The number of its disk's name, and one; zero without a disk.
    disk: Atomic<u32>,
}

/// The LUNs of an adapter.
#[pin_data]
pub(crate) struct Usage {
    device: ARef<device::Device>,
    registers: Arc<Registers>,
    adapter: Index,
    states: KVec<State>,
    /// What keeps each in use. Also serialises the registers.
    #[pin]
    uses: Mutex<KVec<Uses>>,
}

/// What keeps a LUN in use.
#[derive(Clone, Copy, Default)]
struct Uses {
    /// How often it is open.
    opens: u32,
    /// Disks that were open, and that may still have requests.
    leaving: u32,
}

impl Uses {
    fn is_none(self) -> bool {
        self.opens == 0 && self.leaving == 0
    }
}

impl Usage {
    /// Of so many LUNs, none of them open, of the adapter with this number.
    pub(crate) fn new(
        device: ARef<device::Device>,
        registers: Arc<Registers>,
        adapter: Index,
        luns: usize,
    ) -> Result<Arc<Self>> {
        let (mut states, mut uses) = (KVec::new(), KVec::new());
        for _ in 0..luns {
            let state = State {
                gated: Atomic::new(0),
                refused: Atomic::new(0),
                disk: Atomic::new(0),
            };
            states.push(state, GFP_KERNEL)?;
            uses.push(Uses::default(), GFP_KERNEL)?;
        }
        Arc::pin_init(
            try_pin_init!(Self {
                device,
                registers,
                adapter,
                states,
                uses <- new_mutex!(uses, "avio_stor_uses"),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// The N of the adapter's `/dev/gvsdN`.
    pub(crate) fn adapter(&self) -> u32 {
        self.adapter.get()
    }

    /// Closes or opens a LUN's gate.
    pub(crate) fn set_gated(&self, lun: u16, gated: bool) {
        if let Some(state) = self.states.get(usize::from(lun)) {
            state.refused.store(0, Relaxed);
            state.gated.store(gated.into(), Relaxed);
        }
    }

    /// Says what the LUN's disk is called.
    pub(crate) fn set_disk(&self, lun: u16, index: Option<u32>) {
        if let Some(state) = self.states.get(usize::from(lun)) {
            let number = index.map_or(0, |index| index.saturating_add(1));
            state.disk.store(number, Relaxed);
        }
    }

    /// The number that the name of the LUN's disk is made from.
    pub(crate) fn disk(&self, lun: u16) -> Option<u32> {
        let state = self.states.get(usize::from(lun))?;
        state.disk.load(Relaxed).checked_sub(1)
    }

    /// How often the LUN is open.
    pub(crate) fn opens(&self, lun: u16) -> u32 {
        let uses = self.uses.lock();
        uses.get(usize::from(lun)).map_or(0, |uses| uses.opens)
    }

    /// Tells the device again what is in use, as it forgets that at a reset.
    pub(crate) fn restore(&self) {
        let uses = self.uses.lock();
        for first in (0..uses.len()).step_by(WORD_BITS) {
            self.tell(&uses, first);
        }
    }

    /// Tells the device which LUNs are in use, of those in one word with this one.
    fn tell(&self, uses: &[Uses], lun: usize) {
        let word = lun / WORD_BITS;
        let luns = uses.iter().skip(word.saturating_mul(WORD_BITS));
        let bits = (0..WORD_BITS as u32)
            .zip(luns)
            .filter(|(_, uses)| !uses.is_none())
            .fold(0, |bits, (bit, _)| bits | 1u32.wrapping_shl(bit));
        let offset = (word as u64).saturating_mul(4);
        self.registers
            .write(reg::LUNS_IN_USE.saturating_add(offset), bits);
    }

    /// Says why an open was refused, and what to do. Not each time, so that nobody can flood the log. The first time is
    /// when the kernel looks for partitions, as soon as there is a disk.
    fn explain(&self, lun: u16, times: u32) {
        let (wwn, serial, sectors) = read(&self.registers, lun)
            .ok()
            .flatten()
            .and_then(|info| Some((texts(lun, &info).ok()?, info.sectors)))
            .map_or(([0; 64], [0; 64], 0), |(texts, sectors)| {
                (texts.wwid, texts.serial, sectors)
            });
        let name = disk_name(self.disk(lun).unwrap_or(0));
        let wwn = CStr::from_bytes_until_nul(&wwn).unwrap_or(c"");
        let serial = CStr::from_bytes_until_nul(&serial).unwrap_or(c"");
        let name = CStr::from_bytes_until_nul(&name).unwrap_or(c"");
        // Many backings have neither.
        let label = |text: &CStr, label| if text.is_empty() { "" } else { label };
        let (wwn_label, serial_label) = (label(wwn, ", WWN "), label(serial, ", serial "));
        let adapter = self.adapter();
        dev_err!(
            self.device,
            "/dev/gvsd{adapter}, LUN {lun}: its backing was replaced by another one of {sectors} sectors of 512 bytes{wwn_label}{wwn}{serial_label}{serial}. Every open of /dev/{name} fails ({times} so far) until you type: gvsdmgr replace_dsk -D /dev/gvsd{adapter} -q lun=/dev/{name}\n"
        );
    }

    fn open(&self, open: &OpenLun) -> Result {
        let lun = open.lun;
        let mut uses = self.uses.lock();
        if open.gone.load(Relaxed) != 0 {
            return Err(ENXIO);
        }
        let state = self.states.get(usize::from(lun)).ok_or(ENXIO)?;
        if state.gated.load(Relaxed) != 0 {
            let times = state.refused.fetch_add(1, Relaxed).saturating_add(1);
            if times.is_power_of_two() {
                self.explain(lun, times);
            }
            return Err(EIO);
        }
        let use_of = uses.get_mut(usize::from(lun)).ok_or(ENXIO)?;
        use_of.opens = use_of.opens.saturating_add(1);
        if use_of.opens == 1 {
            self.tell(&uses, lun.into());
        }
        Ok(())
    }

    /// Changes what keeps a LUN in use.
    fn change(&self, lun: u16, change: impl FnOnce(&mut Uses)) {
        let mut uses = self.uses.lock();
        let Some(use_of) = uses.get_mut(usize::from(lun)) else {
            return;
        };
        change(use_of);
        if use_of.is_none() {
            self.tell(&uses, lun.into());
        }
    }
}

/// The LUN that a disk is for.
pub(crate) struct OpenLun {
    usage: Arc<Usage>,
    lun: u16,
    /// The disk is gone: whoever has it open does not have the LUN open.
    gone: Atomic<u32>,
}

impl OpenLun {
    /// For a new disk.
    pub(crate) fn new(usage: Arc<Usage>, lun: u16) -> Self {
        Self {
            usage,
            lun,
            gone: Atomic::new(0),
        }
    }

    /// The disk goes, and the LUN is open no more. If it was, then it is in use for as long as what this returns lives.
    #[must_use]
    pub(crate) fn set_gone(&self) -> Option<Leaving> {
        let mut opened = false;
        self.usage.change(self.lun, |uses| {
            if self.gone.xchg(1, Relaxed) == 0 {
                opened = replace(&mut uses.opens, 0) != 0;
                uses.leaving = uses.leaving.saturating_add(opened.into());
            }
        });
        opened.then(|| Leaving {
            usage: self.usage.clone(),
            lun: self.lun,
        })
    }
}

/// A disk that was open when it began to go may still have requests for its LUN.
pub(crate) struct Leaving {
    usage: Arc<Usage>,
    lun: u16,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.usage.change(self.lun, |uses| {
            uses.leaving = uses.leaving.saturating_sub(1);
        });
    }
}

impl Opener for OpenLun {
    type Module = crate::LocalModule;

    fn open(&self) -> Result {
        self.usage.open(self)
    }

    fn close(&self) {
        self.usage.change(self.lun, |uses| {
            if self.gone.load(Relaxed) == 0 {
                uses.opens = uses.opens.saturating_sub(1);
            }
        });
    }
}
