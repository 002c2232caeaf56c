// SPDX-License-Identifier: GPL-2.0

//! The disks of an adapter, kept as the LUNs' descriptions are (`docs/abi.md`, 6.6).
//!
//! A LUN that only grows, shrinks, loses its backing, or has other hints and commands keeps its disk. One whose identity or
//! geometry changes, that gets a cache, or whose gate closes, gets a new disk by the same name: who had the old one open
//! keeps a dead one, and so can never write what belongs to one backing to another. The new one comes when the old one has
//! gone, which waits for its requests; until then the LUN has no disk, and its gate is not opened.
//!
//! Lock order: a disk's own locks, and those of [`Usage`], come behind `slots`. Nobody who has it waits for a disk to go, or
//! for its partitions, unless there is no memory to have somebody else do so.

use crate::burial::Burial;
use crate::lun::{disk_name, limits, read, texts};
use crate::queue::Queue;
use crate::registers::Registers;
use crate::signals::Signals;
use crate::usage::{OpenLun, Usage};
use avio_abi::stor::{lun_flags, LunInfo};
use avio_abi::SECTOR_SIZE;
use avio_sys::guest::blkmq::TagSet;
use avio_sys::guest::disk::Disk;
use avio_sys::guest::index::{Index, Kind};
use avio_sys::guest::no_io::NoIo;
use kernel::device;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::str::CStr;
use kernel::sync::aref::ARef;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{Arc, Mutex};

pub(crate) type LunDisk = Disk<Queue, OpenLun>;

/// What we know of a LUN that is there.
struct Known {
    info: LunInfo,
    /// None if it cannot be used, or not yet.
    disk: Option<LunDisk>,
    /// The disk before it, whose name it is to have when that one has gone.
    old: Option<(Arc<Burial>, Arc<Index>)>,
}

/// All LUNs; none once the adapter goes.
type Slots = KVec<Option<Known>>;

/// The disks of an adapter.
#[pin_data]
pub(crate) struct Luns {
    device: ARef<device::Device>,
    registers: Arc<Registers>,
    tags: Arc<TagSet<Queue>>,
    usage: Arc<Usage>,
    signals: Arc<Signals>,
    features: u64,
    /// Whether a disk is yet to get other limits.
    late: Atomic<u32>,
    #[pin]
    slots: Mutex<Slots>,
    /// Disks that are being removed, and some that were.
    #[pin]
    leaving: Mutex<KVec<Arc<Burial>>>,
}

