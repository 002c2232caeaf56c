// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Power management of the guest: the ACPI PM1 registers, timer and reset register. vCPU threads run it.

use std::time::{Duration, Instant};

use crate::exit::{Exit, Outcome};
use crate::layout::{PM1_CONTROL, PM1_EVENT, PM_TIMER, RESET};

/// Value of `SLP_TYP` for switching off, as the DSDT's `\_S5` says.
pub const SLEEP_TYPE_OFF: u8 = 5;
/// What to write to the reset register, as the FADT says.
pub const RESET_VALUE: u8 = 1;

/// Ticks of the timer in a second, as ACPI has it.
const TIMER_HZ: u128 = 3_579_545;
const SCI_ENABLED: u16 = 1 << 0;
const SLEEP_TYPE_SHIFT: u16 = 10;
const SLEEP_TYPE_MASK: u16 = 7;
const SLEEP_ENABLE: u16 = 1 << 13;

/// The bit of the power button in PM1 status and enable.
const POWER_BUTTON: u16 = 1 << 8;

/// The interrupt line of ACPI.
pub type Line = Box<dyn FnMut(bool) + Send>;

/// The registers. The power button is the only event; ACPI mode is always on.
pub struct Power {
    exit: Exit,
    line: Line,
    started: Instant,
    status: u16,
    enable: u16,
    control: u16,
}

impl Power {
    /// Registers that end the run through `exit` and interrupt the guest through `line`.
    pub fn new(exit: Exit, line: Line) -> Self {
        Self {
            exit,
            line,
            started: Instant::now(),
            status: 0,
            enable: 0,
            control: 0,
        }
    }

    /// Presses the power button.
    pub fn press(&mut self) {
        self.status |= POWER_BUTTON;
        self.drive_line();
    }

    fn drive_line(&mut self) {
        (self.line)(self.status & self.enable != 0);
    }

    /// Reads a port.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        let value = match port {
            PM1_EVENT => u32::from(self.status) | u32::from(self.enable) << 16,
            _ if port == PM1_EVENT + 2 => u32::from(self.enable),
            PM1_CONTROL => u32::from(self.control | SCI_ENABLED),
            PM_TIMER => ticks(self.started.elapsed()),
            _ => 0,
        };
        data.fill(0);
        for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
    }

    /// Writes a port.
    pub fn write(&mut self, port: u16, data: &[u8]) {
        let value = match *data {
            [low] => u16::from(low),
            [low, high, ..] => u16::from_le_bytes([low, high]),
            [] => return,
        };
        match port {
            PM1_EVENT => {
                self.status &= !value;
                self.drive_line();
            }
            _ if port == PM1_EVENT + 2 => {
                self.enable = value;
                self.drive_line();
            }
            PM1_CONTROL => self.write_control(value),
            RESET if value == u16::from(RESET_VALUE) => self.exit.end(Outcome::Reset),
            _ => {}
        }
    }

    fn write_control(&mut self, value: u16) {
        self.control = value & !SLEEP_ENABLE;
        let sleep_type = (value >> SLEEP_TYPE_SHIFT) & SLEEP_TYPE_MASK;
        if value & SLEEP_ENABLE != 0 && sleep_type == u16::from(SLEEP_TYPE_OFF) {
            self.exit.end(Outcome::PowerOff);
        }
    }
}

/// What the 32-bit timer shows after this long.
fn ticks(elapsed: Duration) -> u32 {
    (elapsed.as_nanos() * TIMER_HZ / 1_000_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::Arc;

    #[test]
    fn the_timer_runs_at_its_rate_and_wraps() {
        assert_eq!(ticks(Duration::from_secs(2)), 7_159_090);
        assert_eq!(
            ticks(Duration::from_secs(1200)),
            (1200 * TIMER_HZ % (1 << 32)) as u32
        );
        let (power, ..) = power();
        let mut first = [0; 4];
        power.read(PM_TIMER, &mut first);
        std::thread::sleep(Duration::from_millis(1));
        let mut second = [0; 4];
        power.read(PM_TIMER, &mut second);
        assert!(u32::from_le_bytes(second) > u32::from_le_bytes(first));
    }

    fn power() -> (Power, Exit, Arc<AtomicBool>) {
        let exit = Exit::new().unwrap();
        let raised = Arc::new(AtomicBool::new(false));
        let line = raised.clone();
        let line: Line = Box::new(move |on| line.store(on, Ordering::Relaxed));
        (Power::new(exit.clone(), line), exit, raised)
    }

    #[test]
    fn the_power_button_interrupts_until_the_guest_has_seen_it() {
        let (mut power, _, raised) = power();
        let raised = || raised.load(Ordering::Relaxed);
        power.press();
        assert!(!raised(), "not enabled");
        power.write(PM1_EVENT + 2, &POWER_BUTTON.to_le_bytes());
        assert!(raised());
        let mut data = [0; 2];
        power.read(PM1_EVENT, &mut data);
        assert_eq!(u16::from_le_bytes(data), POWER_BUTTON);
        power.write(PM1_EVENT, &[1, 0]);
        assert!(raised(), "another bit");
        power.write(PM1_EVENT, &POWER_BUTTON.to_le_bytes());
        assert!(!raised());
        power.read(PM1_EVENT, &mut data);
        assert_eq!(data, [0, 0]);
    }

    #[test]
    fn s5_switches_off() {
        let (mut power, exit, _) = power();
        power.write(PM1_CONTROL, &(5u16 << 10).to_le_bytes());
        assert_eq!(exit.outcome(), None);
        power.write(PM1_CONTROL, &(5u16 << 10 | 1 << 13).to_le_bytes());
        assert_eq!(exit.outcome(), Some(Outcome::PowerOff));
    }

    #[test]
    fn other_sleep_states_do_nothing() {
        let (mut power, exit, _) = power();
        power.write(PM1_CONTROL, &(3u16 << 10 | 1 << 13).to_le_bytes());
        assert_eq!(exit.outcome(), None);
    }

    #[test]
    fn the_reset_register_takes_its_value_only() {
        let (mut power, exit, _) = power();
        power.write(RESET, &[0]);
        assert_eq!(exit.outcome(), None);
        power.write(RESET, &[RESET_VALUE]);
        assert_eq!(exit.outcome(), Some(Outcome::Reset));
    }

    #[test]
    fn acpi_mode_is_on() {
        let (power, ..) = power();
        let mut data = [0; 2];
        power.read(PM1_CONTROL, &mut data);
        assert_eq!(data, [1, 0]);
    }
}
