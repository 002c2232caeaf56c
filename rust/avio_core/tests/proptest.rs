// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Random histories of a queue pair, legal and hostile, and random regions.

#![cfg(not(loom))]

mod common;

use avio_abi::ioctl::{region_flags, Region};
use avio_abi::ring::{Broken, Completion, Submission};
use avio_abi::wire::Wire;
use avio_abi::PAGE_SIZE;
use avio_core::regions::check_regions;
use avio_core::ring::Wanted;
use common::attack::{survive, Attack, NEAR};
use common::{random, Pair};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::collections::{BTreeMap, VecDeque};

/// A step of a legal history; numbers choose among what is possible.
#[derive(Clone, Copy, Debug)]
enum Step {
    Push(u8),
    Publish,
    Take,
    DeviceSleeps,
    Complete(u8),
    Collect,
    DriverSleeps(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u8>().prop_map(Step::Push),
        3 => Just(Step::Publish),
        4 => Just(Step::Take),
        1 => Just(Step::DeviceSleeps),
        4 => any::<u8>().prop_map(Step::Complete),
        4 => Just(Step::Collect),
        1 => any::<u8>().prop_map(Step::DriverSleeps),
    ]
}

fn pick<T>(from: &mut Vec<T>, choice: u8) -> Option<T> {
    let index = usize::from(choice).checked_rem(from.len())?;
    Some(from.swap_remove(index))
}

/// What a legal driver and a legal device know of a history.
struct Model {
    pair: Pair,
    free: Vec<u16>,
    pushed: VecDeque<Submission>,
    published: VecDeque<Submission>,
    in_device: Vec<Submission>,
    posted: VecDeque<(u16, u32)>,
    serial: u64,
    device_sleeps: bool,
    /// Completions still to come before the interrupt that the driver waits for.
    driver_waits: Option<usize>,
}

impl Model {
    fn new(entries: u32, position: u32) -> Self {
        Self {
            pair: Pair::at(entries, position),
            free: (0..entries as u16).collect(),
            pushed: VecDeque::new(),
            published: VecDeque::new(),
            in_device: Vec::new(),
            posted: VecDeque::new(),
            serial: 0,
            device_sleeps: false,
            driver_waits: None,
        }
    }

    fn step(&mut self, step: Step) {
        let Pair {
            memory,
            submit,
            collect,
            take,
            post,
        } = &mut self.pair;
        match step {
            Step::Push(choice) => {
                if let Some(tag) = pick(&mut self.free, choice) {
                    self.serial += 1;
                    let entry = Submission {
                        tag,
                        sector: self.serial,
                        opcode: choice,
                        ..Submission::ZERO
                    };
                    submit.push(memory, &entry);
                    self.pushed.push_back(entry);
                }
            }
            Step::Publish => {
                let rings = submit.publish(memory);
                assert!(
                    rings || !self.device_sleeps || self.pushed.is_empty(),
                    "a doorbell is missing"
                );
                self.device_sleeps &= !rings;
                self.published.append(&mut self.pushed);
            }
            Step::Take => {
                let taken = take.take(memory, || post.posted()).expect("a legal driver");
                assert_eq!(taken, self.published.pop_front());
                self.in_device.extend(taken);
            }
            Step::DeviceSleeps => {
                let more = take.arm(memory).expect("a legal driver");
                assert_eq!(more, !self.published.is_empty());
                self.device_sleeps = !more;
            }
            Step::Complete(choice) => {
                if let Some(entry) = pick(&mut self.in_device, choice) {
                    let bytes = entry.sector as u32;
                    let completion = Completion {
                        tag: entry.tag,
                        status: choice,
                        bytes,
                    };
                    let interrupt = post.post(memory, completion) == Wanted::Now;
                    self.posted.push_back((entry.tag, bytes));
                    if let Some(left) = self.driver_waits {
                        assert_eq!(
                            interrupt,
                            left == 0,
                            "the interrupt comes with the completion that was asked for"
                        );
                        self.driver_waits = left.checked_sub(1);
                    }
                }
            }
            Step::Collect => {
                self.driver_waits = None;
                let got = collect
                    .take(memory)
                    .map(|completion| (completion.tag, completion.bytes));
                assert_eq!(got, self.posted.pop_front());
                self.free.extend(got.map(|(tag, _)| tag));
            }
            Step::DriverSleeps(choice) => {
                let in_flight = self.in_device.len()
                    + self.published.len()
                    + self.pushed.len()
                    + self.posted.len();
                let after = usize::from(choice).checked_rem(in_flight).unwrap_or(0);
                let more = collect.arm(memory, after as u32);
                assert_eq!(more, !self.posted.is_empty());
                self.driver_waits = if more { None } else { Some(after) };
            }
        }
    }

    /// Lets everything that was begun end, and checks that each request was answered exactly once.
    fn finish(mut self, entries: u32) {
        self.step(Step::Publish);
        for _ in 0..entries {
            self.step(Step::Take);
            self.step(Step::Complete(0));
            self.step(Step::Collect);
        }
        while !self.in_device.is_empty() || !self.posted.is_empty() {
            self.step(Step::Complete(0));
            self.step(Step::Collect);
        }
        self.free.sort_unstable();
        assert_eq!(self.free, (0..entries as u16).collect::<Vec<_>>());
    }
}

