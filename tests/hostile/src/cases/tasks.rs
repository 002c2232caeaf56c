// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Task commands: they mark what is in flight, and race with its completion as often as they like.

use crate::adapter::refused;
use crate::backing::{failing, linear, Mapped, NullBlk};
use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use anyhow::{ensure, Context, Result};
use avio_abi::ioctl::SetupError;
use avio_abi::pci::task::{ABORT, LUN_RESET, OPEN_GATE};
use avio_abi::stor::Status;
use std::sync::atomic::{AtomicBool, Ordering};

pub const TESTS: &[Test] = &[
    ("s10_abort_of_what_the_backing_has", abort),
    ("s10_lun_reset_of_what_the_backing_has", lun_reset),
    ("s10_aborts_race_completions", race),
    ("s10_tasks_for_what_is_not_there", not_there),
];

/// Requests to a LUN whose backing stands still, of which `command` marks some. What the backing then carries out is done,
/// marked or not; if it fails all of them, what was marked ends as Aborted.
fn marks(env: &Env, command: impl Fn(&Guest) -> Result<u32>, marked: [bool; 4]) -> Result<Outcome> {
    let disk = NullBlk::new(&[])?;
    let ends = |status: Status| marked.map(|marked| if marked { Status::Aborted } else { status });
    let well = linear(&disk, NullBlk::SECTORS);
    marks_until(env, &well, &disk, &command, &marked, [Status::Ok; 4])?;
    let wanted = ends(Status::IoError);
    marks_until(env, &failing(&disk), &disk, &command, &marked, wanted)
}

/// The same with such a table behind the requests.
fn marks_until(
    env: &Env,
    table: &str,
    disk: &NullBlk,
    command: impl Fn(&Guest) -> Result<u32>,
    marked: &[bool],
    wanted: [Status; 4],
) -> Result<Outcome> {
    let device = Mapped::over(disk)?;
    let luns = [(0, 0), (1, 0)];
    let mut guest = Guest::on(
        &device.open()?,
        &Config {
            luns: &luns,
            ..PLAIN
        },
    )?;
    let held = device.suspend()?;
    let place = |tag: u16| [(DATA + u64::from(tag) * 4096, 4096)];
    let read = |tag| read(tag, 0, &place(tag));
    guest
        .queue()
        .go(&[read(0), read(1), read(2), read(3).on(1)])?;
    guest.wait_in_flight(4)?;
    let has = command(&guest)?;
    let marked = marked.iter().filter(|marked| **marked).count() as u32;
    ensure!(has == marked, "the backing has {has} of them, not {marked}");
    let posted = guest.queue().view.posted();
    ensure!(posted == 0, "an answer while the backing has the memory");
    env.bystander.goes_on()?;
    held.resume_with(table)?;
    let answers = guest.queue().answers(&[0, 1, 2, 3])?;
    ensure!(answers == wanted, "{answers:?}");
    device.load(&linear(disk, NullBlk::SECTORS))?;
    guest
        .works(0, 200)
        .context("with the tags that were marked")?;
    // A mark that stuck to its tag would show when the next request with it fails.
    device.load(&failing(disk))?;
    for tag in 0..3 {
        let what = "with a tag that was marked";
        guest.queue().expect(&read(tag), Status::IoError, what)?;
    }
    pass()
}

fn abort(env: &Env) -> Result<Outcome> {
    let command = |guest: &Guest| Ok(guest.adapter.task(ABORT, 0, (0, 1))?);
    marks(env, command, [false, true, false, false])
}

fn lun_reset(env: &Env) -> Result<Outcome> {
    let command = |guest: &Guest| Ok(guest.adapter.task(LUN_RESET, 0, (0, 0))?);
    marks(env, command, [true, true, true, false])
}

fn race(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &TWO_QUEUES)?;
    let stop = AtomicBool::new(false);
    let reads: Vec<_> = (0..8).map(|tag| read(tag, 0, &[(DATA, 4096)])).collect();
    let mut seen = [0u32; Status::ALL.len()];
    let Guest {
        adapter, queues, ..
    } = &mut guest;
    let tasks = std::thread::scope(|scope| {
        let flooder = scope.spawn(|| -> Result<u64> {
            let mut tasks = 0;
            while !stop.load(Ordering::Relaxed) {
                for tag in 0..8 {
                    adapter.task(ABORT, 0, (0, tag))?;
                }
                adapter.task(LUN_RESET, 0, (0, 0))?;
                tasks += 9;
            }
            Ok(tasks)
        });
        let result = (0..1000).try_for_each(|_| -> Result<()> {
            for status in queues[0].all(&reads)? {
                seen[status as usize] += 1;
            }
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        flooder
            .join()
            .expect("flooder")
            .and_then(|tasks| result.map(|()| tasks))
    })?;
    let done = seen[Status::Ok as usize];
    ensure!(done == 8000, "of 8000: {seen:?}");
    // What a task has marked must not stick to the tag.
    guest.works(0, 201)?;
    guest.works(1, 202)?;
    guest.canaries()?;
    Ok(Outcome::Pass(format!("{tasks} tasks beside 8000 requests")))
}

fn not_there(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let adapter = &guest.adapter;
    for kind in [0, 6, u32::MAX] {
        let what = format!("task {kind}");
        refused(&what, adapter.task(kind, 0, (0, 0)), SetupError::TaskRange)?;
    }
    for request in [
        (1, 0),
        (64, 0),
        (u32::MAX, 0),
        (0, 8),
        (0, 0xffff),
        (0, u32::MAX),
    ] {
        let what = format!("ABORT of {request:?}");
        refused(
            &what,
            adapter.task(ABORT, 0, request),
            SetupError::TaskRange,
        )?;
    }
    for kind in [LUN_RESET, OPEN_GATE] {
        for (lun, wanted) in [
            (1, SetupError::LunAbsent),
            (255, SetupError::LunAbsent),
            (256, SetupError::LunRange),
            (u32::MAX, SetupError::LunRange),
        ] {
            let what = format!("task {kind} of LUN {lun}");
            refused(&what, adapter.task(kind, lun, (0, 0)), wanted)?;
        }
    }
    // Nothing is in flight: legal, and without effect.
    let none = adapter.task(ABORT, 0, (0, 3))? + adapter.task(LUN_RESET, 0, (0, 0))?;
    ensure!(none == 0, "{none} requests of none");
    guest.works(0, 203)?;
    pass()
}
