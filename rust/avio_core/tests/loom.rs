// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Proofs of the queue pair's ordering rules: Loom runs the legal interleavings and reorderings of small histories, each with
//! at most so many preemptions as it says; among those, all.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p avio_core --test loom`; an ordinary build leaves this file empty.
//! Names of tests give the section of `docs/abi.md` that they prove. Each rule is also broken on purpose, by a
//! [`Flaw`] of the memory, and Loom must find the history in which that matters: so the proofs are known to look.

#![cfg(loom)]

use avio_abi::ring::{control, Completion, Submission};
use avio_abi::wire::Wire;
use avio_core::ring::{
    CompletionReader, CompletionWriter, QueueMemory, Rest, RingSize, SubmissionReader,
    SubmissionWriter, Wanted,
};
use avio_core::sync::InFlight;
use loom::sync::atomic::{fence, AtomicU32, AtomicU64, Ordering};
use loom::sync::Arc;
use loom::thread;

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

/// Two requests, published one by one, while the device drains the ring, arms and goes to sleep.
fn doorbell(flaw: Flaw) {
    explore(5, move || {
        let size = size(2);
        let memory = Arc::new(Memory::new(size, flaw));
        let kick = Event::new();
        let driver = {
            let (memory, kick) = (memory.clone(), kick.clone());
            thread::spawn(move || {
                let mut ring = SubmissionWriter::new(size);
                for number in 0..2 {
                    ring.push(&*memory, &request(number, number as u16));
                    if ring.publish(&*memory) {
                        kick.signal();
                    }
                }
            })
        };

        let mut ring = SubmissionReader::new(size);
        kick.consume();
        loop {
            while let Some(entry) = ring.take(&*memory, || 0).expect("a legal driver") {
                let number = ring.position() - 1;
                assert_eq!(entry, request(number, number as u16));
            }
            if !ring.arm(&*memory).expect("a legal driver") {
                break;
            }
        }
        driver.join().unwrap();
        assert!(
            ring.position() == 2 || kick.is_pending(),
            "the device sleeps on a request"
        );
    });
}

#[test]
fn abi_5_2_no_doorbell_is_lost() {
    doorbell(Flaw::None);
}

#[test]
#[should_panic(expected = "the device sleeps on a request")]
fn abi_5_2_without_the_full_barrier_a_doorbell_is_lost() {
    doorbell(Flaw::NoBarrier);
}

#[test]
#[should_panic]
fn abi_5_1_without_release_of_the_tail_a_stale_entry_is_seen() {
    doorbell(Flaw::RelaxedWords);
}

/// Two requests end at once, in two contexts, while the driver takes, arms and goes to sleep. `coalesce`: it asks for
/// an interrupt with the last of the two only.
fn interrupt(flaw: Flaw, coalesce: bool) {
    explore(4, move || {
        let size = size(2);
        let memory = Arc::new(Memory::new(size, flaw));
        let call = Event::new();
        let writer = Arc::new(CompletionWriter::new(size));
        let completers = [0, 1].map(|tag| {
            let (memory, call, writer) = (memory.clone(), call.clone(), writer.clone());
            thread::spawn(move || {
                let done = Completion {
                    tag,
                    status: 0,
                    bytes: 512,
                };
                if writer.post(&*memory, done) == Wanted::Now {
                    call.signal();
                }
            })
        });

        let mut ring = CompletionReader::new(size);
        let mut left = 2;
        call.consume();
        loop {
            while let Some(completion) = ring.take(&*memory) {
                assert_eq!(completion.bytes, 512);
                left -= 1;
            }
            let after = if coalesce && left > 0 { left - 1 } else { 0 };
            if left == 0 || !ring.arm(&*memory, after) {
                break;
            }
        }
        for completer in completers {
            completer.join().unwrap();
        }
        assert!(
            left == 0 || call.is_pending(),
            "the driver sleeps on a completion"
        );
    });
}

#[test]
fn abi_5_3_no_interrupt_is_lost() {
    interrupt(Flaw::None, false);
}

#[test]
fn abi_5_4_no_interrupt_is_lost_when_coalescing() {
    interrupt(Flaw::None, true);
}

#[test]
#[should_panic(expected = "the driver sleeps on a completion")]
fn abi_5_3_without_the_full_barrier_an_interrupt_is_lost() {
    interrupt(Flaw::NoBarrier, false);
}

#[test]
#[should_panic(expected = "the driver sleeps on a completion")]
fn abi_5_4_without_the_full_barrier_an_interrupt_is_lost_when_coalescing() {
    interrupt(Flaw::NoBarrier, true);
}

