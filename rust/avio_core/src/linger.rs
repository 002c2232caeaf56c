// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Whether, and for how long, a driver that has sent a lone request looks for its completion before it asks for an interrupt.
//!
//! An interrupt costs the guest a VM exit or two, and often the way into sleep and out of it. A quick device answers before
//! all that is over, or has answered when the driver comes back from ringing. So who has nothing else in flight looks for the
//! completion as long as it would take to ring a few times; and if it does not come, asks for the interrupt and leaves looking
//! be for a while, longer each time.
//!
//! But a user of many requests at a time is better off sending the next: if each were waited for, only one would ever be in
//! flight. So requests have to be lone several times in a row without being waited for, and again now and then.
//!
//! Times are nanoseconds of any clock that does not go back.

use crate::hold::Hold;

/// How many requests in a row have to be lone until one is waited for.
const LONE: u32 = 8;

/// How many are waited for until it is seen again how they come otherwise. Together with the next number a prime, so that
/// they do not keep step with a device that tries something now and then, as ours does (`visits`).
const WAITS: u32 = 127;

/// How many requests are then not waited for.
const TRIALS: u32 = 4;

/// How many times longer than ringing an interrupt takes, with what it sets off.
const BELLS: u32 = 4;

/// The longest look: a processor does nothing else meanwhile.
const MOST_NS: u32 = 500_000;

/// Of how many times that ringing took the least counts. The device may serve the ring before it lets the guest go on, but
/// does not each time.
const RINGS: u32 = 64;

/// For how many looks one that has found something at once vouches, if several have.
const QUICK: u32 = 8;

/// Who is alone: the part of the policy that sees each request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone {
    /// Lone requests in a row that were not waited for, or [`LONE`].
    lone: u32,
    /// Requests waited for since then.
    waits: u32,
}

impl Alone {
    /// Of a queue of which nothing is known.
    pub const fn new() -> Self {
        Self { lone: 0, waits: 0 }
    }

    /// A request is sent, with nothing else in flight or not: whether it may be waited for.
    pub fn sends(&mut self, lone: bool) -> bool {
        if !lone {
            self.lone = 0;
        } else if self.lone < LONE {
            self.lone = self.lone.saturating_add(1);
        } else if self.waits < WAITS {
            self.waits = self.waits.saturating_add(1);
            return true;
        } else {
            self.lone = LONE.saturating_sub(TRIALS).saturating_add(1);
        }
        self.waits = 0;
        false
    }
}

/// For how long to look: the part of the policy that knows times.
#[derive(Clone, Copy, Debug)]
pub struct Linger {
    /// What ringing takes, or zero.
    bell: u32,
    /// The least that it has taken lately, and how often since then.
    least: u32,
    rings: u32,
    /// Looks that have found something at once, up to [`QUICK`], less those that have not.
    quick: u32,
    hold: Hold,
}

impl Linger {
    /// Of a queue of which nothing is known.
    pub const fn new() -> Self {
        Self {
            bell: 0,
            least: u32::MAX,
            rings: 0,
            quick: 0,
            hold: Hold::new(),
        }
    }

    /// Ringing has taken so long.
    pub fn rang(&mut self, ns: u64) {
        let ns = u32::try_from(ns).unwrap_or(u32::MAX);
        self.least = self.least.min(ns);
        self.rings = self.rings.saturating_add(1);
        if self.rings == RINGS {
            self.bell = self.least;
            self.least = u32::MAX;
            self.rings = 0;
        } else if self.bell == 0 || ns < self.bell {
            self.bell = ns;
        }
    }

    /// How long to look for a completion, or none if that is not worth while at present. Zero is once.
    pub fn limit(&self, now: u64) -> Option<u32> {
        if self.hold.is_over(now) {
            Some(self.bell.saturating_mul(BELLS).min(MOST_NS))
        } else if self.quick != 0 {
            Some(0)
        } else {
            None
        }
    }

    /// Looking for `ns`, zero if once, until `now`, has found the completion, or has not. It was to be no longer than
    /// `limit`.
    pub fn looked(&mut self, now: u64, ns: u64, limit: u32, found: bool) {
        self.quick = if found && ns == 0 {
            self.quick.saturating_add(1).min(QUICK)
        } else {
            self.quick.saturating_sub(1)
        };
        if found {
            self.hold.paid();
        } else if limit != 0 {
            // What is longer was somebody else's.
            self.hold.in_vain(now, ns.min(limit.into()));
        }
    }
}

