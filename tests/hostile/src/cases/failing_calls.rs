// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Allocations of the kernel that fail, one at a time, in calls: a call says so, changes nothing, leaves nothing behind, and
//! succeeds when it is made again.

use super::cgroups::{self, Group};
use super::failing_kernel::{prepare, FailNth, MANY};
use crate::adapter::{Adapter, Refused};
use crate::counts::Held;
use crate::guest::*;
use crate::kernel_log::complains_of_memory_only;
use crate::run::{Env, Outcome, Test};
use anyhow::{bail, ensure, Context, Result};
use avio_abi::ioctl::remove_flags::FORCE;
use avio_abi::ioctl::Region;
use avio_abi::pci::task::{LUN_RESET, OPEN_GATE, QUEUE_START, QUEUE_STOP};
use avio_abi::stor::lun_flags::{GATED, LOST};
use avio_abi::stor::LunInfo;
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsRawFd;

pub const TESTS: &[Test] = &[("c5_allocations_of_callers_fail", of_callers)];

/// What the calls work with.
struct Stage<'a> {
    env: &'a Env,
    cgroup: &'a File,
    /// The description of LUN 0.
    lun: LunInfo,
}

/// How often each call has failed.
type Failures = BTreeMap<&'static str, u32>;

/// How a call went.
#[derive(PartialEq)]
enum Went {
    Well,
    /// Once more, since the kernel lacked memory.
    Again,
    /// Its argument could not be copied.
    Not,
}

fn attempt(what: &str, call: &dyn Fn() -> Result<(), Refused>) -> Result<Went> {
    let call = || {
        // A worker that does not get to run for long is no failure of these, but one that has stopped for good is.
        let mut tries = if WAIT.contains(&what) { 100 } else { 1 };
        loop {
            tries -= 1;
            match call() {
                Err(refused) if refused.errno == Errno::EAGAIN && tries > 0 => continue,
                result => return result,
            }
        }
    };
    match call() {
        Ok(()) => Ok(Went::Well),
        Err(refused) if refused.errno == Errno::EFAULT => Ok(Went::Not),
        Err(refused) if refused.errno == Errno::ENOMEM => {
            call().with_context(|| format!("{what} after {refused}"))?;
            Ok(Went::Again)
        }
        Err(refused) => bail!("{what}: {refused} instead of ENOMEM"),
    }
}

fn plain(result: Result<(), Errno>) -> Result<(), Refused> {
    result.map_err(|errno| Refused {
        errno,
        error: None,
        number: 0,
        index: 0,
    })
}

/// Calls that have no argument to copy, and allocate nothing: they set flags, wait for workers, and let go of what is
/// there.
const CANNOT_FAIL: [&str; 3] = ["STOP", "QUIESCE", "RESUME"];

/// Calls that wait for a worker, for a second.
const WAIT: [&str; 4] = ["STOP", "QUIESCE", "SET_MEMORY while running", "QUEUE_START"];

