// SPDX-License-Identifier: GPL-2.0

//! An adapter's settings and what runs of it: what the calls of `/dev/avio-stor` do.
//!
//! A call that is refused changes nothing: what can fail is made first, and then put in place.

use crate::calls::Refusal;
use crate::luns::{Lun, Luns};
use crate::queue::{Queue, QueueConfig};
use avio_abi::ioctl::{AddLun, QueueStatus, RemoveLun, SetFeatures, SetQueue, SetupError, Start};
use avio_abi::ring::{Broken, COMPLETION_SIZE, CONTROL_SIZE, RING_ALIGN, SUBMISSION_SIZE};
use avio_abi::wire::Wire;
use avio_abi::{features, pci, ABI_VERSION, MAX_LUNS, MAX_QUEUES};
use avio_core::memory::{Access, GuestAddr};
use avio_core::ring::RingSize;
use avio_sys::host::{Call, Kick, PinnedMemory, Worker};
use kernel::alloc::KVec;
use kernel::fmt;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::Arc;

/// A queue as the caller described it.
struct Configured {
    config: QueueConfig,
    kick: Kick,
}

/// A queue that runs. The worker, declared first, goes first.
struct Running {
    worker: Worker<Queue>,
    queue: Arc<Queue>,
}

/// An adapter's settings and what runs of it.
pub(crate) struct State {
    running: KVec<Running>,
    queues: KVec<Option<Configured>>,
    features: Option<u64>,
    luns: Arc<Luns>,
    memory: Option<Arc<PinnedMemory>>,
}

impl State {
    pub(crate) fn new() -> Result<Self> {
        let luns = Arc::new(Luns::none()?, GFP_KERNEL_ACCOUNT)?;
        Ok(Self {
            running: KVec::new(),
            queues: no_queues()?,
            features: None,
            luns,
            memory: None,
        })
    }

    fn must_be_stopped(&self) -> Result<(), SetupError> {
        if self.running.is_empty() {
            Ok(())
        } else {
            Err(SetupError::Running)
        }
    }

    /// Takes on memory that was pinned, or lets go of all.
    pub(crate) fn set_memory(&mut self, memory: Option<Arc<PinnedMemory>>) -> Result<(), Refusal> {
        match &memory {
            None => self.must_be_stopped()?,
            Some(memory) => {
                for running in &self.running {
                    running.queue.set_memory(memory.clone());
                }
            }
        }
        self.memory = memory;
        Ok(())
    }

    pub(crate) fn add_lun(&mut self, call: &mut AddLun) -> Result<(), Refusal> {
        self.must_be_stopped()?;
        if call.lun >= MAX_LUNS {
            return Err(SetupError::LunRange.into());
        }
        if self.luns.get(call.lun).is_some() {
            return Err(SetupError::LunBusy.into());
        }
        let lun = Lun::open(call)?;
        let info = lun.info;
        let lun = Arc::new(lun, GFP_KERNEL_ACCOUNT)?;
        self.luns = Arc::new(self.luns.with(call.lun, Some(lun))?, GFP_KERNEL_ACCOUNT)?;
        call.info = info;
        Ok(())
    }

    pub(crate) fn remove_lun(&mut self, call: &mut RemoveLun) -> Result<(), Refusal> {
        self.must_be_stopped()?;
        if call.reserved != [0; 3] || call.lun >= MAX_LUNS {
            return Err(EINVAL.into());
        }
        if self.luns.get(call.lun).is_none() {
            return Err(ENOENT.into());
        }
        self.luns = Arc::new(self.luns.with(call.lun, None)?, GFP_KERNEL_ACCOUNT)?;
        Ok(())
    }

    pub(crate) fn set_features(&mut self, call: &mut SetFeatures) -> Result<(), Refusal> {
        self.must_be_stopped()?;
        if call.reserved != 0 {
            return Err(SetupError::Reserved.into());
        }
        if call.version == 0 || call.version > ABI_VERSION || call.features & !features::ALL != 0 {
            return Err(SetupError::Features.into());
        }
        self.features = Some(call.features);
        Ok(())
    }

    pub(crate) fn set_queue(&mut self, call: &mut SetQueue) -> Result<(), Refusal> {
        self.must_be_stopped()?;
        if call.reserved != 0 || call.reserved1 != 0 {
            return Err(SetupError::Reserved.into());
        }
        let place = self
            .queues
            .get_mut(call.index as usize)
            .ok_or(SetupError::QueueRange)?;
        let size = RingSize::new(call.size).ok_or(SetupError::QueueSize)?;
        let memory = self.memory.as_ref().ok_or(SetupError::NoMemoryTable)?;
        for (addr, len) in [
            (
                call.submissions,
                call.size.saturating_mul(SUBMISSION_SIZE as u32),
            ),
            (
                call.completions,
                call.size.saturating_mul(COMPLETION_SIZE as u32),
            ),
            (call.control, CONTROL_SIZE as u32),
        ] {
            let there = memory
                .translate(GuestAddr(addr), len, Access::DeviceWrites)
                .is_ok();
            if !there || addr % RING_ALIGN != 0 {
                return Err(SetupError::QueueAddress.into());
            }
        }
        let kick = Kick::from_fd(call.kick_fd).map_err(eventfd_refused)?;
        let eventfd = Call::from_fd(call.call_fd).map_err(eventfd_refused)?;
        let config = QueueConfig {
            size,
            submissions: GuestAddr(call.submissions),
            completions: GuestAddr(call.completions),
            control: GuestAddr(call.control),
            call: Arc::new(eventfd, GFP_KERNEL_ACCOUNT)?,
        };
        *place = Some(Configured { config, kick });
        Ok(())
    }

