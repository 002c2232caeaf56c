// SPDX-License-Identifier: GPL-2.0

//! Block devices on a tag set.
//!
//! Device numbers come from the kernel's dynamic range for block devices, so there is no major number to register.

use super::blkmq::{HwQueue, TagSet};
use super::index::Index;
use super::partitions::Look;
use super::request;
use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::ptr::{null_mut, NonNull};
use kernel::device;
use kernel::error::{from_err_ptr, to_result};
use kernel::module::this_module;
use kernel::prelude::*;
use kernel::static_lock_class;
use kernel::sync::Arc;
use kernel::ModuleMetadata;

/// Who is asked when a disk is opened, and told when it is closed again. Called in process context, not twice at a
/// time for one disk.
pub trait Opener: Send + Sync + 'static {
    /// The module that the code is in.
    type Module: ModuleMetadata;

    /// Whether the disk may be opened.
    fn open(&self) -> Result;

    /// An open file is gone. The disk may be gone already.
    fn close(&self);
}

/// What a disk is and can take.
#[derive(Clone, Copy, PartialEq, Eq)]
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
    /// Data that is being written must not change.
    pub stable_writes: bool,
    /// What requests should be a multiple of, in bytes, or zero.
    pub io_min: u32,
    /// What long transfers should be a multiple of, in bytes, or zero.
    pub io_opt: u32,
    /// Most units of 512 bytes in a discard; zero if there is none.
    pub max_discard: u32,
    /// What a discard should be a multiple of, in bytes.
    pub discard_granularity: u32,
    /// Most units of 512 bytes in a secure erase; zero if there is none.
    pub max_secure_erase: u32,
    /// Most units of 512 bytes that are zeroed at once; zero if there is no command for it.
    pub max_write_zeroes: u32,
}

impl Limits {
    /// Whether a disk in use can go on with others, which `Disk::set_limits` sets.
    pub fn becomes(&self, other: &Self) -> bool {
        // Who is stacked on it, dm for instance, has looked once whether there is a cache to be flushed.
        other.segment_align <= self.segment_align
            && (self.write_cache || !other.write_cache)
            && self.logical_block == other.logical_block
            && self.max_sectors == other.max_sectors
            && self.max_segments == other.max_segments
            && self.read_only == other.read_only
    }

    fn in_c(&self) -> avio_bindings::queue_limits {
        // SAFETY: Integers only, for which all zeroes is a legal value and means the default.
        let mut c: avio_bindings::queue_limits = unsafe { MaybeUninit::zeroed().assume_init() };
        c.logical_block_size = self.logical_block;
        c.physical_block_size = self.physical_block;
        c.max_hw_sectors = self.max_sectors;
        // The device's limit is the limit: by itself the block layer would stop at 1280 KiB.
        c.max_user_sectors = self.max_sectors;
        c.io_min = self.io_min;
        c.io_opt = self.io_opt;
        c.max_hw_discard_sectors = self.max_discard;
        c.discard_granularity = self.discard_granularity;
        c.max_secure_erase_sectors = self.max_secure_erase;
        c.max_write_zeroes_sectors = self.max_write_zeroes;
        c.max_segments = self.max_segments;
        c.max_segment_size = u32::MAX;
        c.seg_boundary_mask = usize::MAX;
        c.dma_alignment = self.segment_align.wrapping_sub(1);
        // SAFETY: These return constants.
        let (write_cache, fua, stable_writes) = unsafe {
            (
                avio_bindings::avio_blk_feat_write_cache(),
                avio_bindings::avio_blk_feat_fua(),
                avio_bindings::avio_blk_feat_stable_writes(),
            )
        };
        let feature = |on, bit| if on { bit } else { 0 };
        c.features = feature(self.write_cache, write_cache)
            | feature(self.fua, fua)
            | feature(self.stable_writes, stable_writes)
            | feature(self.rotational, avio_bindings::BLK_FEAT_ROTATIONAL);
        c
    }
}

/// A text that an attribute of the disk shows, with a zero behind it. The length is `AVIO_TEXT` of the shim.
pub type Text = [u8; 64];

/// Which text is which; the order is the shim's.
#[derive(Clone, Copy)]
pub struct Texts {
    /// Serial number.
    pub serial: Text,
    /// World-wide name.
    pub wwid: Text,
    /// Its number on the adapter.
    pub lun: Text,
}

/// What a disk's private data points to. Whoever has the disk open has a reference of its own, because closing is
/// possible when the disk is long gone.
#[repr(C)]
struct Data<O> {
    texts: [Text; 3],
    opener: O,
}

