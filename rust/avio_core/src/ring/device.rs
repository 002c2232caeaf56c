// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The device's end of a queue pair. It trusts nothing that it reads from the memory.
//!
//! One worker owns the [`SubmissionReader`]; the [`CompletionWriter`] is shared by all contexts in which a request
//! can end, interrupts included, and takes no lock.

use super::{QueueMemory, RingSize};
use crate::sync::AtomicU32;
use avio_abi::ring::{control, Broken, Completion, Submission};

/// Takes requests from the submission ring.
///
/// Every request that it gives out must be answered by exactly one [`CompletionWriter::post`]: the room in the
/// completion ring is counted here, when a request is taken, so that posting never has to wait.
pub struct SubmissionReader {
    size: RingSize,
    /// Position of the next entry to take. Also the number of completions promised.
    head: u32,
    /// `SQ_TAIL` when last read: entries before it are published.
    tail: u32,
    /// `CQ_HEAD` when last read: completions before it were taken by the driver.
    taken: u32,
}

impl SubmissionReader {
    /// The reader of a fresh ring.
    pub const fn new(size: RingSize) -> Self {
        Self::at(size, 0)
    }

    /// The reader of an idle ring: as many requests as `position` were taken and answered, modulo 2^32.
    pub const fn at(size: RingSize, position: u32) -> Self {
        Self {
            size,
            head: position,
            tail: position,
            taken: position,
        }
    }

    /// Number of requests taken so far, modulo 2^32.
    pub const fn position(&self) -> u32 {
        self.head
    }

    /// Copies the next request, if there is one. `posted` is how many completions were posted so far.
    ///
    /// # Errors
    ///
    /// The way in which the driver violated the protocol. The queue must not be used again.
    pub fn take<M: QueueMemory>(
        &mut self,
        memory: &M,
        posted: impl FnOnce() -> u32,
    ) -> Result<Option<Submission>, Broken> {
        if self.head == self.tail && !self.refresh(memory)? {
            return Ok(None);
        }
        self.reserve_completion(memory, posted)?;
        let words = memory.read_submission(self.size.slot(self.head));
        self.head = self.head.wrapping_add(1);
        Ok(Some(decode(&words)))
    }

    /// Tells the driver how far requests were taken. For diagnosis: no driver needs it.
    pub fn publish_head<M: QueueMemory>(&self, memory: &M) {
        memory.store_release(control::SQ_HEAD, self.head);
    }

    /// How many requests there are to take, without asking for a doorbell.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take).
    pub fn pending<M: QueueMemory>(&mut self, memory: &M) -> Result<u32, Broken> {
        self.refresh(memory)?;
        Ok(self.tail.wrapping_sub(self.head))
    }

    /// Asks for a doorbell with the next request and looks once more; `true` if there is one already, and the caller
    /// must not sleep.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take).
    pub fn arm<M: QueueMemory>(&mut self, memory: &M) -> Result<bool, Broken> {
        memory.store_release(control::SQ_EVENT, self.head);
        // Pairs with the barrier in `SubmissionWriter::publish`: either the driver sees our event, or we its tail.
        memory.full_barrier();
        self.refresh(memory)
    }

    /// Reads the driver's tail; whether there are entries to take.
    fn refresh<M: QueueMemory>(&mut self, memory: &M) -> Result<bool, Broken> {
        // Acquire: pairs with the release of `SQ_TAIL`, so that the entries before it are complete.
        let tail = memory.load_acquire(control::SQ_TAIL);
        let published = tail.wrapping_sub(self.head);
        let known = self.tail.wrapping_sub(self.head);
        if published > self.size.entries() || published < known {
            return Err(Broken::SubmissionIndex);
        }
        self.tail = tail;
        Ok(published != 0)
    }

    /// Makes sure that the completion ring has room for one more promise.
    fn reserve_completion<M: QueueMemory>(
        &mut self,
        memory: &M,
        posted: impl FnOnce() -> u32,
    ) -> Result<(), Broken> {
        if self.head.wrapping_sub(self.taken) < self.size.entries() {
            return Ok(());
        }
        let taken = memory.load_acquire(control::CQ_HEAD);
        // The driver can have taken no more than what was posted, counted after its own count was read.
        let newly_posted = posted().wrapping_sub(self.taken);
        if taken.wrapping_sub(self.taken) > newly_posted {
            return Err(Broken::CompletionIndex);
        }
        self.taken = taken;
        if self.head.wrapping_sub(taken) < self.size.entries() {
            Ok(())
        } else {
            Err(Broken::CompletionOverrun)
        }
    }
}

