// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Both ends of a queue pair, over shared memory that the other side may write at any time.
//!
//! `docs/abi.md` is the specification of the format and of its ordering rules; comments here name its sections.

mod device;
mod driver;

pub use device::{CompletionWriter, Rest, SubmissionReader, Wanted};
pub use driver::{is_there, CompletionReader, SubmissionWriter};

use avio_abi::{MAX_QUEUE_SIZE, MIN_QUEUE_SIZE};

/// The shared memory of one queue pair: two rings and a control block.
///
/// `word` is an offset from [`avio_abi::ring::control`], and `slot` is less than the ring's size; an implementation
/// stays inside its memory whatever it is given. Each access happens exactly once: the other side may change the
/// memory at any time, and reading twice could give two answers.
pub trait QueueMemory {
    /// Reads a control word; later accesses stay behind.
    fn load_acquire(&self, word: usize) -> u32;
    /// Writes a control word; earlier accesses stay before.
    fn store_release(&self, word: usize, value: u32);
    /// Full barrier: stores before it are visible before loads behind it happen.
    fn full_barrier(&self);
    /// Copies a submission entry, as eight words.
    fn read_submission(&self, slot: u32) -> [u64; 8];
    /// Writes a submission entry.
    fn write_submission(&self, slot: u32, entry: &[u64; 8]);
    /// Reads a completion entry; later accesses stay behind.
    fn load_completion(&self, slot: u32) -> u64;
    /// Writes a completion entry; earlier accesses stay before.
    fn store_completion(&self, slot: u32, entry: u64);
}

/// Number of entries in a ring.
///
/// # Invariants
///
/// A power of two from [`MIN_QUEUE_SIZE`] to [`MAX_QUEUE_SIZE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSize(u32);

impl RingSize {
    /// The size, if it is a legal one.
    pub const fn new(entries: u32) -> Option<Self> {
        if entries.is_power_of_two() && entries >= MIN_QUEUE_SIZE && entries <= MAX_QUEUE_SIZE {
            // INVARIANT: just checked.
            Some(Self(entries))
        } else {
            None
        }
    }

    /// Number of entries.
    #[inline]
    pub const fn entries(self) -> u32 {
        self.0
    }

    /// The slot of a position.
    #[inline]
    pub const fn slot(self, position: u32) -> u32 {
        position & self.0.wrapping_sub(1)
    }

    /// The phase mark of completion entries in the round that `position` lies in: set in the first round, so that
    /// zeroed memory holds no entry, and alternating from then on.
    #[inline]
    pub const fn phase(self, position: u32) -> bool {
        position & self.0 == 0
    }
}

/// Whether publishing positions `old..new` passes `event`, that is, whether the other side asked to be told.
#[inline]
const fn passes(event: u32, old: u32, new: u32) -> bool {
    event.wrapping_sub(old) < new.wrapping_sub(old)
}

#[cfg_attr(avio_kunit, kernel::macros::kunit_tests(avio_ring))]
#[cfg(any(test, avio_kunit))]
mod tests {
    use super::*;
    use avio_abi::ring::{control, Broken};
    use core::cell::Cell;

    /// Memory of which a driver writes `SQ_TAIL` alone.
    struct Tail(Cell<u32>);

    impl QueueMemory for Tail {
        fn load_acquire(&self, word: usize) -> u32 {
            if word == control::SQ_TAIL {
                self.0.get()
            } else {
                0
            }
        }
        fn store_release(&self, _word: usize, _value: u32) {}
        fn full_barrier(&self) {}
        fn read_submission(&self, _slot: u32) -> [u64; 8] {
            [0; 8]
        }
        fn write_submission(&self, _slot: u32, _entry: &[u64; 8]) {}
        fn load_completion(&self, _slot: u32) -> u64 {
            0
        }
        fn store_completion(&self, _slot: u32, _entry: u64) {}
    }

    #[test]
    fn r1_a_tail_that_goes_back_is_seen_although_it_is_ahead_of_what_was_taken() {
        for start in [0, u32::MAX - 2, u32::MAX / 2 - 1] {
            let tail = |ahead: u32| Tail(Cell::new(start.wrapping_add(ahead)));
            for back in [1, 2, 3] {
                let mut reader = SubmissionReader::at(RingSize(4), start);
                assert_eq!(reader.pending(&tail(4)), Ok(4));
                assert!(matches!(reader.take(&tail(4), || start), Ok(Some(_))));
                assert_eq!(reader.arm(&tail(4)), Ok(true));
                assert_eq!(reader.pending(&tail(4)), Ok(3));
                assert_eq!(reader.arm(&tail(back)), Err(Broken::SubmissionIndex));
                assert_eq!(reader.pending(&tail(back)), Err(Broken::SubmissionIndex));
                assert_eq!(reader.pending(&tail(5)), Ok(4));
            }
        }
    }

    #[test]
    fn sizes_are_powers_of_two_within_the_limits() {
        assert!(RingSize::new(0).is_none());
        assert!(RingSize::new(1).is_none());
        assert!(RingSize::new(3).is_none());
        assert!(RingSize::new(2 * MAX_QUEUE_SIZE).is_none());
        assert!(RingSize::new(u32::MAX).is_none());
        assert!(RingSize::new(MIN_QUEUE_SIZE).is_some());
        assert!(RingSize::new(MAX_QUEUE_SIZE).is_some());
    }

    #[test]
    fn phase_alternates_by_round_and_survives_the_wrap_of_positions() {
        let size = RingSize(4);
        assert!(size.phase(0));
        assert!(size.phase(3));
        assert!(!size.phase(4));
        assert!(!size.phase(7));
        assert!(size.phase(8));
        assert!(!size.phase(u32::MAX));
        assert!(size.phase(u32::MAX.wrapping_add(1)));
    }

    #[test]
    fn an_event_is_passed_exactly_once() {
        assert!(passes(5, 5, 6));
        assert!(passes(6, 5, 8));
        assert!(!passes(8, 5, 8));
        assert!(!passes(4, 5, 8));
        assert!(passes(u32::MAX, u32::MAX, 1));
        assert!(passes(0, u32::MAX, 1));
        assert!(!passes(1, u32::MAX, 1));
    }
}
