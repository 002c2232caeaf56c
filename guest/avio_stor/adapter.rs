// SPDX-License-Identifier: GPL-2.0

//! An adapter from probe to removal.

use crate::lun;
use crate::queue::Queue;
use crate::registers::Registers;
use avio_abi::ioctl::SetupError;
use avio_abi::pci::{command, queue, reg, state, MAGIC, VECTOR_CONFIG};
use avio_abi::{features, ABI_VERSION, MAX_QUEUES};
use avio_core::ring::RingSize;
use avio_sys::guest::blkmq::{queue_count, TagSet};
use avio_sys::guest::disk::Disk;
use avio_sys::guest::irq::{Interrupts, Vectors};
use kernel::device::Bound;
use kernel::pci;
use kernel::prelude::*;
use kernel::sync::Arc;

/// Entries in each ring, where the device allows as many.
const RING_ENTRIES: u32 = 128;

/// First of the queues' vectors.
const FIRST_QUEUE_VECTOR: u32 = VECTOR_CONFIG + 1;

/// A running adapter. Dropping it waits for the requests in flight, then stops the device, then frees the rest: the
/// order of the fields.
pub(crate) struct Adapter<'bound> {
    _disks: KVec<Disk<Queue>>,
    _running: Running,
    _interrupts: Interrupts<'bound, Queue>,
    _tags: Arc<TagSet<Queue>>,
}

impl<'bound> Adapter<'bound> {
    /// Sets the device up and adds its disks. Uses at most `most_queues` queue pairs, unless that is zero.
    pub(crate) fn new(device: &'bound pci::Device<Bound>, most_queues: u32) -> Result<Self> {
        let registers = Arc::new(Registers::new(device)?, GFP_KERNEL)?;
        let features = handshake(device, &registers)?;
        let size = ring_size(device, &registers)?;

        let most_queues = if most_queues == 0 {
            MAX_QUEUES
        } else {
            most_queues.min(MAX_QUEUES)
        };
        let wanted = queue_count(most_queues.min(registers.read(reg::MAX_QUEUES)).max(1));
        let vectors = Vectors::new(device, FIRST_QUEUE_VECTOR, wanted).inspect_err(|_| {
            dev_err!(
                device,
                "needs two MSI-X vectors at least, one of them for a queue\n"
            )
        })?;

        let mut queues = KVec::new();
        for index in 0..vectors.spread().min(wanted) {
            let lists = features & features::SEGMENT_LIST != 0;
            let queue = Queue::new(
                index,
                size,
                lists,
                device.as_ref().into(),
                registers.clone(),
            )?;
            queues.push(queue, GFP_KERNEL)?;
        }
        let interrupts = Interrupts::new(vectors, "avio_stor", &queues)?;
        let running = Running::start(device, registers.clone(), features, size, &queues)?;
        dev_info!(
            device,
            "queue pairs: {}, of {} entries each\n",
            queues.len(),
            size.entries()
        );

        let tags = TagSet::new(
            queues,
            size.entries(),
            device.as_ref().into(),
            FIRST_QUEUE_VECTOR,
        );
        let tags = Arc::pin_init(tags, GFP_KERNEL)?;
        let disks = lun::add_disks(device, &registers, &tags, features)?;
        Ok(Self {
            _disks: disks,
            _running: running,
            _interrupts: interrupts,
            _tags: tags,
        })
    }
}

/// Makes sure of whom we speak with, from a known state; the features that both have.
fn handshake(device: &pci::Device<Bound>, registers: &Registers) -> Result<u64> {
    let (magic, version) = (registers.read(reg::MAGIC), registers.read(reg::VERSION));
    if magic != MAGIC {
        dev_err!(
            device,
            "not an AVIO adapter: its magic number is {magic:#x}, should be {MAGIC:#x}\n"
        );
        return Err(ENODEV);
    }
    if version == 0 {
        dev_err!(
            device,
            "the adapter speaks version 0 of the interface, should be 1 or newer\n"
        );
        return Err(ENODEV);
    }
    registers.write(reg::COMMAND, command::RESET);
    let state = registers.read(reg::STATE);
    if state != state::STOPPED {
        dev_err!(
            device,
            "the adapter is in state {state} after a reset, should be stopped\n"
        );
        return Err(EIO);
    }
    registers.write(reg::DRIVER_VERSION, version.min(ABI_VERSION));
    Ok(registers.read_pair(reg::DEVICE_FEATURES) & features::ALL)
}

/// The size of the rings: ours, or the device's largest.
fn ring_size(device: &pci::Device<Bound>, registers: &Registers) -> Result<RingSize> {
    let most = registers.read(reg::MAX_QUEUE_SIZE);
    let entries = RING_ENTRIES.min(most.checked_ilog2().map_or(0, |log| 1 << log));
    RingSize::new(entries).ok_or(ENODEV).inspect_err(|_| {
        dev_err!(
            device,
            "the adapter takes rings of at most {most} entries, should be 2 or more\n"
        );
    })
}

/// A device that serves its queues. Dropping it resets the device, which then leaves our memory alone.
struct Running(Arc<Registers>);

impl Running {
    fn start(
        device: &pci::Device<Bound>,
        registers: Arc<Registers>,
        features: u64,
        size: RingSize,
        queues: &[Arc<Queue>],
    ) -> Result<Self> {
        let running = Self(registers);
        let registers = &running.0;
        registers.write_pair(reg::DRIVER_FEATURES, features);
        registers.write(reg::DRIVER_QUEUES, u32::try_from(queues.len())?);
        for (index, queue) in (0..u64::from(MAX_QUEUES)).zip(queues) {
            let block = reg::QUEUES.wrapping_add(reg::QUEUE_STRIDE.wrapping_mul(index));
            let addresses = queue.addresses();
            registers.write_pair(block + queue::SUBMISSIONS, addresses.submissions);
            registers.write_pair(block + queue::COMPLETIONS, addresses.completions);
            registers.write_pair(block + queue::CONTROL, addresses.control);
            registers.write(block + queue::SIZE, size.entries());
        }
        registers.write(reg::COMMAND, command::START);
        if registers.read(reg::STATE) == state::RUNNING {
            return Ok(running);
        }
        let (error, index) = (registers.read(reg::ERROR), registers.read(reg::ERROR_INDEX));
        let text = SetupError::from_u32(error).map_or("for an unknown reason", SetupError::text);
        dev_err!(
            device,
            "the adapter did not start (error {error}, queue {index}): {text}\n"
        );
        Err(EIO)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.write(reg::COMMAND, command::RESET);
    }
}
