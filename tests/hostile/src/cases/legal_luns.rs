// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Several LUNs, what makes data durable, where the data ends up, and what is counted.

use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use anyhow::{ensure, Context, Result};
use avio_abi::stor::{flags, Status};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

pub const TESTS: &[Test] = &[
    ("legal_several_luns", luns),
    ("legal_flush_and_fua", flush_fua),
    ("legal_data_is_on_the_device", on_device),
    ("legal_counters", counters),
];

fn luns(env: &Env) -> Result<Outcome> {
    let luns = [(0, 0), (7, 0), (255, 0)];
    let mut guest = Guest::start(
        env,
        &Config {
            luns: &luns,
            ..PLAIN
        },
    )?;
    for (lun, _) in luns {
        guest.store(lun, 0, 16384, lun.into())?;
        guest.holds(lun, 0, 16384, lun.into())?;
    }
    pass()
}

fn flush_fua(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    for _ in 0..5 {
        guest.works(0, 90)?;
        guest.queue().ok(&flush(5))?;
    }
    guest.fill(DATA, 64, 8192, 91);
    let entry = write(0, 64, &[(DATA, 8192)]).flagged(flags::FUA);
    guest.queue().ok(&entry)?;
    guest.holds(0, 64, 8192, 91)?;
    pass()
}

fn on_device(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let len = 65536;
    guest.store(0, 2048, len, 95)?;
    let mut options = std::fs::OpenOptions::new();
    let options = options.read(true).custom_flags(libc::O_DIRECT);
    let device = options.open(&env.device_path)?;
    let mut room = vec![0u8; len as usize + 4096];
    let skip = room.as_ptr().align_offset(4096);
    let found = &mut room[skip..skip + len as usize];
    let read = device.read_exact_at(found, 2048 * 512);
    read.context("reading the device itself")?;
    let same = found == pattern(2048, len, 95);
    ensure!(same, "the device does not hold what the guest wrote");
    pass()
}

fn counters(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    for tag in 0..5 {
        guest.queue().ok(&write(tag, 0, &[(DATA, 8192)]))?;
    }
    for tag in 0..3 {
        guest.queue().ok(&read(tag, 0, &[(DATA, 4096)]))?;
    }
    guest.queue().ok(&flush(6))?;
    let nothing = read(7, 0, &[]);
    guest
        .queue()
        .expect(&nothing, Status::BadSegments, "a read of nothing")?;
    // The last completion is visible a moment before it is counted.
    wait_for("the queue's counters", || {
        let now = guest.adapter.queue(0)?;
        let told = now.interrupts + now.interrupts_suppressed == 10;
        let bytes = (now.read_bytes, now.write_bytes) == (3 * 4096, 5 * 8192);
        let ended = (now.requests, now.errors, now.in_flight) == (10, 1, 0);
        Ok(told && bytes && ended && now.doorbells > 0)
    })?;
    wait_for("the LUN's counters", || {
        let now = guest.adapter.lun(0)?;
        let reads = (now.reads, now.read_bytes) == (3, 3 * 4096);
        let writes = (now.writes, now.write_bytes) == (5, 5 * 8192);
        let rest = (now.flushes, now.ranges, now.in_flight, now.held_back) == (1, 0, 0, 0);
        let ended = now.statuses[Status::Ok as usize] == 9;
        Ok(reads && writes && rest && ended)
    })?;
    // There is none if each completion comes before we ask.
    wait_for("an interrupt", || {
        guest.queue().ok(&read(0, 0, &[(DATA, 4096)]))?;
        Ok(guest.adapter.queue(0)?.interrupts > 0)
    })?;
    pass()
}
