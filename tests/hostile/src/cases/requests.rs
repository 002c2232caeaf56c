// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Requests that the LUN or the features in use do not allow.

use crate::backing::NullBlk;
use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use anyhow::{ensure, Context, Result};
use avio_abi::ring::{Segment, Submission};
use avio_abi::stor::Status::{BadSegments, OutOfRange, ReadOnly, Unsupported};
use avio_abi::stor::{flags, lun_flags, opcode};
use avio_abi::wire::Wire;

pub const TESTS: &[Test] = &[
    ("s1_sectors_out_of_range", out_of_range),
    ("s1_unaligned_sectors_and_lengths", unaligned),
    ("s3_empty_and_too_large_requests", sizes),
    ("s3_unknown_opcodes_and_flags", opcodes),
    ("s3_features_that_were_not_negotiated", features),
    ("s4_writes_to_a_read_only_lun", read_only),
];

fn out_of_range(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let (block, end) = (guest.block(), guest.lun.sectors);
    let step = u64::from(block) / 512;
    let mut cases = Vec::new();
    let near = [end, end + step, end * 2];
    let far = [1 << 40, 1 << 54, 1 << 55, 1 << 63, u64::MAX - step + 1];
    for sector in near.into_iter().chain(far) {
        let what = format!("sector {sector:#x} of {end:#x}");
        cases.push((what.clone(), read(0, sector, &[(DATA, block)]), OutOfRange));
        cases.push((what, write(1, sector, &[(DATA, block)]), OutOfRange));
    }
    let last = read(0, end - step, &[(DATA, 2 * block)]);
    cases.push(("one block over the end".to_owned(), last, OutOfRange));
    guest.queue().ok(&read(0, end - step, &[(DATA, block)]))?;
    guest.refuses(&cases).map(Outcome::Pass)
}

fn unaligned(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let (block, align) = (guest.lun.logical_block, guest.lun.segment_align);
    let mut cases = Vec::new();
    for (off, len) in [
        (1, block),
        (8, block),
        (u64::from(align) / 2, block),
        (0, block + 1),
        (0, block + 8),
        (0, block - 1),
        (0, 1),
    ] {
        let segment = [(DATA + off, len)];
        let what = format!("segment at {off} of {len}");
        cases.push((what.clone(), read(0, 0, &segment), BadSegments));
        cases.push((what, write(1, 0, &segment), BadSegments));
    }
    guest.refuses(&cases)?;

    // Sectors are units of 512 bytes whatever the blocks are.
    let disk = NullBlk::new(&[("blocksize", "4096")])?;
    let mut guest = Guest::on(&disk.open()?, &PLAIN)?;
    ensure!(guest.lun.logical_block == 4096, "{:?}", guest.lun);
    let mut cases = Vec::new();
    for sector in [1, 4, 7, 9, guest.lun.sectors - 1] {
        let what = format!("sector {sector} of a disk with blocks of 4096 bytes");
        let segment = [(DATA, 4096)];
        cases.push((what.clone(), read(0, sector, &segment), OutOfRange));
        cases.push((what, write(1, sector, &segment), OutOfRange));
    }
    for len in [512, 2048, 4096 + 512] {
        let what = format!("{len} bytes of a disk with blocks of 4096 bytes");
        let segment = [(DATA, len)];
        cases.push((what.clone(), read(0, 0, &segment), BadSegments));
        cases.push((what, write(1, 0, &segment), BadSegments));
    }
    guest.refuses(&cases).map(Outcome::Pass)
}

