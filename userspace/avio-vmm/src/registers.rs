// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The register window of a storage adapter, as `avio_abi::pci` gives it. Pure logic: the host's side is behind
//! [`Backend`]. vCPU threads run it, and the control thread when a LUN changes; the guest is not trusted.

mod luns;
mod setup;
mod tasks;
#[cfg(test)]
mod tests;

use avio_abi::ioctl::SetupError;
use avio_abi::pci::{command, reg, state, task, MAGIC};
use avio_abi::release::Release;
use avio_abi::stor::{lun_flags, LunInfo};
use avio_abi::MAX_LUNS;

use luns::{InUse, Luns};
pub use setup::Queue;
use setup::Setup;
pub use tasks::Task;
use tasks::Tasks;

/// Why a start was refused, and at which queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why, if it is known.
    pub error: Option<SetupError>,
    /// At which queue; zero where none is at fault.
    pub queue: u32,
}

/// Whether a stop is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Nothing is in flight.
    Done,
    /// No queue is served, but a backing still has requests. Somebody else waits for it, and then calls
    /// [`Registers::stopped`].
    Pending,
}

/// Who serves the queues.
pub trait Backend: Send {
    /// Serves `queues`.
    fn start(&mut self, version: u32, features: u64, queues: &[Queue]) -> Result<(), Refusal>;
    /// Stops and forgets what `start` was given.
    fn stop(&mut self) -> Stop;
    /// Carries out a task command. How many of its requests the backing still has; `None` if it was refused.
    fn task(&mut self, task: Task) -> Option<u32>;
    /// Tells the guest that a description has changed.
    fn announce(&mut self);
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
}

/// The window's state.
pub struct Registers<B> {
    backend: B,
    offer: Offer,
    luns: Luns,
    in_use: InUse,
    setup: Setup,
    tasks: Tasks,
    bus_master: bool,
    state: u32,
    error: u32,
    error_index: u32,
}

impl<B: Backend> Registers<B> {
    /// A stopped adapter without LUNs.
    pub fn new(offer: Offer, backend: B) -> Self {
        Self {
            backend,
            luns: Luns::new(),
            in_use: InUse::default(),
            setup: Setup::new(offer.max_queues),
            tasks: Tasks::default(),
            offer,
            bus_master: false,
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
            reg::DEVICE_FEATURES => self.offer.features as u32,
            DEVICE_FEATURES_HIGH => (self.offer.features >> 32) as u32,
            reg::MAX_QUEUES => self.offer.max_queues,
            reg::MAX_QUEUE_SIZE => self.offer.max_queue_size,
            reg::LUNS => MAX_LUNS,
            reg::GENERATION => self.luns.generation(),
            reg::RELEASE => Release::CURRENT.0,
            reg::STATE => self.state,
            reg::ERROR => self.error,
            reg::ERROR_INDEX => self.error_index,
            reg::TASK_LUN..reg::LUNS_IN_USE => self.tasks.read(offset),
            reg::LUNS_IN_USE..LUNS_IN_USE_END => self.in_use.word(offset - reg::LUNS_IN_USE),
            reg::LUN_INFO.. => self.luns.read(offset - reg::LUN_INFO),
            _ => self.setup.read(offset),
        }
    }

