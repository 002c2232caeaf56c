// SPDX-License-Identifier: GPL-2.0

//! A queue pair that runs: what all contexts share of it, and how a request ends.
//!
//! Whatever context a request ends in posts its completion and raises the interrupt there. The guest is trusted with
//! nothing. A request that is wrong ends with a status; a violation of the ring's protocol breaks this queue and no
//! other.

use crate::counters::{Counters, Kind, LunCounters};
use crate::halt::Halt;
use crate::luns::Luns;
use crate::serve::Reading;
use avio_abi::ring::{control, Broken, Completion};
use avio_abi::stor::Status;
use avio_abi::{features, MAX_LUNS};
use avio_core::memory::GuestAddr;
use avio_core::ring::{CompletionWriter, QueueMemory, Rest, RingSize, Wanted};
use avio_core::sync::InFlight;
use avio_sys::host::{now_ns, BioOwner, Bios, Call, MappedQueue, Origin, PinnedMemory, Waker};
use kernel::alloc::KVVec;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Full, Relaxed, Release};
use kernel::sync::{Arc, Mutex};

/// Where a queue pair lies and what it signals.
#[derive(Clone)]
pub(crate) struct QueueConfig {
    /// Which queue, and whose.
    pub(crate) origin: Origin,
    pub(crate) size: RingSize,
    pub(crate) submissions: GuestAddr,
    pub(crate) completions: GuestAddr,
    pub(crate) control: GuestAddr,
    pub(crate) call: Arc<Call>,
}

/// What is remembered of a request in flight, by its tag.
pub(crate) struct Tag {
    pub(crate) in_flight: InFlight,
    /// Bytes that it moves.
    pub(crate) bytes: Atomic<u32>,
    /// What it does, a [`Kind`].
    pub(crate) kind: Atomic<u32>,
    /// When it was taken, or zero.
    pub(crate) started: Atomic<u64>,
}

/// The part of a queue that all contexts share.
pub(crate) struct Shared {
    pub(crate) number: usize,
    pub(crate) origin: Origin,
    pub(crate) ring: MappedQueue,
    pub(crate) writer: CompletionWriter,
    /// Whether the worker rests, which it must not before the guest was told of all completions.
    pub(crate) rest: Rest,
    pub(crate) waker: Pin<KBox<Waker>>,
    call: Arc<Call>,
    tags: KVVec<Tag>,
    /// How many requests of each LUN are held back. Only who serves the queue writes it.
    held: KVVec<Atomic<u32>>,
    pub(crate) features: u64,
    /// Zero, or the [`Broken`] reason.
    broken: Atomic<u32>,
    /// Position of the next submission entry, as of the last pass.
    pub(crate) position: Atomic<u32>,
    /// How long to poll at most, in nanoseconds.
    pub(crate) poll_ns: Atomic<u32>,
    pub(crate) halt: Halt,
    /// The guest has stopped this queue, see [`stop`](Self::stop).
    stopped: Atomic<bool>,
    /// The worker is to look at what a call has changed.
    pub(crate) knocked: Atomic<bool>,
    /// Whether a virtual processor rang last.
    pub(crate) rung_by_vcpu: Atomic<bool>,
    /// Whether one that rings is to serve.
    pub(crate) visits_pay: Atomic<bool>,
    pub(crate) counters: Counters,
}

