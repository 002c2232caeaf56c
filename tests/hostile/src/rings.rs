// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Attacks by way of the rings.

use crate::adapter::errno_of;
use crate::guest::*;
use crate::{pass, Env, Outcome, Test};
use anyhow::{ensure, Context, Result};
use avio_abi::ioctl::{SetQueue, SetupError};
use avio_abi::ring::{control, segment_flags, Broken, Completion, Segment, Submission};
use avio_abi::stor::Status;
use avio_abi::wire::Wire;
use avio_core::ring::QueueMemory;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("r1_tail_ahead_of_the_ring", |env| {
        breaks(
            env,
            |queue| set(queue, control::SQ_TAIL, 9),
            Broken::SubmissionIndex,
        )
    }),
    ("r1_tail_far_ahead", |env| {
        breaks(
            env,
            |queue| set(queue, control::SQ_TAIL, 0x8000_0000),
            Broken::SubmissionIndex,
        )
    }),
    ("r1_tail_goes_back", |env| {
        breaks(
            env,
            |queue| set(queue, control::SQ_TAIL, u32::MAX),
            Broken::SubmissionIndex,
        )
    }),
    ("r1_taken_ahead_of_completions", |env| {
        breaks(env, taken_is(1), Broken::CompletionIndex)
    }),
    ("r1_taken_goes_back", |env| {
        breaks(env, taken_is(u32::MAX), Broken::CompletionIndex)
    }),
    ("r2_list_behind_the_end_of_memory", r2),
    ("r3_lists_empty_long_or_uneven", r3),
    ("r4_list_inside_a_list", r4_nested),
    ("r4_list_over_the_ring", r4_overlap),
    ("r5_empty_segments", r5),
    ("r6_segments_against_the_command", r6),
    ("r7_total_length_overflows", r7),
    ("r8_tag_in_flight", r8),
    ("r8_tag_out_of_range", |env| {
        breaks(
            env,
            |queue| go(queue, &[read(8, 0, &[(DATA, 4096)])]),
            Broken::TagRange,
        )
    }),
    ("r9_entry_changes_while_it_is_read", r9_entry),
    ("r9_list_changes_while_it_is_read", r9_list),
    ("r10_event_words_and_device_words_scribbled", r10_words),
    ("r10_completions_and_phases_scribbled", r10_completions),
    ("r11_endless_doorbells", r11),
    ("r12_ring_sizes", r12_sizes),
    ("r12_ring_addresses", r12_addresses),
    ("r13_queue_set_while_running", r13),
    ("r14_features_set_while_running", r14),
    ("r15_completions_never_taken", |env| {
        breaks(env, never_take, Broken::CompletionOverrun)
    }),
];

const CONFIG: Config<'_> = Config {
    queues: 2,
    size: 8,
    luns: &[(0, 0)],
    features: u64::MAX,
};

/// An attack that must break its queue: for this reason, for good, this queue only, and until RESET only.
fn breaks(
    env: &Env,
    attack: impl FnOnce(&mut Queue) -> Result<()>,
    reason: Broken,
) -> Result<Outcome> {
    let mut guest = Guest::start(env, &CONFIG)?;
    guest.works(1, 1)?;
    attack(guest.queue()).context("attack")?;
    guest.broken(0, reason)?;
    guest
        .works(1, 2)
        .context("the other queue of the same adapter")?;

    // Whatever the driver does now, the queue stays as it is.
    let posted = |queue: &Queue| {
        (0..8)
            .map(|slot| queue.view.load_completion(slot))
            .collect::<Vec<_>>()
    };
    let before = posted(guest.queue());
    let tail = guest.queue().view.load_acquire(control::SQ_TAIL);
    let queue = guest.queue();
    queue.view.store_release(control::STATE, 0);
    queue
        .view
        .store_release(control::SQ_TAIL, tail.wrapping_add(1));
    queue.kick()?;
    std::thread::sleep(SILENCE);
    ensure!(
        posted(guest.queue()) == before,
        "a broken queue completed a request"
    );
    let status = guest.adapter.queue(0)?;
    ensure!(
        status.broken == reason as u32,
        "the queue's reason changed to {}",
        status.broken
    );

    guest.restart().context("after RESET")?;
    ensure!(
        guest.adapter.queue(0)?.broken == 0,
        "RESET left the queue broken"
    );
    guest.works(0, 3).context("after RESET")?;
    guest.canaries()?;
    Ok(Outcome::Pass(reason.name().to_owned()))
}

