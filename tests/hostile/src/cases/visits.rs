// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Doorbells that virtual processors ring: where requests come one at a time, who rings serves the queue itself.

use crate::backing::NullBlk;
use crate::counts;
use crate::guest::*;
use crate::run::{Env, Outcome, Test};
use crate::vcpu::{off_the_first_processor, on_one_processor, Vcpu};
use crate::victim::Victim;
use anyhow::{ensure, Context, Result};
use avio_abi::ring::{control, Broken};
use avio_core::ring::QueueMemory;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

pub const TESTS: &[Test] = &[
    ("legal_who_rings_serves", serves),
    ("legal_strangers_who_ring_do_not_serve", strangers),
    ("r1_who_rings_finds_a_broken_ring", finds_broken),
    ("c1_stop_while_virtual_processors_ring", stop),
    ("c1_close_while_virtual_processors_ring", close),
];

/// A disk that takes its time, so that requests that come one at a time can be told from many.
fn slow() -> Result<NullBlk> {
    NullBlk::new(&[("irqmode", "2"), ("completion_nsec", "2000000")])
}

/// A guest on such a disk. Its workers sleep long before an answer is there, or they would find the next request by polling
/// on a processor of their own, and nobody would ring.
fn start(disk: &NullBlk, config: &Config<'_>) -> Result<Guest> {
    const WINDOW_NS: u32 = 100_000;
    let guest = Guest::on(&disk.open()?, config)?;
    guest.adapter.set_poll(WINDOW_NS)?;
    Ok(guest)
}

fn visits() -> Result<u64> {
    let adapter = counts::adapter()?;
    let visits = adapter.get("visits").context("no count of visits")?;
    Ok(visits.parse()?)
}

/// Sends a request and waits for it, until virtual processors serve. None on a machine without KVM.
fn until_visited(guest: &mut Guest) -> Result<Option<Vcpu>> {
    let Some(mut vcpu) = Vcpu::ringing(guest.queue().kick.as_fd())? else {
        return Ok(None);
    };
    let before = visits()?;
    wait_for("a visit", || {
        one(guest, &mut vcpu)?;
        Ok(visits()? > before)
    })?;
    Ok(Some(vcpu))
}

/// One request, rung for by a virtual processor.
fn one(guest: &mut Guest, vcpu: &mut Vcpu) -> Result<()> {
    let queue = guest.queue();
    queue.push(&read(0, 0, &[(DATA, 4096)]));
    if queue.submit.publish(&queue.view) {
        vcpu.ring()?;
    }
    let answer = queue.completion()?;
    ensure!(answer.status == 0, "status {}", answer.status);
    Ok(())
}

fn no_kvm() -> Result<Outcome> {
    Ok(Outcome::Skip("no /dev/kvm".to_owned()))
}

fn serves(_: &Env) -> Result<Outcome> {
    let disk = slow()?;
    on_one_processor()?;
    let mut guest = start(&disk, &PLAIN)?;
    guest.store(0, 0, 4096, 7)?;
    let Some(mut vcpu) = until_visited(&mut guest)? else {
        return no_kvm();
    };
    let before = visits()?;
    for round in 0..200 {
        one(&mut guest, &mut vcpu)?;
        guest
            .verify(DATA, 0, 4096, 7)
            .with_context(|| format!("round {round}"))?;
    }
    let visited = visits()? - before;
    // The worker looks now and then.
    ensure!(
        (100..200).contains(&visited),
        "{visited} visits for 200 requests"
    );
    // Many at a time are all served, whoever does it.
    for _ in 0..50 {
        let reads = [0, 1, 2, 3].map(|tag| read(tag, 0, &[(DATA, 4096)]));
        let queue = guest.queue();
        reads.iter().for_each(|entry| queue.push(entry));
        if queue.submit.publish(&queue.view) {
            vcpu.ring()?;
        }
        queue.answers(&[0, 1, 2, 3])?;
    }
    // And without the policy, by the worker alone.
    guest.adapter.set_poll(0)?;
    one(&mut guest, &mut vcpu)?;
    let before = visits()?;
    (0..100).try_for_each(|_| one(&mut guest, &mut vcpu))?;
    let after = visits()?;
    ensure!(
        after == before,
        "{} visits although polling is off",
        after - before
    );
    Ok(Outcome::Pass(format!("{visited} visits for 200 requests")))
}

