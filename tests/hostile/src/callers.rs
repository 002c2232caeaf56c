// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Attacks by way of the ioctls.

use crate::adapter::{errno_of, Adapter, Refused};
use crate::guest::*;
use crate::{pass, sys, Env, Outcome, Test};
use anyhow::{ensure, Context, Result};
use avio_abi::ioctl::*;
use avio_abi::stor::lun_flags;
use avio_abi::wire::Wire;
use avio_abi::ABI_VERSION;
use nix::errno::Errno;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("c1_calls_out_of_order", c1_order),
    ("c1_calls_repeated", c1_repeated),
    ("c1_calls_during_io_from_two_threads", c1_threads),
    ("c1_stop_with_requests_in_flight", c1_stop),
    ("c1_close_with_requests_in_flight", c1_close),
    ("c2_wrong_descriptors", c2),
    ("c3_read_only_device", c3),
    ("c6_reserved_fields", c6_reserved),
    ("c6_unknown_calls_and_sizes", c6_sizes),
    ("c6_bad_pointers", c6_pointers),
    ("c6_versions_and_features", c6_features),
];

const CONFIG: Config<'_> = Config {
    queues: 2,
    size: 8,
    luns: &[(0, 0)],
    features: u64::MAX,
};

/// Demands that a call was refused for this reason, with the errno that belongs to it.
fn refused<T: std::fmt::Debug>(
    what: &str,
    result: Result<T, Refused>,
    wanted: SetupError,
) -> Result<()> {
    let refused = result
        .err()
        .with_context(|| format!("{what} was accepted"))?;
    let right = refused.error == Some(wanted) && refused.errno == errno_of(wanted);
    ensure!(
        right,
        "{what}: {refused} instead of {wanted:?} with {:?}",
        errno_of(wanted)
    );
    Ok(())
}

fn c1_order(env: &Env) -> Result<Outcome> {
    let empty = Adapter::open()?;
    let nothing_set = empty
        .start(1)
        .err()
        .context("START of a fresh adapter was accepted")?;
    let wanted = [SetupError::NotConfigured, SetupError::NoMemoryTable];
    ensure!(
        nothing_set
            .error
            .is_some_and(|error| wanted.contains(&error)),
        "START of a fresh adapter: {nothing_set}"
    );
    ensure!(
        nothing_set.errno == Errno::EINVAL,
        "START of a fresh adapter: {nothing_set}"
    );
    empty.stop().context("STOP of a fresh adapter")?;
    ensure!(
        empty.queue(0).err() == Some(Errno::EINVAL),
        "GET_QUEUE of a fresh adapter"
    );
    ensure!(
        empty.remove_lun(0) == Err(Errno::ENOENT),
        "REMOVE_LUN of a LUN that is not there"
    );

    let mut guest = Guest::prepare(env, &CONFIG)?;
    guest.make_queues(2, 8)?;
    empty.set_features(1, guest.features)?;
    refused(
        "SET_QUEUE without memory",
        empty.set_queue(&guest.queues[0].description()),
        SetupError::NoMemoryTable,
    )?;

    refused(
        "START without features",
        guest.adapter.start(1),
        SetupError::NotConfigured,
    )?;
    guest.adapter.set_features(1, guest.features)?;
    refused(
        "START without queues",
        guest.adapter.start(1),
        SetupError::NotConfigured,
    )?;
    guest.adapter.set_queue(&guest.queues[1].description())?;
    refused(
        "START without queue 0",
        guest.adapter.start(2),
        SetupError::NotConfigured,
    )?;
    guest.adapter.set_queue(&guest.queues[0].description())?;
    refused(
        "START with a queue too many",
        guest.adapter.start(3),
        SetupError::NotConfigured,
    )?;
    refused(
        "START with queues out of range",
        guest.adapter.start(65),
        SetupError::QueueRange,
    )?;
    ensure!(
        guest.adapter.start(0).is_err(),
        "START without any queue was accepted"
    );
    guest.adapter.start(2).context("START after all")?;
    guest.works(0, 40)?;
    guest.works(1, 41)?;
    guest.adapter.stop()?;
    // STOP has forgotten features and queues.
    refused(
        "START after STOP",
        guest.adapter.start(2),
        SetupError::NotConfigured,
    )?;
    pass()
}

fn c1_repeated(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &CONFIG)?;
    refused("START twice", guest.adapter.start(2), SetupError::Running)?;
    ensure!(
        guest.adapter.remove_lun(0) == Err(Errno::EBUSY),
        "REMOVE_LUN while running"
    );
    guest.works(0, 42)?;
    guest.adapter.stop()?;
    guest.adapter.stop().context("STOP twice")?;
    refused(
        "LUN twice",
        guest.adapter.add_lun(0, env.device.as_raw_fd(), 0),
        SetupError::LunBusy,
    )?;
    let table = regions(&guest.mapping);
    for round in 0..20 {
        guest.adapter.set_memory(&table)?;
        guest.set_up(2, 8)?;
        guest.works(0, round)?;
        guest.adapter.stop()?;
        guest.adapter.remove_lun(0)?;
        guest.adapter.add_lun(0, env.device.as_raw_fd(), 0)?;
    }
    pass()
}