impl Shared {
    fn new(
        config: &QueueConfig,
        memory: &PinnedMemory,
        features: u64,
        poll_ns: u32,
    ) -> Result<Self> {
        let ring = MappedQueue::new(
            memory,
            config.size,
            config.submissions,
            config.completions,
            config.control,
        )?;
        let mut tags = KVVec::with_capacity(config.size.entries() as usize, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..config.size.entries() {
            let tag = Tag {
                in_flight: InFlight::new(),
                bytes: Atomic::new(0),
                kind: Atomic::new(0),
                started: Atomic::new(0),
            };
            tags.push(tag, GFP_KERNEL_ACCOUNT)?;
        }
        let mut held = KVVec::with_capacity(MAX_LUNS as usize, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..MAX_LUNS {
            held.push(Atomic::new(0), GFP_KERNEL_ACCOUNT)?;
        }
        Ok(Self {
            number: config.origin.queue as usize,
            origin: config.origin,
            ring,
            writer: CompletionWriter::new(config.size),
            rest: Rest::new(),
            waker: KBox::pin_init(Waker::new(), GFP_KERNEL_ACCOUNT)?,
            call: config.call.clone(),
            tags,
            held,
            features,
            broken: Atomic::new(0),
            position: Atomic::new(0),
            poll_ns: Atomic::new(poll_ns),
            halt: Halt::new(),
            stopped: Atomic::new(false),
            knocked: Atomic::new(false),
            rung_by_vcpu: Atomic::new(false),
            visits_pay: Atomic::new(false),
            counters: Counters::new(),
        })
    }

    pub(crate) fn broken(&self) -> u32 {
        self.broken.load(Relaxed)
    }

    /// Completes nothing from now on.
    pub(crate) fn break_with(&self, reason: Broken) {
        self.broken.store(reason as u32, Relaxed);
    }

    /// Takes no more requests, for the guest wants it. A pass may still go on.
    pub(crate) fn stop(&self) {
        // Partner: `Halt::enter`. A pass sees this, or who asks for `Queue::idle` behind this sees the pass.
        self.stopped.xchg(true, Full);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Acquire)
    }

    pub(crate) fn tag(&self, tag: u16) -> Option<&Tag> {
        self.tags.get(usize::from(tag))
    }

    /// Whether the worker is to leave the ring alone.
    pub(crate) fn halted(&self) -> bool {
        self.halt.halted() || self.is_stopped()
    }

    /// How many requests of a LUN are held back.
    pub(crate) fn held(&self, lun: u32) -> Option<&Atomic<u32>> {
        self.held.get(lun as usize)
    }

    /// Ends a request whose tag was claimed.
    pub(crate) fn complete(&self, tag: u16, status: Status, bytes: u32) {
        self.counters.ended(status);
        if let Some(tag) = self.tag(tag) {
            tag.in_flight.release();
        }
        if self.broken() != 0 {
            return;
        }
        self.origin.answered(tag, status, bytes);
        let completion = Completion {
            tag,
            status: status as u8,
            bytes,
        };
        let wanted = self.writer.post(&*self.ring, completion);
        if wanted == Wanted::Now {
            return self.interrupt();
        }
        self.counters.suppressed.add(1);
        // Behind the barrier of `post`.
        if wanted == Wanted::Later && self.coalesces() && self.rest.is_resting() {
            self.waker.wake();
        }
    }

    fn interrupt(&self) {
        self.counters.interrupts.add(1);
        self.call.signal();
    }

    /// Whether the guest may ask for interrupts ahead of what is in flight.
    fn coalesces(&self) -> bool {
        self.features & features::COALESCE != 0
    }

    /// The worker may stop looking at the ring from now on: the guest is told of what it has not been told of.
    pub(crate) fn rest(&self) {
        if self.coalesces() && self.rest.begin(&*self.ring, &self.writer) {
            self.interrupt();
        }
    }

    /// Tells the guest why the queue is broken. Nothing may be in flight: the guest takes its memory back.
    pub(crate) fn tell_broken(&self) {
        self.ring.store_release(control::STATE, self.broken());
        self.call.signal();
    }
}

impl BioOwner for Shared {
    type Counters = LunCounters;
    /// The status, and how many bytes were transferred.
    type Answer = (Status, u32);

    fn ended(&self, place: u32, counters: &LunCounters, result: Result) -> (Status, u32) {
        // Places are tags, which have 16 bits.
        let Some(tag) = self.tag(place as u16) else {
            return (Status::IoError, 0);
        };
        let status = match result {
            _ if tag.in_flight.condemned() => Status::Aborted,
            // What was carried out was, however long it took: the guest need not do it again.
            Ok(()) => Status::Ok,
            Err(_) if tag.in_flight.aborted() => Status::Aborted,
            Err(error) => status_of(error),
        };
        let bytes = match status {
            Status::Ok => tag.bytes.load(Relaxed),
            _ => 0,
        };
        if status == Status::Ok {
            let kind = Kind::from_u32(tag.kind.load(Relaxed));
            match kind {
                Kind::Read => self.counters.read_bytes.add(u64::from(bytes)),
                Kind::Write => self.counters.write_bytes.add(u64::from(bytes)),
                Kind::Flush | Kind::Range => {}
            }
            counters.done(kind, bytes);
        }
        counters.ended(status);
        let started = tag.started.load(Relaxed);
        if started != 0 {
            counters.took(now_ns().saturating_sub(started));
        }
        (status, bytes)
    }

