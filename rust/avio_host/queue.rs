// SPDX-License-Identifier: GPL-2.0

//! A queue pair that runs: its worker takes requests from the ring and submits them; whatever context a request ends
//! in posts its completion and raises the interrupt there.
//!
//! The guest is trusted with nothing. A request that is wrong ends with a status; a violation of the ring's protocol
//! breaks this queue and no other.

use crate::counters::Counters;
use crate::luns::{Lun, Luns};
use avio_abi::ring::{control, Broken, Completion, Segment, Submission, MAX_SEGMENTS};
use avio_abi::stor::Status;
use avio_abi::wire::Wire;
use avio_core::memory::GuestAddr;
use avio_core::request::{Command, Layout, Request, Segments};
use avio_core::ring::{CompletionWriter, QueueMemory, RingSize, SubmissionReader};
use avio_core::sync::InFlight;
use avio_sys::host::{
    Batch, BioOwner, Bios, BlockFile, Call, MappedQueue, More, Op, PinnedMemory, Serve,
};
use kernel::alloc::KVVec;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{Arc, Mutex};

/// Requests that a worker takes before it lets others run.
const BUDGET: u32 = 256;

/// Where a queue pair lies and what it signals.
#[derive(Clone)]
pub(crate) struct QueueConfig {
    pub(crate) size: RingSize,
    pub(crate) submissions: GuestAddr,
    pub(crate) completions: GuestAddr,
    pub(crate) control: GuestAddr,
    pub(crate) call: Arc<Call>,
}

/// What is remembered of a request in flight, by its tag.
struct Tag {
    in_flight: InFlight,
    /// Bytes that it moves.
    bytes: Atomic<u32>,
    command: Atomic<u32>,
}

/// The part of a queue that all contexts share.
pub(crate) struct Shared {
    ring: MappedQueue,
    writer: CompletionWriter,
    call: Arc<Call>,
    tags: KVVec<Tag>,
    luns: Arc<Luns>,
    features: u64,
    /// Zero, or the [`Broken`] reason.
    broken: Atomic<u32>,
    pub(crate) counters: Counters,
}

impl Shared {
    fn new(
        config: &QueueConfig,
        memory: &PinnedMemory,
        luns: Arc<Luns>,
        features: u64,
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
                command: Atomic::new(0),
            };
            tags.push(tag, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(Self {
            ring,
            writer: CompletionWriter::new(config.size),
            call: config.call.clone(),
            tags,
            luns,
            features,
            broken: Atomic::new(0),
            counters: Counters::new(),
        })
    }

    pub(crate) fn broken(&self) -> u32 {
        self.broken.load(Relaxed)
    }

    /// Ends a request whose tag was claimed.
    fn complete(&self, tag: u16, status: Status, bytes: u32) {
        self.counters.ended(status);
        if let Some(tag) = self.tags.get(usize::from(tag)) {
            tag.in_flight.release();
        }
        if self.broken() != 0 {
            return;
        }
        if self.writer.post(
            &*self.ring,
            Completion {
                tag,
                status: status as u8,
                bytes,
            },
        ) {
            self.counters.interrupts.add(1);
            self.call.signal();
        } else {
            self.counters.suppressed.add(1);
        }
    }

    /// Tells the guest why the queue is broken. Nothing may be in flight: the guest takes its memory back.
    fn tell_broken(&self, reason: Broken) {
        self.ring.store_release(control::STATE, reason as u32);
        self.call.signal();
    }
}

impl BioOwner for Shared {
    fn disk(&self, lun: u16) -> Option<&BlockFile> {
        self.luns.get(u32::from(lun)).map(|lun| &lun.file)
    }

    fn ended(&self, place: u32, result: Result) {
        // Places are tags, which have 16 bits.
        let number = place as u16;
        let Some(tag) = self.tags.get(usize::from(number)) else {
            return;
        };
        let bytes = tag.bytes.load(Relaxed);
        match result {
            Ok(()) => {
                match tag.command.load(Relaxed) {
                    READ => self.counters.read_bytes.add(u64::from(bytes)),
                    WRITE => self.counters.write_bytes.add(u64::from(bytes)),
                    _ => self.counters.flushes.add(1),
                }
                self.complete(number, Status::Ok, bytes);
            }
            Err(error) => self.complete(number, status_of(error), 0),
        }
    }
}

const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 2;