/// Keeps a ring full of reads without waiting for any.
fn flood(guest: &mut Guest) -> Result<()> {
    let long = guest.lun.max_bytes.min(1 << 19);
    for tag in 0..8 {
        guest.queue().push(&read(tag, 0, &[(DATA, long)]));
    }
    guest.queue().publish()
}

fn c1_threads(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &CONFIG)?;
    let stop = AtomicBool::new(false);
    let table = regions(&guest.mapping);
    let descriptions: Vec<_> = guest.queues.iter().map(Queue::description).collect();
    let allowed = [
        Errno::EBUSY,
        Errno::EINVAL,
        Errno::EEXIST,
        Errno::ENOENT,
        Errno::EINTR,
    ];
    let allowed_here =
        |errno: Errno| ensure_that(allowed.contains(&errno), || format!("unexpected {errno:?}"));
    let (adapter, features) = (&guest.adapter, guest.features);
    let caller = || -> Result<u32> {
        let mut calls = 0;
        while !stop.load(Ordering::Relaxed) {
            let results = [
                adapter.stop().err(),
                adapter
                    .set_memory(&table)
                    .err()
                    .map(|refused| refused.errno),
                adapter
                    .set_features(1, features)
                    .err()
                    .map(|refused| refused.errno),
                adapter
                    .set_queue(&descriptions[0])
                    .err()
                    .map(|refused| refused.errno),
                adapter
                    .set_queue(&descriptions[1])
                    .err()
                    .map(|refused| refused.errno),
                adapter.start(2).err().map(|refused| refused.errno),
                adapter.queue(0).err(),
                descriptions_kick(&guest.queues),
                adapter
                    .add_lun(1, env.device.as_raw_fd(), 0)
                    .err()
                    .map(|refused| refused.errno),
                adapter.remove_lun(1).err(),
            ];
            results.into_iter().flatten().try_for_each(allowed_here)?;
            calls += results.len() as u32;
        }
        Ok(calls)
    };
    let counts = std::thread::scope(|scope| {
        let threads = [scope.spawn(caller), scope.spawn(caller)];
        std::thread::sleep(Duration::from_millis(1500));
        stop.store(true, Ordering::Relaxed);
        threads.map(|thread| thread.join().expect("caller"))
    });
    let [first, second] = counts;
    let calls = first? + second?;
    guest.restart()?;
    guest.works(0, 43)?;
    guest.works(1, 44)?;
    guest.canaries()?;
    Ok(Outcome::Pass(format!("{calls} calls")))
}

/// Rings every doorbell.
fn descriptions_kick(queues: &[Queue]) -> Option<Errno> {
    queues
        .iter()
        .find_map(|queue| queue.kick.write(1).err())
        .filter(|errno| *errno != Errno::EAGAIN)
}

fn ensure_that(right: bool, what: impl FnOnce() -> String) -> Result<()> {
    ensure!(right, what());
    Ok(())
}

fn c1_stop(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &CONFIG)?;
    for round in 0..20 {
        flood(&mut guest)?;
        guest.adapter.stop()?;
        // After STOP nothing is written any more.
        guest.fill(DATA, 0, 4096, round);
        std::thread::sleep(Duration::from_millis(5));
        guest
            .verify(DATA, 0, 4096, round)
            .context("memory was written after STOP")?;
        guest.set_up(2, 8)?;
        guest.works(0, round)?;
    }
    pass()
}

fn c1_close(env: &Env) -> Result<Outcome> {
    for _ in 0..20 {
        let mut guest = Guest::start(env, &CONFIG)?;
        flood(&mut guest)?;
        let Guest {
            adapter,
            mapping,
            queues,
            ..
        } = guest;
        drop(adapter);
        let left = Instant::now() + SILENCE / 10;
        mapping.u64(0x18_0000).store(7, Ordering::Relaxed);
        while Instant::now() < left {}
        drop((queues, mapping));
    }
    pass()
}

