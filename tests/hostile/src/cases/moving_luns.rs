// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! LUNs that come, go and change while requests to them are under way.

use crate::adapter::refused;
use crate::backing::{Mapped, NullBlk};
use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use anyhow::{ensure, Context, Result};
use avio_abi::features;
use avio_abi::ioctl::{remove_flags, SetupError};
use avio_abi::stor::{lun_flags, Status};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

pub const TESTS: &[Test] = &[
    ("s7_luns_that_are_not_there", absent),
    ("s7_luns_that_come_and_go_under_load", come_and_go),
    ("s9_lun_removed_with_requests_in_flight", removed_in_flight),
    ("s9_one_device_in_two_adapters", two_adapters),
    ("s11_changes_are_told_once", told_once),
    ("s11_a_flood_of_changes", flood),
    ("s11_no_attention_without_the_feature", not_negotiated),
];

fn absent(env: &Env) -> Result<Outcome> {
    let luns = [(0, 0), (9, 0)];
    let mut guest = Guest::start(
        env,
        &Config {
            luns: &luns,
            ..PLAIN
        },
    )?;
    let entry = read(0, 0, &[(DATA, 4096)]);
    let cases = [1, 8, 10, 255, 256, 257, 0x8000, 0xffff]
        .map(|lun| (format!("LUN {lun}"), entry.on(lun), Status::BadLun));
    let fd = env.device.as_raw_fd();
    let adapter = &guest.adapter;
    for lun in [256, u32::MAX] {
        refused("ADD_LUN", adapter.add_lun(lun, fd, 0), SetupError::LunRange)?;
        refused(
            "REMOVE_LUN",
            adapter.remove_lun(lun, 0),
            SetupError::LunRange,
        )?;
        refused(
            "UPDATE_LUN",
            adapter.update_lun(lun, 0),
            SetupError::LunRange,
        )?;
        refused(
            "SET_LIMITS",
            adapter.limit_bytes(lun, 1, 1),
            SetupError::LunRange,
        )?;
    }
    refused(
        "ADD_LUN twice",
        adapter.add_lun(9, fd, 0),
        SetupError::LunBusy,
    )?;
    refused(
        "REMOVE_LUN",
        adapter.remove_lun(8, 0),
        SetupError::LunAbsent,
    )?;
    refused(
        "UPDATE_LUN",
        adapter.update_lun(8, 0),
        SetupError::LunAbsent,
    )?;
    refused(
        "SET_LIMITS",
        adapter.limit_bytes(8, 1, 1),
        SetupError::LunAbsent,
    )?;
    let errno = adapter.lun(8).err().map(|refused| refused.errno);
    ensure!(
        errno == Some(nix::errno::Errno::EINVAL),
        "GET_LUN: {errno:?}"
    );
    guest.refuses(&cases)?;
    // A LUN that was taken away is gone, whether the adapter runs or not.
    guest
        .adapter
        .remove_lun(9, 0)
        .context("REMOVE_LUN while running")?;
    guest
        .queue()
        .expect(&entry.on(9), Status::BadLun, "a LUN that was removed")?;
    guest.stop()?;
    guest
        .adapter
        .remove_lun(0, 0)
        .context("REMOVE_LUN while stopped")?;
    guest.set_up(1, 8)?;
    guest
        .queue()
        .expect(&entry, Status::BadLun, "a LUN that was removed")?;
    pass()
}

fn come_and_go(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &TWO_QUEUES)?;
    let (fd, stop) = (env.device.as_raw_fd(), AtomicBool::new(false));
    let reads: Vec<_> = (0..8)
        .map(|tag| read(tag, 0, &[(DATA, 65536)]).on(5))
        .collect();
    let mut seen = [0u32; Status::ALL.len()];
    let Guest {
        adapter, queues, ..
    } = &mut guest;
    let result = std::thread::scope(|scope| {
        let reader = scope.spawn(|| -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                for status in queues[0].all(&reads)? {
                    seen[status as usize] += 1;
                }
            }
            Ok(())
        });
        let result = (0..200).try_for_each(|_| -> Result<()> {
            adapter.add_lun(5, fd, 0).context("ADD_LUN")?;
            adapter
                .remove_lun(5, remove_flags::FORCE)
                .context("REMOVE_LUN")
        });
        stop.store(true, Ordering::Relaxed);
        result.and(reader.join().expect("reader"))
    });
    result?;
    let legal = [
        Status::Ok,
        Status::BadLun,
        Status::Attention,
        Status::Aborted,
    ];
    for (status, count) in Status::ALL.iter().zip(seen) {
        let right = count == 0 || legal.contains(status);
        ensure!(right, "{count} requests ended as {}", status.name());
    }
    guest.works(0, 170)?;
    guest.works(1, 171)?;
    guest.canaries()?;
    Ok(Outcome::Pass(format!(
        "{} of LUNs that were not there",
        seen[4]
    )))
}

