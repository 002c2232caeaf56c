// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The control thread: it serves the control socket, watches the backing devices, waits for what a stop left behind, and
//! remembers which gates the guest opened. It may wait for a device, and then only it does.

mod client;
mod commands;
mod report;
mod server;
mod uevents;
mod watch;

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::devices::Devices;
use crate::exit::{Exit, Outcome};
use crate::hba::Hba;
use crate::inventory::Shared;
use crate::signal::Signal;
use server::Server;
pub use server::{Error, Name};
use uevents::Uevents;

/// Between two looks at what does not tell when it changes: a stop that is not complete.
const STOP_PAUSE: Duration = Duration::from_millis(20);
/// Likewise, a lost device of which udev may make the name again, or one whose LUN is gone and that still has requests.
const DEVICE_PAUSE: Duration = Duration::from_secs(1);

/// The machine as this thread sees it.
pub struct Guest {
    /// The adapters, as in the inventory.
    pub hbas: Vec<Arc<Hba>>,
    /// What is attached to them.
    pub inventory: Shared,
    /// All devices.
    pub devices: Arc<Devices>,
    /// Ends the run.
    pub exit: Exit,
    /// Raised when a stop is not complete, or a gate was opened.
    pub notice: Signal,
}

/// The thread's own things, which outlive the guest's resets.
pub struct Control {
    server: Option<Server>,
    uevents: Option<Uevents>,
}

impl Control {
    /// Listens at `path`, if there is one, and to the kernel.
    pub fn new(path: Option<&Path>) -> Result<Self, Error> {
        let uevents = Uevents::new();
        if let Err(error) = &uevents {
            tracing::warn!("cannot watch devices ({error}); rescan-lun tells of a resize");
        }
        Ok(Self {
            server: path.map(Server::new).transpose()?,
            uevents: uevents.ok(),
        })
    }

    /// Works until the run has ended.
    pub fn run(&mut self, guest: &Guest) {
        // Between two runs, and while an adapter is stopping or quiesced, nothing can be told.
        let mut untold = true;
        let mut looked = Instant::now();
        while guest.exit.outcome().is_none() {
            let (mut stopping, mut leaving) = (false, false);
            for hba in &guest.hbas {
                stopping |= hba.is_stopping();
                leaving |= hba.has_leaving_disks();
            }
            let busy = stopping || guest.hbas.iter().any(|hba| hba.is_quiesced());
            if untold && !busy {
                watch::look(guest, |_| true);
            }
            untold = busy;
            watch::remember_gates(guest);
            let pause = match (stopping, leaving || watch::any_lost(guest)) {
                (true, _) => Some(STOP_PAUSE),
                (false, true) => Some(DEVICE_PAUSE),
                (false, false) => None,
            };
            if let Err(error) = self.wait(guest, pause) {
                let text = format!("the control thread cannot wait for events: {error}");
                return guest.exit.end(Outcome::Failed(text));
            }
            guest.notice.clear();
            if let Some(uevents) = &self.uevents {
                let changed = uevents.take();
                if !changed.is_empty() {
                    watch::look(guest, |lun| changed.touches(lun.backing.number));
                }
            }
            // The guest can wake this thread as often as it likes.
            if looked.elapsed() >= DEVICE_PAUSE {
                watch::look_for_lost(guest);
                looked = Instant::now();
            }
            if let Some(server) = &mut self.server {
                server.serve(|_, line| Some(commands::answer(guest, line)));
            }
        }
    }

    /// Waits until there is something to do, or for a time. What to wait for is put together anew each time: it is little, and changes.
    fn wait(&self, guest: &Guest, pause: Option<Duration>) -> io::Result<()> {
        let epoll = Epoll::new()?;
        let mut waited = vec![
            (guest.exit.event().as_raw_fd(), EventSet::IN),
            (guest.notice.event().as_raw_fd(), EventSet::IN),
        ];
        waited.extend(
            self.uevents
                .iter()
                .map(|uevents| (uevents.as_raw_fd(), EventSet::IN)),
        );
        waited.extend(self.server.iter().flat_map(Server::waits));
        for (fd, events) in waited {
            epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(events, 0))?;
        }
        let timeout = pause.map_or(-1, |pause| pause.as_millis() as i32);
        match epoll.wait(timeout, &mut [EpollEvent::default()]) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}

/// A descriptor, and what to wait for.
type Wait = (RawFd, EventSet);
