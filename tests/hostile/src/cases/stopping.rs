// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! QUIESCE, RESUME and STOP, also of an adapter whose backing gives nothing back.

use crate::adapter::refused;
use crate::backing::{Mapped, NullBlk};
use crate::counts;
use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use anyhow::{ensure, Context, Result};
use avio_abi::ioctl::SetupError;
use avio_abi::stor::Status;
use nix::errno::Errno;

pub const TESTS: &[Test] = &[
    ("quiesce_keeps_positions", keeps_positions),
    ("quiesce_under_load", under_load),
    ("quiesce_of_a_backing_that_stands_still", quiesce_still),
    ("stop_of_a_backing_that_stands_still", stop_still),
    ("close_of_a_backing_that_stands_still", close_still),
];

fn keeps_positions(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &TWO_QUEUES)?;
    guest.works(0, 230)?;
    guest.works(1, 231)?;
    guest.works(1, 232)?;
    let positions = |guest: &Guest, index| -> Result<(u32, u32, u32)> {
        let status = guest.adapter.queue(index)?;
        Ok((status.submission, status.completion, status.in_flight))
    };
    guest.quiesce()?;
    let before = [positions(&guest, 0)?, positions(&guest, 1)?];
    ensure!(before == [(2, 2, 0), (4, 4, 0)], "positions {before:?}");
    // What is published now is for later.
    let reads = [0, 1, 2].map(|tag| read(tag, 0, &[(DATA, 4096)]));
    guest.queue().go(&reads)?;
    counts::looks(0, || guest.queues[0].kick())?;
    let after = [positions(&guest, 0)?, positions(&guest, 1)?];
    ensure!(
        after == before,
        "positions {after:?} while quiesced, {before:?} before"
    );
    guest.adapter.quiesce().context("QUIESCE twice")?;
    guest.adapter.resume()?;
    let answers = guest.queue().answers(&[0, 1, 2])?;
    ensure!(answers == [Status::Ok; 3], "after RESUME: {answers:?}");
    wait_for("positions after RESUME", || {
        Ok(positions(&guest, 0)? == (5, 5, 0))
    })?;
    guest.works(1, 233)?;
    guest.quiesce()?;
    guest.restart().context("STOP of a quiesced adapter")?;
    guest.works(0, 234)?;
    pass()
}

fn under_load(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let writes: Vec<_> = (0..8).map(|tag| write(tag, 0, &[(DATA, 65536)])).collect();
    for round in 0..50 {
        guest.queue().go(&writes)?;
        guest.quiesce().context("under load")?;
        let status = guest.adapter.queue(0)?;
        let (taken, posted) = (status.submission, status.completion);
        ensure!(
            status.in_flight == 0,
            "{} in flight while quiesced",
            status.in_flight
        );
        ensure!(
            taken == posted,
            "round {round}: {taken} taken, {posted} posted"
        );
        guest.adapter.resume()?;
        let answers = guest.queue().answers(&[0, 1, 2, 3, 4, 5, 6, 7])?;
        ensure!(answers == [Status::Ok; 8], "round {round}: {answers:?}");
    }
    guest.works(0, 235)?;
    pass()
}

/// A guest with a request in flight on a backing that stands still: `call` fails with EAGAIN, over and over, while
/// others go on, and succeeds once the backing does.
fn stands_still(
    env: &Env,
    what: &str,
    call: impl Fn(&Guest) -> Result<(), Errno>,
    behind: impl FnOnce(&mut Guest) -> Result<()>,
) -> Result<Outcome> {
    let disk = NullBlk::new(&[])?;
    let device = Mapped::over(&disk)?;
    let mut guest = Guest::on(&device.open()?, &PLAIN)?;
    guest.store(0, 0, 65536, 236)?;
    let held = device.suspend()?;
    guest.queue().go(&[read(2, 0, &[(DATA, 65536)])])?;
    guest.wait_in_flight(1)?;
    for _ in 0..2 {
        let result = call(&guest);
        ensure!(
            result == Err(Errno::EAGAIN),
            "{what}: {result:?} instead of EAGAIN"
        );
        refused(
            "START meanwhile",
            guest.adapter.start(1),
            SetupError::Stopping,
        )?;
        env.bystander.goes_on()?;
    }
    held.resume()?;
    until_done(what, || call(&guest))?;
    behind(&mut guest)?;
    guest.works(0, 237)?;
    pass()
}

fn quiesce_still(env: &Env) -> Result<Outcome> {
    stands_still(
        env,
        "QUIESCE",
        |guest| guest.adapter.quiesce(),
        |guest| {
            let in_flight = guest.adapter.queue(0)?.in_flight;
            ensure!(in_flight == 0, "{in_flight} in flight while quiesced");
            guest.adapter.resume()?;
            let answers = guest.queue().answers(&[2])?;
            ensure!(answers == [Status::Ok], "{answers:?}");
            guest.verify(DATA, 0, 65536, 236)
        },
    )
}

fn stop_still(env: &Env) -> Result<Outcome> {
    stands_still(
        env,
        "STOP",
        |guest| guest.adapter.stop(),
        |guest| {
            guest.fill(DATA, 0, 65536, 238);
            guest.set_up(1, 8)?;
            // What the backing answers later it has not begun earlier.
            guest.queue().ok(&read(0, 0, &[(BACK, 65536)]))?;
            let same = guest.verify(DATA, 0, 65536, 238);
            same.context("memory was written after STOP")
        },
    )
}

fn close_still(env: &Env) -> Result<Outcome> {
    let disk = NullBlk::new(&[])?;
    let device = Mapped::over(&disk)?;
    let mut guest = Guest::on(&device.open()?, &PLAIN)?;
    let held = device.suspend()?;
    guest.queue().go(&[read(2, 0, &[(DATA, 65536)])])?;
    guest.wait_in_flight(1)?;
    std::thread::scope(|scope| -> Result<()> {
        // Closing waits for the backing; nobody else does.
        let closing = scope.spawn(move || drop(guest));
        let others = (0..3).try_for_each(|_| env.bystander.goes_on());
        let waits = !closing.is_finished();
        let fresh = Guest::one_more_works(env);
        held.resume()?;
        closing.join().expect("closing");
        ensure!(waits, "the adapter went while the backing had its memory");
        others.and(fresh)
    })?;
    pass()
}
