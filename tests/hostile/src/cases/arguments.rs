// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Calls with wrong descriptors, reserved fields, sizes, pointers and versions.

use crate::adapter::{refused, Adapter, Argument, CALLS};
use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use crate::sys;
use anyhow::{ensure, Context, Result};
use avio_abi::ioctl::*;
use avio_abi::stor::lun_flags;
use avio_abi::wire::Wire;
use avio_abi::ABI_VERSION;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;

pub const TESTS: &[Test] = &[
    ("c2_wrong_descriptors", wrong_descriptors),
    ("legal_eventfds_that_are_semaphores", semaphores),
    ("c3_read_only_device", read_only_device),
    ("c6_reserved_fields", reserved_fields),
    ("c6_unknown_calls_and_sizes", unknown_calls),
    ("c6_bad_pointers", bad_pointers),
    ("c6_versions_and_features", versions),
];

fn wrong_descriptors(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::prepare(&env.device, &PLAIN)?;
    guest.adapter.set_features(1, guest.features)?;
    guest.make_queues(1, 8)?;
    let (null, file) = (File::open("/dev/null")?, File::open("/proc/self/exe")?);
    let other = Adapter::open()?;
    let mut options = OpenOptions::new();
    let path_only = options.read(true).custom_flags(OFlag::O_PATH.bits());
    let path_only = path_only.open(&env.device_path)?;
    let write_only = OpenOptions::new().write(true).open(&env.device_path)?;
    let good = guest.queues[0].description();
    let adapter = &guest.adapter;
    let as_kick_and_call = |fd| {
        let (kick_fd, call_fd) = (fd, fd);
        [SetQueue { kick_fd, ..good }, SetQueue { call_fd, ..good }]
    };
    let devices = [
        ("a character device", null.as_raw_fd()),
        ("a file", file.as_raw_fd()),
        ("the block device", env.device.as_raw_fd()),
        ("an eventfd", good.kick_fd),
        ("the adapter itself", adapter.raw_fd()),
        ("another adapter", other.raw_fd()),
    ];
    for (what, fd) in devices {
        if fd != env.device.as_raw_fd() {
            let added = adapter.add_lun(1, fd, lun_flags::READ_ONLY);
            refused(what, added, SetupError::NotBlockDevice)?;
        }
        if fd != good.kick_fd {
            for queue in as_kick_and_call(fd) {
                refused(what, adapter.set_queue(&queue), SetupError::NotEventfd)?;
            }
        }
    }
    let added = adapter.add_lun(1, write_only.as_raw_fd(), 0);
    refused("open for writing only", added, SetupError::NotBlockDevice)?;
    for fd in [path_only.as_raw_fd(), -1, 1_000_000, i32::MAX, i32::MIN] {
        let what = format!("descriptor {fd}");
        refused(&what, adapter.add_lun(1, fd, 0), SetupError::NotBlockDevice)?;
        for queue in as_kick_and_call(fd) {
            let errno = adapter.set_queue(&queue).err().map(|refused| refused.errno);
            ensure!(
                errno == Some(Errno::EBADF),
                "{what}: {errno:?} instead of EBADF"
            );
        }
    }
    guest.set_up(1, 8)?;
    guest.works(0, 45)?;
    pass()
}

/// A read of such an eventfd takes one from its count, not all.
fn semaphores(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::prepare(&env.device, &PLAIN)?;
    guest.adapter.set_features(1, guest.features)?;
    guest.make_queues(1, 8)?;
    let flags = EfdFlags::EFD_SEMAPHORE | EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let queue = guest.queue();
    queue.kick = EventFd::from_flags(flags)?;
    queue.call = EventFd::from_flags(flags)?;
    guest.adapter.set_queue(&guest.queues[0].description())?;
    guest.adapter.start(1)?;
    for round in 0..20 {
        guest.works(0, round)?;
        (0..round).try_for_each(|_| guest.queue().kick())?;
    }
    guest.stop()?;
    pass()
}