/// A request ends in a context of its own while the worker goes to rest, so many times, and the driver, which has asked for
/// an interrupt much later, goes to sleep. `quiet`: it has asked for none when it sent the request.
fn rest(flaw: Flaw, times: u32, ahead: u32, quiet: bool) {
    // Longer histories have many more orders.
    explore(if times == 1 { 4 } else { 3 }, move || {
        let size = size(2);
        let memory = Arc::new(Memory::new(size, flaw));
        let (call, wake) = (Event::new(), Event::new());
        let writer = Arc::new(CompletionWriter::new(size));
        let rest = Arc::new(Rest::new());
        let mut ring = CompletionReader::new(size);
        if quiet {
            ring.disarm(&*memory);
        }
        let completer = {
            let (memory, call, wake) = (memory.clone(), call.clone(), wake.clone());
            let (writer, rest) = (writer.clone(), rest.clone());
            thread::spawn(move || {
                let done = Completion {
                    tag: 0,
                    status: 0,
                    bytes: 512,
                };
                match writer.post(&*memory, done) {
                    Wanted::Now => call.signal(),
                    Wanted::Later if rest.is_resting() => wake.signal(),
                    _ => {}
                }
            })
        };
        let worker = {
            let (memory, call, writer) = (memory.clone(), call.clone(), writer.clone());
            thread::spawn(move || {
                for _ in 0..times {
                    rest.end();
                    if rest.begin(&*memory, &writer) {
                        call.signal();
                    }
                }
            })
        };

        let mut taken = ring.take(&*memory).is_some();
        while !taken && ring.arm_ahead(&*memory, ahead) {
            taken = ring.take(&*memory).is_some();
        }
        completer.join().unwrap();
        worker.join().unwrap();
        assert!(
            taken || call.is_pending() || wake.is_pending(),
            "the driver sleeps on a completion"
        );
    });
}

#[test]
fn abi_5_6_no_completion_is_left_when_the_device_rests() {
    rest(Flaw::None, 1, 1, false);
}

#[test]
fn abi_5_6_nor_when_it_has_rested_while_it_polled() {
    rest(Flaw::None, 2, 1, false);
}

#[test]
fn abi_5_6_nor_when_the_driver_asks_as_far_ahead_as_it_may() {
    rest(Flaw::None, 1, 2, false);
}

#[test]
fn abi_5_6_nor_when_it_asks_further() {
    rest(Flaw::None, 1, 32, false);
}

#[test]
fn abi_5_6_nor_when_the_driver_has_asked_for_no_interrupt_before() {
    rest(Flaw::None, 1, 1, true);
}

#[test]
#[should_panic(expected = "the driver sleeps on a completion")]
fn abi_5_6_without_the_full_barrier_a_completion_is_left() {
    rest(Flaw::NoBarrier, 1, 1, false);
}

#[test]
#[should_panic(expected = "the driver sleeps on a completion")]
fn abi_5_6_without_the_full_barrier_it_is_left_then_too() {
    rest(Flaw::NoBarrier, 1, 1, true);
}

/// Two requests end in contexts of their own, so that their entries become visible in any order, while the worker goes
/// to rest and the driver handles interrupts and goes back to sleep. `quiet`: it asks for none whenever it looks.
fn handles(quiet: bool) {
    explore(3, move || {
        let size = size(2);
        let memory = Arc::new(Memory::new(size, Flaw::None));
        let (call, wake) = (Event::new(), Event::new());
        let writer = Arc::new(CompletionWriter::new(size));
        let rest = Arc::new(Rest::new());
        let completers = [0, 1].map(|tag| {
            let (memory, call, wake) = (memory.clone(), call.clone(), wake.clone());
            let (writer, rest) = (writer.clone(), rest.clone());
            thread::spawn(move || {
                let done = Completion {
                    tag,
                    status: 0,
                    bytes: 512,
                };
                match writer.post(&*memory, done) {
                    Wanted::Now => call.signal(),
                    Wanted::Later if rest.is_resting() => wake.signal(),
                    _ => {}
                }
            })
        });

        let mut ring = CompletionReader::new(size);
        let mut left = 2;
        let mut interrupts = 0;
        loop {
            if quiet {
                ring.disarm(&*memory);
            }
            while ring.take(&*memory).is_some() {
                left -= 1;
            }
            if left == 0 {
                break;
            }
            if !ring.arm_ahead(&*memory, 1) {
                // An interrupt that has come is handled; another is waited for.
                if interrupts == 2 || !call.is_pending() {
                    break;
                }
                call.consume();
                interrupts += 1;
            }
        }
        for completer in completers {
            completer.join().unwrap();
        }
        if wake.is_pending() {
            rest.end();
            if rest.begin(&*memory, &writer) {
                call.signal();
            }
        }
        assert!(
            left == 0 || call.is_pending(),
            "the driver sleeps on a completion"
        );
    });
}

#[test]
fn abi_5_6_an_interrupt_that_finds_nothing_is_not_the_last() {
    handles(false);
}

#[test]
fn abi_5_6_nor_is_one_behind_a_time_without() {
    handles(true);
}