/// A virtual machine of another process has the doorbell: it wakes the worker, and makes no visits.
fn strangers(env: &Env) -> Result<Outcome> {
    let disk = slow()?;
    on_one_processor()?;
    let mut guest = start(&disk, &PLAIN)?;
    if until_visited(&mut guest)?.is_none() {
        return no_kvm();
    }
    let kick = guest.queue().kick.as_fd().try_clone_to_owned()?;
    let _ringer = Victim::ringer(&env.device_path, kick)?;
    // What was to be a visit of ours has been made.
    guest.queue().ok(&read(0, 0, &[(DATA, 4096)]))?;
    let before = visits()?;
    for _ in 0..100 {
        let queue = guest.queue();
        queue.push(&read(0, 0, &[(DATA, 4096)]));
        let _the_ringer_rings = queue.submit.publish(&queue.view);
        ensure!(queue.completion()?.status == 0, "a request has failed");
    }
    let after = visits()?;
    ensure!(after == before, "{} visits of a stranger", after - before);
    Ok(Outcome::Pass(String::new()))
}

fn finds_broken(_: &Env) -> Result<Outcome> {
    let disk = slow()?;
    on_one_processor()?;
    let mut guest = start(&disk, &TWO_QUEUES)?;
    let Some(mut vcpu) = until_visited(&mut guest)? else {
        return no_kvm();
    };
    let queue = guest.queue();
    let tail = queue.view.load_acquire(control::SQ_TAIL);
    queue
        .view
        .store_release(control::SQ_TAIL, tail.wrapping_add(9));
    vcpu.ring()?;
    guest.broken(0, Broken::SubmissionIndex)?;
    for _ in 0..10 {
        vcpu.ring().context("the doorbell of a broken queue")?;
    }
    guest.works(1, 40)?;
    Ok(Outcome::Pass(String::new()))
}

/// Has another virtual processor ring as fast as it can while `during` runs.
fn beside_ringing(kick: &OwnedFd, during: impl FnOnce() -> Result<()>) -> Result<()> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let ringer = scope.spawn(|| -> Result<()> {
            off_the_first_processor()?;
            let mut vcpu = Vcpu::ringing(kick)?.context("no KVM any more")?;
            while !stop.load(Ordering::Relaxed) {
                vcpu.ring()?;
            }
            Ok(())
        });
        let done = during();
        stop.store(true, Ordering::Relaxed);
        ringer.join().expect("the ringing thread panicked")?;
        done
    })
}

fn stop(_: &Env) -> Result<Outcome> {
    let disk = slow()?;
    off_the_first_processor()?;
    let mut guest = start(&disk, &PLAIN)?;
    for _ in 0..20 {
        let Some(mut vcpu) = until_visited(&mut guest)? else {
            return no_kvm();
        };
        let kick = guest.queue().kick.as_fd().try_clone_to_owned()?;
        beside_ringing(&kick, || {
            (0..20).try_for_each(|_| one(&mut guest, &mut vcpu))?;
            guest.quiesce()?;
            guest.adapter.resume()?;
            one(&mut guest, &mut vcpu)?;
            // With requests in flight.
            let reads = [0, 1, 2].map(|tag| read(tag, 0, &[(DATA, 4096)]));
            guest.queue().go(&reads)?;
            guest.stop()
        })?;
        guest.set_up(1, 8)?;
        guest.works(0, 41)?;
    }
    Ok(Outcome::Pass(format!("{} visits", visits()?)))
}

fn close(_: &Env) -> Result<Outcome> {
    let disk = slow()?;
    off_the_first_processor()?;
    for round in 0..20 {
        let mut guest = start(&disk, &PLAIN)?;
        let Some(mut vcpu) = until_visited(&mut guest)? else {
            return no_kvm();
        };
        let kick = guest.queue().kick.as_fd().try_clone_to_owned()?;
        beside_ringing(&kick, move || {
            one(&mut guest, &mut vcpu)?;
            let reads = [0, 1, 2].map(|tag| read(tag, 0, &[(DATA, 4096)]));
            guest.queue().go(&reads)?;
            drop(guest);
            // The doorbell of nobody.
            vcpu.ring()
        })
        .with_context(|| format!("round {round}"))?;
    }
    Ok(Outcome::Pass("20 adapters".to_owned()))
}
