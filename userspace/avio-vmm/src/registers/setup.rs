// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What the guest's driver sets before START: release, version, features and queues.

use avio_abi::ioctl::SetupError;
use avio_abi::pci::{queue, reg};

use super::{Offer, Refusal};

/// What the guest's driver set for a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    /// Guest address of the submission ring.
    pub submissions: u64,
    /// Guest address of the completion ring.
    pub completions: u64,
    /// Guest address of the control block.
    pub control: u64,
    /// Entries in each ring.
    pub size: u32,
}

/// The registers.
pub struct Setup {
    release: u32,
    version: u32,
    features: u64,
    count: u32,
    queues: Vec<Queue>,
}

impl Setup {
    /// Nothing is set.
    pub fn new(max_queues: u32) -> Self {
        Self {
            release: 0,
            version: 0,
            features: 0,
            count: 0,
            queues: vec![Queue::default(); max_queues as usize],
        }
    }

    /// Version, features and number of queues.
    pub fn driver(&self) -> (u32, u64, u32) {
        (self.version, self.features, self.count)
    }

    /// Reads a register.
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            reg::DRIVER_VERSION => self.version,
            reg::DRIVER_QUEUES => self.count,
            reg::DRIVER_FEATURES => low(self.features),
            DRIVER_FEATURES_HIGH => high(self.features),
            reg::DRIVER_RELEASE => self.release,
            reg::QUEUES..reg::DOORBELLS => self.read_queue(offset - reg::QUEUES),
            _ => 0,
        }
    }

    /// Writes a register.
    pub fn write(&mut self, offset: u64, value: u32) {
        match offset {
            reg::DRIVER_VERSION => self.version = value,
            reg::DRIVER_QUEUES => self.count = value,
            reg::DRIVER_FEATURES => set_low(&mut self.features, value),
            DRIVER_FEATURES_HIGH => set_high(&mut self.features, value),
            reg::DRIVER_RELEASE => self.release = value,
            reg::QUEUES..reg::DOORBELLS => self.write_queue(offset - reg::QUEUES, value),
            _ => {}
        }
    }

    fn read_queue(&self, offset: u64) -> u32 {
        let Some(block) = self.queues.get((offset / reg::QUEUE_STRIDE) as usize) else {
            return 0;
        };
        match offset % reg::QUEUE_STRIDE {
            queue::SUBMISSIONS => low(block.submissions),
            SUBMISSIONS_HIGH => high(block.submissions),
            queue::COMPLETIONS => low(block.completions),
            COMPLETIONS_HIGH => high(block.completions),
            queue::CONTROL => low(block.control),
            CONTROL_HIGH => high(block.control),
            queue::SIZE => block.size,
            _ => 0,
        }
    }

    fn write_queue(&mut self, offset: u64, value: u32) {
        let Some(block) = self.queues.get_mut((offset / reg::QUEUE_STRIDE) as usize) else {
            return;
        };
        match offset % reg::QUEUE_STRIDE {
            queue::SUBMISSIONS => set_low(&mut block.submissions, value),
            SUBMISSIONS_HIGH => set_high(&mut block.submissions, value),
            queue::COMPLETIONS => set_low(&mut block.completions, value),
            COMPLETIONS_HIGH => set_high(&mut block.completions, value),
            queue::CONTROL => set_low(&mut block.control, value),
            CONTROL_HIGH => set_high(&mut block.control, value),
            queue::SIZE => block.size = value,
            _ => {}
        }
    }

    /// The queues in use, if all that the driver set is within the offer.
    pub fn checked(&self, offer: &Offer) -> Result<Vec<Queue>, Refusal> {
        let refuse = |error, queue| {
            Err(Refusal {
                error: Some(error),
                queue,
            })
        };
        if !(1..=offer.version).contains(&self.version) || self.features & !offer.features != 0 {
            return refuse(SetupError::Features, 0);
        }
        let used = self
            .queues
            .get(..self.count as usize)
            .filter(|used| !used.is_empty());
        let Some(used) = used else {
            return refuse(SetupError::QueueRange, self.count);
        };
        for (index, queue) in (0..).zip(used) {
            let sizes = avio_abi::MIN_QUEUE_SIZE..=offer.max_queue_size;
            if !queue.size.is_power_of_two() || !sizes.contains(&queue.size) {
                return refuse(SetupError::QueueSize, index);
            }
        }
        Ok(used.to_vec())
    }
}