fn read_only_device(env: &Env) -> Result<Outcome> {
    let device = File::open(&env.device_path)?;
    let guest = Guest::prepare(&env.device, &PLAIN)?;
    let adapter = &guest.adapter;
    let writable = adapter.add_lun(1, device.as_raw_fd(), 0);
    refused("open for reading", writable, SetupError::DeviceReadOnly)?;
    let info = adapter.add_lun(1, device.as_raw_fd(), lun_flags::READ_ONLY)?;
    let said = info.flags & lun_flags::READ_ONLY != 0;
    ensure!(said, "the LUN's description does not say read-only");
    pass()
}

/// Demands that a call is refused because of each of these changes to a right argument.
fn reserved<T: Argument + Copy>(
    adapter: &Adapter,
    request: u32,
    right: T,
    changes: &[fn(&mut T)],
) -> Result<()> {
    for (index, change) in changes.iter().enumerate() {
        let mut argument = right;
        change(&mut argument);
        let what = format!("call {request:#x}, change {index}");
        refused(
            &what,
            adapter.call(request, &argument),
            SetupError::Reserved,
        )?;
    }
    Ok(())
}

fn reserved_fields(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::prepare(&env.device, &PLAIN)?;
    guest.adapter.set_features(1, guest.features)?;
    guest.make_queues(1, 8)?;
    let adapter = &guest.adapter;
    let table = regions(&guest.mapping);
    let bytes: Vec<u8> = table.iter().flat_map(Region::to_bytes).collect();
    let memory = SetMemory {
        regions: bytes.as_ptr() as u64,
        count: 3,
        ..SetMemory::ZERO
    };
    reserved(adapter, SET_MEMORY, memory, &[|it| it.reserved = 1])?;
    let lun = AddLun {
        lun: 1,
        fd: env.device.as_raw_fd(),
        ..AddLun::ZERO
    };
    for flag in (0..32).map(|bit| 1 << bit) {
        if flag & (lun_flags::READ_ONLY | lun_flags::GATED | add_flags::CGROUP) == 0 {
            let flagged = AddLun { flags: flag, ..lun };
            let what = format!("ADD_LUN with flag {flag:#x}");
            refused(&what, adapter.call(ADD_LUN, &flagged), SetupError::Reserved)?;
        }
        if flag & (lun_flags::GATED | lun_flags::LOST) == 0 {
            let what = format!("UPDATE_LUN with flag {flag:#x}");
            refused(&what, adapter.update_lun(0, flag), SetupError::Reserved)?;
        }
        if flag != remove_flags::FORCE {
            let what = format!("REMOVE_LUN with flag {flag:#x}");
            refused(&what, adapter.remove_lun(0, flag), SetupError::Reserved)?;
        }
    }
    reserved(
        adapter,
        REMOVE_LUN,
        RemoveLun::ZERO,
        &[|it| it.reserved = 1],
    )?;
    let last: fn(&mut UpdateLun) = |it| it.reserved[4] = 1;
    reserved(
        adapter,
        UPDATE_LUN,
        UpdateLun::ZERO,
        &[|it| it.reserved[0] = 1, last],
    )?;
    reserved(
        adapter,
        SET_LIMITS,
        SetLimits::ZERO,
        &[|it| it.reserved = 1],
    )?;
    reserved(adapter, SET_POLL, SetPoll::ZERO, &[|it| it.reserved = 1])?;
    let task = Task {
        kind: avio_abi::pci::task::LUN_RESET,
        ..Task::ZERO
    };
    reserved(adapter, TASK, task, &[|it| it.reserved = 1])?;
    let features = SetFeatures {
        version: 1,
        ..SetFeatures::ZERO
    };
    reserved(
        adapter,
        SET_FEATURES,
        features,
        &[|it| it.reserved = 1 << 63],
    )?;
    let queue = guest.queues[0].description();
    reserved(
        adapter,
        SET_QUEUE,
        queue,
        &[|it| it.reserved = 1, |it| it.reserved1 = 1],
    )?;
    let start = Start {
        queues: 1,
        ..Start::ZERO
    };
    reserved(adapter, START, start, &[|it| it.reserved = 1])?;
    let info = adapter.info()?;
    let right = info.reserved == [0; 4] && info.version == ABI_VERSION;
    ensure!(right, "GET_INFO: {info:?}");
    // None of it left a trace.
    guest.set_up(1, 8)?;
    guest.works(0, 46)?;
    for field in 0..4 {
        let mut queue = QueueStatus::ZERO;
        queue.reserved[field] = 1;
        let errno = guest
            .adapter
            .call(GET_QUEUE, &queue)
            .err()
            .map(|it| it.errno);
        ensure!(errno == Some(Errno::EINVAL), "GET_QUEUE: {errno:?}");
    }
    for field in 0..7 {
        let mut lun = LunStatus::ZERO;
        lun.reserved[field] = 1;
        let errno = guest.adapter.call(GET_LUN, &lun).err().map(|it| it.errno);
        ensure!(errno == Some(Errno::EINVAL), "GET_LUN: {errno:?}");
    }
    let (queue, lun) = (guest.adapter.queue(0)?, guest.adapter.lun(0)?);
    let zero = queue.reserved == [0; 4] && lun.reserved == [0; 7];
    ensure!(
        zero,
        "there is something in the reserved fields of GET_QUEUE or GET_LUN"
    );
    pass()
}

