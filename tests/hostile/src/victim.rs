// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Guests in processes of their own. Most are there to be killed.

use crate::adapter::Adapter;
use crate::guest::{few_regions, read, wait_for, Guest, DATA, PLAIN};
use crate::run::read_write;
use crate::sys::Mapping;
use crate::vcpu::{off_the_first_processor, Vcpu};
use anyhow::{ensure, Context, Result};
use avio_abi::ioctl::{QUIESCE, SET_MEMORY, STOP};
use clap::ValueEnum;
use nix::errno::Errno;
use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// How far a victim gets before it says so.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Step {
    Opened,
    Memory,
    Lun,
    Queues,
    Running,
    Quiesced,
    /// Its queue has been broken.
    Broken,
    /// Goes on reading without end.
    Loaded,
    /// Goes through all steps and back, over and over.
    Looping,
}

/// A call that waits for what is in flight.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum Waiting {
    Stop,
    Quiesce,
    SetMemory,
}

impl Waiting {
    /// Its number.
    const fn request(self) -> u32 {
        match self {
            Self::Stop => STOP,
            Self::Quiesce => QUIESCE,
            Self::SetMemory => SET_MEMORY,
        }
    }
}

/// Plays the victim.
pub fn play(device: &Path, step: Step) -> Result<()> {
    let _kept: Box<dyn std::any::Any> = match step {
        Step::Opened => Box::new(Adapter::open()?),
        Step::Memory => {
            let (adapter, mapping) = (Adapter::open()?, Mapping::new(crate::guest::MAPPING)?);
            adapter.set_memory(&few_regions(&mapping))?;
            Box::new((adapter, mapping))
        }
        Step::Looping => {
            ready();
            loop {
                running(device)?.works(0, 1)?;
            }
        }
        _ => Box::new(guest(device, step)?),
    };
    ready();
    loop {
        std::thread::park();
    }
}

/// A running guest.
fn running(device: &Path) -> Result<Guest> {
    let mut guest = Guest::prepare_small(&read_write(device)?, &PLAIN)?;
    guest.set_up(1, 8)?;
    Ok(guest)
}

/// A guest that has come to a later step.
fn guest(device: &Path, step: Step) -> Result<Guest> {
    let mut guest = Guest::prepare_small(&read_write(device)?, &PLAIN)?;
    if step == Step::Lun {
        return Ok(guest);
    }
    guest.set_up(1, 8)?;
    match step {
        Step::Queues => {
            guest.stop()?;
            guest.adapter.set_features(1, guest.features)?;
            guest.adapter.set_queue(&guest.queues[0].description())?;
        }
        Step::Quiesced => guest.quiesce()?,
        Step::Broken => guest.queue().go(&[read(8, 0, &[(DATA, 4096)])])?,
        Step::Loaded => {
            guest.works(0, 1)?;
            ready();
            match load(&mut guest)? {}
        }
        _ => {}
    }
    Ok(guest)
}

/// Plays a victim that makes a call with a request in flight, over and over.
pub fn call(device: &Path, call: Waiting) -> Result<()> {
    let mut guest = running(device)?;
    let table = few_regions(&guest.mapping);
    ready();
    loop {
        let before = guest.adapter.queue(0)?.submission;
        guest.queue().go(&[read(0, 0, &[(DATA, 4096)])])?;
        wait_for("the request is taken", || {
            Ok(guest.adapter.queue(0)?.submission != before)
        })?;
        let once = || match call {
            Waiting::Stop => guest.adapter.stop(),
            Waiting::Quiesce => guest.adapter.quiesce(),
            Waiting::SetMemory => {
                let set = guest.adapter.set_memory(&table);
                set.map(drop).map_err(|refused| refused.errno)
            }
        };
        while let Err(errno) = once() {
            ensure!(errno == Errno::EAGAIN, "{call:?}: {errno:?}");
        }
        if call == Waiting::Stop {
            guest.set_up(1, 8)?;
        } else {
            guest.adapter.resume()?;
            guest.queue().answers(&[0])?;
        }
    }
}