impl Default for Linger {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg_attr(avio_kunit, kernel::macros::kunit_tests(avio_linger))]
#[cfg(any(test, avio_kunit))]
mod tests {
    use super::*;

    #[test]
    fn waits_for_who_sends_one_request_at_a_time() {
        let mut alone = Alone::new();
        for _ in 0..LONE {
            assert!(!alone.sends(true));
        }
        for _ in 0..3 {
            for _ in 0..WAITS {
                assert!(alone.sends(true));
            }
            for _ in 0..TRIALS {
                assert!(!alone.sends(true));
            }
        }
    }

    #[test]
    fn does_not_wait_for_who_sends_more() {
        let mut alone = Alone::new();
        for request in 0..1000 {
            assert!(!alone.sends(request % LONE != 0));
        }
    }

    #[test]
    fn soon_sees_that_one_at_a_time_have_become_many() {
        let mut alone = Alone::new();
        let mut waits = true;
        let mut last = 0;
        for request in 0..10_000u32 {
            // Up to request 1000 they are lone; from then on only if the one before was waited for.
            waits = alone.sends(request < 1000 || waits);
            if waits {
                last = request;
            }
        }
        assert!((990..1000 + WAITS).contains(&last));
    }

    /// One for which ringing takes two microseconds.
    fn rung() -> Linger {
        let mut linger = Linger::new();
        linger.rang(2_000);
        linger
    }

    #[test]
    fn looks_as_long_as_a_few_rings_take_but_not_too_long() {
        assert_eq!(Linger::new().limit(0), Some(0));
        assert_eq!(rung().limit(0), Some(BELLS * 2_000));
        let mut linger = Linger::new();
        linger.rang(u64::MAX);
        assert_eq!(linger.limit(u64::MAX), Some(MOST_NS));
    }

    #[test]
    fn rings_that_were_served_at_once_do_not_count() {
        let mut linger = rung();
        for ring in 0..1000 {
            linger.rang(if ring % 33 == 0 { 2_000 } else { 20_000 });
            assert_eq!(linger.limit(0), Some(BELLS * 2_000));
        }
        for _ in 0..2 * RINGS {
            linger.rang(4_000);
        }
        assert_eq!(linger.limit(0), Some(BELLS * 4_000));
    }

    #[test]
    fn goes_on_while_completions_come_soon() {
        let mut linger = rung();
        for now in 0..1000 {
            assert_eq!(linger.limit(now), Some(8_000));
            linger.looked(now, 7_999, 8_000, true);
        }
    }

    #[test]
    fn takes_little_time_from_who_waits_for_a_slow_device() {
        let (mut linger, mut now, mut spent, mut looks) = (rung(), 0, 0, 0);
        for _ in 0..10_000 {
            if let Some(limit) = linger.limit(now) {
                now += u64::from(limit);
                spent += u64::from(limit);
                looks += 1;
                linger.looked(now, limit.into(), limit, false);
            }
            now += 80_000;
        }
        assert!(spent != 0 && spent < now / 60 && looks < 2_000);
    }

    #[test]
    fn looks_once_for_who_answers_at_once_also_if_a_look_was_in_vain() {
        let mut linger = rung();
        for now in 0..10_000 {
            let limit = linger.limit(now);
            assert!(limit.is_some());
            let found = now % 33 != 32;
            let limit = limit.unwrap_or_default();
            linger.looked(now, if found { 0 } else { limit.into() }, limit, found);
        }
    }

    #[test]
    fn comes_back_when_the_device_has_become_quick() {
        let (mut linger, mut now) = (rung(), 0);
        for _ in 0..100 {
            linger.looked(now, 8_000, 8_000, false);
            now += 1_000_000;
        }
        assert_eq!(linger.limit(now), Some(8_000));
        linger.looked(now, 100, 8_000, true);
        // Also if somebody else had the processor.
        linger.looked(now, u64::MAX, 8_000, false);
        assert_eq!(linger.limit(now + 63_999), None);
        assert_eq!(linger.limit(now + 64_000), Some(8_000));
    }
}
