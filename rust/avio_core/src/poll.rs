// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! How long a worker that has run out of work looks for more before it sleeps.
//!
//! A worker that polls spares the guest a doorbell, which is a VM exit, and itself a wake-up; but it burns a processor.
//! So the window grows when work came so soon that a longer window would have caught it, and shrinks to nothing when
//! it did not come in time. How long is too long depends on what is spared: where a wake-up takes long, a VM exit does
//! too, and the guest between two requests. So the limit follows what wake-ups take on this machine; and it is the longer the
//! more requests have lately come at once when any came, as who sends many would pay with each of them for what one that
//! comes too late sets off. Times are nanoseconds of any clock that does not go back.
//!
//! A guest that has to ring, and to be interrupted, comes later than one that is polled for: after a sleep work may come
//! too late for any window only because of the sleep. So the longest window is tried now and then all the same.
//!
//! A worker that shares its processor must not poll. It may step aside (`aside.rs`).

use crate::aside::Aside;
use crate::hold::Hold;

/// The first window.
const FIRST_NS: u32 = 10_000;

/// The limit in wake-ups: the doorbell and the interrupt that polling spares cost some each, and the guest takes its time.
const WAKE_UPS: u32 = 20;

/// After how many wake-ups of polling a guest that sends nothing seems to wait for an interrupt.
const PATIENCE: u32 = 2;

/// The least limit, unless the caller wants less: where wake-ups are quick a guest needs some time too.
const LEAST_NS: u32 = 50_000;

/// For how many requests at once polling, or stepping aside, may take so many times longer than for one: the first of them
/// may wait all that time.
pub(crate) const BATCH: u32 = 8;

/// The average of batches forgets one eighth with each, and is kept in eighths.
const EIGHTHS: u32 = 8;

/// The polling policy of one worker.
///
/// # Invariants
///
/// `window` is at most `most`.
pub struct Poll {
    most: u32,
    /// What a wake-up takes when nothing else is in its way, or zero.
    wake_up: u32,
    window: u32,
    /// Since when there is no work.
    dry_since: Option<u64>,
    /// How many requests were taken by then, modulo 2³².
    taken: u32,
    /// How many requests come at once: an average of the last times, in eighths of one.
    batch: u32,
    /// When to try the longest window.
    trial: Hold,
    /// How many more polls found work than did not, since the window was nothing.
    found: i32,
    aside: Aside,
}

impl Poll {
    /// A policy whose window is never longer than `most` nanoseconds; zero is never to poll.
    pub const fn new(most: u32) -> Self {
        Self {
            most,
            wake_up: 0,
            window: 0,
            dry_since: None,
            taken: 0,
            batch: EIGHTHS,
            trial: Hold::new(),
            found: 0,
            aside: Aside::new(),
        }
    }

    /// Changes the longest window.
    pub fn set_most(&mut self, most: u32) {
        // INVARIANT: The window is cut to it.
        self.most = most;
        self.window = self.window.min(most);
        self.dry_since = self.dry_since.filter(|_| most != 0);
    }

    /// A wake-up of the worker took so long. Rises slowly, as what is late has mostly waited for its turn.
    pub fn woke(&mut self, ns: u64) {
        let ns = u32::try_from(ns).unwrap_or(u32::MAX);
        let slowly = self.wake_up.saturating_add(self.wake_up / 16);
        self.wake_up = match self.wake_up {
            0 => ns,
            _ => ns.min(slowly),
        };
    }

    /// What a wake-up takes, in nanoseconds; zero if none was timed yet.
    pub const fn wake_up(&self) -> u32 {
        self.wake_up
    }

    /// How long it polls at present, in nanoseconds.
    pub const fn window(&self) -> u32 {
        self.window
    }

    /// How long to poll before the guest is told of what it has not been told of: if it did anything, it would have come.
    pub const fn patience(&self) -> u32 {
        self.wake_up.saturating_mul(PATIENCE)
    }

    /// What polling may take for one request.
    fn price(&self) -> u32 {
        let worth = self.wake_up.saturating_mul(WAKE_UPS);
        worth.max(LEAST_NS).min(self.most)
    }

    /// The longest window that is worth while.
    fn limit(&self) -> u32 {
        let requests = (self.batch / EIGHTHS).max(1);
        self.price().saturating_mul(requests).min(self.most)
    }

    /// Before a sleep, on a processor that others want: whether to step aside and look once more.
    pub const fn may_step_aside(&self, now: u64) -> bool {
        self.aside.is_due(now)
    }

    /// Stepping aside, which ended `now`, took so long, and brought so many requests.
    pub fn stepped_aside(&mut self, now: u64, ns: u64, found: u32) {
        let price = self.price();
        self.aside.stepped(now, ns, found, price, self.most);
    }

    /// Whether the policy wants to be told the time at all.
    pub const fn on(&self) -> bool {
        self.most != 0
    }

