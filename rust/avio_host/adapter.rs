// SPDX-License-Identifier: GPL-2.0

//! What one open file of `/dev/avio-stor` is: an adapter, with its memory, LUNs and queues.
//!
//! All calls take the adapter's lock, which no data path takes. Closing the file drops everything: first the
//! doorbells, then the workers, then the queues, each of which waits for what is in flight, then LUNs and memory.

use crate::calls::{call, Refusal};
use crate::luns::{Lun, Luns};
use crate::queue::{Queue, QueueConfig};
use avio_abi::ioctl::{
    self, AddLun, Info, QueueStatus, Region, RemoveLun, SetFeatures, SetMemory, SetQueue,
    SetupError, Start,
};
use avio_abi::ring::{Broken, COMPLETION_SIZE, CONTROL_SIZE, RING_ALIGN, SUBMISSION_SIZE};
use avio_abi::wire::Wire;
use avio_abi::{features, pci, ABI_VERSION, MAX_LUNS, MAX_QUEUES, MAX_QUEUE_SIZE, MAX_REGIONS};
use avio_core::memory::{check_regions, Access, GuestAddr};
use avio_core::ring::RingSize;
use avio_sys::host::{Call, DebugRoot, Kick, PinnedMemory, Worker};
use kernel::alloc::{KVVec, KVec};
use kernel::debugfs;
use kernel::fmt;
use kernel::fs::File;
use kernel::miscdevice::{MiscDevice, MiscDeviceRegistration};
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{Arc, Mutex};
use kernel::uaccess::{UserPtr, UserSlice};

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
struct State {
    running: KVec<Running>,
    queues: KVec<Option<Configured>>,
    features: Option<u64>,
    luns: Arc<Luns>,
    memory: Option<Arc<PinnedMemory>>,
}

#[pin_data]
struct Locked {
    #[pin]
    state: Mutex<State>,
}

/// An open file of `/dev/avio-stor`.
#[pin_data]
pub(crate) struct Adapter {
    #[pin]
    _debugfs: debugfs::File<Arc<Locked>>,
    locked: Arc<Locked>,
}

/// The number that the next adapter is shown by.
static NEXT: Atomic<u32> = Atomic::new(0);