/// Writes a control word and rings the doorbell.
fn set(queue: &mut Queue, word: usize, value: u32) -> Result<()> {
    queue.view.store_release(word, value);
    queue.kick()
}

/// Publishes requests and rings the doorbell.
fn go(queue: &mut Queue, entries: &[Submission]) -> Result<()> {
    entries.iter().for_each(|entry| queue.push(entry));
    queue.publish()?;
    queue.kick()
}

/// Goes once round the ring so that the device must look at `CQ_HEAD`, which then is this much too far.
fn taken_is(by: u32) -> impl FnOnce(&mut Queue) -> Result<()> {
    move |queue| {
        for tag in 0..8 {
            queue.expect(&read(tag, 0, &[(DATA, 4096)]), Status::Ok, "a plain read")?;
        }
        // All 8 were taken, and believed when the device next needs to know: exactly 8 is right.
        let wrong = if by == 1 { 9 } else { by };
        queue.view.store_release(control::CQ_HEAD, wrong);
        go(queue, &[read(0, 0, &[(DATA, 4096)])])
    }
}

/// Fills the ring, waits until all is done, takes nothing, and asks for more.
fn never_take(queue: &mut Queue) -> Result<()> {
    let reads: Vec<_> = (0..8).map(|tag| read(tag, 0, &[(DATA, 4096)])).collect();
    go(queue, &reads)?;
    let until = Instant::now() + PATIENCE;
    let done =
        |queue: &Queue| (0..8).all(|slot| Completion::decode(queue.view.load_completion(slot)).1);
    while !done(queue) {
        ensure!(
            Instant::now() < until,
            "8 reads are not done after {PATIENCE:?}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    go(queue, &[read(0, 0, &[(DATA, 4096)])])
}

/// Requests that must end in these statuses, each followed by one that works.
fn refuses(guest: &mut Guest, cases: &[(&str, Submission, Status)]) -> Result<Outcome> {
    for (what, entry, status) in cases {
        guest.queue().expect(entry, *status, what)?;
        guest.works(0, 5).context(format!("after {what}"))?;
    }
    ensure!(
        guest.adapter.queue(0)?.errors == cases.len() as u64,
        "the error counter is not {}",
        cases.len()
    );
    guest.canaries()?;
    Ok(Outcome::Pass(format!("{} requests refused", cases.len())))
}

/// A READ whose list is described like this, without a list behind it.
fn list(segments: u16, addr: u64, len: u32) -> Submission {
    let list = Segment {
        addr,
        len,
        flags: segment_flags::LIST,
    };
    Submission {
        segments,
        inline: [list, Segment::ZERO, Segment::ZERO],
        ..read(0, 0, &[])
    }
}

fn r2(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let cases = [
        (
            "list past the end of memory",
            list(4, NEXT + NEXT_SIZE - 32, 64),
            Status::BadAddress,
        ),
        (
            "list into a hole",
            list(256, NEXT + NEXT_SIZE - 16, 4096),
            Status::BadAddress,
        ),
        (
            "list outside of memory",
            list(4, 0x7000_0000, 64),
            Status::BadAddress,
        ),
        (
            "list at the end of addresses",
            list(4, u64::MAX - 31, 64),
            Status::BadAddress,
        ),
        (
            "more inline segments than there are",
            Submission {
                segments: 4,
                ..read(0, 0, &[(DATA, 4096)])
            },
            Status::BadSegments,
        ),
        (
            "fewer inline segments than counted",
            Submission {
                segments: 3,
                ..read(0, 0, &[(DATA, 4096)])
            },
            Status::BadSegments,
        ),
        (
            "more inline segments than counted",
            Submission {
                segments: 1,
                ..read(0, 0, &[(DATA, 4096); 2])
            },
            Status::BadSegments,
        ),
    ];
    refuses(&mut guest, &cases)
}

fn r3(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
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
    refuses(
        &mut guest,
        &cases.map(|(what, entry)| (what, entry, Status::BadSegments)),
    )
}

fn r4_nested(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let list_flag = segment_flags::LIST;
    let mut cases = Vec::new();
    for (index, (what, flags)) in [
        ("a list of lists", list_flag),
        (
            "a list of writable lists",
            list_flag | segment_flags::DEVICE_WRITES,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        // The list holds itself.
        let addr = LIST + 256 * index as u64;
        for at in 0..4 {
            guest.write_memory(
                addr + 16 * at,
                &Segment {
                    addr,
                    len: 64,
                    flags,
                }
                .to_bytes(),
            );
        }
        cases.push((what, list(4, addr, 64), Status::BadSegments));
    }
    let two = Segment {
        addr: LIST,
        len: 64,
        flags: list_flag,
    };
    let entry = Submission {
        inline: [two, two, Segment::ZERO],
        ..list(4, LIST, 64)
    };
    cases.push(("two lists in an entry", entry, Status::BadSegments));
    let data = Segment {
        addr: DATA,
        len: 4096,
        flags: segment_flags::DEVICE_WRITES,
    };
    let entry = Submission {
        segments: 2,
        inline: [data, two, Segment::ZERO],
        ..read(0, 0, &[])
    };
    cases.push(("a list in the second place", entry, Status::BadSegments));
    refuses(&mut guest, &cases)
}

fn r4_overlap(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &CONFIG)?;
    // Seen as segments, the entry's first 16 bytes have length zero, since its sector is 0.
    let ring = guest.queue().view.submissions;
    guest.queue().expect(
        &list(4, ring, 64),
        Status::BadSegments,
        "a list that is its own entry",
    )?;
    // Data over the rings harms only the guest itself: it may be carried out, or break the queue.
    let block = guest.block();
    let (submissions, completions) = (
        guest.queue().view.submissions,
        guest.queue().view.completions,
    );
    let entries = [
        read(1, 0, &[(submissions & !0xfff, block)]),
        read(2, 0, &[(completions & !0xfff, block)]),
    ];
    go(guest.queue(), &entries)?;
    guest.works(1, 4).context("the other queue")?;
    guest.restart()?;
    guest.works(0, 5)?;
    guest.canaries()?;
    pass()
}

fn r5(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let in_list = with_list(
        &guest,
        read(0, 0, &[]),
        LIST,
        &[(DATA, 4096), (DATA, 0), (DATA, 4096), (DATA, 4096)],
    );
    let cases = [
        (
            "one empty segment",
            read(0, 0, &[(DATA, 0)]),
            Status::BadSegments,
        ),
        (
            "an empty segment behind others",
            read(0, 0, &[(DATA, 4096), (DATA, 4096), (DATA, 0)]),
            Status::BadSegments,
        ),
        (
            "an empty segment to write",
            write(0, 0, &[(DATA, 0), (DATA, 4096)]),
            Status::BadSegments,
        ),
        ("an empty segment in a list", in_list, Status::BadSegments),
    ];
    refuses(&mut guest, &cases)
}

fn r6(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let data = |flags| Segment {
        addr: DATA,
        len: 4096,
        flags,
    };
    let with = |entry: Submission, flags| Submission {
        inline: [data(flags), Segment::ZERO, Segment::ZERO],
        ..entry
    };
    let (reads, writes) = (read(0, 0, &[(DATA, 4096)]), write(0, 0, &[(DATA, 4096)]));
    let mut mixed = read(0, 0, &[(DATA, 4096); 2]);
    mixed.inline[1].flags = 0;
    // The list is made for a write and used for a read.
    let list = with_list(&guest, write(0, 0, &[]), LIST, &[(DATA, 4096); 4]);
    let turned = Submission {
        opcode: reads.opcode,
        ..list
    };
    let cases = [
        (
            "a read from readable memory",
            with(reads, 0),
            Status::BadSegments,
        ),
        (
            "a write to writable memory",
            with(writes, segment_flags::DEVICE_WRITES),
            Status::BadSegments,
        ),
        ("both in one request", mixed, Status::BadSegments),
        ("a list against its command", turned, Status::BadSegments),
        (
            "unknown segment flags",
            with(writes, 1 << 2),
            Status::BadSegments,
        ),
        (
            "all unknown segment flags",
            with(reads, 0xffff_fffd),
            Status::BadSegments,
        ),
    ];
    refuses(&mut guest, &cases)
}

fn r7(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let most = u32::MAX & !0xfff;
    let long_list = with_list(&guest, read(0, 0, &[]), LIST, &[(DATA, most); 256]);
    let to_zero = with_list(
        &guest,
        read(0, 0, &[]),
        LIST + 4096,
        &[(DATA, 1 << 31), (DATA, 1 << 31), (DATA, 4096), (DATA, 4096)],
    );
    let cases = [
        (
            "three that wrap 32 bits",
            read(0, 0, &[(DATA, most); 3]),
            Status::BadSegments,
        ),
        (
            "two that sum to zero",
            read(0, 0, &[(DATA, 1 << 31); 2]),
            Status::BadSegments,
        ),
        ("256 that wrap 32 bits", long_list, Status::BadSegments),
        (
            "a list that wraps to something small",
            to_zero,
            Status::BadSegments,
        ),
    ];
    refuses(&mut guest, &cases)
}

fn r8(env: &Env) -> Result<Outcome> {
    let tries = 50;
    for _ in 0..tries {
        let mut guest = Guest::start(env, &CONFIG)?;
        let long = guest.lun.max_bytes.min(1 << 20);
        // The same tag twice in one go. The first may end before the second is looked at: then it is legal.
        go(
            guest.queue(),
            &[
                read(0, 0, &[(DATA, long)]),
                read(0, 0, &[(DATA + 0x18_0000, long)]),
            ],
        )?;
        let until = Instant::now() + PATIENCE;
        let done = |guest: &mut Guest| {
            (0..2).all(|slot| Completion::decode(guest.queue().view.load_completion(slot)).1)
        };
        while guest.queue().state() == 0 && !done(&mut guest) {
            ensure!(
                Instant::now() < until,
                "neither broken nor done after {PATIENCE:?}"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        if guest.queue().state() != 0 {
            guest.broken(0, Broken::TagInFlight)?;
            guest.works(1, 6).context("the other queue")?;
            guest.restart()?;
            guest.works(0, 7)?;
            return Ok(Outcome::Pass(Broken::TagInFlight.name().to_owned()));
        }
    }
    Ok(Outcome::Skip(format!(
        "the device ended the first request before the second was looked at, {tries} times"
    )))
}

/// Goes on changing two words of memory, until told to stop.
fn flip(
    guest: &Guest,
    cells: Vec<(usize, [u64; 2])>,
    stop: &Arc<AtomicBool>,
) -> std::thread::JoinHandle<()> {
    let (mapping, stop) = (guest.mapping.clone(), stop.clone());
    std::thread::spawn(move || {
        for turn in 0usize.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            for (offset, values) in &cells {
                mapping
                    .u64(*offset)
                    .store(values[turn % 2], Ordering::Relaxed);
            }
        }
    })
}

/// Runs requests for a while; each may end in one of these statuses and nothing else may happen.
fn race(guest: &mut Guest, entry: impl Fn(u16) -> Submission, legal: &[Status]) -> Result<String> {
    let mut seen = [0u32; Status::ALL.len()];
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        let mut open = 0;
        for tag in 0..8 {
            guest.queue().push(&entry(tag));
            open += 1;
        }
        guest.queue().publish()?;
        for _ in 0..open {
            let completion = guest.queue().completion()?;
            let status = Status::from_u8(completion.status).context("an unknown status")?;
            ensure!(
                legal.contains(&status),
                "status {} for an entry that changed",
                status.name()
            );
            seen[usize::from(completion.status)] += 1;
        }
    }
    guest.canaries()?;
    let counts = Status::ALL.iter().zip(seen).filter(|(_, count)| *count > 0);
    Ok(counts
        .map(|(status, count)| format!("{} {count}", status.name()))
        .collect::<Vec<_>>()
        .join(", "))
}

fn r9_entry(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let block = guest.block();
    // The address goes between one that is the guest's and one that is not, the length between one and 2^31 blocks.
    let flags = u64::from(segment_flags::DEVICE_WRITES) << 32;
    let view = &guest.queues[0].view;
    let cells = (0..8).flat_map(|slot| {
        let addr = (view.submission_word(slot, 2), [DATA, 0x7000_0000]);
        let len = (
            view.submission_word(slot, 3),
            [flags | u64::from(block), flags | u64::from(block << 10)],
        );
        [addr, len]
    });
    let stop = Arc::new(AtomicBool::new(false));
    let flipper = flip(&guest, cells.collect(), &stop);
    let legal = [Status::Ok, Status::BadAddress, Status::BadSegments];
    let seen = race(&mut guest, |tag| read(tag, 0, &[(DATA, block)]), &legal);
    stop.store(true, Ordering::Relaxed);
    flipper.join().expect("flipper");
    guest.works(0, 8)?;
    Ok(Outcome::Pass(seen?))
}

fn r9_list(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let block = guest.block();
    let entry = with_list(&guest, read(0, 0, &[]), LIST, &[(DATA, block); 4]);
    let flags = u64::from(segment_flags::DEVICE_WRITES) << 32;
    let at = (LIST - RAM) as usize;
    let cells = (0..4).flat_map(|index| {
        let addr = (at + 16 * index, [DATA, ROM]);
        let len = (
            at + 16 * index + 8,
            [flags | u64::from(block), flags | 0xffff_f000],
        );
        [addr, len]
    });
    let stop = Arc::new(AtomicBool::new(false));
    let flipper = flip(&guest, cells.collect(), &stop);
    let legal = [Status::Ok, Status::BadAddress, Status::BadSegments];
    let seen = race(&mut guest, |tag| Submission { tag, ..entry }, &legal);
    stop.store(true, Ordering::Relaxed);
    flipper.join().expect("flipper");
    guest.works(0, 9)?;
    Ok(Outcome::Pass(seen?))
}

/// Waits for the completion at a position by looking, since no interrupt can be relied on.
fn look(queue: &mut Queue) -> Result<Completion> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(completion) = queue.collect.take(&queue.view) {
            return Ok(completion);
        }
        ensure!(Instant::now() < until, "no completion after {PATIENCE:?}");
        std::thread::sleep(Duration::from_micros(50));
    }
}

