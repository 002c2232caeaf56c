// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Calls of an adapter whose guest floods it: each comes back, and until the last one the flood goes on behind it.

use crate::adapter::Adapter;
use crate::counts;
use crate::guest::*;
use crate::run::{Env, Outcome, Test};
use anyhow::{ensure, Context, Result};
use avio_abi::ioctl::remove_flags;
use avio_abi::pci::task::{QUEUE_START, QUEUE_STOP};
use avio_abi::ring::Submission;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

pub const TESTS: &[Test] = &[("r11_calls_of_an_adapter_that_is_flooded", calls)];

const FLOODING: Config<'_> = Config {
    queues: 4,
    size: 256,
    ..PLAIN
};

/// Puts each request in again as soon as its answer is there, whatever that is, and waits for none.
fn flood(queue: &mut Queue, entry: Submission, done: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    let entries = queue.view.size.entries() as u16;
    (0..entries).for_each(|tag| queue.push(&Submission { tag, ..entry }));
    queue.publish()?;
    while !stop.load(Ordering::Relaxed) {
        match queue.collect.take(&queue.view) {
            Some(answer) => {
                done.fetch_add(1, Ordering::Relaxed);
                let tag = answer.tag;
                queue.push(&Submission { tag, ..entry });
                queue.publish()?;
            }
            None => thread::yield_now(),
        }
    }
    Ok(())
}

/// Each call, and the flood goes on. Then those that end it.
fn all_calls(
    env: &Env,
    adapter: &Adapter,
    table: &[avio_abi::ioctl::Region],
    done: &AtomicU64,
) -> Result<()> {
    // More than what was done before and is not taken yet.
    let more = u64::from(FLOODING.queues * FLOODING.size);
    let goes_on = |what: &str| {
        let before = done.load(Ordering::Relaxed);
        wait_for("the flood goes on", || {
            Ok(done.load(Ordering::Relaxed) > before + more)
        })
        .with_context(|| format!("after {what}"))
    };
    let fd = env.device.as_raw_fd();
    for _ in 0..3 {
        until_done("QUIESCE", || adapter.quiesce())?;
        adapter.resume().context("RESUME")?;
        goes_on("RESUME")?;
        until_done("SET_MEMORY", || adapter.set_memory(table))?;
        goes_on("SET_MEMORY")?;
        let removed = adapter.remove_lun(0, remove_flags::FORCE);
        removed.context("REMOVE_LUN")?;
        adapter.add_lun(0, fd, 0).context("ADD_LUN")?;
        goes_on("REMOVE_LUN and ADD_LUN")?;
    }
    // The flood goes on in its ring, and what it does there may break the queue once it is served again.
    wait_for("QUEUE_STOP", || {
        Ok(adapter.task(QUEUE_STOP, 0, (0, 0))? == 0)
    })?;
    let before = adapter.queue(0)?.requests;
    // Limits are something that workers are woken for.
    counts::looks(0, || Ok(adapter.limit_bytes(0, 0, 0)?))?;
    let after = adapter.queue(0)?.requests;
    ensure!(
        after == before,
        "a stopped queue took {} requests",
        after - before
    );
    until_done("QUEUE_START", || adapter.task(QUEUE_START, 0, (0, 0)))?;
    until_done("STOP", || adapter.stop())
}

fn calls(env: &Env) -> Result<Outcome> {
    let mut counts = Vec::new();
    // What fails at once never leaves the worker; the rest waits for a device.
    for entry in [read(0, 0, &[]), read(0, 0, &[(DATA, 4096)])] {
        let mut guest = Guest::start(env, &FLOODING)?;
        let table = regions(&guest.mapping);
        let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
        let Guest {
            adapter, queues, ..
        } = &mut guest;
        thread::scope(|scope| {
            let (stop, done) = (&stop, &done);
            let floods: Vec<_> = queues
                .iter_mut()
                .map(|queue| scope.spawn(move || flood(queue, entry, done, stop)))
                .collect();
            let result = all_calls(env, adapter, &table, done);
            stop.store(true, Ordering::Relaxed);
            let mut floods = floods.into_iter().map(|flood| flood.join().expect("flood"));
            result.and(floods.try_for_each(|flood| flood))
        })?;
        counts.push(done.into_inner());
        guest.restart()?;
        guest.works(0, 350)?;
        guest.works(3, 351)?;
        guest.canaries()?;
    }
    env.bystander.goes_on()?;
    Ok(Outcome::Pass(format!("beside {counts:?} requests")))
}
