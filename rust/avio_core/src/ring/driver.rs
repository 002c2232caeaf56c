// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The driver's end of a queue pair.
//!
//! The caller serialises each of the two halves; they may run on two processors at once. The driver chooses tags less
//! than the ring's size and uses none twice at a time, so that neither ring can overflow.

use super::{passes, QueueMemory, RingSize};
use avio_abi::ring::{control, Completion, Submission};

/// Puts requests into the submission ring.
pub struct SubmissionWriter {
    size: RingSize,
    /// Position of the next entry to write.
    tail: u32,
    /// Entries before this were published.
    published: u32,
}

impl SubmissionWriter {
    /// The writer of a fresh ring.
    pub const fn new(size: RingSize) -> Self {
        Self::at(size, 0)
    }

    /// The writer of an idle ring: as many requests as `position` were published and answered, modulo 2^32.
    pub const fn at(size: RingSize, position: u32) -> Self {
        Self {
            size,
            tail: position,
            published: position,
        }
    }

    /// Writes a request. The device does not see it before [`publish`](Self::publish).
    pub fn push<M: QueueMemory>(&mut self, memory: &M, submission: &Submission) {
        memory.write_submission(self.size.slot(self.tail), &encode(submission));
        self.tail = self.tail.wrapping_add(1);
    }

    /// How many requests were ever pushed, modulo 2^32.
    pub const fn position(&self) -> u32 {
        self.tail
    }

    /// Shows the device all requests that were pushed; `true` if it wants the doorbell.
    #[must_use]
    pub fn publish<M: QueueMemory>(&mut self, memory: &M) -> bool {
        if self.published == self.tail {
            return false;
        }
        // Release: the entries, and the `CQ_HEAD` that made room for their completions, come first.
        memory.store_release(control::SQ_TAIL, self.tail);
        // Pairs with the barrier in `SubmissionReader::arm`: either we see its event, or it our tail.
        memory.full_barrier();
        let event = memory.load_acquire(control::SQ_EVENT);
        let old = core::mem::replace(&mut self.published, self.tail);
        passes(event, old, self.tail)
    }
}

/// A submission entry as eight words.
fn encode(submission: &Submission) -> [u64; 8] {
    let bytes = submission.to_bytes();
    let mut words = [0; 8];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        let mut le = [0; 8];
        le.copy_from_slice(chunk);
        *word = u64::from_le_bytes(le);
    }
    words
}

/// Takes completions.
pub struct CompletionReader {
    size: RingSize,
    /// Position of the next entry to take.
    head: u32,
    /// How often an interrupt was asked for, modulo 2^32.
    arms: u32,
}

impl CompletionReader {
    /// The reader of a fresh ring.
    pub const fn new(size: RingSize) -> Self {
        Self::at(size, 0)
    }

    /// The reader of an idle ring: as many completions as `position` were taken, modulo 2^32.
    pub const fn at(size: RingSize, position: u32) -> Self {
        Self {
            size,
            head: position,
            arms: 0,
        }
    }

    /// How many completions were ever taken, modulo 2^32.
    pub const fn position(&self) -> u32 {
        self.head
    }

    /// Takes the next completion, if it is there, and makes its place free.
    pub fn take<M: QueueMemory>(&mut self, memory: &M) -> Option<Completion> {
        let entry = memory.load_completion(self.size.slot(self.head));
        let (completion, phase) = Completion::decode(entry);
        if phase != self.size.phase(self.head) {
            return None;
        }
        self.head = self.head.wrapping_add(1);
        // Before the caller can use the tag again, so that the device finds the place free when it needs it.
        memory.store_release(control::CQ_HEAD, self.head);
        Some(completion)
    }

    /// Asks for an interrupt with the completion `after` places behind the next one, and looks once more; `true` if
    /// the next one is there already, and the caller must take it rather than wait.
    ///
    /// `after` must be less than the number of requests in flight. When the interrupt comes, the next completion may
    /// still be missing: the caller then arms again.
    pub fn arm<M: QueueMemory>(&mut self, memory: &M, after: u32) -> bool {
        if after != 0 {
            let event = self.head.wrapping_add(after);
            self.ask(memory, event);
            if is_there(memory, self.size, self.head) {
                return true;
            }
            if !is_there(memory, self.size, event) {
                return false;
            }
            // Completions become visible out of order: that one came before our event, so nobody will raise its
            // interrupt, and the next one is still missing. Ask with that.
        }
        self.ask(memory, self.head);
        is_there(memory, self.size, self.head)
    }

    /// With COALESCE: asks for an interrupt with the completion `after` places behind the next one, or as far as a device
    /// heeds, or when the device rests; `true` if the next one is there already, and the caller must take it rather than wait.
    pub fn arm_ahead<M: QueueMemory>(&mut self, memory: &M, after: u32) -> bool {
        let after = after.min(self.size.entries());
        self.ask(memory, self.head.wrapping_add(after));
        is_there(memory, self.size, self.head)
    }

    fn ask<M: QueueMemory>(&mut self, memory: &M, event: u32) {
        self.arms = self.arms.wrapping_add(1);
        memory.store_release(control::CQ_ARMS, self.arms);
        memory.store_release(control::CQ_EVENT, event);
        // Pairs with the barrier in `CompletionWriter::post`: either it sees our event, or we its entry.
        memory.full_barrier();
    }

    /// Asks for no interrupts, until it asks for one.
    pub fn disarm<M: QueueMemory>(&mut self, memory: &M) {
        // As far from all that is in the ring as can be: who has just posted an earlier one is not meant either.
        memory.store_release(control::CQ_EVENT, self.head.wrapping_add(1 << 31));
    }
}

/// Whether the completion with this position is in the ring, taken or not, or a later one in its slot. For those who look
/// without being the reader.
pub fn is_there<M: QueueMemory>(memory: &M, size: RingSize, position: u32) -> bool {
    let entry = memory.load_completion(size.slot(position));
    Completion::decode(entry).1 == size.phase(position)
}