fn removed_in_flight(env: &Env) -> Result<Outcome> {
    let disk = NullBlk::new(&[])?;
    let device = Mapped::over(&disk)?;
    let mut guest = Guest::start(env, &PLAIN)?;
    let file = device.open()?;
    guest.adapter.add_lun(3, file.as_raw_fd(), 0)?;
    let entry = |tag| read(tag, 0, &[(DATA, 65536)]).on(3);
    guest
        .queue()
        .expect(&entry(0), Status::Attention, "a LUN that was added")?;

    let held = device.suspend()?;
    guest.fill(DATA, 0, 65536, 172);
    guest.queue().go(&[entry(2), entry(3)])?;
    guest.wait_in_flight(2)?;
    refused(
        "REMOVE_LUN with requests in flight",
        guest.adapter.remove_lun(3, 0),
        SetupError::LunInFlight,
    )?;
    guest.adapter.remove_lun(3, remove_flags::FORCE)?;
    guest
        .queue()
        .expect(&entry(4), Status::BadLun, "a LUN that is being removed")?;
    // Its place is free, although the backing still has what it has.
    let fd = env.device.as_raw_fd();
    guest
        .adapter
        .add_lun(3, fd, 0)
        .context("another LUN in its place")?;
    guest
        .queue()
        .expect(&entry(4), Status::Attention, "another LUN in its place")?;
    guest.queue().ok(&entry(4))?;
    env.bystander.goes_on()?;
    held.resume()?;
    let answers = guest.queue().answers(&[2, 3])?;
    ensure!(answers == [Status::Aborted; 2], "forced out: {answers:?}");
    guest.works(0, 173)?;
    pass()
}

fn two_adapters(env: &Env) -> Result<Outcome> {
    // Twice in one adapter, once in another, all to the same blocks.
    let luns = [(0, 0), (1, 0)];
    let mut twice = Guest::start(
        env,
        &Config {
            luns: &luns,
            ..PLAIN
        },
    )?;
    let mut other = Guest::simple(env)?;
    for seed in 174..180 {
        twice.store(0, 0, 65536, seed)?;
        twice.holds(1, 0, 65536, seed)?;
        other.holds(0, 0, 65536, seed)?;
        other.store(0, 0, 65536, seed + 100)?;
        twice.holds(0, 0, 65536, seed + 100)?;
    }
    twice.adapter.remove_lun(0, 0)?;
    twice.holds(1, 0, 65536, 279)?;
    other.works(0, 180)?;
    pass()
}

/// What the first request to LUN 0 ends as, and the second.
fn next_two(guest: &mut Guest) -> Result<[Status; 2]> {
    let entry = read(0, 0, &[(DATA, 4096)]);
    let (first, _) = guest.queue().request(&entry)?;
    let (second, _) = guest.queue().request(&entry)?;
    Ok([first, second])
}

fn told_once(_env: &Env) -> Result<Outcome> {
    let disk = NullBlk::new(&[])?;
    let device = Mapped::over(&disk)?;
    let file = device.open()?;
    let mut guest = Guest::on(&file, &PLAIN)?;
    let told = [Status::Attention, Status::Ok];
    let before = guest.adapter.update_lun(0, 0)?;
    ensure!(
        before == guest.lun,
        "an UPDATE_LUN without a change: {before:?}"
    );
    ensure!(
        next_two(&mut guest)? == [Status::Ok; 2],
        "told of no change"
    );
    for sectors in [8192, 16384, 8192] {
        device.load(&crate::backing::linear(&disk, sectors))?;
        let after = guest.adapter.update_lun(0, 0)?;
        ensure!(after.sectors == sectors, "{} sectors", after.sectors);
        let answers = next_two(&mut guest)?;
        ensure!(answers == told, "after a change: {answers:?}");
    }
    // Another LUN in the same place is another LUN, however alike.
    let before = guest.adapter.update_lun(0, 0)?;
    guest.adapter.remove_lun(0, 0)?;
    let after = guest.adapter.add_lun(0, file.as_raw_fd(), 0)?;
    ensure!(after.changes != before.changes, "`changes` is the same");
    let answers = next_two(&mut guest)?;
    ensure!(answers == told, "after another came: {answers:?}");
    // A driver that starts anew reads everything anew.
    guest.adapter.update_lun(0, lun_flags::LOST)?;
    guest.adapter.update_lun(0, 0)?;
    guest.restart()?;
    let answers = next_two(&mut guest)?;
    ensure!(answers == [Status::Ok; 2], "after RESET: {answers:?}");
    pass()
}

fn flood(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let rounds = 50;
    for round in 0..rounds {
        // However many go by, one Attention tells of all, and the last is what is told.
        for change in 0..40 + round % 3 {
            guest
                .adapter
                .update_lun(0, lun_flags::LOST * (change % 2))?;
        }
        guest.adapter.update_lun(0, lun_flags::LOST)?;
        let info = guest.adapter.update_lun(0, 0)?;
        ensure!(info.flags & lun_flags::LOST == 0, "flags {:#x}", info.flags);
        let told = guest.adapter.lun(0)?.flags;
        ensure!(
            told == info.flags,
            "GET_LUN says {told:#x}, not {:#x}",
            info.flags
        );
        let answers = next_two(&mut guest)?;
        let right = [Status::Attention, Status::Ok];
        ensure!(answers == right, "round {round}: {answers:?}");
    }
    guest.works(0, 181)?;
    Ok(Outcome::Pass(format!(
        "{rounds} rounds of about 40 changes"
    )))
}

fn not_negotiated(env: &Env) -> Result<Outcome> {
    let features = u64::MAX & !features::EVENTS;
    let mut guest = Guest::start(env, &Config { features, ..PLAIN })?;
    guest.adapter.update_lun(0, lun_flags::LOST)?;
    guest.adapter.update_lun(0, 0)?;
    let answers = next_two(&mut guest)?;
    ensure!(answers == [Status::Ok; 2], "{answers:?}");
    pass()
}
