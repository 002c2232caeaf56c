// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Proofs of the queue pair's ordering rules: Loom runs the legal interleavings and reorderings of small histories, each with
//! at most so many preemptions as it says; among those, all.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p avio_core --test loom`; an ordinary build leaves this file empty.
//! Each module is about a section of `docs/abi.md`, or two; names of tests give the section that they prove. Each rule is
//! also broken on purpose, by a [`Flaw`] of the memory, and Loom must find the history in which that matters: so the
//! proofs are known to look.

#![cfg(loom)]

use avio_abi::ring::{control, Submission};
use avio_abi::wire::Wire;
use avio_core::ring::{QueueMemory, RingSize};
use loom::sync::atomic::{fence, AtomicU32, AtomicU64, Ordering};
use loom::sync::Arc;

#[path = "loom/doorbells.rs"]
mod doorbells;
#[path = "loom/handing_over.rs"]
mod handing_over;
#[path = "loom/interrupts.rs"]
mod interrupts;
#[path = "loom/rest.rs"]
mod rest;
#[path = "loom/tags.rs"]
mod tags;

/// A rule of the memory that is left out.
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    /// `full_barrier` does nothing.
    NoBarrier,
    /// Control words are written without release.
    RelaxedWords,
    /// Completion entries are written without release.
    RelaxedCompletions,
}

/// Shared memory made of Loom's atomics. Of a submission entry it keeps the first two words, enough to see a torn one.
struct Memory {
    flaw: Flaw,
    words: [AtomicU32; 7],
    submissions: Vec<[AtomicU64; 2]>,
    completions: Vec<AtomicU64>,
}

impl Memory {
    fn new(size: RingSize, flaw: Flaw) -> Self {
        let slots = 0..size.entries();
        Self {
            flaw,
            words: core::array::from_fn(|_| AtomicU32::new(0)),
            submissions: slots
                .clone()
                .map(|_| [AtomicU64::new(0), AtomicU64::new(0)])
                .collect(),
            completions: slots.map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn word(&self, word: usize) -> &AtomicU32 {
        let index = [
            control::SQ_TAIL,
            control::CQ_HEAD,
            control::CQ_EVENT,
            control::CQ_ARMS,
            control::SQ_HEAD,
            control::SQ_EVENT,
            control::STATE,
        ]
        .iter()
        .position(|offset| *offset == word)
        .expect("a word of the control block");
        &self.words[index]
    }

    fn release_unless(&self, flaw: Flaw) -> Ordering {
        if self.flaw == flaw {
            Ordering::Relaxed
        } else {
            Ordering::Release
        }
    }
}

impl QueueMemory for Memory {
    fn load_acquire(&self, word: usize) -> u32 {
        self.word(word).load(Ordering::Acquire)
    }
    fn store_release(&self, word: usize, value: u32) {
        self.word(word)
            .store(value, self.release_unless(Flaw::RelaxedWords));
    }
    fn full_barrier(&self) {
        if self.flaw != Flaw::NoBarrier {
            fence(Ordering::SeqCst);
        }
    }
    fn read_submission(&self, slot: u32) -> [u64; 8] {
        let [first, second] = &self.submissions[slot as usize];
        [
            first.load(Ordering::Relaxed),
            second.load(Ordering::Relaxed),
            0,
            0,
            0,
            0,
            0,
            0,
        ]
    }
    fn write_submission(&self, slot: u32, entry: &[u64; 8]) {
        let [first, second] = &self.submissions[slot as usize];
        first.store(entry[0], Ordering::Relaxed);
        second.store(entry[1], Ordering::Relaxed);
    }
    fn load_completion(&self, slot: u32) -> u64 {
        self.completions[slot as usize].load(Ordering::Acquire)
    }
    fn store_completion(&self, slot: u32, entry: u64) {
        self.completions[slot as usize].store(entry, self.release_unless(Flaw::RelaxedCompletions));
    }
}

/// An eventfd: a doorbell or an interrupt.
#[derive(Clone)]
struct Event(Arc<AtomicU32>);

impl Event {
    fn new() -> Self {
        Self(Arc::new(AtomicU32::new(0)))
    }
    fn signal(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
    fn consume(&self) {
        self.0.swap(0, Ordering::AcqRel);
    }
    fn is_pending(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }
}

fn size(entries: u32) -> RingSize {
    RingSize::new(entries).expect("a legal size")
}

/// The `number`th request of a history. Both words carry the number, so that a torn or stale entry shows.
fn request(number: u32, tag: u16) -> Submission {
    Submission {
        tag,
        segments: number as u16,
        sector: u64::from(number) + 7,
        ..Submission::ZERO
    }
}

fn explore(preemptions: usize, history: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(history);
}
