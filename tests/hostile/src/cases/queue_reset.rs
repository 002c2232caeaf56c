// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! One queue is stopped and started anew while the others go on: the device touches nothing of a stopped queue, whatever
//! the driver and other calls do meanwhile.

use crate::adapter::refused;
use crate::backing::{Mapped, NullBlk};
use crate::counts;
use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use anyhow::{ensure, Context, Result};
use avio_abi::ioctl::SetupError;
use avio_abi::pci::task::{QUEUE_START, QUEUE_STOP};
use avio_abi::ring::{control, Broken};
use avio_abi::stor::Status;
use avio_core::ring::QueueMemory;
use std::os::fd::AsRawFd;

pub const TESTS: &[Test] = &[
    ("queue_reset_under_load_of_another", under_load),
    ("queue_reset_mends_a_broken_queue", mends),
    ("queue_reset_waits_for_the_backing", waits),
    ("queue_reset_stays_stopped", stays),
    ("queue_reset_lets_go_of_removed_luns", lets_go),
    ("queue_reset_of_what_is_not_stopped", not_stopped),
    ("queue_reset_keeps_the_adapters_totals", keeps_totals),
];

/// Stops the first queue, on which nothing hangs.
fn stop(guest: &Guest) -> Result<()> {
    wait_for("the queue stops", || {
        Ok(guest.adapter.task(QUEUE_STOP, 0, (0, 0))? == 0)
    })
}

/// Starts it with fresh rings.
fn start(guest: &mut Guest) -> Result<()> {
    guest.queue().renew();
    until_done("QUEUE_START", || guest.adapter.task(QUEUE_START, 0, (0, 0)))
}

/// What is in its completion ring.
fn completions(guest: &Guest) -> Vec<u64> {
    let view = &guest.queues[0].view;
    (0..8).map(|slot| view.load_completion(slot)).collect()
}

/// The stopped queue answers nothing, however it is rung for.
fn is_silent(guest: &mut Guest) -> Result<()> {
    let before = guest.queue().view.posted();
    let entry = read(2, 0, &[(DATA, 4096)]);
    guest.queue().go(&[entry])?;
    counts::looks(0, || guest.queues[0].kick())?;
    let after = guest.queue().view.posted();
    ensure!(after == before, "a stopped queue has answered");
    Ok(())
}

fn under_load(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &TWO_QUEUES)?;
    for round in 0..30 {
        let writes: Vec<_> = (0..8)
            .map(|tag| write(tag, 0, &[(DATA + 4096 * u64::from(tag), 4096)]))
            .collect();
        guest.queue().go(&writes)?;
        stop(&guest)?;
        // What is behind this may not be written by the device any more.
        let before = completions(&guest);
        guest.works(1, 400 + round).context("the other queue")?;
        ensure!(
            completions(&guest) == before,
            "completions of a stopped queue changed"
        );
        start(&mut guest)?;
        guest.works(0, 440 + round).context("the queue")?;
    }
    env.bystander.goes_on()?;
    guest.canaries()?;
    pass()
}

fn mends(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &TWO_QUEUES)?;
    for round in 0..3 {
        let view = &guest.queues[0].view;
        view.store_release(control::SQ_TAIL, 0x8000_0000);
        guest.queue().kick()?;
        guest.broken(0, Broken::SubmissionIndex)?;
        guest.works(1, 480 + round)?;
        stop(&guest)?;
        start(&mut guest)?;
        let status = guest.adapter.queue(0)?;
        ensure!(status.broken == 0, "it is still broken");
        guest.works(0, 490 + round)?;
    }
    guest.works(1, 499)?;
    pass()
}

fn waits(env: &Env) -> Result<Outcome> {
    let (disk, quick) = (NullBlk::new(&[])?, NullBlk::new(&[])?);
    let device = Mapped::over(&disk)?;
    let mut guest = Guest::prepare(&device.open()?, &TWO_QUEUES)?;
    let other = quick.open()?;
    let added = guest.adapter.add_lun(1, other.as_raw_fd(), 0);
    added.context("ADD_LUN of the other")?;
    guest.set_up(2, 8)?;
    let held = device.suspend()?;
    guest.queue().go(&[
        read(0, 0, &[(DATA, 4096)]),
        read(1, 64, &[(DATA + 4096, 4096)]),
    ])?;
    guest.wait_in_flight(2)?;
    let left = guest.adapter.task(QUEUE_STOP, 0, (0, 0))?;
    ensure!(left == 2, "QUEUE_STOP leaves {left} of 2");
    let early = guest.adapter.task(QUEUE_START, 0, (0, 0));
    refused("QUEUE_START of what is in flight", early, SetupError::Stuck)?;
    let entry = read(3, 0, &[(BACK, 4096)]).on(1);
    guest.queues[1].ok(&entry).context("the other queue")?;
    env.bystander.goes_on()?;
    held.resume()?;
    stop(&guest)?;
    start(&mut guest)?;
    guest.works(0, 500)?;
    guest.works(1, 501)?;
    guest.canaries()?;
    pass()
}

