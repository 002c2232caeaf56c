// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Many guests at once.

use crate::adapter::Adapter;
use crate::counts::{kernel_memory, locked, pinned, workers};
use crate::guest::queue::QUEUE_BYTES;
use crate::guest::*;
use crate::run::{Env, Outcome, Test};
use crate::sys::Mapping;
use anyhow::{ensure, Context, Result};
use avio_abi::ioctl::{Region, SetQueue};
use avio_abi::stor::Status;
use avio_core::ring::RingSize;
use nix::sys::resource::{getrlimit, setrlimit, Resource};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;

pub const TESTS: &[Test] = &[("t3_256_guests_with_two_adapters_each", crowd)];

const GUESTS: u64 = 256;
const ADAPTERS: u32 = 2;
const LEN: u32 = 4096;
/// A guest's memory: the rings of each adapter, then what each writes, and what it reads back.
const MEMORY: u64 = ADAPTERS as u64 * (QUEUE_BYTES + 2 * LEN as u64);

/// An adapter of a guest that has little memory.
struct Small {
    /// Keeps it open.
    _adapter: Adapter,
    queue: Queue,
    mapping: Arc<Mapping>,
    /// First sector of its own part of the disk.
    sector: u64,
    data: u64,
    back: u64,
}

impl Small {
    /// The adapter of this number in the guest that has this memory, the `nth` of all.
    fn start(device: &File, mapping: &Arc<Mapping>, number: u32, nth: u64) -> Result<Self> {
        let adapter = Adapter::open().context("/dev/avio-stor")?;
        let memory = Region {
            guest_addr: RAM,
            size: MEMORY,
            user_addr: mapping.user_addr(),
            flags: 0,
            reserved: 0,
        };
        adapter.set_memory(&[memory]).context("SET_MEMORY")?;
        let lun = adapter.add_lun(0, device.as_raw_fd(), 0);
        lun.context("ADD_LUN")?;
        let features = adapter.info()?.features;
        adapter.set_features(1, features).context("SET_FEATURES")?;
        let size = RingSize::new(8).context("ring size")?;
        // Each has its first queue only, and where the rings lie tells the adapters apart.
        let queue = Queue::new(mapping, number, size)?;
        let description = SetQueue {
            index: 0,
            ..queue.description()
        };
        adapter.set_queue(&description).context("SET_QUEUE")?;
        adapter.start(1).context("START")?;
        let first = RAM + u64::from(ADAPTERS) * QUEUE_BYTES;
        let data = first + 2 * u64::from(number) * u64::from(LEN);
        Ok(Self {
            _adapter: adapter,
            queue,
            mapping: mapping.clone(),
            sector: nth * u64::from(LEN) / 512,
            data,
            back: data + u64::from(LEN),
        })
    }

    fn write(&mut self, round: u64) -> Result<()> {
        let bytes = pattern(self.sector, LEN, round);
        self.mapping.write(offset(self.data), &bytes);
        self.queue.go(&[write(0, self.sector, &[(self.data, LEN)])])
    }

    fn read(&mut self) -> Result<()> {
        self.queue.go(&[read(1, self.sector, &[(self.back, LEN)])])
    }

    /// Demands that what it began is done.
    fn done(&mut self, tag: u16) -> Result<()> {
        let answers = self.queue.answers(&[tag])?;
        ensure!(answers == [Status::Ok], "{answers:?}");
        Ok(())
    }

    fn verify(&self, round: u64) -> Result<()> {
        let found = self.mapping.read(offset(self.back), LEN as usize);
        let right = found == pattern(self.sector, LEN, round);
        ensure!(right, "wrong data at sector {}", self.sector);
        Ok(())
    }
}

/// All guests, every adapter of them running.
fn start(env: &Env) -> Result<Vec<Small>> {
    let mut all = Vec::new();
    for guest in 0..GUESTS {
        let mapping = Arc::new(Mapping::new(MEMORY as usize)?);
        for number in 0..ADAPTERS {
            let nth = all.len() as u64;
            let small = Small::start(&env.device, &mapping, number, nth);
            all.push(small.with_context(|| format!("adapter {number} of guest {guest}"))?);
        }
    }
    Ok(all)
}

/// Writes and reads of all of them in flight at once, and each finds its own.
fn work(all: &mut [Small], round: u64) -> Result<()> {
    all.iter_mut().try_for_each(|small| small.write(round))?;
    all.iter_mut().try_for_each(|small| small.done(0))?;
    all.iter_mut().try_for_each(Small::read)?;
    all.iter_mut().try_for_each(|small| small.done(1))?;
    all.iter().try_for_each(|small| small.verify(round))
}

fn crowd(env: &Env) -> Result<Outcome> {
    // Two eventfds and a file for each adapter.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let result = come_and_go(env);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
    result
}

fn come_and_go(env: &Env) -> Result<Outcome> {
    let held = || Ok::<_, anyhow::Error>((locked()?, pinned()?, workers("")?.len()));
    let (before, kernel_before) = (held()?, kernel_memory()?);
    let mut all = start(env)?;
    let count = all.len();
    let now = held()?;
    let (pages, more) = (now.1 - before.1, now.2 - before.2);
    ensure!(more == count, "{count} adapters have {more} workers");
    let wanted = count as u64 * MEMORY / avio_abi::PAGE_SIZE;
    ensure!(pages == wanted, "{pages} pages are pinned, not {wanted}");
    for round in 0..4 {
        work(&mut all, round)?;
        env.bystander.goes_on()?;
    }
    let used = kernel_memory()?.saturating_sub(kernel_before);
    // Half of them go while the others, and they themselves, have requests in flight.
    all.iter_mut().try_for_each(|small| small.write(9))?;
    let mut left = all.split_off(count / 2);
    drop(all);
    left.iter_mut().try_for_each(|small| small.done(0))?;
    work(&mut left, 10)?;
    drop(left);
    wait_for("no page is pinned and no worker left", || {
        Ok(held()? == before)
    })?;
    // Where KASAN keeps what was freed for a while, kmemleak looks for what was not.
    if !Path::new("/sys/kernel/debug/kmemleak").exists() {
        wait_for("the kernel has its own memory back", || {
            Ok(kernel_memory()? < kernel_before + used / 2)
        })?;
    }
    Ok(Outcome::Pass(format!(
        "{count} adapters, {used} kB of the kernel's"
    )))
}