/// Everything that there is to call, on a guest that has only its memory. Whether all of it was done.
fn every_call(
    stage: &Stage<'_>,
    guest: &Guest,
    table: &[Region],
    failures: &mut Failures,
) -> Result<bool> {
    let (adapter, env) = (&guest.adapter, stage.env);
    let (fd, cgroup) = (env.device.as_raw_fd(), stage.cgroup.as_raw_fd());
    let queue = guest.queues[0].description();
    let task = |kind, lun| adapter.task(kind, lun, (0, 0));
    let start = || adapter.start(1);
    let features = || adapter.set_features(1, guest.features);
    let set_queue = || adapter.set_queue(&queue);
    let set_memory = || adapter.set_memory(table).map(drop);
    let add = |lun, flags| adapter.add_lun(lun, fd, flags).map(drop);
    let update = |flags| adapter.update_lun(7, flags).map(drop);
    let stop_queue = || loop {
        match task(QUEUE_STOP, 0) {
            Ok(0) => return Ok(()),
            Ok(_) => continue,
            Err(refused) => return Err(refused),
        }
    };
    type Call<'a> = (&'static str, &'a dyn Fn() -> Result<(), Refused>);
    let calls: [Call<'_>; 28] = [
        ("SET_MEMORY", &set_memory),
        ("ADD_LUN", &|| add(0, 0)),
        ("SET_FEATURES", &features),
        ("SET_QUEUE", &set_queue),
        ("START", &start),
        ("STOP", &|| plain(adapter.stop())),
        ("SET_FEATURES", &features),
        ("SET_QUEUE", &set_queue),
        ("START", &start),
        ("SET_POLL", &|| adapter.set_poll(100_000)),
        ("SET_MEMORY while running", &set_memory),
        ("ADD_LUN while running", &|| add(7, 0)),
        ("UPDATE_LUN", &|| update(LOST)),
        ("UPDATE_LUN", &|| update(0)),
        ("UPDATE_LUN without a change", &|| update(0)),
        ("SET_LIMITS", &|| adapter.limit_bytes(7, 1 << 30, 0)),
        ("GET_LUN", &|| adapter.lun(7).map(drop)),
        ("LUN_RESET", &|| task(LUN_RESET, 7).map(drop)),
        ("REMOVE_LUN", &|| adapter.remove_lun(7, FORCE)),
        ("ADD_LUN while running", &|| add(9, GATED)),
        ("OPEN_GATE", &|| task(OPEN_GATE, 9).map(drop)),
        ("ADD_LUN with CGROUP", &|| {
            cgroups::add(adapter, env, 8, cgroup).map(drop)
        }),
        ("REMOVE_LUN", &|| adapter.remove_lun(8, 0)),
        ("QUIESCE", &|| plain(adapter.quiesce())),
        ("RESUME", &|| plain(adapter.resume())),
        ("QUEUE_STOP", &stop_queue),
        ("QUEUE_START", &|| task(QUEUE_START, 0).map(drop)),
        ("GET_QUEUE", &|| adapter.queue(0).map(drop)),
    ];
    for (what, call) in calls {
        let went = attempt(what, call)?;
        *failures.entry(what).or_default() += u32::from(went != Went::Well);
        if went == Went::Not {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Has one allocation of all the calls fail; whether there are so many.
fn one_fails(stage: &Stage<'_>, fail: &FailNth, nth: u32, failures: &mut Failures) -> Result<bool> {
    let config = Config { luns: &[], ..PLAIN };
    let mut guest = Guest::prepare_small(&stage.env.device, &config)?;
    guest.lun = stage.lun;
    guest.make_queues(1, 8)?;
    let table = few_regions(&guest.mapping);
    fail.set(nth)?;
    let opened = Adapter::open();
    let done = every_call(stage, &guest, &table, failures);
    let happened = fail.happened()?;
    if let Err(error) = opened {
        let errno = Errno::try_from(error).ok();
        let right = matches!(errno, Some(Errno::ENOMEM | Errno::EFAULT));
        ensure!(right, "opening: {errno:?}");
    }
    if done? {
        guest.works(0, 250).context("afterwards")?;
    }
    Ok(happened)
}

fn of_callers(env: &Env) -> Result<Outcome> {
    prepare()?;
    let fail = FailNth::of_this_thread();
    // Every one, and where checkers make each take long, every eighth, which shows what they alone can see. With which it
    // begins differs from boot to boot.
    let checked = std::env::var("AVIO_FLAVOUR").is_ok_and(|flavour| flavour == "debug");
    let step = if checked { 8 } else { 1 };
    let first = 1 + fs::read("/proc/sys/kernel/random/boot_id")?[0] as u32 % step;
    let group = Group::new("avio-failing")?;
    let stage = Stage {
        env,
        cgroup: &group.open()?,
        lun: Guest::simple(env)?.lun,
    };
    let (mut last, mut failures, held) = (0, Failures::new(), Held::now()?);
    for nth in (first..).step_by(step as usize) {
        ensure!(nth < MANY, "more than {MANY} allocations");
        let mut happened = false;
        // One at a time, for the kernel's log has no room for what it says of all.
        complains_of_memory_only(|| {
            happened = one_fails(&stage, &fail, nth, &mut failures)
                .with_context(|| format!("allocation {nth}"))?;
            let back = held.is_back();
            back.with_context(|| format!("left behind after allocation {nth} failed"))
        })?;
        if !happened {
            break;
        }
        last = nth;
    }
    ensure!(last > 20, "only {last} allocations failed");
    for (call, count) in &failures {
        if CANNOT_FAIL.contains(call) {
            ensure!(*count == 0, "{call} failed {count} times");
            continue;
        }
        // Steps of eight may miss a call.
        ensure!(*count > 0 || checked, "{call} never failed");
    }
    let counts: Vec<_> = failures
        .iter()
        .map(|(call, n)| format!("{call} {n}"))
        .collect();
    Ok(Outcome::Pass(format!(
        "allocations from the {first}th to the {last}th failed, one by one, in steps of {step}: {}",
        counts.join(", ")
    )))
}
