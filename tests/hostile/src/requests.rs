// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Attacks by way of storage requests.

use crate::adapter::errno_of;
use crate::guest::*;
use crate::{pass, Env, Outcome, Test};
use anyhow::{ensure, Context, Result};
use avio_abi::features;
use avio_abi::ioctl::SetupError;
use avio_abi::ring::{Segment, Submission};
use avio_abi::stor::{flags, lun_flags, Status};
use avio_abi::wire::Wire;
use std::os::fd::AsRawFd;

pub const TESTS: &[Test] = &[
    ("s1_sectors_out_of_range", s1),
    ("s1_unaligned_sectors_and_lengths", s1_unaligned),
    ("s3_empty_and_too_large_requests", s3_sizes),
    ("s3_unknown_opcodes_and_flags", s3_opcodes),
    ("s3_features_that_were_not_negotiated", s3_features),
    ("s4_writes_to_a_read_only_lun", s4),
    ("s7_luns_that_are_not_there", s7),
];

fn refuses(guest: &mut Guest, cases: &[(String, Submission, Status)]) -> Result<Outcome> {
    for (what, entry, status) in cases {
        guest.queue().expect(entry, *status, what)?;
    }
    guest.works(0, 30)?;
    guest.canaries()?;
    Ok(Outcome::Pass(format!("{} requests refused", cases.len())))
}

fn s1(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let block = guest.block();
    let end = guest.lun.sectors;
    let step = u64::from(block) / 512;
    let mut cases = Vec::new();
    for sector in [
        end,
        end + step,
        end * 2,
        1 << 40,
        1 << 54,
        1 << 55,
        1 << 63,
        u64::MAX - step + 1,
    ] {
        for entry in [
            read(0, sector, &[(DATA, block)]),
            write(1, sector, &[(DATA, block)]),
        ] {
            cases.push((
                format!("sector {sector:#x} of {end:#x}"),
                entry,
                Status::OutOfRange,
            ));
        }
    }
    let last = read(0, end - step, &[(DATA, 2 * block)]);
    cases.push((
        "one block over the end".to_owned(),
        last,
        Status::OutOfRange,
    ));
    guest.queue().expect(
        &read(0, end - step, &[(DATA, block)]),
        Status::Ok,
        "the last block",
    )?;
    refuses(&mut guest, &cases)
}

fn s1_unaligned(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let (block, align) = (guest.lun.logical_block, guest.lun.segment_align);
    let mut cases = Vec::new();
    for (addr, len) in [
        (DATA + 1, block),
        (DATA + 8, block),
        (DATA + u64::from(align) / 2, block),
        (DATA, block + 1),
        (DATA, block + 8),
        (DATA, block - 1),
        (DATA, 1),
    ] {
        for entry in [read(0, 0, &[(addr, len)]), write(1, 0, &[(addr, len)])] {
            cases.push((
                format!("segment {addr:#x} + {len}"),
                entry,
                Status::BadSegments,
            ));
        }
    }
    if block > 512 {
        cases.push((
            "half a block in".to_owned(),
            read(0, 1, &[(DATA, block)]),
            Status::OutOfRange,
        ));
    }
    refuses(&mut guest, &cases)
}

fn s3_sizes(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let most = guest.lun.max_bytes;
    let block = guest.block();
    let halves = [(DATA, most / 2), (DATA, most / 2), (DATA, block)];
    let long_list = with_list(
        &guest,
        read(0, 0, &[]),
        LIST,
        &vec![(DATA, most / 128); 256],
    );
    let mut cases = vec![
        (
            "read of nothing".to_owned(),
            read(0, 0, &[]),
            Status::BadSegments,
        ),
        (
            "write of nothing".to_owned(),
            write(0, 0, &[]),
            Status::BadSegments,
        ),
        (
            format!("read of {most} and a block"),
            read(0, 0, &[(DATA, most + block)]),
            Status::BadSegments,
        ),
        (
            format!("write of {most} and a block"),
            write(0, 0, &[(DATA, most + block)]),
            Status::BadSegments,
        ),
        (
            "three that are a block too much".to_owned(),
            read(0, 0, &halves),
            Status::BadSegments,
        ),
        (
            "a list of twice the most".to_owned(),
            long_list,
            Status::BadSegments,
        ),
    ];
    if guest.features & features::FLUSH != 0 {
        let data = Segment {
            addr: DATA,
            len: block,
            flags: 0,
        };
        let entry = Submission {
            segments: 1,
            inline: [data, Segment::ZERO, Segment::ZERO],
            ..flush(0)
        };
        cases.push(("flush with data".to_owned(), entry, Status::BadSegments));
        cases.push((
            "flush with a sector".to_owned(),
            Submission {
                sector: 8,
                ..flush(0)
            },
            Status::OutOfRange,
        ));
    }
    refuses(&mut guest, &cases)
}

