// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! `avio-vmm`: a thin VMM. It sets a guest up on KVM and on the AVIO host module, and then stays out of the data path:
//! doorbells go from KVM to the module and interrupts back without coming here.
//!
//! Threads: the main one starts a machine and, after the guest's reset, another one. The machine's thread waits for input
//! and for the end ([`event_loop`]); each virtual processor has one ([`vcpu`]); one serves the control socket and watches
//! the backing devices ([`control`]); some open devices for it ([`openers`]); one resets SCSI disks ([`resets`]). Each is
//! confined to what it does ([`seccomp`]).

mod acpi;
mod adapter;
mod args;
mod backend;
mod backing;
mod boot;
mod cgroups;
mod control;
mod cpu;
mod devices;
mod event_loop;
mod exit;
mod hba;
mod input;
mod interrupts;
mod inventory;
mod layout;
mod limits;
mod log;
mod memory;
mod openers;
mod pci;
mod plan;
mod power;
mod registers;
mod resets;
mod seccomp;
mod serial;
mod signal;
mod state;
mod terminal;
mod vcpu;
mod vm;

use std::error::Error;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread;

use nix::poll::{poll, PollFd, PollFlags};

use crate::args::Args;
use crate::cgroups::{Cgroups, Cleanup};
use crate::control::Control;
use crate::exit::Outcome;
use crate::input::Input;
use crate::inventory::{Inventory, Shared};
use crate::openers::{Openers, Ways};
use crate::seccomp::Filter;
use crate::state::State;
use crate::terminal::RawMode;

fn main() -> ExitCode {
    let args: Args = manpage::parse();
    match log::start(&args.log).and_then(|()| run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            complain(&text);
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let filter = Filter::of_process(!args.no_seccomp);
    filter
        .and_then(|it| it.apply())
        .map_err(|e| error_chain(&e))?;
    let plan = plan::plan(args).map_err(|e| e.to_string())?;
    if !plan.is_empty() {
        backend::release::compare();
    }
    limits::raise(&plan, args.cgroup.is_some())?;
    let state = match &args.state {
        Some(path) => State::open(path).map_err(|e| error_chain(&e))?,
        None => State::volatile(),
    };
    let cgroups = args.cgroup.as_deref().map(Cgroups::open).transpose();
    let cgroups = cgroups.map_err(|e| error_chain(&e))?.map(Arc::new);
    let _cleanup = cgroups.clone().map(|cgroups| Cleanup {
        cgroups,
        adapters: plan.iter().map(|adapter| adapter.id.clone()).collect(),
    });
    let inventory = Inventory::open(plan, state, cgroups).map_err(|e| error_chain(&e))?;
    let inventory = Shared::new(inventory);
    let raw_mode = RawMode::enter();
    let input = Input::new(raw_mode.is_some());
    let input = input.map_err(|e| format!("cannot wait for signals: {e}"))?;
    // All threads are started from here on: the signals are to end none of them.
    let filter = Filter::of_opener(!args.no_seccomp).map_err(|e| error_chain(&e))?;
    let openers = Openers::start(&filter, Ways::BLOCK).map_err(|e| error_chain(&e))?;
    let control = Control::new(args.control.as_deref(), openers).map_err(|e| error_chain(&e))?;
    let _name = args.control.clone().map(control::Name);
    let control = Arc::new(Mutex::new(control));
    loop {
        match run_once(args, &inventory, &control, &input)? {
            Outcome::Reset if !args.no_reboot => tracing::info!("the guest resets itself"),
            Outcome::PowerOff | Outcome::Reset | Outcome::Quit => return Ok(()),
            Outcome::Failed(text) => return Err(text),
        }
    }
}

/// Makes a machine and runs it to its end, in a thread of its own: it gets confined for good, and the next machine must
/// be made, too.
fn run_once(
    args: &Args,
    inventory: &Shared,
    control: &Arc<Mutex<Control>>,
    input: &Input,
) -> Result<Outcome, String> {
    let body = || vm::Machine::new(args, inventory)?.run(control, input);
    let result = thread::scope(|scope| scope.spawn(body).join());
    match result {
        Ok(result) => result.map_err(|e| error_chain(&e)),
        Err(_) => Err("the machine's thread has panicked".into()),
    }
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
