// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Block devices of a test's own, which fail, shrink, stand still or vanish when it wants them to.

use crate::run::read_write;
use anyhow::{ensure, Context, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A name that no other device has.
fn fresh_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("avio-test{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Runs a program; what it printed.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let done = Command::new(program).args(arguments).output();
    let done = done.with_context(|| program.to_owned())?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{program} {arguments:?}: {said}");
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

/// A null_blk device of 16 MiB that keeps its data in memory, for as long as this lives even while it is off.
pub struct NullBlk {
    name: String,
    folder: PathBuf,
}

impl NullBlk {
    pub const SECTORS: u64 = 16 << 11;

    /// Makes one with these attributes of null_blk.
    pub fn new(settings: &[(&str, &str)]) -> Result<Self> {
        let name = fresh_name();
        let folder = Path::new("/sys/kernel/config/nullb").join(&name);
        fs::create_dir(&folder).context("a null_blk device by configfs")?;
        let device = Self { name, folder };
        for (what, value) in [("size", "16"), ("memory_backed", "1")]
            .iter()
            .chain(settings)
        {
            device.set(what, value)?;
        }
        device.set("power", "1")?;
        Ok(device)
    }

    /// Sets an attribute of null_blk. `power`: off, and what its cache held is lost; on, and the rest is there again.
    pub fn set(&self, what: &str, value: &str) -> Result<()> {
        let path = self.folder.join(what);
        fs::write(&path, value).with_context(|| format!("{} = {value}", path.display()))
    }

    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    pub fn open(&self) -> Result<File> {
        read_write(&self.path())
    }

    /// Writes a file of the device in sysfs.
    pub fn sysfs(&self, file: &str, value: &str) -> Result<()> {
        let path = Path::new("/sys/block").join(&self.name).join(file);
        fs::write(&path, value).with_context(|| path.display().to_string())
    }

    /// Requests that the device has had: reads, writes, discards and flushes that were completed, and those under way.
    pub fn requests(&self) -> Result<u64> {
        // One that is completed while they are counted counts twice.
        let mut last = self.count()?;
        loop {
            let before = std::mem::replace(&mut last, self.count()?);
            if before == last {
                return Ok(last);
            }
        }
    }

    fn count(&self) -> Result<u64> {
        let stat = fs::read_to_string(format!("/sys/block/{}/stat", self.name))?;
        let fields: Vec<u64> = stat.split_whitespace().flat_map(str::parse).collect();
        let [reads, _, _, _, writes, _, _, _, now, _, _, discards, _, _, _, flushes, ..] =
            fields[..]
        else {
            anyhow::bail!("stat of {}: {stat}", self.name);
        };
        Ok(reads + writes + now + discards + flushes)
    }
}

impl Drop for NullBlk {
    fn drop(&mut self) {
        let _ = self.set("power", "0");
        let _ = fs::remove_dir(&self.folder);
    }
}

/// A device-mapper device.
pub struct Mapped {
    name: String,
    path: PathBuf,
}

impl Mapped {
    /// Makes one with this table.
    pub fn new(table: &str) -> Result<Self> {
        let name = fresh_name();
        run(
            "dmsetup",
            &["create", &name, "--noudevsync", "--table", table],
        )?;
        let minor = ["info", "-c", "--noheadings", "-o", "minor", &name];
        let path = PathBuf::from(format!("/dev/dm-{}", run("dmsetup", &minor)?));
        Ok(Self { name, path })
    }

    /// Makes one that is the whole of another.
    pub fn over(device: &NullBlk) -> Result<Self> {
        Self::new(&linear(device, NullBlk::SECTORS))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn open(&self) -> Result<File> {
        read_write(&self.path)
    }

    /// Whether somebody has it open.
    pub fn is_open(&self) -> Result<bool> {
        let count = ["info", "-c", "--noheadings", "-o", "open", &self.name];
        Ok(run("dmsetup", &count)? != "0")
    }

    /// Exchanges the table.
    pub fn load(&self, table: &str) -> Result<()> {
        self.suspend()?.resume_with(table)
    }

    /// Lets nothing through, until what is returned is dropped: declare that after whatever waits for the device.
    pub fn suspend(&self) -> Result<Suspended<'_>> {
        run(
            "dmsetup",
            &["suspend", "--noflush", "--nolockfs", &self.name],
        )?;
        Ok(Suspended(self))
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let _ = run(
            "dmsetup",
            &["remove", "--retry", "--noudevsync", &self.name],
        );
    }
}

/// The table of a device that is so much of another.
pub fn linear(device: &NullBlk, sectors: u64) -> String {
    format!("0 {sectors} linear {} 0", device.path().display())
}

/// The table of a device that fails all requests.
pub fn failing(device: &NullBlk) -> String {
    let (sectors, path) = (NullBlk::SECTORS, device.path());
    let path = path.display();
    format!("0 {sectors} flakey {path} 0 0 3600 2 error_reads error_writes")
}

/// A device-mapper device that keeps requests without an end.
pub struct Suspended<'a>(&'a Mapped);

impl Suspended<'_> {
    /// Lets them go.
    pub fn resume(self) -> Result<()> {
        self.go()
    }

    /// The same, through another table.
    pub fn resume_with(self, table: &str) -> Result<()> {
        run("dmsetup", &["load", &self.0.name, "--table", table])?;
        self.go()
    }

    fn go(&self) -> Result<()> {
        run("dmsetup", &["resume", "--noudevsync", &self.0.name]).map(drop)
    }
}

impl Drop for Suspended<'_> {
    fn drop(&mut self) {
        let _ = self.go();
    }
}

/// A loop device.
pub struct Loop(PathBuf);

impl Loop {
    /// One over a new file.
    pub fn new(file: &Path, bytes: u64) -> Result<Self> {
        File::create(file)?.set_len(bytes)?;
        let file = file.to_str().context("a name that is text")?;
        Ok(Self(run("losetup", &["--find", "--show", file])?.into()))
    }

    /// One over a block device, past the page cache, that has so many requests at a time.
    pub fn over(device: &Path, requests: u32) -> Result<Self> {
        let device = device.to_str().context("a name that is text")?;
        let made = run("losetup", &["--find", "--show", "--direct-io=on", device])?;
        let made = Self(made.into());
        let path = made.sysfs("queue/nr_requests");
        fs::write(&path, requests.to_string()).with_context(|| path.display().to_string())?;
        Ok(made)
    }

    fn sysfs(&self, file: &str) -> PathBuf {
        let name = self.0.file_name().unwrap_or_default();
        Path::new("/sys/block").join(name).join(file)
    }

    /// Requests that it has now.
    pub fn in_flight(&self) -> Result<u32> {
        let text = fs::read_to_string(self.sysfs("inflight"))?;
        let counts = text.split_whitespace().map(str::parse::<u32>);
        Ok(counts.sum::<Result<u32, _>>()?)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn open(&self) -> Result<File> {
        read_write(&self.0)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Some(path) = self.0.to_str() {
            let _ = run("losetup", &["--detach", path]);
        }
    }
}
