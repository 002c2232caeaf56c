// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Plays a guest's driver from user space, without a virtual machine: reads single blocks of 4 KiB at random, so many at
//! a time, and prints how long one took. Where time counts instructions (see tests/vm/bench_instructions.py), that is
//! what an I/O costs the host and the little that is done here.
//!
//! The same loop drives every way, as a driver does: one publication for all that was put in, and a wait for the
//! interrupt only when nothing is left to take. Eventfds stand for KVM's doorbells and interrupts.

mod avio;
mod bare;
mod meminfo;
mod sys;
mod vhost_scsi;
mod vhost_user_blk;
mod vring;
mod workers;

use anyhow::{ensure, Result};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Bytes of a read.
pub const BLOCK: u32 = 4096;
/// Most reads at a time.
pub const MAX_DEPTH: u16 = 128;

/// A way to a disk.
pub trait Way {
    /// Puts in a read from this sector; its data is lost.
    fn push(&mut self, tag: u16, sector: u64) -> Result<()>;
    /// Shows the other side all that was put in.
    fn publish(&mut self) -> Result<()>;
    /// Takes a completion, if there is one.
    fn take(&mut self) -> Result<Option<u16>>;
    /// Asks for an interrupt with the next completion; `true` if one is there already.
    fn arm(&mut self) -> Result<bool>;
    /// Waits for the interrupt.
    fn wait(&mut self) -> Result<()>;
}

#[derive(Parser)]
#[command(about = "Drives block devices by AVIO, by vhost, or directly")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// By io_uring, without any guest
    Bare(Load),
    /// By /dev/avio-stor
    Avio(Load),
    /// By /dev/vhost-scsi: group 1 of the target of this name, its LUN 0
    VhostScsi {
        #[arg(long)]
        wwpn: String,
        #[command(flatten)]
        load: Load,
    },
    /// By vhost-user, from the program that listens at this socket
    VhostUserBlk {
        #[arg(long)]
        socket: PathBuf,
        #[command(flatten)]
        load: Load,
    },
    /// Kernel memory of an adapter of /dev/avio-stor, in MiB
    Memory(Adapter),
    /// Wake-ups of the workers of an adapter of /dev/avio-stor whose guest does nothing for two seconds
    Idle(Adapter),
}

#[derive(clap::Args)]
struct Adapter {
    /// Block device; only read
    #[arg(long)]
    device: PathBuf,
    #[arg(long, default_value_t = 1)]
    queues: u32,
}

#[derive(clap::Args)]
struct Load {
    /// Block device; only read
    #[arg(long)]
    device: PathBuf,
    /// Reads at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_DEPTH)))]
    depth: u16,
    /// Reads in all
    #[arg(long, default_value_t = 20_000)]
    reads: u64,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Bare(load) => measure(&mut bare::Bare::new(&load.device)?, &load),
        Command::Avio(load) => measure(&mut avio::Avio::new(&load.device, 1)?, &load),
        Command::VhostScsi { wwpn, load } => {
            measure(&mut vhost_scsi::VhostScsi::new(&wwpn)?, &load)
        }
        Command::VhostUserBlk { socket, load } => {
            measure(&mut vhost_user_blk::VhostUserBlk::new(&socket)?, &load)
        }
        Command::Memory(adapter) => memory(&adapter),
        Command::Idle(adapter) => idle(&adapter),
    }
}

fn memory(options: &Adapter) -> Result<()> {
    let before = meminfo::kernel_bytes()?;
    let _adapter = avio::Avio::new(&options.device, options.queues)?;
    let used = meminfo::kernel_bytes()?.saturating_sub(before);
    println!("{:.2}", used as f64 / f64::from(1 << 20));
    Ok(())
}

fn idle(options: &Adapter) -> Result<()> {
    let mut adapter = avio::Avio::new(&options.device, options.queues)?;
    adapter.push(0, 0)?;
    adapter.publish()?;
    while adapter.take()?.is_none() {
        if !adapter.arm()? {
            adapter.wait()?;
        }
    }
    // A worker may poll for a moment before it sleeps.
    sleep(Duration::from_millis(500));
    let before = workers::wake_ups()?;
    sleep(Duration::from_secs(2));
    println!("{}", workers::wake_ups()? - before);
    Ok(())
}

/// Warms up, then counts.
fn measure(way: &mut impl Way, load: &Load) -> Result<()> {
    let mut sectors = Sectors::of(&load.device)?;
    for tag in 0..load.depth {
        way.push(tag, sectors.next())?;
    }
    way.publish()?;
    go_on(way, &mut sectors, load.reads / 10)?;
    let begun = Instant::now();
    let reads = go_on(way, &mut sectors, load.reads)?;
    println!("{:.1}", begun.elapsed().as_nanos() as f64 / reads as f64);
    Ok(())
}

/// Keeps as many reads in flight as there are, until `least` more have ended; how many have.
fn go_on(way: &mut impl Way, sectors: &mut Sectors, least: u64) -> Result<u64> {
    let mut ended = 0;
    while ended < least {
        let before = ended;
        while let Some(tag) = way.take()? {
            ended += 1;
            way.push(tag, sectors.next())?;
        }
        if ended > before {
            way.publish()?;
        } else if !way.arm()? {
            way.wait()?;
        }
    }
    Ok(ended)
}

/// The sectors to read, the same ones in each run.
struct Sectors {
    blocks: u64,
    state: u64,
}

impl Sectors {
    fn of(device: &PathBuf) -> Result<Self> {
        use std::io::{Seek, SeekFrom};
        let bytes = std::fs::File::open(device)?.seek(SeekFrom::End(0))?;
        let blocks = bytes / u64::from(BLOCK);
        ensure!(blocks > 0, "{} is smaller than a block", device.display());
        Ok(Self { blocks, state: 1 })
    }

    fn next(&mut self) -> u64 {
        // Knuth's linear congruential generator; its upper half is random enough.
        self.state = self
            .state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.state >> 33) % self.blocks * u64::from(BLOCK / 512)
    }
}