impl Luns {
    /// No disks yet, of an adapter with so many LUNs at most.
    pub(crate) fn new(
        device: ARef<device::Device>,
        registers: Arc<Registers>,
        tags: Arc<TagSet<Queue>>,
        usage: Arc<Usage>,
        signals: Arc<Signals>,
        features: u64,
        count: usize,
    ) -> Result<impl PinInit<Self>> {
        let mut slots = KVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            slots.push(None, GFP_KERNEL)?;
        }
        Ok(pin_init!(Self {
            device,
            registers,
            tags,
            usage,
            signals,
            features,
            late: Atomic::new(0),
            slots <- new_mutex!(slots, "avio_stor_slots"),
            leaving <- new_mutex!(KVec::new(), "avio_stor_leaving"),
        }))
    }

    /// Reads all descriptions and makes the disks agree with them.
    pub(crate) fn scan(&self) {
        if self.registers.is_gone() {
            return;
        }
        // A reset of the adapter, for which all I/O waits, waits for this.
        let _no_io = NoIo::new();
        self.late.store(0, Relaxed);
        let mut slots = self.slots.lock();
        for (lun, slot) in (0..u16::MAX).zip(slots.iter_mut()) {
            match read(&self.registers, lun) {
                Ok(info) => self.look(lun, slot, info),
                Err(error) => {
                    dev_err!(
                        self.device,
                        "LUN {lun}: its description keeps changing: {error:?}\n"
                    );
                }
            }
        }
        drop(slots);
        if self.is_late() {
            self.signals.scan();
        }
    }

    /// Whether a disk is yet to get other limits, so that the next look may wait a little.
    pub(crate) fn is_late(&self) -> bool {
        self.late.load(Relaxed) != 0
    }

    /// Removes all disks, in good order, and never adds one again.
    pub(crate) fn close(&self) {
        let slots = core::mem::take(&mut *self.slots.lock());
        for known in slots.into_iter().flatten() {
            if let Some(disk) = &known.disk {
                drop(disk.opener().set_gone());
            }
        }
        let leaving = core::mem::take(&mut *self.leaving.lock());
        leaving.iter().for_each(Burial::wait);
    }

    /// Whether a LUN has no disk yet, because the one before it still has requests.
    pub(crate) fn is_waiting(&self, lun: u16) -> bool {
        self.scan();
        let slots = self.slots.lock();
        matches!(slots.get(usize::from(lun)), Some(Some(known)) if known.old.is_some())
    }

    /// Makes a LUN's disk agree with its description.
    fn look(&self, lun: u16, slot: &mut Option<Known>, info: Option<LunInfo>) {
        let Some(info) = info else {
            if let Some(known) = slot.take() {
                dev_info!(self.device, "LUN {lun}: removed\n");
                self.usage.set_disk(lun, None);
                known.disk.and_then(|disk| self.bury(disk));
            }
            return;
        };
        if let Some(known @ Known { old: None, .. }) = slot {
            if known.info == info {
                return;
            }
            if let Some(info) = self.update(lun, known, &info) {
                known.info = info;
                return;
            }
        }
        self.usage
            .set_gated(lun, info.flags & lun_flags::GATED != 0);
        let (index, old) = match slot.take() {
            Some(Known {
                disk: Some(disk), ..
            }) => (Some(disk.index()), self.bury(disk)),
            Some(Known {
                old: Some((old, index)),
                ..
            }) => (Some(index), Some(old)),
            _ => (None, None),
        };
        let old = old.filter(|old| !old.is_over()).zip(index.clone());
        let disk = if old.is_some() {
            None
        } else {
            self.add(lun, &info, index)
                .inspect_err(|error| {
                    self.usage.set_disk(lun, None);
                    dev_err!(self.device, "LUN {lun}: cannot be used: {error:?}\n");
                })
                .ok()
        };
        *slot = Some(Known { info, disk, old });
    }

    /// What needs no new disk: what is then true of the LUN's. None if the change is another one.
    fn update(&self, lun: u16, known: &Known, new: &LunInfo) -> Option<LunInfo> {
        let (Some(disk), old) = (&known.disk, &known.info) else {
            return None;
        };
        let (gated, changed) = (lun_flags::GATED, old.flags ^ new.flags);
        // All that differs is `changes`: without a name of its own, this may be another LUN.
        let unnamed = old.serial == [0; 40] && old.wwn == [0; 16];
        let unchanged = LunInfo {
            changes: old.changes,
            ..*new
        };
        let another = unnamed && unchanged == *old;
        let before = limits(old, self.features).ok()?;
        let after = limits(new, self.features).ok()?;
        if another
            || old.serial != new.serial
            || old.wwn != new.wwn
            || changed & new.flags & gated != 0
            || !before.becomes(&after)
        {
            return None;
        }
        let now = match disk.set_limits(&before, &after) {
            Ok(()) => *new,
            // Who changes them may wait for requests, and those for a backing that hangs.
            Err(EAGAIN) => {
                self.late.store(1, Relaxed);
                let told = lun_flags::LOST | gated;
                LunInfo {
                    sectors: new.sectors,
                    changes: new.changes,
                    flags: old.flags & !told | new.flags & told,
                    ..*old
                }
            }
            Err(_) => return None,
        };
        if changed & gated != 0 {
            self.usage.set_gated(lun, false);
        }
        self.show(lun, disk, old, new);
        Some(now)
    }

    /// Has a disk show another capacity and medium, and the log whatever has changed.
    fn show(&self, lun: u16, disk: &LunDisk, old: &LunInfo, new: &LunInfo) {
        let changed = old.flags ^ new.flags;
        if old.sectors != new.sectors {
            dev_info!(
                self.device,
                "LUN {lun}: from {} to {} sectors of {SECTOR_SIZE} bytes\n",
                old.sectors,
                new.sectors
            );
            disk.set_capacity(new.sectors);
        }
        if changed & lun_flags::LOST != 0 {
            if new.flags & lun_flags::LOST != 0 {
                dev_err!(
                    self.device,
                    "LUN {lun}: lost its backing; I/O fails until it is back\n"
                );
            } else {
                dev_info!(self.device, "LUN {lun}: its backing is back\n");
            }
        }
        if changed & lun_flags::GATED != 0 {
            dev_info!(self.device, "LUN {lun}: its new backing was accepted\n");
            disk.rescan();
        }
    }

    /// Ends the use of a disk of whose LUN nothing is left, even while it is open, and has it removed when its last
    /// request has ended. None if there is no memory for that, and it went here and now.
    fn bury(&self, disk: LunDisk) -> Option<Arc<Burial>> {
        disk.shut();
        let leaving = disk.opener().set_gone();
        let burial = Burial::new(disk, leaving, self.signals.clone()).ok()?;
        let mut leaving = self.leaving.lock();
        match leaving.iter_mut().find(|burial| burial.is_over()) {
            Some(place) => *place = burial.clone(),
            None => leaving.push(burial.clone(), GFP_KERNEL).ok()?,
        }
        burial.begin();
        Some(burial)
    }

    /// Adds a disk, by the name that this number gives or by a new one.
    fn add(&self, lun: u16, info: &LunInfo, index: Option<Arc<Index>>) -> Result<LunDisk> {
        let limits = limits(info, self.features)?;
        let index = match index {
            Some(index) => index,
            None => Arc::new(Index::new(Kind::Disk)?, GFP_KERNEL)?,
        };
        let name = disk_name(index.get());
        let texts = texts(lun, info)?;
        self.usage.set_disk(lun, Some(index.get()));
        let disk = Disk::add(
            self.tags.clone(),
            &self.device,
            lun,
            index,
            &name,
            texts,
            &limits,
            OpenLun::new(self.usage.clone(), lun),
        )?;
        let text = CStr::from_bytes_until_nul(&name).unwrap_or(c"avio");
        let rights = if limits.read_only { ", read-only" } else { "" };
        dev_info!(
            self.device,
            "{text}: LUN {lun}, {} sectors of {SECTOR_SIZE} bytes{rights}\n",
            limits.sectors
        );
        Ok(disk)
    }
}
