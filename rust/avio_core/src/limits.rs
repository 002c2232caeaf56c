// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! How fast a LUN may be used: so many requests and so many bytes a second.
//!
//! A bucket is kept as the time at which it will be paid off. Taking from it moves that time on by what the taking
//! costs at the bucket's rate; how far it may lie ahead of now is the burst. So nothing has to be refilled, and the
//! time to wait falls out of the same comparison. Times are nanoseconds of any clock that does not go back.

const SECOND_NS: u64 = 1_000_000_000;

/// Times inside of a bucket have so many fractional bits, so that costs of less than a nanosecond add up.
const FRACTION: u32 = 32;

/// A rate with a burst.
#[derive(Clone, Debug)]
struct Bucket {
    /// What one unit costs; zero is no limit.
    each: u64,
    /// How far `paid` may lie ahead.
    burst: u128,
    /// When all that was taken is paid off.
    paid: u128,
}

impl Bucket {
    /// So many units a second, and so many at once, zero being a tenth of a second's worth. A rate of zero is no limit.
    fn new(rate: u64, burst: u64) -> Self {
        let burst = if burst == 0 { rate / 10 } else { burst }.max(1);
        let each = (SECOND_NS << FRACTION).checked_div(rate).unwrap_or(0);
        Self {
            each,
            burst: u128::from(burst).saturating_mul(u128::from(each)),
            paid: 0,
        }
    }

    fn cost(&self, units: u64) -> u128 {
        u128::from(self.each).saturating_mul(u128::from(units))
    }

    /// How many nanoseconds are missing until `units` can be taken. What costs more than the burst can be taken when
    /// all is paid.
    fn wait(&self, now: u64, units: u64) -> u64 {
        let until = self
            .paid
            .saturating_add(self.cost(units).min(self.burst))
            .saturating_sub(self.burst);
        let missing = until.saturating_sub(u128::from(now) << FRACTION);
        let whole = missing.saturating_add((1 << FRACTION) - 1) >> FRACTION;
        u64::try_from(whole).unwrap_or(u64::MAX)
    }

    fn take(&mut self, now: u64, units: u64) {
        let from = self.paid.max(u128::from(now) << FRACTION);
        self.paid = from.saturating_add(self.cost(units));
    }
}

/// The limits of one LUN.
#[derive(Clone, Debug)]
pub struct Limits {
    requests: Bucket,
    bytes: Bucket,
}

impl Limits {
    /// So many requests and bytes a second, each with a burst. A rate of zero is no limit, a burst of zero a tenth of a
    /// second's worth.
    pub fn new(iops: u64, iops_burst: u64, bytes: u64, bytes_burst: u64) -> Self {
        Self {
            requests: Bucket::new(iops, iops_burst),
            bytes: Bucket::new(bytes, bytes_burst),
        }
    }

    /// No limits.
    pub fn none() -> Self {
        Self::new(0, 0, 0, 0)
    }

    /// Lets one request of so many bytes go.
    ///
    /// # Errors
    ///
    /// Not yet: how many nanoseconds later it may ask again. Nothing was taken.
    pub fn take(&mut self, now: u64, bytes: u32) -> Result<(), u64> {
        let bytes = u64::from(bytes);
        match self.requests.wait(now, 1).max(self.bytes.wait(now, bytes)) {
            0 => {
                self.requests.take(now, 1);
                self.bytes.take(now, bytes);
                Ok(())
            }
            wait => Err(wait),
        }
    }
}

#[cfg_attr(avio_kunit, kernel::macros::kunit_tests(avio_limits))]
#[cfg(any(test, avio_kunit))]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_then_the_rate_holds() {
        let mut limits = Limits::new(1000, 5, 0, 0);
        for _ in 0..5 {
            assert_eq!(limits.take(SECOND_NS, 512), Ok(()));
        }
        assert_eq!(limits.take(SECOND_NS, 512), Err(1_000_000));
        assert_eq!(limits.take(SECOND_NS + 999_999, 512), Err(1));
        assert_eq!(limits.take(SECOND_NS + 1_000_000, 512), Ok(()));
        assert_eq!(limits.take(SECOND_NS + 1_000_000, 512), Err(1_000_000));
    }

    #[test]
    fn a_pause_earns_the_burst_and_no_more() {
        let mut limits = Limits::new(10, 3, 0, 0);
        let later = 1_000 * SECOND_NS;
        for _ in 0..3 {
            assert_eq!(limits.take(later, 0), Ok(()));
        }
        assert_eq!(limits.take(later, 0), Err(100_000_000));
    }

    #[test]
    fn bytes_count_and_a_request_larger_than_the_burst_goes_when_all_is_paid() {
        let mut limits = Limits::new(0, 0, 1 << 20, 4096);
        assert_eq!(limits.take(SECOND_NS, 1 << 20), Ok(()));
        let wait = limits.take(SECOND_NS, 512).unwrap_err();
        assert!(wait > 990_000_000);
        assert!(wait < SECOND_NS);
        assert!(limits.take(2 * SECOND_NS - 1, 1 << 20).is_err());
        assert_eq!(limits.take(2 * SECOND_NS, 1 << 20), Ok(()));
    }

    #[test]
    fn a_request_that_has_to_wait_takes_nothing() {
        let mut limits = Limits::new(1, 1, 1000, 1000);
        assert_eq!(limits.take(SECOND_NS, 1000), Ok(()));
        for _ in 0..100 {
            assert_eq!(limits.take(SECOND_NS, 1000), Err(SECOND_NS));
        }
        assert_eq!(limits.take(2 * SECOND_NS, 1000), Ok(()));
    }

    #[test]
    fn a_burst_of_zero_is_a_tenth_of_a_second() {
        let mut limits = Limits::new(100, 0, 0, 0);
        for _ in 0..10 {
            assert_eq!(limits.take(SECOND_NS, 0), Ok(()));
        }
        assert!(limits.take(SECOND_NS, 0).is_err());
        let mut slow = Limits::new(1, 0, 0, 0);
        assert_eq!(slow.take(SECOND_NS, 0), Ok(()));
        assert_eq!(slow.take(SECOND_NS, 0), Err(SECOND_NS));
    }

    #[test]
    fn rates_hold_over_time_although_requests_wait_whole_nanoseconds() {
        for rate in [3u64, 700_001] {
            let mut limits = Limits::new(rate, 10, 0, 0);
            let (mut now, mut done) = (SECOND_NS, 0u64);
            while now < 2 * SECOND_NS && done < 2 * rate {
                match limits.take(now, 0) {
                    Ok(()) => done += 1,
                    Err(wait) => now += wait,
                }
            }
            assert!(done >= rate - 1);
            assert!(done <= rate + 10);
        }
    }

    #[test]
    fn no_limit_and_extreme_numbers_do_no_harm() {
        let mut none = Limits::none();
        for now in [0, u64::MAX] {
            assert_eq!(none.take(now, u32::MAX), Ok(()));
        }
        let extremes = [0, 1, u64::MAX];
        for rate in extremes {
            for burst in extremes {
                let mut limits = Limits::new(rate, burst, rate, burst);
                for now in [0, u64::MAX, 0, 1, u64::MAX] {
                    for bytes in [0, 1, u32::MAX] {
                        let _ = limits.take(now, bytes);
                    }
                }
            }
        }
    }
}
