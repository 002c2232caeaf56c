// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! How far ahead a driver asks for its next interrupt (`docs/abi.md`, 5.4).
//!
//! With many requests in flight, one interrupt for several completions is enough. But requests differ: if some of
//! those in flight take for ever, because their LUN does, the others would wait with them. So the driver looks at its
//! ring by itself now and then, tells [`Coalescer::late`] when it finds that completions have lain there, and every
//! completion interrupts for a while, the longer the more often that happens.
//!
//! A device with COALESCE (5.6) sees to that itself, and takes positions ahead of what is in flight. Then the driver
//! goes by how many requests its users have had outstanding of late, which is more: a quick device has answered most of
//! them by the time that the driver looks.

/// Fewest requests in flight at which an interrupt is put off.
const FEWEST: u32 = 4;

/// Most places that an interrupt is put off by.
const MOST: u32 = 32;

/// Interrupts for which none is put off, after completions lay for the first time.
const FIRST_HOLD: u32 = 256;

/// The same, at most.
const LAST_HOLD: u32 = 1 << 16;

/// The policy of one queue.
#[derive(Clone, Copy, Debug)]
pub struct Coalescer {
    /// Most places at present.
    cap: u32,
    /// Interrupts until `cap` may grow.
    hold: u32,
    /// What `hold` is to be the next time.
    next_hold: u32,
    /// How many requests were outstanding of late.
    depth: u32,
}

impl Coalescer {
    /// One that puts interrupts off, or one that never does.
    pub const fn new(enabled: bool) -> Self {
        Self {
            cap: if enabled { MOST } else { 0 },
            hold: if enabled { 0 } else { u32::MAX },
            next_hold: FIRST_HOLD,
            depth: 0,
        }
    }

    /// How many places behind the next completion to ask for the interrupt, with so many requests in flight: less
    /// than that number, and zero with one.
    pub const fn after(&self, in_flight: u32) -> u32 {
        let half = in_flight / 2;
        if in_flight < FEWEST {
            0
        } else if half < self.cap {
            half
        } else {
            self.cap
        }
    }

    /// The same with COALESCE, where `outstanding` counts the completions that were just taken, too. May be more than
    /// what is in flight, and is zero when there was one request at a time.
    pub fn ahead(&mut self, outstanding: u32) -> u32 {
        let faded = self.depth.saturating_sub(self.depth.div_ceil(4));
        self.depth = outstanding.max(faded);
        if self.depth < FEWEST {
            0
        } else {
            (self.depth / 2).min(self.cap)
        }
    }

    /// An interrupt came with completions to take.
    pub fn on_time(&mut self) {
        if self.hold == 0 {
            self.cap = self.cap.saturating_add(1).min(MOST);
            if self.cap == MOST {
                self.next_hold = FIRST_HOLD;
            }
        } else if self.hold != u32::MAX {
            self.hold = self.hold.saturating_sub(1);
        }
    }

    /// Completions lay in the ring, for an interrupt that was too far ahead.
    pub fn late(&mut self) {
        if self.hold != u32::MAX {
            self.cap = 0;
            self.hold = self.next_hold;
            self.next_hold = self.next_hold.saturating_mul(2).min(LAST_HOLD);
        }
    }
}

#[cfg_attr(avio_kunit, kernel::macros::kunit_tests(avio_coalesce))]
#[cfg(any(test, avio_kunit))]
mod tests {
    use super::*;

    #[test]
    fn always_asks_for_a_completion_that_will_come() {
        let coalescer = Coalescer::new(true);
        for in_flight in 1..=u32::from(u16::MAX) {
            assert!(coalescer.after(in_flight) < in_flight);
        }
        assert_eq!(coalescer.after(0), 0);
        assert!(coalescer.after(u32::MAX) <= MOST);
    }

    #[test]
    fn puts_nothing_off_at_small_depths() {
        let coalescer = Coalescer::new(true);
        for in_flight in 0..FEWEST {
            assert_eq!(coalescer.after(in_flight), 0);
        }
        assert_eq!(coalescer.after(32), 16);
    }

    #[test]
    fn goes_ahead_by_what_was_outstanding_of_late() {
        let mut coalescer = Coalescer::new(true);
        assert_eq!(coalescer.ahead(32), 16);
        assert!(coalescer.ahead(0) > 4);
        for _ in 0..16 {
            coalescer.ahead(1);
        }
        assert_eq!(coalescer.ahead(1), 0);
        assert_eq!(coalescer.ahead(u32::MAX), MOST);
        assert_eq!(Coalescer::new(false).ahead(128), 0);
    }

    #[test]
    fn never_when_it_is_off() {
        let mut coalescer = Coalescer::new(false);
        for _ in 0..10 {
            coalescer.on_time();
            coalescer.late();
        }
        assert_eq!(coalescer.after(128), 0);
    }

    #[test]
    fn stops_after_being_late_and_comes_back() {
        let mut coalescer = Coalescer::new(true);
        coalescer.late();
        for _ in 0..FIRST_HOLD {
            assert_eq!(coalescer.after(128), 0);
            coalescer.on_time();
        }
        for _ in 0..MOST {
            coalescer.on_time();
        }
        assert_eq!(coalescer.after(128), MOST);
    }

    #[test]
    fn holds_longer_each_time_but_not_for_ever() {
        let mut coalescer = Coalescer::new(true);
        let mut holds = [0; 12];
        for hold in &mut holds {
            coalescer.late();
            while coalescer.after(128) == 0 {
                coalescer.on_time();
                *hold += 1;
            }
        }
        assert!(holds.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(holds[0], FIRST_HOLD + 1);
        assert_eq!(holds[11], LAST_HOLD + 1);
    }
}
