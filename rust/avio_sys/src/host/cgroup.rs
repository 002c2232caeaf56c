// SPDX-License-Identifier: GPL-2.0

//! A cgroup for a disk's bios, so that limits and weights of the block layer hold for that disk alone.

use avio_bindings as bindings;
use core::ffi::c_void;
use kernel::error::from_err_ptr;
use kernel::prelude::*;

/// A cgroup that bios belong to.
///
/// # Invariants
///
/// The pointer is one of `avio_cgroup_get`'s or `avio_cgroup_current`'s, which is ours to give up.
pub struct Cgroup(*mut c_void);

// SAFETY: What the pointer leads to locks itself, and the pointer does not change.
unsafe impl Send for Cgroup {}
// SAFETY: As above.
unsafe impl Sync for Cgroup {}

impl Cgroup {
    /// Takes a reference to the cgroup behind a descriptor.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the cgroup has no I/O controller of its own, `EACCES` or `EPERM` if the caller may not write to it;
    /// another if it is not an open directory of cgroup v2.
    pub fn from_fd(fd: i32) -> Result<Self> {
        // SAFETY: The function checks the descriptor; it has no other requirement.
        let cgroup = from_err_ptr(unsafe { bindings::avio_cgroup_get(fd) })?;
        // INVARIANT: Just taken.
        Ok(Self(cgroup))
    }

    /// That of the calling process.
    pub(super) fn current() -> Self {
        // SAFETY: No requirements.
        // INVARIANT: Just taken.
        Self(unsafe { bindings::avio_cgroup_current() })
    }

    /// A `struct cgroup_subsys_state`, or null in a kernel that has none for I/O.
    pub(super) fn as_ptr(&self) -> *mut c_void {
        self.0
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant.
        unsafe { bindings::avio_cgroup_put(self.0) }
    }
}
