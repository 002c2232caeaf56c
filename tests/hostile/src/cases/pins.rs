// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What the owner does to pinned memory: the device goes on with the pages that it has.

use crate::backing::{Mapped, NullBlk};
use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use crate::sys::{Child, Mapping};
use anyhow::{ensure, Context, Result};
use avio_abi::ioctl::Region;
use avio_abi::stor::Status;
use std::sync::atomic::{AtomicBool, Ordering};

pub const TESTS: &[Test] = &[
    ("m7_owner_unmaps", |env| gone(env, drop)),
    ("m7_owner_protects", |env| {
        gone(env, |memory| {
            // Kept mapped, but for nobody.
            let _ = memory.protect();
            std::mem::forget(memory);
        })
    }),
    ("m7_owner_forks", forks),
    ("m9_data_changes_in_flight", changes_in_flight),
    ("m9_data_changes_in_flight_to_a_mirror", changes_to_a_mirror),
];

/// Guest address of a region of its own, and its length.
const EXTRA: u64 = 1 << 32;
const EXTRA_SIZE: u32 = 1 << 16;

/// A guest with a region of private memory besides, which holds what the disk has after this.
fn with_extra(env: &Env) -> Result<(Guest, Mapping)> {
    let mut guest = Guest::simple(env)?;
    let read_write = libc::PROT_READ | libc::PROT_WRITE;
    let extra = Mapping::anonymous(EXTRA_SIZE as usize, read_write)?;
    let mut table = regions(&guest.mapping);
    table.push(Region {
        guest_addr: EXTRA,
        size: EXTRA_SIZE.into(),
        user_addr: extra.user_addr(),
        flags: 0,
        reserved: 0,
    });
    guest.adapter.set_memory(&table)?;
    guest.store(0, 0, EXTRA_SIZE, 120)?;
    guest.queue().ok(&read(0, 0, &[(EXTRA, EXTRA_SIZE)]))?;
    Ok((guest, extra))
}

/// Memory that its owner can no longer reach is still the guest's.
fn gone(env: &Env, take_away: fn(Mapping)) -> Result<Outcome> {
    let (mut guest, extra) = with_extra(env)?;
    take_away(extra);
    guest.queue().ok(&write(0, 1024, &[(EXTRA, EXTRA_SIZE)]))?;
    guest.queue().ok(&read(1, 1024, &[(BACK, EXTRA_SIZE)]))?;
    guest.verify(BACK, 0, EXTRA_SIZE, 120)?;
    guest.queue().ok(&read(2, 0, &[(EXTRA, EXTRA_SIZE)]))?;
    guest.adapter.set_memory(&regions(&guest.mapping))?;
    let entry = read(3, 0, &[(EXTRA, EXTRA_SIZE)]);
    let what = "memory that was let go";
    guest.queue().expect(&entry, Status::BadAddress, what)?;
    guest.works(0, 121)?;
    pass()
}

fn forks(env: &Env) -> Result<Outcome> {
    let (mut guest, extra) = with_extra(env)?;
    for seed in 130..135 {
        let child = Child::fork()?;
        // Writing makes a copy for one of the two; the parent must keep what is pinned.
        extra.write(0, &pattern(0, EXTRA_SIZE, seed));
        guest.queue().ok(&write(0, 0, &[(EXTRA, EXTRA_SIZE)]))?;
        guest
            .holds(0, 0, EXTRA_SIZE, seed)
            .context("what the parent wrote")?;
        guest.store(0, 0, EXTRA_SIZE, seed + 10)?;
        guest.queue().ok(&read(0, 0, &[(EXTRA, EXTRA_SIZE)]))?;
        let seen = extra.read(0, EXTRA_SIZE as usize);
        ensure!(
            seen == pattern(0, EXTRA_SIZE, seed + 10),
            "the parent does not see what came"
        );
        drop(child);
    }
    pass()
}

/// Writes from memory that changes all the time; what lies around it on the disk stays.
fn scribbled_writes(mut guest: Guest) -> Result<Outcome> {
    let len = 65536;
    guest.store(0, 0, 4 * len, 140)?;
    let (mapping, stop) = (guest.mapping.clone(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in (0u64..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                let word = offset(DATA) + (turn % (u64::from(len) / 8)) as usize * 8;
                mapping.u64(word).store(turn, Ordering::Relaxed);
            }
        });
        let writes: Vec<_> = (0..8).map(|tag| write(tag, 128, &[(DATA, len)])).collect();
        let result = (0..50).try_for_each(|_| {
            let answers = guest.queue().all(&writes)?;
            let right = answers.iter().all(|status| *status == Status::Ok);
            ensure!(right, "writes of data that changes: {answers:?}");
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        result
    })?;
    guest.holds(0, 0, len, 140)?;
    guest.holds(0, 256, 2 * len, 140)?;
    guest.works(0, 141)?;
    guest.canaries()?;
    pass()
}

fn changes_in_flight(env: &Env) -> Result<Outcome> {
    scribbled_writes(Guest::simple(env)?)
}

fn changes_to_a_mirror(_env: &Env) -> Result<Outcome> {
    let legs = [NullBlk::new(&[])?, NullBlk::new(&[])?];
    let [first, second] = [0, 1].map(|leg: usize| legs[leg].path());
    let table = format!(
        "0 {} mirror core 2 1024 nosync 2 {} 0 {} 0",
        NullBlk::SECTORS,
        first.display(),
        second.display()
    );
    let mirror = Mapped::new(&table).context("a mirror; is dm_mirror loaded?")?;
    let guest = Guest::on(&mirror.open()?, &PLAIN)?;
    scribbled_writes(guest)
}
