// SPDX-License-Identifier: GPL-2.0

//! Keeping a worker from its queue, without a lock that either would have to wait for.
//!
//! The worker says that it serves, then looks whether it may; who halts it forbids it, then looks whether it serves.
//! Both steps are fully ordered, so that one of the two sees the other.

use kernel::sync::atomic::{Acquire, Atomic, Full, Release};

/// Whether a queue may be served, and whether it is just being served.
pub(crate) struct Halt {
    halted: Atomic<bool>,
    serving: Atomic<bool>,
}

/// A pass of the worker. The queue counts as being served while it lives.
pub(crate) struct Pass<'a>(&'a Halt);

impl Halt {
    pub(crate) const fn new() -> Self {
        Self {
            halted: Atomic::new(false),
            serving: Atomic::new(false),
        }
    }

    /// Begins a pass, if it may. There is one at a time.
    pub(crate) fn enter(&self) -> Option<Pass<'_>> {
        self.serving.xchg(true, Full);
        let pass = Pass(self);
        (!self.halted()).then_some(pass)
    }

    /// From now on no pass begins. One may still go on.
    pub(crate) fn halt(&self) {
        self.halted.xchg(true, Full);
    }

    /// Passes may begin again.
    pub(crate) fn resume(&self) {
        self.halted.store(false, Release);
    }

    pub(crate) fn halted(&self) -> bool {
        self.halted.load(Acquire)
    }

    pub(crate) fn serving(&self) -> bool {
        self.serving.load(Acquire)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.serving.store(false, Release);
    }
}
