// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What `tests/fuzz` does with a fuzzer's bytes, with a few random ones, so that it stays alive; and the inputs from which
//! a fuzzer starts.

#![cfg(not(loom))]

mod common;

use avio_abi::ring::Broken;
use common::accept::{fuzz_request, KINDS};
use common::attack::{fuzz_ring, ring_bytes, Attack};
use common::bytes::Bytes;
use common::legal::{legal, LEGAL_BYTES};
use common::random::seed;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Runs `body` on so many random inputs; how many it says yes to.
fn count<S: Strategy>(cases: u32, input: S, body: impl Fn(S::Value) -> bool) -> u32 {
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed()),
        ..Config::default()
    });
    let yes = Cell::new(0);
    let result = runner.run(&input, |input| {
        yes.set(yes.get() + u32::from(body(input)));
        Ok(())
    });
    result.expect("no input breaks it");
    yes.get()
}

#[test]
fn the_ring_survives_random_bytes() {
    let bytes = vec(any::<u8>(), 0..400);
    let broken = count(3000, bytes, |data| fuzz_ring(&data).is_some());
    assert!(broken > 100, "{broken} histories reached an end");
}

#[test]
fn requests_survive_random_bytes() {
    let bytes = vec(any::<u8>(), 0..400);
    let complete = count(3000, bytes, |data| fuzz_request(&data).is_some());
    assert!(complete > 1000, "{complete} inputs were a whole request");
}

#[test]
fn requests_survive_that_bytes_of_legal_ones_change() {
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..=3);
    let input = (0..KINDS.len(), vec(any::<u8>(), LEGAL_BYTES), changes);
    let accepted = count(6000, input, |(kind, whole, changes)| {
        let case = legal(kind, &mut Bytes(&whole)).expect("bytes enough");
        let mut data = case.to_bytes().expect("it has bytes");
        for (at, byte) in &changes {
            *at.get_mut(&mut data) = *byte;
        }
        let accepted = fuzz_request(&data) == Some(true);
        assert!(accepted || !changes.is_empty(), "a legal one was refused");
        accepted
    });
    println!("{accepted} of 6000 were accepted");
    assert!(accepted > 1500, "too few to know that legal ones survive");
    assert!(accepted < 5500, "too many: the changes do no harm");
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

/// Histories from which the fuzzer of rings starts: a legal one, and one for each reason to end.
fn ring_seeds() -> [(Option<Broken>, Vec<Attack>); 6] {
    let [tail, taken, event, arms] = [0, 1, 2, 3];
    let turn = [
        Attack::Work,
        Attack::Push,
        Attack::Push,
        Attack::Pending,
        Attack::Take,
        Attack::Take,
        Attack::Near(event, 1),
        Attack::Near(arms, 1),
        Attack::Post(1),
        Attack::Rest,
        Attack::Arm,
        Attack::Post(0),
    ];
    let then = |more: &[Attack]| [&turn[..], more].concat();
    let ahead = [Attack::Push, Attack::Near(taken, 1), Attack::Take];
    // Both slots have requests with this tag.
    let tags = |tag: u64| {
        let entry = [tag << 16, 0, 0, 0, 0, 0, 0, 0];
        let write = [0, 1].map(|slot| Attack::Submission(slot, entry));
        let push = [Attack::Push, Attack::Push];
        then(&[&push[..], &write, &[Attack::Take, Attack::Take]].concat())
    };
    [
        (None, then(&turn)),
        (
            Some(Broken::SubmissionIndex),
            then(&[Attack::Near(tail, -1), Attack::Arm]),
        ),
        (Some(Broken::CompletionIndex), then(&ahead)),
        (
            Some(Broken::CompletionOverrun),
            then(&[Attack::Near(tail, 1), Attack::Take]),
        ),
        (Some(Broken::TagRange), tags(2)),
        (Some(Broken::TagInFlight), tags(1)),
    ]
}

/// All seeds by their names in `tests/fuzz/seeds`.
fn seeds() -> BTreeMap<String, Vec<u8>> {
    let mut seeds = BTreeMap::new();
    for (end, attacks) in ring_seeds() {
        let bytes = ring_bytes(2, u32::MAX - 1, &attacks);
        assert_eq!(fuzz_ring(&bytes), end);
        let name = end.map_or("legal", Broken::name);
        seeds.insert(format!("ring/{name}"), bytes);
    }
    for (kind, name) in KINDS.iter().enumerate() {
        let case = legal(kind, &mut Bytes(&[2; LEGAL_BYTES])).expect("bytes enough");
        let bytes = case.to_bytes().expect("it has bytes");
        assert_eq!(fuzz_request(&bytes), Some(true));
        let name = name.to_lowercase().replace(", ", "_");
        seeds.insert(format!("request/{name}"), bytes);
    }
    seeds
}

#[test]
fn the_seeds_of_the_fuzzers_are_these() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/seeds");
    let seeds = seeds();
    if std::env::var_os("AVIO_WRITE_SEEDS").is_some() {
        for (name, bytes) in &seeds {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
            fs::write(path, bytes).expect("the file is written");
        }
    }
    let mut found = BTreeMap::new();
    for target in ["ring", "request"] {
        for entry in fs::read_dir(folder.join(target)).expect("a folder of seeds") {
            let path = entry.expect("a seed").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            let bytes = fs::read(&path).expect("it can be read");
            found.insert(format!("{target}/{name}"), bytes);
        }
    }
    assert_eq!(found, seeds, "AVIO_WRITE_SEEDS=1 writes them anew");
}
