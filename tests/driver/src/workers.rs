// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! How often the adapter's workers ran: they are threads of this process, beside its first.

use anyhow::{ensure, Result};
use std::fs::{read_dir, read_to_string};

/// Times that the workers were switched to, and so away from, since they were made.
pub fn wake_ups() -> Result<u64> {
    let own = std::process::id().to_string();
    let (mut workers, mut sum) = (0, 0);
    for thread in read_dir("/proc/self/task")? {
        let thread = thread?;
        if thread.file_name().to_str() == Some(own.as_str()) {
            continue;
        }
        workers += 1;
        for line in read_to_string(thread.path().join("status"))?.lines() {
            if let Some((_, count)) = line.split_once("voluntary_ctxt_switches:") {
                sum += count.trim().parse::<u64>()?;
            }
        }
    }
    ensure!(workers > 0, "the adapter has no worker");
    Ok(sum)
}