fn c2(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::prepare(env, &CONFIG)?;
    guest.adapter.set_features(1, guest.features)?;
    guest.make_queues(2, 8)?;
    let null = File::open("/dev/null")?;
    let file = File::open("/proc/self/exe")?;
    let other = Adapter::open()?;
    let eventfd = guest.queues[0].kick.as_fd().as_raw_fd();
    let not_devices = [
        ("a character device", null.as_raw_fd()),
        ("a file", file.as_raw_fd()),
        ("an eventfd", eventfd),
        ("the adapter itself", guest.adapter.raw_fd()),
        ("another adapter", other.raw_fd()),
    ];
    for (what, fd) in not_devices {
        refused(
            what,
            guest.adapter.add_lun(1, fd, lun_flags::READ_ONLY),
            SetupError::NotBlockDevice,
        )?;
    }
    let good = guest.queues[0].description();
    let not_events = [
        ("a file", file.as_raw_fd()),
        ("the block device", env.device.as_raw_fd()),
        ("the adapter itself", guest.adapter.raw_fd()),
        ("another adapter", other.raw_fd()),
    ];
    for (what, fd) in not_events {
        let kick = guest.adapter.set_queue(&SetQueue {
            kick_fd: fd,
            ..good
        });
        refused(&format!("{what} as kick"), kick, SetupError::NotEventfd)?;
        let call = guest.adapter.set_queue(&SetQueue {
            call_fd: fd,
            ..good
        });
        refused(&format!("{what} as call"), call, SetupError::NotEventfd)?;
    }
    for fd in [-1, 1_000_000, i32::MAX, i32::MIN] {
        refused(
            &format!("descriptor {fd}"),
            guest.adapter.add_lun(1, fd, 0),
            SetupError::NotBlockDevice,
        )?;
        let results = [
            guest.adapter.set_queue(&SetQueue {
                kick_fd: fd,
                ..good
            }),
            guest.adapter.set_queue(&SetQueue {
                call_fd: fd,
                ..good
            }),
        ];
        for result in results {
            let refused = result
                .err()
                .with_context(|| format!("descriptor {fd} was accepted"))?;
            ensure!(
                refused.errno == Errno::EBADF,
                "descriptor {fd}: {refused} instead of EBADF"
            );
        }
    }
    guest.set_up(2, 8)?;
    guest.works(1, 45)?;
    pass()
}

fn c3(env: &Env) -> Result<Outcome> {
    let device = File::open(&env.device_path)?;
    let guest = Guest::prepare(env, &CONFIG)?;
    refused(
        "a device that is open for reading",
        guest.adapter.add_lun(1, device.as_raw_fd(), 0),
        SetupError::DeviceReadOnly,
    )?;
    let info = guest
        .adapter
        .add_lun(1, device.as_raw_fd(), lun_flags::READ_ONLY)
        .context("attached read-only")?;
    ensure!(
        info.flags & lun_flags::READ_ONLY != 0,
        "the LUN's description does not say read-only"
    );
    pass()
}

/// Demands that a call is refused because a reserved field is set. `error`: the structure's own, if it has one.
fn reserved<T: Wire>(
    adapter: &Adapter,
    what: &str,
    request: u32,
    argument: &T,
    error: fn(&T) -> Option<u32>,
) -> Result<()> {
    let (result, after) = adapter.call(request, argument);
    ensure!(
        result == Err(Errno::EINVAL),
        "{what}: {result:?} instead of EINVAL"
    );
    let error = error(&after);
    ensure!(
        error.is_none_or(|error| error == SetupError::Reserved as u32),
        "{what}: error {error:?}"
    );
    Ok(())
}

fn c6_reserved(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::prepare(env, &CONFIG)?;
    guest.adapter.set_features(1, guest.features)?;
    guest.make_queues(2, 8)?;
    let adapter = &guest.adapter;
    let table = regions(&guest.mapping);
    let bytes: Vec<u8> = table.iter().flat_map(Region::to_bytes).collect();
    let memory = SetMemory {
        regions: bytes.as_ptr() as u64,
        count: 3,
        reserved: 1,
        ..SetMemory::ZERO
    };
    reserved(adapter, "SET_MEMORY", SET_MEMORY, &memory, |after| {
        Some(after.error)
    })?;
    let fd = env.device.as_raw_fd();
    let lun = AddLun {
        lun: 1,
        fd,
        ..AddLun::ZERO
    };
    reserved(
        adapter,
        "ADD_LUN",
        ADD_LUN,
        &AddLun {
            reserved: [1],
            ..lun
        },
        |after| Some(after.error),
    )?;
    for bit in (0..32).filter(|bit| 1 << bit != lun_flags::READ_ONLY) {
        let flagged = AddLun {
            flags: 1 << bit,
            ..lun
        };
        reserved(
            adapter,
            &format!("ADD_LUN flag {bit}"),
            ADD_LUN,
            &flagged,
            |after| Some(after.error),
        )?;
    }
    for field in 0..3 {
        let mut remove = RemoveLun::ZERO;
        remove.reserved[field] = 1;
        reserved(adapter, "REMOVE_LUN", REMOVE_LUN, &remove, |_| None)?;
    }
    let features = SetFeatures {
        version: 1,
        reserved: 1 << 63,
        ..SetFeatures::ZERO
    };
    reserved(adapter, "SET_FEATURES", SET_FEATURES, &features, |after| {
        Some(after.error)
    })?;
    let queue = guest.queues[0].description();
    reserved(
        adapter,
        "SET_QUEUE",
        SET_QUEUE,
        &SetQueue {
            reserved: 1,
            ..queue
        },
        |after| Some(after.error),
    )?;
    reserved(
        adapter,
        "SET_QUEUE",
        SET_QUEUE,
        &SetQueue {
            reserved1: 1,
            ..queue
        },
        |after| Some(after.error),
    )?;
    let start = Start {
        queues: 2,
        reserved: 1,
        ..Start::ZERO
    };
    reserved(adapter, "START", START, &start, |after| Some(after.error))?;
    let info = adapter.info()?;
    ensure!(
        info.reserved == [0; 5] && info.version == ABI_VERSION,
        "GET_INFO: {info:?}"
    );
    // None of it left a trace.
    guest.set_up(2, 8)?;
    guest.works(0, 46)?;
    ensure!(
        guest.adapter.queue(0)?.reserved == [0; 7],
        "GET_QUEUE has something in its reserved fields"
    );
    pass()
}

