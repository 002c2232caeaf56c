// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! All `unsafe` of this program: memory that the device shares, ioctls, one capability, a child, a virtual machine's memory.

#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::sys::memfd::{memfd_create, MFdFlags};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicU8, Ordering};

/// Memory of a guest. The device may change it at any time, so no reference into it is ever made but to an atomic.
///
/// # Invariants
///
/// `base..base + len` is mapped until drop; readable and writable too, unless made by [`Mapping::anonymous`] with less.
pub struct Mapping {
    base: *mut u8,
    len: usize,
}

// SAFETY: the memory belongs to no thread, and is accessed by atomics only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeroed shared memory, as a VMM gives a guest: in huge pages where the kernel lets it, which are soon pinned.
    pub fn new(len: usize) -> Result<Self, Errno> {
        let mapping = Self::of_small_pages(len)?;
        // SAFETY: advice changes nothing of what is mapped. A kernel without huge pages refuses it, which is no harm.
        unsafe { libc::madvise(mapping.base.cast(), len, libc::MADV_HUGEPAGE) };
        Ok(mapping)
    }

    /// The same in small pages, each of which may lie anywhere in the host.
    pub fn of_small_pages(len: usize) -> Result<Self, Errno> {
        let file: OwnedFd = memfd_create(c"guest", MFdFlags::MFD_CLOEXEC)?;
        nix::unistd::ftruncate(&file, len as i64)?;
        Self::map(
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
        )
    }

    /// Private memory with this protection; with less than reading and writing, it must not be touched.
    pub fn anonymous(len: usize, protection: i32) -> Result<Self, Errno> {
        Self::map(len, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    /// Shared memory that is a file's.
    pub fn of_file(len: usize, file: &std::fs::File) -> Result<Self, Errno> {
        Self::map(
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
        )
    }

    fn map(len: usize, protection: i32, flags: i32, fd: i32) -> Result<Self, Errno> {
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, 0) };
        if base == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        // INVARIANT: the kernel has just mapped it.
        Ok(Self {
            base: base.cast(),
            len,
        })
    }

    /// Takes all access away, for good: whoever comes by its address is refused, and it must not be touched.
    pub fn protect(&self) -> Result<(), Errno> {
        // SAFETY: by the invariant it is ours, and no reference into it lives longer than a call.
        Errno::result(unsafe { libc::mprotect(self.base.cast(), self.len, libc::PROT_NONE) })
            .map(drop)
    }

    /// Address of the first byte, for a memory table.
    pub fn user_addr(&self) -> u64 {
        self.base as u64
    }

    /// A pointer to a `T` that lies aligned inside the mapping.
    fn pointer<T>(&self, offset: usize) -> *mut T {
        let size = size_of::<T>();
        assert!(
            offset % size == 0 && offset + size <= self.len,
            "offset {offset:#x} is outside the guest's memory"
        );
        self.base.wrapping_add(offset).cast()
    }

    pub fn u8(&self, offset: usize) -> &AtomicU8 {
        // SAFETY: by `pointer` aligned and inside; by the invariant mapped as long as `self`; atomics only.
        unsafe { AtomicU8::from_ptr(self.pointer(offset)) }
    }

    pub fn u32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as in `u8`.
        unsafe { AtomicU32::from_ptr(self.pointer(offset)) }
    }

    pub fn u64(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: as in `u8`.
        unsafe { AtomicU64::from_ptr(self.pointer(offset)) }
    }

    /// Copies bytes into the memory.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        if offset % 8 == 0 && bytes.len() % 8 == 0 {
            for (index, chunk) in bytes.chunks_exact(8).enumerate() {
                let word = u64::from_ne_bytes(chunk.try_into().expect("eight bytes"));
                self.u64(offset + 8 * index).store(word, Ordering::Relaxed);
            }
        } else {
            for (index, byte) in bytes.iter().enumerate() {
                self.u8(offset + index).store(*byte, Ordering::Relaxed);
            }
        }
    }

    /// Copies bytes out of the memory. Offset and length are multiples of 8.
    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        let word = |index| {
            self.u64(offset + 8 * index)
                .load(Ordering::Relaxed)
                .to_ne_bytes()
        };
        (0..len / 8).flat_map(word).collect()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: by the invariant it is ours, and nothing borrows from it any more.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

/// Calls an ioctl whose argument is a structure of the size that its number tells.
pub fn ioctl(fd: BorrowedFd<'_>, request: u32, argument: &mut [u8]) -> Result<(), Errno> {
    let size = (request >> 16 & 0x3fff) as usize;
    assert!(
        size <= argument.len(),
        "ioctl {request:#x} takes {size} bytes"
    );
    // SAFETY: the kernel reads and writes at most `size` bytes at the pointer, which `argument` has.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request.into(), argument.as_mut_ptr()) };
    Errno::result(result).map(drop)
}

/// Calls an ioctl with any number at all as its argument.
pub fn ioctl_raw(fd: BorrowedFd<'_>, request: u32, argument: u64) -> Result<(), Errno> {
    assert!(argument < 4096, "must not be an address of this program");
    // SAFETY: no memory of this program lies in the first page, so the kernel can write to none of it.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request.into(), argument) };
    Errno::result(result).map(drop)
}

/// Gives a virtual machine all of its memory, at address zero, and keeps it for as long as there is the machine.
pub fn give_memory(vm: &kvm_ioctls::VmFd, memory: &'static Mapping) -> Result<(), Errno> {
    let region = kvm_bindings::kvm_userspace_memory_region {
        memory_size: memory.len as u64,
        userspace_addr: memory.user_addr(),
        ..Default::default()
    };
    // SAFETY: the memory is mapped for as long as this program runs, and is accessed by atomics only.
    let given = unsafe { vm.set_user_memory_region(region) };
    given.map_err(|error| Errno::from_raw(error.errno()))
}

/// The same eventfd, as the crates for virtual machines want it.
pub fn eventfd(kick: BorrowedFd<'_>) -> std::io::Result<vmm_sys_util::eventfd::EventFd> {
    let fd = kick.try_clone_to_owned()?.into_raw_fd();
    // SAFETY: the descriptor was ours, and is given up.
    Ok(unsafe { vmm_sys_util::eventfd::EventFd::from_raw_fd(fd) })
}

/// Takes CAP_IPC_LOCK from the calling thread, which lets RLIMIT_MEMLOCK count for it.
pub fn drop_ipc_lock() -> Result<(), Errno> {
    const VERSION_3: u32 = 0x2008_0522;
    const IPC_LOCK: u32 = 14;
    let header: [u32; 2] = [VERSION_3, 0];
    let mut sets = [0u32; 6];
    // SAFETY: version 3 has a header of two words and sets of six; both outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) })?;
    sets[0] &= !(1 << IPC_LOCK);
    // SAFETY: as above.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) })
        .map(drop)
}

/// A child that shares all private memory with this process, copy on write, and does nothing until it is dropped.
pub struct Child(nix::unistd::Pid);

impl Child {
    pub fn fork() -> Result<Self, Errno> {
        // SAFETY: the child calls nothing but `pause`, which needs no lock that another thread may hold.
        match unsafe { nix::unistd::fork() }? {
            nix::unistd::ForkResult::Parent { child } => Ok(Self(child)),
            nix::unistd::ForkResult::Child => loop {
                nix::unistd::pause();
            },
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.0, nix::sys::signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(self.0, None);
    }
}
