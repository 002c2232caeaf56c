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
    features: u64,
    #[pin]
    slots: Mutex<Slots>,
}

impl Luns {
    /// No disks yet, of an adapter with so many LUNs at most.
    pub(crate) fn new(
        device: ARef<device::Device>,
        registers: Arc<Registers>,
        tags: Arc<TagSet<Queue>>,
        usage: Arc<Usage>,
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
            features,
            slots <- new_mutex!(slots, "avio_stor_slots"),
        }))
    }

    /// Reads all descriptions and makes the disks agree with them.
    pub(crate) fn scan(&self) {
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
                self.remove(lun, known);
                dev_info!(self.device, "LUN {lun}: removed\n");
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
            self.remove(lun, known);
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
        let alike = matches!((same(old), same(new)), (Ok(old), Ok(new)) if old == new);
        if !alike
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

    /// Removes a disk of whose LUN nothing is left, even while it is open.
    fn remove(&self, lun: u16, known: Known) {
        self.usage.set_disk(lun, None);
        if let Some(disk) = known.disk {
            disk.mark_gone();
            disk.opener().set_gone();
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
        if info.flags & lun_flags::GATED != 0 {
            let serial = CStr::from_bytes_until_nul(&texts.serial).unwrap_or(c"");
            let adapter = self.usage.adapter();
            dev_err!(
                self.device,
                "/dev/gvsd{adapter}, LUN {lun}: its backing was replaced by another one, serial {serial}. Every open of /dev/{text} and all its I/O fails until you type: gvsdmgr replace_dsk -D /dev/gvsd{adapter} -q lun=/dev/{text}\n"
            );
        }
        Ok(disk)
    }
}
