// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! How long a worker that has run out of work looks for more before it sleeps.
//!
//! A worker that polls spares the guest a doorbell, which is a VM exit, and itself a wake-up; but it burns a processor.
//! So the window grows when work came so soon that a longer window would have caught it, and shrinks to nothing when
//! it did not come in time. Times are nanoseconds of any clock that does not go back.

/// The first window.
const FIRST_NS: u32 = 10_000;

/// The polling policy of one worker.
///
/// # Invariants
///
/// `window` is at most `most`.
pub struct Poll {
    most: u32,
    window: u32,
    /// Since when there is no work.
    dry_since: Option<u64>,
}

impl Poll {
    /// A policy whose window is never longer than `most` nanoseconds; zero is never to poll.
    pub const fn new(most: u32) -> Self {
        Self {
            most,
            window: 0,
            dry_since: None,
        }
    }

    /// Changes the longest window.
    pub fn set_most(&mut self, most: u32) {
        // INVARIANT: The window is cut to it.
        self.most = most;
        self.window = self.window.min(most);
        self.dry_since = self.dry_since.filter(|_| most != 0);
    }

    /// Whether the policy wants to be told the time at all.
    pub const fn on(&self) -> bool {
        self.most != 0
    }

    /// Whether there is no work since [`ran_dry`](Self::ran_dry).
    pub const fn dry(&self) -> bool {
        self.dry_since.is_some()
    }

    /// There is no more work: the time until which to poll, which is `now` if not at all.
    pub fn ran_dry(&mut self, now: u64) -> u64 {
        self.dry_since = Some(now);
        now.saturating_add(u64::from(self.window))
    }

    /// There is work again.
    pub fn work_came(&mut self, now: u64) {
        let Some(since) = self.dry_since.take() else {
            return;
        };
        let dry = now.saturating_sub(since);
        if dry > u64::from(self.most) {
            self.window /= 2;
            if self.window < FIRST_NS {
                self.window = 0;
            }
        } else if dry > u64::from(self.window) {
            // INVARIANT: Not longer than `most`.
            self.window = self.window.saturating_mul(2).max(FIRST_NS).min(self.most);
        }
    }
}

#[cfg_attr(avio_kunit, kernel::macros::kunit_tests(avio_poll))]
#[cfg(any(test, avio_kunit))]
mod tests {
    use super::*;

    /// Runs dry at `at` and gets work after `dry`; the window with which it polled.
    fn round(poll: &mut Poll, at: u64, dry: u64) -> u64 {
        let window = poll.ran_dry(at) - at;
        assert!(poll.dry());
        poll.work_came(at + dry);
        assert!(!poll.dry());
        window
    }

    #[test]
    fn the_window_grows_while_work_comes_soon_and_is_bounded() {
        let mut poll = Poll::new(50_000);
        assert_eq!(round(&mut poll, 0, 40_000), 0);
        assert_eq!(round(&mut poll, 0, 40_000), 10_000);
        assert_eq!(round(&mut poll, 0, 40_000), 20_000);
        assert_eq!(round(&mut poll, 0, 40_000), 40_000);
        assert_eq!(round(&mut poll, 0, 50_000), 40_000);
        assert_eq!(round(&mut poll, 0, 50_000), 50_000);
    }

    #[test]
    fn a_window_that_suffices_stays() {
        let mut poll = Poll::new(50_000);
        round(&mut poll, 0, 9_000);
        for _ in 0..5 {
            assert_eq!(round(&mut poll, 0, 9_000), 10_000);
        }
    }

    #[test]
    fn polling_in_vain_shrinks_the_window_to_nothing() {
        let mut poll = Poll::new(50_000);
        for _ in 0..10 {
            round(&mut poll, 0, 50_000);
        }
        assert_eq!(round(&mut poll, 0, 1_000_000), 50_000);
        assert_eq!(round(&mut poll, 0, 1_000_000), 25_000);
        assert_eq!(round(&mut poll, 0, 1_000_000), 12_500);
        assert_eq!(round(&mut poll, 0, 1_000_000), 0);
    }

    #[test]
    fn zero_is_never_to_poll() {
        let mut poll = Poll::new(0);
        assert!(!poll.on());
        assert_eq!(round(&mut poll, 7, 0), 0);
        assert_eq!(round(&mut poll, 7, 1), 0);
        poll.set_most(50_000);
        round(&mut poll, 7, 1);
        assert_eq!(round(&mut poll, 7, 1), 10_000);
        poll.set_most(1_000);
        assert_eq!(round(&mut poll, 7, 1), 1_000);
        poll.set_most(0);
        assert_eq!(round(&mut poll, 7, 1), 0);
    }

    #[test]
    fn times_at_the_ends_and_clocks_that_go_back_do_no_harm() {
        let mut poll = Poll::new(u32::MAX);
        for (at, came) in [(u64::MAX, 0), (0, u64::MAX), (u64::MAX, u64::MAX)] {
            for _ in 0..40 {
                poll.ran_dry(at);
                poll.work_came(came);
            }
        }
        poll.work_came(5);
        assert!(!poll.dry());
    }
}
