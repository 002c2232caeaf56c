// SPDX-License-Identifier: GPL-2.0

//! The disks of an adapter, kept as the LUNs' descriptions are (`docs/abi.md`, 6.6).
//!
//! A LUN that only grows, shrinks or loses its backing keeps its disk. One whose identity or geometry changes, or whose
//! gate closes, gets a new disk by the same name: who had the old one open keeps a dead one, and so can never write
//! what belongs to one backing to another.
//!
//! Lock order: a disk's own locks, and those of [`Usage`], come behind `slots`, which is held while partitions are
//! read. So nothing that mends a stuck request may take it.

use crate::lun::{disk_name, limits, read, texts};
use crate::queue::Queue;
use crate::registers::Registers;
use crate::signals::Signals;
use crate::usage::{OpenLun, Usage};
use avio_abi::stor::{lun_flags, LunInfo};
use avio_abi::SECTOR_SIZE;
use avio_sys::guest::blkmq::TagSet;
use avio_sys::guest::disk::{Disk, Limits};
use avio_sys::guest::index::{Index, Kind};
use kernel::device;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::str::CStr;
use kernel::sync::aref::ARef;
use kernel::sync::{Arc, Mutex};

type LunDisk = Disk<Queue, OpenLun>;

/// What we know of a LUN that is there.
struct Known {
    info: LunInfo,
    /// None if it cannot be used.
    disk: Option<LunDisk>,
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
    #[pin]
    slots: Mutex<Slots>,
    /// Disks that are to be removed by somebody who may wait for their requests.
    #[pin]
    leaving: Mutex<KVec<LunDisk>>,
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
            slots <- new_mutex!(slots, "avio_stor_slots"),
            leaving <- new_mutex!(KVec::new(), "avio_stor_leaving"),
        }))
    }

    /// Reads all descriptions and makes the disks agree with them.
    pub(crate) fn scan(&self) {
        if self.registers.is_gone() {
            return;
        }
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
    }

    /// Removes all disks, in good order, and never adds one again.
    pub(crate) fn close(&self) {
        let slots = core::mem::take(&mut *self.slots.lock());
        self.bury();
        for known in slots.into_iter().flatten() {
            if let Some(disk) = &known.disk {
                disk.opener().set_gone();
            }
        }
    }

    /// Makes a LUN's disk agree with its description.
    fn look(&self, lun: u16, slot: &mut Option<Known>, info: Option<LunInfo>) {
        let Some(info) = info else {
            if let Some(known) = slot.take() {
                dev_info!(self.device, "LUN {lun}: removed\n");
                if let Some(disk) = self.end(lun, known) {
                    // If there is no memory for the list, the disk goes here and now.
                    let _ = self.leaving.lock().push(disk, GFP_KERNEL);
                    self.signals.bury();
                }
            }
            return;
        };
        let mut index = None;
        if let Some(known) = slot {
            if known.info == info || self.update(lun, known, &info) {
                known.info = info;
                return;
            }
            index = known.disk.as_ref().map(LunDisk::index);
        }
        self.usage
            .set_gated(lun, info.flags & lun_flags::GATED != 0);
        if let Some(known) = slot.take() {
            // Waits for what is in flight, as the new disk is to have the old one's name.
            drop(self.end(lun, known));
        }
        let disk = self.add(lun, &info, index).inspect_err(|error| {
            dev_err!(self.device, "LUN {lun}: cannot be used: {error:?}\n");
        });
        *slot = Some(Known {
            info,
            disk: disk.ok(),
        });
    }

    /// What needs no new disk; false if the change is another one.
    fn update(&self, lun: u16, known: &Known, new: &LunInfo) -> bool {
        let (Some(disk), old) = (&known.disk, &known.info) else {
            return false;
        };
        let (gated, changed) = (lun_flags::GATED, old.flags ^ new.flags);
        let same = |info| {
            Ok::<_, Error>(Limits {
                sectors: 0,
                ..limits(info, self.features)?
            })
        };
        // All that differs is `changes`: without a name of its own, this may be another LUN.
        let unnamed = old.serial == [0; 40] && old.wwn == [0; 16];
        let another = unnamed && old.flags == new.flags && old.sectors == new.sectors;
        let alike = matches!((same(old), same(new)), (Ok(old), Ok(new)) if old == new);
        if !alike
            || another
            || old.serial != new.serial
            || old.wwn != new.wwn
            || changed & new.flags & gated != 0
        {
            return false;
        }
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
        if changed & gated != 0 {
            dev_info!(self.device, "LUN {lun}: its new backing was accepted\n");
            self.usage.set_gated(lun, false);
            disk.rescan();
        }
        true
    }

    /// Ends the use of a disk of whose LUN nothing is left, even while it is open.
    fn end(&self, lun: u16, known: Known) -> Option<LunDisk> {
        self.usage.set_disk(lun, None);
        known.disk.inspect(|disk| {
            disk.mark_gone();
            disk.opener().set_gone();
        })
    }

    /// Removes the disks of LUNs that are gone, each when its last request has ended.
    pub(crate) fn bury(&self) {
        loop {
            let disk = self.leaving.lock().pop();
            if disk.is_none() {
                return;
            }
        }
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
        )
        .inspect_err(|_| self.usage.set_disk(lun, None))?;
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
