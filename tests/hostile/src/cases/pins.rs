// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What the owner does to pinned memory: the device goes on with the pages that it has.

use crate::adapter::{Adapter, Refused};
use crate::backing::{Mapped, NullBlk, Suspended};
use crate::counts::pinned;
use crate::guest::*;
use crate::run::{pass, read_write, Env, Outcome, Test};
use crate::sys::{Child, Mapping};
use crate::victim::Victim;
use anyhow::{bail, ensure, Context, Result};
use avio_abi::ioctl::{remove_flags, Region};
use avio_abi::pci::task::LUN_RESET;
use avio_abi::stor::{lun_flags, Status};
use nix::errno::Errno;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

pub const TESTS: &[Test] = &[
    ("m7_owner_unmaps", |env| gone(env, drop)),
    ("m7_owner_protects", |env| {
        gone(env, |memory| {
            // Kept mapped, but for nobody.
            let _ = memory.protect();
            std::mem::forget(memory);
        })
    }),
    ("m7_owner_forks", forks),
    ("m7_owner_exits_and_another_has_the_adapter", exits),
    ("m9_data_changes_in_flight", changes_in_flight),
    ("m9_data_changes_in_flight_to_a_mirror", changes_to_a_mirror),
    ("m9_data_changes_in_flight_to_raid_5", changes_to_raid_5),
    (
        "m9_data_changes_in_flight_to_checksums",
        changes_to_checksums,
    ),
];

/// Guest address of a region of its own, and its length.
const EXTRA: u64 = 1 << 32;
const EXTRA_SIZE: u32 = 1 << 16;

/// A guest with a region of private memory besides, which holds what the disk has after this.
fn with_extra(env: &Env) -> Result<(Guest, Mapping)> {
    let mut guest = Guest::simple(env)?;
    let read_write = libc::PROT_READ | libc::PROT_WRITE;
    let extra = Mapping::anonymous(EXTRA_SIZE as usize, read_write)?;
    let mut table = regions(&guest.mapping);
    table.push(Region {
        guest_addr: EXTRA,
        size: EXTRA_SIZE.into(),
        user_addr: extra.user_addr(),
        flags: 0,
        reserved: 0,
    });
    guest.set_memory(&table)?;
    guest.store(0, 0, EXTRA_SIZE, 120)?;
    guest.queue().ok(&read(0, 0, &[(EXTRA, EXTRA_SIZE)]))?;
    Ok((guest, extra))
}

/// Memory that its owner can no longer reach is still the guest's.
fn gone(env: &Env, take_away: fn(Mapping)) -> Result<Outcome> {
    let (mut guest, extra) = with_extra(env)?;
    take_away(extra);
    guest.queue().ok(&write(0, 1024, &[(EXTRA, EXTRA_SIZE)]))?;
    guest.queue().ok(&read(1, 1024, &[(BACK, EXTRA_SIZE)]))?;
    guest.verify(BACK, 0, EXTRA_SIZE, 120)?;
    guest.queue().ok(&read(2, 0, &[(EXTRA, EXTRA_SIZE)]))?;
    guest.set_memory(&regions(&guest.mapping))?;
    let entry = read(3, 0, &[(EXTRA, EXTRA_SIZE)]);
    let what = "memory that was let go";
    guest.queue().expect(&entry, Status::BadAddress, what)?;
    guest.works(0, 121)?;
    pass()
}

fn forks(env: &Env) -> Result<Outcome> {
    let (mut guest, extra) = with_extra(env)?;
    for seed in 130..135 {
        let child = Child::fork()?;
        // Writing makes a copy for one of the two; the parent must keep what is pinned.
        extra.write(0, &pattern(0, EXTRA_SIZE, seed));
        guest.queue().ok(&write(0, 0, &[(EXTRA, EXTRA_SIZE)]))?;
        guest
            .holds(0, 0, EXTRA_SIZE, seed)
            .context("what the parent wrote")?;
        guest.store(0, 0, EXTRA_SIZE, seed + 10)?;
        guest.queue().ok(&read(0, 0, &[(EXTRA, EXTRA_SIZE)]))?;
        let seen = extra.read(0, EXTRA_SIZE as usize);
        ensure!(
            seen == pattern(0, EXTRA_SIZE, seed + 10),
            "the parent does not see what came"
        );
        drop(child);
    }
    pass()
}

