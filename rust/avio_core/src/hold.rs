// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! How long to leave be what did not pay when it was tried last: longer each time that it does not.
//!
//! How long goes by what trying in vain has cost, so that never more than a small part goes into it. Cost and clock have the
//! same unit, whatever it is: nanoseconds, or occasions.

/// How many times its cost the first hold is.
const FIRST: u32 = 8;

/// The same, at most.
const LAST: u32 = 64;

/// When to try something again that costs more than it brings if it is in vain.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    /// Not before.
    until: u64,
    /// How many times its cost the next hold is.
    times: u32,
}

impl Hold {
    /// To be tried at once.
    pub const fn new() -> Self {
        Self {
            until: 0,
            times: FIRST,
        }
    }

    /// Whether to try.
    pub const fn is_over(&self, now: u64) -> bool {
        self.until <= now
    }

    /// It was in vain, and cost so much.
    pub fn in_vain(&mut self, now: u64, cost: u64) {
        let hold = cost.saturating_mul(self.times.into());
        self.until = now.saturating_add(hold);
        self.times = self.times.saturating_mul(2).min(LAST);
    }

    /// It has paid: should it be in vain again, the first hold is short.
    pub const fn paid(&mut self) {
        self.times = FIRST;
    }
}

impl Default for Hold {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg_attr(avio_kunit, kernel::macros::kunit_tests(avio_hold))]
#[cfg(any(test, avio_kunit))]
mod tests {
    use super::*;

    #[test]
    fn what_pays_is_tried_each_time() {
        let mut hold = Hold::new();
        for now in 0..10 {
            assert!(hold.is_over(now));
            hold.paid();
        }
    }

    #[test]
    fn what_is_in_vain_is_tried_less_and_less_but_never_given_up() {
        let mut hold = Hold::new();
        let mut now = 1000;
        for times in [8, 16, 32, 64, 64, 64] {
            hold.in_vain(now, 100);
            assert!(!hold.is_over(now + 100 * times - 1));
            now += 100 * times;
            assert!(hold.is_over(now));
        }
        hold.paid();
        assert!(hold.is_over(now));
        hold.in_vain(now, 1);
        assert!(!hold.is_over(now + 7));
        assert!(hold.is_over(now + 8));
    }

    #[test]
    fn no_cost_and_no_time_is_too_long_for_it() {
        let mut hold = Hold::new();
        hold.in_vain(5, u64::MAX);
        assert!(!hold.is_over(u64::MAX - 1));
        assert!(hold.is_over(u64::MAX));
    }
}
