// SPDX-License-Identifier: GPL-2.0

//! Having a virtual processor do something before it goes back into its guest.
//!
//! C header: `include/linux/task_work.h`. The kernel crate has no wrapper for it.

use super::drain::InFlight;
use avio_bindings as bindings;
use core::ffi::c_void;
use kernel::error::from_err_ptr;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full, Release};

/// What a virtual processor can be made to do.
///
/// # Invariants
///
/// `visit` is one of `avio_visit_new`'s, and pending only while `queued` is not zero.
pub(super) struct Visit {
    visit: *mut c_void,
    queued: Atomic<i32>,
    under_way: InFlight,
}

impl Visit {
    /// One that calls `run` with `arg`.
    ///
    /// # Safety
    ///
    /// `run` may be called with `arg`, in any task, until [`wait`](Self::wait) has returned and nobody calls
    /// [`queue`](Self::queue) any more.
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
            under_way: InFlight::new(),
        })
    }

    /// The current task's is the next call, if it is a virtual processor's, or another's is under way that has yet to
    /// [`begin`](Self::begin). Usable in any context.
    pub(super) fn queue(&self) -> bool {
        if self.queued.xchg(1, Full) != 0 {
            return true;
        }
        self.under_way.enter();
        // SAFETY: By the type's invariant, and as we have changed `queued`, the visit is not pending.
        if in_vcpu() && unsafe { bindings::avio_visit_queue(self.visit) } {
            return true;
        }
        self.queued.store(0, Release);
        self.under_way.leave();
        false
    }

    /// To be called first by `run`: what happens from now on is another call's.
    pub(super) fn begin(&self) {
        // INVARIANT: `run` is called, so the visit is not pending any more.
        self.queued.xchg(0, Full);
    }

    /// To be called last by `run`: the visit may be gone then.
    pub(super) fn end(&self) {
        self.under_way.leave();
    }

    /// Waits for the calls that are under way. Sleeps.
    pub(super) fn wait(&self) {
        self.under_way.wait();
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.wait();
        // SAFETY: By the type's invariant, and as no call is under way, it is not pending.
        unsafe { bindings::avio_visit_drop(self.visit) }
    }
}

/// Whether the current task is a virtual processor's that serves an exit of its guest.
pub(super) fn in_vcpu() -> bool {
    // SAFETY: No requirements.
    unsafe { bindings::avio_in_vcpu() }
}
