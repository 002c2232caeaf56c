// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What the kernel logs meanwhile.

use anyhow::{bail, Result};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

/// Lines that the kernel logs while `work` is done.
pub fn logged(work: impl FnOnce() -> Result<()>) -> Result<Vec<String>> {
    let mut options = OpenOptions::new();
    let options = options.read(true).custom_flags(libc::O_NONBLOCK);
    let mut log = options.open("/dev/kmsg")?;
    log.seek(SeekFrom::End(0))?;
    let mut record = [0; 8192];
    let mut next = || match log.read(&mut record) {
        Ok(len) => Ok(Some(String::from_utf8_lossy(&record[..len]).into_owned())),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        // Records were overwritten before they were read: a flood indeed.
        Err(error) => Err(error),
    };
    work()?;
    let mut lines = Vec::new();
    while let Some(line) = next()? {
        lines.push(line);
    }
    Ok(lines)
}

/// Does `work`, during which the kernel may complain of a lack of memory, with stack traces, but of nothing else. The
/// console gets none of it.
pub fn complains_of_memory_only(work: impl FnOnce() -> Result<()>) -> Result<()> {
    const LEVEL: &str = "/proc/sys/kernel/printk";
    const BUGS: [&str; 7] = [
        "WARNING: ",
        "BUG: ",
        "Oops",
        "KASAN: ",
        "refcount_t: ",
        "corruption",
        "rust_kernel: panicked",
    ];
    let before = std::fs::read_to_string(LEVEL)?;
    std::fs::write(LEVEL, "4")?;
    let lines = logged(work);
    std::fs::write(LEVEL, before)?;
    for line in lines? {
        if BUGS.iter().any(|bug| line.contains(bug)) {
            bail!("in the kernel's log: {}", line.trim());
        }
    }
    Ok(())
}