/// Neither quiescing nor new memory, limits or LUNs have a stopped queue go on.
fn stays(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &TWO_QUEUES)?;
    stop(&guest)?;
    is_silent(&mut guest)?;
    guest.quiesce()?;
    guest.adapter.resume()?;
    is_silent(&mut guest).context("after RESUME")?;
    guest.set_memory(&regions(&guest.mapping))?;
    is_silent(&mut guest).context("after SET_MEMORY")?;
    guest.adapter.limit_bytes(0, 1 << 30, 1 << 30)?;
    guest.adapter.set_poll(0)?;
    is_silent(&mut guest).context("after SET_LIMITS and SET_POLL")?;
    guest.works(1, 510)?;
    start(&mut guest)?;
    guest.works(0, 511)?;
    stop(&guest)?;
    guest.restart().context("RESET with a stopped queue")?;
    guest.works(0, 512)?;
    pass()
}

/// A disk that is removed meanwhile is closed, for the queue does not keep it.
fn lets_go(_env: &Env) -> Result<Outcome> {
    let disk = NullBlk::new(&[])?;
    let device = Mapped::over(&disk)?;
    let mut guest = Guest::on(&device.open()?, &TWO_QUEUES)?;
    guest.works(0, 520)?;
    stop(&guest)?;
    guest.adapter.remove_lun(0, 0)?;
    wait_for("the module lets go of the disk", || Ok(!device.is_open()?))?;
    start(&mut guest)?;
    let absent = read(0, 0, &[(DATA, 4096)]);
    let what = "of a LUN that was removed";
    guest.queue().expect(&absent, Status::BadLun, what)?;
    pass()
}

fn not_stopped(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &TWO_QUEUES)?;
    let start = guest.adapter.task(QUEUE_START, 0, (0, 0));
    refused("QUEUE_START while it runs", start, SetupError::Running)?;
    for queue in [2, 64, u32::MAX] {
        for kind in [QUEUE_STOP, QUEUE_START] {
            let what = format!("task {kind} of queue {queue}");
            let result = guest.adapter.task(kind, 0, (queue, 0));
            refused(&what, result, SetupError::TaskRange)?;
        }
    }
    guest.works(0, 530)?;
    for _ in 0..3 {
        stop(&guest).context("once more")?;
    }
    guest.stop()?;
    let stopped = guest.adapter.task(QUEUE_STOP, 0, (0, 0));
    refused("QUEUE_STOP after STOP", stopped, SetupError::TaskRange)?;
    guest.restart()?;
    guest.works(0, 531)?;
    pass()
}

fn keeps_totals(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &TWO_QUEUES)?;
    let mut rung = 0;
    for round in 1..=3 {
        // Each of these is a write and a read of eight blocks.
        guest.works(0, 520 + round)?;
        guest.works(1, 540 + round)?;
        let bad = read(2, 0, &[(DATA, 4096)]).on(77);
        guest.queue().expect(&bad, Status::BadLun, "of no LUN")?;
        rung += guest.adapter.queue(0)?.doorbells;
        if round < 3 {
            stop(&guest)?;
            start(&mut guest)?;
        }
    }
    rung += guest.adapter.queue(1)?.doorbells;
    let bytes = 6 * 8 * u64::from(guest.block());
    let wanted = [
        ("requests", 15),
        ("read_bytes", bytes),
        ("write_bytes", bytes),
        ("status_ok", 12),
        ("status_bad_lun", 3),
        ("doorbells", rung),
    ];
    for when in ["before RESET", "after RESET"] {
        let found = counts::adapter()?;
        for (name, value) in wanted {
            let told = found.get(name);
            let right = told.is_some_and(|it| *it == value.to_string());
            ensure!(right, "{when}: {name} is {told:?} and not {value}");
        }
        guest.stop()?;
    }
    pass()
}
