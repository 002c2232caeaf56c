// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Allocations of the kernel that fail, one at a time: a request ends in an error or not at all wrong. Bios that fail are
//! told of.
//!
//! The kernel fails the n-th allocation of a thread that has n in its `fail-nth`, which counts down to zero.

use super::cgroups::{self, Group};
use crate::backing::NullBlk;
use crate::guest::*;
use crate::kernel_log::complains_of_memory_only;
use crate::run::{Env, Outcome, Test};
use anyhow::{bail, ensure, Context, Result};
use avio_abi::ring::Submission;
use avio_abi::stor::{opcode, Status};
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsRawFd;

pub const TESTS: &[Test] = &[
    ("c5_allocations_of_workers_fail", of_workers),
    ("fault_every_third_bio_fails", of_bios),
];

/// More allocations than any of these tests has.
pub(super) const MANY: u32 = 3000;

/// Sets a file of the kernel's fault injection.
fn inject(kind: &str, settings: &[(&str, &str)]) -> Result<()> {
    for (name, value) in settings {
        let path = format!("/sys/kernel/debug/{kind}/{name}");
        fs::write(&path, value).context(path)?;
    }
    Ok(())
}

/// Lets every kind of allocation fail, silently, in threads that ask for it.
pub(super) fn prepare() -> Result<()> {
    let silent = ("verbose", "0");
    inject("failslab", &[silent, ("ignore-gfp-wait", "N")])?;
    let pages = [silent, ("ignore-gfp-wait", "N"), ("min-order", "0")];
    inject("fail_page_alloc", &pages)?;
    inject("fail_usercopy", &[silent])
}

/// The `fail-nth` of a thread of this process.
pub(super) struct FailNth(String);

impl FailNth {
    pub(super) fn of_this_thread() -> Self {
        Self("/proc/thread-self/fail-nth".to_owned())
    }

    fn of(thread: &str) -> Self {
        Self(format!("/proc/self/task/{thread}/fail-nth"))
    }

    pub(super) fn set(&self, nth: u32) -> Result<()> {
        // Clearing it may itself be what fails; it is clear then.
        let write = || fs::write(&self.0, nth.to_string());
        write().or_else(|_| write()).context(self.0.clone())
    }

    /// Whether the allocation was reached. Clears it.
    pub(super) fn happened(&self) -> Result<bool> {
        let left = fs::read_to_string(&self.0);
        self.set(0)?;
        // If reading it is what failed, then nothing did before.
        Ok(left.is_ok_and(|left| left.trim() == "0"))
    }
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
