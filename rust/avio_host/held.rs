// SPDX-License-Identifier: GPL-2.0

//! Requests that a queue has taken and that wait for their LUN's limits.
//!
//! They wait as the entries that they were, in the order in which they came, and are looked at anew when they are due:
//! whatever has changed meanwhile, the LUN or guest memory, holds for them too. Only who serves the queue uses this.

use avio_abi::ring::Submission;
use avio_abi::MAX_LUNS;
use kernel::alloc::KVVec;
use kernel::prelude::*;

/// What became of a request that was looked at anew.
pub(crate) enum Again {
    /// It is no longer held back.
    Gone,
    /// It waits on; look not before this time.
    Until(u64),
}

/// A bit for each LUN.
struct LunSet([u64; MAX_LUNS as usize / 64]);

impl LunSet {
    fn has(&self, lun: u16) -> bool {
        let word = self.0.get(usize::from(lun / 64)).copied().unwrap_or(0);
        word & 1 << (lun % 64) != 0
    }

    fn add(&mut self, lun: u16) {
        if let Some(word) = self.0.get_mut(usize::from(lun / 64)) {
            *word |= 1 << (lun % 64);
        }
    }
}

/// The requests of one queue that are held back.
pub(crate) struct Held {
    entries: KVVec<Submission>,
    /// When to look at them, in nanoseconds; the end of time if there are none.
    due: u64,
}

impl Held {
    /// Room for as many requests as can be in flight.
    pub(crate) fn new(places: u32) -> Result<Self> {
        Ok(Self {
            entries: KVVec::with_capacity(places as usize, GFP_KERNEL_ACCOUNT)?,
            due: u64::MAX,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// When to look at them.
    pub(crate) fn due(&self) -> u64 {
        self.due
    }

    /// Holds a request back until about this time; `false` if there is no room, which a queue whose tags are in flight
    /// once each never meets.
    pub(crate) fn hold(&mut self, entry: &Submission, until: u64) -> bool {
        self.due = self.due.min(until);
        self.entries.push_within_capacity(*entry).is_ok()
    }

    /// Look at them at once, if there are any.
    pub(crate) fn look_again(&mut self) {
        if !self.is_empty() {
            self.due = 0;
        }
    }

    /// Looks at all of them in order. `again` also learns whether an earlier request of the LUN waits on.
    pub(crate) fn retry(&mut self, mut again: impl FnMut(&Submission, bool) -> Again) {
        let mut waiting = LunSet([0; MAX_LUNS as usize / 64]);
        let mut due = u64::MAX;
        self.entries
            .retain(|entry| match again(entry, waiting.has(entry.lun)) {
                Again::Gone => false,
                Again::Until(time) => {
                    waiting.add(entry.lun);
                    due = due.min(time);
                    true
                }
            });
        self.due = due;
    }
}
