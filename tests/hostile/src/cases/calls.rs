// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Calls out of order, repeated, and from two threads during I/O.

use crate::adapter::{refused, Adapter};
use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use anyhow::{ensure, Context, Result};
use avio_abi::ioctl::{remove_flags, SetupError};
use avio_abi::pci::task;
use avio_abi::stor::lun_flags;
use nix::errno::Errno;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

pub const TESTS: &[Test] = &[
    ("c1_calls_out_of_order", out_of_order),
    ("c1_calls_repeated", repeated),
    ("c1_calls_during_io_from_two_threads", two_threads),
    ("c1_stop_with_requests_in_flight", stop),
    ("c1_close_with_requests_in_flight", close),
];

fn out_of_order(env: &Env) -> Result<Outcome> {
    use SetupError::{LunAbsent, NoMemoryTable, NotConfigured, QueueRange};
    let empty = Adapter::open()?;
    let start = empty
        .start(1)
        .err()
        .context("START of a fresh adapter was accepted")?;
    let right = [Some(NotConfigured), Some(NoMemoryTable)].contains(&start.error);
    ensure!(
        right && start.errno == Errno::EINVAL,
        "START of a fresh adapter: {start}"
    );
    empty.stop().context("STOP of a fresh adapter")?;
    let errno = empty.queue(0).err().map(|refused| refused.errno);
    ensure!(
        errno == Some(Errno::EINVAL),
        "GET_QUEUE of a fresh adapter: {errno:?}"
    );
    refused("REMOVE_LUN of nothing", empty.remove_lun(0, 0), LunAbsent)?;

    let mut guest = Guest::prepare(&env.device, &TWO_QUEUES)?;
    guest.make_queues(2, 8)?;
    let [first, second] = [0, 1].map(|index: usize| guest.queues[index].description());
    empty.set_features(1, guest.features)?;
    refused(
        "SET_QUEUE without memory",
        empty.set_queue(&first),
        NoMemoryTable,
    )?;
    let adapter = &guest.adapter;
    refused("START without features", adapter.start(1), NotConfigured)?;
    adapter.set_features(1, guest.features)?;
    refused("START without queues", adapter.start(1), NotConfigured)?;
    adapter.set_queue(&second)?;
    refused("START without queue 0", adapter.start(2), NotConfigured)?;
    adapter.set_queue(&first)?;
    refused(
        "START with a queue too many",
        adapter.start(3),
        NotConfigured,
    )?;
    refused(
        "START with queues out of range",
        adapter.start(65),
        QueueRange,
    )?;
    refused("START without any queue", adapter.start(0), QueueRange)?;
    adapter.start(2).context("START after all")?;
    guest.works(0, 40)?;
    guest.works(1, 41)?;
    guest.stop()?;
    // STOP has forgotten features and queues.
    refused("START after STOP", guest.adapter.start(2), NotConfigured)?;
    pass()
}

fn repeated(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &TWO_QUEUES)?;
    let fd = env.device.as_raw_fd();
    refused("START twice", guest.adapter.start(2), SetupError::Running)?;
    guest.works(0, 42)?;
    guest.stop()?;
    guest.adapter.stop().context("STOP twice")?;
    refused(
        "LUN twice",
        guest.adapter.add_lun(0, fd, 0),
        SetupError::LunBusy,
    )?;
    let table = regions(&guest.mapping);
    for round in 0..20 {
        guest.set_memory(&table)?;
        guest.set_up(2, 8)?;
        guest.works(0, round)?;
        guest.stop()?;
        guest.adapter.remove_lun(0, 0)?;
        guest.adapter.add_lun(0, fd, 0)?;
    }
    pass()
}

