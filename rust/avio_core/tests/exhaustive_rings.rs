// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Every case of small size: ring states against whole numbers.

#![cfg(not(loom))]

mod common;

use avio_abi::ring::{control, Broken, Completion};
use avio_core::ring::{QueueMemory, Wanted};
use common::Pair;

const DONE: Completion = Completion {
    tag: 0,
    status: 0,
    bytes: 0,
};

/// The device's own account of a ring, in whole numbers that do not wrap.
#[derive(Clone, Debug, Default)]
struct Account {
    head: i64,
    posted: i64,
    /// `SQ_TAIL` and `CQ_HEAD` as the device last believed them.
    tail: i64,
    taken: i64,
}

impl Account {
    /// What the device makes of `SQ_TAIL`: how many entries there are to take, or the violation.
    fn look(&mut self, entries: i64, tail: i64) -> Result<i64, Broken> {
        if tail < self.tail || tail - self.head > entries {
            return Err(Broken::SubmissionIndex);
        }
        self.tail = tail;
        Ok(tail - self.head)
    }

    /// What `take` must answer: whether there is an entry, or the violation.
    fn take(&mut self, entries: i64, tail: i64, taken: i64) -> Result<bool, Broken> {
        if self.head == self.tail && self.look(entries, tail)? == 0 {
            return Ok(false);
        }
        if self.head - self.taken == entries {
            if taken < self.taken || taken > self.posted {
                return Err(Broken::CompletionIndex);
            }
            self.taken = taken;
            if self.head - self.taken == entries {
                return Err(Broken::CompletionOverrun);
            }
        }
        self.head += 1;
        Ok(true)
    }
}

/// What the driver writes before the device looks once more, relative to what is legal, and how many requests end.
#[derive(Clone, Copy)]
struct Turn {
    tail: i64,
    taken: i64,
    posts: u32,
}

fn play(entries: u32, start: u32, turns: &[Turn]) {
    let mut pair = Pair::at(entries, start);
    let mut account = Account::default();
    let wrapped = |whole: i64| start.wrapping_add(whole as u32);
    for turn in turns {
        let Pair {
            memory, take, post, ..
        } = &mut pair;
        let (tail, taken) = (account.head + turn.tail, account.posted + turn.taken);
        memory.store_release(control::SQ_TAIL, wrapped(tail));
        memory.store_release(control::CQ_HEAD, wrapped(taken));
        // As often as the ring is long and once more: it must end before.
        for _ in 0..=entries {
            let expected = account.take(entries.into(), tail, taken);
            let found = take
                .take(memory, || post.posted())
                .map(|entry| entry.is_some());
            assert_eq!(found, expected, "{entries} entries from {start:#x}");
            assert_eq!(take.position(), wrapped(account.head));
            assert!(
                account.head - account.posted <= entries.into(),
                "more in flight than the ring is long"
            );
            match found {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => return,
            }
        }
        for _ in 0..turn.posts.min((account.head - account.posted) as u32) {
            post.post(memory, DONE);
            account.posted += 1;
        }
        assert_eq!(post.posted(), wrapped(account.posted));
    }
}

#[test]
fn r1_r15_every_ring_state_takes_no_more_than_the_ring() {
    for entries in [2u32, 4] {
        let whole = i64::from(entries);
        let mut turns = Vec::new();
        for tail in [-1, 0, 1, whole, whole + 1, -(1 << 31)] {
            for taken in [-whole, -1, 0, 1] {
                turns.extend([0, 1, entries].map(|posts| Turn { tail, taken, posts }));
            }
        }
        // What ends after the last turn no longer matters.
        let last: Vec<_> = turns.iter().filter(|turn| turn.posts == 0).collect();
        for start in [0, u32::MAX - entries, u32::MAX] {
            for first in &turns {
                for second in &turns {
                    for third in &last {
                        play(entries, start, &[*first, *second, **third]);
                    }
                }
            }
        }
    }
}

/// What the device does next, and what the driver has written before, relative to what the device knows.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Take { tail: i64, taken: i64 },
    Pending { tail: i64 },
    Arm { tail: i64 },
    Post { event: i64 },
}

/// All operations on a ring of so many entries.
fn operations(entries: i64) -> Vec<Operation> {
    let mut inputs: Vec<_> = (-entries - 2..=2 * entries + 2).collect();
    inputs.extend([-(1 << 31), 1 << 31]);
    let mut all = Vec::new();
    for &tail in &inputs {
        all.push(Operation::Pending { tail });
        all.push(Operation::Arm { tail });
        all.push(Operation::Post { event: tail });
        all.extend(inputs.iter().map(|&taken| Operation::Take { tail, taken }));
    }
    all
}

/// A ring together with what must be true of it.
struct Watched {
    entries: u32,
    start: u32,
    pair: Pair,
    account: Account,
}

