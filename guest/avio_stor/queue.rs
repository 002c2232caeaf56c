// SPDX-License-Identifier: GPL-2.0

//! The data path: a hardware queue of the block layer on a queue pair of the device.
//!
//! The ring has as many entries as the queue has tags, so there is always room. Requests go in in process context
//! under the `writer` lock. Completions come out under the `reader` lock: in interrupt context, and in process context
//! when a request takes long, so that it keeps interrupts off. Neither lock is ever held with the other.
//!
//! The device is trusted with the guest's data but not with its integrity: a completion for a tag that is not in
//! flight is dropped, and one that claims fewer bytes than were asked for is an error.

use crate::lists::Lists;
use crate::registers::Registers;
use avio_abi::ring::{
    control, segment_flags, Broken, Completion, Segment, Submission, INLINE_SEGMENTS,
};
use avio_abi::stor::{flags, opcode, Status};
use avio_abi::wire::Wire;
use avio_core::ring::{CompletionReader, QueueMemory, RingSize, SubmissionWriter};
use avio_sys::guest::blkmq::{HwQueue, Timeout};
use avio_sys::guest::irq::Handler;
use avio_sys::guest::memory::{QueueAddresses, SharedQueue};
use avio_sys::guest::request::{Batch, Command, InFlight, Request, Run};
use avio_sys::queue_memory::RawQueue;
use kernel::device;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_spinlock, new_spinlock_irq, Arc, SpinLock, SpinLockIrq};

/// A queue pair and what belongs to it.
#[pin_data]
pub(crate) struct Queue {
    index: u32,
    device: ARef<device::Device>,
    registers: Arc<Registers>,
    memory: SharedQueue,
    /// Empty if the device takes no lists.
    lists: Lists,
    in_flight: InFlight,
    #[pin]
    writer: SpinLock<SubmissionWriter>,
    #[pin]
    reader: SpinLockIrq<CompletionReader>,
    /// What was reported already, as each message comes once.
    reported_broken: Atomic<u32>,
    reported_stray: Atomic<u32>,
    reported_slow: Atomic<u32>,
    reported_silent: Atomic<u32>,
}