/// An adapter whose owner has died over requests that a device keeps which stands still.
fn orphaned(device: &Mapped) -> Result<(Adapter, Suspended<'_>)> {
    loop {
        let adapter = Adapter::open()?;
        let mut owner = Victim::owner(device.path(), &adapter)?;
        let held = device.suspend()?;
        // The owner waits for all that it has sent; the device stands still before some of them, or all. What was on its way
        // then ends yet.
        let mut last = adapter.queue(0)?;
        wait_for("requests that stay in flight", || {
            std::thread::sleep(SILENCE);
            let before = std::mem::replace(&mut last, adapter.queue(0)?);
            let same = (before.requests, before.in_flight) == (last.requests, last.in_flight);
            Ok(same && last.in_flight != 0)
        })?;
        owner.kill()?;
        wait_for("the owner is gone", || owner.is_gone())?;
        // Where nothing ran meanwhile they may have been on their way all the same.
        if adapter.queue(0)?.in_flight != 0 {
            return Ok((adapter, held));
        }
    }
}

/// The owner dies, and with it the worker; its memory stays pinned, under requests in flight, until whoever else has the
/// adapter stops it.
fn exits(env: &Env) -> Result<Outcome> {
    let disk = NullBlk::new(&[])?;
    let device = Mapped::over(&disk)?;
    let before = pinned()?;
    let (adapter, held) = orphaned(&device)?;
    let kept = pinned()?;
    ensure!(
        kept > before,
        "{kept} pages are pinned under I/O, {before} before"
    );
    let stop = adapter.stop();
    ensure!(
        stop == Err(Errno::EAGAIN),
        "STOP with requests in flight: {stop:?}"
    );
    held.resume()?;
    until_done("STOP", || adapter.stop())?;
    adapter.remove_lun(0, 0)?;

    // With another owner, nothing is left of the first.
    let mut guest = Guest::prepare_on(adapter, &env.device, &PLAIN)?;
    guest.set_up(1, 8)?;
    guest.works(0, 122)?;
    drop(guest);
    wait_for("no page of it is pinned", || Ok(pinned()? == before))?;
    wait_for("the device is closed", || Ok(!device.is_open()?))?;
    without_worker(env)
}

