// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Odd but legal requests, which must all work.

use crate::guest::*;
use crate::{pass, Env, Outcome, Test};
use anyhow::{bail, ensure, Context, Result};
use avio_abi::features;
use avio_abi::ring::Submission;
use avio_abi::stor::{flags, Status};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

pub const TESTS: &[Test] = &[
    ("legal_inline_segments", inline_segments),
    ("legal_lists_of_1_to_256", lists),
    ("legal_lists_at_odd_places", odd_lists),
    ("legal_segments_over_region_boundaries", boundaries),
    ("legal_largest_request", largest),
    ("legal_read_only_memory_as_source", read_only_source),
    ("legal_tags_in_any_order", tags),
    ("legal_full_ring", full_ring),
    ("legal_rings_wrap", wrap),
    ("legal_smallest_and_largest_ring", ring_sizes),
    ("legal_coalesced_interrupts", coalesced),
    ("legal_several_luns", luns),
    ("legal_several_queues", queues),
    ("legal_flush_and_fua", flush_fua),
    ("legal_data_is_on_the_device", on_device),
    ("legal_counters", counters),
];

/// Writes these segments of memory to the disk and reads them back in one piece, and the other way round.
fn both_ways(
    guest: &mut Guest,
    segments: &[(u64, u32)],
    list: Option<u64>,
    seed: u64,
) -> Result<()> {
    let what = format!(
        "{} segments from {:#x} + {:#x}",
        segments.len(),
        segments[0].0,
        segments[0].1
    );
    let total: u32 = segments.iter().map(|(_, len)| len).sum();
    let plain = DATA + 0x20_0000;
    let scattered = |guest: &Guest, entry: Submission| match list {
        Some(addr) => with_list(guest, entry, addr, segments),
        None => entry,
    };
    let mut sector = 0;
    for (addr, len) in segments {
        guest.fill(*addr, sector, *len, seed);
        sector += u64::from(*len) / 512;
    }
    let inline = if list.is_some() { &[][..] } else { segments };
    let entry = scattered(guest, write(1, 0, inline));
    guest
        .queue()
        .expect(&entry, Status::Ok, &format!("write of {what}"))?;
    guest.queue().expect(
        &read(2, 0, &[(plain, total)]),
        Status::Ok,
        "read in one piece",
    )?;
    guest
        .verify(plain, 0, total, seed)
        .with_context(|| format!("after a write of {what}"))?;

    guest.fill(plain, 0, total, seed + 1);
    guest.queue().expect(
        &write(3, 0, &[(plain, total)]),
        Status::Ok,
        "write in one piece",
    )?;
    let entry = scattered(guest, read(4, 0, inline));
    let (status, bytes) = guest.queue().request(&entry)?;
    ensure!(
        status == Status::Ok && bytes == total,
        "read of {what}: {}, {bytes} of {total}",
        status.name()
    );
    let mut sector = 0;
    for (addr, len) in segments {
        guest
            .verify(*addr, sector, *len, seed + 1)
            .with_context(|| format!("after a read of {what}"))?;
        sector += u64::from(*len) / 512;
    }
    Ok(())
}

fn inline_segments(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let block = guest.block();
    let at = |page: u64, len| (DATA + page * 4096, len);
    both_ways(&mut guest, &[at(0, block)], None, 50)?;
    both_ways(&mut guest, &[at(4, block), at(2, block)], None, 51)?;
    both_ways(
        &mut guest,
        &[at(9, 4096), at(0, block), at(16, 65536)],
        None,
        52,
    )?;
    // The end of one page and the beginning of the next.
    both_ways(
        &mut guest,
        &[(DATA + 8192 - u64::from(block), 2 * block)],
        None,
        53,
    )?;
    guest.canaries()?;
    pass()
}

fn lists(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    if guest.features & features::SEGMENT_LIST == 0 {
        return Ok(Outcome::Skip("no lists on offer".to_owned()));
    }
    let block = guest.block();
    let most = guest.lun.max_segments.min(guest.lun.max_bytes / block) as usize;
    for count in [1, 2, 3, 4, 5, 16, 17, 127, 128, 255, 256]
        .into_iter()
        .filter(|count| *count <= most)
    {
        // Backwards, one block to a page, so that no two can be joined.
        let place = |index| (DATA + (count - 1 - index) as u64 * 4096, block);
        both_ways(
            &mut guest,
            &(0..count).map(place).collect::<Vec<_>>(),
            Some(LIST),
            60,
        )?;
    }
    guest.canaries()?;
    Ok(Outcome::Pass(format!("up to {most} segments")))
}

