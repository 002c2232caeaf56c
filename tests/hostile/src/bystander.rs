// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A second guest, in a process of its own, that does verified I/O all the time and must not notice what the first one
//! does. The two processes share one page of memory, where it counts its rounds.

use crate::guest::{read, wait_for, write, Guest, BACK, DATA, IN_PIECES};
use crate::run::read_write;
use crate::sys::Mapping;
use crate::victim::{ready, Victim};
use anyhow::{bail, ensure, Context, Result};
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// First sector of the bystander's own part of the disk, and how many there are.
const FIRST: u64 = 16384;
const SECTORS: u64 = 8192;
/// Sectors that the disk must have.
pub const DISK_SECTORS: u64 = FIRST + SECTORS;
/// Bytes of the memory that both processes have, and where in it stand the rounds so far, and the milliseconds of the longest.
const SHARED: usize = 4096;
const ROUNDS: usize = 0;
const LONGEST: usize = 8;
/// A round, of two requests, that takes longer was held up by the first guest, also on a debug kernel and a slow machine. One
/// that is held up for as long as a test goes on does not come in time at all.
pub const STALL: Duration = Duration::from_secs(120);

/// The second guest, as the first one's process sees it.
pub struct Bystander {
    /// Rounds of verified I/O so far, and the longest since somebody asked.
    progress: Mapping,
    process: Mutex<Victim>,
}

impl Bystander {
    /// To be called by a thread that lives as long as this process: the second guest dies with it.
    pub fn start(device: &Path) -> Result<Self> {
        let file = File::from(memfd_create(c"progress", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(SHARED as u64)?;
        Ok(Self {
            progress: Mapping::of_file(SHARED, &file)?,
            process: Mutex::new(Victim::bystander(device, file)?),
        })
    }

    /// Demands that it goes on, one whole round begins and ends from now, and that none has stalled since the last time.
    pub fn goes_on(&self) -> Result<()> {
        let before = self.rounds();
        wait_for("the second guest's I/O goes on", || {
            if let Some(verdict) = self.process().verdict()? {
                bail!("the second guest was harmed: {verdict}");
            }
            Ok(self.rounds() >= before + 2)
        })?;
        let longest = self.progress.u64(LONGEST).swap(0, Ordering::Relaxed);
        let longest = Duration::from_millis(longest);
        ensure!(longest < STALL, "the second guest stalled for {longest:?}");
        Ok(())
    }

    /// Ends it, and tells whether all went well until then.
    pub fn end(&self) -> Result<()> {
        let result = self.goes_on();
        self.process().end();
        result
    }

    fn rounds(&self) -> u64 {
        self.progress.u64(ROUNDS).load(Ordering::Relaxed)
    }

    fn process(&self) -> MutexGuard<'_, Victim> {
        self.process.lock().expect("nothing panics under this lock")
    }
}

/// Plays the second guest until whoever started this process is dead.
pub fn play(device: &Path) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    let file = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let progress = Mapping::of_file(SHARED, &file)?;
    let mut guest = Guest::on(&read_write(device)?, &IN_PIECES)?;
    ready();
    (0..).try_for_each(|round| {
        let began = Instant::now();
        verified(&mut guest, round).context("of the second guest")?;
        let took = began.elapsed().as_millis() as u64;
        progress.u64(LONGEST).fetch_max(took, Ordering::Relaxed);
        progress.u64(ROUNDS).store(round + 1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(20));
        Ok(())
    })
}

/// One round of I/O that is verified.
fn verified(guest: &mut Guest, round: u64) -> Result<()> {
    let len = 16 * guest.block();
    let step = u64::from(len) / 512;
    let sector = FIRST + round * step % (SECTORS - step);
    let sector = sector - sector % (u64::from(guest.block()) / 512);
    guest.fill(DATA, sector, len, round);
    let there = write((round % 8) as u16, sector, &[(DATA, len)]);
    let back = read((round % 3) as u16, sector, &[(BACK, len)]);
    guest.queue().ok(&there)?;
    guest.queue().ok(&back)?;
    guest.verify(BACK, sector, len, round)?;
    guest.canaries()
}
