// SPDX-License-Identifier: GPL-2.0

//! What goes wrong with a queue, and how it starts anew.

use super::{Cause, Door, Queue};
use crate::counters::Event;
use crate::link::HANGS;
use crate::tasks::request;
use avio_abi::pci::{reg, state, task};
use avio_abi::ring::{control, Broken};
use avio_core::ring::{CompletionReader, QueueMemory, SubmissionWriter};
use avio_sys::guest::request::{Batch, Slow};
use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;
use kernel::time::delay::fsleep;
use kernel::time::Delta;

/// How late an interrupt may be that is not taken for lost.
const LATE_MS: i64 = 100;

/// How long after it forgot a request the device has certainly posted the completion.
const POSTED: Delta = Delta::from_millis(10);

/// What helps a queue that is ill.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Illness {
    /// A reset of the queue.
    Queue = 1,
    /// Nothing less than a reset of the adapter.
    Adapter = 2,
}

impl Queue {
    /// Makes it as new. The device must not serve it, and the door must be closed.
    pub(crate) fn restart(&self) {
        let mut reader = self.reader.lock();
        self.memory.clear();
        reader.ring = CompletionReader::new(self.shared.size);
        if self.polled {
            reader.ring.disarm(self.raw());
        }
        self.ill.store(0, Relaxed);
        drop(reader);
        let mut writer = self.writer.lock();
        writer.ring = SubmissionWriter::new(self.shared.size);
        writer.news = false;
    }

    /// Says what becomes of requests from now on. No other goes into the ring behind this.
    pub(crate) fn set_door(&self, door: Door) {
        self.writer.lock().door = door;
    }

    /// Takes back what is in flight, to send it again or to fail it. The device must not serve the queue.
    pub(crate) fn take_back(&self, again: bool) {
        let mut batch = Batch::new();
        for request in self.requests.drain() {
            if again {
                self.counters.lun(request.disk(), Event::Retry, 1);
                request.requeue();
            } else {
                request.complete(Err(EIO), &mut batch);
            }
        }
    }

    /// Whether only a reset can help.
    pub(crate) fn is_ill(&self) -> bool {
        self.ill.load(Relaxed) != 0
    }

    /// Whether it must be one of the whole adapter.
    pub(crate) fn needs_all(&self) -> bool {
        self.ill.load(Relaxed) == Illness::Adapter as u32
    }

    /// Notes that a reset is needed; whether that is news. What the whole adapter needs stays so.
    fn falls_ill(&self, illness: Illness) -> bool {
        match illness {
            Illness::Queue => self.ill.cmpxchg(0, illness as u32, Relaxed).is_ok(),
            Illness::Adapter => self.ill.xchg(illness as u32, Relaxed) != illness as u32,
        }
    }

    /// Has the device leave the queue alone. The door must be closed. How many requests it still has, or none if it does
    /// not stop queues one by one. May sleep.
    pub(crate) fn stop(&self) -> Option<u32> {
        self.shared
            .tasks
            .run(task::QUEUE_STOP, 0, request(self.index, 0))
    }

    /// Has the device serve the queue, which must be as new, after [`stop`](Self::stop) has left no request; whether it
    /// does. Says so. May sleep.
    pub(crate) fn start(&self) -> bool {
        let tasks = &self.shared.tasks;
        let index = self.index;
        let started = tasks.run(task::QUEUE_START, 0, request(index, 0)).is_some();
        if started {
            dev_info!(
                self.shared.device,
                "queue {index}: was reset, and goes on\n"
            );
        }
        started
    }

    /// Says that the queue has requests that a backing does not end.
    pub(crate) fn says_it_hangs(&self) {
        let index = self.index;
        dev_err!(
            self.shared.device,
            "queue {index}: it {HANGS}; its I/O waits\n"
        );
    }