fn odd_lists(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    if guest.features & features::SEGMENT_LIST == 0 {
        return Ok(Outcome::Skip("no lists on offer".to_owned()));
    }
    let block = guest.block();
    let segments: Vec<_> = (0..9).map(|index| (DATA + index * 8192, block)).collect();
    // Over a page boundary, over the boundary of regions, and at addresses that are multiples of nothing.
    for list in [
        LIST + 4096 - 40,
        NEXT - 72,
        NEXT - 8,
        NEXT - 7,
        LIST + 1,
        LIST + 4095,
    ] {
        both_ways(&mut guest, &segments, Some(list), 65)
            .with_context(|| format!("list at {list:#x}"))?;
    }
    pass()
}

fn boundaries(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let block = guest.block();
    let half = 32768;
    both_ways(
        &mut guest,
        &[(NEXT - u64::from(block), 2 * block)],
        None,
        70,
    )?;
    both_ways(&mut guest, &[(NEXT - u64::from(half), 2 * half)], None, 71)?;
    let twice = [(NEXT - 4096, 8192), (DATA, block), (NEXT + 4096, 4096)];
    both_ways(&mut guest, &twice, None, 72)?;
    both_ways(&mut guest, &[(NEXT + NEXT_SIZE - 4096, 4096)], None, 73)?;
    guest.canaries()?;
    pass()
}

fn largest(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let most = guest.lun.max_bytes;
    both_ways(&mut guest, &[(DATA, most)], None, 75)?;
    both_ways(&mut guest, &[(NEXT - u64::from(most) / 2, most)], None, 76)?;
    if guest.features & features::SEGMENT_LIST != 0 && guest.lun.max_segments == 256 {
        let segments: Vec<_> = (0..256)
            .map(|index| (DATA + (index ^ 1) * u64::from(most / 256), most / 256))
            .collect();
        both_ways(&mut guest, &segments, Some(LIST), 77)?;
    }
    guest.canaries()?;
    Ok(Outcome::Pass(format!("{most} bytes")))
}

fn read_only_source(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    guest.fill(ROM, 0, 32768, 80);
    guest.queue().expect(
        &write(0, 0, &[(ROM, 32768)]),
        Status::Ok,
        "a write from read-only memory",
    )?;
    guest
        .queue()
        .expect(&read(1, 0, &[(DATA, 32768)]), Status::Ok, "a read")?;
    guest.verify(DATA, 0, 32768, 80)?;
    if guest.features & features::SEGMENT_LIST != 0 {
        let list = with_list(
            &guest,
            write(0, 0, &[]),
            ROM + 0x8000,
            &[(ROM, 4096), (ROM + 4096, 4096)],
        );
        guest
            .queue()
            .expect(&list, Status::Ok, "a list in read-only memory")?;
    }
    pass()
}

/// Publishes all of these at once and takes all completions; each must be right and come once.
fn all_at_once(guest: &mut Guest, entries: &[Submission]) -> Result<()> {
    entries.iter().for_each(|entry| guest.queue().push(entry));
    guest.queue().publish()?;
    let mut open: Vec<u16> = entries.iter().map(|entry| entry.tag).collect();
    while !open.is_empty() {
        let completion = guest.queue().completion()?;
        let Some(index) = open.iter().position(|tag| *tag == completion.tag) else {
            bail!(
                "a completion of tag {}, which is not in flight",
                completion.tag
            );
        };
        ensure!(
            completion.status == Status::Ok as u8,
            "tag {}: status {}",
            completion.tag,
            completion.status
        );
        open.swap_remove(index);
    }
    Ok(())
}

