// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The machine's thread once the guest runs: it passes standard input to the serial port and waits for the end.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, PoisonError};

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};

use crate::exit::{Exit, Outcome};
use crate::input::Input;
use crate::serial::Serial;
use crate::signal::Signal;
use crate::terminal::Keys;

const INPUT: u32 = 0;
const ROOM: u32 = 1;
const SIGNAL: u32 = 2;
const EXIT: u32 = 3;

/// Most input that waits for room in the port; what is typed beyond that is lost.
const MAX_WAITING: usize = 4096;

/// Why there is no event loop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The event manager.
    #[error("cannot wait for events")]
    Events(#[source] event_manager::Error),
}

/// What the thread listens to.
pub struct Listener {
    serial: Arc<Mutex<Serial>>,
    room: Signal,
    exit: Exit,
    input: Input,
    keys: Option<Keys>,
    /// Input that the port had no room for yet.
    waiting: Vec<u8>,
    listening: bool,
}

impl Listener {
    /// Listens for input for this port, and for the end. On a terminal Ctrl-A x ends the guest.
    pub fn new(serial: Arc<Mutex<Serial>>, room: Signal, exit: Exit, input: &Input) -> Self {
        Self {
            serial,
            room,
            exit,
            keys: input.terminal.then(Keys::default),
            input: input.clone(),
            waiting: Vec::new(),
            listening: false,
        }
    }

    fn input_events() -> Events {
        Events::with_data(&io::stdin(), INPUT, EventSet::IN)
    }

    /// Not all input can be waited for: /dev/null and files cannot, and then the guest has none.
    fn listen(&mut self, ops: &mut EventOps) {
        if !self.listening {
            self.listening = ops.add(Self::input_events()).is_ok();
        }
    }

    fn stop_listening(&mut self, ops: &mut EventOps) {
        if self.listening {
            self.listening = false;
            let _ = ops.remove(Self::input_events());
        }
    }

    /// Reads input and passes it on. With keys it is read even while the port has no room, so that they work.
    fn take_input(&mut self, ops: &mut EventOps) {
        let mut buffer = [0; 64];
        match nix::unistd::read(io::stdin().as_fd(), &mut buffer) {
            Ok(0) => self.stop_listening(ops),
            Ok(len) => self.type_keys(&buffer[..len]),
            Err(nix::Error::EINTR | nix::Error::EAGAIN) => {}
            Err(_) => self.stop_listening(ops),
        }
        if !self.waiting.is_empty() && self.keys.is_none() {
            self.stop_listening(ops);
        }
    }

    fn type_keys(&mut self, typed: &[u8]) {
        let passed = match &mut self.keys {
            Some(keys) => keys.filter(typed),
            None => Some(typed.to_vec()),
        };
        match passed {
            Some(bytes) => {
                self.waiting.extend(bytes);
                self.waiting.truncate(MAX_WAITING);
                self.pass_input();
            }
            None => self
                .exit
                .end(Outcome::Failed("ended from the keyboard".into())),
        }
    }

    /// Passes on as much as the port has room for; it says so when it has more.
    fn pass_input(&mut self) {
        let mut serial = self.serial.lock().unwrap_or_else(PoisonError::into_inner);
        let len = serial.room().min(self.waiting.len());
        if len != 0 {
            serial.input(&self.waiting[..len]);
            self.waiting.drain(..len);
        }
    }

    fn take_signal(&mut self) {
        if let Some(outcome) = self.input.take_signal() {
            self.exit.end(outcome);
        }
    }
}

impl MutEventSubscriber for Listener {
    fn init(&mut self, ops: &mut EventOps) {
        self.listen(ops);
        let watched = [
            Events::with_data(self.room.event(), ROOM, EventSet::IN),
            Events::with_data_raw(self.input.signals.as_fd().as_raw_fd(), SIGNAL, EventSet::IN),
            Events::with_data(self.exit.event(), EXIT, EventSet::IN),
        ];
        for events in watched {
            if let Err(error) = ops.add(events) {
                self.exit
                    .end(Outcome::Failed(format!("cannot wait for events: {error}")));
            }
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        match events.data() {
            INPUT => self.take_input(ops),
            ROOM => {
                let _ = self.room.event().read();
                self.pass_input();
                if self.waiting.is_empty() {
                    self.listen(ops);
                }
            }
            SIGNAL => self.take_signal(),
            _ => {}
        }
    }
}

/// An event loop ready to run.
pub struct EventLoop {
    manager: EventManager<Listener>,
    exit: Exit,
}

impl EventLoop {
    /// Makes it; later it needs no further rights.
    pub fn new(listener: Listener) -> Result<Self, Error> {
        let exit = listener.exit.clone();
        let mut manager = EventManager::new().map_err(Error::Events)?;
        manager.add_subscriber(listener);
        Ok(Self { manager, exit })
    }

    /// Waits for the end of the run.
    pub fn run(mut self) -> Result<Outcome, Error> {
        loop {
            if let Some(outcome) = self.exit.outcome() {
                return Ok(outcome);
            }
            match self.manager.run() {
                Err(event_manager::Error::Epoll(error)) if error.errno() == libc::EINTR => {}
                other => drop(other.map_err(Error::Events)?),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: u8 = 0;
    const PORT_HOLDS: usize = 64;

    fn listener() -> (Listener, Arc<Mutex<Serial>>, Exit) {
        let (interrupt, room) = (Signal::new().unwrap(), Signal::new().unwrap());
        let serial = Arc::new(Mutex::new(Serial::new(interrupt, room.clone())));
        let exit = Exit::new().unwrap();
        let input = Input::new(false).unwrap();
        let listener = Listener::new(serial.clone(), room, exit.clone(), &input);
        (listener, serial, exit)
    }

    #[test]
    fn input_waits_for_room_in_its_order() {
        let (mut listener, serial, _) = listener();
        let typed: Vec<u8> = (0..100).collect();
        listener.type_keys(&typed);
        let mut got = Vec::new();
        while got.len() < typed.len() {
            let mut serial = serial.lock().unwrap();
            assert_ne!(serial.room(), PORT_HOLDS, "{} bytes came", got.len());
            while serial.room() < PORT_HOLDS {
                let mut byte = [0];
                serial.read(DATA, &mut byte);
                got.extend(byte);
            }
            drop(serial);
            listener.pass_input();
        }
        assert_eq!(got, typed);
    }

    #[test]
    fn ctrl_a_x_ends_a_guest_that_reads_nothing() {
        let (mut listener, _, exit) = listener();
        listener.keys = Some(Keys::default());
        for _ in 0..100 {
            listener.type_keys(&[b'a'; 64]);
        }
        assert_eq!(listener.waiting.len(), MAX_WAITING);
        assert_eq!(exit.outcome(), None);
        listener.type_keys(&[0x01, b'x']);
        assert!(matches!(exit.outcome(), Some(Outcome::Failed(_))));
    }
}
