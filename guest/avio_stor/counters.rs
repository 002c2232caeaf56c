// SPDX-License-Identifier: GPL-2.0

//! What a queue counts: for each LUN, and of its own.
//!
//! Each queue has counters of its own, so that processors do not share them. All are relaxed atomics: nothing depends
//! on them.

use avio_abi::gvsd::Stat;
use avio_abi::LATENCY_CLASSES;
use avio_core::latency;
use avio_sys::guest::processor::now_ns;
use avio_sys::guest::request::Command;
use core::array::from_fn;
use kernel::alloc::KVVec;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};

/// After so many nanoseconds what was said of a LUN's slow requests is said again.
const CALM_NS: u64 = 600_000_000_000;

/// A number that grows, until the administrator clears it.
pub(crate) struct Counter(Atomic<u64>);

impl Counter {
    fn new(_: usize) -> Self {
        Self(Atomic::new(0))
    }

    /// That many more.
    pub(crate) fn add(&self, many: u64) {
        self.0.add(many, Relaxed);
    }

    fn add_to(&self, sum: &mut u64) {
        *sum = sum.wrapping_add(self.0.load(Relaxed));
    }

    fn clear(&self) {
        self.0.store(0, Relaxed);
    }
}

/// What is counted for a LUN, beside statuses.
#[derive(Clone, Copy)]
pub(crate) enum Event {
    Read,
    ReadBytes,
    Write,
    WriteBytes,
    Flush,
    Range,
    Retry,
    Timeout,
    Abort,
    Reset,
    Merge,
}

/// Counters of one LUN in one queue.
struct LunCounters {
    events: [Counter; 11],
    status: [Counter; 16],
    latency: [Counter; LATENCY_CLASSES],
    /// The most often that the time of one request ran out. Nobody clears it.
    latest: Atomic<u32>,
    /// When that was said, in nanoseconds.
    told: Atomic<u64>,
}

impl LunCounters {
    fn all(&self) -> impl Iterator<Item = &Counter> {
        // Not as a method: the kernel's prelude has another of this name.
        let answered = Iterator::chain(self.events.iter(), &self.status);
        Iterator::chain(answered, &self.latency)
    }
}

/// What is counted for a queue.
#[derive(Clone, Copy)]
pub(crate) enum QueueEvent {
    Doorbell,
    DoorbellSuppressed,
    Interrupt,
    Completion,
    Poll,
    PollFound,
}

/// All counters of a queue.
pub(crate) struct Counters {
    queue: [Counter; 6],
    luns: KVVec<LunCounters>,
}

impl Counters {
    /// Counters for LUNs with numbers less than `luns`.
    pub(crate) fn new(luns: usize) -> Result<Self> {
        let mut all = KVVec::with_capacity(luns, GFP_KERNEL)?;
        for _ in 0..luns {
            let counters = LunCounters {
                events: from_fn(Counter::new),
                status: from_fn(Counter::new),
                latency: from_fn(Counter::new),
                latest: Atomic::new(0),
                told: Atomic::new(0),
            };
            all.push(counters, GFP_KERNEL)?;
        }
        Ok(Self {
            queue: from_fn(Counter::new),
            luns: all,
        })
    }

    /// Something happened to a request of a LUN.
    pub(crate) fn lun(&self, lun: u16, event: Event, many: u64) {
        let counter = self
            .luns
            .get(usize::from(lun))
            .and_then(|lun| lun.events.get(event as usize));
        counter.inspect(|counter| counter.add(many));
    }

    /// A request of a LUN has ended, so long after the block layer had made it.
    pub(crate) fn took(&self, lun: u16, ns: u64) {
        let counters = self.luns.get(usize::from(lun));
        let counter = counters.and_then(|lun| lun.latency.get(latency::class(ns)));
        counter.inspect(|counter| counter.add(1));
    }

    /// The time of a request of a LUN has run out so often; whether that is more than of any in the last [`CALM_NS`]. The
    /// block layer lets the time of a disk's requests run out one by one.
    pub(crate) fn is_latest(&self, lun: u16, times: u32) -> bool {
        let Some(counters) = self.luns.get(usize::from(lun)) else {
            return false;
        };
        let now = now_ns();
        let calm = now.saturating_sub(counters.told.load(Relaxed)) > CALM_NS;
        let more = calm || times > counters.latest.load(Relaxed);
        if more {
            counters.latest.store(times, Relaxed);
            counters.told.store(now, Relaxed);
        }
        more
    }

    /// A request of a LUN was answered with this status.
    pub(crate) fn answered(&self, lun: u16, command: Command, bytes: u32, status: u8) {
        let (event, moved) = match command {
            Command::Read => (Event::Read, Some(Event::ReadBytes)),
            Command::Write { .. } => (Event::Write, Some(Event::WriteBytes)),
            Command::Flush => (Event::Flush, None),
            _ => (Event::Range, None),
        };
        self.lun(lun, event, 1);
        if let Some(moved) = moved {
            self.lun(lun, moved, bytes.into());
        }
        let counter = self
            .luns
            .get(usize::from(lun))
            .and_then(|lun| lun.status.get(usize::from(status)));
        counter.inspect(|counter| counter.add(1));
    }

    /// Something happened to the queue.
    pub(crate) fn queue(&self, event: QueueEvent, many: u64) {
        let counter = self.queue.get(event as usize);
        counter.inspect(|counter| counter.add(many));
    }

    fn chosen(&self, lun: Option<u16>) -> impl Iterator<Item = &LunCounters> {
        let (first, count) = match lun {
            Some(lun) => (usize::from(lun), 1),
            None => (0, usize::MAX),
        };
        self.luns.iter().skip(first).take(count)
    }

    /// Adds what was counted for one LUN, or for all and for the queue.
    pub(crate) fn add_to(&self, sum: &mut Stat, lun: Option<u16>) {
        for counters in self.chosen(lun) {
            let sums = [
                &mut sum.reads,
                &mut sum.read_bytes,
                &mut sum.writes,
                &mut sum.write_bytes,
                &mut sum.flushes,
                &mut sum.ranges,
                &mut sum.retries,
                &mut sum.timeouts,
                &mut sum.aborts,
                &mut sum.resets,
                &mut sum.merges,
            ];
            let sums = Iterator::chain(sums.into_iter(), &mut sum.status);
            counters
                .all()
                .zip(Iterator::chain(sums, &mut sum.latency))
                .for_each(|(counter, sum)| counter.add_to(sum));
        }
        if lun.is_none() {
            let sums = [
                &mut sum.doorbells,
                &mut sum.doorbells_suppressed,
                &mut sum.interrupts,
                &mut sum.completions,
                &mut sum.polls,
                &mut sum.polls_found,
            ];
            self.queue
                .iter()
                .zip(sums)
                .for_each(|(counter, sum)| counter.add_to(sum));
        }
    }

    /// Starts again from zero, for one LUN, or for all and for the queue.
    pub(crate) fn clear(&self, lun: Option<u16>) {
        self.chosen(lun)
            .flat_map(LunCounters::all)
            .for_each(Counter::clear);
        if lun.is_none() {
            self.queue.iter().for_each(Counter::clear);
        }
    }
}
