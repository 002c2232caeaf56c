// SPDX-License-Identifier: GPL-2.0

//! Bios that are submitted by a thread of their disk's own, as whoever submits them may have to sleep.
//!
//! A worker has many disks, and must not be kept from the others: a backing that has no request free, or a controller of
//! the cgroup whose turn has not come, holds up this thread and no other. It is one of the kernel's workqueues.

use super::cgroup::Cgroup;
use avio_bindings as bindings;
use core::ffi::c_void;
use core::ptr::NonNull;
use kernel::prelude::*;

/// Where a disk's bios are submitted that the worker does not submit.
///
/// # Invariants
///
/// The pointer is one of `avio_deferred_new`'s, which is ours to give up, and was made with this cgroup.
pub(super) struct Deferred {
    raw: NonNull<c_void>,
    cgroup: Cgroup,
}

// SAFETY: What the pointer leads to locks itself, and the pointer does not change.
unsafe impl Send for Deferred {}
// SAFETY: As above.
unsafe impl Sync for Deferred {}

impl Deferred {
    /// One for bios of this cgroup.
    pub(super) fn new(cgroup: Cgroup) -> Result<Self> {
        // SAFETY: The cgroup stays ours as long as what is made here, since it is dropped behind it.
        let raw = unsafe { bindings::avio_deferred_new(cgroup.as_ptr()) };
        // INVARIANT: Just made.
        Ok(Self {
            raw: NonNull::new(raw).ok_or(ENOMEM)?,
            cgroup,
        })
    }

    /// Whether bios wait here: then others of the disk go behind them, or the earlier ones might wait without end.
    pub(super) fn busy(&self) -> bool {
        // SAFETY: By the type's invariant.
        unsafe { bindings::avio_deferred_busy(self.raw.as_ptr()) }
    }

    /// Has a bio belong to the cgroup.
    ///
    /// # Safety
    ///
    /// The bio is the caller's, and was not submitted.
    pub(super) unsafe fn charge(&self, bio: *mut bindings::bio) {
        // SAFETY: By the function's requirement, and the cgroup is alive.
        unsafe { bindings::avio_bio_charge(bio, self.cgroup.as_ptr()) }
    }

    /// What `avio_deferred_submit` takes, in any context.
    pub(super) fn as_ptr(&self) -> *mut c_void {
        self.raw.as_ptr()
    }

    /// Has a new bio submitted.
    ///
    /// # Safety
    ///
    /// The bio is complete and the caller's, who gives it up. The disk waits until it has ended, and until the caller
    /// is done.
    pub(super) unsafe fn submit(&self, bio: *mut bindings::bio) {
        // SAFETY: By the type's invariant, and the function's requirement.
        unsafe { bindings::avio_deferred_submit(self.raw.as_ptr(), bio) }
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant. All bios that were submitted have ended, so that none waits here. The cgroup
        // goes afterwards, with the field.
        unsafe { bindings::avio_deferred_drop(self.raw.as_ptr()) }
    }
}