/// Where histories begin: at the beginning, and shortly before positions wrap.
fn position() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), (0u32..40).prop_map(|before| u32::MAX - before)]
}

fn attack() -> impl Strategy<Value = Attack> {
    prop_oneof![
        1 => (0u8..32, any::<u32>()).prop_map(|(word, value)| Attack::Word(word, value)),
        3 => (0..NEAR.len() as u8, -6i8..7).prop_map(|(word, by)| Attack::Near(word, by)),
        1 => (any::<u8>(), any::<[u64; 8]>()).prop_map(|(slot, entry)| Attack::Submission(slot, entry)),
        2 => (any::<u8>(), any::<u64>()).prop_map(|(slot, entry)| Attack::Completion(slot, entry)),
        8 => Just(Attack::Take),
        2 => Just(Attack::Arm),
        5 => any::<u8>().prop_map(Attack::Post),
        2 => Just(Attack::Pending),
        2 => Just(Attack::Rest),
        1 => Just(Attack::Work),
        8 => Just(Attack::Push),
    ]
}

fn small<T: Clone + std::fmt::Debug + 'static>(values: &[T]) -> impl Strategy<Value = T> {
    proptest::sample::select(values.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, rng_seed: RngSeed::Fixed(random::seed()), ..ProptestConfig::default() })]

    #[test]
    fn abi_4_every_request_of_a_legal_history_is_answered_once(
        entries in small(&[2u32, 4, 8, 32]),
        start in position(),
        steps in proptest::collection::vec(step(), 0..400),
    ) {
        let mut model = Model::new(entries, start);
        for step in steps {
            model.step(step);
        }
        model.finish(entries);
    }

    #[test]
    fn r1_r10_r15_a_hostile_history_takes_no_more_than_the_ring(
        entries in small(&[2u32, 4, 8]),
        start in position(),
        attacks in proptest::collection::vec(attack(), 0..300),
    ) {
        survive(entries, start, &attacks);
    }

    #[test]
    fn m4_accepted_regions_do_not_overlap(
        pages in proptest::collection::vec((0u64..12, 0u64..4, 0u64..12, 0u32..3, 0u64..20), 0..6),
    ) {
        let regions: Vec<_> = pages.iter().map(|&(guest, size, user, flags, odd)| Region {
            guest_addr: guest * PAGE_SIZE + u64::from(odd == 1),
            size: size * PAGE_SIZE + u64::from(odd == 2),
            user_addr: user * PAGE_SIZE + u64::from(odd == 3),
            flags,
            reserved: u32::from(odd == 4),
        }).collect();
        let whole = |r: &Region| {
            r.size > 0 && r.reserved == 0 && r.flags & !region_flags::READ_ONLY == 0
                && [r.guest_addr, r.size, r.user_addr].iter().all(|value| value % PAGE_SIZE == 0)
        };
        let mut owner = BTreeMap::new();
        let legal = regions.iter().enumerate().all(|(index, region)| {
            whole(region)
                && (region.guest_addr..region.guest_addr + region.size)
                    .step_by(PAGE_SIZE as usize)
                    .all(|page| owner.insert(page, index).is_none())
        });
        prop_assert_eq!(check_regions(&regions).is_ok(), legal);
    }
}

#[test]
fn hostile_histories_reach_every_reason_that_the_ring_itself_can_give() {
    let two = [
        Attack::Push,
        Attack::Push,
        Attack::Take,
        Attack::Take,
        Attack::Post(0),
        Attack::Post(0),
    ];
    let tail = |by: i8| Attack::Near(0, by);
    let taken = |by: i8| Attack::Near(1, by);
    let ends = |more: &[Attack]| survive(2, u32::MAX, &[&two[..], more].concat());
    assert_eq!(ends(&[Attack::Pending, Attack::Arm]), None);
    let one = [Attack::Push, Attack::Take];
    assert_eq!(ends(&one), None);
    for look in [Attack::Take, Attack::Arm, Attack::Pending] {
        for by in [-1, 3] {
            let end = ends(&[tail(by), look.clone()]);
            assert_eq!(end, Some(Broken::SubmissionIndex), "{look:?} {by}");
        }
    }
    let overrun = ends(&[tail(1), Attack::Take]);
    assert_eq!(overrun, Some(Broken::CompletionOverrun));
    for by in [-3, 1] {
        let end = ends(&[taken(by), tail(1), Attack::Take]);
        assert_eq!(end, Some(Broken::CompletionIndex), "{by}");
    }
    for (tag, reason) in [(0, Broken::TagInFlight), (2, Broken::TagRange)] {
        let mut entry = [0; 8];
        entry[0] = tag << 16;
        let again = [Attack::Push, Attack::Submission(0, entry), Attack::Take];
        assert_eq!(ends(&[&one[..], &again].concat()), Some(reason));
    }
}
