// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What the registers reach: the module, and the events between guest, module and the control thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::{Error, Stor};
use crate::registers::{Backend, Queue, Refusal, Stop, Task};
use crate::resets::Resets;
use crate::signal::Signal;

/// The eventfds of an adapter.
pub struct Events {
    /// The doorbells, by queue.
    pub kicks: Vec<Arc<EventFd>>,
    /// The queues' interrupts.
    pub calls: Vec<Arc<EventFd>>,
    /// The interrupt that tells of changed descriptions.
    pub config: Arc<EventFd>,
    /// Tells the control thread that a stop is not complete, or a gate was opened.
    pub notice: Signal,
}

/// An adapter with its events.
pub struct Served {
    stor: Arc<Stor>,
    events: Events,
    resets: Resets,
    quiesced: Arc<AtomicBool>,
    warned: bool,
}

impl Served {
    /// Serves the adapter. `quiesced` is cleared when the guest resets or starts it.
    pub fn new(stor: Arc<Stor>, events: Events, resets: Resets, quiesced: Arc<AtomicBool>) -> Self {
        Self {
            stor,
            events,
            resets,
            quiesced,
            warned: false,
        }
    }

    fn try_start(&self, version: u32, features: u64, queues: &[Queue]) -> Result<(), Error> {
        let events = &self.events;
        self.stor.set_features(version, features)?;
        for (index, ((queue, kick), call)) in
            (0..).zip(queues.iter().zip(&events.kicks).zip(&events.calls))
        {
            self.stor.set_queue(index, queue, kick, call)?;
        }
        self.stor.start(queues.len() as u32)
    }

    /// Whether all requests of a LUN wait for its limits: its disk is well then.
    fn only_waits(&self, lun: u32) -> bool {
        let status = self.stor.lun(lun);
        status.is_ok_and(|status| status.in_flight == 0 && status.held_back != 0)
    }

    /// Logs once only: a guest could fill the log.
    fn warn(&mut self, what: &str, error: &Error) {
        if !self.warned {
            self.warned = true;
            tracing::warn!("{what}: {}", crate::error_chain(error));
        }
    }
}

impl Backend for Served {
    fn start(&mut self, version: u32, features: u64, queues: &[Queue]) -> Result<(), Refusal> {
        let count = queues.len();
        tracing::debug!(version, features, count, "the guest starts its adapter");
        self.quiesced.store(false, Ordering::Relaxed);
        self.try_start(version, features, queues).map_err(|error| {
            self.warn("the guest's adapter does not start", &error);
            match error {
                Error::Refused { error, index, .. } => Refusal {
                    error: Some(error),
                    queue: index,
                },
                _ => Refusal {
                    error: None,
                    queue: 0,
                },
            }
        })
    }

    fn stop(&mut self) -> Stop {
        tracing::debug!("the guest resets its adapter");
        self.quiesced.store(false, Ordering::Relaxed);
        match self.stor.stop() {
            Ok(Stop::Done) => Stop::Done,
            Ok(Stop::Pending) => {
                self.events.notice.raise();
                Stop::Pending
            }
            Err(error) => {
                self.warn("the guest's adapter does not stop", &error);
                self.events.notice.raise();
                Stop::Pending
            }
        }
    }

    fn task(&mut self, task: Task) -> Option<u32> {
        tracing::debug!(?task, "task of the guest");
        let result = self.stor.task(task).ok()?;
        match task {
            Task::LunReset { lun } if !self.only_waits(lun) => self.resets.ask(lun),
            Task::OpenGate { .. } => self.events.notice.raise(),
            Task::LunReset { .. }
            | Task::Abort { .. }
            | Task::QueueStop { .. }
            | Task::QueueStart { .. } => {}
        }
        Some(result)
    }

    fn announce(&mut self) {
        let _ = self.events.config.write(1);
    }
}
