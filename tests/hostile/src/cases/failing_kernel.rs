// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Allocations of the kernel that fail, one at a time: a call says so, changes nothing, and succeeds when it is made
//! again; a request ends in an error or not at all wrong.
//!
//! The kernel fails the n-th allocation of a thread that has n in its `fail-nth`, which counts down to zero.

use super::cgroups::{self, Group};
use crate::adapter::{Adapter, Refused};
use crate::backing::NullBlk;
use crate::guest::*;
use crate::kernel_log::complains_of_memory_only;
use crate::run::{Env, Outcome, Test};
use anyhow::{bail, ensure, Context, Result};
use avio_abi::ioctl::{remove_flags, Region};
use avio_abi::pci::task;
use avio_abi::ring::Submission;
use avio_abi::stor::{opcode, Status};
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsRawFd;

pub const TESTS: &[Test] = &[
    ("c5_allocations_of_callers_fail", of_callers),
    ("c5_allocations_of_workers_fail", of_workers),
    ("fault_every_third_bio_fails", of_bios),
];

/// More allocations than any of these tests has.
const MANY: u32 = 3000;

/// Sets a file of the kernel's fault injection.
fn inject(kind: &str, settings: &[(&str, &str)]) -> Result<()> {
    for (name, value) in settings {
        let path = format!("/sys/kernel/debug/{kind}/{name}");
        fs::write(&path, value).context(path)?;
    }
    Ok(())
}

/// Lets every kind of allocation fail, silently, in threads that ask for it.
fn prepare() -> Result<()> {
    let silent = ("verbose", "0");
    inject("failslab", &[silent, ("ignore-gfp-wait", "N")])?;
    let pages = [silent, ("ignore-gfp-wait", "N"), ("min-order", "0")];
    inject("fail_page_alloc", &pages)?;
    inject("fail_usercopy", &[silent])
}

/// The `fail-nth` of a thread of this process.
struct FailNth(String);

impl FailNth {
    fn of_this_thread() -> Self {
        Self("/proc/thread-self/fail-nth".to_owned())
    }

    fn of(thread: &str) -> Self {
        Self(format!("/proc/self/task/{thread}/fail-nth"))
    }

    fn set(&self, nth: u32) -> Result<()> {
        // Clearing it may itself be what fails; it is clear then.
        let write = || fs::write(&self.0, nth.to_string());
        write().or_else(|_| write()).context(self.0.clone())
    }

    /// Whether the allocation was reached. Clears it.
    fn happened(&self) -> Result<bool> {
        let left = fs::read_to_string(&self.0);
        self.set(0)?;
        // If reading it is what failed, then nothing did before.
        Ok(left.is_ok_and(|left| left.trim() == "0"))
    }
}

