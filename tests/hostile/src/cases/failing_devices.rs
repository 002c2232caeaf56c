// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Devices that fail, shrink or vanish under the guest: it is told, for each request, and sees nothing that is not its
//! own.

use crate::adapter::refused;
use crate::backing::{linear, Mapped, NullBlk};
use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use anyhow::{ensure, Context, Result};
use avio_abi::ioctl::SetupError;
use avio_abi::stor::{lun_flags, Status};
use std::sync::atomic::{AtomicBool, Ordering};

pub const TESTS: &[Test] = &[
    ("s2_device_shrinks_and_grows", shrinks),
    ("s2_device_shrinks_and_grows_under_load", shrinks_under_load),
    ("s2_device_vanishes_under_load", vanishes),
    ("s6_one_bio_of_several_fails", one_bio_fails),
    ("s8_failed_reads_bring_no_foreign_bytes", failed_reads),
];

/// The next request to a LUN is answered with Attention, and only that.
fn attention(guest: &mut Guest) -> Result<()> {
    let entry = read(0, 0, &[(DATA, 4096)]);
    guest
        .queue()
        .expect(&entry, Status::Attention, "after a change")?;
    guest.queue().ok(&entry)
}

fn shrinks(_env: &Env) -> Result<Outcome> {
    let disk = NullBlk::new(&[])?;
    let device = Mapped::over(&disk)?;
    let mut guest = Guest::on(&device.open()?, &PLAIN)?;
    let (whole, half) = (NullBlk::SECTORS, NullBlk::SECTORS / 2);
    guest.store(0, half, 65536, 160)?;
    device.load(&linear(&disk, half))?;
    // The guest does not know yet, and neither does the module: the block layer holds the line.
    let entry = read(0, half, &[(DATA, 65536)]);
    let (status, _) = guest.queue().request(&entry)?;
    let told = matches!(status, Status::IoError | Status::OutOfRange);
    ensure!(told, "past the new end: {}", status.name());
    guest.works(0, 161)?;

    let info = guest.adapter.update_lun(0, 0)?;
    ensure!(
        info.sectors == half,
        "UPDATE_LUN says {} sectors",
        info.sectors
    );
    ensure!(
        info.changes != guest.lun.changes,
        "`changes` stayed the same"
    );
    attention(&mut guest)?;
    guest
        .queue()
        .expect(&entry, Status::OutOfRange, "past the new end")?;

    device.load(&linear(&disk, whole))?;
    guest
        .queue()
        .expect(&entry, Status::OutOfRange, "not known yet")?;
    let info = guest.adapter.update_lun(0, 0)?;
    ensure!(
        info.sectors == whole,
        "UPDATE_LUN says {} sectors",
        info.sectors
    );
    attention(&mut guest)?;
    guest.holds(0, half, 65536, 160)?;
    pass()
}

fn shrinks_under_load(env: &Env) -> Result<Outcome> {
    let disk = NullBlk::new(&[])?;
    let device = Mapped::over(&disk)?;
    let mut guest = Guest::on(&device.open()?, &PLAIN)?;
    let (whole, half) = (NullBlk::SECTORS, NullBlk::SECTORS / 2);
    guest.store(0, half - 64, 65536, 167)?;
    // Half of each lies past the shorter end; the others before it.
    let place = |tag: u16| DATA + 65536 * u64::from(tag);
    let sector = |tag: u16| half - 64 * (1 + u64::from(tag % 2));
    let reads: Vec<_> = (0..8)
        .map(|tag| read(tag, sector(tag), &[(place(tag), 65536 >> (tag % 2))]))
        .collect();
    let (stop, mut seen) = (AtomicBool::new(false), [0u32; 2]);
    let queue = guest.queue();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                for (tag, status) in queue.all(&reads)?.into_iter().enumerate() {
                    let told = status == Status::IoError && tag % 2 == 0;
                    ensure!(status == Status::Ok || told, "{tag}: {}", status.name());
                    seen[usize::from(told)] += 1;
                }
            }
            Ok(())
        });
        let changes = (0..2).try_for_each(|_| {
            for sectors in [half, whole] {
                device.load(&linear(&disk, sectors))?;
                env.bystander.goes_on()?;
            }
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        reader.join().expect("reader").and(changes)
    })?;
    let [done, told] = seen;
    ensure!(told > 0, "none of {done} met the shorter device");
    guest.holds(0, half - 64, 65536, 167)?;
    guest.canaries()?;
    Ok(Outcome::Pass(format!("{told} failed, {done} did not")))
}