fn unknown_calls(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let mut unknown = Vec::new();
    for known in CALLS {
        let size = known >> 16 & 0x3fff;
        let sizes = [
            0,
            1,
            size - 8,
            size - 1,
            size + 1,
            size + 8,
            2 * size,
            0x3fff,
        ];
        unknown.extend(sizes.map(|wrong| known & !(0x3fff << 16) | wrong << 16));
        // The other directions, and another type.
        unknown.extend([known ^ 3 << 30, known ^ 1 << 30, known ^ 0x100]);
    }
    unknown.extend((16..=255).map(|number| u32::from(TYPE) << 8 | number));
    for request in &unknown {
        let result = sys::ioctl(guest.adapter.as_fd(), *request, &mut [0; 0x4000]);
        let right = result == Err(Errno::ENOTTY);
        ensure!(right, "call {request:#x}: {result:?} instead of ENOTTY");
    }
    guest.works(0, 47)?;
    Ok(Outcome::Pass(format!("{} calls refused", unknown.len())))
}

fn bad_pointers(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    for request in CALLS {
        for address in [0, 8, 4095] {
            let result = sys::ioctl_raw(guest.adapter.as_fd(), request, address);
            let right = result == Err(Errno::EFAULT);
            ensure!(
                right,
                "call {request:#x} at {address}: {result:?} instead of EFAULT"
            );
        }
    }
    let fresh = Adapter::open()?;
    for regions in [0, 8, u64::MAX - 7, 0xffff_8880_0000_0000] {
        let table = SetMemory {
            regions,
            count: 4,
            ..SetMemory::ZERO
        };
        let errno = fresh
            .call(SET_MEMORY, &table)
            .err()
            .map(|refused| refused.errno);
        let right = errno == Some(Errno::EFAULT);
        ensure!(
            right,
            "regions at {regions:#x}: {errno:?} instead of EFAULT"
        );
    }
    guest.works(0, 48)?;
    pass()
}

fn versions(env: &Env) -> Result<Outcome> {
    let guest = Guest::prepare(&env.device, &PLAIN)?;
    let adapter = &guest.adapter;
    let offered = adapter.info()?.features;
    let refuses = |what: String, version, features| {
        let set = adapter.set_features(version, features);
        refused(&what, set, SetupError::Features).map(drop)
    };
    for version in [0, ABI_VERSION + 1, u32::MAX] {
        refuses(format!("version {version}"), version, 0)?;
    }
    for bit in (0..64).filter(|bit| offered & 1 << bit == 0) {
        refuses(format!("feature bit {bit}"), 1, offered | 1 << bit)?;
    }
    adapter.set_features(1, 0).context("no features at all")?;
    adapter.set_features(1, offered).context("all features")?;
    pass()
}
