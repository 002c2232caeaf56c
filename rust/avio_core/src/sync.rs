// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The one atomic that this crate needs for its own state, in three builds: the kernel's (LKMM), Loom's, and core's.
//!
//! Only private state goes through it. Shared memory goes through [`QueueMemory`](crate::ring::QueueMemory).

#[cfg(avio_kernel)]
mod imp {
    use kernel::sync::atomic::{Acquire, Atomic, Relaxed, Release};

    /// A 32-bit atomic counter.
    pub struct AtomicU32(Atomic<u32>);

    impl AtomicU32 {
        /// A counter with this value.
        pub const fn new(value: u32) -> Self {
            Self(Atomic::new(value))
        }
        /// Reads it, with no ordering.
        pub fn load_relaxed(&self) -> u32 {
            self.0.load(Relaxed)
        }
        /// Adds to it, with no ordering, and returns what it was.
        pub fn fetch_add_relaxed(&self, value: u32) -> u32 {
            self.0.fetch_add(value, Relaxed)
        }
        /// Replaces it and returns what it was; later accesses stay behind.
        pub fn swap_acquire(&self, value: u32) -> u32 {
            self.0.xchg(value, Acquire)
        }
        /// Writes it; earlier accesses stay before.
        pub fn store_release(&self, value: u32) {
            self.0.store(value, Release)
        }
    }
}

#[cfg(not(avio_kernel))]
mod imp {
    #[cfg(not(loom))]
    use core::sync::atomic::{AtomicU32 as Inner, Ordering};
    #[cfg(loom)]
    use loom::sync::atomic::{AtomicU32 as Inner, Ordering};

    /// A 32-bit atomic counter.
    pub struct AtomicU32(Inner);

    impl AtomicU32 {
        /// A counter with this value.
        #[cfg(not(loom))]
        pub const fn new(value: u32) -> Self {
            Self(Inner::new(value))
        }
        /// A counter with this value.
        #[cfg(loom)]
        pub fn new(value: u32) -> Self {
            Self(Inner::new(value))
        }
        /// Reads it, with no ordering.
        pub fn load_relaxed(&self) -> u32 {
            self.0.load(Ordering::Relaxed)
        }
        /// Adds to it, with no ordering, and returns what it was.
        pub fn fetch_add_relaxed(&self, value: u32) -> u32 {
            self.0.fetch_add(value, Ordering::Relaxed)
        }
        /// Replaces it and returns what it was; later accesses stay behind.
        pub fn swap_acquire(&self, value: u32) -> u32 {
            self.0.swap(value, Ordering::Acquire)
        }
        /// Writes it; earlier accesses stay before.
        pub fn store_release(&self, value: u32) {
            self.0.store(value, Ordering::Release)
        }
    }
}

pub use imp::AtomicU32;

/// Whether a tag is in flight.
///
/// The device claims a tag when it takes a request and releases it before it posts the completion, so that a driver
/// that has seen the completion can use the tag again.
pub struct InFlight(AtomicU32);

impl InFlight {
    /// A tag that is not in flight.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }
    /// A tag that is not in flight.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Marks the tag as in flight; `false` if it was so already.
    pub fn claim(&self) -> bool {
        self.0.swap_acquire(1) == 0
    }

    /// Marks the tag as free.
    pub fn release(&self) {
        self.0.store_release(0)
    }
}

impl Default for InFlight {
    fn default() -> Self {
        Self::new()
    }
}
