// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A second guest that does verified I/O all the time and must not notice what the first one does.

use crate::guest::{read, write, Guest, DATA, PATIENCE};
use crate::Env;
use anyhow::{bail, ensure, Context, Result};
use avio_abi::stor::Status;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// First sector of the bystander's own part of the disk, and how many there are.
const FIRST: u64 = 16384;
const SECTORS: u64 = 8192;
/// Sectors that the disk must have.
pub const DISK_SECTORS: u64 = FIRST + SECTORS;

/// The second guest, in its thread.
pub struct Bystander {
    rounds: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Bystander {
    pub fn start(env: &Arc<Env>) -> Self {
        let (rounds, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (env, counter, end) = (env.clone(), rounds.clone(), stop.clone());
        let thread = Some(std::thread::spawn(move || run(&env, &counter, &end)));
        Self {
            rounds,
            stop,
            thread,
        }
    }

    /// Demands that it goes on: one whole round begins and ends from now.
    pub fn is_unharmed(&mut self) -> Result<()> {
        let before = self.rounds.load(Ordering::Relaxed);
        let until = Instant::now() + 2 * PATIENCE;
        while self.rounds.load(Ordering::Relaxed) < before + 2 {
            if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                return self.end().context("the second guest was harmed");
            }
            ensure!(
                Instant::now() < until,
                "the second guest's I/O stands still"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Ends it, and tells whether all went well.
    pub fn end(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => bail!("the second guest's thread panicked"),
            None => bail!("the second guest has already ended"),
        }
    }
}

fn run(env: &Env, rounds: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    let mut guest = Guest::simple(env)?;
    let len = 16 * guest.block();
    let step = u64::from(len) / 512;
    while !stop.load(Ordering::Relaxed) {
        let round = rounds.load(Ordering::Relaxed);
        let sector = FIRST + round * step % (SECTORS - step);
        let sector = sector - sector % (u64::from(guest.block()) / 512);
        let back = DATA + 0x10_0000;
        guest.fill(DATA, sector, len, round);
        guest.queue().expect(
            &write((round % 8) as u16, sector, &[(DATA, len)]),
            Status::Ok,
            "a write",
        )?;
        guest.queue().expect(
            &read((round % 3) as u16, sector, &[(back, len)]),
            Status::Ok,
            "a read",
        )?;
        guest.verify(back, sector, len, round)?;
        guest.canaries()?;
        rounds.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
