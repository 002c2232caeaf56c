// SPDX-License-Identifier: GPL-2.0

//! Stopping an adapter, or having it rest.

use crate::state::{Phase, State};
use avio_abi::ioctl::SetupError;
use avio_sys::host::{wait_until, PinnedMemory};
use kernel::prelude::*;
use kernel::sync::Arc;

/// For how long a call waits for what is in flight.
const DRAIN_NS: u64 = 1_000_000_000;

impl State {
    /// Takes no more requests and waits for what is in flight.
    fn drain(&self) -> Result {
        for running in &self.running {
            running.queue.shared().halt.halt();
        }
        let idle = || self.running.iter().all(|running| running.queue.idle());
        if wait_until(DRAIN_NS, idle) {
            Ok(())
        } else {
            Err(EAGAIN)
        }
    }

    /// Stops, and forgets the queues, with what they hold back.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if a backing does not give back what it has, or the caller is being killed: to be called again.
    pub(crate) fn stop(&mut self) -> Result<isize> {
        if self.phase != Phase::Stopped {
            self.phase = Phase::Stopping;
            self.drain()?;
            self.forget_queues();
        }
        self.let_disks_go();
        Ok(0)
    }

    /// Lets the queues rest. They keep their positions and what they hold back.
    ///
    /// # Errors
    ///
    /// `EAGAIN` as for [`stop`](Self::stop), or if the adapter is being stopped.
    pub(crate) fn quiesce(&mut self) -> Result<isize> {
        match self.phase {
            Phase::Stopped => Ok(0),
            Phase::Stopping => Err(EAGAIN),
            Phase::Running | Phase::Quiesced => {
                self.phase = Phase::Quiesced;
                self.drain().map(|()| 0)
            }
        }
    }

    /// Goes on where [`quiesce`](Self::quiesce) ended, even if that had not succeeded yet.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if the adapter is being stopped.
    pub(crate) fn resume(&mut self) -> Result<isize> {
        match self.phase {
            Phase::Stopped | Phase::Running => Ok(0),
            Phase::Stopping => Err(EAGAIN),
            Phase::Quiesced => {
                self.phase = Phase::Running;
                self.go_on();
                Ok(0)
            }
        }
    }

    fn go_on(&self) {
        for running in &self.running {
            running.queue.shared().halt.resume();
            running.knock();
        }
    }

    /// Gives the queues other guest memory, while nothing that uses the old one is in flight.
    ///
    /// # Errors
    ///
    /// [`SetupError::Stuck`] if a backing does not give back what it has; then all keep the old one.
    pub(crate) fn exchange_memory(&self, memory: &Arc<PinnedMemory>) -> Result<(), SetupError> {
        let drained = self.drain();
        if drained.is_ok() {
            for running in &self.running {
                running.queue.set_memory(memory.clone());
            }
        }
        self.go_on();
        drained.map_err(|_| SetupError::Stuck)
    }
}
