// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A second guest that does verified I/O all the time and must not notice what the first one does.

use crate::guest::{read, wait_for, write, Guest, BACK, DATA, IN_PIECES};
use crate::run::Env;
use anyhow::{bail, ensure, Context, Result};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// First sector of the bystander's own part of the disk, and how many there are.
const FIRST: u64 = 16384;
const SECTORS: u64 = 8192;
/// Sectors that the disk must have.
pub const DISK_SECTORS: u64 = FIRST + SECTORS;

/// How far the second guest has come.
#[derive(Default)]
pub struct Progress {
    rounds: AtomicU64,
    stop: AtomicBool,
    ended: AtomicBool,
}

impl Progress {
    /// Demands that it goes on: one whole round begins and ends from now.
    pub fn goes_on(&self) -> Result<()> {
        let before = self.rounds();
        wait_for("the second guest's I/O goes on", || {
            let ended = self.ended.load(Ordering::Relaxed);
            ensure!(!ended, "the second guest was harmed");
            Ok(self.rounds() >= before + 2)
        })
    }

    /// Rounds of verified I/O so far.
    pub fn rounds(&self) -> u64 {
        self.rounds.load(Ordering::Relaxed)
    }
}

/// The second guest, in its thread.
pub struct Bystander {
    env: Arc<Env>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Bystander {
    pub fn start(env: &Arc<Env>) -> Self {
        let its_env = env.clone();
        let thread = std::thread::spawn(move || {
            let result = run(&its_env);
            its_env.bystander.ended.store(true, Ordering::Relaxed);
            result
        });
        Self {
            env: env.clone(),
            thread: Some(thread),
        }
    }

    /// Ends it, and tells whether all went well.
    pub fn end(&mut self) -> Result<()> {
        self.env.bystander.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => bail!("the second guest's thread panicked"),
            None => bail!("the second guest has already ended"),
        }
    }
}

fn run(env: &Env) -> Result<()> {
    let Progress { rounds, stop, .. } = &env.bystander;
    let mut guest = Guest::start(env, &IN_PIECES)?;
    let len = 16 * guest.block();
    let step = u64::from(len) / 512;
    while !stop.load(Ordering::Relaxed) {
        let round = rounds.load(Ordering::Relaxed);
        let sector = FIRST + round * step % (SECTORS - step);
        let sector = sector - sector % (u64::from(guest.block()) / 512);
        guest.fill(DATA, sector, len, round);
        let there = write((round % 8) as u16, sector, &[(DATA, len)]);
        let back = read((round % 3) as u16, sector, &[(BACK, len)]);
        guest.queue().ok(&there).context("of the second guest")?;
        guest.queue().ok(&back).context("of the second guest")?;
        guest.verify(BACK, sector, len, round)?;
        guest.canaries()?;
        rounds.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
