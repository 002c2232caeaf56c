// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Memory tables: bad ones are refused and leave the old one, good ones may come at any time.

use crate::adapter::{refused, Adapter};
use crate::counts::{locked, pinned};
use crate::guest::queue::QUEUE_BYTES;
use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use crate::sys::{drop_ipc_lock, Mapping};
use anyhow::{bail, ensure, Context, Result};
use avio_abi::ioctl::{region_flags, Region, SetupError};
use avio_abi::wire::Wire;
use nix::sys::resource::{getrlimit, setrlimit, Resource};
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

pub const TESTS: &[Test] = &[
    ("m4_bad_tables", bad_tables),
    ("m4_memory_that_cannot_be_pinned", unpinnable),
    ("m4_file_on_disk", file_on_disk),
    ("m8_memlock_limit", memlock_limit),
    ("m10_thousands_of_tables", thousands),
];

/// Demands that a table is refused, for this reason and at its last region.
fn refuses(adapter: &Adapter, what: &str, table: &[Region], wanted: SetupError) -> Result<()> {
    let index = refused(what, adapter.set_memory(table), wanted)?;
    let (last, many) = (table.len() as u32 - 1, SetupError::TooManyRegions);
    let right = index == last || wanted == many || wanted == SetupError::MemoryLimit;
    ensure!(right, "{what}: index {index} instead of {last}");
    Ok(())
}

fn bad_tables(env: &Env) -> Result<Outcome> {
    use SetupError::{RegionBounds, RegionOverlap, Reserved, TooManyRegions};
    const FAR: u64 = 1 << 40;
    const LAST: u64 = 0xffff_ffff_ffff_f000;
    let mut guest = Guest::simple(env)?;
    let good = regions(&guest.mapping);
    let adapter = Adapter::open()?;
    type Change = fn(&mut Region);
    let bad: [(&str, SetupError, Change); 13] = [
        ("overlap of all", RegionOverlap, |_| ()),
        ("overlap by a page", RegionOverlap, |r| {
            r.guest_addr += r.size - 4096
        }),
        ("overlap from below", RegionOverlap, |r| {
            r.guest_addr -= 4096
        }),
        ("empty", RegionBounds, |r| r.size = 0),
        ("unaligned guest address", RegionBounds, |r| {
            r.guest_addr = FAR + 512
        }),
        ("unaligned size", RegionBounds, |r| r.size -= 1),
        ("unaligned user address", RegionBounds, |r| r.user_addr += 8),
        ("guest addresses that wrap", RegionBounds, |r| {
            r.guest_addr = LAST
        }),
        ("addresses past 52 bits", RegionBounds, |r| {
            r.guest_addr = (1 << 52) - 4096
        }),
        ("size of everything", RegionBounds, |r| r.size = LAST),
        ("user addresses that wrap", RegionBounds, |r| {
            (r.guest_addr, r.user_addr) = (FAR, LAST)
        }),
        ("unknown flag", Reserved, |r| {
            (r.guest_addr, r.flags) = (FAR, 2)
        }),
        ("reserved field", Reserved, |r| {
            (r.guest_addr, r.reserved) = (FAR, 1)
        }),
    ];
    for (what, error, change) in bad {
        let mut region = good[1];
        change(&mut region);
        refuses(&adapter, what, &[good[0], good[1], region], error)?;
    }
    let page = |page: u64| Region {
        guest_addr: page << 12,
        size: 4096,
        ..good[1]
    };
    let many: Vec<_> = (0..257).map(page).collect();
    refuses(&adapter, "257 regions", &many, TooManyRegions)?;
    adapter.set_memory(&many[..256]).context("256 regions")?;
    adapter.set_memory(&[]).context("no regions")?;
    // A refused table leaves the one that is in use as it was.
    let twice = [good[1]; 2];
    refuses(
        &guest.adapter,
        "overlap while running",
        &twice,
        RegionOverlap,
    )?;
    let none = guest.adapter.set_memory(&[]);
    refused("no memory while running", none, SetupError::Running)?;
    guest.works(0, 21).context("after a refused table")?;
    pass()
}

/// A device's registers, mapped: memory that is no memory of the host's.
fn registers() -> Option<Mapping> {
    let devices = std::fs::read_dir("/sys/bus/pci/devices").ok()?.flatten();
    let bar = |device: &PathBuf, bar| device.join(format!("resource{bar}"));
    let bars = devices.flat_map(|device| (0..6).map(move |n| bar(&device.path(), n)));
    let open = |path| OpenOptions::new().read(true).write(true).open(path).ok();
    bars.filter_map(open)
        .find_map(|file| Mapping::of_file(4096, &file).ok())
}

