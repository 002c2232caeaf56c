// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What the kernel counts.

use crate::guest::wait_for;
use anyhow::{ensure, Context, Result};
use std::collections::HashMap;
use std::fs;

/// Where debugfs has a file for each adapter.
const ADAPTERS: &str = "/sys/kernel/debug/avio_host";

/// The value behind a name at the beginning of a line.
fn value(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|rest| rest.split_whitespace().next());
    Ok(value.with_context(|| name.to_owned())?.parse()?)
}

/// Kilobytes that are counted against this process's RLIMIT_MEMLOCK.
pub fn locked() -> Result<u64> {
    value(&fs::read_to_string("/proc/self/status")?, "VmLck:")
}

/// Pages that are pinned for devices, of all processes. The second guest keeps its own.
pub fn pinned() -> Result<u64> {
    // Each processor keeps some of the count to itself until it is asked.
    fs::read("/proc/sys/vm/stat_refresh")?;
    let text = fs::read_to_string("/proc/vmstat")?;
    let [acquired, released] =
        ["acquired ", "released "].map(|what| value(&text, &format!("nr_foll_pin_{what}")));
    Ok(acquired?.wrapping_sub(released?))
}

/// Kilobytes that the kernel uses for itself, without what it keeps only as long as it has no other use for it.
pub fn kernel_memory() -> Result<u64> {
    fs::write("/proc/sys/vm/drop_caches", "2")?;
    let text = fs::read_to_string("/proc/meminfo")?;
    Ok(value(&text, "Slab:")? + value(&text, "VmallocUsed:")?)
}

/// What `status` tells of the threads of this process that serve a queue, or any if there is no number.
pub fn workers(queue: &str) -> Result<Vec<String>> {
    let name = format!("Name:\tavio-stor-q{queue}");
    let threads = fs::read_dir("/proc/self/task")?.filter_map(Result::ok);
    // One may end before it is looked at.
    let told = threads.flat_map(|thread| fs::read_to_string(thread.path().join("status")));
    Ok(told.filter(|told| told.starts_with(&name)).collect())
}

/// Waits until the worker of a queue, which `wake` wakes, has looked at what there is, and sleeps again.
pub fn looks(queue: u32, wake: impl Fn() -> Result<()>) -> Result<()> {
    let sleeps = || -> Result<HashMap<u64, u64>> {
        let workers = workers(&format!("{queue}\n"))?;
        let each = workers.iter().map(|told| {
            let sleeps = value(told, "voluntary_ctxt_switches:")?;
            Ok((value(told, "Pid:")?, sleeps))
        });
        each.collect()
    };
    // The first sleep that is counted may have begun before the worker was woken.
    for _ in 0..2 {
        let before = sleeps()?;
        ensure!(!before.is_empty(), "queue {queue} has no worker");
        wake()?;
        // One of an adapter that is no more may just be ending.
        wait_for("the worker looks", || {
            let grown = |(worker, now)| before.get(&worker).is_none_or(|before| now > *before);
            Ok(sleeps()?.into_iter().all(grown))
        })?;
    }
    Ok(())
}

/// The numbers of all adapters that debugfs knows.
fn adapters() -> Result<Vec<u64>> {
    let files = fs::read_dir(ADAPTERS)?.filter_map(Result::ok);
    let names = files.flat_map(|file| file.file_name().into_string());
    let numbers = names.filter_map(|name| name.strip_prefix("stor")?.parse().ok());
    Ok(numbers.collect())
}

/// What adapters hold of the kernel's.
#[derive(Debug, PartialEq, Eq)]
pub struct Held {
    pinned_pages: u64,
    locked_kilobytes: u64,
    workers: usize,
    adapters: usize,
}

impl Held {
    pub fn now() -> Result<Self> {
        Ok(Self {
            pinned_pages: pinned()?,
            locked_kilobytes: locked()?,
            workers: workers("")?.len(),
            adapters: adapters()?.len(),
        })
    }

    /// Demands that it becomes this much again.
    pub fn is_back(&self) -> Result<()> {
        let back = wait_for("what adapters hold", || Ok(Self::now()? == *self));
        back.with_context(|| format!("{:?} instead of {self:?}", Self::now()))
    }
}

/// Whether the adapter that was opened last has requests in flight. While its calls wait for them, debugfs tells no more than
/// that they do.
pub fn has_requests() -> Result<bool> {
    let told = adapter()?;
    let some = told.get("in_flight").is_some_and(|count| count != "0");
    Ok(told.is_empty() || some)
}

/// What debugfs tells of the adapter that was opened last, without its LUNs and queues.
pub fn adapter() -> Result<HashMap<String, String>> {
    let newest = adapters()?.into_iter().max();
    let newest = newest.context("no adapter in debugfs")?;
    let text = fs::read_to_string(format!("{ADAPTERS}/stor{newest}"))?;
    let words = text.lines().take(1).flat_map(str::split_whitespace);
    Ok(words
        .filter_map(|word| word.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}
