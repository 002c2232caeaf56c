// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What was acknowledged and flushed is there after a fault.

use crate::backing::{failing, linear, Mapped, NullBlk};
use crate::guest::*;
use crate::run::{pass, Env, Outcome, Test};
use anyhow::{ensure, Context, Result};
use avio_abi::stor::{flags, lun_flags, opcode, Status};

pub const TESTS: &[Test] = &[
    ("fault_power_cut_with_a_volatile_cache", power_cut),
    ("fault_flakey_device", flakey),
];

fn power_cut(_env: &Env) -> Result<Outcome> {
    let cache = [("cache_size", "4"), ("fua", "1")];
    let disk = NullBlk::new(&cache)?;
    let mut guest = Guest::on(&disk.open()?, &PLAIN)?;
    let cached = guest.lun.flags & lun_flags::WRITE_CACHE != 0;
    ensure!(cached, "the LUN's description has no write cache");
    let (flushed, durable, neither) = (0, 1024, 2048);
    guest.store(0, flushed, 65536, 260)?;
    guest.queue().ok(&flush(0))?;
    guest.fill(DATA, durable, 65536, 261);
    let entry = write(0, durable, &[(DATA, 65536)]).flagged(flags::FUA);
    guest.queue().ok(&entry)?;
    guest.store(0, neither, 65536, 262)?;
    guest.holds(0, neither, 65536, 262)?;

    disk.set("power", "0")?;
    let entry = read(0, flushed, &[(DATA, 4096)]);
    guest
        .queue()
        .expect(&entry, Status::IoError, "without power")?;
    drop(guest);
    disk.set("power", "1")?;
    let mut guest = Guest::on(&disk.open()?, &PLAIN)?;
    guest
        .holds(0, flushed, 65536, 260)
        .context("what was flushed")?;
    guest
        .holds(0, durable, 65536, 261)
        .context("what was written with FUA")?;
    // If that were there as well, then this test would prove nothing.
    let lost = guest.holds(0, neither, 65536, 262).is_err();
    ensure!(lost, "the device lost nothing at the power cut");
    guest.works(0, 263)?;
    pass()
}

fn flakey(_env: &Env) -> Result<Outcome> {
    let settings = [("cache_size", "4"), ("fua", "1"), ("discard", "1")];
    let disk = NullBlk::new(&settings)?;
    let device = Mapped::over(&disk)?;
    let mut guest = Guest::on(&device.open()?, &PLAIN)?;
    let (path, sectors) = (disk.path(), NullBlk::SECTORS);
    let path = path.display();
    for round in 0..3 {
        guest.store(0, 0, 65536, 270 + round)?;
        guest.queue().ok(&flush(0))?;
        let writes_fail = format!("0 {sectors} flakey {path} 0 0 3600 1 error_writes");
        device.load(&writes_fail).context("is dm_flakey loaded?")?;
        guest.fill(DATA, 0, 65536, 280);
        let entry = write(0, 0, &[(DATA, 65536)]);
        guest
            .queue()
            .expect(&entry, Status::IoError, "a write that fails")?;
        guest.holds(0, 0, 65536, 270 + round)?;
        let durable = [
            ("a flush", flush(0)),
            ("a durable write", entry.flagged(flags::FUA)),
            ("a discard", range(opcode::DISCARD, 0, 2048, 8)),
        ];
        for (what, entry) in durable {
            guest.queue().expect(&entry, Status::IoError, what)?;
        }
        device.load(&failing(&disk))?;
        let entry = read(0, 0, &[(DATA, 65536)]);
        guest
            .queue()
            .expect(&entry, Status::IoError, "a read that fails")?;
        device.load(&linear(&disk, sectors))?;
        guest
            .holds(0, 0, 65536, 270 + round)
            .context("what was flushed")?;
        guest.queue().ok(&flush(0)).context("behind the fault")?;
    }
    guest.works(0, 281)?;
    pass()
}
