// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! How far ahead a driver asks for its next interrupt, of a device with COALESCE (`docs/abi.md`, 5.6).
//!
//! An interrupt that finds its processor at work could as well have come later: what it brings has to wait for the
//! processor anyway, and the work is perhaps the submission of more. So the driver then asks for the next one further
//! ahead. One that finds the processor idle was waited for, and the next is asked for nearer. If the device rested
//! before it came as far as it was asked for, there was too little in flight, and we ask for less; where nothing can be put
//! off, we do not try again for a while, longer each time that it fails, but never for long: a user of one request at a time is
//! hardly ever kept waiting, and one of many soon has few interrupts again.

use crate::hold::Hold;

/// Most places that an interrupt is put off by.
const MOST: u32 = 32;

/// Places from which on many requests are surely in flight, so that trying is worth while again.
const DEEP: u32 = 4;

/// The policy of one queue.
#[derive(Clone, Copy, Debug)]
pub struct Coalescer {
    enabled: bool,
    ahead: u32,
    /// How many interrupts came: the clock of `hold`.
    interrupts: u64,
    /// When to try more.
    hold: Hold,
}

impl Coalescer {
    /// One that puts interrupts off, or one that never does.
    pub const fn new(enabled: bool) -> Self {
        Self {
            enabled,
            ahead: 0,
            interrupts: 0,
            hold: Hold::new(),
        }
    }

    /// How many places behind the next completion to ask for the interrupt.
    pub const fn ahead(&self) -> u32 {
        self.ahead
    }

    /// An interrupt came, with so many completions, and perhaps to a processor that had nothing to do.
    pub fn interrupted(&mut self, taken: u32, idle: bool) {
        if !self.enabled {
            return;
        }
        self.interrupts = self.interrupts.wrapping_add(1);
        if self.ahead != 0 && taken <= self.ahead {
            // Who was waited for must not be kept waiting again; else half is enough to find the right depth.
            self.ahead = if idle {
                taken.saturating_sub(1)
            } else {
                self.ahead / 2
            };
            if self.ahead == 0 {
                // One request had to wait until the device rested, for hardly longer than a request takes.
                self.hold.in_vain(self.interrupts, 1);
            }
        } else if idle {
            self.ahead = self.ahead.saturating_sub(self.ahead.div_ceil(4));
        } else if self.hold.is_over(self.interrupts) {
            let more = (self.ahead / 2).saturating_add(1);
            self.ahead = self.ahead.saturating_add(more).min(MOST);
            if self.ahead >= DEEP {
                self.hold.paid();
            }
        }
    }
}

#[cfg_attr(avio_kunit, kernel::macros::kunit_tests(avio_coalesce))]
#[cfg(any(test, avio_kunit))]
mod tests {
    use super::*;

    #[test]
    fn puts_nothing_off_for_who_waits_for_each_request() {
        let mut coalescer = Coalescer::new(true);
        for _ in 0..1000 {
            coalescer.interrupted(1, true);
            assert_eq!(coalescer.ahead(), 0);
        }
    }

    #[test]
    fn asks_further_ahead_while_the_processor_is_busy() {
        let mut coalescer = Coalescer::new(true);
        for _ in 0..10 {
            let ahead = coalescer.ahead();
            coalescer.interrupted(ahead + 1, false);
            assert!(coalescer.ahead() > ahead || ahead == MOST);
        }
        assert_eq!(coalescer.ahead(), MOST);
    }

    #[test]
    fn asks_nearer_when_the_processor_was_idle() {
        let mut coalescer = Coalescer::new(true);
        for _ in 0..10 {
            coalescer.interrupted(64, false);
        }
        let mut before = coalescer.ahead();
        while before != 0 {
            coalescer.interrupted(64, true);
            assert!(coalescer.ahead() < before);
            before = coalescer.ahead();
        }
    }

    #[test]
    fn soon_finds_back_to_its_depth() {
        let mut coalescer = Coalescer::new(true);
        for _ in 0..10 {
            coalescer.interrupted(64, false);
        }
        coalescer.interrupted(1, false);
        assert_eq!(coalescer.ahead(), MOST / 2);
        for _ in 0..2 {
            coalescer.interrupted(64, false);
        }
        assert_eq!(coalescer.ahead(), MOST);
    }

    #[test]
    fn hardly_ever_tries_more_where_it_fails_each_time() {
        // A busy processor, and one request at a time.
        let mut coalescer = Coalescer::new(true);
        let mut late = 0;
        for _ in 0..100_000 {
            late += u32::from(coalescer.ahead() != 0);
            coalescer.interrupted(1, false);
        }
        assert!(late < 100_000 / 50);
    }

    #[test]
    fn soon_notices_that_one_at_a_time_has_become_many() {
        let mut coalescer = Coalescer::new(true);
        for _ in 0..10_000 {
            coalescer.interrupted(1, false);
        }
        let mut interrupts = 0;
        while coalescer.ahead() < MOST {
            // As many as asked for: the device never has to rest.
            coalescer.interrupted(coalescer.ahead() + 1, false);
            interrupts += 1;
        }
        assert!(interrupts < 80);
    }

    #[test]
    fn never_when_it_is_off() {
        let mut coalescer = Coalescer::new(false);
        for _ in 0..10 {
            coalescer.interrupted(64, false);
            assert_eq!(coalescer.ahead(), 0);
        }
    }

    #[test]
    fn no_history_leads_it_out_of_bounds() {
        let mut coalescer = Coalescer::new(true);
        let mut number: u32 = 1;
        for _ in 0..10_000 {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let taken = if number & 0x100 != 0 {
                u32::MAX
            } else {
                number >> 26
            };
            coalescer.interrupted(taken, number & 0x200 != 0);
            assert!(coalescer.ahead() <= MOST);
        }
    }
}
