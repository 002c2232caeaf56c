// SPDX-License-Identifier: GPL-2.0

//! An adapter from probe to removal.

use crate::controller::Controller;
use crate::link::{handshake, ring_size, Link, Running};
use crate::luns::Luns;
use crate::queue::{Door, Queue, Shared};
use crate::registers::Registers;
use crate::signals::Signals;
use crate::tasks::Tasks;
use crate::usage::Usage;
use avio_abi::pci::{reg, VECTOR_CONFIG};
use avio_abi::{features, MAX_LUNS, MAX_QUEUES};
use avio_sys::guest::blkmq::{queue_count, TagSet};
use avio_sys::guest::index::{Index, Kind};
use avio_sys::guest::irq::{Interrupts, Vectors};
use avio_sys::guest::node::Node;
use kernel::device::Bound;
use kernel::pci;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::aref::ARef;
use kernel::sync::Arc;

/// First of the queues' vectors.
const FIRST_QUEUE_VECTOR: u32 = VECTOR_CONFIG + 1;

/// How long probe waits for the partitions of its disks, so that as a rule they are there when the driver is loaded. Those
/// on a backing that hangs come when they come.
const PARTITIONS_MS: u32 = 2000;

/// What the module's parameters say.
pub(crate) struct Options {
    /// Most queue pairs that interrupt; zero for one to a processor.
    pub(crate) queues: u32,
    /// Most queue pairs that are polled.
    pub(crate) polled: u32,
    /// Interrupts may be put off.
    pub(crate) coalesce: bool,
}

impl Options {
    /// How many queue pairs have interrupts, and how many are polled, of as many as the device has.
    fn shares(&self, most: u32) -> (u32, u32) {
        let most = most.clamp(1, MAX_QUEUES);
        let polled = self.polled.min(most.saturating_sub(1));
        let left = most.saturating_sub(polled);
        let wanted = if self.queues == 0 {
            left
        } else {
            self.queues.min(left)
        };
        (queue_count(wanted), polled)
    }
}

/// A running adapter. Dropping it goes the way from the top to the bottom: the order of the fields.
pub(crate) struct Adapter<'bound> {
    /// No new caller.
    _node: Pin<KBox<Node<Controller>>>,
    /// No disks, and so no requests. What mends stuck ones still works.
    _disks: Disks,
    /// No interrupts.
    _interrupts: Interrupts<'bound, Signals, Queue>,
    /// Nothing that is left to do.
    _connection: Connection,
    /// The device is stopped.
    _running: Running,
}

impl<'bound> Adapter<'bound> {
    /// Sets the device up and adds its disks.
    pub(crate) fn new(device: &'bound pci::Device<Bound>, options: &Options) -> Result<Self> {
        let registers = Arc::new(Registers::new(device)?, GFP_KERNEL)?;
        let parent: ARef<kernel::device::Device> = device.as_ref().into();
        let features = handshake(&parent, &registers)?;
        let size = ring_size(&parent, &registers)?;
        let luns = registers.read(reg::LUNS).min(MAX_LUNS);

        let (wanted, polled) = options.shares(registers.read(reg::MAX_QUEUES));
        let vectors = vectors(device, wanted)?;
        let wanted = wanted.min(vectors.spread());

        let signals = Signals::new()?;
        let tasks = Tasks::new(registers.clone(), features)?;
        let shared = Shared {
            device: parent,
            registers,
            signals: signals.clone(),
            tasks,
            size,
            luns,
            lists: features & features::SEGMENT_LIST != 0,
            coalesce: options.coalesce && features & features::COALESCE != 0,
        };
        let mut queues = KVec::new();
        add_queues(&mut queues, wanted, false, &shared)?;
        let interrupts = Interrupts::new(vectors, "avio_stor", signals.clone(), &queues)?;
        add_queues(&mut queues, polled, true, &shared)?;
        let link = link(&shared, features, &queues)?;
        let running = Running::new(link.clone())?;
        dev_info!(
            device,
            "queue pairs: {}, of {} entries each\n",
            queues.len(),
            size.entries()
        );

        let (tags, controller) = controller(&shared, link, queues, polled)?;
        let name = CString::try_from_fmt(fmt!("gvsd{}", controller.usage.adapter()))?;
        let node = KBox::pin_init(Node::new(name, controller.clone()), GFP_KERNEL)?;

        let adapter = Self {
            _node: node,
            _disks: Disks(controller.clone()),
            _interrupts: interrupts,
            _connection: Connection(signals),
            _running: running,
        };
        adapter._connection.0.connect(controller.clone());
        controller.set_doors(Door::Open);
        controller.luns.scan();
        tags.wait_for_partitions(PARTITIONS_MS);
        Ok(adapter)
    }
}

/// The vectors for the changes of LUNs and for so many queues, or for as many as there are.
fn vectors(device: &pci::Device<Bound>, queues: u32) -> Result<Vectors<'_>> {
    Vectors::new(device, FIRST_QUEUE_VECTOR, queues).inspect_err(|_| {
        dev_err!(
            device,
            "needs two MSI-X vectors at least, one of them for a queue\n"
        )
    })
}

/// Makes so many more queues.
fn add_queues(queues: &mut KVec<Arc<Queue>>, count: u32, polled: bool, shared: &Shared) -> Result {
    let first = u32::try_from(queues.len())?;
    for index in first..first.saturating_add(count) {
        queues.push(Queue::new(index, polled, shared)?, GFP_KERNEL)?;
    }
    Ok(())
}

/// The way to the device, by these queues.
fn link(shared: &Shared, features: u64, queues: &[Arc<Queue>]) -> Result<Arc<Link>> {
    let mut all = KVec::with_capacity(queues.len(), GFP_KERNEL)?;
    for queue in queues {
        all.push(queue.clone(), GFP_KERNEL)?;
    }
    let link = Link {
        device: shared.device.clone(),
        registers: shared.registers.clone(),
        features,
        size: shared.size,
        queues: all,
    };
    Ok(Arc::new(link, GFP_KERNEL)?)
}

/// The tags that the disks of a device that runs will share, and who sees to the disks.
fn controller(
    shared: &Shared,
    link: Arc<Link>,
    queues: KVec<Arc<Queue>>,
    polled: u32,
) -> Result<(Arc<TagSet<Queue>>, Arc<Controller>)> {
    let (device, registers) = (&shared.device, &shared.registers);
    let (signals, tasks) = (shared.signals.clone(), shared.tasks.clone());
    let count = shared.luns as usize;
    let tags = TagSet::new(
        queues,
        polled,
        shared.size.entries(),
        device.clone(),
        FIRST_QUEUE_VECTOR,
    );
    let tags = Arc::pin_init(tags, GFP_KERNEL)?;
    let index = Index::new(Kind::Adapter)?;
    let usage = Usage::new(device.clone(), registers.clone(), index, count)?;
    let luns = Luns::new(
        device.clone(),
        registers.clone(),
        tags.clone(),
        usage.clone(),
        signals.clone(),
        link.features,
        count,
    )?;
    let controller = Controller::new(link, signals, tasks, usage, luns, polled)?;
    Ok((tags, controller))
}

/// Disks that go when this is dropped.
struct Disks(Arc<Controller>);

impl Drop for Disks {
    fn drop(&mut self) {
        self.0.luns.close();
    }
}

/// The way from interrupts and queues to the controller, which is cut when this is dropped.
struct Connection(Arc<Signals>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.disconnect();
    }
}
