// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Memory that a device shares, and ioctls: all `unsafe` but that of io_uring.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicU8};

/// Memory of a guest, with a descriptor so that another program can map it too. The device may change it at any time,
/// so no reference into it is ever made but to an atomic.
///
/// # Invariants
///
/// `base..base + len` is mapped, readable and writable, until drop.
pub struct Mapping {
    base: *mut u8,
    len: usize,
    file: File,
}

impl Mapping {
    /// Zeroed memory, every page of it there.
    pub fn new(len: usize) -> Result<Self, Error> {
        // SAFETY: the name is a string of C's, and lives longer than the call.
        let fd = unsafe { libc::memfd_create(c"guest".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: the kernel has just given us the descriptor.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(len as u64)?;
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_POPULATE,
        );
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        // INVARIANT: the kernel has just mapped it.
        Ok(Self {
            base: base.cast(),
            len,
            file,
        })
    }

    /// The descriptor; its first byte is the memory's.
    pub fn raw_fd(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Address of the first byte.
    pub fn user_addr(&self) -> u64 {
        self.base as u64
    }

    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// A pointer to a `T` that lies aligned inside the mapping.
    pub fn pointer<T>(&self, offset: usize) -> *mut T {
        let size = size_of::<T>();
        assert!(
            offset % align_of::<T>() == 0 && offset + size <= self.len,
            "offset {offset:#x} is outside the guest's memory"
        );
        self.base.wrapping_add(offset).cast()
    }

    pub fn u8(&self, offset: usize) -> &AtomicU8 {
        // SAFETY: by `pointer` aligned and inside; by the invariant mapped as long as `self`; atomics only.
        unsafe { AtomicU8::from_ptr(self.pointer(offset)) }
    }

    pub fn u16(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: as in `u8`.
        unsafe { AtomicU16::from_ptr(self.pointer(offset)) }
    }

    pub fn u32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as in `u8`.
        unsafe { AtomicU32::from_ptr(self.pointer(offset)) }
    }

    pub fn u64(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: as in `u8`.
        unsafe { AtomicU64::from_ptr(self.pointer(offset)) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: by the invariant it is ours, and nothing borrows from it any more.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

/// Calls an ioctl whose argument is a structure of the size that its number tells.
pub fn ioctl(file: &File, request: u32, argument: &mut [u8]) -> Result<(), Error> {
    let size = ((request >> 16) & 0x3fff) as usize;
    assert!(
        size <= argument.len(),
        "ioctl {request:#x} takes {size} bytes"
    );
    // SAFETY: the kernel reads and writes `size` bytes at the pointer, which `argument` has; where a structure has a
    // tail beyond that, as vhost's memory table, it counts the tail itself.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request.into(), argument.as_mut_ptr()) };
    if result < 0 {
        return Err(Error::last_os_error());
    }
    Ok(())
}

/// Makes a descriptor wait again.
pub fn set_blocking(file: &impl AsRawFd) -> Result<(), Error> {
    // SAFETY: the call takes and gives numbers only.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    let wanted = flags & !libc::O_NONBLOCK;
    // SAFETY: as above.
    let set = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, wanted) };
    if flags < 0 || set < 0 {
        return Err(Error::last_os_error());
    }
    Ok(())
}