/// Every call ends although no worker is there to hear of it, and then the adapter goes.
fn without_worker(env: &Env) -> Result<Outcome> {
    let before = pinned()?;
    let adapter = Adapter::open()?;
    let mut owner = Victim::owner(&env.device_path, &adapter)?;
    owner.kill()?;
    wait_for("the owner is gone", || owner.is_gone())?;
    wait_for("what was in flight ends", || {
        Ok(adapter.queue(0)?.in_flight == 0)
    })?;
    let mapping = Mapping::new(MAPPING)?;
    type Call<'a> = &'a dyn Fn() -> Result<(), Refused>;
    let calls: [(&str, Call<'_>); 8] = [
        ("ADD_LUN", &|| {
            let fd = env.device.as_raw_fd();
            adapter.add_lun(1, fd, 0).map(drop)
        }),
        ("UPDATE_LUN", &|| adapter.update_lun(1, 0).map(drop)),
        ("SET_LIMITS", &|| adapter.limit_bytes(0, 1 << 30, 0)),
        ("TASK", &|| adapter.task(LUN_RESET, 0, (0, 0)).map(drop)),
        ("SET_MEMORY", &|| {
            adapter.set_memory(&regions(&mapping)).map(drop)
        }),
        ("REMOVE_LUN", &|| adapter.remove_lun(1, remove_flags::FORCE)),
        ("GET_LUN", &|| adapter.lun(0).map(drop)),
        ("GET_QUEUE", &|| adapter.queue(0).map(drop)),
    ];
    for (what, call) in calls {
        call().with_context(|| format!("{what} without a worker"))?;
    }
    adapter.quiesce().context("QUIESCE without a worker")?;
    adapter.resume().context("RESUME without a worker")?;
    drop(adapter);
    wait_for("no page of it is pinned", || Ok(pinned()? == before))?;
    Guest::simple(env)?.works(0, 123)?;
    pass()
}

/// Writes from memory that changes all the time; what lies around it on the disk stays.
fn scribbled_writes(guest: &mut Guest) -> Result<()> {
    let len = 65536;
    guest.store(0, 0, 4 * len, 140)?;
    let (mapping, stop) = (guest.mapping.clone(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in (0u64..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                let word = offset(DATA) + (turn % (u64::from(len) / 8)) as usize * 8;
                mapping.u64(word).store(turn, Ordering::Relaxed);
            }
        });
        let writes: Vec<_> = (0..8).map(|tag| write(tag, 128, &[(DATA, len)])).collect();
        let result = (0..50).try_for_each(|_| {
            let answers = guest.queue().all(&writes)?;
            let right = answers.iter().all(|status| *status == Status::Ok);
            ensure!(right, "writes of data that changes: {answers:?}");
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        result
    })?;
    guest.holds(0, 0, len, 140)?;
    guest.holds(0, 256, 2 * len, 140)?;
    guest.works(0, 141)?;
    guest.canaries()
}

fn changes_in_flight(env: &Env) -> Result<Outcome> {
    scribbled_writes(&mut Guest::simple(env)?)?;
    pass()
}

fn changes_to_a_mirror(_env: &Env) -> Result<Outcome> {
    let legs = [NullBlk::new(&[])?, NullBlk::new(&[])?];
    let [first, second] = [0, 1].map(|leg: usize| legs[leg].path());
    let table = format!(
        "0 {} mirror core 2 1024 nosync 2 {} 0 {} 0",
        NullBlk::SECTORS,
        first.display(),
        second.display()
    );
    let mirror = Mapped::new(&table).context("a mirror; is dm_mirror loaded?")?;
    scribbled_writes(&mut Guest::on(&mirror.open()?, &PLAIN)?)?;
    pass()
}

/// What shares a stripe with data that changes can still be had from its parity.
fn changes_to_raid_5(_env: &Env) -> Result<Outcome> {
    // The first two chunks make a stripe: half of the first is what is written.
    const CHUNK: u32 = 256;
    let disks = [NullBlk::new(&[])?, NullBlk::new(&[])?, NullBlk::new(&[])?];
    let [first, second, third] =
        [0, 1, 2].map(|disk: usize| disks[disk].path().display().to_string());
    let over = |second: &str| {
        let sectors = 2 * NullBlk::SECTORS;
        let table =
            format!("0 {sectors} raid raid5_ls 2 {CHUNK} nosync 3 - {first} - {second} - {third}");
        Mapped::new(&table).context("RAID 5; is dm_raid loaded?")
    };
    let whole = over(&second)?;
    scribbled_writes(&mut Guest::on(&whole.open()?, &PLAIN)?)?;
    drop(whole);
    let without = over("-")?;
    let mut guest = Guest::on(&without.open()?, &PLAIN)?;
    let chunk = guest.holds(0, CHUNK.into(), CHUNK * 512, 140);
    chunk.context("the second chunk, without its disk")?;
    guest.works(0, 143)?;
    pass()
}

/// What was written may not be read any more; but that is the guest's own, and it is its own to mend.
fn changes_to_checksums(_env: &Env) -> Result<Outcome> {
    let disk = read_write(Path::new("/dev/testdisk")).context("is test_disk loaded?")?;
    let mut guest = Guest::on(&disk, &PLAIN)?;
    let stable = guest.lun.flags & lun_flags::STABLE_WRITES != 0;
    ensure!(stable, "the LUN's description has no STABLE_WRITES");
    scribbled_writes(&mut guest)?;
    let mut errors = 0;
    for sector in (128..256).step_by(8) {
        match guest.queue().request(&read(0, sector, &[(BACK, 4096)]))?.0 {
            Status::Ok => (),
            Status::IoError => errors += 1,
            other => bail!("a read of what changed in flight: {}", other.name()),
        }
    }
    guest.store(0, 128, 65536, 142)?;
    guest.holds(0, 128, 65536, 142).context("written anew")?;
    Ok(Outcome::Pass(format!(
        "{errors} of 16 pages could not be read"
    )))
}
