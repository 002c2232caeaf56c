// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Odd but legal segments and segment lists, which must work.

use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use anyhow::{ensure, Context, Result};
use avio_abi::ring::Submission;
use avio_abi::stor::Status;

pub const TESTS: &[Test] = &[
    ("legal_inline_segments", inline_segments),
    ("legal_lists_of_1_to_256", lists),
    ("legal_lists_at_odd_places", odd_lists),
    (
        "m2_segments_over_regions_not_adjacent_in_the_host",
        boundaries,
    ),
    ("legal_largest_request", largest),
    ("legal_read_only_memory_as_source", read_only_source),
];

/// Segments of memory, in the entry or in a list at this address.
struct Scattered<'a>(&'a [(u64, u32)], Option<u64>);

impl Scattered<'_> {
    fn entry(&self, guest: &Guest, plain: fn(u16, u64, &[(u64, u32)]) -> Submission) -> Submission {
        match self.1 {
            Some(addr) => with_list(guest, plain(3, 0, &[]), addr, self.0),
            None => plain(3, 0, self.0),
        }
    }

    /// Each segment with its first sector on the disk.
    fn each(&self, mut f: impl FnMut(u64, u64, u32) -> Result<()>) -> Result<()> {
        let mut sector = 0;
        self.0.iter().try_for_each(|(addr, len)| {
            f(*addr, sector, *len)?;
            sector += u64::from(*len) / 512;
            Ok(())
        })
    }

    /// Writes them to the disk and reads them back in one piece, and the other way round.
    fn both_ways(&self, guest: &mut Guest, seed: u64) -> Result<()> {
        let total: u32 = self.0.iter().map(|(_, len)| len).sum();
        self.each(|addr, sector, len| {
            guest.fill(addr, sector, len, seed);
            Ok(())
        })?;
        let entry = self.entry(guest, write);
        guest.queue().ok(&entry)?;
        guest.queue().ok(&read(2, 0, &[(BACK, total)]))?;
        guest
            .verify(BACK, 0, total, seed)
            .context("after the write")?;

        // What no other call writes.
        let back = seed + 1000;
        guest.fill(BACK, 0, total, back);
        guest.queue().ok(&write(2, 0, &[(BACK, total)]))?;
        let entry = self.entry(guest, read);
        let (status, bytes) = guest.queue().request(&entry)?;
        let right = status == Status::Ok && bytes == total;
        ensure!(right, "read: {}, {bytes} of {total}", status.name());
        self.each(|addr, sector, len| guest.verify(addr, sector, len, back))
            .context("after the read")
    }
}

fn both_ways(
    guest: &mut Guest,
    segments: &[(u64, u32)],
    list: Option<u64>,
    seed: u64,
) -> Result<()> {
    let (count, (addr, len)) = (segments.len(), segments[0]);
    let result = Scattered(segments, list).both_ways(guest, seed);
    result.with_context(|| format!("{count} segments from {addr:#x} + {len:#x}, list {list:x?}"))
}

fn inline_segments(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &IN_PIECES)?;
    let block = guest.block();
    let at = |page: u64, len| (DATA + page * 4096, len);
    let over_a_page = (DATA + 8192 - u64::from(block), 2 * block);
    both_ways(&mut guest, &[at(0, block)], None, 50)?;
    both_ways(&mut guest, &[at(4, block), at(2, block)], None, 51)?;
    let three = [at(9, 4096), at(0, block), at(16, 65536)];
    both_ways(&mut guest, &three, None, 52)?;
    both_ways(&mut guest, &[over_a_page], None, 53)?;
    guest.canaries()?;
    pass()
}

fn lists(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &IN_PIECES)?;
    let block = guest.block();
    let most = guest.lun.max_segments.min(guest.lun.max_bytes / block) as usize;
    let counts = [1, 2, 3, 4, 5, 16, 17, 127, 128, 255, 256];
    for count in counts.into_iter().filter(|count| *count <= most) {
        // Backwards, one block to a page, so that no two can be joined.
        let place = |index| (DATA + (count - 1 - index) as u64 * 4096, block);
        let segments: Vec<_> = (0..count).map(place).collect();
        both_ways(&mut guest, &segments, Some(LIST), 60)?;
    }
    guest.canaries()?;
    Ok(Outcome::Pass(format!("up to {most} segments")))
}

fn odd_lists(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &IN_PIECES)?;
    let block = guest.block();
    let segments: Vec<_> = (0..9).map(|index| (DATA + index * 8192, block)).collect();
    // Over a page boundary, over the boundary of regions, and at addresses that are multiples of nothing.
    let (near, over) = (
        [LIST + 1, LIST + 4056, LIST + 4095],
        [NEXT - 72, NEXT - 8, NEXT - 7],
    );
    for list in near.into_iter().chain(over) {
        both_ways(&mut guest, &segments, Some(list), 65)?;
    }
    pass()
}

fn boundaries(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &IN_PIECES)?;
    let (block, half) = (guest.block(), 32768);
    let end = NEXT + NEXT_SIZE;
    both_ways(
        &mut guest,
        &[(NEXT - u64::from(block), 2 * block)],
        None,
        70,
    )?;
    both_ways(&mut guest, &[(NEXT - u64::from(half), 2 * half)], None, 71)?;
    let twice = [(NEXT - 4096, 8192), (DATA, block), (NEXT + 4096, 4096)];
    both_ways(&mut guest, &twice, None, 72)?;
    both_ways(&mut guest, &[(end - 4096, 4096)], None, 73)?;
    guest.canaries()?;
    pass()
}

fn largest(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &IN_PIECES)?;
    let most = guest.lun.max_bytes;
    both_ways(&mut guest, &[(DATA, most)], None, 75)?;
    let over_regions = NEXT + NEXT_SIZE - u64::from(most);
    both_ways(&mut guest, &[(over_regions, most)], None, 76)?;
    if guest.lun.max_segments == 256 {
        let part = most / 256;
        let place = |index: u64| (DATA + (index ^ 1) * u64::from(part), part);
        let segments: Vec<_> = (0..256).map(place).collect();
        both_ways(&mut guest, &segments, Some(LIST), 77)?;
    }
    guest.canaries()?;
    Ok(Outcome::Pass(format!("{most} bytes")))
}

fn read_only_source(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &IN_PIECES)?;
    guest.fill(ROM, 0, 32768, 80);
    guest.queue().ok(&write(0, 0, &[(ROM, 32768)]))?;
    guest.holds(0, 0, 32768, 80)?;
    let two = [(ROM, 4096), (ROM + 4096, 4096)];
    let list = with_list(&guest, write(0, 0, &[]), ROM + 0x8000, &two);
    guest.queue().ok(&list)?;
    pass()
}
