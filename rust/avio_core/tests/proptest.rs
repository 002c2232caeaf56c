// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Random histories of a queue pair, legal and hostile, and random requests.

#![cfg(not(loom))]

mod common;

use avio_abi::ioctl::{region_flags, Region};
use avio_abi::ring::{
    segment_flags, Broken, Completion, Segment, Submission, MAX_REQUEST_BYTES, MAX_SEGMENTS,
};
use avio_abi::stor::{lun_flags, LunInfo};
use avio_abi::wire::Wire;
use avio_abi::{features, PAGE_SIZE};
use avio_core::regions::check_regions;
use avio_core::ring::Wanted;
use common::accept::accept;
use common::attack::{survive, Attack};
use common::Pair;
use proptest::prelude::*;
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
        1 => (0usize..32, any::<u32>()).prop_map(|(word, value)| Attack::Word(word * 4, value)),
        6 => (0usize..5, -6i8..7).prop_map(|(word, by)| Attack::Near(word, by)),
        2 => (any::<u8>(), any::<[u64; 8]>()).prop_map(|(slot, entry)| Attack::Submission(slot, entry)),
        2 => (any::<u8>(), any::<u64>()).prop_map(|(slot, entry)| Attack::Completion(slot, entry)),
        8 => Just(Attack::Take),
        2 => Just(Attack::Arm),
        5 => any::<u8>().prop_map(Attack::Post),
    ]
}

fn small<T: Clone + std::fmt::Debug + 'static>(values: &[T]) -> impl Strategy<Value = T> {
    proptest::sample::select(values.to_vec())
}

/// Segments that are mostly legal.
fn segment() -> impl Strategy<Value = Segment> {
    let addr = prop_oneof![8 => (0u64..64).prop_map(|n| n * 512), 1 => any::<u64>()];
    let len = prop_oneof![8 => (0u32..20).prop_map(|n| n * 512), 2 => small(&[MAX_REQUEST_BYTES, u32::MAX, u32::MAX & !511]), 1 => any::<u32>()];
    let flags = prop_oneof![8 => small(&[0, segment_flags::DEVICE_WRITES]), 1 => small(&[segment_flags::LIST, 3, 4, 1 << 31])];
    (addr, len, flags).prop_map(|(addr, len, flags)| Segment { addr, len, flags })
}

fn submission() -> impl Strategy<Value = Submission> {
    let inline = proptest::array::uniform3(prop_oneof![segment(), Just(Segment::ZERO)]);
    let sector =
        prop_oneof![8 => 0u64..2100, 1 => any::<u64>(), 1 => (0u64..9).prop_map(|n| u64::MAX - n)];
    let segments = prop_oneof![8 => 0u16..5, 1 => small(&[255u16, 256, 257, u16::MAX])];
    (
        0u8..8,
        0u8..3,
        any::<u16>(),
        0u16..3,
        segments,
        sector,
        inline,
        any::<bool>(),
    )
        .prop_map(
            |(opcode, flags, tag, lun, segments, sector, mut inline, list)| {
                if list {
                    inline[0].flags = segment_flags::LIST;
                    inline[0].len = u32::from(segments) * Segment::SIZE as u32;
                }
                Submission {
                    opcode,
                    flags,
                    tag,
                    lun,
                    segments,
                    sector,
                    inline,
                }
            },
        )
}

fn lun() -> impl Strategy<Value = LunInfo> {
    let flags = small(&[
        lun_flags::PRESENT,
        lun_flags::PRESENT | lun_flags::READ_ONLY,
    ]);
    let sectors = prop_oneof![Just(0u64), 1u64..2100, Just(u64::MAX), Just(u64::MAX / 512)];
    let max_bytes = small(&[4096, 65536, MAX_REQUEST_BYTES]);
    (
        flags,
        small(&[512u32, 1024, 4096]),
        sectors,
        max_bytes,
        small(&[512u32, 4096]),
    )
        .prop_map(
            |(flags, logical_block, sectors, max_bytes, segment_align)| LunInfo {
                flags,
                logical_block,
                sectors,
                physical_block: logical_block,
                max_bytes,
                max_segments: MAX_SEGMENTS,
                segment_align,
                max_discard: 64,
                max_secure_erase: 0,
                max_write_zeroes: u32::MAX,
                ..LunInfo::ZERO
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

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
    fn s1_accepted_requests_lie_inside_the_lun(
        entry in submission(),
        list in proptest::collection::vec(segment(), 0..5),
        lun in lun(),
        offered in 0..=features::ALL,
    ) {
        // What must hold of it is checked there.
        accept(&entry, &list, &lun, offered);
    }

    #[test]
    fn r_any_bytes_are_parsed_without_harm(bytes in any::<[u8; 32]>(), rest in any::<[u8; 32]>(), lun in lun()) {
        let mut whole = [0; 64];
        whole[..32].copy_from_slice(&bytes);
        whole[32..].copy_from_slice(&rest);
        let entry = Submission::from_bytes(&whole);
        prop_assert_eq!(entry.to_bytes(), whole);
        accept(&entry, &entry.inline, &lun, features::ALL);
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
    use avio_abi::ring::control::{CQ_HEAD, SQ_TAIL};
    let two = [
        Attack::Word(SQ_TAIL, 2),
        Attack::Take,
        Attack::Take,
        Attack::Post(0),
        Attack::Post(0),
    ];
    let then = |more: &[Attack]| [&two[..], more].concat();
    assert_eq!(
        survive(2, 0, &[Attack::Word(SQ_TAIL, 3), Attack::Take]),
        Some(Broken::SubmissionIndex)
    );
    assert_eq!(
        survive(2, 0, &then(&[Attack::Word(SQ_TAIL, 1), Attack::Arm])),
        Some(Broken::SubmissionIndex)
    );
    let overrun = then(&[Attack::Word(SQ_TAIL, 3), Attack::Take]);
    assert_eq!(survive(2, 0, &overrun), Some(Broken::CompletionOverrun));
    let ahead = then(&[
        Attack::Word(CQ_HEAD, 3),
        Attack::Word(SQ_TAIL, 3),
        Attack::Take,
    ]);
    assert_eq!(survive(2, 0, &ahead), Some(Broken::CompletionIndex));
    let legal = then(&[
        Attack::Word(CQ_HEAD, 2),
        Attack::Word(SQ_TAIL, 4),
        Attack::Take,
        Attack::Take,
    ]);
    assert_eq!(survive(2, 0, &legal), None);
}
