// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Commands that name blocks and move no data: within the limits they do what they say, and nothing beside it.

use crate::backing::{Loop, NullBlk};
use crate::guest::*;
use crate::run::{pass, read_write, Env, Outcome, Test};
use anyhow::{ensure, Context, Result};
use avio_abi::ring::Submission;
use avio_abi::stor::opcode::{DISCARD, SECURE_ERASE, WRITE_ZEROES};
use avio_abi::stor::Status::{BadSegments, OutOfRange, ReadOnly, Unsupported};
use avio_abi::stor::{flags, lun_flags};
use std::path::Path;

pub const TESTS: &[Test] = &[
    ("s5_ranges_out_of_range", out_of_range),
    ("s5_ranges_of_a_lun_that_has_none", none),
    ("s5_ranges_of_a_read_only_lun", read_only),
    ("s5_discard_leaves_what_is_around", discard),
    ("s5_zeroes_are_zero", zeroes),
    ("s5_erased_up_to_the_limit", erased),
];

/// A device that can discard, with blocks of 4096 bytes.
const DISCARDS: &[(&str, &str)] = &[("discard", "1"), ("blocksize", "4096")];

fn out_of_range(_env: &Env) -> Result<Outcome> {
    let device = NullBlk::new(DISCARDS)?;
    // Less than the device has, or what is over the limit would be past the end as well.
    device.sysfs("queue/discard_max_bytes", "65536")?;
    let mut guest = Guest::on(&device.open()?, &PLAIN)?;
    let (end, most) = (guest.lun.sectors, u64::from(guest.lun.max_discard));
    ensure!(most == 128, "a DISCARD of at most {most} sectors");
    guest.queue().ok(&range(DISCARD, 0, 0, most))?;
    guest.queue().ok(&range(DISCARD, 0, end - 8, 8))?;
    let good = range(DISCARD, 0, 0, 8);
    let with = |change: fn(&mut Submission)| {
        let mut entry = good;
        change(&mut entry);
        entry
    };
    let cases = [
        ("no sectors", range(DISCARD, 0, 0, 0), OutOfRange),
        ("over the limit", range(DISCARD, 0, 0, most + 8), OutOfRange),
        ("past the end", range(DISCARD, 0, end - 8, 16), OutOfRange),
        ("behind the end", range(DISCARD, 0, end, 8), OutOfRange),
        ("wraps", range(DISCARD, 0, 8, u64::MAX - 7), OutOfRange),
        ("wraps in bytes", range(DISCARD, 0, 0, 1 << 55), OutOfRange),
        ("part of a block", range(DISCARD, 0, 0, 9), OutOfRange),
        ("inside a block", range(DISCARD, 0, 1, 8), OutOfRange),
        (
            "with a segment",
            with(|entry| entry.segments = 1),
            BadSegments,
        ),
        (
            "with a length",
            with(|entry| entry.inline[0].len = 4096),
            BadSegments,
        ),
        (
            "with flags",
            with(|entry| entry.inline[0].flags = 2),
            BadSegments,
        ),
        (
            "with a second",
            with(|entry| entry.inline[1].addr = DATA),
            BadSegments,
        ),
        (
            "with a third",
            with(|entry| entry.inline[2].len = 512),
            BadSegments,
        ),
    ];
    guest.refuses(&cases).map(Outcome::Pass)
}

fn none(_env: &Env) -> Result<Outcome> {
    let device = NullBlk::new(&[])?;
    let mut guest = Guest::on(&device.open()?, &PLAIN)?;
    let lun = &guest.lun;
    let most = [lun.max_discard, lun.max_secure_erase, lun.max_write_zeroes];
    ensure!(
        most == [0; 3],
        "null_blk without discard has limits {most:?}"
    );
    let cases = [
        ("DISCARD", range(DISCARD, 0, 0, 8), Unsupported),
        ("SECURE_ERASE", range(SECURE_ERASE, 0, 0, 8), Unsupported),
        ("WRITE_ZEROES", range(WRITE_ZEROES, 0, 0, 8), Unsupported),
    ];
    guest.refuses(&cases).map(Outcome::Pass)
}

