// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Backings that take no more: they keep waiting whoever wants something of them, and nobody else. What they refuse for
//! the moment is carried out rightly later.

use crate::adapter::refused;
use crate::backing::{Loop, Mapped, NullBlk};
use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use anyhow::{ensure, Context, Result};
use avio_abi::ioctl::{remove_flags, SetupError};
use avio_abi::pci::task::{ABORT, LUN_RESET};
use avio_abi::stor::Status;
use nix::errno::Errno;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

pub const TESTS: &[Test] = &[
    ("stuck_backing_without_free_requests", without_free),
    ("stuck_backing_below_a_mapped_device", below_a_mapped),
    ("stuck_backing_is_reset_and_stopped", stopped),
    ("stuck_backing_is_removed", removed),
    ("stuck_backing_with_a_dirty_page_cache", dirty),
    ("legal_requests_that_a_backing_cuts", cut),
    (
        "legal_requests_of_which_a_backing_refuses_parts",
        refuses_parts,
    ),
];

/// Requests that the backing has at a time: the fewest that the block layer allows.
const TAGS: u32 = 4;
/// Requests that the guest sends it at once.
const MANY: u16 = 16;
/// A tag that is free meanwhile.
const FREE: u16 = MANY;
/// Where the data of the other LUN is meanwhile.
const OTHER: u64 = DATA + (1 << 20);

/// A guest with one queue: LUN 0 is this device, LUN 1 one that always answers.
fn start(device: &File, other: &NullBlk) -> Result<Guest> {
    let size = 2 * u32::from(MANY);
    let mut guest = Guest::prepare(device, &Config { size, ..PLAIN })?;
    let other = other.open()?;
    let added = guest.adapter.add_lun(1, other.as_raw_fd(), 0);
    added.context("ADD_LUN of the other")?;
    guest.set_up(1, size)?;
    guest.store(0, 0, 65536, 300)?;
    Ok(guest)
}

/// Where the request with this tag lies: its neighbours lie elsewhere, or the block layer would make one of them.
fn sector(tag: u16) -> u64 {
    16 * u64::from(tag)
}

/// Where its data lies.
fn place(tag: u16) -> u64 {
    DATA + 4096 * u64::from(tag)
}

/// Tags of those that read what `start` has stored, and of those that write.
const READS: Range<u16> = 0..MANY / 2;
const WRITES: Range<u16> = MANY / 2..MANY;

/// Sends LUN 0, which stands still, more than the device that has `few` takes.
fn fill_up(guest: &mut Guest, few: &Loop) -> Result<()> {
    WRITES.for_each(|tag| guest.fill(place(tag), sector(tag), 4096, 301));
    let reads = READS.map(|tag| read(tag, sector(tag), &[(place(tag), 4096)]));
    let writes = WRITES.map(|tag| write(tag, sector(tag), &[(place(tag), 4096)]));
    let all: Vec<_> = reads.chain(writes).collect();
    guest.queue().go(&all)?;
    guest.wait_in_flight(u32::from(MANY))?;
    wait_for("as many below as it takes", || Ok(few.in_flight()? == TAGS))
}

/// LUN 1, on the same queue, is served all the same.
fn other_goes_on(guest: &mut Guest) -> Result<()> {
    for round in 0..10 {
        guest.fill(OTHER, 0, 65536, 310 + round);
        let there = write(FREE, 0, &[(OTHER, 65536)]).on(1);
        guest.queue().ok(&there).context("the other LUN")?;
        let back = read(FREE + 1, 0, &[(OTHER + 65536, 65536)]).on(1);
        guest.queue().ok(&back).context("the other LUN")?;
        guest.verify(OTHER + 65536, 0, 65536, 310 + round)?;
    }
    Ok(())
}

/// How the requests of `fill_up` ended.
fn answers(guest: &mut Guest) -> Result<Vec<Status>> {
    let tags: Vec<u16> = (0..MANY).collect();
    guest.queue().answers(&tags)
}

/// The requests of LUN 0, whose backing stands still, are carried out when it goes on, one that was to be aborted too.
fn carried_out(env: &Env, device: &File, few: &Loop, below: &Mapped) -> Result<Outcome> {
    let other = NullBlk::new(&[])?;
    let mut guest = start(device, &other)?;
    let held = below.suspend()?;
    fill_up(&mut guest, few)?;
    other_goes_on(&mut guest)?;
    let last = u32::from(MANY) - 1;
    let marked = guest.adapter.task(ABORT, 0, (0, last))?;
    ensure!(marked == 1, "ABORT found {marked}");
    env.bystander.goes_on()?;
    held.resume()?;
    let answers = answers(&mut guest)?;
    let right = answers.iter().all(|status| *status == Status::Ok);
    ensure!(right, "{answers:?}");
    for tag in READS {
        guest.verify(place(tag), sector(tag), 4096, 300)?;
    }
    for tag in WRITES {
        guest.holds(0, sector(tag), 4096, 301)?;
    }
    guest.works(0, 302)?;
    guest.canaries()?;
    pass()
}

fn without_free(env: &Env) -> Result<Outcome> {
    let disk = NullBlk::new(&[])?;
    let below = Mapped::over(&disk)?;
    let device = Loop::over(below.path(), TAGS)?;
    let file = device.open()?;
    carried_out(env, &file, &device, &below)
}

fn below_a_mapped(env: &Env) -> Result<Outcome> {
    let disk = NullBlk::new(&[])?;
    let below = Mapped::over(&disk)?;
    let few = Loop::over(below.path(), TAGS)?;
    let path = few.path().display();
    // In two parts, which have another place below than in the device.
    let table = format!("0 128 linear {path} 4096\n128 4096 linear {path} 0");
    let device = Mapped::new(&table)?;
    let file = device.open()?;
    carried_out(env, &file, &few, &below)
}

