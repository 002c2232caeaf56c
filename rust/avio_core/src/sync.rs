// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The one atomic that this crate needs for its own state, in three builds: the kernel's (LKMM), Loom's, and core's.
//!
//! Only private state goes through it. Shared memory goes through [`QueueMemory`](crate::ring::QueueMemory).

#[cfg(avio_kernel)]
mod imp {
    use kernel::sync::atomic::{Acquire, Atomic, Full, Relaxed, Release};

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
        /// Replaces it if it is `old`, with full ordering; whether it was.
        pub fn replace(&self, old: u32, new: u32) -> bool {
            self.0.cmpxchg(old, new, Full).is_ok()
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
        /// Replaces it if it is `old`, with full ordering; whether it was.
        pub fn replace(&self, old: u32, new: u32) -> bool {
            self.0
                .compare_exchange(old, new, Ordering::SeqCst, Ordering::Relaxed)
                .is_ok()
        }
        /// Writes it; earlier accesses stay before.
        pub fn store_release(&self, value: u32) {
            self.0.store(value, Ordering::Release)
        }
    }
}

pub use imp::AtomicU32;

const CLAIMED: u32 = 1 << 0;
const ABORTED: u32 = 1 << 1;
const CONDEMNED: u32 = 1 << 2;
const LUN_SHIFT: u32 = 16;

/// Whether a tag is in flight, on which LUN, and whether it is to be aborted or is condemned.
///
/// The device claims a tag when it takes a request and releases it before it posts the completion, so that a driver
/// that has seen the completion can use the tag again. All is one word: an abort that races with the completion and
/// with the next use of the tag never marks a request of another LUN, and no mark outlives its request.
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

    /// Marks the tag as in flight on this LUN; `false` if it was in flight already.
    pub fn claim(&self, lun: u16) -> bool {
        self.0.swap_acquire(claimed(lun)) == 0
    }

    /// Marks the request as one to be aborted: it ends as aborted if it fails. `false` if the tag is not in flight on this
    /// LUN.
    pub fn abort(&self, lun: u16) -> bool {
        self.mark(lun, ABORTED)
    }

    /// Marks the request as one that ends as aborted, whatever becomes of it: its LUN is taken away. `false` as for
    /// [`abort`](Self::abort).
    pub fn condemn(&self, lun: u16) -> bool {
        self.mark(lun, CONDEMNED)
    }

    /// Who is overtaken more often than there are marks by others was overtaken by the end of the request.
    fn mark(&self, lun: u16, mark: u32) -> bool {
        for _ in 0..3 {
            let word = self.0.load_relaxed();
            if word & !(ABORTED | CONDEMNED) != claimed(lun) {
                return false;
            }
            if word & mark != 0 || self.0.replace(word, word | mark) {
                return true;
            }
        }
        false
    }

    /// Whether the request is to be aborted.
    pub fn aborted(&self) -> bool {
        self.0.load_relaxed() & ABORTED != 0
    }

    /// Whether the request is condemned.
    pub fn condemned(&self) -> bool {
        self.0.load_relaxed() & CONDEMNED != 0
    }

    /// Marks the tag as free.
    pub fn release(&self) {
        self.0.store_release(0)
    }
}

const fn claimed(lun: u16) -> u32 {
    ((lun as u32) << LUN_SHIFT) | CLAIMED
}

impl Default for InFlight {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg_attr(avio_kunit, kernel::macros::kunit_tests(avio_tags))]
#[cfg(any(all(test, not(loom)), avio_kunit))]
mod tests {
    use super::*;

    #[test]
    fn r8_a_tag_is_claimed_once() {
        let tag = InFlight::new();
        assert!(tag.claim(0));
        assert!(!tag.claim(0));
        tag.release();
        assert!(tag.claim(7));
    }

    #[test]
    fn s10_an_abort_marks_what_is_in_flight_on_its_lun_and_nothing_later() {
        let tag = InFlight::new();
        assert!(!tag.abort(3));
        assert!(tag.claim(3));
        assert!(!tag.abort(4));
        assert!(!tag.aborted());
        assert!(tag.abort(3));
        assert!(tag.abort(3));
        assert!(tag.aborted());
        assert!(!tag.condemned());
        assert!(!tag.condemn(4));
        assert!(tag.condemn(3));
        assert!(tag.condemn(3));
        assert!(tag.abort(3));
        assert!(tag.aborted());
        assert!(tag.condemned());
        tag.release();
        assert!(!tag.abort(3));
        assert!(tag.claim(3));
        assert!(!tag.aborted());
    }
}
