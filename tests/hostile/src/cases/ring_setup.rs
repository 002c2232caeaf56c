// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Rings of illegal size or place, and settings that change while the adapter runs.

use crate::adapter::refused;
use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use anyhow::{ensure, Result};
use avio_abi::ioctl::{region_flags, Region, SetQueue, SetupError};

pub const TESTS: &[Test] = &[
    ("r12_ring_sizes", sizes),
    ("r12_ring_addresses", addresses),
    (
        "r12_rings_across_into_what_is_no_writable_memory",
        across_into_nothing,
    ),
    ("r13_queue_set_while_running", while_running),
    ("r14_features_set_while_running", features),
];

/// Demands that SET_QUEUE refuses a description that differs from a right one like this.
fn refuses(
    guest: &Guest,
    what: &str,
    wanted: SetupError,
    change: impl FnOnce(&mut SetQueue),
) -> Result<()> {
    let mut description = guest.queues[0].description();
    change(&mut description);
    refused(what, guest.adapter.set_queue(&description), wanted).map(drop)
}

type Field = fn(&mut SetQueue) -> &mut u64;
/// What a queue has in guest memory.
const FIELDS: [(&str, Field); 3] = [
    ("submissions", |queue| &mut queue.submissions),
    ("completions", |queue| &mut queue.completions),
    ("control", |queue| &mut queue.control),
];

/// A stopped guest with queues that were not set yet.
fn stopped(env: &Env) -> Result<Guest> {
    let mut guest = Guest::prepare(&env.device, &PLAIN)?;
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

fn sizes(env: &Env) -> Result<Outcome> {
    let guest = stopped(env)?;
    for size in [0, 1, 3, 7, 1000, 1025, 2048, 1 << 16, 1 << 31, u32::MAX] {
        let what = format!("size {size}");
        refuses(&guest, &what, SetupError::QueueSize, |queue| {
            queue.size = size
        })?;
    }
    works_after_all(guest)
}

fn addresses(env: &Env) -> Result<Outcome> {
    let guest = stopped(env)?;
    let refuses = |what: &str, change: &dyn Fn(&mut SetQueue)| {
        refuses(&guest, what, SetupError::QueueAddress, change)
    };
    let places = [
        ("unaligned by 8", DATA + 8),
        ("unaligned by 32", DATA + 32),
        ("outside of memory", 0x7000_0000),
        ("in a hole", NEXT + NEXT_SIZE),
        ("in read-only memory", ROM),
        ("at the end of addresses", u64::MAX - 63),
        ("just below memory", RAM - 64),
    ];
    for (name, field) in FIELDS {
        for (what, addr) in places {
            refuses(&format!("{name} {what}"), &|queue| *field(queue) = addr)?;
        }
    }
    // Rings of 1024 entries are longer than what is left.
    let end = NEXT + NEXT_SIZE;
    refuses("submissions past the end", &|queue| {
        (queue.size, queue.submissions) = (1024, end - 65536 + 64);
    })?;
    refuses("completions past the end", &|queue| {
        (queue.size, queue.completions) = (1024, end - 8192 + 64);
    })?;
    refuses("control past the end", &|queue| queue.control = end - 64)?;
    works_after_all(guest)
}

fn across_into_nothing(env: &Env) -> Result<Outcome> {
    let guest = stopped(env)?;
    let table = regions(&guest.mapping);
    let read_only = Region {
        flags: region_flags::READ_ONLY,
        ..table[2]
    };
    let tables = [
        ("a hole", &[table[1]][..]),
        ("read-only memory", &[table[1], read_only][..]),
    ];
    for (behind, memory) in tables {
        guest.adapter.set_memory(memory)?;
        for (name, field) in FIELDS {
            let what = format!("{name} that go on in {behind}");
            refuses(&guest, &what, SetupError::QueueAddress, |queue| {
                queue.size = 64;
                *field(queue) = NEXT - 64;
            })?;
        }
    }
    // Where it was right when it was set, and the memory is another when it starts.
    guest.adapter.set_memory(&table)?;
    guest.adapter.set_queue(&SetQueue {
        submissions: NEXT - 64,
        ..guest.queues[0].description()
    })?;
    guest.adapter.set_memory(&table[..2])?;
    let start = guest.adapter.start(1);
    let index = refused(
        "a ring that lost half of it",
        start,
        SetupError::QueueAddress,
    )?;
    ensure!(index == 0, "index {index}");
    guest.adapter.set_memory(&table)?;
    works_after_all(guest)
}

fn while_running(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let running = SetupError::Running;
    refuses(&guest, "the same queue while running", running, |_| ())?;
    refuses(&guest, "another address while running", running, |queue| {
        queue.submissions = DATA
    })?;
    guest.works(0, 14)?;
    pass()
}

fn features(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    for features in [0, guest.features] {
        let set = guest.adapter.set_features(1, features);
        refused("features while running", set, SetupError::Running)?;
    }
    guest.works(0, 15)?;
    pass()
}