const DRIVER_FEATURES_HIGH: u64 = reg::DRIVER_FEATURES + 4;
const SUBMISSIONS_HIGH: u64 = queue::SUBMISSIONS + 4;
const COMPLETIONS_HIGH: u64 = queue::COMPLETIONS + 4;
const CONTROL_HIGH: u64 = queue::CONTROL + 4;

fn low(value: u64) -> u32 {
    value as u32
}

fn high(value: u64) -> u32 {
    (value >> 32) as u32
}

fn set_low(value: &mut u64, half: u32) {
    *value = *value & !0xffff_ffff | u64::from(half);
}

fn set_high(value: &mut u64, half: u32) {
    *value = *value & 0xffff_ffff | u64::from(half) << 32;
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: Offer = Offer {
        version: 1,
        features: 7,
        max_queues: 4,
        max_queue_size: 128,
    };

    fn ready() -> Setup {
        let mut setup = Setup::new(OFFER.max_queues);
        setup.write(reg::DRIVER_VERSION, 1);
        setup.write(reg::DRIVER_FEATURES, 3);
        setup.write(reg::DRIVER_QUEUES, 2);
        for index in 0..2 {
            setup.write(reg::QUEUES + index * reg::QUEUE_STRIDE + queue::SIZE, 64);
        }
        setup
    }

    fn refusal(setup: &Setup) -> Option<(SetupError, u32)> {
        let refusal = setup.checked(&OFFER).err()?;
        Some((refusal.error?, refusal.queue))
    }

    #[test]
    fn what_exceeds_the_offer_is_refused_with_the_reason() {
        assert_eq!(ready().checked(&OFFER).map(|queues| queues.len()), Ok(2));
        let second = reg::QUEUES + reg::QUEUE_STRIDE + queue::SIZE;
        let cases: [(u64, u32, SetupError, u32); 6] = [
            (reg::DRIVER_VERSION, 0, SetupError::Features, 0),
            (reg::DRIVER_VERSION, 2, SetupError::Features, 0),
            (reg::DRIVER_FEATURES + 4, 1, SetupError::Features, 0),
            (reg::DRIVER_QUEUES, 0, SetupError::QueueRange, 0),
            (reg::DRIVER_QUEUES, 5, SetupError::QueueRange, 5),
            (second, 256, SetupError::QueueSize, 1),
        ];
        for (offset, value, error, index) in cases {
            let mut setup = ready();
            setup.write(offset, value);
            assert_eq!(refusal(&setup), Some((error, index)));
        }
    }

    #[test]
    fn r12_ring_sizes_that_are_no_power_of_two_are_refused() {
        for size in [0, 1, 3, 100, u32::MAX] {
            let mut setup = ready();
            setup.write(reg::QUEUES + queue::SIZE, size);
            assert_eq!(refusal(&setup), Some((SetupError::QueueSize, 0)));
        }
    }

    #[test]
    fn registers_read_back_and_end() {
        let mut setup = Setup::new(2);
        let block = reg::QUEUES + reg::QUEUE_STRIDE;
        for offset in (0..0x1c).step_by(4) {
            setup.write(block + offset, 0x1000 + offset as u32);
            assert_eq!(setup.read(block + offset), 0x1000 + offset as u32);
        }
        setup.write(block + reg::QUEUE_STRIDE, 7);
        assert_eq!(
            setup.read(block + reg::QUEUE_STRIDE),
            0,
            "past the last queue"
        );
    }
}