    fn answer(&self, place: u32, (status, bytes): (Status, u32)) {
        self.complete(place as u16, status, bytes);
    }
}

fn status_of(error: Error) -> Status {
    match error {
        ENOSPC => Status::NoSpace,
        ENOMEM => Status::NoMemory,
        EOPNOTSUPP => Status::Unsupported,
        _ => Status::IoError,
    }
}

/// A queue pair that runs.
#[pin_data]
pub(crate) struct Queue {
    #[pin]
    pub(crate) bios: Bios<Shared>,
    /// What only who serves uses: the worker, or a virtual processor.
    #[pin]
    pub(crate) reading: Mutex<Reading>,
    /// LUNs that the worker is to use from its next pass on. Its lock is taken inside of `reading`'s.
    #[pin]
    pub(crate) news: Mutex<Option<Arc<Luns>>>,
}

impl Queue {
    /// Maps the rings and makes ready. The worker is another's to start.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the rings are not in writable guest memory, `ENOMEM`.
    pub(crate) fn new(
        config: &QueueConfig,
        memory: &Arc<PinnedMemory>,
        luns: Arc<Luns>,
        features: u64,
        poll_ns: u32,
    ) -> Result<Arc<Self>> {
        let shared = Shared::new(config, memory, features, poll_ns)?;
        let reading = Reading::new(config.size, luns, poll_ns)?;
        Arc::pin_init(
            try_pin_init!(Self {
                bios <- Bios::new(shared, config.size.entries(), memory.clone()),
                reading <- new_mutex!(reading),
                news <- new_mutex!(None),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    pub(crate) fn shared(&self) -> &Shared {
        self.bios.owner()
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.bios.in_flight()
    }

    /// Whether no pass is going on and nothing is in flight.
    pub(crate) fn idle(&self) -> bool {
        !self.shared().halt.serving() && self.in_flight() == 0
    }

    /// Replaces guest memory once nothing that uses the old one is in flight.
    pub(crate) fn set_memory(&self, memory: Arc<PinnedMemory>) {
        self.bios.set_memory(memory);
    }

    /// Gives the worker another set of LUNs, which it takes when it was [`knock`](Self::knock)ed at.
    pub(crate) fn set_luns(&self, luns: Arc<Luns>) {
        *self.news.lock() = Some(luns);
    }

    /// Lets the worker look at what has changed, and at what it holds back. It has to be woken too.
    pub(crate) fn knock(&self) {
        self.shared().knocked.store(true, Release);
    }

    /// Whether the worker has done so.
    pub(crate) fn heard(&self) -> bool {
        !self.shared().knocked.load(Acquire) && self.news.lock().is_none()
    }

    /// For the worker: takes what is new, if it was knocked at.
    pub(crate) fn listen(&self, reading: &mut Reading) {
        let shared = self.shared();
        if shared.knocked.load(Relaxed) && shared.knocked.xchg(false, Full) {
            let mut news = self.news.lock();
            reading.look_again(news.take(), shared.poll_ns.load(Relaxed));
        }
    }

    /// Marks a request to end as aborted if it fails; `false` if it is not in flight.
    pub(crate) fn abort(&self, tag: u16, lun: u16) -> bool {
        let tag = self.shared().tag(tag);
        tag.is_some_and(|tag| tag.in_flight.abort(lun))
    }

    /// Marks all requests of a LUN so; how many there are.
    pub(crate) fn abort_lun(&self, lun: u16) -> u32 {
        let tags = self.shared().tags.iter();
        tags.filter(|tag| tag.in_flight.abort(lun))
            .fold(0, |sum, _| sum.saturating_add(1))
    }

    /// Condemns all requests of a LUN that is taken away. What is held back ends when the worker is knocked at.
    pub(crate) fn condemn_lun(&self, lun: u16) {
        for tag in self.shared().tags.iter() {
            tag.in_flight.condemn(lun);
        }
    }
}
