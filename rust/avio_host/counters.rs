// SPDX-License-Identifier: GPL-2.0

//! What is counted for each queue and each LUN. Always on: relaxed additions, a LUN's in lanes, so that queues do not
//! meet on a cache line.

use avio_abi::ioctl::LunStatus;
use avio_abi::ring::Broken;
use avio_abi::stor::Status;
use avio_abi::LATENCY_CLASSES;
use avio_core::latency;
use kernel::fmt;
use kernel::sync::atomic::{Atomic, Relaxed};

/// A counter.
pub(crate) struct Count(Atomic<u64>);

impl Count {
    const fn new() -> Self {
        Self(Atomic::new(0))
    }

    pub(crate) fn add(&self, value: u64) {
        self.0.add(value, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How much something is now.
pub(crate) struct Gauge(Atomic<u32>);

impl Gauge {
    const fn new() -> Self {
        Self(Atomic::new(0))
    }

    pub(crate) fn set(&self, value: u32) {
        self.0.store(value, Relaxed);
    }
}

const STATUSES: usize = Status::ALL.len();

/// Counts of how requests ended.
struct Statuses([Count; STATUSES]);

impl Statuses {
    const fn new() -> Self {
        Self([const { Count::new() }; STATUSES])
    }

    fn add(&self, status: Status) {
        if let Some(count) = self.0.get(status as usize) {
            count.add(1);
        }
    }
}

/// Writes those statuses that occurred, each as ` status_name=value`.
fn show_statuses(counts: impl Iterator<Item = u64>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (status, count) in Status::ALL.iter().zip(counts) {
        if count != 0 {
            write!(f, " status_{}={count}", status.name())?;
        }
    }
    Ok(())
}

/// What an adapter's queues have counted, from its open. A queue is added when it goes.
#[derive(Clone)]
pub(crate) struct Totals {
    doorbells: u64,
    queues: [u64; Counters::NAMES.len()],
    statuses: [u64; STATUSES],
    breaks: [u64; Broken::ALL.len()],
}

impl Totals {
    pub(crate) const fn new() -> Self {
        Self {
            doorbells: 0,
            queues: [0; Counters::NAMES.len()],
            statuses: [0; STATUSES],
            breaks: [0; Broken::ALL.len()],
        }
    }

    /// Adds a queue; `broken` is the reason why it broke, or zero.
    pub(crate) fn add(&mut self, counters: &Counters, doorbells: u64, broken: u32) {
        let broke = Broken::ALL.iter().map(|it| u64::from(*it as u32 == broken));
        sum(core::slice::from_mut(&mut self.doorbells), [doorbells]);
        sum(&mut self.queues, counters.all().map(Count::get));
        sum(
            &mut self.statuses,
            counters.statuses.0.iter().map(Count::get),
        );
        sum(&mut self.breaks, broke);
    }

    /// Writes them, each as ` name=value`; of statuses and reasons, those that occurred.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " doorbells={}", self.doorbells)?;
        for (name, value) in Counters::NAMES.iter().zip(self.queues) {
            write!(f, " {name}={value}")?;
        }
        show_statuses(self.statuses.iter().copied(), f)?;
        for (reason, count) in Broken::ALL.iter().zip(self.breaks) {
            if count != 0 {
                write!(f, " broken_{}={count}", reason.name())?;
            }
        }
        Ok(())
    }
}

pub(crate) fn sum(to: &mut [u64], values: impl IntoIterator<Item = u64>) {
    for (to, value) in to.iter_mut().zip(values) {
        *to = to.wrapping_add(value);
    }
}

/// Counters of one queue pair, from its START.
pub(crate) struct Counters {
    /// Requests taken from the ring.
    pub(crate) requests: Count,
    /// Bytes read by the guest.
    pub(crate) read_bytes: Count,
    /// Bytes written by the guest.
    pub(crate) write_bytes: Count,
    /// Interrupts raised.
    pub(crate) interrupts: Count,
    /// Completions for which the driver wanted no interrupt.
    pub(crate) suppressed: Count,
    /// Passes of the worker over the ring.
    pub(crate) passes: Count,
    /// Times that the worker polled before it slept.
    pub(crate) polls: Count,
    /// Of these, how often work came.
    pub(crate) polls_found: Count,
    /// Times that it let others have the processor before it slept.
    pub(crate) asides: Count,
    /// Of these, how often work came.
    pub(crate) asides_found: Count,
    /// Times that a virtual processor which had rung served in its place.
    pub(crate) visits: Count,
    /// What it takes a wake-up for, in nanoseconds.
    pub(crate) wake_up_ns: Gauge,
    /// How long it polls, in nanoseconds.
    pub(crate) window_ns: Gauge,
    statuses: Statuses,
}

impl Counters {
    pub(crate) const fn new() -> Self {
        Self {
            requests: Count::new(),
            read_bytes: Count::new(),
            write_bytes: Count::new(),
            interrupts: Count::new(),
            suppressed: Count::new(),
            passes: Count::new(),
            polls: Count::new(),
            polls_found: Count::new(),
            asides: Count::new(),
            asides_found: Count::new(),
            visits: Count::new(),
            wake_up_ns: Gauge::new(),
            window_ns: Gauge::new(),
            statuses: Statuses::new(),
        }
    }

    /// What [`all`](Self::all) are called, in the same order.
    const NAMES: [&'static str; 11] = [
        "requests",
        "read_bytes",
        "write_bytes",
        "interrupts",
        "interrupts_suppressed",
        "passes",
        "polls",
        "polls_found",
        "asides",
        "asides_found",
        "visits",
    ];

    fn all(&self) -> [&Count; Self::NAMES.len()] {
        [
            &self.requests,
            &self.read_bytes,
            &self.write_bytes,
            &self.interrupts,
            &self.suppressed,
            &self.passes,
            &self.polls,
            &self.polls_found,
            &self.asides,
            &self.asides_found,
            &self.visits,
        ]
    }

    /// Counts how a request ended.
    pub(crate) fn ended(&self, status: Status) {
        self.statuses.add(status);
    }

    /// Requests that ended in an error.
    pub(crate) fn errors(&self) -> u64 {
        self.statuses.0.iter().skip(1).map(Count::get).sum()
    }

    /// Writes all counters, each as ` name=value`; of the statuses, those that occurred.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in Self::NAMES.iter().zip(self.all()) {
            write!(f, " {name}={}", count.get())?;
        }
        for (name, gauge) in [
            ("wake_up_ns", &self.wake_up_ns),
            ("window_ns", &self.window_ns),
        ] {
            write!(f, " {name}={}", gauge.0.load(Relaxed))?;
        }
        show_statuses(self.statuses.0.iter().map(Count::get), f)
    }
}