    /// Writes a 32-bit register.
    pub fn write(&mut self, offset: u64, value: u32) {
        match offset {
            reg::COMMAND => self.command(value),
            reg::TASK => self.task(value),
            reg::TASK_LUN..reg::LUNS_IN_USE => self.tasks.write(offset, value),
            reg::LUNS_IN_USE..LUNS_IN_USE_END => {
                self.in_use.set_word(offset - reg::LUNS_IN_USE, value)
            }
            _ if self.state == state::STOPPED => self.setup.write(offset, value),
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

    /// Makes a LUN what the guest is to see, all zero if it is gone, and tells the guest if that is new.
    pub fn set_lun(&mut self, lun: u32, info: LunInfo) {
        if self.luns.set(lun, info) {
            self.backend.announce();
        }
    }

    /// What the guest sees of a LUN; all zero if there is none.
    pub fn lun(&self, lun: u32) -> LunInfo {
        self.luns.get(lun)
    }

    /// Whether the driver says that it uses a LUN.
    pub fn in_use(&self, lun: u32) -> bool {
        self.in_use.has(lun)
    }

    /// Whether the driver may still have requests for a LUN that is gone: it uses it, or has not looked since. They must not
    /// reach another in its place.
    pub fn clings_to(&self, lun: u32) -> bool {
        self.state == state::RUNNING
            && self.luns.was_there(lun)
            && (self.in_use(lun) || self.luns.end_is_unseen(lun))
    }

    /// One of `avio_abi::pci::state`.
    pub fn state(&self) -> u32 {
        self.state
    }

    /// Version, features and number of queues of the driver.
    pub fn driver(&self) -> (u32, u64, u32) {
        self.setup.driver()
    }

    /// The queues that the driver uses; none unless the adapter runs.
    pub fn queues(&self) -> Vec<Queue> {
        let running = self.state == state::RUNNING;
        let checked = running.then(|| self.setup.checked(&self.offer));
        checked.and_then(Result::ok).unwrap_or_default()
    }

    /// The stop that was [`Stop::Pending`] is complete.
    pub fn stopped(&mut self) {
        if self.state == state::STOPPING {
            self.state = state::STOPPED;
        }
    }

    fn command(&mut self, value: u32) {
        match value {
            command::RESET => self.reset(),
            command::START if self.state == state::STOPPED => self.start(),
            _ => {}
        }
    }

    fn reset(&mut self) {
        let stop = match self.state {
            state::STOPPED => Stop::Done,
            state::STOPPING => Stop::Pending,
            _ => self.backend.stop(),
        };
        self.state = match stop {
            Stop::Done => state::STOPPED,
            Stop::Pending => state::STOPPING,
        };
        self.setup = Setup::new(self.offer.max_queues);
        self.in_use = InUse::default();
        self.error = 0;
        self.error_index = 0;
    }

    /// Without Bus Master the adapter stays away from memory: a driver that did not see it being cleared, by kexec for
    /// instance, does not get it started again.
    fn start(&mut self) {
        let (version, features, _) = self.setup.driver();
        let queues = if self.bus_master {
            self.setup.checked(&self.offer)
        } else {
            Err(Refusal {
                error: Some(SetupError::NoBusMaster),
                queue: 0,
            })
        };
        match queues.and_then(|queues| self.backend.start(version, features, &queues)) {
            Ok(()) => self.state = state::RUNNING,
            Err(refusal) => {
                self.state = state::FAILED;
                self.error = refusal.error.map_or(0, |error| error as u32);
                self.error_index = refusal.queue;
            }
        }
    }

    fn task(&mut self, kind: u32) {
        let (_, agreed, _) = self.setup.driver();
        let allowed = |task: &Task| match task {
            // What the guest has seen may have been exchanged in turn.
            Task::OpenGate { lun, changes } => self.luns.get(*lun).changes == *changes,
            _ => task.feature() & !agreed == 0,
        };
        let task = self.tasks.command(kind).filter(allowed);
        let result = task.and_then(|task| self.backend.task(task));
        self.tasks.set_result(result.unwrap_or(task::REFUSED));
        if let (Some(Task::OpenGate { lun, .. }), Some(_)) = (task, result) {
            let info = self.luns.get(lun);
            let flags = info.flags & !lun_flags::GATED;
            self.set_lun(lun, LunInfo { flags, ..info });
        }
    }
}

const DEVICE_FEATURES_HIGH: u64 = reg::DEVICE_FEATURES + 4;
const LUNS_IN_USE_END: u64 = reg::LUNS_IN_USE + MAX_LUNS as u64 / 8;
