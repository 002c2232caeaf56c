// SPDX-License-Identifier: GPL-2.0

//! An open block device, taken from a descriptor of the calling process.

use super::flight::MAX_RANGE_SECTORS;
use avio_abi::stor::{lun_flags, LunInfo};
use avio_bindings as bindings;
use core::ptr::NonNull;
use kernel::prelude::*;

/// An open block device. It stays open as long as this lives, whatever its opener does.
///
/// # Invariants
///
/// `file` is an open file of the block device `bdev`, to which we own a reference.
pub struct BlockFile {
    file: NonNull<bindings::file>,
    bdev: NonNull<bindings::block_device>,
}

// SAFETY: Files and block devices are reference-counted and lock themselves; the pointers do not change.
unsafe impl Send for BlockFile {}
// SAFETY: As above.
unsafe impl Sync for BlockFile {}

impl BlockFile {
    /// Takes a reference to the block device behind a descriptor.
    ///
    /// # Errors
    ///
    /// `EBADF` if there is no such descriptor, `ENOTBLK` if it is not a block device that is open for reading.
    pub fn from_fd(fd: i32) -> Result<Self> {
        let fd = u32::try_from(fd).map_err(|_| EBADF)?;
        // SAFETY: The function checks the descriptor; it has no other requirement.
        let file = NonNull::new(unsafe { bindings::fget(fd) }).ok_or(EBADF)?;
        // SAFETY: `file` is an open file.
        let bdev = NonNull::new(unsafe { bindings::avio_file_bdev(file.as_ptr()) });
        match bdev {
            // INVARIANT: `fget` gave us a reference, and the file is of this block device.
            Some(bdev) => Ok(Self { file, bdev }),
            None => {
                // SAFETY: `fget` gave us a reference.
                unsafe { bindings::fput(file.as_ptr()) };
                Err(ENOTBLK)
            }
        }
    }

    /// Whether it was opened for writing.
    pub fn writable(&self) -> bool {
        // SAFETY: By the type's invariant the pointers are alive.
        unsafe {
            bindings::avio_file_writable(self.file.as_ptr())
                && !bindings::avio_bdev_read_only(self.bdev.as_ptr())
        }
    }

    /// Drops the page cache of the device, as bios go past it; `false` if some of it is yet to be written, for which
    /// this does not wait.
    #[must_use]
    pub fn forget_cache(&self) -> bool {
        // SAFETY: By the type's invariant the device is open.
        unsafe { bindings::avio_bdev_forget_cache(self.as_ptr()) }
    }

    /// What the device is and can take, as far as the device itself says.
    pub fn info(&self) -> LunInfo {
        let bdev = self.as_ptr();
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        let block_sectors = (self.logical_block() / avio_abi::SECTOR_SIZE as u32).max(1);
        // Whole blocks, and no more than one bio can name.
        let range = |most: u32| {
            let most = most.min(MAX_RANGE_SECTORS);
            most.saturating_sub(most.checked_rem(block_sectors).unwrap_or(most))
        };
        // SAFETY: By the type's invariant the device is open, so that its queue and limits exist.
        unsafe {
            LunInfo {
                flags: lun_flags::PRESENT
                    | flag(
                        bindings::avio_bdev_write_cache(bdev),
                        lun_flags::WRITE_CACHE,
                    )
                    | flag(bindings::avio_bdev_fua(bdev), lun_flags::FUA)
                    | flag(
                        !bindings::avio_bdev_rotational(bdev),
                        lun_flags::NON_ROTATIONAL,
                    )
                    | flag(
                        bindings::avio_bdev_stable_writes(bdev),
                        lun_flags::STABLE_WRITES,
                    ),
                logical_block: bindings::avio_bdev_logical_block(bdev),
                sectors: bindings::avio_bdev_sectors(bdev),
                physical_block: bindings::avio_bdev_physical_block(bdev),
                segment_align: bindings::avio_bdev_dma_alignment(bdev)
                    .saturating_add(1)
                    .max(512)
                    .max(bindings::avio_bdev_logical_block(bdev)),
                io_min: bindings::avio_bdev_io_min(bdev),
                io_opt: bindings::avio_bdev_io_opt(bdev),
                max_discard: range(bindings::avio_bdev_max_discard(bdev)),
                discard_granularity: bindings::avio_bdev_discard_granularity(bdev),
                max_secure_erase: range(bindings::avio_bdev_max_secure_erase(bdev)),
                max_write_zeroes: range(bindings::avio_bdev_max_write_zeroes(bdev)),
                ..LunInfo::default()
            }
        }
    }

    /// Whether it has zones that must be written in order.
    pub fn zoned(&self) -> bool {
        // SAFETY: By the type's invariant the device is open, so that its queue and limits exist.
        unsafe { bindings::avio_bdev_zoned(self.as_ptr()) }
    }

    /// Whether the driver may sleep over a request all the same, which stays as it is; also if the device is gone.
    pub(super) fn blocking(&self) -> bool {
        // SAFETY: By the type's invariant the device is open, so that its queue exists.
        unsafe { bindings::avio_bdev_blocking(self.as_ptr()) }
    }

    /// Whether the driver keeps no submitter waiting whose bio says so.
    pub(super) fn nowait(&self) -> bool {
        // SAFETY: By the type's invariant the device is open, so that its queue and limits exist.
        unsafe { bindings::avio_bdev_nowait(self.as_ptr()) }
    }

    /// Logical block size in bytes.
    pub(super) fn logical_block(&self) -> u32 {
        // SAFETY: By the type's invariant the device is open, so that its queue and limits exist.
        unsafe { bindings::avio_bdev_logical_block(self.as_ptr()) }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::block_device {
        self.bdev.as_ptr()
    }
}

impl Drop for BlockFile {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant the reference is ours to give up.
        unsafe { bindings::fput(self.file.as_ptr()) }
    }
}
