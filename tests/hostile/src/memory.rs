// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Attacks by way of guest memory.

use crate::adapter::{errno_of, Adapter};
use crate::guest::*;
use crate::sys::{drop_ipc_lock, Mapping};
use crate::{pass, Env, Outcome, Test};
use anyhow::{ensure, Context, Result};
use avio_abi::ioctl::{region_flags, Region, SetupError};
use avio_abi::ring::Submission;
use avio_abi::stor::Status;
use avio_abi::wire::Wire;
use nix::sys::resource::{getrlimit, setrlimit, Resource};

pub const TESTS: &[Test] = &[
    ("m1_addresses_outside_of_memory", m1),
    ("m2_ranges_into_holes", m2),
    ("m3_ranges_that_wrap", m3),
    ("m4_bad_tables", m4_tables),
    ("m4_memory_that_cannot_be_pinned", m4_unpinnable),
    ("m4_file_on_disk", m4_file),
    ("m6_reads_into_read_only_memory", m6),
    ("m8_memlock_limit", m8),
];

/// READs and WRITEs at these addresses, inline and in lists, which must all be bad addresses.
fn bad_addresses(env: &Env, ranges: &[(u64, u32)], both_ways: bool) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    for range in ranges {
        let good = (DATA, guest.block());
        let mut cases: Vec<(&str, Submission)> = vec![
            ("read", read(0, 0, &[*range])),
            ("read behind a good segment", read(1, 0, &[good, *range])),
            (
                "read by list",
                with_list(&guest, read(2, 0, &[]), LIST, &[good, good, good, *range]),
            ),
        ];
        if both_ways {
            cases.push(("write", write(3, 0, &[*range])));
            cases.push((
                "write by list",
                with_list(&guest, write(4, 0, &[]), LIST + 4096, &[*range]),
            ));
        }
        for (what, entry) in cases {
            let what = format!("{what} at {:#x} + {:#x}", range.0, range.1);
            guest.queue().expect(&entry, Status::BadAddress, &what)?;
        }
        guest.works(0, 20)?;
    }
    guest.canaries()?;
    pass()
}

fn m1(env: &Env) -> Result<Outcome> {
    let page = 4096;
    let addrs = [
        0,
        RAM - page,
        NEXT + NEXT_SIZE,
        ROM - page,
        ROM + ROM_SIZE,
        1 << 40,
        (1 << 52) - page,
        1 << 52,
        1 << 63,
    ];
    bad_addresses(env, &addrs.map(|addr| (addr, 4096)), true)
}

fn m2(env: &Env) -> Result<Outcome> {
    let ranges = [
        (RAM - 4096, 8192),
        (NEXT + NEXT_SIZE - 4096, 8192),
        (ROM - 4096, 8192),
        (ROM + ROM_SIZE - 4096, 8192),
        (ROM - 4096, ROM_SIZE as u32 + 8192),
    ];
    bad_addresses(env, &ranges, true)
}

fn m3(env: &Env) -> Result<Outcome> {
    let ranges = [
        (u64::MAX - 4095, 4096),
        (u64::MAX - 4095, 8192),
        (u64::MAX - 8191, 65536),
        ((1 << 52) - 4096, 8192),
    ];
    bad_addresses(env, &ranges, true)
}

fn m6(env: &Env) -> Result<Outcome> {
    bad_addresses(env, &[(ROM, 4096), (ROM + ROM_SIZE - 4096, 4096)], false)
}

/// Demands that a table is refused, for this reason and at this region.
fn refuses(
    adapter: &Adapter,
    what: &str,
    table: &[Region],
    wanted: SetupError,
    index: Option<u32>,
) -> Result<()> {
    let refused = adapter
        .set_memory(table)
        .err()
        .with_context(|| format!("{what} was accepted"))?;
    let right = refused.error == Some(wanted) && refused.errno == errno_of(wanted);
    ensure!(
        right,
        "{what}: {refused} instead of {wanted:?} with {:?}",
        errno_of(wanted)
    );
    ensure!(
        index.is_none_or(|index| refused.index == index),
        "{what}: index {} instead of {index:?}",
        refused.index
    );
    Ok(())
}