impl<O> Data<O> {
    fn new(texts: Texts, opener: O) -> Result<Arc<Self>> {
        let mut texts = [texts.serial, texts.wwid, texts.lun];
        for [.., last] in &mut texts {
            *last = 0;
        }
        Ok(Arc::new(Self { texts, opener }, GFP_KERNEL)?)
    }
}

/// A block device. Dropping it removes it, after its requests have ended. May sleep.
///
/// # Invariants
///
/// `gendisk` was added and not removed; its private data points to `data`. `look` has begun and not ended.
pub struct Disk<Q: HwQueue, O: Opener> {
    gendisk: NonNull<avio_bindings::gendisk>,
    data: Arc<Data<O>>,
    index: Arc<Index>,
    look: Arc<Look>,
    _set: Arc<TagSet<Q>>,
}

// SAFETY: A disk may be removed by any thread.
unsafe impl<Q: HwQueue, O: Opener> Send for Disk<Q, O> {}

// SAFETY: The C functions that are called with a shared reference have their own locks.
unsafe impl<Q: HwQueue, O: Opener> Sync for Disk<Q, O> {}

impl<Q: HwQueue, O: Opener> Disk<Q, O> {
    /// Adds a disk with this name, which may be opened at once. Its requests carry `number`. Its partitions come a little
    /// later: [`TagSet::wait_for_partitions`].
    #[allow(clippy::too_many_arguments)]
    pub fn add(
        set: Arc<TagSet<Q>>,
        parent: &device::Device,
        number: u16,
        index: Arc<Index>,
        name: &[u8],
        texts: Texts,
        limits: &Limits,
        opener: O,
    ) -> Result<Self> {
        let data = Data::new(texts, opener)?;
        let gendisk = Self::alloc(&set, number, limits)?;
        // SAFETY: The disk is fresh.
        let look = unsafe { Look::new(gendisk, set.looks()) };
        // SAFETY: The disk is fresh and ours alone. The data stays where it is until the disk was removed, and longer if
        // somebody has the disk open.
        unsafe { Self::describe(gendisk, &data, name, limits) };
        // SAFETY: The disk is fresh and ours alone. The parent is a transparent wrapper of the C device, and adding
        // fails if that is not in sysfs any more.
        let added = unsafe {
            let parent = core::ptr::from_ref(parent).cast_mut().cast();
            look.and_then(|look| {
                let attributes = avio_bindings::avio_disk_attributes();
                to_result(avio_bindings::device_add_disk(
                    parent,
                    gendisk.as_ptr(),
                    attributes,
                ))?;
                Ok(look)
            })
        };
        match added {
            Ok(look) => {
                // SAFETY: Once, and `drop` ends it.
                unsafe { look.begin() };
                // INVARIANT: Just added, and begun.
                Ok(Self {
                    gendisk,
                    data,
                    index,
                    look,
                    _set: set,
                })
            }
            Err(error) => {
                // SAFETY: The disk was not added, and this is its only reference.
                unsafe { avio_bindings::put_disk(gendisk.as_ptr()) };
                Err(error)
            }
        }
    }

