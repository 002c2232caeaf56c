// SPDX-License-Identifier: GPL-2.0

//! Having a virtual processor do something before it goes back into its guest.
//!
//! C header: `include/linux/task_work.h`. The kernel crate has no wrapper for it.

use avio_bindings as bindings;
use core::ffi::c_void;
use kernel::error::from_err_ptr;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full, Relaxed, Release};

/// What a virtual processor can be made to do.
///
/// # Invariants
///
/// `visit` is one of `avio_visit_new`'s, and pending only while `queued` is not zero.
pub(super) struct Visit {
    visit: *mut c_void,
    /// The task whose the next call is, or zero.
    queued: Atomic<usize>,
}

// SAFETY: What is behind the pointer is used by atomics, or by who has changed `queued`, or in `drop`.
unsafe impl Send for Visit {}
// SAFETY: As above.
unsafe impl Sync for Visit {}

impl Visit {
    /// One that calls `run` with `arg`, for virtual processors of the calling process.
    ///
    /// # Safety
    ///
    /// `run` may be called with `arg`, in any task, until [`close`](Self::close) has returned.
    pub(super) unsafe fn new(
        run: unsafe extern "C" fn(*mut c_void),
        arg: *mut c_void,
    ) -> Result<Self> {
        // SAFETY: By the function's requirement.
        let visit = from_err_ptr(unsafe { bindings::avio_visit_new(Some(run), arg) })?;
        // INVARIANT: Just made, and not pending.
        Ok(Self {
            visit,
            queued: Atomic::new(0),
        })
    }

    /// Whether the current task is a virtual processor's that serves an exit of its guest.
    pub(super) fn in_vcpu(&self) -> bool {
        // SAFETY: By the type's invariant.
        unsafe { bindings::avio_visit_in_vcpu(self.visit) }
    }

    /// Whether the current task, a virtual processor's, has the next call before it. It may be that another has: that may
    /// be kept from its processor for long. To be called by one task at a time.
    pub(super) fn queue(&self) -> bool {
        // SAFETY: No requirements.
        let current = unsafe { bindings::avio_current() };
        match self.queued.load(Relaxed) {
            0 => {}
            other => return other == current,
        }
        self.queued.xchg(current, Full);
        // SAFETY: By the type's invariant, and as `queued` was zero, the visit is not pending.
        if unsafe { bindings::avio_visit_queue(self.visit) } {
            return true;
        }
        self.queued.store(0, Release);
        false
    }

    /// To be called first by `run`: what happens from now on is another call's.
    pub(super) fn begin(&self) {
        // INVARIANT: `run` is called, so the visit is not pending any more.
        self.queued.xchg(0, Full);
    }

    /// No call begins any more; waits for those that have. Sleeps.
    pub(super) fn close(&self) {
        // SAFETY: By the type's invariant.
        unsafe { bindings::avio_visit_close(self.visit) }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.close();
        // SAFETY: By the type's invariant; it is closed.
        unsafe { bindings::avio_visit_drop(self.visit) }
    }
}

/// What a module that has visits drops last, when nobody can begin one any more: waits until all have returned.
pub struct VisitsEnd;

impl Drop for VisitsEnd {
    fn drop(&mut self) {
        // SAFETY: No requirements. Sleeps.
        unsafe { bindings::avio_visit_exit() }
    }
}
