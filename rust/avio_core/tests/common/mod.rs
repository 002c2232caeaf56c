// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A queue pair in plain memory, for tests of one thread, and what several tests do with it.

#![allow(dead_code)] // Not every test uses all of it.

pub mod accept;
pub mod attack;
pub mod bytes;
pub mod case;
pub mod legal;
pub mod random;

use avio_abi::ring::{control, Completion};
use avio_core::ring::{
    CompletionReader, CompletionWriter, QueueMemory, RingSize, SubmissionReader, SubmissionWriter,
};
use std::cell::{Cell, RefCell};

/// Plain memory.
pub struct Plain {
    pub words: [Cell<u32>; 32],
    pub submissions: RefCell<Vec<[u64; 8]>>,
    pub completions: RefCell<Vec<u64>>,
}

impl Plain {
    /// The memory of an idle queue pair after as many requests as `position`.
    pub fn at(size: RingSize, position: u32) -> Self {
        let memory = Self {
            words: Default::default(),
            submissions: RefCell::new(vec![[0; 8]; size.entries() as usize]),
            completions: RefCell::new(vec![0; size.entries() as usize]),
        };
        for word in [
            control::SQ_TAIL,
            control::CQ_HEAD,
            control::CQ_EVENT,
            control::SQ_HEAD,
            control::SQ_EVENT,
        ] {
            memory.store_release(word, position);
        }
        for ago in 1..=size.entries() {
            let old = position.wrapping_sub(ago);
            let entry = Completion {
                tag: 0,
                status: 0,
                bytes: 0,
            }
            .encode(size.phase(old));
            memory.store_completion(size.slot(old), entry);
        }
        memory
    }
}

impl QueueMemory for Plain {
    fn load_acquire(&self, word: usize) -> u32 {
        self.words[word / 4].get()
    }
    fn store_release(&self, word: usize, value: u32) {
        self.words[word / 4].set(value);
    }
    fn full_barrier(&self) {}
    fn read_submission(&self, slot: u32) -> [u64; 8] {
        self.submissions.borrow()[slot as usize]
    }
    fn write_submission(&self, slot: u32, entry: &[u64; 8]) {
        self.submissions.borrow_mut()[slot as usize] = *entry;
    }
    fn load_completion(&self, slot: u32) -> u64 {
        self.completions.borrow()[slot as usize]
    }
    fn store_completion(&self, slot: u32, entry: u64) {
        self.completions.borrow_mut()[slot as usize] = entry;
    }
}

/// Both ends of a queue pair.
pub struct Pair {
    pub memory: Plain,
    pub submit: SubmissionWriter,
    pub collect: CompletionReader,
    pub take: SubmissionReader,
    pub post: CompletionWriter,
}

impl Pair {
    /// An idle pair after as many requests as `position`.
    pub fn at(entries: u32, position: u32) -> Self {
        let size = RingSize::new(entries).expect("a legal size");
        Self {
            memory: Plain::at(size, position),
            submit: SubmissionWriter::at(size, position),
            collect: CompletionReader::at(size, position),
            take: SubmissionReader::at(size, position),
            post: CompletionWriter::at(size, position),
        }
    }
}