fn read_only(_env: &Env) -> Result<Outcome> {
    let device = NullBlk::new(DISCARDS)?;
    let luns = [(0, 0), (1, lun_flags::READ_ONLY)];
    let mut guest = Guest::on(
        &device.open()?,
        &Config {
            luns: &luns,
            ..PLAIN
        },
    )?;
    guest.store(0, 0, 65536, 150)?;
    let cases = [DISCARD, SECURE_ERASE, WRITE_ZEROES].map(|opcode| {
        let what = format!("opcode {opcode} on a read-only LUN");
        (what, range(opcode, 0, 0, 8).on(1), ReadOnly)
    });
    for (what, entry, status) in &cases {
        guest.queue().expect(entry, *status, what)?;
    }
    guest.holds(1, 0, 65536, 150)?;
    pass()
}

fn discard(_env: &Env) -> Result<Outcome> {
    let device = NullBlk::new(DISCARDS)?;
    let mut guest = Guest::on(&device.open()?, &PLAIN)?;
    guest.store(0, 0, 3 * 65536, 151)?;
    guest.queue().ok(&range(DISCARD, 0, 128, 128))?;
    guest.holds(0, 0, 65536, 151)?;
    guest.holds(0, 256, 65536, 151)?;
    // null_blk forgets at once, so that it shows whether the command has come.
    guest.queue().ok(&read(0, 128, &[(DATA, 65536)]))?;
    let left = guest.read_memory(DATA, 65536);
    ensure!(
        left.iter().all(|byte| *byte == 0),
        "the blocks are still there"
    );
    wait_for("the count of ranges", || {
        Ok(guest.adapter.lun(0)?.ranges == 1)
    })?;
    guest.works(0, 152)?;
    pass()
}

fn erased(_env: &Env) -> Result<Outcome> {
    let disk = read_write(Path::new("/dev/testdisk")).context("is test_disk loaded?")?;
    let mut guest = Guest::on(&disk, &PLAIN)?;
    let (most, end) = (u64::from(guest.lun.max_secure_erase), guest.lun.sectors);
    let block = u64::from(guest.block()) / 512;
    ensure!(most > 0, "the LUN's description has no SECURE_ERASE");
    ensure!(most + block <= end, "the limit is that of the whole disk");
    let len = 65536;
    guest.store(0, 0, len, 156)?;
    guest.store(0, most, len, 157)?;
    let over = range(SECURE_ERASE, 0, 0, most + block);
    guest.queue().expect(&over, OutOfRange, "over the limit")?;
    guest
        .holds(0, 0, len, 156)
        .context("after what was refused")?;
    guest.queue().ok(&range(SECURE_ERASE, 0, 0, most))?;
    guest.queue().ok(&read(0, 0, &[(DATA, len)]))?;
    let left = guest.read_memory(DATA, len);
    let zero = left.iter().all(|byte| *byte == 0);
    ensure!(zero, "the blocks are still there");
    guest
        .holds(0, most, len, 157)
        .context("behind the erased")?;
    pass()
}

fn zeroes(env: &Env) -> Result<Outcome> {
    let Some(file) = &env.disk_file else {
        return Ok(Outcome::Skip("needs --disk-file".to_owned()));
    };
    let device = Loop::new(&file.with_extension("loop"), 16 << 20)?;
    let mut guest = Guest::on(&device.open()?, &PLAIN)?;
    let most = guest.lun.max_write_zeroes;
    ensure!(most > 0, "a loop device without WRITE_ZEROES");
    for (seed, flags) in [(153, 0), (154, flags::KEEP)] {
        guest.store(0, 0, 3 * 65536, seed)?;
        let entry = range(WRITE_ZEROES, 0, 128, 128).flagged(flags);
        guest.queue().ok(&entry)?;
        guest.holds(0, 0, 65536, seed)?;
        guest.holds(0, 256, 65536, seed)?;
        guest.queue().ok(&read(0, 128, &[(DATA, 65536)]))?;
        let left = guest.read_memory(DATA, 65536);
        let zero = left.iter().all(|byte| *byte == 0);
        ensure!(
            zero,
            "blocks that are not zero after WRITE_ZEROES with flags {flags}"
        );
    }
    let over = range(WRITE_ZEROES, 0, 0, u64::from(most) + 1);
    guest.queue().expect(&over, OutOfRange, "over the limit")?;
    guest.works(0, 155).context("after all")?;
    pass()
}
