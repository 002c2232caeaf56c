// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Memory tables that replace each other while the adapter runs: each request uses the one or the other, and when the call
//! returns none uses the old one.

use crate::adapter::{refused, Adapter};
use crate::backing::{Mapped, NullBlk};
use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use crate::sys::Mapping;
use anyhow::{ensure, Context, Result};
use avio_abi::ioctl::{region_flags, Region, SetQueue, SetupError};
use avio_abi::stor::Status;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::Arc;

pub const TESTS: &[Test] = &[
    ("m5_regions_removed_and_replaced_under_load", exchanged),
    (
        "m5_regions_removed_while_the_backing_stands_still",
        removed_while_still,
    ),
    ("m5_memory_exchanged_under_requests_that_wait", other_memory),
    (
        "m5_regions_of_the_rings_removed_and_unmapped",
        without_rings,
    ),
    ("m5_regions_removed_under_requests_held_back", held_back),
    ("m5_regions_become_read_only", becomes_read_only),
];

/// Guest address of a region of its own, and its length.
const EXTRA: u64 = 1 << 32;
const LEN: u32 = 1 << 16;

/// Private memory that holds this, and the region that it is at [`EXTRA`].
fn extra(seed: u64) -> Result<(Mapping, Region)> {
    let memory = Mapping::anonymous(LEN as usize, libc::PROT_READ | libc::PROT_WRITE)?;
    memory.write(0, &pattern(0, LEN, seed));
    let region = Region {
        guest_addr: EXTRA,
        size: LEN.into(),
        user_addr: memory.user_addr(),
        flags: 0,
        reserved: 0,
    };
    Ok((memory, region))
}

/// The guest's table with a region besides.
fn with(guest: &Guest, region: Region) -> Vec<Region> {
    let mut table = regions(&guest.mapping);
    table.push(region);
    table
}

/// Demands that memory holds what a disk of this seed has from the beginning.
fn holds(what: &str, memory: &Mapping, seed: u64) -> Result<()> {
    let same = memory.read(0, LEN as usize) == pattern(0, LEN, seed);
    ensure!(same, "{what} does not hold what it should");
    Ok(())
}

fn exchanged(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let block = guest.block();
    guest.store(0, 0, 8 * block, 24)?;
    let table = regions(&guest.mapping);
    // Half of the requests are to the region that comes and goes.
    let place = |tag: u16| if tag % 2 == 0 { DATA } else { NEXT };
    let reads: Vec<_> = (0..8u16)
        .map(|tag| read(tag, 0, &[(place(tag) + u64::from(tag) * 4096, block)]))
        .collect();
    let mut refused_reads = 0;
    for round in 0..200u64 {
        guest.queue().go(&reads)?;
        let without = round % 2 == 0;
        let now = if without { &table[..2] } else { &table[..] };
        guest.set_memory(now)?;
        let queue = &mut guest.queues[0];
        let answers = queue.answers(&[0, 1, 2, 3, 4, 5, 6, 7])?;
        for (tag, status) in answers.iter().enumerate() {
            let gone = *status == Status::BadAddress && tag % 2 == 1;
            ensure!(
                *status == Status::Ok || gone,
                "tag {tag}: {}",
                status.name()
            );
            refused_reads += u32::from(gone);
        }
        if without {
            // Nobody has the old table any more: what was the guest's stays as it is.
            guest.fill(NEXT, 0, 65536, round);
            let queue = guest.queue();
            queue.expect(&reads[1], Status::BadAddress, "memory that is gone")?;
            guest.verify(NEXT, 0, 65536, round)?;
        }
    }
    guest.works(0, 25)?;
    guest.canaries()?;
    Ok(Outcome::Pass(format!(
        "{refused_reads} met the region gone"
    )))
}

/// Whether a whole round of the second guest's went by during a call, which waits for a backing that stands still, but not
/// for ever.
fn goes_on_meanwhile(env: &Env, adapter: &Adapter, table: &[Region]) -> Result<bool> {
    let begun = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| {
            begun.store(true, Ordering::Relaxed);
            refused("SET_MEMORY", adapter.set_memory(table), SetupError::Stuck)
        });
        let others = wait_for("the call", || Ok(begun.load(Ordering::Relaxed)))
            .and_then(|()| env.bystander.goes_on());
        let waits = !call.is_finished();
        call.join().expect("call")?;
        others.map(|()| waits)
    })
}