fn sizes(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let (most, block) = (guest.lun.max_bytes, guest.block());
    let halves = [(DATA, most / 2), (DATA, most / 2), (DATA, block)];
    let long = vec![(DATA, most / 128); 256];
    let long = with_list(&guest, read(0, 0, &[]), LIST, &long);
    let data = segment(DATA, block, 0);
    let full_flush = Submission {
        segments: 1,
        inline: [data, Segment::ZERO, Segment::ZERO],
        ..flush(0)
    };
    let late_flush = Submission {
        sector: 8,
        ..flush(0)
    };
    let over = [(DATA, most + block)];
    let cases = [
        ("read of nothing", read(0, 0, &[]), BadSegments),
        ("write of nothing", write(0, 0, &[]), BadSegments),
        ("read of a block too much", read(0, 0, &over), BadSegments),
        ("write of a block too much", write(0, 0, &over), BadSegments),
        (
            "three that are a block too much",
            read(0, 0, &halves),
            BadSegments,
        ),
        ("a list of twice the most", long, BadSegments),
        ("flush with data", full_flush, BadSegments),
        ("flush with a sector", late_flush, OutOfRange),
    ];
    guest.refuses(&cases).map(Outcome::Pass)
}

fn opcodes(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let (reads, writes) = (read(0, 0, &[(DATA, 4096)]), write(0, 0, &[(DATA, 4096)]));
    let known = opcode::READ..=opcode::WRITE_ZEROES;
    let mut cases = Vec::new();
    for opcode in (0..=255).filter(|opcode| !known.contains(opcode)) {
        let entry = Submission { opcode, ..reads };
        cases.push((format!("opcode {opcode}"), entry, Unsupported));
    }
    let zeroes = range(opcode::WRITE_ZEROES, 0, 0, 8);
    for (what, entry, legal) in [
        ("read", reads, 0),
        ("write", writes, flags::FUA),
        ("flush", flush(0), 0),
        ("discard", range(opcode::DISCARD, 0, 0, 8), 0),
        ("secure erase", range(opcode::SECURE_ERASE, 0, 0, 8), 0),
        ("write zeroes", zeroes, flags::KEEP),
    ] {
        for flag in (0..8).map(|bit| 1 << bit).filter(|flag| *flag != legal) {
            let what = format!("{what} with flag {flag:#x}");
            cases.push((what, entry.flagged(flag), Unsupported));
        }
    }
    guest.refuses(&cases).map(Outcome::Pass)
}

fn features(env: &Env) -> Result<Outcome> {
    let none = Config {
        features: 0,
        ..PLAIN
    };
    let mut guest = Guest::start(env, &none)?;
    let list = with_list(&guest, read(0, 0, &[]), LIST, &[(DATA, 4096)]);
    let fua = write(0, 0, &[(DATA, 4096)]).flagged(flags::FUA);
    let cases = [
        ("flush", flush(0)),
        ("FUA", fua),
        ("list", list),
        ("discard", range(opcode::DISCARD, 0, 0, 8)),
        ("secure erase", range(opcode::SECURE_ERASE, 0, 0, 8)),
        ("write zeroes", range(opcode::WRITE_ZEROES, 0, 0, 8)),
    ];
    let cases =
        cases.map(|(what, entry)| (format!("{what} without its feature"), entry, Unsupported));
    guest.refuses(&cases).map(Outcome::Pass)
}

fn read_only(env: &Env) -> Result<Outcome> {
    let luns = [(0, 0), (1, lun_flags::READ_ONLY)];
    let mut guest = Guest::start(
        env,
        &Config {
            luns: &luns,
            ..PLAIN
        },
    )?;
    let said = guest.lun.flags & lun_flags::READ_ONLY != 0;
    ensure!(said, "the LUN's description does not say read-only");
    guest.store(0, 0, 4096, 31)?;
    guest.fill(DATA, 0, 4096, 32);
    let entry = write(0, 0, &[(DATA, 4096)]).on(1);
    let cases = [
        ("write", entry),
        ("FUA write", entry.flagged(flags::FUA)),
        ("flush", flush(0).on(1)),
    ];
    for (what, entry) in cases {
        guest.queue().expect(&entry, ReadOnly, what)?;
    }
    guest
        .holds(1, 0, 4096, 31)
        .context("the read-only LUN was written")?;
    pass()
}