    /// Whether there is no work since [`ran_dry`](Self::ran_dry).
    pub const fn dry(&self) -> bool {
        self.dry_since.is_some()
    }

    /// There is no more work after so many requests, modulo 2³², that were ever taken: the time until which to poll, which
    /// is `now` if not at all.
    pub fn ran_dry(&mut self, now: u64, taken: u32) -> u64 {
        self.dry_since = Some(now);
        let batch = taken.wrapping_sub(self.taken).min(BATCH);
        self.taken = taken;
        if batch != 0 {
            let forgotten = self.batch / EIGHTHS;
            self.batch = self.batch.saturating_sub(forgotten).saturating_add(batch);
        }
        if self.window == 0 && self.trial.is_over(now) {
            // INVARIANT: The limit is not longer than `most`.
            self.window = self.limit();
        }
        now.saturating_add(u64::from(self.window))
    }

    /// Somebody else has taken requests, up to so many that were ever taken: they are no batch of ours.
    pub const fn served_elsewhere(&mut self, taken: u32) {
        self.taken = taken;
    }

    /// There is work again.
    pub fn work_came(&mut self, now: u64) {
        let Some(since) = self.dry_since.take() else {
            return;
        };
        let dry = now.saturating_sub(since);
        let limit = self.limit();
        if dry > u64::from(limit) {
            self.shrink(now, limit);
        } else {
            self.found = self.found.saturating_add(1);
            if dry > u64::from(self.window) {
                // INVARIANT: The limit is not longer than `most`.
                self.window = self.window.saturating_mul(2).max(FIRST_NS).min(limit);
            }
        }
    }

    /// Work came too late for any window, of which `limit` is the longest.
    fn shrink(&mut self, now: u64, limit: u32) {
        if self.window == 0 {
            return;
        }
        self.found = self.found.saturating_sub(1);
        self.window /= 2;
        if self.window >= FIRST_NS {
            return;
        }
        self.window = 0;
        if self.found > 0 {
            self.trial.paid();
        }
        // A window that is halved until there is none is polled for twice in all.
        self.trial.in_vain(now, u64::from(limit).saturating_mul(2));
        self.found = 0;
    }
}

#[cfg_attr(avio_kunit, kernel::macros::kunit_tests(avio_poll))]
#[cfg(any(test, avio_kunit))]
mod tests {
    use super::*;

    /// Runs dry and gets work after `dry`; the window with which it polled.
    fn round(poll: &mut Poll, now: &mut u64, dry: u64) -> u64 {
        let window = poll.ran_dry(*now, poll.taken.wrapping_add(1)) - *now;
        *now += dry;
        poll.work_came(*now);
        window
    }

    /// A policy that has just found that the longest window is in vain, and the time.
    fn tried(most: u32) -> (Poll, u64) {
        let (mut poll, mut now) = (Poll::new(most), 0);
        while round(&mut poll, &mut now, u64::from(most) + 1) != 0 {}
        (poll, now)
    }

    #[test]
    fn the_window_grows_while_work_comes_soon_and_is_bounded() {
        let (mut poll, mut now) = tried(50_000);
        assert_eq!(round(&mut poll, &mut now, 40_000), 0);
        assert_eq!(round(&mut poll, &mut now, 40_000), 10_000);
        assert_eq!(round(&mut poll, &mut now, 40_000), 20_000);
        assert_eq!(round(&mut poll, &mut now, 40_000), 40_000);
        assert_eq!(round(&mut poll, &mut now, 50_000), 40_000);
        assert_eq!(round(&mut poll, &mut now, 50_000), 50_000);
    }

    #[test]
    fn the_limit_follows_the_wake_ups_and_never_leaves_what_the_caller_allows() {
        let mut poll = Poll::new(1_000_000);
        assert_eq!(poll.limit(), LEAST_NS);
        poll.woke(40_000);
        assert_eq!(poll.limit(), WAKE_UPS * 40_000);
        poll.woke(4_000_000);
        assert_eq!(poll.limit(), WAKE_UPS * 42_500);
        poll.woke(30_000);
        assert_eq!(poll.limit(), WAKE_UPS * 30_000);
        poll.woke(1_000);
        assert_eq!(poll.limit(), LEAST_NS);
        for _ in 0..1000 {
            poll.woke(u64::MAX);
        }
        assert_eq!(poll.limit(), 1_000_000);
        poll.set_most(20_000);
        assert_eq!(poll.limit(), 20_000);
    }