#[vtable]
impl MiscDevice for Adapter {
    type Ptr = Pin<KBox<Self>>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        let state = State::new()?;
        let locked = Arc::pin_init(
            pin_init!(Locked { state <- new_mutex!(state) }),
            GFP_KERNEL_ACCOUNT,
        )?;
        let name = CString::try_from_fmt(fmt!("stor{}", NEXT.fetch_add(1, Relaxed)))?;
        let root = DebugRoot::dir().ok_or(ENODEV)?;
        KBox::try_pin_init(
            try_pin_init!(Self {
                _debugfs <- root.read_callback_file(&name, locked.clone(), &|locked: &Arc<Locked>, f| {
                    locked.state.lock().show(f)
                }),
                locked: locked.clone(),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    fn ioctl(adapter: Pin<&Self>, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        let mut state = adapter.locked.state.lock();
        match cmd {
            ioctl::GET_INFO => call(arg, |info: &mut Info| {
                *info = INFO;
                Ok(())
            }),
            ioctl::SET_MEMORY => call(arg, |call| state.set_memory(call)),
            ioctl::ADD_LUN => call(arg, |call| state.add_lun(call)),
            ioctl::REMOVE_LUN => call(arg, |call| state.remove_lun(call)),
            ioctl::SET_FEATURES => call(arg, |call| state.set_features(call)),
            ioctl::SET_QUEUE => call(arg, |call| state.set_queue(call)),
            ioctl::START => call(arg, |call| state.start(call)),
            ioctl::STOP => {
                state.stop()?;
                Ok(0)
            }
            ioctl::GET_QUEUE => call(arg, |call| state.get_queue(call)),
            _ => Err(ENOTTY),
        }
    }
}

const INFO: Info = Info {
    version: ABI_VERSION,
    max_queues: MAX_QUEUES,
    max_queue_size: MAX_QUEUE_SIZE,
    max_luns: MAX_LUNS,
    features: features::ALL,
    reserved: [0; 5],
};

impl State {
    fn new() -> Result<Self> {
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

    fn set_memory(&mut self, call: &mut SetMemory) -> Result<(), Refusal> {
        call.pages = 0;
        if call.reserved != 0 {
            return Err(SetupError::Reserved.into());
        }
        if call.count > MAX_REGIONS {
            return Err(SetupError::TooManyRegions.into());
        }
        if call.count == 0 {
            self.must_be_stopped()?;
            self.memory = None;
            return Ok(());
        }
        let regions = copy_regions(call)?;
        check_regions(&regions).map_err(|(error, index)| Refusal::at(error, index))?;
        let memory = PinnedMemory::pin(&regions)
            .map_err(|refused| Refusal::at(refused.error, refused.index))?;
        call.pages = memory.pages();
        let memory = Arc::new(memory, GFP_KERNEL_ACCOUNT)?;
        for running in &self.running {
            running.queue.set_memory(memory.clone());
        }
        self.memory = Some(memory);
        Ok(())
    }

    fn add_lun(&mut self, call: &mut AddLun) -> Result<(), Refusal> {
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

    fn remove_lun(&mut self, call: &mut RemoveLun) -> Result<(), Refusal> {
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

    fn set_features(&mut self, call: &mut SetFeatures) -> Result<(), Refusal> {
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

    fn set_queue(&mut self, call: &mut SetQueue) -> Result<(), Refusal> {
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

    fn start(&mut self, call: &mut Start) -> Result<(), Refusal> {
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
            let refused = |error| Refusal::at(error, index);
            let queue = queue.as_ref().ok_or(refused(SetupError::NotConfigured))?;
            let started =
                start_queue(index, queue, memory, &self.luns, features).map_err(refused)?;
            running.push(started, GFP_KERNEL_ACCOUNT)?;
        }
        self.running = running;
        Ok(())
    }

    fn stop(&mut self) -> Result {
        let queues = no_queues()?;
        self.running.clear();
        self.queues = queues;
        self.features = None;
        Ok(())
    }

    fn get_queue(&mut self, call: &mut QueueStatus) -> Result<(), Refusal> {
        let index = call.index as usize;
        if !matches!(self.queues.get(index), Some(Some(_))) {
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

/// Copies the caller's regions, once.
fn copy_regions(call: &SetMemory) -> Result<KVVec<Region>, Refusal> {
    let len = call.count as usize * Region::SIZE;
    let addr = usize::try_from(call.regions).map_err(|_| Refusal::from(EFAULT))?;
    let mut bytes = KVVec::zeroed(len, GFP_KERNEL_ACCOUNT)?;
    UserSlice::new(UserPtr::from_addr(addr), len)
        .reader()
        .read_slice(&mut bytes)?;
    let mut regions = KVVec::with_capacity(call.count as usize, GFP_KERNEL_ACCOUNT)?;
    let mut rest: &[u8] = &bytes;
    while let Some((region, behind)) = Region::take(rest) {
        regions.push(region, GFP_KERNEL_ACCOUNT)?;
        rest = behind;
    }
    Ok(regions)
}

/// A descriptor that is no eventfd, as opposed to none at all.
fn eventfd_refused(error: Error) -> Refusal {
    match error {
        EINVAL => SetupError::NotEventfd.into(),
        other => other.into(),
    }
}

fn start_queue(
    index: usize,
    queue: &Configured,
    memory: &Arc<PinnedMemory>,
    luns: &Arc<Luns>,
    features: u64,
) -> Result<Running, SetupError> {
    let running =
        Queue::new(&queue.config, memory, luns.clone(), features).map_err(|error| match error {
            EFAULT => SetupError::QueueAddress,
            _ => SetupError::NoMemory,
        })?;
    let name =
        CString::try_from_fmt(fmt!("avio-stor-q{index}")).map_err(|_| SetupError::NoMemory)?;
    let worker =
        Worker::start(running.clone(), &queue.kick, &name).map_err(|_| SetupError::NoWorker)?;
    Ok(Running {
        worker,
        queue: running,
    })
}

impl State {
    /// What debugfs shows: a line for the adapter, one for each LUN and each queue, of `name=value` pairs.
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