/// A batch of one-block reads of different sectors to different pages, verified.
fn verified_batch(guest: &mut Guest, tags: &[u16]) -> Result<()> {
    let block = guest.block();
    let step = u64::from(block) / 512;
    let place = |tag: u16| DATA + u64::from(tag) * 4096;
    let reads: Vec<_> = tags
        .iter()
        .map(|tag| read(*tag, u64::from(*tag) * step, &[(place(*tag), block)]))
        .collect();
    all_at_once(guest, &reads)?;
    tags.iter()
        .try_for_each(|tag| guest.verify(place(*tag), u64::from(*tag) * step, block, 85))
}

/// Lays down the data that [`verified_batch`] reads.
fn lay_down(guest: &mut Guest, blocks: u32) -> Result<()> {
    let len = blocks * guest.block();
    let at = DATA + 0x20_0000;
    guest.fill(at, 0, len, 85);
    guest
        .queue()
        .expect(&write(0, 0, &[(at, len)]), Status::Ok, "a write")
}

fn tags(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    lay_down(&mut guest, 8)?;
    for order in [
        &[7, 0, 6, 1][..],
        &[3],
        &[5, 4, 3, 2, 1, 0],
        &[2, 7],
        &[7, 6, 5, 4, 3, 2, 1, 0],
    ] {
        verified_batch(&mut guest, order)?;
    }
    pass()
}

fn full_ring(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(
        env,
        &Config {
            queues: 1,
            size: 64,
            luns: &[(0, 0)],
            features: u64::MAX,
        },
    )?;
    lay_down(&mut guest, 64)?;
    let tags: Vec<u16> = (0..64).collect();
    for _ in 0..10 {
        verified_batch(&mut guest, &tags)?;
    }
    pass()
}

fn wrap(env: &Env) -> Result<Outcome> {
    for size in [2, 4, 8] {
        let mut guest = Guest::start(
            env,
            &Config {
                queues: 1,
                size,
                luns: &[(0, 0)],
                features: u64::MAX,
            },
        )?;
        lay_down(&mut guest, 8)?;
        for round in 0..40u32 {
            let count = round % size + 1;
            let tags: Vec<u16> = (0..count)
                .map(|index| ((index + round) % size) as u16)
                .collect();
            verified_batch(&mut guest, &tags)
                .with_context(|| format!("ring of {size}, round {round}"))?;
        }
    }
    pass()
}

fn ring_sizes(env: &Env) -> Result<Outcome> {
    let largest = crate::adapter::Adapter::open()?.info()?.max_queue_size;
    for size in [2, largest] {
        let mut guest = Guest::start(
            env,
            &Config {
                queues: 1,
                size,
                luns: &[(0, 0)],
                features: u64::MAX,
            },
        )?;
        lay_down(&mut guest, 8)?;
        let count = size.min(300) as u16;
        for _ in 0..8 {
            // Tags from the upper end, but data from the first blocks.
            let block = guest.block();
            let tag = |index| (size as u16) - 1 - index;
            let reads: Vec<_> = (0..count)
                .map(|index| read(tag(index), 0, &[(DATA + u64::from(index) * 4096, block)]))
                .collect();
            all_at_once(&mut guest, &reads)?;
            (0..count)
                .try_for_each(|index| guest.verify(DATA + u64::from(index) * 4096, 0, block, 85))?;
        }
    }
    Ok(Outcome::Pass(format!("2 and {largest}")))
}

fn coalesced(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    lay_down(&mut guest, 8)?;
    for round in 0..200u32 {
        let count = round % 8 + 1;
        let queue = guest.queue();
        (0..count).for_each(|tag| queue.push(&read(tag as u16, 0, &[(DATA, 4096)])));
        queue.publish()?;
        let mut left = count;
        while left > 0 {
            // One interrupt, with the last of them.
            if !queue.collect.arm(&queue.view, left - 1) {
                let until = std::time::Instant::now() + PATIENCE;
                ensure!(
                    queue.interrupt(until)?,
                    "round {round}: no interrupt, {left} of {count} still to come"
                );
            }
            while let Some(completion) = queue.collect.take(&queue.view) {
                ensure!(
                    completion.status == Status::Ok as u8,
                    "status {}",
                    completion.status
                );
                left -= 1;
            }
        }
    }
    let status = guest.adapter.queue(0)?;
    Ok(Outcome::Pass(format!(
        "{} requests, {} interrupts",
        status.requests, status.interrupts
    )))
}

