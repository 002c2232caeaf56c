// SPDX-License-Identifier: GPL-2.0

//! The data path: a hardware queue of the block layer on a queue pair of the device.
//!
//! The ring has as many entries as the queue has tags, so there is always room. Requests go in in process context
//! under the `writer` lock. Completions come out under the `reader` lock: in interrupt context; and in process context
//! behind a submission, which spares the interrupt of what has come meanwhile, and when a request takes long. So it keeps
//! interrupts off. It may be taken under the other lock, but not the other way.
//!
//! The device is trusted with the guest's data but not with its integrity: a completion for a tag that is not in
//! flight is dropped, and one that claims fewer bytes than were asked for is an error.
//!
//! **No interrupt is lost.** Every wait is armed by [`CompletionReader::arm_ahead`], which looks at the next entry once
//! more; and so is that for a lone request, when it was looked for in vain ([`lone`]). If the device has COALESCE, it
//! interrupts before it rests, so that the position asked for may lie ahead of what is in flight (5.6 of `docs/abi.md`). If
//! not, we ask for the next completion only.

mod completions;
mod lone;
mod recovery;

pub(crate) use completions::Cause;

use crate::counters::{Counters, QueueEvent};
use crate::entry::describe;
use crate::lists::Lists;
use crate::registers::Registers;
use crate::signals::Signals;
use crate::tasks::Tasks;
use avio_core::coalesce::Coalescer;
use avio_core::linger::{Alone, Linger};
use avio_core::ring::{CompletionReader, RingSize, SubmissionWriter};
use avio_sys::guest::blkmq::{HwQueue, Timeout};
use avio_sys::guest::in_flight::InFlight;
use avio_sys::guest::irq::{self, Handler};
use avio_sys::guest::memory::{QueueAddresses, SharedQueue};
use avio_sys::guest::processor::now_ns;
use avio_sys::guest::request::{Request, Slow};
use avio_sys::guest::trace;
use avio_sys::queue_memory::RawQueue;
use kernel::device;
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::atomic::{Acquire, Atomic, Release};
use kernel::sync::{new_spinlock, new_spinlock_irq, Arc, SpinLock, SpinLockIrq};

/// What becomes of requests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// They go into the ring.
    Open,
    /// They have to come again.
    Paused,
    /// They fail.
    Failed,
}

/// The end of the submission ring.
struct Writer {
    ring: SubmissionWriter,
    door: Door,
    /// Requests were put in that were not published yet.
    news: bool,
    alone: Alone,
}

/// The end of the completion ring.
struct Reader {
    ring: CompletionReader,
    coalescer: Coalescer,
    linger: Linger,
    /// Completions taken since the last interrupt.
    taken: u32,
}

/// What all queues of an adapter share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) device: ARef<device::Device>,
    pub(crate) registers: Arc<Registers>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) size: RingSize,
    pub(crate) luns: u32,
    /// The device takes segment lists.
    pub(crate) lists: bool,
    /// Interrupts may be put off: the device has COALESCE, and nobody has switched it off.
    pub(crate) coalesce: bool,
}

/// A queue pair and what belongs to it.
#[pin_data]
pub(crate) struct Queue {
    index: u32,
    polled: bool,
    shared: Shared,
    pub(crate) counters: Counters,
    memory: SharedQueue,
    /// Empty if the device takes no lists.
    lists: Lists,
    requests: InFlight,
    #[pin]
    writer: SpinLock<Writer>,
    #[pin]
    reader: SpinLockIrq<Reader>,
    /// Somebody who has submitted takes completions.
    reaping: Atomic<u32>,
    /// Somebody looks for the completion of a [`lone`] request, and no interrupt is asked for.
    quiet: Atomic<u32>,
    /// An [`Illness`](recovery::Illness), or zero: the device serves it no more, or has lost a request.
    ill: Atomic<u32>,
    /// What was reported already, as each message comes once. That of a slow request comes for each LUN,
    /// and in time once more ([`Counters::is_latest`]).
    reported_stray: Atomic<u32>,
    reported_silent: Atomic<u32>,
}

