// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What comes from outside for the whole life of the process: the signals that end it, and the terminal.

use std::os::fd::AsFd;
use std::sync::Arc;

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::exit::Outcome;

/// Signals that end the guest.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Signals and terminal.
#[derive(Clone)]
pub struct Input {
    /// The signals that end the guest.
    pub signals: Arc<SignalFd>,
    /// Standard input is a terminal.
    pub terminal: bool,
}

impl Input {
    /// Blocks the signals for this thread and those that it starts, and listens for them instead.
    pub fn new(terminal: bool) -> Result<Self, nix::Error> {
        let mask: SigSet = ENDING.into_iter().collect();
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self {
            signals: Arc::new(signals),
            terminal,
        })
    }

    /// Waits for a signal for this many milliseconds; the end that it means.
    pub fn wait_signal(&self, milliseconds: u16) -> Option<Outcome> {
        let mut waited = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut waited, PollTimeout::from(milliseconds));
        self.take_signal()
    }

    /// The end that a signal means, if there was one.
    pub fn take_signal(&self) -> Option<Outcome> {
        let signal = self.signals.read_signal().ok()??;
        let text = format!("ended by signal {}", signal.ssi_signo);
        Some(Outcome::Failed(text))
    }
}
