// SPDX-License-Identifier: GPL-2.0

//! An adapter's settings and what runs of it: how it is set up and started.
//!
//! What the other calls of `/dev/avio-stor` do is in [`lun_calls`](crate::lun_calls), [`stop`](crate::stop),
//! [`tasks`](crate::tasks) and [`status`](crate::status). A call that is refused changes nothing: what can fail is made
//! first, and then put in place.

use crate::calls::Refusal;
use crate::counters::Totals;
use crate::lun::{heed, LunDisk};
use crate::luns::Luns;
use crate::queue::{Queue, QueueConfig};
use avio_abi::ioctl::{SetFeatures, SetPoll, SetQueue, SetupError, Start, MAX_POLL_NS};
use avio_abi::ring::{COMPLETION_SIZE, CONTROL_SIZE, RING_ALIGN, SUBMISSION_SIZE};
use avio_abi::{features, ABI_VERSION, MAX_QUEUES};
use avio_core::memory::{Access, GuestAddr};
use avio_core::ring::RingSize;
use avio_sys::host::{Call, Kick, Origin, PinnedMemory, Worker};
use kernel::alloc::KVec;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::atomic::Relaxed;
use kernel::sync::Arc;

/// What an adapter does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// There are no queues.
    Stopped,
    /// Queues are served.
    Running,
    /// Queues are served no more, and are to go, but something is in flight.
    Stopping,
    /// Queues are served no more, and stay.
    Quiesced,
}

/// A queue as the caller described it.
struct Configured {
    config: QueueConfig,
    kick: Kick,
}

/// A queue that runs. The worker, declared first, goes first.
pub(crate) struct Running {
    pub(crate) worker: Worker<Queue>,
    pub(crate) queue: Arc<Queue>,
}

impl Running {
    /// Has the worker look at what a call has changed.
    pub(crate) fn knock(&self) {
        self.queue.knock();
        self.worker.wake();
    }

    /// Adds what it has counted.
    pub(crate) fn add_to(&self, totals: &mut Totals) {
        let shared = self.queue.shared();
        totals.add(&shared.counters, self.worker.kicks(), shared.broken());
    }
}

/// An adapter's settings and what runs of it.
pub(crate) struct State {
    /// What the adapter is shown by.
    number: u32,
    pub(crate) phase: Phase,
    pub(crate) running: KVec<Running>,
    queues: KVec<Option<Configured>>,
    features: Option<u64>,
    poll_ns: u32,
    /// What queues that are no more have counted.
    pub(crate) past: Totals,
    pub(crate) luns: Arc<Luns>,
    /// The number of the last change of a LUN's description.
    pub(crate) changes: u32,
    /// Disks of removed LUNs that may still have requests.
    pub(crate) leaving: KVec<Arc<LunDisk>>,
    pub(crate) memory: Option<Arc<PinnedMemory>>,
}

impl State {
    pub(crate) fn new(number: u32) -> Result<Self> {
        let luns = Arc::new(Luns::none()?, GFP_KERNEL_ACCOUNT)?;
        Ok(Self {
            number,
            phase: Phase::Stopped,
            running: KVec::new(),
            queues: no_queues()?,
            features: None,
            poll_ns: MAX_POLL_NS,
            past: Totals::new(),
            luns,
            changes: 0,
            leaving: KVec::new(),
            memory: None,
        })
    }

    fn must_be_stopped(&self) -> Result<(), SetupError> {
        match self.phase {
            Phase::Stopped => Ok(()),
            Phase::Running => Err(SetupError::Running),
            Phase::Stopping | Phase::Quiesced => Err(SetupError::Stopping),
        }
    }

    pub(crate) fn must_not_be_stopping(&self) -> Result<(), SetupError> {
        match self.phase {
            Phase::Stopped | Phase::Running => Ok(()),
            Phase::Stopping | Phase::Quiesced => Err(SetupError::Stopping),
        }
    }

