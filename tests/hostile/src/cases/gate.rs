// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A backing that was replaced: not one byte is read or written before the guest has said that it knows.

use crate::adapter::refused;
use crate::backing::NullBlk;
use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use anyhow::{ensure, Result};
use avio_abi::ioctl::SetupError;
use avio_abi::pci::task;
use avio_abi::stor::{flags, lun_flags, opcode, Status};

pub const TESTS: &[Test] = &[
    ("s12_gated_from_the_start", from_the_start),
    ("s12_gated_while_running", while_running),
    ("s12_gates_under_load", under_load),
    ("s12_gate_before_what_was_held_back", held_back),
];

/// Sends every kind of request to LUN 0: each must end as Replaced, and the device may have none of them.
fn nothing_passes(guest: &mut Guest, disk: &NullBlk) -> Result<()> {
    let before = disk.requests()?;
    let (reads, writes) = (read(0, 0, &[(DATA, 65536)]), write(1, 0, &[(DATA, 65536)]));
    let by_list = with_list(guest, read(3, 0, &[]), LIST, &[(DATA, 4096); 4]);
    guest.fill(DATA, 0, 65536, 190);
    for entry in [
        reads,
        writes,
        writes.flagged(flags::FUA),
        flush(2),
        by_list,
        range(opcode::DISCARD, 4, 0, 8),
        range(opcode::SECURE_ERASE, 4, 0, 8),
        range(opcode::WRITE_ZEROES, 4, 0, 8),
        read(5, u64::MAX, &[(DATA, 4096)]),
    ] {
        let what = format!("opcode {} before a closed gate", entry.opcode);
        guest.queue().expect(&entry, Status::Replaced, &what)?;
    }
    guest.verify(DATA, 0, 65536, 190)?;
    untouched(disk, before)
}

/// Opens the gate of LUN 0 and demands that it is open. Attention may still tell that it was closed, once.
fn open(guest: &mut Guest) -> Result<()> {
    guest.adapter.task(task::OPEN_GATE, 0, (0, 0))?;
    let entry = read(0, 0, &[(DATA, 4096)]);
    let (status, _) = guest.queue().request(&entry)?;
    let right = matches!(status, Status::Ok | Status::Attention);
    ensure!(right, "after OPEN_GATE: {}", status.name());
    guest.queue().ok(&entry)?;
    let flags = guest.adapter.lun(0)?.flags;
    let shut = flags & lun_flags::GATED != 0;
    ensure!(!shut, "flags {flags:#x} behind an open gate");
    Ok(())
}

fn from_the_start(_env: &Env) -> Result<Outcome> {
    let disk = NullBlk::new(&[("discard", "1")])?;
    let luns = [(0, lun_flags::GATED)];
    let mut guest = Guest::on(
        &disk.open()?,
        &Config {
            luns: &luns,
            ..PLAIN
        },
    )?;
    let told = guest.lun.flags & lun_flags::GATED != 0;
    ensure!(told, "the LUN's description does not say that it is gated");
    nothing_passes(&mut guest, &disk)?;
    guest.restart()?;
    nothing_passes(&mut guest, &disk)?;
    open(&mut guest)?;
    guest.works(0, 191)?;
    let absent = guest.adapter.task(task::OPEN_GATE, 1, (0, 0));
    refused("OPEN_GATE of no LUN", absent, SetupError::LunAbsent)?;
    pass()
}

fn while_running(_env: &Env) -> Result<Outcome> {
    let disk = NullBlk::new(&[("discard", "1")])?;
    let mut guest = Guest::on(&disk.open()?, &PLAIN)?;
    guest.store(0, 0, 65536, 192)?;
    for _ in 0..3 {
        guest.adapter.update_lun(0, lun_flags::GATED)?;
        nothing_passes(&mut guest, &disk)?;
        open(&mut guest)?;
        guest.holds(0, 0, 65536, 192)?;
    }
    // The VMM can open it as well, when it has found the same backing again.
    guest.adapter.update_lun(0, lun_flags::GATED)?;
    nothing_passes(&mut guest, &disk)?;
    guest.adapter.update_lun(0, 0)?;
    let (status, _) = guest.queue().request(&read(0, 0, &[(DATA, 4096)]))?;
    ensure!(status == Status::Attention, "{}", status.name());
    guest.holds(0, 0, 65536, 192)?;
    pass()
}

/// Demands that the device had no requests since it had had so many.
fn untouched(disk: &NullBlk, before: u64) -> Result<()> {
    let after = disk.requests()?;
    ensure!(
        after == before,
        "the device had {} requests",
        after - before
    );
    Ok(())
}

fn under_load(_env: &Env) -> Result<Outcome> {
    let disk = NullBlk::new(&[])?;
    let mut guest = Guest::on(&disk.open()?, &PLAIN)?;
    let writes: Vec<_> = (0..8).map(|tag| write(tag, 0, &[(DATA, 4096)])).collect();
    let tags = [0, 1, 2, 3, 4, 5, 6, 7];
    for _ in 0..50 {
        guest.queue().go(&writes)?;
        guest.adapter.update_lun(0, lun_flags::GATED)?;
        for status in guest.queue().answers(&tags)? {
            let right = matches!(status, Status::Ok | Status::Replaced);
            ensure!(right, "while the gate closes: {}", status.name());
        }
        let before = disk.requests()?;
        let answers = guest.queue().all(&writes)?;
        ensure!(answers == [Status::Replaced; 8], "{answers:?}");
        untouched(&disk, before)?;
        open(&mut guest)?;
    }
    guest.works(0, 193)?;
    pass()
}

fn held_back(_env: &Env) -> Result<Outcome> {
    let disk = NullBlk::new(&[])?;
    let mut guest = Guest::on(&disk.open()?, &PLAIN)?;
    guest.adapter.limit_bytes(0, 1, 4096)?;
    let tags = [0, 1, 2, 3, 4, 5, 6, 7];
    let writes = tags.map(|tag| write(tag, 0, &[(DATA, 4096)]));
    guest.queue().go(&writes)?;
    // Those that the limit lets pass may still lie in the worker's plug when the others are held back already.
    wait_for("the rest of the requests waits", || {
        let lun = guest.adapter.lun(0)?;
        Ok(lun.held_back >= 6 && lun.in_flight == 0)
    })?;
    let before = disk.requests()?;
    guest.adapter.update_lun(0, lun_flags::GATED)?;
    guest.adapter.limit_bytes(0, 0, 0)?;
    let answers = guest.queue().answers(&tags)?;
    let count = |status| answers.iter().filter(|answer| **answer == status).count();
    let (done, replaced) = (count(Status::Ok), count(Status::Replaced));
    let right = done <= 2 && done + replaced == 8;
    ensure!(right, "held back before the gate was closed: {answers:?}");
    untouched(&disk, before)?;
    open(&mut guest)?;
    guest.works(0, 194)?;
    pass()
}