impl Watched {
    /// A ring from which `unanswered` + `untaken` requests were taken, `untaken` of which are answered, without that the
    /// driver has taken a completion; and `ahead` more are known to be published.
    fn new(entries: u32, start: u32, ahead: i64, unanswered: i64, untaken: i64) -> Self {
        let mut ring = Self {
            entries,
            start,
            pair: Pair::at(entries, start),
            account: Account::default(),
        };
        for slot in 0..entries {
            let entry = [u64::from(slot) << 16, 0, 0, 0, 0, 0, 0, 0];
            ring.pair.memory.write_submission(slot, &entry);
        }
        for _ in 0..unanswered + untaken {
            assert!(ring.operate(Operation::Take { tail: 1, taken: 0 }));
        }
        for _ in 0..untaken {
            assert!(ring.operate(Operation::Post { event: 0 }));
        }
        assert!(ring.operate(Operation::Pending { tail: ahead }));
        ring
    }

    fn wrapped(&self, whole: i64) -> u32 {
        self.start.wrapping_add(whole as u32)
    }

    /// One operation, which must do what the specification says; whether the ring can be used further.
    fn operate(&mut self, operation: Operation) -> bool {
        let goes_on = match operation {
            Operation::Take { tail, taken } => self.take(tail, taken),
            Operation::Pending { tail } => {
                let tail = self.write_tail(tail);
                let expected = self.account.look(self.entries.into(), tail);
                let found = self.pair.take.pending(&self.pair.memory).map(i64::from);
                assert_eq!(found, expected);
                found.is_ok()
            }
            Operation::Arm { tail } => {
                let tail = self.write_tail(tail);
                let expected = self.account.look(self.entries.into(), tail).map(|n| n > 0);
                let found = self.pair.take.arm(&self.pair.memory);
                assert_eq!(found, expected);
                let event = self.pair.memory.load_acquire(control::SQ_EVENT);
                assert_eq!(event, self.wrapped(self.account.head));
                found.is_ok()
            }
            Operation::Post { event } => self.post(event),
        };
        assert_eq!(self.pair.take.position(), self.wrapped(self.account.head));
        assert_eq!(self.pair.post.posted(), self.wrapped(self.account.posted));
        let in_flight = self.account.head - self.account.posted;
        assert!((0..=i64::from(self.entries)).contains(&in_flight));
        goes_on
    }

    fn write_tail(&mut self, tail: i64) -> i64 {
        let tail = self.account.head + tail;
        let memory = &self.pair.memory;
        memory.store_release(control::SQ_TAIL, self.wrapped(tail));
        tail
    }

    fn take(&mut self, tail: i64, taken: i64) -> bool {
        let tail = self.write_tail(tail);
        let taken = self.account.taken + taken;
        let (head, wrapped) = (self.wrapped(self.account.head), self.wrapped(taken));
        let Pair {
            memory, take, post, ..
        } = &mut self.pair;
        memory.store_release(control::CQ_HEAD, wrapped);
        let expected = self.account.take(self.entries.into(), tail, taken);
        let found = take.take(memory, || post.posted());
        if let Ok(Some(entry)) = found {
            assert_eq!(u32::from(entry.tag), head % self.entries, "another slot");
        }
        assert_eq!(found.map(|entry| entry.is_some()), expected);
        found.is_ok()
    }

    /// Nothing, if there is no request to answer.
    fn post(&mut self, event: i64) -> bool {
        if self.account.head == self.account.posted {
            return true;
        }
        let position = self.wrapped(self.account.posted);
        let Pair { memory, post, .. } = &self.pair;
        let asked = position.wrapping_add(event as u32);
        memory.store_release(control::CQ_EVENT, asked);
        let before = memory.completions.borrow().clone();
        let expected = match event {
            0 => Wanted::Now,
            _ if (1..=i64::from(self.entries)).contains(&event) => Wanted::Later,
            _ => Wanted::Never,
        };
        assert_eq!(post.post(memory, DONE), expected);
        let after = memory.completions.borrow();
        for slot in 0..self.entries {
            let changed = before[slot as usize] != after[slot as usize];
            assert_eq!(changed, slot == position % self.entries, "slot {slot}");
        }
        drop(after);
        self.account.posted += 1;
        true
    }
}

/// Every state of a ring of so many entries, `then` in each.
fn every_state(entries: u32, starts: &[u32], then: impl Fn(&dyn Fn() -> Watched)) {
    let whole = i64::from(entries);
    for &start in starts {
        for ahead in 0..=whole {
            for unanswered in 0..=whole {
                for untaken in 0..=whole - unanswered {
                    then(&|| Watched::new(entries, start, ahead, unanswered, untaken));
                }
            }
        }
    }
}

#[test]
fn r1_r15_every_operation_in_every_state_does_what_is_specified() {
    for entries in [2u32, 4] {
        let starts = [0, u32::MAX - entries, u32::MAX, (1 << 31) - 2];
        every_state(entries, &starts, |state| {
            for operation in operations(entries.into()) {
                state().operate(operation);
            }
        });
    }
}

#[test]
fn r1_r15_every_two_operations_in_every_state_of_the_smallest_ring_do_what_is_specified() {
    let all = operations(2);
    every_state(2, &[u32::MAX - 1], |state| {
        for &first in &all {
            if !state().operate(first) {
                continue;
            }
            for &second in &all {
                let mut ring = state();
                ring.operate(first);
                ring.operate(second);
            }
        }
    });
}
