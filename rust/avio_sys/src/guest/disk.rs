// SPDX-License-Identifier: GPL-2.0

//! Block devices on a tag set.
//!
//! Device numbers come from the kernel's dynamic range for block devices, so there is no major number to register.

use super::blkmq::{HwQueue, TagSet};
use core::mem::MaybeUninit;
use core::ptr::{null_mut, NonNull};
use kernel::device;
use kernel::error::{from_err_ptr, to_result};
use kernel::prelude::*;
use kernel::static_lock_class;
use kernel::sync::Arc;

/// A number that no other disk of the driver has, from which its name is made.
///
/// # Invariants
///
/// The number came from the shim's allocator and is not in use elsewhere.
pub struct DiskIndex(u32);

impl DiskIndex {
    /// The lowest free number.
    pub fn new() -> Result<Self> {
        // SAFETY: The allocator is initialised statically.
        let index = unsafe { avio_bindings::avio_disk_index_get() };
        to_result(index)?;
        // INVARIANT: Just allocated. Not negative, as it is no error.
        Ok(Self(index as u32))
    }

    /// The number.
    pub fn get(&self) -> u32 {
        self.0
    }
}

impl Drop for DiskIndex {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the number was allocated, and it is given back once.
        unsafe { avio_bindings::avio_disk_index_put(self.0) };
    }
}

/// What a disk is and can take.
pub struct Limits {
    /// Capacity, in units of 512 bytes.
    pub sectors: u64,
    /// Logical block size in bytes.
    pub logical_block: u32,
    /// Physical block size in bytes.
    pub physical_block: u32,
    /// Most units of 512 bytes in a request.
    pub max_sectors: u32,
    /// Most segments in a request.
    pub max_segments: u16,
    /// What addresses of memory must be a multiple of, in bytes.
    pub segment_align: u32,
    /// There is a write cache, which flushes empty.
    pub write_cache: bool,
    /// Writes can be made durable one by one.
    pub fua: bool,
    /// Seeks cost time.
    pub rotational: bool,
    /// Writes are refused.
    pub read_only: bool,
}

impl Limits {
    fn to_c(&self) -> avio_bindings::queue_limits {
        // SAFETY: Integers only, for which all zeroes is a legal value and means the default.
        let mut c: avio_bindings::queue_limits = unsafe { MaybeUninit::zeroed().assume_init() };
        c.logical_block_size = self.logical_block;
        c.physical_block_size = self.physical_block;
        c.max_hw_sectors = self.max_sectors;
        c.max_segments = self.max_segments;
        c.max_segment_size = u32::MAX;
        c.seg_boundary_mask = usize::MAX;
        c.dma_alignment = self.segment_align.wrapping_sub(1);
        // SAFETY: These return constants.
        let (write_cache, fua) = unsafe {
            (
                avio_bindings::avio_blk_feat_write_cache(),
                avio_bindings::avio_blk_feat_fua(),
            )
        };
        let feature = |on, bit| if on { bit } else { 0 };
        c.features = feature(self.write_cache, write_cache)
            | feature(self.fua, fua)
            | feature(self.rotational, avio_bindings::BLK_FEAT_ROTATIONAL);
        c
    }
}

/// Room for a serial number and the zero behind it.
pub type Serial = [u8; 41];

/// A block device. Dropping it removes it, after its requests have ended. May sleep.
///
/// # Invariants
///
/// `gendisk` was added and not removed; its private data points to `_serial`.
pub struct Disk<Q: HwQueue> {
    gendisk: NonNull<avio_bindings::gendisk>,
    _serial: KBox<Serial>,
    _index: DiskIndex,
    _set: Arc<TagSet<Q>>,
}

// SAFETY: A disk may be removed by any thread.
unsafe impl<Q: HwQueue> Send for Disk<Q> {}

// SAFETY: There is nothing to do with a shared reference.
unsafe impl<Q: HwQueue> Sync for Disk<Q> {}

impl<Q: HwQueue> Disk<Q> {
    /// Adds a disk with this name, which may be opened at once. Its requests carry `number`.
    ///
    /// The last byte of `serial` must be zero.
    pub fn add(
        set: Arc<TagSet<Q>>,
        parent: &device::Device<device::Bound>,
        number: u16,
        index: DiskIndex,
        name: &[u8],
        serial: Serial,
        limits: &Limits,
    ) -> Result<Self> {
        if serial.last() != Some(&0) {
            return Err(EINVAL);
        }
        let serial = KBox::new(serial, GFP_KERNEL)?;
        let gendisk = Self::alloc(&set, number, limits)?;
        // SAFETY: The disk is fresh and ours alone. The parent is a transparent wrapper of the C device. The serial
        // number stays where it is, and until the disk was removed.
        let added = unsafe {
            let disk = gendisk.as_ptr();
            (*disk).private_data = (&raw const *serial).cast_mut().cast();
            (*disk).fops = avio_bindings::avio_disk_fops();
            let room = (*disk).disk_name.len() - 1;
            for (to, from) in (*disk).disk_name.iter_mut().zip(name.iter().take(room)) {
                *to = *from;
            }
            avio_bindings::set_capacity(disk, limits.sectors);
            avio_bindings::set_disk_ro(disk, limits.read_only);
            let parent = core::ptr::from_ref(parent).cast_mut().cast();
            to_result(avio_bindings::device_add_disk(
                parent,
                disk,
                avio_bindings::avio_disk_attributes(),
            ))
        };
        if let Err(error) = added {
            // SAFETY: The disk was not added, and this is its only reference.
            unsafe { avio_bindings::put_disk(gendisk.as_ptr()) };
            return Err(error);
        }
        // INVARIANT: Just added.
        Ok(Self {
            gendisk,
            _serial: serial,
            _index: index,
            _set: set,
        })
    }

    fn alloc(
        set: &TagSet<Q>,
        number: u16,
        limits: &Limits,
    ) -> Result<NonNull<avio_bindings::gendisk>> {
        let mut c = limits.to_c();
        let data = null_mut::<u8>().wrapping_add(number.into()).cast();
        // SAFETY: The tag set is initialised and kept by the disk. The queue data is a number in a pointer's clothes,
        // which only `Request::disk` reads.
        let disk = from_err_ptr(unsafe {
            avio_bindings::__blk_mq_alloc_disk(
                set.as_raw(),
                &mut c,
                data,
                static_lock_class!().as_ptr(),
            )
        })?;
        NonNull::new(disk).ok_or(ENOMEM)
    }
}

impl<Q: HwQueue> Drop for Disk<Q> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the disk was added and not removed. Removing it waits until no request is
        // left and no attribute is being read; who has it open still holds a reference of his own, to a dead disk.
        unsafe {
            avio_bindings::del_gendisk(self.gendisk.as_ptr());
            avio_bindings::put_disk(self.gendisk.as_ptr());
        }
    }
}
