// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What breaks the ring's protocol breaks the queue: for its reason, for good, that queue alone, and until RESET.

use crate::counts;
use crate::guest::*;
use crate::run::{Env, Outcome, Test};
use anyhow::{ensure, Context, Result};
use avio_abi::ring::{control, Broken};
use avio_core::ring::QueueMemory;

pub const TESTS: &[Test] = &[
    ("r1_tail_ahead_of_the_ring", |env| tail(env, 9)),
    ("r1_tail_far_ahead", |env| tail(env, 0x8000_0000)),
    ("r1_tail_goes_back", |env| tail(env, u32::MAX)),
    ("r1_taken_ahead_of_completions", |env| taken(env, 9)),
    ("r1_taken_goes_back", |env| taken(env, u32::MAX)),
    ("r8_tag_in_flight", tag_in_flight),
    ("r8_tag_out_of_range", |env| {
        let attack = |queue: &mut Queue| queue.go(&[read(8, 0, &[(DATA, 4096)])]);
        breaks(env, attack, Broken::TagRange)
    }),
    ("r15_completions_never_taken", |env| {
        breaks(env, never_take, Broken::CompletionOverrun)
    }),
];

/// An attack that must break its queue.
fn breaks(
    env: &Env,
    attack: impl FnOnce(&mut Queue) -> Result<()>,
    reason: Broken,
) -> Result<Outcome> {
    let mut guest = Guest::start(env, &TWO_QUEUES)?;
    guest.works(1, 1)?;
    attack(guest.queue()).context("attack")?;
    guest.broken(0, reason)?;
    guest
        .works(1, 2)
        .context("the other queue of the adapter")?;

    // Whatever the driver does now, the queue stays as it is.
    let ring = |queue: &Queue| {
        (0..8)
            .map(|slot| queue.view.load_completion(slot))
            .collect::<Vec<_>>()
    };
    let queue = guest.queue();
    let before = ring(queue);
    let tail = queue.view.load_acquire(control::SQ_TAIL);
    queue.view.store_release(control::STATE, 0);
    queue
        .view
        .store_release(control::SQ_TAIL, tail.wrapping_add(1));
    counts::looks(0, || queue.kick())?;
    ensure!(ring(queue) == before, "a broken queue completed a request");
    let said = guest.adapter.queue(0)?.broken;
    ensure!(
        said == reason as u32,
        "the queue's reason changed to {said}"
    );

    counted(reason)?;
    guest.restart().context("after RESET")?;
    counted(reason).context("after RESET")?;
    let said = guest.adapter.queue(0)?.broken;
    ensure!(said == 0, "RESET left the queue broken");
    guest.works(0, 3).context("after RESET")?;
    guest.canaries()?;
    Ok(Outcome::Pass(reason.name().to_owned()))
}

/// Demands that debugfs tells of one queue that broke, and that for this reason.
fn counted(reason: Broken) -> Result<()> {
    let found: Vec<String> = counts::adapter()?
        .into_iter()
        .filter(|(name, _)| name.starts_with("broken_"))
        .map(|(name, count)| format!("{name}={count}"))
        .collect();
    let wanted = format!("broken_{}=1", reason.name());
    ensure!(found == [wanted], "debugfs counts {found:?}");
    Ok(())
}

/// SQ_TAIL is this at once.
fn tail(env: &Env, value: u32) -> Result<Outcome> {
    let attack = |queue: &mut Queue| {
        queue.view.store_release(control::SQ_TAIL, value);
        queue.kick()
    };
    breaks(env, attack, Broken::SubmissionIndex)
}

/// Goes once round the ring so that the device must look at CQ_HEAD, for which 8 is right.
fn taken(env: &Env, value: u32) -> Result<Outcome> {
    let attack = |queue: &mut Queue| {
        for tag in 0..8 {
            queue.ok(&read(tag, 0, &[(DATA, 4096)]))?;
        }
        queue.view.store_release(control::CQ_HEAD, value);
        queue.go(&[read(0, 0, &[(DATA, 4096)])])
    };
    breaks(env, attack, Broken::CompletionIndex)
}

/// Fills the ring, waits until all is done, takes nothing, and asks for more.
fn never_take(queue: &mut Queue) -> Result<()> {
    let reads: Vec<_> = (0..8).map(|tag| read(tag, 0, &[(DATA, 4096)])).collect();
    queue.go(&reads)?;
    wait_for("8 reads are done", || Ok(queue.view.posted() == 8))?;
    queue.go(&reads[..1])
}

fn tag_in_flight(_env: &Env) -> Result<Outcome> {
    let backing = crate::backing::NullBlk::new(&[])?;
    let slow = crate::backing::Mapped::over(&backing)?;
    let mut guest = Guest::on(&slow.open()?, &TWO_QUEUES)?;
    let held = slow.suspend()?;
    let twice = [read(0, 0, &[(DATA, 4096)]), read(0, 8, &[(DATA, 4096)])];
    guest.queue().go(&twice)?;
    wait_for("both are looked at", || {
        Ok(guest.adapter.queue(0)?.broken != 0)
    })?;
    // The first is still in flight, so the guest may not be told yet.
    ensure!(guest.queue().state() == 0, "told before the queue is quiet");
    held.resume()?;
    guest.broken(0, Broken::TagInFlight)?;
    guest.works(1, 6).context("the other queue")?;
    guest.restart()?;
    guest.works(0, 7)?;
    Ok(Outcome::Pass(Broken::TagInFlight.name().to_owned()))
}
