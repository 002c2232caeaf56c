// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Who serves a queue whose doorbell was rung: its worker, or the virtual processor that rang, on its way back.
//!
//! A guest that sends one request at a time and waits for it pays for a worker with two task switches, and with a wake-up
//! that comes late. If the processor that rang serves the request itself, there is neither; and what the device completes at
//! once comes before the guest has gone to sleep. But a guest that sends many would ring for each: a worker that comes
//! late finds several at once, and while it looks for more nobody rings.
//!
//! So the worker sees first how requests come. It still serves now and then when they come one at a time: a guest whose
//! requests are all carried out before it runs again looks as if it sent no more. And a worker that has a processor to itself
//! may find the next request by polling for it, which spares the ring as well.

/// How many passes of the worker in a row have to find one request at a time.
const PASSES: u32 = 8;

/// How many visits there are until the worker serves once more.
const VISITS: u32 = 32;

/// The policy of one queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct Visits {
    /// Passes of the worker in a row that have found one request at a time, which had rung, or [`PASSES`].
    single: u32,
    /// Visits since the worker served.
    visits: u32,
}

impl Visits {
    /// Of a queue of which nothing is known.
    pub const fn new() -> Self {
        Self {
            single: 0,
            visits: 0,
        }
    }

    /// Whether who rings had better serve the queue.
    pub const fn pay(&self) -> bool {
        self.single == PASSES && self.visits < VISITS
    }

    /// The worker has taken so many requests. `rang` is whether nobody had polled for them, and the guest had
    /// taken all completions before that; and `sure`, whether it would have sent more meanwhile if it had any.
    pub fn worker_served(&mut self, requests: u32, rang: bool, sure: bool) {
        if requests > 1 || requests == 1 && !rang {
            self.single = 0;
        } else if requests == 1 && sure {
            self.single = self.single.saturating_add(1).min(PASSES);
            self.visits = 0;
        }
    }

    /// Who has rung has taken so many.
    pub fn ringer_served(&mut self, requests: u32, rang: bool) {
        self.visits = self.visits.saturating_add(1);
        self.worker_served(requests, rang, false);
    }
}

#[cfg_attr(avio_kunit, kernel::macros::kunit_tests(avio_visits))]
#[cfg(any(test, avio_kunit))]
mod tests {
    use super::*;

    /// A queue whose guest has sent one request at a time.
    fn single() -> Visits {
        let mut visits = Visits::new();
        for _ in 0..PASSES {
            visits.worker_served(1, true, true);
        }
        visits
    }

    #[test]
    fn one_request_at_a_time_is_served_by_who_rings() {
        let mut visits = Visits::new();
        for _ in 0..PASSES {
            assert!(!visits.pay());
            visits.worker_served(1, true, true);
        }
        assert!(visits.pay());
    }

    #[test]
    fn passes_and_visits_in_vain_change_nothing() {
        let mut visits = single();
        visits.worker_served(0, false, true);
        assert!(visits.pay());
        visits.ringer_served(0, false);
        assert!(visits.pay());
        let mut visits = Visits::new();
        for _ in 0..100 {
            visits.worker_served(0, true, true);
        }
        assert!(!visits.pay());
    }

    #[test]
    fn many_at_a_time_and_what_was_polled_for_are_the_workers() {
        for (requests, rang) in [(2, true), (1, false), (u32::MAX, true)] {
            let mut visits = single();
            visits.worker_served(requests, rang, true);
            assert!(!visits.pay());
            let mut visits = single();
            visits.ringer_served(requests, rang);
            assert!(!visits.pay());
            // One more is not enough to come back.
            visits.worker_served(1, true, true);
            assert!(!visits.pay());
        }
    }

    #[test]
    fn what_is_not_sure_is_no_reason() {
        let mut visits = Visits::new();
        for _ in 0..100 {
            visits.worker_served(1, true, false);
        }
        assert!(!visits.pay());
        // But it is one to give up.
        let mut visits = single();
        visits.worker_served(2, true, false);
        assert!(!visits.pay());
    }

    #[test]
    fn the_worker_looks_now_and_then() {
        let mut visits = single();
        for _ in 0..1000 {
            for _ in 0..VISITS {
                assert!(visits.pay());
                visits.ringer_served(1, true);
            }
            visits.worker_served(1, true, false);
            assert!(!visits.pay());
            visits.worker_served(1, true, true);
        }
        assert!(visits.pay());
    }
}
