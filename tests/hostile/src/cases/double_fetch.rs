// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Shared memory that changes while the device uses it: it works on one copy, and believes nothing that it wrote.

use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use anyhow::{ensure, Result};
use avio_abi::ring::{control, segment_flags, Completion, Submission};
use avio_abi::stor::Status;
use avio_core::ring::QueueMemory;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("r9_entry_changes_while_it_is_read", entry_changes),
    ("r9_list_changes_while_it_is_read", list_changes),
    ("r10_event_words_and_device_words_scribbled", words),
    ("r10_completions_and_phases_scribbled", completions),
];

const WRITES: u64 = (segment_flags::DEVICE_WRITES as u64) << 32;

/// Runs requests for a while, during which each of the words at these offsets goes between two values.
fn race(
    mut guest: Guest,
    cells: Vec<(usize, [u64; 2])>,
    entry: impl Fn(u16) -> Submission,
) -> Result<Outcome> {
    let legal = [Status::Ok, Status::BadAddress, Status::BadSegments];
    let (mapping, stop) = (guest.mapping.clone(), AtomicBool::new(false));
    let mut seen = [0u32; Status::ALL.len()];
    let entries: Vec<_> = (0..8).map(entry).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in (0usize..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                for (offset, values) in &cells {
                    mapping
                        .u64(*offset)
                        .store(values[turn % 2], Ordering::Relaxed);
                }
            }
        });
        let until = Instant::now() + Duration::from_millis(1500);
        let result = (|| {
            while Instant::now() < until {
                for status in guest.queue().all(&entries)? {
                    let name = status.name();
                    ensure!(legal.contains(&status), "{name} for an entry that changed");
                    seen[status as usize] += 1;
                }
            }
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        result
    })?;
    guest.canaries()?;
    guest.works(0, 8)?;
    let counts = Status::ALL.iter().zip(seen).filter(|(_, count)| *count > 0);
    let counts = counts.map(|(status, count)| format!("{} {count}", status.name()));
    Ok(Outcome::Pass(counts.collect::<Vec<_>>().join(", ")))
}

fn entry_changes(env: &Env) -> Result<Outcome> {
    let guest = Guest::simple(env)?;
    let block = guest.block();
    let view = &guest.queues[0].view;
    // The address goes between one that is the guest's and one that is not, the length between legal and too much.
    let cells = (0..8).flat_map(|slot| {
        let lens = [WRITES | u64::from(block), WRITES | 0xffff_f000];
        let addr = (view.submission_word(slot, 2), [DATA, 0x7000_0000]);
        [addr, (view.submission_word(slot, 3), lens)]
    });
    let cells = cells.collect();
    race(guest, cells, |tag| read(tag, 0, &[(DATA, block)]))
}

fn list_changes(env: &Env) -> Result<Outcome> {
    let guest = Guest::simple(env)?;
    let block = guest.block();
    let entry = with_list(&guest, read(0, 0, &[]), LIST, &[(DATA, block); 4]);
    let cells = (0..4).flat_map(|index| {
        let at = offset(LIST) + 16 * index;
        let lens = [WRITES | u64::from(block), WRITES | 0xffff_f000];
        [(at, [DATA, ROM]), (at + 8, lens)]
    });
    race(guest, cells.collect(), |tag| Submission { tag, ..entry })
}

fn words(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let (events, device) = (
        [control::SQ_EVENT, control::CQ_EVENT],
        [control::SQ_HEAD, control::STATE],
    );
    let words = [&events[..], &device, &[12, 60, 76, 124]].concat();
    for round in 0u32..64 {
        let noise = round.wrapping_mul(0x9e37_79b9);
        let value = [0, u32::MAX, round, 1 << 31, noise][round as usize % 5];
        let queue = guest.queue();
        words
            .iter()
            .for_each(|word| queue.view.store_release(*word, value));
        queue.go(&[read((round % 8) as u16, 0, &[(DATA, 4096)])])?;
        let status = queue.look()?.status;
        ensure!(status == Status::Ok as u8, "round {round}: status {status}");
    }
    let status = guest.adapter.queue(0)?;
    let (broken, requests) = (status.broken, status.requests);
    ensure!(
        broken == 0 && requests == 64,
        "broken {broken}, {requests} requests"
    );
    guest.restart()?;
    guest.works(0, 10)?;
    pass()
}

fn completions(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    for round in 0u32..64 {
        // Whatever lies in the ring, in either phase, the device's entry is whole once it has come.
        let (slot, phase) = (round % 8, round / 8 % 2 == 0);
        let noise = u64::from(round).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let junk = Completion {
            tag: noise as u16,
            status: (noise >> 16) as u8,
            bytes: (noise >> 32) as u32,
        };
        let queue = guest.queue();
        for other in 0..8 {
            let entry = junk.encode((other < slot) == phase);
            queue.view.store_completion(other, entry);
        }
        let tag = slot as u16;
        queue.go(&[read(tag, 0, &[(DATA, 4096)])])?;
        let (found, status) = (queue.look()?, Status::Ok as u8);
        let wanted = Completion {
            tag,
            status,
            bytes: 4096,
        };
        ensure!(found == wanted, "round {round}: {found:?}");
    }
    guest.restart()?;
    guest.works(0, 11)?;
    pass()
}
