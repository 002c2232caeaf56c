// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The guest's serial port. vCPU threads use its registers and send its output; the event loop feeds it input.
//!
//! The port is shared under a lock, and standard output may block for as long as its reader likes. So the port only
//! says what goes out, and the thread that wrote it sends it once it has released the lock.

use std::io::{self, Write};

use vm_superio::serial::SerialEvents;

use crate::signal::Signal;

/// Tells the event loop when the port can take more input.
pub struct RoomForInput(Signal);

impl SerialEvents for RoomForInput {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        self.0.raise();
    }
}

/// Interrupt identification, and what it says: nothing, or that there is input.
const IDENTIFICATION: u8 = 2;
const CAUSES: u8 = 0b1111;
const NO_CAUSE: u8 = 0b0001;
const INPUT: u8 = 0b0100;
/// In the interrupt enable register: tell of input.
const ENABLE_INPUT: u8 = 1;

/// The port. Its output is a list that is never longer than a byte.
pub struct Serial(vm_superio::Serial<Signal, RoomForInput, Vec<u8>>);

impl Serial {
    /// A port that raises `interrupt`, and says `room` when its input buffer is empty.
    pub fn new(interrupt: Signal, room: Signal) -> Self {
        Self(vm_superio::Serial::with_events(
            interrupt,
            RoomForInput(room),
            Vec::new(),
        ))
    }

    /// Reads a register.
    pub fn read(&mut self, register: u8, data: &mut [u8]) {
        data.fill(0xff);
        if let [byte] = data {
            *byte = self.0.read(register);
            if register == IDENTIFICATION && *byte & CAUSES == NO_CAUSE && self.input_is_due() {
                *byte = *byte & !CAUSES | INPUT;
            }
        }
    }

    /// The guest wants to be told of input, and there is some. A real port goes on saying so; this one would only say it
    /// again when more came, which waits for the guest to read what is there. Linux reads 256 bytes at a time.
    fn input_is_due(&self) -> bool {
        let state = self.0.state();
        !state.in_buffer.is_empty() && state.interrupt_enable & ENABLE_INPUT != 0
    }

    /// Writes a register. What goes out by that is to be given to [`send`], after the lock on the port was released.
    pub fn write(&mut self, register: u8, data: &[u8]) -> Option<u8> {
        if let [byte] = data {
            if let Err(error) = self.0.write(register, *byte) {
                tracing::trace!(?error, "a serial interrupt is lost");
            }
        }
        self.0.writer_mut().pop()
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

/// Sends output of the port to standard output. Waits while its reader is slow, and the processor that writes with it;
/// output is lost only when there is no reader any more.
pub fn send(output: Option<u8>) {
    let Some(byte) = output else {
        return;
    };
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(&[byte]).and_then(|()| out.flush()) {
        tracing::trace!(?error, "serial output is lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: u8 = 0;
    const ENABLE: u8 = 1;
    const LINE_CONTROL: u8 = 3;
    const DIVISOR_LATCH: u8 = 0x80;

    #[test]
    fn output_is_handed_out_and_not_kept() {
        let mut serial = Serial::new(Signal::new().unwrap(), Signal::new().unwrap());
        assert_eq!(serial.write(DATA, b"a"), Some(b'a'));
        assert_eq!(serial.write(DATA, b"b"), Some(b'b'));
        assert_eq!(serial.write(DATA, b"cd"), None, "of no legal size");
        assert_eq!(serial.write(LINE_CONTROL, &[DIVISOR_LATCH]), None);
        assert_eq!(serial.write(DATA, &[1]), None, "a divisor");
    }

    #[test]
    fn input_is_told_of_until_it_was_read() {
        let mut serial = Serial::new(Signal::new().unwrap(), Signal::new().unwrap());
        let read = |serial: &mut Serial, register| {
            let mut byte = [0];
            serial.read(register, &mut byte);
            byte[0]
        };
        serial.input(b"ab");
        assert_eq!(
            read(&mut serial, IDENTIFICATION) & CAUSES,
            NO_CAUSE,
            "not asked for"
        );
        serial.write(ENABLE, &[ENABLE_INPUT]);
        for expected in *b"ab" {
            for _ in 0..2 {
                assert_eq!(read(&mut serial, IDENTIFICATION) & CAUSES, INPUT);
            }
            assert_eq!(read(&mut serial, DATA), expected);
        }
        assert_eq!(
            read(&mut serial, IDENTIFICATION) & CAUSES,
            NO_CAUSE,
            "all was read"
        );
    }
}