fn vanishes(_env: &Env) -> Result<Outcome> {
    // Each request takes 20 ms, so that there are some in flight at any time.
    let disk = NullBlk::new(&[("irqmode", "2"), ("completion_nsec", "20000000")])?;
    let mut guest = Guest::on(&disk.open()?, &PLAIN)?;
    guest.works(0, 162)?;
    let reads: Vec<_> = (0..8).map(|tag| read(tag, 0, &[(DATA, 4096)])).collect();
    guest.queue().go(&reads)?;
    disk.set("power", "0")?;
    for status in guest.queue().answers(&[0, 1, 2, 3, 4, 5, 6, 7])? {
        let right = matches!(status, Status::Ok | Status::IoError);
        ensure!(right, "in flight: {}", status.name());
    }
    let entry = reads[0];
    guest
        .queue()
        .expect(&entry, Status::IoError, "a device that is gone")?;

    // The VMM may say so, and then the guest is told by the description too.
    let info = guest.adapter.update_lun(0, lun_flags::LOST)?;
    ensure!(info.flags & lun_flags::LOST != 0, "flags {:#x}", info.flags);
    guest
        .queue()
        .expect(&entry, Status::Attention, "a LUN that was lost")?;
    guest
        .queue()
        .expect(&entry, Status::IoError, "a LUN that was lost")?;
    guest.adapter.remove_lun(0, 0)?;
    guest
        .queue()
        .expect(&entry, Status::BadLun, "a LUN that was removed")?;
    let absent = guest.adapter.update_lun(0, 0);
    refused("UPDATE_LUN of nothing", absent, SetupError::LunAbsent)?;
    pass()
}

fn one_bio_fails(_env: &Env) -> Result<Outcome> {
    // 8 sectors in the middle of what follows are bad.
    let disk = NullBlk::new(&[])?;
    let path = disk.path();
    let (path, behind) = (path.display(), NullBlk::SECTORS - 4104);
    let table = format!("0 4096 linear {path} 0\n4096 8 error\n4104 {behind} linear {path} 4104");
    let device = Mapped::new(&table)?;
    let mut guest = Guest::on(&device.open()?, &IN_PIECES)?;
    let most = guest.lun.max_bytes;
    guest.store(0, 0, 2 << 20, 163)?;
    guest.store(0, 4104, 1 << 20, 163)?;

    // So long that it is cut into several bios, of which one meets the bad sectors.
    let len = most.min(4 << 20);
    let failing = [
        ("a read", read(0, 0, &[(DATA, len)])),
        ("a read of the end", read(1, 4088, &[(DATA, 16384)])),
        ("a write", write(2, 4088, &[(DATA, 16384)])),
    ];
    for (what, entry) in failing {
        guest.queue().expect(&entry, Status::IoError, what)?;
        guest.holds(0, 4104 + 64, 65536, 163).context(what)?;
    }
    // What it writes is what is there already.
    guest.fill(DATA, 0, len, 163);
    let what = "a write of several bios";
    let entry = write(3, 0, &[(DATA, len)]);
    guest.queue().expect(&entry, Status::IoError, what)?;
    guest.holds(0, 4104 + 64, 65536, 163).context(what)?;
    let errors = guest.adapter.lun(0)?.statuses[Status::IoError as usize];
    ensure!(errors == 4, "GET_LUN counts {errors} errors");
    guest.works(0, 164)?;
    pass()
}

fn failed_reads(_env: &Env) -> Result<Outcome> {
    // Sectors 64 to 71 are bad; what lies before them is still read, or not.
    let disk = NullBlk::new(&[("badblocks", "+64-71"), ("badblocks_partial_io", "1")])?;
    let mut guest = Guest::on(&disk.open()?, &PLAIN)?;
    let len = 65536;
    guest.store(0, 0, 32768, 165)?;
    guest.store(0, 72, 32768, 165)?;
    for round in 0..20 {
        // Each sector of the guest's memory holds what the guest put there or what is on the disk.
        guest.fill(DATA, 0, len, 166 + round);
        let entry = read(0, 0, &[(DATA, len)]);
        guest
            .queue()
            .expect(&entry, Status::IoError, "a read of bad sectors")?;
        for sector in 0..u64::from(len) / 512 {
            let at = DATA + sector * 512;
            let own = guest.verify(at, sector, 512, 166 + round).is_ok();
            let disks = !(64..72).contains(&sector) && guest.verify(at, sector, 512, 165).is_ok();
            ensure!(
                own || disks,
                "round {round}: foreign bytes in sector {sector}"
            );
        }
    }
    guest.canaries()?;
    pass()
}
