// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! How long requests take, in classes that host and guest count alike.

use avio_abi::LATENCY_CLASSES;

/// The class of a duration: the first one has all below 2 µs, and each of the others what takes from 2^class to
/// 2^(class + 1) µs; the last one has what is longer, too.
pub const fn class(ns: u64) -> usize {
    match (ns / 1000).checked_ilog2() {
        None => 0,
        Some(class) if (class as usize) < LATENCY_CLASSES => class as usize,
        Some(_) => LATENCY_CLASSES - 1,
    }
}

#[cfg_attr(avio_kunit, kernel::macros::kunit_tests(avio_latency))]
#[cfg(any(test, avio_kunit))]
mod tests {
    use super::*;

    #[test]
    fn classes_begin_at_powers_of_two_and_the_last_has_no_end() {
        assert_eq!(class(0), 0);
        assert_eq!(class(1_999), 0);
        assert_eq!(class(2_000), 1);
        assert_eq!(class(3_999), 1);
        assert_eq!(class(4_000), 2);
        assert_eq!(class(1_000_000), 9);
        assert_eq!(class(u64::MAX), LATENCY_CLASSES - 1);
    }
}
