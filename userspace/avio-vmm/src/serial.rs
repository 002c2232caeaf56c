// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The guest's serial port. vCPU threads use its registers; the event loop feeds it input.

use std::io::{self, Stdout};
use std::sync::Arc;

use vm_superio::serial::SerialEvents;
use vm_superio::Trigger;
use vmm_sys_util::eventfd::EventFd;

/// An eventfd as interrupt line or as a word to the event loop.
#[derive(Clone)]
pub struct Signal(Arc<EventFd>);

impl Signal {
    /// A signal that nobody hears yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(EventFd::new(
            libc::EFD_NONBLOCK | libc::EFD_CLOEXEC,
        )?)))
    }

    /// To wait for it.
    pub fn event(&self) -> &EventFd {
        &self.0
    }
}

impl Trigger for Signal {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Tells the event loop when the port can take more input.
pub struct RoomForInput(Signal);

impl SerialEvents for RoomForInput {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        let _ = self.0.trigger();
    }
}

/// The port.
pub struct Serial(vm_superio::Serial<Signal, RoomForInput, Stdout>);

impl Serial {
    /// A port that raises `interrupt`, says `room` when its input buffer is empty, and writes to standard output.
    pub fn new(interrupt: Signal, room: Signal) -> Self {
        Self(vm_superio::Serial::with_events(
            interrupt,
            RoomForInput(room),
            io::stdout(),
        ))
    }

    /// Reads a register.
    pub fn read(&mut self, register: u8, data: &mut [u8]) {
        data.fill(0xff);
        if let [byte] = data {
            *byte = self.0.read(register);
        }
    }

    /// Writes a register. Output that nobody takes is lost, as on a line without a listener.
    pub fn write(&mut self, register: u8, data: &[u8]) {
        if let [byte] = data {
            if let Err(error) = self.0.write(register, *byte) {
                tracing::trace!(?error, "serial output is lost");
            }
        }
    }

    /// Bytes that `input` would take.
    pub fn room(&self) -> usize {
        self.0.fifo_capacity()
    }

    /// Gives input to the guest, no more than there is room for.
    pub fn input(&mut self, bytes: &[u8]) {
        if let Err(error) = self.0.enqueue_raw_bytes(bytes) {
            tracing::debug!(?error, "serial input is lost");
        }
    }
}