fn s3_opcodes(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let good = read(0, 0, &[(DATA, 4096)]);
    let mut cases = Vec::new();
    for opcode in (0..=255).filter(|opcode| !(1..=3).contains(opcode)) {
        cases.push((
            format!("opcode {opcode}"),
            Submission { opcode, ..good },
            Status::Unsupported,
        ));
    }
    for bit in 0..8 {
        let flags = 1 << bit;
        cases.push((
            format!("read with flags {flags:#x}"),
            Submission { flags, ..good },
            Status::Unsupported,
        ));
        cases.push((
            format!("flush with flags {flags:#x}"),
            Submission { flags, ..flush(0) },
            Status::Unsupported,
        ));
        if bit > 0 {
            let entry = Submission {
                flags,
                ..write(0, 0, &[(DATA, 4096)])
            };
            cases.push((
                format!("write with flags {flags:#x}"),
                entry,
                Status::Unsupported,
            ));
        }
    }
    refuses(&mut guest, &cases)
}

fn s3_features(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(
        env,
        &Config {
            queues: 1,
            size: 8,
            luns: &[(0, 0)],
            features: 0,
        },
    )?;
    let list = with_list(&guest, read(0, 0, &[]), LIST, &[(DATA, 4096)]);
    let fua = Submission {
        flags: flags::FUA,
        ..write(0, 0, &[(DATA, 4096)])
    };
    let cases = [("flush", flush(0)), ("FUA", fua), ("list", list)];
    let cases = cases.map(|(what, entry)| {
        (
            format!("{what} without its feature"),
            entry,
            Status::Unsupported,
        )
    });
    refuses(&mut guest, &cases)
}

fn s4(env: &Env) -> Result<Outcome> {
    let luns = [(0, 0), (1, lun_flags::READ_ONLY)];
    let mut guest = Guest::start(
        env,
        &Config {
            queues: 1,
            size: 8,
            luns: &luns,
            features: u64::MAX,
        },
    )?;
    let read_only = guest.lun;
    ensure!(
        read_only.flags & lun_flags::READ_ONLY != 0,
        "the LUN's description does not say read-only"
    );
    guest.fill(DATA, 0, 4096, 31);
    guest.queue().expect(
        &write(0, 0, &[(DATA, 4096)]),
        Status::Ok,
        "a write to the writable LUN",
    )?;
    let on = |entry: Submission| Submission { lun: 1, ..entry };
    guest.fill(DATA, 0, 4096, 32);
    let mut cases = vec![("write", on(write(0, 0, &[(DATA, 4096)])))];
    if guest.features & features::FUA != 0 {
        cases.push((
            "FUA write",
            Submission {
                flags: flags::FUA,
                ..on(write(0, 0, &[(DATA, 4096)]))
            },
        ));
    }
    if guest.features & features::FLUSH != 0 {
        cases.push(("flush", on(flush(0))));
    }
    for (what, entry) in cases {
        guest.queue().expect(&entry, Status::ReadOnly, what)?;
    }
    guest
        .queue()
        .expect(&on(read(0, 0, &[(DATA, 4096)])), Status::Ok, "a read")?;
    guest
        .verify(DATA, 0, 4096, 31)
        .context("the read-only LUN was written")?;
    pass()
}

fn s7(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(
        env,
        &Config {
            queues: 1,
            size: 8,
            luns: &[(0, 0), (9, 0)],
            features: u64::MAX,
        },
    )?;
    let mut cases = Vec::new();
    for lun in [1, 8, 10, 255, 256, 257, 0x8000, u16::MAX] {
        cases.push((
            format!("LUN {lun}"),
            Submission {
                lun,
                ..read(0, 0, &[(DATA, 4096)])
            },
            Status::BadLun,
        ));
    }
    for lun in [256, u32::MAX] {
        let refused = guest
            .adapter
            .add_lun(lun, env.device.as_raw_fd(), 0)
            .err()
            .context("LUN out of range")?;
        let wanted = [SetupError::LunRange, SetupError::Running];
        ensure!(
            refused.error.is_some_and(|error| wanted.contains(&error)),
            "ADD_LUN {lun}: {refused}"
        );
        ensure!(
            refused.error.map(errno_of) == Some(refused.errno),
            "ADD_LUN {lun}: {refused}"
        );
    }
    refuses(&mut guest, &cases)?;
    // A LUN that was taken away is gone.
    guest.adapter.stop()?;
    guest.adapter.remove_lun(9).context("REMOVE_LUN")?;
    guest.set_up(1, 8)?;
    let gone = Submission {
        lun: 9,
        ..read(0, 0, &[(DATA, 4096)])
    };
    guest
        .queue()
        .expect(&gone, Status::BadLun, "a LUN that was removed")?;
    guest.works(0, 33)?;
    pass()
}