fn op_of(command: Command) -> (Op, u32) {
    match command {
        Command::Read => (Op::Read, READ),
        Command::Write { fua } => (Op::Write { fua }, WRITE),
        Command::Flush => (Op::Flush, FLUSH),
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

/// What only the worker uses.
struct Reading {
    reader: SubmissionReader,
    /// A private copy of a request's segment list.
    list: KVVec<u8>,
}

/// A queue pair that runs.
#[pin_data]
pub(crate) struct Queue {
    #[pin]
    bios: Bios<Shared>,
    #[pin]
    reading: Mutex<Reading>,
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
    ) -> Result<Arc<Self>> {
        let shared = Shared::new(config, memory, luns, features)?;
        let list = KVVec::zeroed(MAX_SEGMENTS as usize * Segment::SIZE, GFP_KERNEL_ACCOUNT)?;
        let reading = Reading {
            reader: SubmissionReader::new(config.size),
            list,
        };
        Arc::pin_init(
            try_pin_init!(Self {
                bios <- Bios::new(shared, config.size.entries(), memory.clone()),
                reading <- new_mutex!(reading),
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

    /// Replaces guest memory once nothing that uses the old one is in flight.
    pub(crate) fn set_memory(&self, memory: Arc<PinnedMemory>) {
        self.bios.set_memory(memory);
    }
}

impl Serve for Queue {
    fn serve(&self) -> More {
        let shared = self.shared();
        if shared.broken() != 0 {
            return More::No;
        }
        shared.counters.passes.add(1);
        let mut reading = self.reading.lock();
        let served = self
            .bios
            .batch()
            .plugged(|batch| reading.serve(shared, batch));
        reading.reader.publish_head(&*shared.ring);
        served.unwrap_or_else(|reason| {
            shared.broken.store(reason as u32, Relaxed);
            self.bios.drain();
            shared.tell_broken(reason);
            More::No
        })
    }
}

impl Reading {
    /// Takes requests until there are no more, or the budget is used up.
    fn serve(&mut self, shared: &Shared, batch: &mut Batch<'_, Shared>) -> Result<More, Broken> {
        for _ in 0..BUDGET {
            match self.reader.take(&*shared.ring, || shared.writer.posted())? {
                Some(entry) => self.carry_out(shared, batch, &entry)?,
                None if self.reader.arm(&*shared.ring)? => {}
                None => return Ok(More::No),
            }
        }
        Ok(More::Yes)
    }

    fn carry_out(
        &mut self,
        shared: &Shared,
        batch: &mut Batch<'_, Shared>,
        entry: &Submission,
    ) -> Result<(), Broken> {
        let tag = shared
            .tags
            .get(usize::from(entry.tag))
            .ok_or(Broken::TagRange)?;
        if !tag.in_flight.claim() {
            return Err(Broken::TagInFlight);
        }
        shared.counters.requests.add(1);
        if let Err(status) = self.submit(shared, batch, tag, entry) {
            shared.complete(entry.tag, status, 0);
        }
        Ok(())
    }

    fn submit(
        &mut self,
        shared: &Shared,
        batch: &mut Batch<'_, Shared>,
        tag: &Tag,
        entry: &Submission,
    ) -> Result<(), Status> {
        let request = Request::parse(entry, shared.features)?;
        let lun = shared
            .luns
            .get(u32::from(request.lun))
            .ok_or(Status::BadLun)?;
        let bytes = self.gather(batch, &request, lun, entry)?;
        request.check(bytes, &lun.info)?;
        let (op, command) = op_of(request.command);
        tag.bytes.store(bytes, Relaxed);
        tag.command.store(command, Relaxed);
        batch
            .submit(u32::from(entry.tag), request.lun, op, request.sector)
            .map_err(|_| Status::IoError)
    }

    /// Translates all segments of a request and returns their length.
    fn gather(
        &mut self,
        batch: &mut Batch<'_, Shared>,
        request: &Request,
        lun: &Lun,
        entry: &Submission,
    ) -> Result<u32, Status> {
        let mut segments = Segments::new(request.command, &lun.info);
        let mut add = |batch: &mut Batch<'_, Shared>, segment: &Segment| {
            let (addr, len) = segments.add(segment)?;
            batch
                .gather(addr, len, request.command.access())
                .map_err(|_| Status::BadAddress)
        };
        batch.clear();
        match request.layout {
            Layout::Inline(count) => {
                for segment in entry.inline.iter().take(count) {
                    add(batch, segment)?;
                }
            }
            Layout::List { addr, bytes, .. } => {
                let list = self
                    .list
                    .get_mut(..bytes as usize)
                    .ok_or(Status::BadSegments)?;
                batch
                    .memory()
                    .copy_from_guest(addr, list)
                    .map_err(|_| Status::BadAddress)?;
                let mut rest: &[u8] = list;
                while let Some((segment, behind)) = Segment::take(rest) {
                    add(batch, &segment)?;
                    rest = behind;
                }
            }
        }
        Ok(segments.bytes())
    }
}
