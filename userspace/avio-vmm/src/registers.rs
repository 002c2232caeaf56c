// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The register window of a storage adapter, as `avio_abi::pci` gives it. Pure logic: the host's side is behind
//! [`Backend`]. vCPU threads run it; the guest is not trusted.

use avio_abi::ioctl::SetupError;
use avio_abi::pci::{command, queue, reg, state, BAR_SIZE, MAGIC};
use avio_abi::stor::LunInfo;
use avio_abi::wire::Wire;

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

/// Why a start was refused, and at which queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why, if it is known.
    pub error: Option<SetupError>,
    /// At which queue; zero where none is at fault.
    pub queue: u32,
}

/// Who serves the queues.
pub trait Backend: Send {
    /// Serves `queues`.
    fn start(&mut self, version: u32, features: u64, queues: &[Queue]) -> Result<(), Refusal>;
    /// Stops and forgets what `start` was given.
    fn stop(&mut self);
}

/// What the adapter offers to the guest.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Newest ABI version.
    pub version: u32,
    /// `avio_abi::features`.
    pub features: u64,
    /// Most queue pairs.
    pub max_queues: u32,
    /// Most entries in a ring.
    pub max_queue_size: u32,
    /// The LUNs by number, absent ones all zero.
    pub luns: Vec<LunInfo>,
}

/// The window's state.
pub struct Registers<B> {
    backend: B,
    offer: Offer,
    lun_bytes: Vec<u8>,
    bus_master: bool,
    driver_version: u32,
    driver_features: u64,
    driver_queues: u32,
    queues: Vec<Queue>,
    state: u32,
    error: u32,
    error_index: u32,
}

impl<B: Backend> Registers<B> {
    /// A stopped adapter.
    pub fn new(offer: Offer, backend: B) -> Self {
        let queues = vec![Queue::default(); offer.max_queues as usize];
        let lun_bytes = offer.luns.iter().flat_map(LunInfo::to_bytes).collect();
        Self {
            backend,
            offer,
            lun_bytes,
            bus_master: false,
            driver_version: 0,
            driver_features: 0,
            driver_queues: 0,
            queues,
            state: state::STOPPED,
            error: 0,
            error_index: 0,
        }
    }