    fn alloc(
        set: &TagSet<Q>,
        number: u16,
        limits: &Limits,
    ) -> Result<NonNull<avio_bindings::gendisk>> {
        let mut c = limits.in_c();
        let data = null_mut::<u8>().wrapping_add(number.into()).cast();
        // SAFETY: The tag set is initialised and kept by the disk. The queue data is a number in a pointer's clothes,
        // which only `super::request` uses.
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

    /// Says to a disk that was not added yet what it is: its data, operations, name and size.
    ///
    /// # Safety
    ///
    /// `gendisk` must be valid and the caller's alone, and `data` stay where it is for as long as somebody may have the disk
    /// open.
    unsafe fn describe(
        gendisk: NonNull<avio_bindings::gendisk>,
        data: &Arc<Data<O>>,
        name: &[u8],
        limits: &Limits,
    ) {
        let disk = gendisk.as_ptr();
        // SAFETY: By the safety requirements.
        unsafe {
            (*disk).private_data = Arc::as_ptr(data).cast_mut().cast();
            (*disk).fops = &Self::OPS;
            let room = (*disk).disk_name.len() - 1;
            for (to, from) in (*disk).disk_name.iter_mut().zip(name.iter().take(room)) {
                *to = *from;
            }
            avio_bindings::set_capacity(disk, limits.sectors);
            avio_bindings::set_disk_ro(disk, limits.read_only);
        }
    }

    /// The number that its name was made from.
    pub fn index(&self) -> Arc<Index> {
        self.index.clone()
    }

    /// Whom it was added for.
    pub fn opener(&self) -> &O {
        &self.data.opener
    }

    /// Has the driver fail all requests that it is given from now on, wherever they were until then.
    pub fn shut(&self) {
        // SAFETY: By the type invariant the disk was added and not removed, and so has its queue.
        unsafe { request::shut((*self.gendisk.as_ptr()).queue) };
    }

    /// Removes it as one that nothing is behind any more: who has it open meets errors, and file systems shut down
    /// without trying to write. May sleep, for as long as its requests take; but as the removal itself keeps a lock of
    /// the tag set, for which other disks would wait to come or go, it begins when there are none left.
    pub fn remove(self) {
        // SAFETY: By the type invariant the disk was added and not removed. Nothing is let into the queue of a dead disk,
        // so that it becomes empty.
        unsafe {
            avio_bindings::blk_mark_disk_dead(self.gendisk.as_ptr());
            avio_bindings::blk_mq_freeze_queue_wait((*self.gendisk.as_ptr()).queue);
        }
    }

    /// Changes its capacity, in units of 512 bytes, and tells user space. May sleep.
    pub fn set_capacity(&self, sectors: u64) {
        // SAFETY: By the type invariant the disk was added and not removed.
        unsafe { avio_bindings::set_capacity_and_notify(self.gendisk.as_ptr(), sectors) };
    }

    /// Changes, of limits that [become](Limits::becomes) others, those that differ and can be changed in use: cache, FUA,
    /// seeks, hints, and what is no read or write. What somebody has set by sysfs stays where they agree. Waits for no request.
    ///
    /// # Errors
    ///
    /// `EAGAIN` while somebody else changes limits; `EINVAL` if these make no sense. The disk keeps its own then.
    pub fn set_limits(&self, from: &Limits, to: &Limits) -> Result {
        let (from, to) = (from.in_c(), to.in_c());
        // SAFETY: By the type invariant the disk was added and not removed, and so has its queue.
        to_result(unsafe { avio_bindings::avio_disk_set_limits(self.gendisk.as_ptr(), &from, &to) })
    }

    /// Has whoever opens it next look for partitions first, and tells user space. May sleep.
    pub fn rescan(&self) {
        // SAFETY: By the type invariant the disk was added and not removed.
        unsafe { avio_bindings::avio_disk_rescan(self.gendisk.as_ptr()) };
    }

    const OPS: avio_bindings::block_device_operations = avio_bindings::block_device_operations {
        owner: this_module::<O::Module>().as_ptr(),
        open: Some(Self::open),
        release: Some(Self::release),
        // SAFETY: All fields are optional functions or pointers, for which all zeroes means none.
        ..unsafe { MaybeUninit::zeroed().assume_init() }
    };

    /// # Safety
    ///
    /// Only for the block layer, as the operation of this name.
    unsafe extern "C" fn open(
        disk: *mut avio_bindings::gendisk,
        _mode: avio_bindings::blk_mode_t,
    ) -> c_int {
        // SAFETY: The block layer opens no disk that was removed, so that the `Disk` still keeps the data.
        let data = unsafe { (*disk).private_data.cast::<Data<O>>().cast_const() };
        // SAFETY: As above.
        if let Err(error) = unsafe { &*data }.opener.open() {
            return error.to_errno();
        }
        // SAFETY: The pointer came from an `Arc` that lives. The first of the two references is not ours to drop; the
        // second one is the file's, and `release` drops it.
        unsafe {
            let theirs = core::mem::ManuallyDrop::new(Arc::from_raw(data));
            let _ = Arc::into_raw(Arc::clone(&theirs));
        }
        0
    }

    /// # Safety
    ///
    /// Only for the block layer, as the operation of this name.
    unsafe extern "C" fn release(disk: *mut avio_bindings::gendisk) {
        // SAFETY: There is one call for each successful one of `open`, which has left a reference.
        let data = unsafe { Arc::from_raw((*disk).private_data.cast::<Data<O>>().cast_const()) };
        data.opener.close();
    }
}

impl<Q: HwQueue, O: Opener> Drop for Disk<Q, O> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the disk was added and not removed. Removing it waits until no request is
        // left and no attribute is being read; who has it open still holds a reference of his own, to a dead disk. Who
        // looks for partitions uses ours.
        unsafe {
            avio_bindings::del_gendisk(self.gendisk.as_ptr());
            self.look.end();
            avio_bindings::put_disk(self.gendisk.as_ptr());
        }
    }
}