    /// Whether the guest is told of changes by [`Attention`](avio_abi::stor::Status::Attention).
    pub(crate) fn tells_changes(&self) -> bool {
        self.phase == Phase::Running
            && self
                .features
                .is_some_and(|features| features & features::EVENTS != 0)
    }

    /// Whether this queue was set.
    pub(crate) fn is_set(&self, index: u32) -> bool {
        matches!(self.queues.get(index as usize), Some(Some(_)))
    }

    /// Forgets what the driver's run had set.
    pub(crate) fn forget_queues(&mut self) {
        for running in &self.running {
            running.add_to(&mut self.past);
        }
        self.running.clear();
        for queue in self.queues.iter_mut() {
            *queue = None;
        }
        self.features = None;
        self.phase = Phase::Stopped;
    }

    /// Takes on memory that was pinned, or lets go of all.
    pub(crate) fn set_memory(&mut self, memory: Option<Arc<PinnedMemory>>) -> Result<(), Refusal> {
        match &memory {
            None => self.must_be_stopped()?,
            Some(memory) => {
                self.must_not_be_stopping()?;
                self.exchange_memory(memory)?;
            }
        }
        self.memory = memory;
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
            origin: Origin {
                adapter: self.number,
                queue: call.index,
            },
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
            let started = start_queue(queue, memory, &self.luns, features, self.poll_ns)
                .map_err(|refusal| refusal.of_item(index))?;
            running.push(started, GFP_KERNEL_ACCOUNT)?;
        }
        // A driver that starts reads the descriptions anyway.
        for (_, lun) in self.luns.iter() {
            lun.disk.change(0, heed::ATTENTION);
        }
        // Only now that nothing can fail any more does the guest's first request count.
        for Running { worker, .. } in &running {
            worker.go();
        }
        self.running = running;
        self.phase = Phase::Running;
        Ok(())
    }

    /// Makes a queue that has stopped anew, and lets it serve.
    pub(crate) fn renew_queue(&mut self, number: u32) -> Result<(), Refusal> {
        let index = number as usize;
        let (Some(Some(queue)), Some(old), Some(memory), Some(features)) = (
            self.queues.get(index),
            self.running.get_mut(index),
            &self.memory,
            self.features,
        ) else {
            return Err(SetupError::TaskRange.into());
        };
        let fresh = start_queue(queue, memory, &self.luns, features, self.poll_ns)?;
        old.add_to(&mut self.past);
        // The old worker ends before the new one begins.
        *old = fresh;
        old.worker.go();
        Ok(())
    }

    pub(crate) fn set_poll(&mut self, call: &mut SetPoll) -> Result<(), Refusal> {
        self.must_not_be_stopping()?;
        if call.reserved != 0 {
            return Err(SetupError::Reserved.into());
        }
        if call.window_ns > MAX_POLL_NS {
            return Err(SetupError::LimitRange.into());
        }
        self.poll_ns = call.window_ns;
        for running in &self.running {
            running
                .queue
                .shared()
                .poll_ns
                .store(call.window_ns, Relaxed);
            running.knock();
        }
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
    queue: &Configured,
    memory: &Arc<PinnedMemory>,
    luns: &Arc<Luns>,
    features: u64,
    poll_ns: u32,
) -> Result<Running, Refusal> {
    let config = &queue.config;
    let running =
        Queue::new(config, memory, luns.clone(), features, poll_ns).map_err(
            |error| match error {
                EFAULT => SetupError::QueueAddress,
                _ => SetupError::NoMemory,
            },
        )?;
    let name = CString::try_from_fmt(fmt!("avio-stor-q{}", config.origin.queue))?;
    let worker =
        Worker::start(running.clone(), &queue.kick, &name).map_err(|error| match error {
            // A signal was pending: the call is made again when it was handled.
            ERESTARTNOINTR => error.into(),
            _ => Refusal::from(SetupError::NoWorker),
        })?;
    Ok(Running {
        worker,
        queue: running,
    })
}
