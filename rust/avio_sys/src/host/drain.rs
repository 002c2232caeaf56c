// SPDX-License-Identifier: GPL-2.0

//! A count of things in flight that can be waited out.

use avio_bindings as bindings;
use kernel::sync::atomic::{Acquire, Atomic, Full};

/// A count of things in flight.
#[repr(transparent)]
pub(super) struct InFlight(Atomic<i32>);

impl InFlight {
    pub(super) const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// One more, fully ordered. The caller sees to it that nobody waits meanwhile, or does not care.
    pub(super) fn enter(&self) {
        self.0.fetch_add(1, Full);
    }

    /// One less. This is the last access to the counter: a waiter may free it at once.
    pub(super) fn leave(&self) {
        // SAFETY: The counter is an `atomic_t` (`Atomic<i32>` has its layout) that is alive until the count, which
        // includes ours, has gone to zero. The wake-up uses its address only as a hash key.
        unsafe { bindings::avio_dec_and_wake(self.as_ptr()) }
    }

    /// Waits until nothing is in flight. Sleeps.
    pub(super) fn wait(&self) {
        // SAFETY: The counter is an `atomic_t` and outlives the call.
        unsafe { bindings::avio_wait_zero(self.as_ptr()) }
    }

    /// How many there are. Who reads zero sees all that the last one did.
    pub(super) fn count(&self) -> u32 {
        self.0.load(Acquire).unsigned_abs()
    }

    fn as_ptr(&self) -> *mut bindings::atomic_t {
        core::ptr::from_ref(self).cast_mut().cast()
    }
}