fn stopped(env: &Env) -> Result<Outcome> {
    let disk = NullBlk::new(&[])?;
    let below = Mapped::over(&disk)?;
    let device = Loop::over(below.path(), TAGS)?;
    let other = NullBlk::new(&[])?;
    let mut guest = start(&device.open()?, &other)?;
    let held = below.suspend()?;
    fill_up(&mut guest, &device)?;
    let marked = guest.adapter.task(LUN_RESET, 0, (0, 0))?;
    ensure!(marked == u32::from(MANY), "LUN_RESET found {marked}");
    other_goes_on(&mut guest)?;
    for _ in 0..2 {
        let result = guest.adapter.stop();
        ensure!(result == Err(Errno::EAGAIN), "STOP: {result:?}");
        env.bystander.goes_on()?;
    }
    held.resume()?;
    guest.stop()?;
    guest.fill(DATA, 0, 65536, 303);
    guest.set_up(1, 2 * u32::from(MANY))?;
    // What the backing answers later it has not begun earlier.
    guest.queue().ok(&read(0, 0, &[(BACK, 65536)]))?;
    let same = guest.verify(DATA, 0, 65536, 303);
    same.context("memory was written after STOP")?;
    guest.works(0, 304)?;
    pass()
}

fn removed(env: &Env) -> Result<Outcome> {
    let disk = NullBlk::new(&[])?;
    let below = Mapped::over(&disk)?;
    let device = Loop::over(below.path(), TAGS)?;
    let other = NullBlk::new(&[])?;
    let mut guest = start(&device.open()?, &other)?;
    let held = below.suspend()?;
    fill_up(&mut guest, &device)?;
    let busy = guest.adapter.remove_lun(0, 0);
    refused("REMOVE_LUN", busy, SetupError::LunInFlight)?;
    guest.adapter.remove_lun(0, remove_flags::FORCE)?;
    let gone = read(FREE, 0, &[(OTHER, 4096)]);
    guest
        .queue()
        .expect(&gone, Status::BadLun, "a LUN that is gone")?;
    other_goes_on(&mut guest)?;
    env.bystander.goes_on()?;
    held.resume()?;
    let answers = answers(&mut guest)?;
    let right = answers.iter().all(|status| *status == Status::Aborted);
    ensure!(right, "{answers:?}");
    other_goes_on(&mut guest)?;
    pass()
}

/// What is yet to be written is nothing that ADD_LUN waits for.
fn dirty(env: &Env) -> Result<Outcome> {
    let disk = NullBlk::new(&[])?;
    let device = Mapped::over(&disk)?;
    let file = device.open()?;
    let mut guest = Guest::simple(env)?;
    let held = device.suspend()?;
    file.write_all_at(&pattern(64, 65536, 305), 64 * 512)?;
    let added = guest.adapter.add_lun(1, file.as_raw_fd(), 0);
    refused("ADD_LUN", added, SetupError::DeviceDirty)?;
    guest.works(0, 306)?;
    held.resume()?;
    file.sync_all()?;
    guest.adapter.add_lun(1, file.as_raw_fd(), 0)?;
    let first = read(0, 0, &[(DATA, 4096)]).on(1);
    guest
        .queue()
        .expect(&first, Status::Attention, "a LUN that was added")?;
    guest.holds(1, 64, 65536, 305)?;
    pass()
}

/// Writes and reads that are larger than what the device takes, one and many at a time.
fn large(device: &File) -> Result<Guest> {
    let mut guest = Guest::on(device, &IN_PIECES)?;
    for (sector, len) in [(0, 1 << 20), (24, 65536), (8, 4096)] {
        guest.store(0, sector, len, 307)?;
        guest.holds(0, sector, len, 307)?;
    }
    let len = 131_072;
    let at = |tag: u16| (256 * u64::from(tag), u64::from(len) * u64::from(tag));
    guest.fill(DATA, 0, 8 * len, 308);
    for request in [write, read] {
        let all = (0..8).map(|tag| request(tag, at(tag).0, &[(DATA + at(tag).1, len)]));
        let answers = guest.queue().all(&all.collect::<Vec<_>>())?;
        ensure!(answers == [Status::Ok; 8], "{answers:?}");
    }
    guest.verify(DATA, 0, 8 * len, 308)?;
    guest.queue().ok(&flush(0))?;
    guest.holds(0, 0, 8 * len, 308)?;
    guest.canaries()?;
    Ok(guest)
}

fn cut(_env: &Env) -> Result<Outcome> {
    let disk = NullBlk::new(&[("max_sectors", "8")])?;
    large(&disk.open()?)?;
    pass()
}

/// Each request is for two devices in turn, of which either has few requests free at a time and some time to go.
fn refuses_parts(_env: &Env) -> Result<Outcome> {
    let slow = [
        ("irqmode", "2"),
        ("completion_nsec", "1000000"),
        ("submit_queues", "1"),
        ("hw_queue_depth", "4"),
    ];
    let disks = [NullBlk::new(&slow)?, NullBlk::new(&slow)?];
    let sectors = NullBlk::SECTORS;
    let [first, second] = disks
        .each_ref()
        .map(|disk| disk.path().display().to_string());
    let device = Mapped::new(&format!("0 {sectors} striped 2 8 {first} 0 {second} 0"))?;
    large(&device.open()?)?;
    pass()
}