    /// Whether the device serves the queue no more; then a reset mends it. Says why, the first time.
    pub(super) fn is_broken(&self) -> bool {
        let reason = self.raw().load_acquire(control::STATE);
        if reason == 0 {
            return false;
        }
        if self.falls_ill(Illness::Queue) {
            let name = Broken::from_u32(reason).map_or("unknown", Broken::name);
            let index = self.index;
            dev_err!(
                self.shared.device,
                "queue {index}: stopped by the device, reason {reason} ({name}); resetting it\n"
            );
            self.shared.signals.recover();
        }
        true
    }

    /// Whether the device is stopped although we have not done that. Says so, the first time.
    fn stopped_by_others(&self) -> bool {
        // The door is shut before we stop the device, and opened when it was started, and what makes a queue ill is noted
        // before it can be mended.
        let writer = self.writer.lock();
        if writer.door != Door::Open || self.shared.registers.read(reg::STATE) != state::STOPPED {
            return false;
        }
        let first = self.falls_ill(Illness::Adapter);
        drop(writer);
        if first {
            let index = self.index;
            dev_err!(
                self.shared.device,
                "queue {index}: somebody else has stopped the adapter (by its PCI configuration?); resetting it\n"
            );
        }
        true
    }

    /// Has a reset done, as nothing less can help.
    fn give_up(&self, illness: Illness) {
        self.falls_ill(illness);
        self.shared.signals.recover();
    }

    /// Whether a request of which the device knows nothing has no completion either. The device forgets it before it posts
    /// that.
    fn is_lost(&self, tag: u32) -> bool {
        fsleep(POSTED);
        self.reap(Cause::Look);
        self.requests.contains(tag)
    }

    /// Whether a request whose time ran out is done: its completion was taken just then, or lies in the ring.
    pub(super) fn is_done_after_all(&self, tag: u32) -> bool {
        // Whoever takes completions may be about to. What nobody takes for so long has lost its interrupt.
        let untaken = self.untaken();
        let mut late = untaken.is_some() && self.requests.contains(tag);
        for _ in 0..LATE_MS {
            late = late && self.untaken() == untaken && self.requests.contains(tag);
            if !late {
                break;
            }
            fsleep(Delta::from_millis(1));
        }
        self.reap(Cause::Look);
        if self.requests.contains(tag) {
            return false;
        }
        if late && !self.polled && self.reported_silent.xchg(1, Relaxed) == 0 {
            let index = self.index;
            dev_warn!(
                self.shared.device,
                "queue {index}: tag {tag} was done when its time ran out; its interrupt is late or lost\n"
            );
        }
        true
    }

    /// What is done about a request whose time ran out and that is still in flight: first it is aborted, then all
    /// requests of its LUN. If the device then says that no backing has it, the queue has lost it.
    pub(super) fn escalate(&self, slow: &Slow) {
        let Slow { tag, disk, times } = *slow;
        self.counters.lun(disk, Event::Timeout, 1);
        let (index, device) = (self.index, &self.shared.device);
        if self.stopped_by_others() {
            return self.shared.signals.recover();
        }
        let (kind, event) = match times {
            2 => (task::LUN_RESET, Event::Reset),
            _ => (task::ABORT, Event::Abort),
        };
        let left = self.shared.tasks.run(kind, disk, request(index, tag));
        if left.is_some() {
            self.counters.lun(disk, event, 1);
        }
        if self.shared.registers.is_gone() {
            self.give_up(Illness::Adapter);
        } else if times >= 3 && left == Some(0) && self.is_lost(tag) {
            self.give_up(Illness::Queue);
            dev_err!(
                device,
                "queue {index}: the device has no request with tag {tag} (LUN {disk}) any more and never answered it; resetting the queue\n"
            );
        } else if self.counters.is_latest(disk, times.min(2)) {
            let done = if kind == task::ABORT {
                "aborting it"
            } else {
                "resetting the LUN"
            };
            dev_warn!(
                device,
                "queue {index}: the request with tag {tag} (LUN {disk}) takes long; {done}, and waiting on\n"
            );
        }
    }
}