fn luns(env: &Env) -> Result<Outcome> {
    let luns = [(0, 0), (7, 0), (255, 0)];
    let mut guest = Guest::start(
        env,
        &Config {
            queues: 1,
            size: 8,
            luns: &luns,
            features: u64::MAX,
        },
    )?;
    for (number, _) in luns {
        let on = |entry: Submission| Submission {
            lun: number as u16,
            ..entry
        };
        guest.fill(DATA, 0, 16384, u64::from(number));
        guest
            .queue()
            .expect(&on(write(0, 0, &[(DATA, 16384)])), Status::Ok, "a write")?;
        guest.queue().expect(
            &on(read(1, 0, &[(DATA + 65536, 16384)])),
            Status::Ok,
            "a read",
        )?;
        guest.verify(DATA + 65536, 0, 16384, u64::from(number))?;
    }
    pass()
}

fn queues(env: &Env) -> Result<Outcome> {
    let most = crate::adapter::Adapter::open()?.info()?.max_queues.min(4);
    let mut guest = Guest::start(
        env,
        &Config {
            queues: most,
            size: 8,
            luns: &[(0, 0)],
            features: u64::MAX,
        },
    )?;
    for round in 0..10 {
        (0..most as usize)
            .rev()
            .try_for_each(|queue| guest.works(queue, round))?;
    }
    for queue in 0..most {
        let status = guest.adapter.queue(queue)?;
        ensure!(
            status.requests == 20,
            "queue {queue} counts {} requests instead of 20",
            status.requests
        );
    }
    Ok(Outcome::Pass(format!("{most} queues")))
}

fn flush_fua(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let mut tried = Vec::new();
    if guest.features & features::FLUSH != 0 {
        for _ in 0..5 {
            guest.works(0, 90)?;
            guest.queue().expect(&flush(5), Status::Ok, "a flush")?;
        }
        tried.push("flush");
    }
    if guest.features & features::FUA != 0 {
        guest.fill(DATA, 64, 8192, 91);
        let entry = Submission {
            flags: flags::FUA,
            ..write(0, 64, &[(DATA, 8192)])
        };
        guest.queue().expect(&entry, Status::Ok, "a FUA write")?;
        guest
            .queue()
            .expect(&read(1, 64, &[(DATA + 65536, 8192)]), Status::Ok, "a read")?;
        guest.verify(DATA + 65536, 64, 8192, 91)?;
        tried.push("FUA");
    }
    Ok(Outcome::Pass(tried.join(", ")))
}

fn on_device(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let len = 65536;
    guest.fill(DATA, 2048, len, 95);
    guest
        .queue()
        .expect(&write(0, 2048, &[(DATA, len)]), Status::Ok, "a write")?;
    let mut options = std::fs::OpenOptions::new();
    let device = options
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(&env.device_path)?;
    let mut room = vec![0u8; len as usize + 4096];
    let skip = room.as_ptr().align_offset(4096);
    let found = &mut room[skip..skip + len as usize];
    device
        .read_exact_at(found, 2048 * 512)
        .context("reading the device itself")?;
    ensure!(
        found == pattern(2048, len, 95),
        "the device does not hold what the guest wrote"
    );
    pass()
}

fn counters(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    for tag in 0..5 {
        guest
            .queue()
            .expect(&write(tag, 0, &[(DATA, 8192)]), Status::Ok, "a write")?;
    }
    for tag in 0..3 {
        guest
            .queue()
            .expect(&read(tag, 0, &[(DATA, 4096)]), Status::Ok, "a read")?;
    }
    guest
        .queue()
        .expect(&read(7, 0, &[]), Status::BadSegments, "a read of nothing")?;
    // The last completion is visible a moment before it is counted.
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        let status = guest.adapter.queue(0)?;
        let counted = (
            status.requests,
            status.read_bytes,
            status.write_bytes,
            status.errors,
            status.in_flight,
        );
        let told = status.interrupts + status.interrupts_suppressed == 9 && status.interrupts > 0;
        if counted == (9, 3 * 4096, 5 * 8192, 1, 0) && told && status.doorbells > 0 {
            return pass();
        }
        ensure!(
            std::time::Instant::now() < until,
            "counters are wrong: {status:?}"
        );
    }
}
