// SPDX-License-Identifier: GPL-2.0

//! What is counted for each queue. Always on: one relaxed addition each, on cache lines that only the queue uses.

use avio_abi::stor::Status;
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

const STATUSES: usize = Status::ALL.len();

/// Counters of one queue pair, from its START.
pub(crate) struct Counters {
    /// Requests taken from the ring.
    pub(crate) requests: Count,
    /// Bytes read by the guest.
    pub(crate) read_bytes: Count,
    /// Bytes written by the guest.
    pub(crate) write_bytes: Count,
    /// FLUSH commands carried out.
    pub(crate) flushes: Count,
    /// Interrupts raised.
    pub(crate) interrupts: Count,
    /// Completions for which the driver wanted no interrupt.
    pub(crate) suppressed: Count,
    /// Passes of the worker over the ring.
    pub(crate) passes: Count,
    statuses: [Count; STATUSES],
}

impl Counters {
    pub(crate) const fn new() -> Self {
        Self {
            requests: Count::new(),
            read_bytes: Count::new(),
            write_bytes: Count::new(),
            flushes: Count::new(),
            interrupts: Count::new(),
            suppressed: Count::new(),
            passes: Count::new(),
            statuses: [const { Count::new() }; STATUSES],
        }
    }

    /// Counts how a request ended.
    pub(crate) fn ended(&self, status: Status) {
        if let Some(count) = self.statuses.get(status as usize) {
            count.add(1);
        }
    }

    /// Requests that ended in an error.
    pub(crate) fn errors(&self) -> u64 {
        self.statuses.iter().skip(1).map(Count::get).sum()
    }

    /// Writes all counters, each as ` name=value`; of the statuses, those that occurred.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in [
            ("requests", &self.requests),
            ("read_bytes", &self.read_bytes),
            ("write_bytes", &self.write_bytes),
            ("flushes", &self.flushes),
            ("interrupts", &self.interrupts),
            ("interrupts_suppressed", &self.suppressed),
            ("passes", &self.passes),
        ] {
            write!(f, " {name}={}", count.get())?;
        }
        for (status, count) in Status::ALL.iter().zip(&self.statuses) {
            if count.get() != 0 {
                write!(f, " status_{}={}", status.name(), count.get())?;
            }
        }
        Ok(())
    }
}
