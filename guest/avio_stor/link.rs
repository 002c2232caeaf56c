// SPDX-License-Identifier: GPL-2.0

//! Starting and stopping the device (`docs/abi.md`, 2.6). In process context, not twice at a time.

use crate::queue::Queue;
use crate::registers::Registers;
use avio_abi::ioctl::SetupError;
use avio_abi::pci::{command, queue, reg, state, MAGIC};
use avio_abi::release::Release;
use avio_abi::{features, ABI_VERSION, MAX_QUEUES, MAX_QUEUE_SIZE};
use avio_core::ring::RingSize;
use kernel::device;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::Arc;
use kernel::time::delay::fsleep;
use kernel::time::Delta;

/// How often, and after how long each time, a device or queue that is stopping is looked at.
pub(crate) const STOP_LOOKS: u32 = 100;
pub(crate) const STOP_DELAY_MS: i64 = 100;

/// What there is to say of an adapter, or a queue, that does not stop.
pub(crate) const HANGS: &str =
    "does not stop: a backing device on the host has requests and does not end them";

/// What a device whose registers are gone answers.
const GONE: u32 = u32::MAX;

/// What was agreed on with the device, and the queues to start it with.
pub(crate) struct Link {
    pub(crate) device: ARef<device::Device>,
    pub(crate) registers: Arc<Registers>,
    pub(crate) features: u64,
    pub(crate) size: RingSize,
    pub(crate) queues: KVec<Arc<Queue>>,
}

impl Link {
    /// Has the device serve the queues, which must be as new.
    pub(crate) fn start(&self) -> Result {
        let (device, registers) = (&self.device, &self.registers);
        registers.write(reg::DRIVER_RELEASE, Release::CURRENT.0);
        registers.write(reg::DRIVER_VERSION, version(registers));
        registers.write_pair(reg::DRIVER_FEATURES, self.features);
        registers.write(reg::DRIVER_QUEUES, u32::try_from(self.queues.len())?);
        for (index, queue) in (0..u64::from(MAX_QUEUES)).zip(&self.queues) {
            let block = reg::QUEUES.wrapping_add(reg::QUEUE_STRIDE.wrapping_mul(index));
            let addresses = queue.addresses();
            registers.write_pair(block + queue::SUBMISSIONS, addresses.submissions);
            registers.write_pair(block + queue::COMPLETIONS, addresses.completions);
            registers.write_pair(block + queue::CONTROL, addresses.control);
            registers.write(block + queue::SIZE, self.size.entries());
        }
        registers.write(reg::COMMAND, command::START);
        if registers.read(reg::STATE) == state::RUNNING {
            return Ok(());
        }
        let (error, index) = (registers.read(reg::ERROR), registers.read(reg::ERROR_INDEX));
        let text = SetupError::from_u32(error).map_or("for an unknown reason", SetupError::text);
        dev_err!(
            device,
            "the adapter did not start (error {error}, queue {index}): {text}\n"
        );
        Err(EIO)
    }

    /// Has the device leave our memory alone; `ETIMEDOUT` if it does not within some seconds, because a backing device
    /// does not give back what it has. May sleep.
    pub(crate) fn stop(&self) -> Result {
        stop(&self.device, &self.registers)
    }
}

fn stop(device: &device::Device, registers: &Registers) -> Result {
    registers.write(reg::COMMAND, command::RESET);
    for _ in 0..STOP_LOOKS {
        match registers.read(reg::STATE) {
            state::STOPPED | GONE => return Ok(()),
            state::STOPPING => fsleep(Delta::from_millis(STOP_DELAY_MS)),
            state => {
                dev_err!(
                    device,
                    "the adapter is in state {state} after a reset, should be stopped\n"
                );
                return Err(EIO);
            }
        }
    }
    Err(ETIMEDOUT)
}

/// The same, and says so if it takes too long.
fn stop_aloud(device: &device::Device, registers: &Registers) -> Result {
    stop(device, registers).inspect_err(|error| {
        if *error == ETIMEDOUT {
            dev_err!(device, "the adapter {HANGS}\n");
        }
    })
}

fn version(registers: &Registers) -> u32 {
    registers.read(reg::VERSION).min(ABI_VERSION)
}

/// Makes sure of whom we speak with, from a known state; the features that both have.
pub(crate) fn handshake(device: &device::Device, registers: &Registers) -> Result<u64> {
    let magic = registers.read(reg::MAGIC);
    if magic != MAGIC {
        dev_err!(
            device,
            "not an AVIO adapter: its magic number is {magic:#x}, should be {MAGIC:#x}\n"
        );
        return Err(ENODEV);
    }
    if version(registers) == 0 {
        dev_err!(
            device,
            "the adapter speaks version 0 of the interface, should be 1 or newer\n"
        );
        return Err(ENODEV);
    }
    compare_releases(device, Release(registers.read(reg::RELEASE)));
    stop_aloud(device, registers)?;
    Ok(registers.read_pair(reg::DEVICE_FEATURES) & features::ALL)
}

/// Says it if the host's software is of another release.
fn compare_releases(device: &device::Device, host: Release) {
    let difference = Release::CURRENT.compare("the driver", host, "the host's software");
    if let Some(difference) = difference {
        dev_warn!(device, "{}\n", core::format_args!("{difference}"));
    }
}

/// The size of the rings: the largest that the device takes. A LUN that is alone at work has half of one.
pub(crate) fn ring_size(device: &device::Device, registers: &Registers) -> Result<RingSize> {
    let most = registers.read(reg::MAX_QUEUE_SIZE);
    let entries = MAX_QUEUE_SIZE.min(most.checked_ilog2().map_or(0, |log| 1 << log));
    RingSize::new(entries).ok_or(ENODEV).inspect_err(|_| {
        dev_err!(
            device,
            "the adapter takes rings of at most {most} entries, should be 2 or more\n"
        );
    })
}

/// A device that serves its queues. Dropping it stops the device.
pub(crate) struct Running(Arc<Link>);

impl Running {
    /// Starts it.
    pub(crate) fn new(link: Arc<Link>) -> Result<Self> {
        let running = Self(link);
        running.0.start()?;
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if stop_aloud(&self.0.device, &self.0.registers).is_err() {
            dev_err!(
                self.0.device,
                "the memory of its queues is lost: the device may still write to it\n"
            );
            core::mem::forget(self.0.clone());
        }
    }
}
