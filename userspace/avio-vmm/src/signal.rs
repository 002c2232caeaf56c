// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! An eventfd as an interrupt line, or as a word from one thread to another.

use std::io;
use std::sync::Arc;

use vm_superio::Trigger;
use vmm_sys_util::eventfd::EventFd;

/// The signal. Clones are the same one.
#[derive(Clone)]
pub struct Signal(Arc<EventFd>);

impl Signal {
    /// A signal that nobody hears yet.
    pub fn new() -> io::Result<Self> {
        let event = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        Ok(Self(Arc::new(event)))
    }

    /// To wait for it.
    pub fn event(&self) -> &EventFd {
        &self.0
    }

    /// Gives it. It can only fail when it was given so often that whoever waits is awake.
    pub fn raise(&self) {
        let _ = self.0.write(1);
    }

    /// Takes it back.
    pub fn clear(&self) {
        let _ = self.0.read();
    }
}

impl Trigger for Signal {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}
