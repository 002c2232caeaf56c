// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The control thread: it serves the control socket, watches the backing devices, waits for what a stop left behind, and
//! remembers which gates the guest opened. Devices are opened by other threads, as that may take long.

mod client;
mod commands;
mod report;
mod server;
mod tasks;
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
use crate::openers::Openers;
use crate::signal::Signal;
use commands::Reply;
use server::Server;
pub use server::{Error, Name};
use tasks::{Tasks, PATIENCE};
use uevents::Uevents;
use watch::Search;

/// Between two looks at what does not tell when it changes: a stop that is not complete.
const STOP_PAUSE: Duration = Duration::from_millis(20);
/// Likewise, a lost device of which udev may make the name again, one whose LUN is gone and that still has requests, or a
/// partition, which may be resized.
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
    openers: Openers,
    tasks: Tasks,
    search: Search,
}

impl Control {
    /// Listens at `path`, if there is one, and to the kernel.
    pub fn new(path: Option<&Path>, openers: Openers) -> Result<Self, Error> {
        let uevents = Uevents::new();
        if let Err(error) = &uevents {
            tracing::warn!("cannot watch devices ({error}); rescan-lun tells of a resize");
        }
        Ok(Self {
            server: path.map(Server::new).transpose()?,
            uevents: uevents.ok(),
            openers,
            tasks: Tasks::new(PATIENCE),
            search: Search::default(),
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
            let pause = match (stopping, leaving || watch::any_untold(guest)) {
                (true, _) => Some(STOP_PAUSE),
                (false, true) => Some(DEVICE_PAUSE),
                (false, false) => None,
            };
            let pause = pause.into_iter().chain(self.tasks.pause()).min();
            if let Err(error) = self.wait(guest, pause) {
                let text = format!("the control thread cannot wait for events: {error}");
                return guest.exit.end(Outcome::Failed(text));
            }
            guest.notice.clear();
            self.openers.done().clear();
            if let Some(uevents) = &self.uevents {
                let changed = uevents.take();
                if !changed.is_empty() {
                    watch::look(guest, |lun| changed.touches(lun.backing.number));
                }
            }
            // The guest can wake this thread as often as it likes.
            if looked.elapsed() >= DEVICE_PAUSE {
                self.search.look(guest);
                watch::look_at_partitions(guest);
                looked = Instant::now();
            }
            self.search.go_on(guest, &self.openers);
            self.serve(guest);
        }
    }

    /// Answers what waited for a device, and then what is new.
    fn serve(&mut self, guest: &Guest) {
        let Some(server) = &mut self.server else {
            return;
        };
        for (client, text) in self.tasks.answers(guest, &self.openers) {
            server.answer(client, text);
        }
        let (openers, tasks) = (&self.openers, &mut self.tasks);
        server.serve(
            |client, line| match commands::answer(guest, openers, line) {
                Reply::Now(text) => Some(text),
                Reply::Later(task) => tasks.add(client, *task),
            },
        );
    }

    /// Waits until there is something to do, or for a time. What to wait for is put together anew each time: it is little, and changes.
    fn wait(&self, guest: &Guest, pause: Option<Duration>) -> io::Result<()> {
        let epoll = Epoll::new()?;
        let mut waited = vec![
            (guest.exit.event().as_raw_fd(), EventSet::IN),
            (guest.notice.event().as_raw_fd(), EventSet::IN),
            (self.openers.done().event().as_raw_fd(), EventSet::IN),
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
        let timeout = pause.map_or(-1, |pause| pause.as_millis() as i32 + 1);
        match epoll.wait(timeout, &mut [EpollEvent::default()]) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}

/// A descriptor, and what to wait for.
type Wait = (RawFd, EventSet);

#[cfg(test)]
mod tests {
    use super::tasks::Patience;
    use super::*;
    use crate::control::commands::tests::guest;
    use crate::openers::tests::{openers, Fifo};
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;

    fn ask(stream: &mut UnixStream, line: &str) {
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn answer(stream: &mut UnixStream) -> String {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line
    }

    #[test]
    fn while_a_device_hangs_others_are_served_and_quit_ends_the_run() {
        let path = std::env::temp_dir().join(format!("avio-control-{}", std::process::id()));
        let (guest, hung) = (guest(), [Fifo::new("first"), Fifo::new("second")]);
        let mut control = Control {
            server: Some(Server::new(&path).unwrap()),
            uevents: None,
            openers: openers(),
            tasks: Tasks::new(Patience {
                open: Duration::from_millis(300),
                ..PATIENCE
            }),
            search: Search::default(),
        };
        std::thread::scope(|scope| {
            scope.spawn(|| control.run(&guest));
            let mut clients = [0, 1].map(|_| UnixStream::connect(&path).unwrap());
            let add = |device: &Fifo| {
                let arguments = serde_json::json!({"hba": "a", "disk": device.disk()});
                serde_json::json!({"execute": "add-lun", "arguments": arguments}).to_string()
            };
            let [first, second] = &mut clients;
            ask(first, &add(&hung[0]));
            ask(second, r#"{"execute": "status"}"#);
            assert!(answer(second).contains("return"));
            assert!(answer(first).contains("has not answered"));
            ask(first, &add(&hung[1]));
            ask(second, r#"{"execute": "quit"}"#);
            assert!(answer(second).contains("return"));
        });
        assert_eq!(guest.exit.outcome(), Some(Outcome::Quit));
        drop((control, Name(path)));
        hung.iter().for_each(Fifo::answers_in_vain);
    }
}