fn r10_words(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let words = [
        control::SQ_EVENT,
        control::CQ_EVENT,
        control::SQ_HEAD,
        control::STATE,
        12,
        60,
        76,
        124,
    ];
    for round in 0u32..64 {
        let value =
            [0, u32::MAX, round, 1 << 31, round.wrapping_mul(0x9e37_79b9)][round as usize % 5];
        let queue = guest.queue();
        words
            .iter()
            .for_each(|word| queue.view.store_release(*word, value));
        go(queue, &[read((round % 8) as u16, 0, &[(DATA, 4096)])])?;
        let completion = look(queue)?;
        ensure!(
            completion.status == Status::Ok as u8,
            "round {round}: status {}",
            completion.status
        );
    }
    let status = guest.adapter.queue(0)?;
    ensure!(
        status.broken == 0 && status.requests == 64,
        "broken {}, {} requests",
        status.broken,
        status.requests
    );
    guest.restart()?;
    guest.works(0, 10)?;
    pass()
}

fn r10_completions(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    for round in 0u32..64 {
        let queue = guest.queue();
        // Whatever lies in the ring, in either phase, the device's entry is whole once it has come.
        let slot = round % 8;
        let phase = round / 8 % 2 == 0;
        let noise = u64::from(round).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let junk = Completion {
            tag: noise as u16,
            status: (noise >> 16) as u8,
            bytes: (noise >> 32) as u32,
        };
        for other in 0..8 {
            let round_of = if other < slot { phase } else { !phase };
            queue.view.store_completion(other, junk.encode(round_of));
        }
        go(queue, &[read((round % 8) as u16, 0, &[(DATA, 4096)])])?;
        let completion = look(queue)?;
        let wanted = Completion {
            tag: (round % 8) as u16,
            status: Status::Ok as u8,
            bytes: 4096,
        };
        ensure!(completion == wanted, "round {round}: {completion:?}");
    }
    guest.restart()?;
    guest.works(0, 11)?;
    pass()
}