impl Queue {
    /// A queue with rings of this size, which the device does not know yet.
    pub(crate) fn new(
        index: u32,
        size: RingSize,
        with_lists: bool,
        device: ARef<device::Device>,
        registers: Arc<Registers>,
    ) -> Result<Arc<Self>> {
        let lists = if with_lists {
            size.entries() as usize
        } else {
            0
        };
        Arc::pin_init(
            try_pin_init!(Self {
                index,
                device,
                registers,
                memory: SharedQueue::new(size)?,
                lists: Lists::new(lists)?,
                in_flight: InFlight::new(size.entries())?,
                writer <- new_spinlock!(SubmissionWriter::new(size), "avio_stor_writer"),
                reader <- new_spinlock_irq!(CompletionReader::new(size), "avio_stor_reader"),
                reported_broken: Atomic::new(0),
                reported_stray: Atomic::new(0),
                reported_slow: Atomic::new(0),
                reported_silent: Atomic::new(0),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// Where the device finds the rings.
    pub(crate) fn addresses(&self) -> QueueAddresses {
        self.memory.addresses()
    }

    fn raw(&self) -> &RawQueue {
        self.memory.raw()
    }

    /// The entry for a request. Its list, if it needs one, is written.
    fn describe(&self, request: &Request) -> Result<Submission> {
        let (opcode, flags, direction) = match request.command() {
            Command::Read => (opcode::READ, 0, segment_flags::DEVICE_WRITES),
            Command::Write { fua } => (opcode::WRITE, if fua { flags::FUA } else { 0 }, 0),
            Command::Flush => (opcode::FLUSH, 0, 0),
            Command::Other => return Err(EOPNOTSUPP),
        };
        let tag = u16::try_from(request.tag())?;
        let mut entry = Submission {
            opcode,
            flags,
            tag,
            lun: request.disk(),
            ..Submission::ZERO
        };
        if opcode == opcode::FLUSH {
            return Ok(entry);
        }
        entry.sector = request.sector();
        let mut segments = request.runs().map(|Run { addr, len }| Segment {
            addr,
            len,
            flags: direction,
        });
        if request.max_runs() > INLINE_SEGMENTS {
            let (addr, count) = self.lists.fill(request.tag(), segments)?;
            let len = u32::from(count).wrapping_mul(Segment::SIZE as u32);
            let [first, ..] = &mut entry.inline;
            *first = Segment {
                addr,
                len,
                flags: segment_flags::LIST,
            };
            entry.segments = count;
            return Ok(entry);
        }
        for (to, from) in entry.inline.iter_mut().zip(&mut segments) {
            *to = from;
            entry.segments = entry.segments.wrapping_add(1);
        }
        match segments.next() {
            None => Ok(entry),
            Some(_) => Err(EIO),
        }
    }

    /// Puts a request into the ring.
    fn put(&self, request: Request) {
        // Not into a broken queue. What was in flight there has ended and its tags are used again, so a completion
        // that comes late would end this request in place of an earlier one.
        if self.is_broken() {
            return request.end(Err(EIO));
        }
        match self.describe(&request) {
            // A request that cannot go in was ended by `insert`.
            Ok(entry) => {
                if self.in_flight.insert(request).is_ok() {
                    self.writer.lock().push(self.raw(), &entry);
                }
            }
            Err(error) => request.end(Err(error)),
        }
    }

    /// Shows the device what was put into the ring.
    fn publish(&self) {
        let ring = self.writer.lock().publish(self.raw());
        if ring {
            self.registers.ring(self.index);
        }
        // Behind the barrier in `publish`: the interrupt that reports a broken queue finds what was in flight before
        // that, and we find the queue broken otherwise.
        if self.is_broken() {
            self.fail_all();
        }
    }

    /// Takes the completions that are there, and asks for an interrupt with the next.
    fn reap(&self) {
        // Dropped behind the lock, as it is declared before.
        let mut batch = Batch::new();
        let mut reader = self.reader.lock();
        loop {
            while let Some(completion) = reader.take(self.raw()) {
                self.finish(completion, &mut batch);
            }
            if !reader.arm(self.raw(), 0) {
                break;
            }
        }
    }

    /// Ends the request that a completion is for.
    fn finish(&self, completion: Completion, batch: &mut Batch) {
        let Some(request) = self.in_flight.take(completion.tag.into()) else {
            if self.reported_stray.xchg(1, Relaxed) == 0 {
                let (index, tag) = (self.index, completion.tag);
                dev_err!(
                    self.device,
                    "queue {index}: a completion for tag {tag}, which is not in flight\n"
                );
            }
            return;
        };
        let result = match Status::from_u8(completion.status) {
            Some(Status::Ok) if completion.bytes >= request.bytes() => Ok(()),
            Some(Status::Unsupported) => Err(EOPNOTSUPP),
            Some(Status::NoSpace) => Err(ENOSPC),
            Some(Status::NoMemory) => match request.retry() {
                Ok(()) => return,
                Err(request) => return request.complete(Err(EIO), batch),
            },
            _ => Err(EIO),
        };
        request.complete(result, batch);
    }

    /// Whether the device serves the queue no more. Says why, the first time.
    fn is_broken(&self) -> bool {
        let reason = self.raw().load_acquire(control::STATE);
        if reason == 0 {
            return false;
        }
        if self.reported_broken.xchg(1, Relaxed) == 0 {
            let name = Broken::from_u32(reason).map_or("unknown", Broken::name);
            let index = self.index;
            dev_err!(
                self.device,
                "queue {index}: stopped by the device, reason {reason} ({name}); its I/O fails\n"
            );
        }
        true
    }

    /// Ends everything in flight as an error.
    fn fail_all(&self) {
        let mut batch = Batch::new();
        for request in self.in_flight.drain() {
            request.complete(Err(EIO), &mut batch);
        }
    }
}

impl HwQueue for Queue {
    fn queue(&self, request: Request, last: bool) {
        self.put(request);
        if last {
            self.publish();
        }
    }

    fn commit(&self) {
        self.publish();
    }

    fn timeout(&self, tag: u32) -> Timeout {
        if self.is_broken() {
            self.fail_all();
            return Timeout::Ended;
        }
        // The completion may be there, and its interrupt lost.
        self.reap();
        if !self.in_flight.contains(tag) {
            if self.reported_silent.xchg(1, Relaxed) == 0 {
                let index = self.index;
                dev_warn!(
                    self.device,
                    "queue {index}: tag {tag} was done when its time ran out; its interrupt is late or lost\n"
                );
            }
            return Timeout::Ended;
        }
        if self.reported_slow.xchg(1, Relaxed) == 0 {
            let index = self.index;
            dev_warn!(
                self.device,
                "queue {index}: the request with tag {tag} takes long; waiting on\n"
            );
        }
        Timeout::Wait
    }
}

impl Handler for Queue {
    fn handle(&self) {
        self.reap();
        if self.is_broken() {
            self.fail_all();
        }
    }
}
