// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Limits of a LUN's rate: what goes beyond waits, and no other LUN does.

use crate::adapter::refused;
use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use anyhow::{ensure, Context, Result};
use avio_abi::ioctl::{
    remove_flags, SetLimits, SetPoll, SetupError, MAX_POLL_NS, SET_LIMITS, SET_POLL,
};
use avio_abi::pci::task;
use avio_abi::stor::Status;
use avio_abi::wire::Wire;

pub const TESTS: &[Test] = &[
    ("limits_hold_back_one_lun_and_not_the_other", one_of_two),
    ("limits_let_go_at_stop_task_and_removal", let_go),
    ("limits_and_polling_take_any_number", any_number),
];

const LUNS: Config<'_> = Config {
    luns: &[(0, 0), (1, 0)],
    size: 64,
    ..PLAIN
};

/// A guest of which some requests to LUN 0 wait, for longer than any test lasts.
fn held_back(env: &Env) -> Result<(Guest, Vec<u16>)> {
    let mut guest = Guest::start(env, &LUNS)?;
    guest.adapter.limit_bytes(0, 1, 4096)?;
    let tags: Vec<u16> = (10..20).collect();
    let read = |tag: &u16| read(*tag, 0, &[(DATA, 4096)]);
    guest
        .queue()
        .go(&tags.iter().map(read).collect::<Vec<_>>())?;
    // The pass that takes them tells its position at its end.
    wait_for("requests wait", || {
        let taken = guest.adapter.queue(0)?.submission == tags.len() as u32;
        Ok(taken && guest.adapter.lun(0)?.held_back >= 8)
    })?;
    Ok((guest, tags))
}

fn one_of_two(env: &Env) -> Result<Outcome> {
    let (mut guest, tags) = held_back(env)?;
    let mut early = Vec::new();
    for round in 0..200u32 {
        let entry = read(round as u16 % 8, 0, &[(BACK, 4096)]).on(1);
        guest.queue().push(&entry);
        guest.queue().publish()?;
        // What LUN 0 was still allowed may end among these.
        loop {
            let completion = guest.queue().completion()?;
            let right = completion.status == Status::Ok as u8;
            ensure!(right, "round {round}: status {}", completion.status);
            if completion.tag == entry.tag {
                break;
            }
            early.push(completion.tag);
        }
    }
    let status = guest.adapter.lun(0)?;
    ensure!(early.len() <= 2, "LUN 0 did {} requests", early.len());
    ensure!(status.throttled >= 8, "{} were throttled", status.throttled);
    let other = guest.adapter.lun(1)?;
    let none = other.held_back == 0 && other.throttled == 0;
    ensure!(none, "LUN 1 was held back, too");
    env.bystander.goes_on()?;

    // Without the limit they go on.
    guest.adapter.limit_bytes(0, 0, 0)?;
    let left: Vec<u16> = tags
        .into_iter()
        .filter(|tag| !early.contains(tag))
        .collect();
    for status in guest.queue().answers(&left)? {
        ensure!(status == Status::Ok, "held back: {}", status.name());
    }
    let status = guest.adapter.lun(0)?;
    ensure!(
        status.held_back == 0,
        "{} are still held back",
        status.held_back
    );
    guest.works(0, 210)?;
    Ok(Outcome::Pass(format!(
        "{} waited while 200 went by",
        left.len()
    )))
}

fn let_go(env: &Env) -> Result<Outcome> {
    let (mut guest, _) = held_back(env)?;
    guest.restart().context("STOP with requests held back")?;
    guest.adapter.limit_bytes(0, 0, 0)?;
    guest.works(0, 211)?;

    let (mut guest, tags) = held_back(env)?;
    let before = guest.adapter.lun(0)?.held_back;
    let left = guest.adapter.task(task::LUN_RESET, 0, (0, 0))?;
    ensure!(left >= 8, "LUN_RESET leaves {left}");
    let after = guest.adapter.lun(0)?.held_back;
    ensure!(
        before - after <= 1,
        "of {before} held back {after} are left"
    );
    guest.adapter.limit_bytes(0, 0, 0)?;
    let answers = guest.queue().answers(&tags)?;
    let right = answers.iter().all(|status| *status == Status::Ok);
    ensure!(right, "after LUN_RESET: {answers:?}");

    let (mut guest, tags) = held_back(env)?;
    guest.adapter.remove_lun(0, remove_flags::FORCE)?;
    for status in guest.queue().answers(&tags)? {
        let right = matches!(status, Status::Ok | Status::Aborted);
        ensure!(right, "forced out: {}", status.name());
    }
    guest.queue().ok(&read(0, 0, &[(DATA, 4096)]).on(1))?;
    pass()
}

fn any_number(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    // Not so small that the guest would wait, but whatever else there is.
    let most = u64::MAX;
    for (iops, iops_burst, bytes, bytes_burst) in [
        (most, most, most, most),
        (most, 0, most, 0),
        (1 << 40, 1, 1 << 50, 1),
        (0, most, 0, most),
        (100_000, 1, 1 << 32, 1 << 20),
    ] {
        let limits = SetLimits {
            iops,
            iops_burst,
            bytes,
            bytes_burst,
            ..SetLimits::ZERO
        };
        match guest.adapter.call(SET_LIMITS, &limits) {
            Ok(_) => guest.works(0, 212)?,
            Err(refusal) => {
                refused("limits", Err::<(), _>(refusal), SetupError::LimitRange).map(drop)?
            }
        }
    }
    guest.adapter.limit_bytes(0, 0, 0)?;
    for window_ns in [0, 1, MAX_POLL_NS, MAX_POLL_NS + 1, u32::MAX] {
        let poll = SetPoll {
            window_ns,
            ..SetPoll::ZERO
        };
        let set = guest.adapter.call(SET_POLL, &poll);
        if window_ns > MAX_POLL_NS {
            refused("a long poll", set, SetupError::LimitRange)?;
        } else {
            set.context("SET_POLL")?;
        }
        guest.works(0, 213)?;
    }
    pass()
}