/// More requests than the ring is long, each answered at once: every slot is used again, on both rings.
fn rounds(flaw: Flaw, requests: u32, preemptions: usize) {
    explore(preemptions, move || {
        let size = size(2);
        let memory = Arc::new(Memory::new(size, flaw));
        let device = {
            let memory = memory.clone();
            thread::spawn(move || {
                let mut ring = SubmissionReader::new(size);
                let writer = CompletionWriter::new(size);
                let tags = [InFlight::new(), InFlight::new()];
                while ring.position() != requests {
                    let number = ring.position();
                    let Some(entry) = ring
                        .take(&*memory, || writer.posted())
                        .expect("a legal driver")
                    else {
                        thread::yield_now();
                        continue;
                    };
                    assert_eq!(
                        entry,
                        request(number, (number % 2) as u16),
                        "a torn or stale entry"
                    );
                    let tag = &tags[usize::from(entry.tag)];
                    assert!(tag.claim(0), "a tag that the driver was given back");
                    tag.release();
                    writer.post(
                        &*memory,
                        Completion {
                            tag: entry.tag,
                            status: 0,
                            bytes: number,
                        },
                    );
                }
            })
        };

        let mut submissions = SubmissionWriter::new(size);
        let mut completions = CompletionReader::new(size);
        let (mut sent, mut done) = (0, 0);
        while done != requests {
            while sent != requests && sent - done < 2 {
                submissions.push(&*memory, &request(sent, (sent % 2) as u16));
                let _ = submissions.publish(&*memory);
                sent += 1;
            }
            match completions.take(&*memory) {
                Some(completion) => {
                    assert_eq!(
                        (completion.tag, completion.bytes),
                        ((done % 2) as u16, done),
                        "a stale completion"
                    );
                    done += 1;
                }
                None => thread::yield_now(),
            }
        }
        device.join().unwrap();
    });
}

#[test]
fn abi_5_1_entries_are_whole_when_slots_are_used_again() {
    rounds(Flaw::None, 5, 3);
}

#[test]
#[should_panic]
fn abi_5_1_without_release_a_used_slot_shows_its_old_entry() {
    rounds(Flaw::RelaxedWords, 5, 3);
}

/// Whether some history of [`reuse`] came as far as using a tag again.
static REUSED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Two requests end in interrupts of their own; the driver uses the first tag that comes back again at once, while
/// the worker takes it: the tag must be free and the completion ring must have room.
fn reuse(flaw: Flaw) {
    explore(3, move || {
        let size = size(2);
        let memory = Arc::new(Memory::new(size, flaw));
        let writer = Arc::new(CompletionWriter::new(size));
        let tags = Arc::new([InFlight::new(), InFlight::new()]);
        let mut submissions = SubmissionWriter::new(size);
        let mut device = SubmissionReader::new(size);
        for tag in [0, 1] {
            submissions.push(&*memory, &request(0, tag));
            let _ = submissions.publish(&*memory);
            assert!(device
                .take(&*memory, || 0)
                .expect("a legal driver")
                .is_some());
            assert!(tags[usize::from(tag)].claim(0));
        }

        let completers = [0, 1].map(|tag: u16| {
            let (memory, writer, tags) = (memory.clone(), writer.clone(), tags.clone());
            thread::spawn(move || {
                tags[usize::from(tag)].release();
                writer.post(
                    &*memory,
                    Completion {
                        tag,
                        status: 0,
                        bytes: 0,
                    },
                );
            })
        });
        let worker = {
            let (memory, writer, tags) = (memory.clone(), writer.clone(), tags.clone());
            thread::spawn(move || {
                // Not a loop until it comes: Loom tries every moment for these looks anyway.
                let look = |_| {
                    device
                        .take(&*memory, || writer.posted())
                        .expect("a legal driver")
                };
                let Some(entry) = (0..2).find_map(look) else {
                    return;
                };
                assert_eq!(entry.sector, request(1, 0).sector);
                assert!(
                    tags[usize::from(entry.tag)].claim(0),
                    "a tag that the driver was given back"
                );
                REUSED.store(true, std::sync::atomic::Ordering::Relaxed);
            })
        };

        let mut completions = CompletionReader::new(size);
        if let Some(completion) = (0..2).find_map(|_| completions.take(&*memory)) {
            submissions.push(&*memory, &request(1, completion.tag));
            let _ = submissions.publish(&*memory);
        }
        worker.join().unwrap();
        for completer in completers {
            completer.join().unwrap();
        }
    });
}

#[test]
fn abi_4_6_a_tag_that_came_back_can_be_used_at_once() {
    reuse(Flaw::None);
    assert!(
        REUSED.load(std::sync::atomic::Ordering::Relaxed),
        "no history came as far as using a tag again"
    );
}

#[test]
#[should_panic(expected = "CompletionIndex")]
fn abi_4_6_without_release_of_completions_the_driver_seems_ahead() {
    reuse(Flaw::RelaxedCompletions);
}