fn unpinnable(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let adapter = Adapter::open()?;
    let good = regions(&guest.mapping)[1];
    let at = |user_addr, flags| Region {
        guest_addr: 1 << 40,
        size: 4096,
        user_addr,
        flags,
        reserved: 0,
    };
    let reading = region_flags::READ_ONLY;
    let none = Mapping::anonymous(1 << 16, 0)?;
    let read_only = Mapping::anonymous(1 << 16, libc::PROT_READ)?;
    let (nowhere, constant) = (none.user_addr(), read_only.user_addr());
    let mut bad = vec![
        ("unmapped memory", at(0x1000, 0)),
        ("a kernel address", at(0xffff_8880_0000_0000, 0)),
        ("inaccessible memory", at(nowhere, 0)),
        ("inaccessible memory for reading", at(nowhere, reading)),
        ("read-only memory for writing", at(constant, 0)),
    ];
    let registers = registers().context("no device's registers can be mapped")?;
    let addr = registers.user_addr();
    bad.push(("a device's registers", at(addr, 0)));
    bad.push(("a device's registers for reading", at(addr, reading)));
    for (what, region) in bad {
        refuses(
            &adapter,
            what,
            &[good, region],
            SetupError::RegionUnpinnable,
        )?;
    }
    let pages = adapter.set_memory(&[at(constant, reading)]);
    ensure!(
        pages == Ok(1),
        "read-only memory, for reading only: {pages:?}"
    );
    guest.works(0, 22)?;
    pass()
}

fn file_on_disk(env: &Env) -> Result<Outcome> {
    let Some(path) = &env.disk_file else {
        return Ok(Outcome::Skip("needs --disk-file".to_owned()));
    };
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    let file = options.open(path)?;
    file.set_len(1 << 16)?;
    let mapping = Mapping::of_file(1 << 16, &file)?;
    let region = Region {
        size: 1 << 16,
        user_addr: mapping.user_addr(),
        ..Region::ZERO
    };
    let wanted = SetupError::RegionUnpinnable;
    refuses(&Adapter::open()?, "a file on disk", &[region], wanted)?;
    pass()
}

fn memlock_limit(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let table = regions(&guest.mapping);
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    // The limit is the whole program's, the capability that overrides it each thread's own.
    let limit = |bytes| setrlimit(Resource::RLIMIT_MEMLOCK, bytes, hard.max(bytes));
    let refused = |what: &str, adapter: &_| refuses(adapter, what, &table, SetupError::MemoryLimit);
    let limited = || -> Result<()> {
        drop_ipc_lock().context("dropping CAP_IPC_LOCK")?;
        let (first, second) = (Adapter::open()?, Adapter::open()?);
        limit(64 << 10)?;
        refused("10 MiB under a limit of 64 KiB", &first)?;
        refused("the same again", &first)?;
        let before = locked()?;
        let room = (before << 10) + table.iter().map(|region| region.size).sum::<u64>();
        limit(room - 4096)?;
        refused("a page too much", &first)?;
        limit(room)?;
        first.set_memory(&table).context("as much as is allowed")?;
        refused("a second adapter's", &second)?;
        drop(first);
        let after = locked()?;
        ensure!(after == before, "{after} kB are locked, {before} kB before");
        let again = second.set_memory(&table);
        again.context("as much again, after the first adapter was closed")?;
        Ok(())
    };
    let result = std::thread::scope(|scope| scope.spawn(limited).join().expect("thread"));
    limit(soft)?;
    result?;
    guest.works(0, 23)?;
    pass()
}

fn thousands(env: &Env) -> Result<Outcome> {
    const TABLES: u32 = 2000;
    let mut guest = Guest::simple(env)?;
    // Small ones, so that there can be many: the rings, and a page of data.
    let [_, large, _] = regions(&guest.mapping)[..] else {
        bail!("another number of regions");
    };
    let data = Region {
        guest_addr: DATA,
        user_addr: large.user_addr + (DATA - RAM),
        size: 4096,
        ..large
    };
    let rings = Region {
        size: QUEUE_BYTES,
        ..large
    };
    let small = [rings, data];
    guest.set_memory(&small)?;
    let (before, stop) = ((locked()?, pinned()?), AtomicBool::new(false));
    let others = {
        let (adapter, stop) = (&guest.adapter, &stop);
        let queues = &mut guest.queues;
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || -> Result<u64> {
                let mut reads = 0;
                while !stop.load(Ordering::Relaxed) {
                    queues[0].ok(&read(0, 0, &[(DATA, 4096)]))?;
                    reads += 1;
                }
                Ok(reads)
            });
            let set = |_| until_done("SET_MEMORY", || adapter.set_memory(&small));
            let result = (0..TABLES).try_for_each(set);
            stop.store(true, Ordering::Relaxed);
            let reads = reader.join().expect("reader");
            result.and(reads)
        })?
    };
    // The second guest's pages are among those that are pinned, but they stay as they are.
    let after = (locked()?, pinned()?);
    ensure!(
        after == before,
        "kB locked and pages pinned: {after:?}, {before:?} before"
    );
    guest.set_memory(&regions(&guest.mapping))?;
    guest.works(0, 26)?;
    Ok(Outcome::Pass(format!(
        "{TABLES} tables, {others} reads meanwhile"
    )))
}
