// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! LUNs with a cgroup of their own: what is none is refused, and one that goes takes nothing with it.

use crate::adapter::{refused, Adapter, Refused};
use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use anyhow::{ensure, Context, Result};
use avio_abi::ioctl::{add_flags, remove_flags, AddLun, SetupError, ADD_LUN};
use avio_abi::stor::{lun_flags, Status};
use avio_abi::wire::Wire;
use nix::fcntl::OFlag;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const TESTS: &[Test] = &[
    ("c2_descriptors_that_are_no_cgroup", no_cgroup),
    ("c2_cgroup_of_somebody_else", somebody_elses),
    ("c2_cgroup_that_goes_during_io", goes),
];

const ROOT: &str = "/sys/fs/cgroup";

/// A cgroup that goes when this does.
pub(super) struct Group(PathBuf);

impl Group {
    /// A fresh one that has the io controller.
    pub(super) fn new(name: &str) -> Result<Self> {
        if !Path::new(ROOT).join("cgroup.controllers").exists() {
            mount(&["-t", "cgroup2", "none", ROOT])?;
        }
        fs::write(Path::new(ROOT).join("cgroup.subtree_control"), "+io")
            .context("giving the io controller to cgroups")?;
        Self::make(&Path::new(ROOT).join(name))
    }

    fn make(path: &Path) -> Result<Self> {
        fs::create_dir(path).with_context(|| path.display().to_string())?;
        Ok(Self(path.into()))
    }

    /// Its directory, as the call takes it.
    pub(super) fn open(&self) -> Result<File> {
        Ok(File::open(&self.0)?)
    }

    /// Bytes that were read and written in it, of all devices.
    fn bytes(&self) -> Result<u64> {
        let text = fs::read_to_string(self.0.join("io.stat"))?;
        let counted = ["rbytes=", "wbytes="];
        let values = text
            .split_whitespace()
            .filter_map(|word| counted.iter().find_map(|name| word.strip_prefix(name)));
        Ok(values.map(str::parse::<u64>).sum::<Result<u64, _>>()?)
    }

