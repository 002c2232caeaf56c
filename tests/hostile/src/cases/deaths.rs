// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Owners that are killed, and a module that somebody wants to remove: at every step.

use crate::backing::{Mapped, NullBlk};
use crate::counts::{has_requests, pinned};
use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use crate::victim::{Step, Victim, Waiting};
use anyhow::{ensure, Context, Result};
use clap::ValueEnum;
use nix::errno::Errno;
use nix::kmod::{delete_module, DeleteModuleFlags};
use std::time::Duration;

pub const TESTS: &[Test] = &[
    ("c4_owner_killed_at_every_step", at_every_step),
    ("c4_owner_killed_between_steps", between_steps),
    (
        "c4_owner_killed_while_the_backing_stands_still",
        while_still,
    ),
    ("c4_owner_killed_in_a_call_that_waits", in_a_call),
    ("c7_module_is_not_removed_in_any_state", not_removed),
];

/// Kills a victim, waits until nothing is left of it and so many pages are pinned, and demands that a new guest works.
fn kill(env: &Env, mut victim: Victim, pages: u64) -> Result<()> {
    victim.kill()?;
    gone(&mut victim, pages)?;
    Guest::one_more_works(env)
}

fn gone(victim: &mut Victim, pages: u64) -> Result<()> {
    wait_for("the victim is gone", || victim.is_gone())?;
    wait_for("its memory is let go", || Ok(pinned()? == pages))
}

fn at_every_step(env: &Env) -> Result<Outcome> {
    for step in Step::value_variants() {
        let pages = pinned()?;
        let victim = Victim::new(&env.device_path, *step)?;
        kill(env, victim, pages).with_context(|| format!("killed at {step:?}"))?;
    }
    pass()
}

fn between_steps(env: &Env) -> Result<Outcome> {
    let pages = pinned()?;
    for round in 0..25 {
        let victim = Victim::new(&env.device_path, Step::Looping)?;
        std::thread::sleep(Duration::from_millis(7 * round));
        kill(env, victim, pages).with_context(|| format!("killed in round {round}"))?;
    }
    pass()
}

/// Waits until the victim's adapter has a request that a device which stands still keeps.
fn waits_for_device() -> Result<()> {
    // What was on its way when it stood still has ended by then.
    std::thread::sleep(SILENCE);
    wait_for("a request stays in flight", has_requests)
}

/// Nobody but a victim that was killed waits for its backing, which has its memory all the while.
fn nobody_else_waits(env: &Env, pages: u64) -> Result<()> {
    (0..3).try_for_each(|_| env.bystander.goes_on())?;
    Guest::one_more_works(env)?;
    let left = pinned()?;
    ensure!(left > pages, "memory that the backing has is not pinned");
    Ok(())
}

fn while_still(env: &Env) -> Result<Outcome> {
    let disk = NullBlk::new(&[])?;
    let device = Mapped::over(&disk)?;
    let pages = pinned()?;
    let mut victim = Victim::new(device.path(), Step::Loaded)?;
    let held = device.suspend()?;
    waits_for_device()?;
    victim.kill()?;
    nobody_else_waits(env, pages)?;
    held.resume()?;
    gone(&mut victim, pages)?;
    // Nothing holds the device any more.
    wait_for("the device is closed", || Ok(!device.is_open()?))?;
    pass()
}

fn in_a_call(env: &Env) -> Result<Outcome> {
    let disk = NullBlk::new(&[])?;
    let device = Mapped::over(&disk)?;
    for call in Waiting::value_variants() {
        let pages = pinned()?;
        let mut victim = Victim::caller(device.path(), *call)?;
        let held = device.suspend()?;
        waits_for_device()?;
        wait_for("its call waits", || victim.sleeps_in(*call))
            .with_context(|| format!("{call:?}"))?;
        victim.kill()?;
        nobody_else_waits(env, pages).with_context(|| format!("{call:?}"))?;
        held.resume()?;
        gone(&mut victim, pages).with_context(|| format!("killed in {call:?}"))?;
        wait_for("the device is closed", || Ok(!device.is_open()?))?;
    }
    pass()
}

fn not_removed(env: &Env) -> Result<Outcome> {
    for step in Step::value_variants() {
        let pages = pinned()?;
        let victim = Victim::new(&env.device_path, *step)?;
        let result = delete_module(c"avio_host", DeleteModuleFlags::O_NONBLOCK);
        let right = result == Err(Errno::EWOULDBLOCK);
        ensure!(
            right,
            "the module was to be removed at {step:?}: {result:?}"
        );
        kill(env, victim, pages)?;
    }
    pass()
}
