// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Segments and segment lists that break the rules: the request fails and the queue goes on.

use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use anyhow::{Context, Result};
use avio_abi::ring::{segment_flags, Segment, Submission};
use avio_abi::stor::Status::{self, BadAddress, BadSegments};
use avio_abi::wire::Wire;

pub const TESTS: &[Test] = &[
    ("r2_list_behind_the_end_of_memory", behind_the_end),
    ("r3_lists_empty_long_or_uneven", uneven),
    ("r4_list_inside_a_list", nested),
    ("r4_list_over_the_ring", over_the_ring),
    ("r5_empty_segments", empty),
    ("r6_segments_against_the_command", against_the_command),
    ("r7_total_length_overflows", overflows),
];

const BLOCK: (u64, u32) = (DATA, 4096);

type Case = (&'static str, Submission, Status);

fn refuses(guest: &mut Guest, cases: &[Case]) -> Result<Outcome> {
    guest.refuses(cases).map(Outcome::Pass)
}

/// Requests that all end as BadSegments.
fn bad_segments(guest: &mut Guest, cases: &[(&'static str, Submission)]) -> Result<Outcome> {
    let case = |(what, entry): &(&'static str, Submission)| (*what, *entry, BadSegments);
    refuses(guest, &cases.iter().map(case).collect::<Vec<_>>())
}

/// A READ that says how many segments it has.
fn counted(segments: u16, inline: &[(u64, u32)]) -> Submission {
    let entry = read(0, 0, inline);
    Submission { segments, ..entry }
}

fn behind_the_end(env: &Env) -> Result<Outcome> {
    let end = NEXT + NEXT_SIZE;
    let cases = [
        ("list past the end", list(4, end - 32, 64), BadAddress),
        ("list into a hole", list(256, end - 16, 4096), BadAddress),
        (
            "list outside of memory",
            list(4, 0x7000_0000, 64),
            BadAddress,
        ),
        ("list that wraps", list(4, u64::MAX - 31, 64), BadAddress),
        ("count over inline", counted(4, &[BLOCK]), BadSegments),
        ("count over used", counted(3, &[BLOCK]), BadSegments),
        ("count under used", counted(1, &[BLOCK; 2]), BadSegments),
    ];
    refuses(&mut Guest::simple(env)?, &cases)
}

/// What the lists have is legal, so that nothing but their counts and lengths can be refused.
fn uneven(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let legal = vec![(DATA, guest.block()); 300];
    with_list(&guest, read(0, 0, &[]), LIST, &legal);
    guest.queue().ok(&list(256, LIST, 4096))?;
    let cases = [
        ("empty list", list(0, LIST, 0)),
        ("length of an empty list", list(4, LIST, 0)),
        ("list of 257", list(257, LIST, 257 * 16)),
        ("list of 65535", list(u16::MAX, LIST, 65535 * 16)),
        ("list one byte short", list(4, LIST, 63)),
        ("list one byte long", list(4, LIST, 65)),
        ("list of one segment too few", list(4, LIST, 48)),
        ("list length of all ones", list(4, LIST, u32::MAX)),
    ];
    bad_segments(&mut guest, &cases)
}

fn nested(env: &Env) -> Result<Outcome> {
    const NESTED: u64 = LIST + 256;
    const LEGAL: u64 = LIST + 512;
    const FLAGGED: u64 = LIST + 768;
    let mut guest = Guest::simple(env)?;
    let block = guest.block();
    let (is_list, writes) = (segment_flags::LIST, segment_flags::DEVICE_WRITES);
    let lists = [
        // Each of these holds itself, four times.
        (LIST, segment(LIST, 64, is_list)),
        (NESTED, segment(NESTED, 64, is_list | writes)),
        (LEGAL, segment(DATA, block, writes)),
        // But for the one flag as legal as that.
        (FLAGGED, segment(DATA, block, writes | is_list)),
    ];
    for (addr, entry) in lists {
        for at in 0..4 {
            guest.write_memory(addr + 16 * at, &entry.to_bytes());
        }
    }
    guest.queue().ok(&list(4, LEGAL, 64))?;
    let with = |segments, inline| Submission {
        segments,
        inline,
        ..read(0, 0, &[])
    };
    let (data, inner) = (segment(DATA, block, writes), segment(LEGAL, 64, is_list));
    let flagged = segment(DATA, block, writes | is_list);
    let cases = [
        ("a list of lists", list(4, LIST, 64)),
        ("a list of writable lists", list(4, NESTED, 64)),
        (
            "a list of data that says it is a list",
            list(4, FLAGGED, 64),
        ),
        ("two lists", with(4, [inner, inner, Segment::ZERO])),
        (
            "a list in the second place",
            with(2, [data, inner, Segment::ZERO]),
        ),
        (
            "data in the second place that says it is a list",
            with(2, [data, flagged, Segment::ZERO]),
        ),
    ];
    bad_segments(&mut guest, &cases)
}

fn over_the_ring(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &TWO_QUEUES)?;
    // Seen as segments, the entry's first 16 bytes have length zero, since its sector is 0.
    let ring = guest.queue().view.submissions;
    let own = list(4, ring, 64);
    guest
        .queue()
        .expect(&own, BadSegments, "a list that is its own entry")?;
    // Data over the rings harms only the guest itself: it may be carried out, or break the queue.
    let block = guest.block();
    let completions = guest.queue().view.completions;
    guest.queue().go(&[
        read(1, 0, &[(ring & !0xfff, block)]),
        read(2, 0, &[(completions & !0xfff, block)]),
    ])?;
    guest.works(1, 4).context("the other queue")?;
    guest.restart()?;
    guest.works(0, 5)?;
    guest.canaries()?;
    pass()
}

fn empty(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let none = (DATA, 0);
    let in_list = with_list(&guest, read(0, 0, &[]), LIST, &[BLOCK, none, BLOCK, BLOCK]);
    let cases = [
        ("one empty segment", read(0, 0, &[none])),
        (
            "an empty segment behind others",
            read(0, 0, &[BLOCK, BLOCK, none]),
        ),
        ("an empty segment to write", write(0, 0, &[none, BLOCK])),
        ("an empty segment in a list", in_list),
    ];
    bad_segments(&mut guest, &cases)
}

fn against_the_command(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let with = |mut entry: Submission, flags| {
        entry.inline[0].flags = flags;
        entry
    };
    let (reads, writes) = (read(0, 0, &[BLOCK]), write(0, 0, &[BLOCK]));
    let mut mixed = read(0, 0, &[BLOCK; 2]);
    mixed.inline[1].flags = 0;
    // The list is made for a write and used for a read.
    let turned = Submission {
        opcode: reads.opcode,
        ..with_list(&guest, write(0, 0, &[]), LIST, &[BLOCK; 4])
    };
    let cases = [
        ("a read from readable memory", with(reads, 0)),
        (
            "a write to writable memory",
            with(writes, segment_flags::DEVICE_WRITES),
        ),
        ("both in one request", mixed),
        ("a list against its command", turned),
        ("unknown segment flags", with(writes, 1 << 2)),
        ("all unknown segment flags", with(reads, 0xffff_fffd)),
    ];
    bad_segments(&mut guest, &cases)
}

fn overflows(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let most = (DATA, u32::MAX & !0xfff);
    let half = (DATA, 1 << 31);
    let long = with_list(&guest, read(0, 0, &[]), LIST, &[most; 256]);
    let to_zero = with_list(
        &guest,
        read(0, 0, &[]),
        LIST + 4096,
        &[half, half, BLOCK, BLOCK],
    );
    let cases = [
        ("three that wrap 32 bits", read(0, 0, &[most; 3])),
        ("two that sum to zero", read(0, 0, &[half; 2])),
        ("256 that wrap 32 bits", long),
        ("a list that wraps to something small", to_zero),
    ];
    bad_segments(&mut guest, &cases)
}