/// What a request does, as far as counting goes.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Kind {
    Read = 0,
    Write = 1,
    Flush = 2,
    Range = 3,
}

impl Kind {
    pub(crate) const fn from_u32(kind: u32) -> Self {
        match kind {
            0 => Self::Read,
            1 => Self::Write,
            2 => Self::Flush,
            _ => Self::Range,
        }
    }
}

/// Counters of one lane of a LUN, from its ADD_LUN.
pub(crate) struct LunCounters {
    reads: Count,
    read_bytes: Count,
    writes: Count,
    write_bytes: Count,
    flushes: Count,
    ranges: Count,
    /// Requests that had to wait for the LUN's limits.
    pub(crate) throttled: Count,
    statuses: Statuses,
    latency: [Count; LATENCY_CLASSES],
}

impl Default for LunCounters {
    fn default() -> Self {
        Self {
            reads: Count::new(),
            read_bytes: Count::new(),
            writes: Count::new(),
            write_bytes: Count::new(),
            flushes: Count::new(),
            ranges: Count::new(),
            throttled: Count::new(),
            statuses: Statuses::new(),
            latency: [const { Count::new() }; LATENCY_CLASSES],
        }
    }
}

impl LunCounters {
    /// Counts a request that was carried out.
    pub(crate) fn done(&self, kind: Kind, bytes: u32) {
        match kind {
            Kind::Read => {
                self.reads.add(1);
                self.read_bytes.add(u64::from(bytes));
            }
            Kind::Write => {
                self.writes.add(1);
                self.write_bytes.add(u64::from(bytes));
            }
            Kind::Flush => self.flushes.add(1),
            Kind::Range => self.ranges.add(1),
        }
    }

    /// Counts how a request ended.
    pub(crate) fn ended(&self, status: Status) {
        self.statuses.add(status);
    }

    /// Counts how long a request took.
    pub(crate) fn took(&self, ns: u64) {
        if let Some(count) = self.latency.get(latency::class(ns)) {
            count.add(1);
        }
    }

    /// Adds what this lane has counted.
    pub(crate) fn add_to(&self, sum: &mut LunStatus) {
        let add = |to: &mut u64, count: &Count| *to = to.wrapping_add(count.get());
        add(&mut sum.reads, &self.reads);
        add(&mut sum.read_bytes, &self.read_bytes);
        add(&mut sum.writes, &self.writes);
        add(&mut sum.write_bytes, &self.write_bytes);
        add(&mut sum.flushes, &self.flushes);
        add(&mut sum.ranges, &self.ranges);
        add(&mut sum.throttled, &self.throttled);
        for (to, count) in sum.statuses.iter_mut().zip(&self.statuses.0) {
            add(to, count);
        }
        for (to, count) in sum.latency.iter_mut().zip(&self.latency) {
            add(to, count);
        }
    }
}

/// Writes a LUN's state and counters, each as ` name=value`.
pub(crate) fn show_lun(sum: &LunStatus, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (name, value) in [
        ("in_flight", u64::from(sum.in_flight)),
        ("held_back", u64::from(sum.held_back)),
        ("reads", sum.reads),
        ("read_bytes", sum.read_bytes),
        ("writes", sum.writes),
        ("write_bytes", sum.write_bytes),
        ("flushes", sum.flushes),
        ("ranges", sum.ranges),
        ("throttled", sum.throttled),
    ] {
        write!(f, " {name}={value}")?;
    }
    show_statuses(sum.statuses.iter().copied(), f)?;
    show_latency(&sum.latency, f)
}

/// Writes those latency classes that occurred, as ` latency_us=from:count,...` in microseconds; the first one is from 0.
pub(crate) fn show_latency(
    classes: &[u64; LATENCY_CLASSES],
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let mut before = " latency_us=";
    for (class, count) in classes.iter().enumerate() {
        if *count != 0 {
            let from = match class {
                0 => 0,
                _ => 1u64.checked_shl(class as u32).unwrap_or(0),
            };
            write!(f, "{before}{from}:{count}")?;
            before = ",";
        }
    }
    Ok(())
}
