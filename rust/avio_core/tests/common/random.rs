// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The seed of random tests.

use std::hash::{BuildHasher, RandomState};

/// Another seed at each run, or the one that `PROPTEST_RNG_SEED` names. It is printed, which is seen if the test fails.
pub fn seed() -> u64 {
    let named = std::env::var("PROPTEST_RNG_SEED").ok();
    let seed = match named {
        Some(text) => text.parse().expect("PROPTEST_RNG_SEED is a number"),
        None => RandomState::new().hash_one(0),
    };
    println!("to try the same again: PROPTEST_RNG_SEED={seed}");
    seed
}