fn two_threads(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &TWO_QUEUES)?;
    // Each START finds these in the ring and carries them out.
    load(&mut guest)?;
    let (stop, served) = (AtomicBool::new(false), AtomicU32::new(0));
    let fd = env.device.as_raw_fd();
    let table = regions(&guest.mapping);
    let descriptions: Vec<_> = guest.queues.iter().map(Queue::description).collect();
    let (adapter, features, queues) = (&guest.adapter, guest.features, &guest.queues);
    let kick = || queues.iter().try_for_each(Queue::kick);
    let caller = || -> Result<u32> {
        let mut calls = 0;
        while !stop.load(Ordering::Relaxed) {
            let plain = [adapter.quiesce(), adapter.resume(), adapter.stop()];
            let rest = [
                adapter.set_memory(&table).map(drop),
                adapter.set_features(1, features),
                adapter.set_queue(&descriptions[0]),
                adapter.set_queue(&descriptions[1]),
                adapter.start(2),
                adapter.queue(0).map(|queue| {
                    served.fetch_add((queue.requests != 0).into(), Ordering::Relaxed);
                }),
                adapter.lun(0).map(drop),
                adapter.add_lun(1, fd, 0).map(drop),
                adapter.update_lun(1, 0).map(drop),
                adapter.limit_bytes(1, 1 << 30, 0),
                adapter.task(task::LUN_RESET, 0, (0, 0)).map(drop),
                adapter.task(task::ABORT, 0, (0, 3)).map(drop),
                adapter.update_lun(1, lun_flags::GATED).map(drop),
                adapter.task(task::OPEN_GATE, 1, (0, 0)).map(drop),
                adapter.task(task::QUEUE_STOP, 0, (1, 0)).map(drop),
                adapter.task(task::QUEUE_START, 0, (1, 0)).map(drop),
                adapter.set_poll(100_000),
                adapter.remove_lun(1, remove_flags::FORCE),
            ];
            kick()?;
            calls += (plain.len() + rest.len()) as u32;
            let rest = rest
                .into_iter()
                .map(|call| call.map_err(|refused| refused.errno));
            for errno in plain.into_iter().chain(rest).filter_map(Result::err) {
                let allowed = matches!(
                    errno,
                    Errno::EBUSY
                        | Errno::EINVAL
                        | Errno::EEXIST
                        | Errno::ENOENT
                        | Errno::EINTR
                        | Errno::EAGAIN
                );
                ensure!(allowed, "unexpected {errno:?}");
            }
        }
        Ok(calls)
    };
    let counts = std::thread::scope(|scope| {
        let threads = [scope.spawn(caller), scope.spawn(caller)];
        std::thread::sleep(Duration::from_millis(1500));
        let met = wait_for("a call that meets a queue with requests", || {
            let ended = threads.iter().any(|thread| thread.is_finished());
            Ok(ended || served.load(Ordering::Relaxed) != 0)
        });
        stop.store(true, Ordering::Relaxed);
        (met, threads.map(|thread| thread.join().expect("caller")))
    });
    let (met, [first, second]) = counts;
    let calls = first? + second?;
    met?;
    let served = served.into_inner();
    ensure!(served != 0, "no call met a queue that had requests");
    guest.restart()?;
    guest.works(0, 43)?;
    guest.works(1, 44)?;
    guest.canaries()?;
    Ok(Outcome::Pass(format!("{calls} calls, {served} beside I/O")))
}

/// Fills the ring with long reads without waiting for any.
fn load(guest: &mut Guest) -> Result<()> {
    let reads: Vec<_> = (0..8).map(|tag| read(tag, 0, &[(DATA, 1 << 19)])).collect();
    guest.queue().go(&reads)
}

fn stop(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &TWO_QUEUES)?;
    for round in 0..20 {
        load(&mut guest)?;
        guest.stop().context("with requests in flight")?;
        // After STOP nothing is written any more, not even when the device has answered what came later.
        guest.fill(DATA, 0, 4096, round);
        env.bystander.goes_on()?;
        let same = guest.verify(DATA, 0, 4096, round);
        same.context("memory was written after STOP")?;
        guest.set_up(2, 8)?;
        guest.works(0, round)?;
    }
    pass()
}

fn close(env: &Env) -> Result<Outcome> {
    for _ in 0..20 {
        let mut guest = Guest::start(env, &TWO_QUEUES)?;
        load(&mut guest)?;
        let Guest {
            adapter,
            mapping,
            queues,
            ..
        } = guest;
        drop(adapter);
        mapping.u64(offset(DATA)).store(7, Ordering::Relaxed);
        env.bystander.goes_on()?;
        let found = mapping.u64(offset(DATA)).load(Ordering::Relaxed);
        ensure!(
            found == 7,
            "memory was written after the adapter was closed"
        );
        drop((queues, mapping));
    }
    pass()
}