fn c6_sizes(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &CONFIG)?;
    let mut unknown = 0;
    for known in [
        GET_INFO,
        SET_MEMORY,
        ADD_LUN,
        REMOVE_LUN,
        SET_FEATURES,
        SET_QUEUE,
        START,
        GET_QUEUE,
    ] {
        let size = known >> 16 & 0x3fff;
        for wrong in [
            0,
            1,
            size - 8,
            size - 1,
            size + 1,
            size + 8,
            2 * size,
            0x3fff,
        ] {
            let request = known & !(0x3fff << 16) | wrong << 16;
            let result = sys::ioctl(guest.adapter.as_fd(), request, &mut [0; 0x4000]);
            ensure!(
                result == Err(Errno::ENOTTY),
                "call {request:#x}: {result:?} instead of ENOTTY"
            );
            unknown += 1;
        }
        // The other directions, and another type.
        for request in [known ^ 3 << 30, known ^ 1 << 30, known ^ 0x100] {
            let result = sys::ioctl(guest.adapter.as_fd(), request, &mut [0; 0x4000]);
            ensure!(
                result == Err(Errno::ENOTTY),
                "call {request:#x}: {result:?} instead of ENOTTY"
            );
            unknown += 1;
        }
    }
    for number in 9..=255 {
        let request = u32::from(TYPE) << 8 | number;
        let result = sys::ioctl_raw(guest.adapter.as_fd(), request, 0);
        ensure!(
            result == Err(Errno::ENOTTY),
            "call {request:#x}: {result:?} instead of ENOTTY"
        );
        unknown += 1;
    }
    guest.works(0, 47)?;
    Ok(Outcome::Pass(format!("{unknown} calls refused")))
}

fn c6_pointers(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::start(env, &CONFIG)?;
    for request in [
        GET_INFO,
        SET_MEMORY,
        ADD_LUN,
        REMOVE_LUN,
        SET_FEATURES,
        SET_QUEUE,
        START,
        GET_QUEUE,
    ] {
        for address in [0, 8, 4095] {
            let result = sys::ioctl_raw(guest.adapter.as_fd(), request, address);
            ensure!(
                result == Err(Errno::EFAULT),
                "call {request:#x} at {address}: {result:?} instead of EFAULT"
            );
        }
    }
    let fresh = Adapter::open()?;
    for regions in [0, 8, u64::MAX - 7, 0xffff_8880_0000_0000] {
        let (result, _) = fresh.call(
            SET_MEMORY,
            &SetMemory {
                regions,
                count: 4,
                ..SetMemory::ZERO
            },
        );
        ensure!(
            result == Err(Errno::EFAULT),
            "regions at {regions:#x}: {result:?} instead of EFAULT"
        );
    }
    guest.works(0, 48)?;
    pass()
}

fn c6_features(env: &Env) -> Result<Outcome> {
    let guest = Guest::prepare(env, &CONFIG)?;
    let offered = guest.adapter.info()?.features;
    for version in [0, ABI_VERSION + 1, u32::MAX] {
        let what = format!("version {version}");
        refused(
            &what,
            guest.adapter.set_features(version, 0),
            SetupError::Features,
        )?;
    }
    for bit in (0..64).filter(|bit| offered & 1 << bit == 0) {
        let what = format!("feature bit {bit}");
        refused(
            &what,
            guest.adapter.set_features(1, offered | 1 << bit),
            SetupError::Features,
        )?;
    }
    guest
        .adapter
        .set_features(1, 0)
        .context("no features at all")?;
    guest
        .adapter
        .set_features(1, offered)
        .context("all features")?;
    pass()
}
