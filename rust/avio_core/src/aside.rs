// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Whether a worker that shares its processor lets others have it once before it falls asleep.
//!
//! Such a worker must not poll. But if it is the guest that waits for the processor, then to let it run first spares the
//! doorbell and the wake-up, for each request that comes meanwhile. What that has lately brought pays for when it takes too
//! long, or brings nothing. If it does not, it is not tried again for a while, longer each time. Times are nanoseconds of any
//! clock that does not go back.

use crate::hold::Hold;
use crate::poll::BATCH;

/// What stepping aside may take in any case, if the requests that it brings are worth it.
const MOST_NS: u32 = 3_000_000;

/// The part of [`Poll`](crate::poll::Poll) that knows of it.
pub(crate) struct Aside {
    hold: Hold,
    /// By how many nanoseconds it was lately quicker than it might have been for what it brought.
    spared: u64,
}

impl Aside {
    /// Of a worker of which nothing is known.
    pub(crate) const fn new() -> Self {
        Self {
            hold: Hold::new(),
            spared: 0,
        }
    }

    /// Whether to try.
    pub(crate) const fn is_due(&self, now: u64) -> bool {
        self.hold.is_over(now)
    }

    /// It was tried, ended `now`, took so long, and brought so many requests. `price` is what it may take for one, and `most`
    /// what polling may ever take.
    pub(crate) fn stepped(&mut self, now: u64, ns: u64, found: u32, price: u32, most: u32) {
        let most = most.min(MOST_NS).max(price.saturating_mul(BATCH));
        let worth = price.saturating_mul(found).min(most).into();
        match self.spared.saturating_add(worth).checked_sub(ns) {
            Some(spared) if found != 0 || spared != 0 => {
                self.spared = spared.min(most.into());
                self.hold.paid();
            }
            _ => {
                self.spared = 0;
                // What is much longer was somebody else's doing, and says little of the next time.
                let longest = most.saturating_mul(BATCH);
                self.hold.in_vain(now, ns.min(longest.into()));
            }
        }
    }
}

#[cfg_attr(avio_kunit, kernel::macros::kunit_tests(avio_aside))]
#[cfg(any(test, avio_kunit))]
mod tests {
    use crate::poll::Poll;

    #[test]
    fn stepping_aside_goes_on_while_it_brings_work_soon() {
        let mut poll = Poll::new(1_000_000);
        for now in 0..100 {
            assert!(poll.may_step_aside(now));
            poll.stepped_aside(now, 20_000, 1);
        }
    }

    #[test]
    fn stepping_aside_may_take_longer_for_more_requests() {
        for (wake_up, ns, found, goes_on) in [
            // As long as polling, where wake-ups are quick ...
            (0, 50_000, 1, true),
            (0, 50_001, 1, false),
            (0, 400_000, 8, true),
            (0, 400_001, 8, false),
            (0, 1_000_000, 128, true),
            (0, 1_000_001, 128, false),
            (0, 1_000_001, u32::MAX, false),
            // ... and as a batch is worth, where they are slow.
            (40_000, 800_000, 1, true),
            (40_000, 800_001, 1, false),
            (40_000, 6_400_000, 8, true),
            (40_000, 6_400_001, 128, false),
        ] {
            let mut poll = Poll::new(1_000_000);
            if wake_up != 0 {
                poll.woke(wake_up);
            }
            assert!(poll.may_step_aside(ns));
            poll.stepped_aside(ns, ns, found);
            assert_eq!(poll.may_step_aside(ns), goes_on);
        }
    }

    #[test]
    fn what_stepping_aside_has_brought_pays_for_when_it_brings_nothing() {
        let mut poll = Poll::new(1_000_000);
        // Twice 30 µs less than it might have taken.
        poll.stepped_aside(0, 20_000, 1);
        poll.stepped_aside(0, 20_000, 1);
        for (ns, goes_on) in [(40_000, true), (19_999, true), (1, false)] {
            poll.stepped_aside(0, ns, 0);
            assert_eq!(poll.may_step_aside(0), goes_on);
        }
        // Not without end.
        let mut poll = Poll::new(1_000_000);
        for _ in 0..1000 {
            poll.stepped_aside(0, 0, 128);
        }
        poll.stepped_aside(0, 1_000_000, 0);
        assert!(!poll.may_step_aside(0));
    }

    #[test]
    fn stepping_aside_is_rare_where_it_takes_too_long_or_brings_nothing() {
        for (ns, found) in [(3_000_000, 1), (3_000_000, 128), (20_000, 0)] {
            let mut poll = Poll::new(1_000_000);
            let (mut now, mut aside) = (0, 0);
            for _ in 0..100_000 {
                now += 10_000;
                if poll.may_step_aside(now) {
                    now += ns;
                    aside += ns;
                    poll.stepped_aside(now, ns, found);
                }
            }
            assert!(aside >= 3 * ns);
            assert!(aside < now / 40);
        }
    }

    #[test]
    fn one_very_long_step_aside_is_soon_forgotten() {
        let mut poll = Poll::new(1_000_000);
        poll.stepped_aside(0, 1_000_000_000, 0);
        assert!(!poll.may_step_aside(50_000_000));
        assert!(poll.may_step_aside(100_000_000));
    }
}