    #[test]
    fn the_limit_follows_how_many_requests_come_at_once() {
        let mut poll = Poll::new(1_000_000);
        let mut taken = 0u32.wrapping_sub(100);
        let mut dry = |poll: &mut Poll, batch: u32| {
            for _ in 0..50 {
                taken = taken.wrapping_add(batch);
                poll.ran_dry(0, taken);
            }
            poll.limit()
        };
        assert_eq!(dry(&mut poll, 1), LEAST_NS);
        assert_eq!(dry(&mut poll, 0), LEAST_NS);
        assert_eq!(dry(&mut poll, 4), 4 * LEAST_NS);
        assert_eq!(dry(&mut poll, 0), 4 * LEAST_NS);
        assert_eq!(dry(&mut poll, 1_000_000), BATCH * LEAST_NS);
        poll.woke(40_000);
        assert_eq!(poll.limit(), 1_000_000);
        assert_eq!(dry(&mut poll, 1), WAKE_UPS * 40_000);
    }

    #[test]
    fn what_others_took_is_no_batch() {
        let mut poll = Poll::new(1_000_000);
        for taken in (0..100).map(|round| 33 * round) {
            poll.ran_dry(0, taken);
            poll.served_elsewhere(taken.wrapping_add(32));
        }
        assert_eq!(poll.limit(), LEAST_NS);
    }

    #[test]
    fn slow_wake_ups_make_longer_windows() {
        let (mut poll, mut now) = tried(1_000_000);
        for _ in 0..100 {
            assert!(round(&mut poll, &mut now, 300_000) <= LEAST_NS.into());
        }
        poll.woke(40_000);
        for _ in 0..10 {
            round(&mut poll, &mut now, 300_000);
        }
        assert!(round(&mut poll, &mut now, 300_000) >= 300_000);
    }

    #[test]
    fn a_window_that_suffices_stays() {
        let (mut poll, mut now) = tried(50_000);
        round(&mut poll, &mut now, 9_000);
        for _ in 0..5 {
            assert_eq!(round(&mut poll, &mut now, 9_000), 10_000);
        }
    }

    #[test]
    fn polling_in_vain_shrinks_the_window_to_nothing() {
        let (mut poll, mut now) = (Poll::new(50_000), 0);
        for _ in 0..10 {
            round(&mut poll, &mut now, 50_000);
        }
        for window in [50_000, 25_000, 12_500, 0] {
            assert_eq!(round(&mut poll, &mut now, 60_000), window);
        }
    }

    /// A guest that sends its next request after 20 µs if it is polled for, and else pays for ringing and for an interrupt
    /// first, more than polling may ever take.
    #[test]
    fn a_guest_that_is_late_because_it_is_not_polled_for_is_found_out() {
        for most in [50_000, 1_000_000] {
            let (mut poll, mut now) = tried(most);
            // It was not to be had for long.
            for _ in 0..1000 {
                round(&mut poll, &mut now, 2_000_000);
            }
            let found_out = now + 2 * 64 * u64::from(most);
            let mut rest = 0;
            while now < found_out + 100_000_000 {
                let window = poll.ran_dry(now, poll.taken.wrapping_add(1)) - now;
                rest += u32::from(now > found_out && window < 20_000);
                now += if window < 20_000 { 2_000_000 } else { 20_000 };
                poll.work_came(now);
            }
            assert_eq!(rest, 0);
        }
    }

    #[test]
    fn a_guest_that_is_late_in_any_case_is_hardly_ever_polled_for() {
        for late in [51_000, 60_000, 500_000, 50_000_000] {
            let (mut poll, mut now) = tried(50_000);
            let (begun, mut polled) = (now, 0);
            for _ in 0..10_000 {
                polled += round(&mut poll, &mut now, late);
            }
            assert!(polled != 0);
            assert!(polled < (now - begun) / 50);
        }
    }

    #[test]
    fn zero_is_never_to_poll() {
        let (mut poll, mut now) = (Poll::new(0), 7);
        assert!(!poll.on());
        for _ in 0..100 {
            assert_eq!(round(&mut poll, &mut now, 0), 0);
            assert_eq!(round(&mut poll, &mut now, 1), 0);
        }
        poll.set_most(50_000);
        assert_eq!(round(&mut poll, &mut now, 1), 50_000);
        poll.set_most(1_000);
        assert_eq!(round(&mut poll, &mut now, 1), 1_000);
        poll.set_most(0);
        assert_eq!(round(&mut poll, &mut now, 1), 0);
    }

    #[test]
    fn times_at_the_ends_and_clocks_that_go_back_do_no_harm() {
        let mut poll = Poll::new(u32::MAX);
        for (at, came) in [(u64::MAX, 0), (0, u64::MAX), (u64::MAX, u64::MAX)] {
            for _ in 0..40 {
                poll.ran_dry(at, u32::MAX);
                assert!(poll.dry());
                poll.work_came(came);
                assert!(!poll.dry());
                poll.stepped_aside(at, came, 0);
                poll.stepped_aside(at, came, u32::MAX);
            }
        }
        poll.work_came(5);
        assert!(!poll.dry());
    }
}