    /// Reads a 32-bit register; zero where there is none.
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            reg::MAGIC => MAGIC,
            reg::VERSION => self.offer.version,
            reg::DEVICE_FEATURES => low(self.offer.features),
            DEVICE_FEATURES_HIGH => high(self.offer.features),
            reg::MAX_QUEUES => self.offer.max_queues,
            reg::MAX_QUEUE_SIZE => self.offer.max_queue_size,
            reg::LUNS => self.offer.luns.len() as u32,
            reg::DRIVER_VERSION => self.driver_version,
            reg::DRIVER_QUEUES => self.driver_queues,
            reg::DRIVER_FEATURES => low(self.driver_features),
            DRIVER_FEATURES_HIGH => high(self.driver_features),
            reg::STATE => self.state,
            reg::ERROR => self.error,
            reg::ERROR_INDEX => self.error_index,
            reg::QUEUES..reg::DOORBELLS => self.read_queue(offset - reg::QUEUES),
            reg::LUN_INFO.. => self.read_lun(offset - reg::LUN_INFO),
            _ => 0,
        }
    }

    /// Writes a 32-bit register.
    pub fn write(&mut self, offset: u64, value: u32) {
        if offset == reg::COMMAND {
            return self.command(value);
        }
        if self.state != state::STOPPED {
            return;
        }
        match offset {
            reg::DRIVER_VERSION => self.driver_version = value,
            reg::DRIVER_QUEUES => self.driver_queues = value,
            reg::DRIVER_FEATURES => set_low(&mut self.driver_features, value),
            DRIVER_FEATURES_HIGH => set_high(&mut self.driver_features, value),
            reg::QUEUES..reg::DOORBELLS => self.write_queue(offset - reg::QUEUES, value),
            _ => {}
        }
    }

    /// Follows the Bus Master bit of configuration space. Switching it off is a RESET: whoever does so, before a kexec
    /// for instance, relies on it that the adapter leaves memory alone.
    pub fn set_bus_master(&mut self, on: bool) {
        let before = std::mem::replace(&mut self.bus_master, on);
        if before && !on {
            self.reset();
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

    fn read_lun(&self, offset: u64) -> u32 {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let word = self.lun_bytes.get(at..).and_then(|rest| rest.first_chunk());
        word.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    fn command(&mut self, value: u32) {
        match value {
            command::RESET => self.reset(),
            command::START if self.state == state::STOPPED => self.start(),
            _ => {}
        }
    }

    fn reset(&mut self) {
        if self.state != state::STOPPED {
            self.backend.stop();
        }
        self.queues.fill(Queue::default());
        self.driver_version = 0;
        self.driver_features = 0;
        self.driver_queues = 0;
        self.state = state::STOPPED;
        self.error = 0;
        self.error_index = 0;
    }

    fn start(&mut self) {
        let (version, features) = (self.driver_version, self.driver_features);
        match self
            .checked_queues()
            .and_then(|queues| self.backend.start(version, features, &queues))
        {
            Ok(()) => self.state = state::RUNNING,
            Err(refusal) => {
                self.state = state::FAILED;
                self.error = refusal.error.map_or(0, |error| error as u32);
                self.error_index = refusal.queue;
            }
        }
    }

    /// The queues in use, if all that the driver set is within the offer.
    fn checked_queues(&self) -> Result<Vec<Queue>, Refusal> {
        let refuse = |error, queue| {
            Err(Refusal {
                error: Some(error),
                queue,
            })
        };
        if !(1..=self.offer.version).contains(&self.driver_version)
            || self.driver_features & !self.offer.features != 0
        {
            return refuse(SetupError::Features, 0);
        }
        let used = self
            .queues
            .get(..self.driver_queues as usize)
            .filter(|used| !used.is_empty());
        let Some(used) = used else {
            return refuse(SetupError::QueueRange, self.driver_queues);
        };
        for (index, queue) in (0..).zip(used) {
            let sizes = avio_abi::MIN_QUEUE_SIZE..=self.offer.max_queue_size;
            if !queue.size.is_power_of_two() || !sizes.contains(&queue.size) {
                return refuse(SetupError::QueueSize, index);
            }
        }
        Ok(used.to_vec())
    }
}

const DEVICE_FEATURES_HIGH: u64 = reg::DEVICE_FEATURES + 4;
const DRIVER_FEATURES_HIGH: u64 = reg::DRIVER_FEATURES + 4;
const SUBMISSIONS_HIGH: u64 = queue::SUBMISSIONS + 4;
const COMPLETIONS_HIGH: u64 = queue::COMPLETIONS + 4;
const CONTROL_HIGH: u64 = queue::CONTROL + 4;
const _: () =
    assert!(reg::LUN_INFO + avio_abi::MAX_LUNS as u64 * <LunInfo as Wire>::SIZE as u64 <= BAR_SIZE);

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

    #[derive(Default)]
    struct Recorder {
        starts: Vec<(u32, u64, Vec<Queue>)>,
        stops: usize,
        refuse: Option<Refusal>,
    }

    impl Backend for Recorder {
        fn start(&mut self, version: u32, features: u64, queues: &[Queue]) -> Result<(), Refusal> {
            self.starts.push((version, features, queues.to_vec()));
            self.refuse.map_or(Ok(()), Err)
        }
        fn stop(&mut self) {
            self.stops += 1;
        }
    }

    fn registers() -> Registers<Recorder> {
        let disk = LunInfo {
            flags: 1,
            logical_block: 512,
            sectors: 0x1_2345_6789,
            ..LunInfo::default()
        };
        let luns = vec![LunInfo::default(), disk];
        let offer = Offer {
            version: 1,
            features: 7,
            max_queues: 4,
            max_queue_size: 128,
            luns,
        };
        Registers::new(offer, Recorder::default())
    }

    fn set_queue(registers: &mut Registers<Recorder>, index: u64, size: u32) {
        let base = reg::QUEUES + index * reg::QUEUE_STRIDE;
        registers.write(base + queue::SUBMISSIONS, 0x1000);
        registers.write(base + queue::SUBMISSIONS + 4, 1);
        registers.write(base + queue::COMPLETIONS, 0x2000);
        registers.write(base + queue::CONTROL, 0x3000);
        registers.write(base + queue::SIZE, size);
    }

    fn ready() -> Registers<Recorder> {
        let mut registers = registers();
        registers.write(reg::DRIVER_VERSION, 1);
        registers.write(reg::DRIVER_FEATURES, 3);
        registers.write(reg::DRIVER_QUEUES, 2);
        set_queue(&mut registers, 0, 64);
        set_queue(&mut registers, 1, 128);
        registers
    }

    fn start(registers: &mut Registers<Recorder>) -> (u32, u32, u32) {
        registers.write(reg::COMMAND, command::START);
        (
            registers.read(reg::STATE),
            registers.read(reg::ERROR),
            registers.read(reg::ERROR_INDEX),
        )
    }

    #[test]
    fn the_offer_is_readable_and_fixed() {
        let mut registers = registers();
        for offset in (0..0x20).step_by(4) {
            let before = registers.read(offset);
            registers.write(offset, !before);
            assert_eq!(registers.read(offset), before);
        }
        assert_eq!(registers.read(reg::MAGIC).to_le_bytes(), *b"AVIO");
        assert_eq!(registers.read(reg::DEVICE_FEATURES), 7);
        assert_eq!(registers.read(reg::MAX_QUEUES), 4);
        assert_eq!(registers.read(reg::MAX_QUEUE_SIZE), 128);
        assert_eq!(registers.read(reg::LUNS), 2);
    }

    #[test]
    fn luns_are_in_the_window() {
        let registers = registers();
        assert_eq!(registers.read(reg::LUN_INFO), 0);
        assert_eq!(registers.read(reg::LUN_INFO + 128), 1);
        assert_eq!(registers.read(reg::LUN_INFO + 128 + 4), 512);
        assert_eq!(registers.read(reg::LUN_INFO + 128 + 8), 0x2345_6789);
        assert_eq!(registers.read(reg::LUN_INFO + 128 + 12), 1);
        assert_eq!(registers.read(reg::LUN_INFO + 256), 0, "past the last LUN");
        assert_eq!(registers.read(!3), 0);
    }

    #[test]
    fn start_hands_over_what_was_set() {
        let mut registers = ready();
        assert_eq!(start(&mut registers), (state::RUNNING, 0, 0));
        let (version, features, queues) = registers.backend.starts[0].clone();
        assert_eq!((version, features, queues.len()), (1, 3, 2));
        let expected = Queue {
            submissions: 0x1_0000_1000,
            completions: 0x2000,
            control: 0x3000,
            size: 128,
        };
        assert_eq!(queues[1], expected);
    }

    #[test]
    fn r13_queue_registers_do_not_change_while_running() {
        let mut registers = ready();
        start(&mut registers);
        set_queue(&mut registers, 0, 2);
        assert_eq!(registers.read(reg::QUEUES + queue::SIZE), 64);
    }

    #[test]
    fn r14_features_do_not_change_while_running() {
        let mut registers = ready();
        start(&mut registers);
        registers.write(reg::DRIVER_FEATURES, 0);
        registers.write(reg::DRIVER_QUEUES, 4);
        assert_eq!(registers.read(reg::DRIVER_FEATURES), 3);
        assert_eq!(registers.read(reg::DRIVER_QUEUES), 2);
        assert_eq!(start(&mut registers).0, state::RUNNING);
        assert_eq!(
            registers.backend.starts.len(),
            1,
            "a second START does nothing"
        );
    }

    #[test]
    fn reset_stops_and_forgets() {
        let mut registers = ready();
        start(&mut registers);
        registers.write(reg::COMMAND, command::RESET);
        assert_eq!(registers.backend.stops, 1);
        assert_eq!(registers.read(reg::STATE), state::STOPPED);
        assert_eq!(registers.read(reg::QUEUES + queue::SIZE), 0);
        assert_eq!(registers.read(reg::DRIVER_VERSION), 0);
        registers.write(reg::COMMAND, command::RESET);
        assert_eq!(registers.backend.stops, 1, "nothing to stop");
    }

    #[test]
    fn switching_bus_master_off_is_a_reset() {
        let mut registers = ready();
        registers.set_bus_master(false);
        assert_eq!(registers.read(reg::DRIVER_QUEUES), 2, "it was off before");
        registers.set_bus_master(true);
        start(&mut registers);
        registers.set_bus_master(true);
        assert_eq!(registers.read(reg::STATE), state::RUNNING);
        registers.set_bus_master(false);
        assert_eq!(registers.backend.stops, 1);
        assert_eq!(registers.read(reg::STATE), state::STOPPED);
        assert_eq!(registers.read(reg::DRIVER_QUEUES), 0);
        registers.set_bus_master(false);
        assert_eq!(registers.backend.stops, 1, "nothing to stop");
    }

    #[test]
    fn what_exceeds_the_offer_is_refused_with_the_reason() {
        let cases: [(u64, u32, SetupError, u32); 6] = [
            (reg::DRIVER_VERSION, 0, SetupError::Features, 0),
            (reg::DRIVER_VERSION, 2, SetupError::Features, 0),
            (reg::DRIVER_FEATURES + 4, 1, SetupError::Features, 0),
            (reg::DRIVER_QUEUES, 0, SetupError::QueueRange, 0),
            (reg::DRIVER_QUEUES, 5, SetupError::QueueRange, 5),
            (
                reg::QUEUES + reg::QUEUE_STRIDE + queue::SIZE,
                256,
                SetupError::QueueSize,
                1,
            ),
        ];
        for (offset, value, error, index) in cases {
            let mut registers = ready();
            registers.write(offset, value);
            assert_eq!(start(&mut registers), (state::FAILED, error as u32, index));
            assert!(registers.backend.starts.is_empty());
        }
    }

    #[test]
    fn r12_ring_sizes_that_are_no_power_of_two_are_refused() {
        for size in [0, 1, 3, 100, u32::MAX] {
            let mut registers = ready();
            set_queue(&mut registers, 0, size);
            assert_eq!(
                start(&mut registers),
                (state::FAILED, SetupError::QueueSize as u32, 0)
            );
        }
    }

    #[test]
    fn a_refusal_by_the_host_reaches_the_guest_and_reset_clears_it() {
        let mut registers = ready();
        registers.backend.refuse = Some(Refusal {
            error: Some(SetupError::QueueAddress),
            queue: 1,
        });
        assert_eq!(
            start(&mut registers),
            (state::FAILED, SetupError::QueueAddress as u32, 1)
        );
        registers.write(reg::COMMAND, command::START);
        assert_eq!(
            registers.backend.starts.len(),
            1,
            "only RESET leads out of FAILED"
        );
        registers.write(reg::COMMAND, command::RESET);
        assert_eq!(registers.read(reg::ERROR), 0);
        assert_eq!(registers.read(reg::STATE), state::STOPPED);
        assert_eq!(registers.backend.stops, 1, "half-made queues are forgotten");
    }

    #[test]
    fn a_refusal_without_a_reason_has_number_zero() {
        let mut registers = ready();
        registers.backend.refuse = Some(Refusal {
            error: None,
            queue: 0,
        });
        assert_eq!(start(&mut registers), (state::FAILED, 0, 0));
    }
}
