// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! How much memory the kernel uses for itself.

use anyhow::{Context, Result};

/// Lines of /proc/meminfo that count memory of the kernel's own, none of it twice: where stacks are in vmalloc's space,
/// as on all 64-bit machines, they are in VmallocUsed.
const OWN: [&str; 4] = ["Slab", "VmallocUsed", "PageTables", "Percpu"];

pub fn kernel_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let mut sum = 0;
    for name in OWN {
        let value = text
            .lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .strip_prefix(':')?
                    .trim()
                    .strip_suffix(" kB")
            })
            .with_context(|| format!("/proc/meminfo has no {name}"))?;
        sum += 1024 * value.parse::<u64>()?;
    }
    Ok(sum)
}