fn removed_while_still(env: &Env) -> Result<Outcome> {
    let disk = NullBlk::new(&[])?;
    let device = Mapped::over(&disk)?;
    let mut guest = Guest::on(&device.open()?, &PLAIN)?;
    guest.store(0, 0, 65536, 27)?;
    let held = device.suspend()?;
    guest.queue().go(&[read(2, 0, &[(NEXT, 65536)])])?;
    guest.wait_in_flight(1)?;
    let table = regions(&guest.mapping);
    wait_for("the second guest's I/O during the call", || {
        goes_on_meanwhile(env, &guest.adapter, &table[..2])
    })?;
    held.resume()?;
    wait_for("the old table to be given up", || {
        Ok(guest.adapter.set_memory(&table[..2]).is_ok())
    })?;
    let answers = guest.queue().answers(&[2])?;
    ensure!(answers == [Status::Ok], "{answers:?}");
    guest.verify(NEXT, 0, 65536, 27)?;
    let entry = read(3, 0, &[(NEXT, 65536)]);
    let what = "memory that is gone";
    guest.queue().expect(&entry, Status::BadAddress, what)?;
    guest.works(0, 28)?;
    pass()
}

/// A read and a write wait in the backing while other memory takes the place of what they use: they use the old, which stays
/// theirs until they end, and whatever comes later uses the new.
fn other_memory(env: &Env) -> Result<Outcome> {
    let disk = NullBlk::new(&[])?;
    let device = Mapped::over(&disk)?;
    let mut guest = Guest::on(&device.open()?, &PLAIN)?;
    guest.store(0, 0, LEN, 310)?;
    let ((old, old_region), (new, new_region)) = (extra(311)?, extra(312)?);
    guest.set_memory(&with(&guest, old_region))?;
    let half = LEN / 2;
    let second = EXTRA + u64::from(half);
    let waiting = [
        read(2, 0, &[(EXTRA, half)]),
        write(3, 256, &[(second, half)]),
    ];
    let held = device.suspend()?;
    guest.queue().go(&waiting)?;
    guest.wait_in_flight(2)?;
    let (adapter, table) = (&guest.adapter, with(&guest, new_region));
    let stuck = AtomicU32::new(0);
    std::thread::scope(|scope| -> Result<()> {
        let call = scope.spawn(|| exchange(adapter, &table, &stuck));
        let waits = wait_for("the call waits", || {
            Ok(stuck.load(Ordering::Relaxed) != 0 || call.is_finished())
        });
        let early = call.is_finished();
        held.resume()?;
        call.join().expect("call")?;
        ensure!(!early, "the call did not wait for what uses the old memory");
        waits
    })?;
    // That it has returned means that they have ended.
    ensure!(guest.queue().view.posted() == 3, "not all has ended");
    let answers = guest.queue().answers(&[2, 3])?;
    ensure!(answers == [Status::Ok; 2], "{answers:?}");
    holds("the new memory", &new, 312)?;
    let read_back = old.read(0, half as usize) == pattern(0, half, 310);
    ensure!(read_back, "the old memory has not what was read into it");
    let written = old.read(half as usize, half as usize);
    on_disk(&mut guest, &written).context("of the old memory")?;

    old.write(0, &pattern(0, LEN, 313));
    guest.queue().ok(&write(0, 256, &[(EXTRA, LEN)]))?;
    on_disk(&mut guest, &pattern(0, LEN, 312)).context("of the new memory")?;
    guest.queue().ok(&read(1, 0, &[(EXTRA, LEN)]))?;
    holds("the new memory", &new, 310)?;
    holds("the old memory", &old, 313)?;
    env.bystander.goes_on()?;
    pass()
}

/// Demands that the disk has these bytes from sector 256 on.
fn on_disk(guest: &mut Guest, bytes: &[u8]) -> Result<()> {
    let len = bytes.len() as u32;
    guest.queue().ok(&read(0, 256, &[(BACK, len)]))?;
    let same = guest.read_memory(BACK, len) == bytes;
    ensure!(same, "something else was written");
    Ok(())
}

