// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Random requests: legal ones, and such that differ from one in a field or two.

#![cfg(not(loom))]

mod common;

use avio_abi::features;
use avio_abi::ring::Submission;
use common::accept::{accept, accept_case, KINDS};
use common::bytes::Bytes;
use common::case::Case;
use common::legal::{legal, mutate, LEGAL_BYTES, MUTATION_BYTES};
use common::random::seed;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use std::cell::RefCell;

/// What became of the requests of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Accepted, of those that are legal.
    legal: u32,
    /// Accepted, of those that were changed.
    changed: u32,
    /// Accepted, with all their segments in memory.
    translated: u32,
    /// Not accepted, counted with the kind that it was before it was changed.
    refused: u32,
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed()),
        ..Config::default()
    })
}

/// Tries a legal request with such changes.
fn attempt(kind: usize, whole: &[u8], changes: &[Vec<u8>], counts: &mut [Count]) {
    let mut case = legal(kind, &mut Bytes(whole)).expect("bytes enough");
    for change in changes {
        mutate(&mut case, &mut Bytes(change)).expect("bytes enough");
    }
    match accept_case(&case) {
        None => {
            assert!(!changes.is_empty(), "a legal request was refused: {case:?}");
            counts[kind].refused += 1;
        }
        Some((found, translated)) => {
            let count = &mut counts[found];
            count.translated += u32::from(translated);
            if changes.is_empty() {
                assert_eq!(found, kind);
                count.legal += 1;
            } else {
                count.changed += 1;
            }
        }
    }
}

#[test]
fn s1_accepted_requests_lie_inside_the_lun() {
    let counts = RefCell::new([Count::default(); KINDS.len()]);
    let changes = vec(vec(any::<u8>(), MUTATION_BYTES), 0..=2);
    let input = (0..KINDS.len(), vec(any::<u8>(), LEGAL_BYTES), changes);
    let result = runner(16_000).run(&input, |(kind, whole, changes)| {
        // What must hold of it if it is accepted is checked there.
        attempt(kind, &whole, &changes, &mut counts.borrow_mut()[..]);
        Ok(())
    });
    result.expect("nothing illegal is accepted");
    for (kind, count) in KINDS.iter().zip(counts.take()) {
        println!("{kind}: {count:?}");
        assert!(count.legal > 300, "{kind}: too few legal ones");
        assert!(count.changed > 200, "{kind}: too few that were changed");
        assert!(count.translated > 200, "{kind}: too few in memory");
        assert!(count.refused > 100, "{kind}: too few refused");
    }
}

#[test]
fn legal_requests_can_be_told_to_a_fuzzer() {
    let input = (0..KINDS.len(), vec(any::<u8>(), LEGAL_BYTES));
    let result = runner(1000).run(&input, |(kind, whole)| {
        let case = legal(kind, &mut Bytes(&whole)).expect("bytes enough");
        let bytes = case.to_bytes().expect("it has bytes");
        prop_assert_eq!(Case::from_bytes(&bytes), Some(case));
        Ok(())
    });
    result.expect("each is the same again");
}

#[test]
fn r_any_bytes_are_parsed_without_harm() {
    let input = (
        0..KINDS.len(),
        vec(any::<u8>(), LEGAL_BYTES),
        any::<[[u8; 32]; 2]>(),
    );
    let result = runner(1000).run(&input, |(kind, whole, entry)| {
        let case = legal(kind, &mut Bytes(&whole)).expect("bytes enough");
        let whole: [u8; 64] = entry.concat().try_into().expect("twice 32");
        let entry = Submission::from_bytes(&whole);
        prop_assert_eq!(entry.to_bytes(), whole);
        accept(&entry, &entry.inline, &case.lun, features::ALL);
        Ok(())
    });
    result.expect("no bytes break it");
}
