// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! `avio-vmm`: a thin VMM. It sets a guest up on KVM and on the AVIO host module, and then stays out of the data path:
//! doorbells go from KVM to the module and interrupts back without coming here.
//!
//! Threads: the main one waits for input and for the end ([`event_loop`]); each virtual processor has one ([`vcpu`]).

mod acpi;
mod adapter;
mod args;
mod backend;
mod boot;
mod cpu;
mod devices;
mod disks;
mod event_loop;
mod exit;
mod interrupts;
mod layout;
mod memory;
mod pci;
mod power;
mod registers;
mod seccomp;
mod serial;
mod terminal;
mod vcpu;
mod vm;

use std::error::Error;
use std::os::fd::AsFd;
use std::process::ExitCode;

use clap::Parser;
use nix::poll::{poll, PollFd, PollFlags};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::Args;
use crate::exit::Outcome;

fn main() -> ExitCode {
    let args = Args::parse();
    match start_log(&args.log).and_then(|()| run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            complain(&text);
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let machine = vm::Machine::new(args).map_err(|e| error_chain(&e))?;
    match machine.run().map_err(|e| error_chain(&e))? {
        Outcome::PowerOff | Outcome::Reset => Ok(()),
        Outcome::Failed(text) => Err(text),
    }
}

fn start_log(filter: &str) -> Result<(), String> {
    let targets: Targets = filter.parse().map_err(|e| format!("--log {filter}: {e}"))?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .without_time();
    tracing_subscriber::registry()
        .with(targets)
        .with(lines)
        .init();
    Ok(())
}

/// Says why we fail, unless nobody takes it for this many milliseconds: standard error may be the same stalled pipe as
/// standard output, and then we would never end.
fn complain(text: &str) {
    const PATIENCE: u16 = 500;
    let stderr = std::io::stderr();
    let mut waited = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut waited, PATIENCE) != Ok(0) {
        eprintln!("avio-vmm: {text}");
    }
}

/// An error and its causes on one line.
fn error_chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}