/// Makes a call, and once more if the kernel lacked memory; `None` if the argument could not be copied.
fn attempt<T>(what: &str, call: impl Fn() -> Result<T, Refused>) -> Result<Option<T>> {
    match call() {
        Ok(answer) => Ok(Some(answer)),
        Err(refused) if refused.errno == Errno::EFAULT => Ok(None),
        Err(refused) if refused.errno == Errno::ENOMEM => {
            let again = call().map(Some);
            again.with_context(|| format!("{what} after {refused}"))
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

/// Everything that there is to call, on a guest that has only its memory. Whether all of it was done.
fn every_call(env: &Env, guest: &Guest, table: &[Region], cgroup: &File) -> Result<bool> {
    let (adapter, fd) = (&guest.adapter, env.device.as_raw_fd());
    let queue = guest.queues[0].description();
    type Call<'a> = (&'a str, &'a dyn Fn() -> Result<(), Refused>);
    let cgroup = cgroup.as_raw_fd();
    let calls: [Call<'_>; 21] = [
        ("SET_MEMORY", &|| adapter.set_memory(table).map(drop)),
        ("ADD_LUN", &|| adapter.add_lun(0, fd, 0).map(drop)),
        ("SET_FEATURES", &|| adapter.set_features(1, guest.features)),
        ("SET_QUEUE", &|| adapter.set_queue(&queue)),
        ("START", &|| adapter.start(1)),
        ("STOP", &|| plain(adapter.stop())),
        ("SET_FEATURES", &|| adapter.set_features(1, guest.features)),
        ("SET_QUEUE", &|| adapter.set_queue(&queue)),
        ("START", &|| adapter.start(1)),
        ("SET_POLL", &|| adapter.set_poll(100_000)),
        ("SET_MEMORY", &|| adapter.set_memory(table).map(drop)),
        ("ADD_LUN", &|| adapter.add_lun(7, fd, 0).map(drop)),
        ("UPDATE_LUN", &|| adapter.update_lun(7, 0).map(drop)),
        ("SET_LIMITS", &|| adapter.limit_bytes(7, 1 << 30, 0)),
        ("GET_LUN", &|| adapter.lun(7).map(drop)),
        ("TASK", &|| {
            adapter.task(task::LUN_RESET, 7, (0, 0)).map(drop)
        }),
        ("REMOVE_LUN", &|| adapter.remove_lun(7, remove_flags::FORCE)),
        ("ADD_LUN with CGROUP", &|| {
            cgroups::add(adapter, env, 8, cgroup).map(drop)
        }),
        ("REMOVE_LUN", &|| adapter.remove_lun(8, 0)),
        ("QUIESCE", &|| plain(adapter.quiesce())),
        ("RESUME", &|| plain(adapter.resume())),
    ];
    for (what, call) in calls {
        if attempt(what, call)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn of_callers(env: &Env) -> Result<Outcome> {
    prepare()?;
    let fail = FailNth::of_this_thread();
    let mut failed = 0;
    // Every second, and where checkers make each take seconds, every eighth, which shows what they alone can see. With which
    // it begins differs from boot to boot.
    let checked = std::env::var("AVIO_FLAVOUR").is_ok_and(|flavour| flavour == "debug");
    let step = if checked { 8 } else { 2 };
    let first = 1 + fs::read("/proc/sys/kernel/random/boot_id")?[0] as u32 % step;
    let group = Group::new("avio-failing")?;
    let cgroup = group.open()?;
    complains_of_memory_only(|| {
        for nth in (first..MANY).step_by(step as usize) {
            let mut guest = Guest::prepare(&env.device, &Config { luns: &[], ..PLAIN })?;
            guest.lun = Guest::simple(env)?.lun;
            guest.make_queues(1, 8)?;
            // Memory that is there, so that pinning it allocates little.
            let table = few_regions(&guest.mapping);
            guest.write_memory(RAM, &vec![0; table[0].size as usize]);
            fail.set(nth)?;
            let opened = Adapter::open();
            let done = every_call(env, &guest, &table, &cgroup);
            let happened = fail.happened()?;
            if let Err(error) = opened {
                let errno = Errno::try_from(error).ok();
                let right = matches!(errno, Some(Errno::ENOMEM | Errno::EFAULT));
                ensure!(right, "opening: {errno:?}");
            }
            if done.with_context(|| format!("allocation {nth}"))? {
                guest
                    .works(0, 250)
                    .with_context(|| format!("after allocation {nth}"))?;
            }
            if !happened {
                return Ok(());
            }
            failed = nth;
        }
        bail!("more than {MANY} allocations")
    })?;
    ensure!(failed > 20, "only {failed} allocations failed");
    Ok(Outcome::Pass(format!(
        "allocations from the {first}th to the {failed}th failed, one by one, in steps of {step}"
    )))
}

/// Threads of this process.
fn threads() -> Result<BTreeSet<String>> {
    let names = fs::read_dir("/proc/self/task")?.map(|entry| Ok(entry?.file_name()));
    let names = names.collect::<Result<Vec<_>>>()?;
    Ok(names
        .into_iter()
        .flat_map(|name| name.into_string())
        .collect())
}

fn of_workers(env: &Env) -> Result<Outcome> {
    prepare()?;
    let before = threads()?;
    let mut guest = Guest::simple(env)?;
    let comm = |thread: &str| fs::read_to_string(format!("/proc/self/task/{thread}/comm"));
    let is_worker = |thread: &&String| comm(thread).is_ok_and(|name| name.starts_with("avio-stor"));
    let now = threads()?;
    let mut workers = now.difference(&before).filter(is_worker);
    let worker = workers.next().context("the worker's thread")?;
    let fail = FailNth::of(worker);
    // More LUNs: with a cgroup of its own, with limits that hold requests back, and one that discards.
    let (group, thin) = (
        Group::new("avio-failing-workers")?,
        NullBlk::new(&[("discard", "1")])?,
    );
    cgroups::add(&guest.adapter, env, 1, group.open()?.as_raw_fd())?;
    guest.adapter.add_lun(2, env.device.as_raw_fd(), 0)?;
    guest.adapter.limit_bytes(2, 64 << 20, 4096)?;
    guest.adapter.add_lun(3, thin.open()?.as_raw_fd(), 0)?;
    for lun in 1..=3 {
        let first = read(0, 0, &[(DATA, 4096)]).on(lun);
        guest
            .queue()
            .expect(&first, Status::Attention, "a LUN that is new")?;
    }
    // Requests with all that a request can have.
    let block = guest.block();
    let segments: Vec<_> = (0..256).map(|page| (DATA + page * 4096, block)).collect();
    let reading = with_list(&guest, read(0, 0, &[]), LIST, &segments);
    let writing = with_list(&guest, write(0, 0, &[]), LIST + 0x2000, &segments);
    let kinds = [
        ("read", reading),
        ("write", writing),
        ("flush", flush(0)),
        ("read of a LUN with a cgroup", reading.on(1)),
        ("write that is held back", writing.on(2)),
        ("discard", range(opcode::DISCARD, 0, 0, 64).on(3)),
    ];
    let mut counts = Vec::new();
    complains_of_memory_only(|| {
        for (what, entry) in kinds {
            let failed = failing(&mut guest, &fail, &segments, entry).context(what)?;
            counts.push(format!("{what} {failed}"));
        }
        Ok(())
    })?;
    guest.canaries()?;
    Ok(Outcome::Pass(format!(
        "allocations that failed: {}",
        counts.join(", ")
    )))
}

/// Sends a request of these segments again and again, and has another allocation fail each time; how many there are.
fn failing(
    guest: &mut Guest,
    fail: &FailNth,
    segments: &[(u64, u32)],
    entry: Submission,
) -> Result<u32> {
    let block = guest.block();
    for nth in 1..MANY {
        guest.store(0, 0, 256 * block, 251)?;
        for (index, (addr, _)) in segments.iter().enumerate() {
            let sector = index as u64 * u64::from(block) / 512;
            guest.fill(*addr, sector, block, 251);
        }
        fail.set(nth)?;
        let result = guest.queue().request(&entry);
        let happened = fail.happened()?;
        match result?.0 {
            Status::Ok if entry.opcode == opcode::READ => {
                for (index, (addr, _)) in segments.iter().enumerate() {
                    let sector = index as u64 * u64::from(block) / 512;
                    guest.verify(*addr, sector, block, 251)?;
                }
            }
            Status::Ok if entry.opcode == opcode::WRITE => guest.holds(0, 0, 256 * block, 251)?,
            Status::Ok | Status::NoMemory | Status::IoError | Status::NoSpace => (),
            other => bail!("allocation {nth}: {}", other.name()),
        }
        if !happened {
            return Ok(nth - 1);
        }
        guest.works(0, 252)?;
    }
    bail!("more than {MANY} allocations")
}

fn of_bios(_env: &Env) -> Result<Outcome> {
    let disk = NullBlk::new(&[])?;
    let mut guest = Guest::on(&disk.open()?, &PLAIN)?;
    let kind = "fail_make_request";
    inject(
        kind,
        &[("verbose", "0"), ("interval", "3"), ("times", "-1")],
    )?;
    inject(kind, &[("probability", "100")])?;
    disk.sysfs("make-it-fail", "1")?;
    let (mut kept, mut errors) = (Vec::new(), 0);
    for round in 0..200 {
        // Whatever was said to be written stays; whatever failed may be there or not.
        guest.fill(DATA, round * 8, 4096, 253);
        let entry = write(0, round * 8, &[(DATA, 4096)]);
        match guest.queue().request(&entry)?.0 {
            Status::Ok => kept.push(round * 8),
            Status::IoError => errors += 1,
            other => bail!("round {round}: {}", other.name()),
        }
    }
    disk.sysfs("make-it-fail", "0")?;
    inject(kind, &[("probability", "0")])?;
    ensure!(errors > 20, "only {errors} of 200 writes failed");
    ensure!(
        kept.len() > 20,
        "only {} of 200 writes succeeded",
        kept.len()
    );
    for sector in &kept {
        guest.holds(0, *sector, 4096, 253)?;
    }
    let counted = guest.adapter.lun(0)?.statuses[Status::IoError as usize];
    ensure!(
        counted == errors,
        "GET_LUN counts {counted} errors, not {errors}"
    );
    guest.works(0, 254)?;
    Ok(Outcome::Pass(format!("{errors} of 200 writes failed")))
}