fn m4_tables(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let good = regions(&guest.mapping);
    let adapter = Adapter::open()?;
    let base = good[1];
    type Change = fn(&mut Region);
    let bad: [(&str, SetupError, Change); 13] = [
        ("overlap of all", SetupError::RegionOverlap, |_| ()),
        ("overlap by a page", SetupError::RegionOverlap, |r| {
            r.guest_addr += r.size - 4096
        }),
        ("overlap from below", SetupError::RegionOverlap, |r| {
            r.guest_addr -= 4096
        }),
        ("empty", SetupError::RegionBounds, |r| r.size = 0),
        ("unaligned guest address", SetupError::RegionBounds, |r| {
            r.guest_addr = 0x8000_0200
        }),
        ("unaligned size", SetupError::RegionBounds, |r| r.size -= 1),
        ("unaligned user address", SetupError::RegionBounds, |r| {
            r.user_addr += 8
        }),
        ("guest addresses that wrap", SetupError::RegionBounds, |r| {
            r.guest_addr = 0xffff_ffff_ffff_f000
        }),
        (
            "guest addresses past 52 bits",
            SetupError::RegionBounds,
            |r| r.guest_addr = (1 << 52) - 4096,
        ),
        ("size of everything", SetupError::RegionBounds, |r| {
            r.size = 0xffff_ffff_ffff_f000
        }),
        ("user addresses that wrap", SetupError::RegionBounds, |r| {
            (r.guest_addr, r.user_addr) = (1 << 40, 0xffff_ffff_ffff_f000);
        }),
        ("unknown flag", SetupError::Reserved, |r| {
            (r.guest_addr, r.flags) = (1 << 40, 2)
        }),
        ("reserved field", SetupError::Reserved, |r| {
            (r.guest_addr, r.reserved) = (1 << 40, 1)
        }),
    ];
    for (what, error, change) in bad {
        let mut region = base;
        change(&mut region);
        refuses(&adapter, what, &[good[0], base, region], error, Some(2))?;
    }
    let many: Vec<_> = (0..257)
        .map(|page| Region {
            guest_addr: page << 12,
            size: 4096,
            ..base
        })
        .collect();
    refuses(
        &adapter,
        "257 regions",
        &many,
        SetupError::TooManyRegions,
        None,
    )?;
    adapter.set_memory(&many[..256]).context("256 regions")?;
    adapter.set_memory(&[]).context("no regions")?;
    // A refused table leaves the one that is in use as it was.
    refuses(
        &guest.adapter,
        "overlap while running",
        &[base, base],
        SetupError::RegionOverlap,
        Some(1),
    )?;
    guest.works(0, 21).context("after a refused table")?;
    pass()
}

/// A device's registers, mapped: memory that is no memory of the host's.
fn registers() -> Option<Mapping> {
    let devices = std::fs::read_dir("/sys/bus/pci/devices").ok()?.flatten();
    let bars = devices
        .flat_map(|device| (0..6).map(move |bar| device.path().join(format!("resource{bar}"))));
    let open = |path| {
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .ok()
    };
    bars.filter_map(open)
        .find_map(|file| Mapping::of_file(4096, &file).ok())
}

fn m4_unpinnable(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let adapter = Adapter::open()?;
    let good = regions(&guest.mapping)[1];
    let at = |user_addr, flags| Region {
        guest_addr: 1 << 40,
        size: 8192,
        user_addr,
        flags,
        reserved: 0,
    };
    let none = Mapping::anonymous(1 << 16, 0)?;
    let read_only = Mapping::anonymous(1 << 16, libc::PROT_READ)?;
    let mut bad = vec![
        ("unmapped memory", at(0x1000, 0)),
        ("a kernel address", at(0xffff_8880_0000_0000, 0)),
        ("inaccessible memory", at(none.user_addr(), 0)),
        (
            "inaccessible memory for reading",
            at(none.user_addr(), region_flags::READ_ONLY),
        ),
        ("read-only memory for writing", at(read_only.user_addr(), 0)),
    ];
    let registers = registers();
    if let Some(mapping) = &registers {
        let region = Region {
            size: 4096,
            ..at(mapping.user_addr(), 0)
        };
        bad.push(("a device's registers", region));
        bad.push((
            "a device's registers for reading",
            Region {
                flags: region_flags::READ_ONLY,
                ..region
            },
        ));
    }
    for (what, region) in bad {
        refuses(
            &adapter,
            what,
            &[good, region],
            SetupError::RegionUnpinnable,
            Some(1),
        )?;
    }
    let pages = adapter.set_memory(&[at(read_only.user_addr(), region_flags::READ_ONLY)]);
    ensure!(
        pages == Ok(2),
        "read-only memory, for reading only: {pages:?}"
    );
    guest.works(0, 22)?;
    Ok(Outcome::Pass(
        if registers.is_some() {
            ""
        } else {
            "no device's registers could be mapped"
        }
        .to_owned(),
    ))
}

fn m4_file(env: &Env) -> Result<Outcome> {
    let Some(path) = &env.disk_file else {
        return Ok(Outcome::Skip("needs --disk-file".to_owned()));
    };
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    file.set_len(1 << 16)?;
    let mapping = Mapping::of_file(1 << 16, &file)?;
    let region = Region {
        guest_addr: 0,
        size: 1 << 16,
        user_addr: mapping.user_addr(),
        ..Region::ZERO
    };
    refuses(
        &Adapter::open()?,
        "a file on disk",
        &[region],
        SetupError::RegionUnpinnable,
        Some(0),
    )?;
    pass()
}

fn m8(env: &Env) -> Result<Outcome> {
    let mut guest = Guest::simple(env)?;
    let table = regions(&guest.mapping);
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    // The limit is the whole program's, the capability that overrides it each thread's own.
    setrlimit(Resource::RLIMIT_MEMLOCK, 64 << 10, hard)?;
    let limited = std::thread::spawn(move || -> Result<()> {
        drop_ipc_lock().context("dropping CAP_IPC_LOCK")?;
        let adapter = Adapter::open()?;
        refuses(
            &adapter,
            "5 MiB under a limit of 64 KiB",
            &table,
            SetupError::MemoryLimit,
            None,
        )?;
        refuses(
            &adapter,
            "the same again",
            &table,
            SetupError::MemoryLimit,
            None,
        )
    });
    let result = limited.join().expect("thread");
    setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard)?;
    result?;
    // What was refused is not counted: as much can be pinned as before, over and over.
    let table = regions(&guest.mapping);
    for _ in 0..20 {
        Adapter::open()?.set_memory(&table)?;
    }
    guest.works(0, 23)?;
    pass()
}