fn r11(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &CONFIG)?;
    let until = Instant::now() + Duration::from_millis(1500);
    let mut kicks = 0u64;
    while Instant::now() < until {
        for _ in 0..1000 {
            guest.queue().kick()?;
        }
        kicks += 1000;
        guest
            .works(1, kicks)
            .context("the other queue under a flood of doorbells")?;
    }
    guest.works(0, 12)?;
    ensure!(
        guest.adapter.queue(0)?.broken == 0,
        "doorbells alone broke the queue"
    );
    Ok(Outcome::Pass(format!("{kicks} doorbells")))
}

/// Demands that SET_QUEUE refuses a description that differs from a right one like this.
fn refuses_queue(
    guest: &Guest,
    what: &str,
    wanted: SetupError,
    change: impl FnOnce(&mut SetQueue),
) -> Result<()> {
    let mut description = guest.queues[0].description();
    change(&mut description);
    let refused = guest
        .adapter
        .set_queue(&description)
        .err()
        .with_context(|| format!("{what} was accepted"))?;
    let right = refused.error == Some(wanted) && refused.errno == errno_of(wanted);
    ensure!(
        right,
        "{what}: {refused} instead of {wanted:?} with {:?}",
        errno_of(wanted)
    );
    Ok(())
}

/// A stopped guest with queues that were not set yet.
fn stopped(env: &Env) -> Result<Guest> {
    let mut guest = Guest::prepare(env, &CONFIG)?;
    guest.adapter.set_features(1, guest.features)?;
    guest.make_queues(1, 8)?;
    Ok(guest)
}

