// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What the kernel counts.

use anyhow::{Context, Result};
use std::collections::HashMap;
use std::fs;

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

/// Kilobytes that the kernel uses for itself.
pub fn kernel_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    Ok(value(&text, "Slab:")? + value(&text, "VmallocUsed:")?)
}

/// What debugfs tells of the adapter that was opened last, without its LUNs and queues.
pub fn adapter() -> Result<HashMap<String, String>> {
    let number = |name: &str| name.strip_prefix("stor")?.parse::<u64>().ok();
    let files = fs::read_dir("/sys/kernel/debug/avio_host")?.filter_map(Result::ok);
    let newest = files.max_by_key(|it| it.file_name().to_str().and_then(number));
    let text = fs::read_to_string(newest.context("no adapter in debugfs")?.path())?;
    let words = text.lines().take(1).flat_map(str::split_whitespace);
    Ok(words
        .filter_map(|word| word.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}