/// A submission entry from its eight words.
fn decode(words: &[u64; 8]) -> Submission {
    let mut bytes = [0; avio_abi::ring::SUBMISSION_SIZE];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    Submission::from_bytes(&bytes)
}

/// When a driver wants an interrupt for a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// At once.
    Now,
    /// With a later completion, or before the device rests.
    Later,
    /// It is looking for completions, or was told of earlier ones and will, or waits for an earlier one.
    Never,
}

/// Posts completions. Wait-free, and usable from interrupt context.
pub struct CompletionWriter {
    size: RingSize,
    tail: AtomicU32,
    /// `CQ_ARMS` when the last interrupt was raised.
    raised: AtomicU32,
}

impl CompletionWriter {
    /// The writer of a fresh ring.
    pub fn new(size: RingSize) -> Self {
        Self::at(size, 0)
    }

    /// The writer of an idle ring: as many completions as `position` were posted, modulo 2^32.
    pub fn at(size: RingSize, position: u32) -> Self {
        Self {
            size,
            tail: AtomicU32::new(position),
            raised: AtomicU32::new(0),
        }
    }

    /// Number of completions posted so far, modulo 2^32. One that is just being posted may be counted already.
    pub fn posted(&self) -> u32 {
        self.tail.load_relaxed()
    }

    /// Posts a completion that a [`SubmissionReader`] has promised; what the driver wants to be told of it.
    ///
    /// Completions may become visible out of order; the driver sleeps only on an entry that is missing, and whoever
    /// writes the entry at its event position raises the interrupt. If that lies ahead of the missing entry, who writes the
    /// missing one sees so.
    pub fn post<M: QueueMemory>(&self, memory: &M, completion: Completion) -> Wanted {
        let position = self.tail.fetch_add_relaxed(1);
        let entry = completion.encode(self.size.phase(position));
        memory.store_completion(self.size.slot(position), entry);
        // Pairs with the barrier in `CompletionReader::arm`: either we see its event, or it our entry.
        memory.full_barrier();
        let ahead = memory
            .load_acquire(control::CQ_EVENT)
            .wrapping_sub(position);
        if ahead == 0 {
            self.raised
                .store_release(memory.load_acquire(control::CQ_ARMS));
            Wanted::Now
        } else if ahead <= self.size.entries() {
            Wanted::Later
        } else {
            Wanted::Never
        }
    }

    /// Before the device rests: `true` if it must interrupt, because there are completions that the driver has not
    /// taken, and that no interrupt which it has yet to handle will make it take.
    fn must_interrupt<M: QueueMemory>(&self, memory: &M) -> bool {
        let arms = memory.load_acquire(control::CQ_ARMS);
        // An interrupt was raised since the driver armed last: it looks at its ring when it handles that.
        if arms == self.raised.load_relaxed() {
            return false;
        }
        let taken = memory.load_acquire(control::CQ_HEAD);
        let ahead = memory.load_acquire(control::CQ_EVENT).wrapping_sub(taken);
        let wanted = taken != self.posted() && ahead <= self.size.entries();
        if wanted {
            self.raised.store_release(arms);
        }
        wanted
    }
}

/// Whether the device rests: whether nobody may count on it that the submission ring is polled. Sections 5.5 and 5.6 of the
/// specification.
pub struct Rest(AtomicU32);

impl Rest {
    /// A device that rests.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(AtomicU32::new(1))
    }
    /// A device that rests.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self(AtomicU32::new(1))
    }

    /// The worker begins to look.
    pub fn end(&self) {
        self.0.store_release(0);
    }

    /// The worker may stop looking from now on; `true` if it must interrupt the driver first.
    pub fn begin<M: QueueMemory>(&self, memory: &M, writer: &CompletionWriter) -> bool {
        self.0.store_release(1);
        // Pairs with the barrier in `CompletionWriter::post`: either we see its completion, or it that we rest.
        memory.full_barrier();
        writer.must_interrupt(memory)
    }

    /// For who has posted a completion for which an interrupt is wanted later: whether the worker must be woken for it.
    pub fn is_resting(&self) -> bool {
        self.0.load_relaxed() != 0
    }
}

impl Default for Rest {
    fn default() -> Self {
        Self::new()
    }
}
