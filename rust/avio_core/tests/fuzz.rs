// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What `tests/fuzz` does with a fuzzer's bytes, with a few random ones, so that it stays alive.

#![cfg(not(loom))]

mod common;

use common::accept::fuzz_request;
use common::attack::fuzz_ring;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Runs `body` on the same 3000 inputs at each run; how many it says yes to.
fn count(longest: usize, body: fn(&[u8]) -> bool) -> u32 {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let config = Config {
        cases: 3000,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let yes = std::cell::Cell::new(0);
    let bytes = proptest::collection::vec(any::<u8>(), 0..longest);
    let result = runner.run(&bytes, |data| {
        yes.set(yes.get() + u32::from(body(&data)));
        Ok(())
    });
    result.expect("no input breaks it");
    yes.get()
}

#[test]
fn the_ring_survives_random_bytes() {
    let broken = count(400, |data| fuzz_ring(data).is_some());
    assert!(broken > 100, "{broken} histories reached an end");
}

#[test]
fn requests_survive_random_bytes() {
    let complete = count(400, |data| fuzz_request(data).is_some());
    assert!(complete > 1000, "{complete} inputs were a whole request");
}

#[test]
fn a_plain_read_out_of_bytes_is_accepted() {
    // Blocks of 512 bytes, a large disk, all features, one run of 256 pages, and a READ of 4096 bytes to page 1.
    let mut data = vec![0, 0, 3, 2, 0, 1, 1, 1, 0xff, 1, 0, 255, 0];
    let mut entry = [0; 64];
    entry[0] = 1;
    entry[6] = 1;
    entry[17] = 0x10;
    entry[25] = 0x10;
    entry[28] = 1;
    data.extend(entry);
    assert_eq!(fuzz_request(&data), Some(true));
}
