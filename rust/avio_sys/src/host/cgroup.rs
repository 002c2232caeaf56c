// SPDX-License-Identifier: GPL-2.0

//! A cgroup for a disk's bios, so that limits and weights of the block layer hold for that disk alone.
//!
//! A controller may put whoever submits a bio to sleep until the cgroup's turn has come. A worker has many disks, and
//! must not be kept from the others: so a thread of the kernel's workqueues submits what belongs to such a cgroup.

use avio_bindings as bindings;
use core::ffi::c_void;
use core::ptr::NonNull;
use kernel::error::from_err_ptr;
use kernel::prelude::*;

/// A cgroup that bios belong to.
///
/// # Invariants
///
/// The pointer is one of `avio_cgroup_get`'s, which is ours to give up.
pub struct Cgroup(NonNull<c_void>);

// SAFETY: What the pointer leads to locks itself, and the pointer does not change.
unsafe impl Send for Cgroup {}
// SAFETY: As above.
unsafe impl Sync for Cgroup {}

impl Cgroup {
    /// Takes a reference to the cgroup behind a descriptor.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the cgroup has no I/O controller of its own, `EACCES` or `EPERM` if the caller may not write to it,
    /// `ENOMEM`; another if it is not an open directory of cgroup v2.
    pub fn from_fd(fd: i32) -> Result<Self> {
        // SAFETY: The function checks the descriptor; it has no other requirement.
        let cgroup = from_err_ptr(unsafe { bindings::avio_cgroup_get(fd) })?;
        // INVARIANT: Just made.
        NonNull::new(cgroup).map(Self).ok_or(EINVAL)
    }

    /// Has a bio submitted as one of this cgroup's.
    ///
    /// # Safety
    ///
    /// The bio is complete and the caller's, who gives it up; it ends before this `Cgroup` is dropped.
    pub(super) unsafe fn submit(&self, bio: *mut bindings::bio) {
        // SAFETY: By the type's invariant, and the function's requirement.
        unsafe { bindings::avio_cgroup_submit(self.0.as_ptr(), bio) }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant. All bios that were submitted have ended, so that none waits here.
        unsafe { bindings::avio_cgroup_put(self.0.as_ptr()) }
    }
}
