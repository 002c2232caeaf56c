// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Which device an I/O port or a memory address belongs to. vCPU threads run it, several at a time; each device has
//! its own lock, no two are held together, and none while a thread waits for standard output.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_superio::{I8042Device, Trigger};

use crate::exit::{Exit, Outcome};
use crate::layout::{COM1, ECAM, ECAM_SIZE, PM1_EVENT, RESET};
use crate::pci::{self, Root};
use crate::power::{Line, Power};
use crate::serial::{self, Serial};

const I8042_DATA: u16 = 0x60;
const I8042_COMMAND: u16 = 0x64;
const COM1_END: u16 = COM1 + 7;
const ECAM_END: u64 = ECAM + ECAM_SIZE - 1;

/// Resets through the keyboard controller, which has no keyboard.
struct ResetLine(Exit);

impl Trigger for ResetLine {
    type E = std::convert::Infallible;

    fn trigger(&self) -> Result<(), Self::E> {
        self.0.end(Outcome::Reset);
        Ok(())
    }
}

/// The devices.
pub struct Devices {
    serial: Arc<Mutex<Serial>>,
    i8042: Mutex<I8042Device<ResetLine>>,
    power: Mutex<Power>,
    pci: Root,
}

/// A lock that outlives a panic elsewhere: the panic ends the process anyway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Devices {
    /// Devices that end the run through `exit`; `sci` is the interrupt line of ACPI.
    pub fn new(serial: Arc<Mutex<Serial>>, pci: Root, exit: Exit, sci: Line) -> Self {
        let i8042 = Mutex::new(I8042Device::new(ResetLine(exit.clone())));
        Self {
            serial,
            i8042,
            power: Mutex::new(Power::new(exit, sci)),
            pci,
        }
    }

    /// Presses the power button.
    pub fn press_power_button(&self) {
        lock(&self.power).press();
    }

    /// A read from an I/O port; all ones where nothing is.
    pub fn read_port(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        match port {
            COM1..=COM1_END => lock(&self.serial).read((port - COM1) as u8, data),
            I8042_DATA | I8042_COMMAND => {
                data.fill(lock(&self.i8042).read((port - I8042_DATA) as u8))
            }
            PM1_EVENT..=RESET => lock(&self.power).read(port, data),
            pci::CONFIG_ADDRESS..=pci::CONFIG_END => self.pci.read_port(port, data),
            _ => tracing::trace!(port, "read from a port where nothing is"),
        }
    }

    /// A write to an I/O port.
    pub fn write_port(&self, port: u16, data: &[u8]) {
        match (port, data) {
            (COM1..=COM1_END, _) => {
                let output = lock(&self.serial).write((port - COM1) as u8, data);
                serial::send(output);
            }
            (I8042_DATA | I8042_COMMAND, [byte]) => {
                let _ = lock(&self.i8042).write((port - I8042_DATA) as u8, *byte);
            }
            (PM1_EVENT..=RESET, _) => lock(&self.power).write(port, data),
            (pci::CONFIG_ADDRESS..=pci::CONFIG_END, _) => self.pci.write_port(port, data),
            _ => tracing::trace!(port, "write to a port where nothing is"),
        }
    }

    /// A read from memory that is not RAM.
    pub fn read_memory(&self, address: u64, data: &mut [u8]) {
        match address {
            ECAM..=ECAM_END => self.pci.read_config(address - ECAM, data),
            _ => self.pci.read_memory(address, data),
        }
    }

    /// A write to memory that is not RAM.
    pub fn write_memory(&self, address: u64, data: &[u8]) {
        match address {
            ECAM..=ECAM_END => self.pci.write_config(address - ECAM, data),
            _ => self.pci.write_memory(address, data),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::host_bridge::HostBridge;
    use crate::signal::Signal;

    fn devices() -> (Devices, Exit) {
        let exit = Exit::new().unwrap();
        let serial = Serial::new(Signal::new().unwrap(), Signal::new().unwrap());
        let pci = Root::new(vec![Box::new(HostBridge::new())]);
        let serial = Arc::new(Mutex::new(serial));
        let devices = Devices::new(serial, pci, exit.clone(), Box::new(|_| {}));
        (devices, exit)
    }

    #[test]
    fn the_keyboard_controller_resets() {
        let (devices, exit) = devices();
        devices.write_port(0x64, &[0xfe]);
        assert_eq!(exit.outcome(), Some(Outcome::Reset));
    }

    #[test]
    fn the_host_bridge_is_in_the_window() {
        let (devices, _) = devices();
        let mut data = [0; 4];
        devices.read_memory(ECAM + 8, &mut data);
        assert_eq!(data[1..], [0, 0, 6]);
    }

    #[test]
    fn nothing_answers_with_all_ones() {
        let (devices, _) = devices();
        let mut data = [0; 4];
        for port in [0, 0x70, 0x2f8, 0xffff] {
            devices.write_port(port, &[0; 4]);
            devices.read_port(port, &mut data);
            assert_eq!(data, [0xff; 4]);
        }
    }

    #[test]
    fn accesses_of_odd_sizes_do_no_harm() {
        let (devices, exit) = devices();
        for port in 0..=u16::MAX {
            for len in 1..=4 {
                devices.read_port(port, &mut [0; 4][..len]);
                if port != RESET {
                    devices.write_port(port, &[0; 4][..len]);
                }
            }
        }
        assert_eq!(exit.outcome(), None);
    }
}