/// Demands that what was refused left no trace: the guest can be set up and works.
fn works_after_all(mut guest: Guest) -> Result<Outcome> {
    guest.set_up(1, 8)?;
    guest.works(0, 13)?;
    pass()
}

fn r12_sizes(env: &Env) -> Result<Outcome> {
    let guest = stopped(env)?;
    for size in [0, 1, 3, 7, 1000, 1025, 2048, 1 << 16, 1 << 31, u32::MAX] {
        refuses_queue(
            &guest,
            &format!("size {size}"),
            SetupError::QueueSize,
            |queue| queue.size = size,
        )?;
    }
    works_after_all(guest)
}

fn r12_addresses(env: &Env) -> Result<Outcome> {
    let guest = stopped(env)?;
    let fields: [(&str, fn(&mut SetQueue) -> &mut u64); 3] = [
        ("submissions", |queue| &mut queue.submissions),
        ("completions", |queue| &mut queue.completions),
        ("control", |queue| &mut queue.control),
    ];
    for (name, field) in fields {
        let places = [
            ("unaligned by 8", DATA + 8),
            ("unaligned by 32", DATA + 32),
            ("outside of memory", 0x7000_0000),
            ("in a hole", NEXT + NEXT_SIZE),
            ("in read-only memory", ROM),
            ("at the end of addresses", u64::MAX - 63),
            ("just below memory", RAM - 64),
        ];
        for (what, addr) in places {
            let what = format!("{name} {what}");
            refuses_queue(&guest, &what, SetupError::QueueAddress, |queue| {
                *field(queue) = addr
            })?;
        }
    }
    // Rings of 1024 entries are longer than what is left.
    let end = NEXT + NEXT_SIZE;
    refuses_queue(
        &guest,
        "submissions past the end",
        SetupError::QueueAddress,
        |queue| {
            (queue.size, queue.submissions) = (1024, end - 65536 + 64);
        },
    )?;
    refuses_queue(
        &guest,
        "completions past the end",
        SetupError::QueueAddress,
        |queue| {
            (queue.size, queue.completions) = (1024, end - 8192 + 64);
        },
    )?;
    refuses_queue(
        &guest,
        "control past the end",
        SetupError::QueueAddress,
        |queue| queue.control = end - 64,
    )?;
    works_after_all(guest)
}

fn r13(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &CONFIG)?;
    refuses_queue(
        &guest,
        "the same queue while running",
        SetupError::Running,
        |_| (),
    )?;
    refuses_queue(
        &guest,
        "another address while running",
        SetupError::Running,
        |queue| queue.submissions = DATA,
    )?;
    guest.works(0, 14)?;
    pass()
}

fn r14(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &CONFIG)?;
    for features in [0, guest.features] {
        let refused = guest
            .adapter
            .set_features(1, features)
            .err()
            .context("features were accepted while running")?;
        ensure!(refused.error == Some(SetupError::Running), "{refused}");
        ensure!(refused.errno == errno_of(SetupError::Running), "{refused}");
    }
    guest.works(0, 15)?;
    pass()
}