    pub(crate) fn start(&mut self, call: &mut Start) -> Result<(), Refusal> {
        self.must_be_stopped()?;
        if call.reserved != 0 {
            return Err(SetupError::Reserved.into());
        }
        if call.queues == 0 || call.queues > MAX_QUEUES {
            return Err(SetupError::QueueRange.into());
        }
        let features = self.features.ok_or(SetupError::NotConfigured)?;
        let memory = self.memory.as_ref().ok_or(SetupError::NoMemoryTable)?;
        let mut running = KVec::with_capacity(call.queues as usize, GFP_KERNEL_ACCOUNT)?;
        for (index, queue) in self.queues.iter().enumerate().take(call.queues as usize) {
            let queue = queue
                .as_ref()
                .ok_or(Refusal::at(SetupError::NotConfigured, index))?;
            let started = start_queue(index, queue, memory, &self.luns, features)?;
            running.push(started, GFP_KERNEL_ACCOUNT)?;
        }
        // Only now that nothing can fail any more does the guest's first request count.
        for Running { worker, .. } in &running {
            worker.go();
        }
        self.running = running;
        Ok(())
    }

    pub(crate) fn stop(&mut self) {
        self.running.clear();
        for queue in self.queues.iter_mut() {
            *queue = None;
        }
        self.features = None;
    }

    pub(crate) fn get_queue(&mut self, call: &mut QueueStatus) -> Result<(), Refusal> {
        let index = call.index as usize;
        if call.reserved != [0; 7] || !matches!(self.queues.get(index), Some(Some(_))) {
            return Err(EINVAL.into());
        }
        let Some(Running { worker, queue }) = self.running.get(index) else {
            *call = QueueStatus {
                index: call.index,
                state: pci::state::STOPPED,
                ..QueueStatus::ZERO
            };
            return Ok(());
        };
        let shared = queue.shared();
        let counters = &shared.counters;
        *call = QueueStatus {
            index: call.index,
            state: pci::state::RUNNING,
            broken: shared.broken(),
            in_flight: queue.in_flight(),
            requests: counters.requests.get(),
            read_bytes: counters.read_bytes.get(),
            write_bytes: counters.write_bytes.get(),
            doorbells: worker.kicks(),
            interrupts: counters.interrupts.get(),
            interrupts_suppressed: counters.suppressed.get(),
            errors: counters.errors(),
            reserved: [0; 7],
        };
        Ok(())
    }
}

fn no_queues() -> Result<KVec<Option<Configured>>> {
    let mut queues = KVec::with_capacity(MAX_QUEUES as usize, GFP_KERNEL_ACCOUNT)?;
    for _ in 0..MAX_QUEUES {
        queues.push(None, GFP_KERNEL_ACCOUNT)?;
    }
    Ok(queues)
}

/// A descriptor that is no eventfd, as opposed to none at all.
fn eventfd_refused(error: Error) -> Refusal {
    match error {
        EINVAL => SetupError::NotEventfd.into(),
        other => other.into(),
    }
}

/// Makes a queue and its worker, which does not serve yet.
fn start_queue(
    index: usize,
    queue: &Configured,
    memory: &Arc<PinnedMemory>,
    luns: &Arc<Luns>,
    features: u64,
) -> Result<Running, Refusal> {
    let refused = |error| Refusal::at(error, index);
    let running =
        Queue::new(&queue.config, memory, luns.clone(), features).map_err(|error| match error {
            EFAULT => refused(SetupError::QueueAddress),
            _ => refused(SetupError::NoMemory),
        })?;
    let name = CString::try_from_fmt(fmt!("avio-stor-q{index}"))?;
    let worker =
        Worker::start(running.clone(), &queue.kick, &name).map_err(|error| match error {
            // A signal was pending: the call is made again when it was handled.
            ERESTARTNOINTR => error.into(),
            _ => refused(SetupError::NoWorker),
        })?;
    Ok(Running {
        worker,
        queue: running,
    })
}

impl State {
    /// What debugfs shows: a line for the adapter, one for each LUN and each queue, of `name=value` pairs.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages = self.memory.as_ref().map_or(0, |memory| memory.pages());
        writeln!(f, "adapter pages={pages} queues={}", self.running.len())?;
        for (number, lun) in self.luns.iter() {
            let info = &lun.info;
            writeln!(
                f,
                "lun{number} sectors={} logical_block={} flags={:#x}",
                info.sectors, info.logical_block, info.flags
            )?;
        }
        for (number, Running { worker, queue }) in self.running.iter().enumerate() {
            let shared = queue.shared();
            let broken = Broken::from_u32(shared.broken()).map_or("no", Broken::name);
            let (in_flight, doorbells) = (queue.in_flight(), worker.kicks());
            write!(
                f,
                "queue{number} broken={broken} in_flight={in_flight} doorbells={doorbells}"
            )?;
            shared.counters.show(f)?;
            writeln!(f)?;
        }
        Ok(())
    }
}