/// Exchanges the table, and again if the backing took too long, which is counted.
fn exchange(adapter: &Adapter, table: &[Region], stuck: &AtomicU32) -> Result<()> {
    loop {
        let Err(refusal) = adapter.set_memory(table) else {
            return Ok(());
        };
        refused("SET_MEMORY", Err::<(), _>(refusal), SetupError::Stuck)?;
        stuck.fetch_add(1, Ordering::Relaxed);
    }
}

/// The rings' memory is neither in the table nor mapped any more: the device has its own hold of it.
fn without_rings(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    guest.store(0, 0, LEN, 320)?;
    let (memory, region) = extra(321)?;
    guest.set_memory(&[region])?;
    guest.queue().ok(&read(0, 0, &[(EXTRA, LEN)]))?;
    holds("the only memory", &memory, 320)?;
    let gone = read(1, 0, &[(DATA, 4096)]);
    guest
        .queue()
        .expect(&gone, Status::BadAddress, "memory that is gone")?;
    // These are found in the ring when nobody else can reach it any more.
    guest.quiesce()?;
    memory.write(0, &pattern(0, LEN, 322));
    let reads = [0, 1, 2, 3].map(|tag| read(tag, 0, &[(EXTRA, LEN)]));
    guest.queue().go(&reads)?;
    let before = guest.adapter.queue(0)?.requests;
    let description = guest.queue().description();
    let Guest {
        adapter,
        mapping,
        queues,
        ..
    } = guest;
    let kicks: Vec<_> = queues.into_iter().map(|queue| queue.kick).collect();
    let unmapped = Arc::into_inner(mapping).is_some();
    ensure!(unmapped, "the rings are still mapped");
    adapter.resume().context("RESUME")?;
    wait_for("the requests end", || {
        let now = adapter.queue(0)?;
        Ok(now.requests == before + 4 && now.in_flight == 0 && now.completion == now.submission)
    })?;
    holds("the only memory", &memory, 320)?;
    until_done("STOP", || adapter.stop())?;
    adapter.set_features(1, 0)?;
    let call_fd = kicks[0].as_fd().as_raw_fd();
    let outside = adapter.set_queue(&SetQueue {
        call_fd,
        ..description
    });
    let what = "rings outside of the table";
    refused(what, outside, SetupError::QueueAddress)?;
    pass()
}

/// Requests that wait for their LUN's limits are looked at anew, with the memory that there is then.
fn held_back(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    guest.adapter.limit_bytes(0, 1, 4096)?;
    let tags = [0, 1, 2, 3, 4, 5, 6, 7];
    let reads = tags.map(|tag| read(tag, 0, &[(NEXT + 4096 * u64::from(tag), 4096)]));
    guest.queue().go(&reads)?;
    wait_for("the rest of the requests waits", || {
        let lun = guest.adapter.lun(0)?;
        Ok(lun.held_back >= 6 && lun.in_flight == 0)
    })?;
    let table = regions(&guest.mapping);
    guest.set_memory(&table[..2])?;
    guest.fill(NEXT, 0, 8 * 4096, 330);
    guest.adapter.limit_bytes(0, 0, 0)?;
    let answers = guest.queue().answers(&tags)?;
    let count = |status| answers.iter().filter(|answer| **answer == status).count();
    let (done, gone) = (count(Status::Ok), count(Status::BadAddress));
    ensure!(gone >= 6 && done + gone == 8, "{answers:?}");
    let same = guest.verify(NEXT, 0, 8 * 4096, 330);
    same.context("memory that is gone was written")?;
    guest.works(0, 331)?;
    pass()
}

fn becomes_read_only(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    guest.store(0, 0, LEN, 340)?;
    let writable = regions(&guest.mapping);
    let mut constant = writable.clone();
    constant[2].flags = region_flags::READ_ONLY;
    let (there, back) = (read(0, 0, &[(NEXT, LEN)]), write(1, 256, &[(NEXT, LEN)]));
    for seed in 341..344 {
        guest.set_memory(&constant)?;
        guest.fill(NEXT, 256, LEN, seed);
        let what = "a read into memory that is read-only now";
        guest.queue().expect(&there, Status::BadAddress, what)?;
        guest.verify(NEXT, 256, LEN, seed).context(what)?;
        guest.queue().ok(&back)?;
        guest.holds(0, 256, LEN, seed)?;
        guest.set_memory(&writable)?;
        guest.queue().ok(&there)?;
        guest.verify(NEXT, 0, LEN, 340)?;
    }
    pass()
}