    fn remove(&self) -> Result<()> {
        fs::remove_dir(&self.0).with_context(|| format!("rmdir {}", self.0.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn mount(arguments: &[&str]) -> Result<()> {
    let done = Command::new("mount").args(arguments).status()?;
    ensure!(done.success(), "mount {arguments:?}: {done}");
    Ok(())
}

pub(super) fn add(adapter: &Adapter, env: &Env, lun: u32, cgroup: i32) -> Result<AddLun, Refused> {
    let argument = AddLun {
        lun,
        fd: env.device.as_raw_fd(),
        flags: add_flags::CGROUP,
        cgroup,
        ..AddLun::ZERO
    };
    adapter.call(ADD_LUN, &argument)
}

fn no_cgroup(env: &Env) -> Result<Outcome> {
    use SetupError::{CgroupWithoutIo, NotCgroup, Reserved};
    let group = Group::new("avio-none")?;
    let child = Group::make(&group.0.join("child"))?;
    let mut guest = Guest::start(env, &PLAIN)?;
    let adapter = &guest.adapter;
    let path_only = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_PATH.bits())
        .open(&group.0)?;
    let removed = {
        let gone = Group::make(&group.0.join("gone"))?;
        gone.open()?
    };
    let files = [
        ("a character device", File::open("/dev/null")?),
        ("a block device", env.device.try_clone()?),
        ("another directory", File::open("/proc")?),
        ("a file of a cgroup", File::open(group.0.join("io.stat"))?),
        ("a descriptor of a path only", path_only),
        ("a cgroup that was removed", removed),
        (
            "the adapter",
            File::from(adapter.as_fd().try_clone_to_owned()?),
        ),
    ];
    for (what, file) in &files {
        refused(what, add(adapter, env, 1, file.as_raw_fd()), NotCgroup)?;
    }
    for fd in [-1, 1_000_000, i32::MAX, i32::MIN] {
        let what = format!("descriptor {fd}");
        refused(&what, add(adapter, env, 1, fd), NotCgroup)?;
    }
    let closed = group.open()?.as_raw_fd();
    refused("a closed one", add(adapter, env, 1, closed), NotCgroup)?;
    let without = child.open()?;
    let without = add(adapter, env, 1, without.as_raw_fd());
    refused("a cgroup without io", without, CgroupWithoutIo)?;
    let fd = group.open()?;
    let right = AddLun {
        lun: 1,
        fd: env.device.as_raw_fd(),
        flags: add_flags::CGROUP | lun_flags::READ_ONLY,
        cgroup: fd.as_raw_fd(),
        ..AddLun::ZERO
    };
    let wrong = [
        AddLun { flags: 0, ..right },
        AddLun {
            reserved: 1,
            ..right
        },
        AddLun {
            flags: 0,
            cgroup: -1,
            ..right
        },
    ];
    for call in wrong {
        refused("reserved", adapter.call(ADD_LUN, &call), Reserved)?;
    }
    let old = old_cgroup(adapter, env)?;
    let info = adapter.call(ADD_LUN, &right)?.info;
    let shown = info.flags & add_flags::CGROUP == 0 && info.flags & lun_flags::READ_ONLY != 0;
    ensure!(shown, "the description has the flags {:#x}", info.flags);
    guest.works(0, 50)?;
    Ok(Outcome::Pass(old))
}

/// A cgroup of version 1 is none; what was seen.
fn old_cgroup(adapter: &Adapter, env: &Env) -> Result<String> {
    let place = "/tmp/avio-cgroup-v1";
    fs::create_dir_all(place)?;
    if mount(&["-t", "cgroup", "-o", "none,name=avio", "none", place]).is_err() {
        return Ok("this kernel has no cgroup v1".into());
    }
    let directory = File::open(place)?;
    let added = add(adapter, env, 1, directory.as_raw_fd());
    drop(directory);
    let unmounted = Command::new("umount").arg(place).status()?;
    ensure!(unmounted.success(), "umount {place}: {unmounted}");
    refused("cgroup v1", added, SetupError::NotCgroup)?;
    Ok(String::new())
}

/// Whoever may only read a cgroup does not charge it with I/O. The user is each thread's own.
fn somebody_elses(env: &Env) -> Result<Outcome> {
    let group = Group::new("avio-other")?;
    let directory = group.open()?;
    let adapter = Adapter::open()?;
    let as_nobody = || -> Result<()> {
        nix::unistd::setfsuid(65534.into());
        let added = add(&adapter, env, 1, directory.as_raw_fd());
        refused("read-only", added, SetupError::CgroupDenied)?;
        Ok(())
    };
    std::thread::scope(|scope| scope.spawn(as_nobody).join().expect("thread"))?;
    add(&adapter, env, 1, directory.as_raw_fd()).context("as root")?;
    pass()
}

/// A cgroup that is removed, or loses its controller, while its LUN is at work: the I/O goes on, in the parent.
fn goes(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &TWO_QUEUES)?;
    for round in 0..10 {
        let group = Group::new("avio-goes")?;
        let inner = Group::make(&group.0.join("inner"))?;
        let control = group.0.join("cgroup.subtree_control");
        fs::write(&control, "+io")?;
        let directory = inner.open()?;
        add(&guest.adapter, env, 1, directory.as_raw_fd()).context("ADD_LUN")?;
        drop(directory);
        let tags = [0, 1, 2, 3, 4, 5];
        let reads = tags.map(|tag| read(tag, 0, &[(DATA, 65536)]).on(1));
        let queue = guest.queue();
        queue.expect(&reads[0], Status::Attention, "a LUN that was added")?;
        all_ok(queue.all(&reads)?)?;
        let counted = inner.bytes()?;
        let wanted = tags.len() as u64 * 65536;
        ensure!(
            counted == wanted,
            "{counted} bytes instead of {wanted} were counted in the cgroup"
        );
        queue.go(&reads)?;
        if round % 2 == 0 {
            fs::write(&control, "-io").context("taking the io controller away")?;
        }
        inner.remove()?;
        group.remove()?;
        all_ok(queue.answers(&tags)?)?;
        all_ok(queue.all(&reads)?)?;
        guest.adapter.remove_lun(1, remove_flags::FORCE)?;
    }
    guest.works(0, 51)?;
    pass()
}

fn all_ok(statuses: Vec<Status>) -> Result<()> {
    let right = statuses.iter().all(|status| *status == Status::Ok);
    ensure!(right, "{statuses:?}");
    Ok(())
}