/// Plays the owner of an adapter that another has open, too.
pub fn own(device: &Path) -> Result<()> {
    let mut guest = Guest::prepare_on(Adapter::inherited()?, &read_write(device)?, &PLAIN)?;
    guest.set_up(1, 8)?;
    guest.works(0, 1)?;
    ready();
    match load(&mut guest)? {}
}

/// Rings another's doorbell.
pub fn ring() -> Result<()> {
    off_the_first_processor()?;
    let mut vcpu = Vcpu::ringing(std::io::stdin())?.context("no KVM")?;
    vcpu.ring()?;
    ready();
    loop {
        vcpu.ring()?;
    }
}

/// Reads without end.
fn load(guest: &mut Guest) -> Result<Infallible> {
    let reads: Vec<_> = (0..8).map(|tag| read(tag, 0, &[(DATA, 1 << 16)])).collect();
    loop {
        guest.queue().all(&reads)?;
    }
}

/// Tells whoever started this process that its guest has come to where it is to be.
pub fn ready() {
    println!("ready");
}

/// A victim that has come to its step.
pub struct Victim {
    process: Child,
    out: BufReader<ChildStdout>,
    /// What it said since then, once it has ended.
    said: String,
}

impl Victim {
    pub fn new(device: &Path, step: Step) -> Result<Self> {
        let name = step.to_possible_value().context("a step's name")?;
        Self::start(device, &["victim", name.get_name()], Stdio::inherit())
            .with_context(|| format!("the victim at {step:?}"))
    }

    /// One that makes this call over and over.
    pub fn caller(device: &Path, call: Waiting) -> Result<Self> {
        let name = call.to_possible_value().context("a call's name")?;
        Self::start(device, &["caller", name.get_name()], Stdio::inherit())
            .with_context(|| format!("the victim that calls {call:?}"))
    }

    /// One that owns what this adapter has of memory and workers.
    pub fn owner(device: &Path, adapter: &Adapter) -> Result<Self> {
        Self::start(device, &["owner"], adapter.to_inherit()?).context("the owner")
    }

    /// One whose virtual processor rings this doorbell as fast as it can.
    pub fn ringer(device: &Path, kick: OwnedFd) -> Result<Self> {
        Self::start(device, &["ringer"], kick.into()).context("the ringer")
    }

    /// One that is not to be harmed, and counts in this file how far it has come.
    pub fn bystander(device: &Path, rounds: File) -> Result<Self> {
        Self::start(device, &["bystander"], rounds.into()).context("the second guest")
    }

    fn start(device: &Path, role: &[&str], input: Stdio) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("--device")
            .arg(device)
            .args(role)
            .stdin(input)
            .stdout(Stdio::piped())
            .spawn()?;
        let out = process.stdout.take().context("its output")?;
        let mut victim = Self {
            process,
            out: BufReader::new(out),
            said: String::new(),
        };
        let mut line = String::new();
        victim.out.read_line(&mut line)?;
        ensure!(line == "ready\n", "it said {line:?}");
        Ok(victim)
    }

    /// Kills it without waiting.
    pub fn kill(&mut self) -> Result<()> {
        Ok(self.process.kill()?)
    }

    /// Kills it, and waits until nothing is left of it.
    pub fn end(&mut self) {
        let _ = self.kill();
        let _ = self.process.wait();
    }

    /// Whether it sleeps in this call.
    pub fn sleeps_in(&self, call: Waiting) -> Result<bool> {
        let text = fs::read_to_string(format!("/proc/{}/syscall", self.process.id()))?;
        // The number of what it sleeps in, and arguments, of which the second says which ioctl.
        let words: Vec<_> = text.split_whitespace().collect();
        let [number, request] = [
            libc::SYS_ioctl.to_string(),
            format!("{:#x}", call.request()),
        ];
        Ok(words.first() == Some(&number.as_str()) && words.get(2) == Some(&request.as_str()))
    }

    /// Whether nothing is left of it.
    pub fn is_gone(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_some())
    }

    /// How it ended, and what it said of that; none if it goes on.
    pub fn verdict(&mut self) -> Result<Option<String>> {
        let Some(status) = self.process.try_wait()? else {
            return Ok(None);
        };
        self.out.read_to_string(&mut self.said)?;
        Ok(Some(format!("{status}, {:?}", self.said.trim())))
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.end();
    }
}