impl Queue {
    /// A queue that the device does not know yet. One that is polled never asks for an interrupt.
    pub(crate) fn new(index: u32, polled: bool, shared: &Shared) -> Result<Arc<Self>> {
        let size = shared.size;
        let depth = size.entries();
        let lists = if shared.lists { depth as usize } else { 0 };
        let writer = Writer {
            ring: SubmissionWriter::new(size),
            door: Door::Paused,
            news: false,
            alone: Alone::new(),
        };
        let reader = Reader {
            ring: CompletionReader::new(size),
            coalescer: Coalescer::new(shared.coalesce),
            linger: Linger::new(),
            taken: 0,
        };
        let queue = Arc::pin_init(
            try_pin_init!(Self {
                index,
                polled,
                shared: shared.clone(),
                counters: Counters::new(shared.luns as usize)?,
                memory: SharedQueue::new(size)?,
                lists: Lists::new(lists)?,
                requests: InFlight::new(depth)?,
                writer <- new_spinlock!(writer, "avio_stor_writer"),
                reader <- new_spinlock_irq!(reader, "avio_stor_reader"),
                reaping: Atomic::new(0),
                quiet: Atomic::new(0),
                ill: Atomic::new(0),
                reported_stray: Atomic::new(0),
                reported_silent: Atomic::new(0),
            }? Error),
            GFP_KERNEL,
        )?;
        queue.restart();
        Ok(queue)
    }

    /// Where the device finds the rings.
    pub(crate) fn addresses(&self) -> QueueAddresses {
        self.memory.addresses()
    }

    fn raw(&self) -> &RawQueue {
        self.memory.raw()
    }

    /// Puts a request into the ring, unless its disk is on its way out: another may have its LUN.
    fn put(&self, request: Request) {
        if request.is_shut() {
            return request.end(Err(EIO));
        }
        let entry = match describe(&request, &self.lists) {
            Ok(entry) => entry,
            Err(error) => return request.end(Err(error)),
        };
        let mut writer = self.writer.lock();
        // Not into a broken queue: what is in there comes again when the adapter was reset.
        let door = match writer.door {
            Door::Open if self.is_broken() => Door::Paused,
            door => door,
        };
        match door {
            Door::Open => match self.requests.insert(request) {
                Ok(()) => {
                    writer.ring.push(self.raw(), &entry);
                    trace::sent(&self.shared.device, self.index, &entry);
                    writer.news = true;
                }
                Err(request) => {
                    drop(writer);
                    request.end(Err(EIO));
                }
            },
            Door::Paused => {
                drop(writer);
                request.requeue();
            }
            Door::Failed => {
                drop(writer);
                request.end(Err(EIO));
            }
        }
    }

    /// Shows the device what was put into the ring, and takes completions that come meanwhile, so that they need no
    /// interrupt.
    fn publish(&self) {
        // Who is told of a completion may submit from there, which comes back to here: not a second time.
        let reaps = !self.polled && self.reaping.xchg(1, Acquire) == 0;
        self.show(reaps);
        if reaps {
            self.reaping.store(0, Release);
        }
    }

    fn show(&self, reaps: bool) {
        let mut writer = self.writer.lock();
        if writer.door != Door::Open || !writer.news {
            return;
        }
        writer.news = false;
        let lone = self.begin_lone(&mut writer, reaps);
        let ring = writer.ring.publish(self.raw());
        drop(writer);
        let mut rang = None;
        if ring {
            let begun = now_ns();
            self.shared.registers.ring(self.index);
            rang = Some(now_ns().saturating_sub(begun));
            self.counters.queue(QueueEvent::Doorbell, 1);
        } else {
            self.counters.queue(QueueEvent::DoorbellSuppressed, 1);
        }
        // Behind the barrier in `publish`: the interrupt that reports a broken queue finds what was in flight before
        // that, and we find the queue broken otherwise.
        self.is_broken();
        match lone {
            Some(lone) => self.end_lone(lone, rang),
            None if reaps => {
                self.reap(Cause::Submission { rang });
            }
            None => self.end_quiet(),
        }
    }

    /// How many requests of a LUN, or of all, the device has.
    pub(crate) fn in_flight(&self, lun: Option<u16>) -> u64 {
        self.requests.count(lun)
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

    fn timeout(&self, slow: Slow) -> Timeout {
        if self.is_done_after_all(slow.tag) {
            return Timeout::Ended;
        }
        // A stopped queue, or an adapter that was given up while its backing had requests, is looked at again.
        if self.is_ill() || self.is_broken() || self.writer.lock().door == Door::Failed {
            self.shared.signals.recover();
        } else {
            self.escalate(&slow);
        }
        Timeout::Wait
    }

    fn poll(&self) -> u32 {
        let count = self.reap(Cause::Look);
        self.counters.queue(QueueEvent::Poll, 1);
        self.counters
            .queue(QueueEvent::PollFound, u64::from(count != 0));
        self.is_broken();
        count
    }
}

impl Handler for Queue {
    fn handle(&self) {
        self.counters.queue(QueueEvent::Interrupt, 1);
        self.reap(Cause::Interrupt {
            idle: irq::found_idle(),
        });
        self.is_broken();
    }
}
