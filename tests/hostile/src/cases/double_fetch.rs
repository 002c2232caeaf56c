// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Shared memory that changes while the device uses it: it works on one copy, and believes nothing that it wrote.

use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use anyhow::{ensure, Context, Result};
use avio_abi::ring::{control, segment_flags, Completion, Submission};
use avio_abi::stor::opcode::WRITE;
use avio_abi::stor::Status;
use avio_core::ring::QueueMemory;
use std::sync::atomic::{AtomicBool, Ordering};

pub const TESTS: &[Test] = &[
    ("r9_entry_changes_while_it_is_read", entry_changes),
    ("r9_list_changes_while_it_is_read", list_changes),
    ("r10_event_words_and_device_words_scribbled", words),
    ("r10_completions_and_phases_scribbled", completions),
];

/// A word of the guest's memory that goes between two values, by its offset.
type Cell = (usize, [u64; 2]);

/// Runs requests during which these words change all the time, until they have often ended as either of two statuses, and
/// none as another.
fn race(
    guest: &mut Guest,
    what: &str,
    cells: &[Cell],
    entries: &[Submission],
    wanted: [Status; 2],
) -> Result<String> {
    const OFTEN: u32 = 10;
    let (mapping, stop) = (guest.mapping.clone(), AtomicBool::new(false));
    let mut seen = [0; 2];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in (0usize..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                for (offset, values) in cells {
                    let word = mapping.u64(*offset);
                    word.store(values[turn % 2], Ordering::Relaxed);
                }
            }
        });
        let result = wait_for("both ways of a changing entry", || {
            for status in guest.queue().all(entries)? {
                let way = wanted.iter().position(|wanted| *wanted == status);
                let way = way.with_context(|| format!("it ended as {}", status.name()))?;
                seen[way] += 1;
            }
            Ok(seen.iter().all(|count| *count >= OFTEN))
        });
        stop.store(true, Ordering::Relaxed);
        result.with_context(|| format!("{what}: {seen:?}"))
    })?;
    guest.canaries().context(what.to_owned())?;
    guest.works(0, 8).context(what.to_owned())?;
    let [first, second] = wanted.map(Status::name);
    Ok(format!("{what}: {first} {}, {second} {}", seen[0], seen[1]))
}

/// A submission entry as the words that it is in memory.
fn words_of(entry: &Submission) -> [u64; 8] {
    let bytes = entry.to_bytes();
    let mut words = bytes.as_ref().chunks_exact(8);
    core::array::from_fn(|_| {
        let word = words.next().and_then(|word| word.try_into().ok());
        u64::from_le_bytes(word.expect("eight words"))
    })
}

/// The words in which two sets of entries differ, in the ring of a queue.
fn differing(queue: &Queue, entries: &[Submission], others: &[Submission]) -> Vec<Cell> {
    let pairs = entries.iter().zip(others).zip(0..);
    pairs
        .flat_map(|((entry, other), slot)| {
            let words = words_of(entry).into_iter().zip(words_of(other));
            let words = words.enumerate().filter(|(_, (one, two))| one != two);
            words
                .map(move |(word, (one, two))| (queue.view.submission_word(slot, word), [one, two]))
        })
        .collect()
}

fn entry_changes(env: &Env) -> Result<Outcome> {
    use Status::{BadAddress, BadLun, BadSegments, Ok as Done, OutOfRange};
    let mut guest = Guest::simple(env)?;
    let (block, end) = (guest.block(), guest.lun.sectors);
    let reads = read(0, 0, &[(DATA, block)]);
    // What would be taken for a list has a segment that is nobody's.
    let writes = write(0, 0, &[(LIST, block)]);
    guest.write_memory(LIST, &segment(0x7000_0000, block, 0).to_bytes());
    let with = |entry: Submission, change: fn(&mut Submission)| {
        let mut changed = entry;
        change(&mut changed);
        changed
    };
    let cases = [
        (
            "opcode",
            reads,
            with(reads, |it| it.opcode = WRITE),
            BadSegments,
        ),
        ("LUN", reads, reads.on(77), BadLun),
        ("sector", reads, read(0, end, &[(DATA, block)]), OutOfRange),
        ("address", reads, read(0, 0, &[(ROM, block)]), BadAddress),
        (
            "length",
            reads,
            read(0, 0, &[(DATA, 0xffff_f000)]),
            BadSegments,
        ),
        (
            "number of segments",
            reads,
            with(reads, |it| it.segments = 2),
            BadSegments,
        ),
        (
            "list or not",
            writes,
            with(writes, |it| {
                (it.inline[0].len, it.inline[0].flags) = (16, segment_flags::LIST)
            }),
            BadAddress,
        ),
    ];
    let mut seen = Vec::new();
    for (what, one, other, refused) in cases {
        let tagged = |entry| {
            (0..8)
                .map(|tag| Submission { tag, ..entry })
                .collect::<Vec<_>>()
        };
        let (entries, others) = (tagged(one), tagged(other));
        let cells = differing(&guest.queues[0], &entries, &others);
        guest.restart()?;
        seen.push(race(&mut guest, what, &cells, &entries, [Done, refused])?);
    }
    Ok(Outcome::Pass(seen.join("; ")))
}

fn list_changes(env: &Env) -> Result<Outcome> {
    use Status::{BadAddress, BadSegments, Ok as Done};
    const WRITES: u64 = (segment_flags::DEVICE_WRITES as u64) << 32;
    let mut guest = Guest::simple(env)?;
    let block = guest.block();
    let entry = with_list(&guest, read(0, 0, &[]), LIST, &[(DATA, block); 4]);
    let entries: Vec<_> = (0..8).map(|tag| Submission { tag, ..entry }).collect();
    let lens = [block, 0xffff_f000].map(|len| WRITES | u64::from(len));
    let mut seen = Vec::new();
    for (what, word, values, refused) in [
        ("addresses", 0, [DATA, ROM], BadAddress),
        ("lengths", 8, lens, BadSegments),
    ] {
        let cells = (0..4).map(|index| (offset(LIST) + 16 * index + word, values));
        let cells: Vec<_> = cells.collect();
        seen.push(race(&mut guest, what, &cells, &entries, [Done, refused])?);
        // The race may have ended with either.
        with_list(&guest, read(0, 0, &[]), LIST, &[(DATA, block); 4]);
        guest.restart()?;
    }
    Ok(Outcome::Pass(seen.join("; ")))
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
