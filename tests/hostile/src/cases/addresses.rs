// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Guest addresses that are not the guest's: inline and in lists, each is a bad address and touches nothing.

use crate::guest::*;
use crate::run::{Env, Outcome, Test};
use anyhow::Result;
use avio_abi::stor::Status;

pub const TESTS: &[Test] = &[
    ("m1_addresses_outside_of_memory", outside),
    ("m2_ranges_into_holes", holes),
    ("m3_ranges_that_wrap", wrapping),
    ("m6_reads_into_read_only_memory", |env| {
        let last = ROM + ROM_SIZE - 4096;
        bad(env, &[(ROM, 4096), (last, 4096)], false)
    }),
];

/// READs and, `both_ways`, WRITEs at these addresses.
fn bad(env: &Env, ranges: &[(u64, u32)], both_ways: bool) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let good = (DATA, guest.block());
    for range in ranges {
        let behind = [good, good, good, *range];
        let mut cases = vec![
            ("read", read(0, 0, &[*range])),
            ("read behind a good segment", read(1, 0, &[good, *range])),
            (
                "read by list",
                with_list(&guest, read(2, 0, &[]), LIST, &behind),
            ),
        ];
        if both_ways {
            cases.push(("write", write(3, 0, &[*range])));
            let by_list = with_list(&guest, write(4, 0, &[]), LIST + 4096, &[*range]);
            cases.push(("write by list", by_list));
        }
        let at = format!("at {:#x} + {:#x}", range.0, range.1);
        let named = |(what, entry)| (format!("{what} {at}"), entry, Status::BadAddress);
        guest.refuses(&cases.into_iter().map(named).collect::<Vec<_>>())?;
    }
    Ok(Outcome::Pass(format!("{} ranges", ranges.len())))
}

fn outside(env: &Env) -> Result<Outcome> {
    let (before, behind) = (RAM - 4096, NEXT + NEXT_SIZE);
    let far = [1 << 40, (1 << 52) - 4096, 1 << 52, 1 << 63];
    let near = [0, before, behind, ROM - 4096, ROM + ROM_SIZE];
    let ranges = near.into_iter().chain(far).map(|addr| (addr, 4096));
    bad(env, &ranges.collect::<Vec<_>>(), true)
}

fn holes(env: &Env) -> Result<Outcome> {
    let ranges = [
        (RAM - 4096, 8192),
        (NEXT + NEXT_SIZE - 4096, 8192),
        (ROM - 4096, 8192),
        (ROM + ROM_SIZE - 4096, 8192),
        (ROM - 4096, ROM_SIZE as u32 + 8192),
    ];
    bad(env, &ranges, true)
}

fn wrapping(env: &Env) -> Result<Outcome> {
    let ranges = [
        (u64::MAX - 4095, 4096),
        (u64::MAX - 4095, 8192),
        (u64::MAX - 8191, 65536),
        ((1 << 52) - 4096, 8192),
    ];
    bad(env, &ranges, true)
}
