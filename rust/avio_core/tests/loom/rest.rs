// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Section 5.6: no completion is left when the device rests.

use super::{explore, size, Event, Flaw, Memory};
use avio_abi::ring::Completion;
use avio_core::ring::{CompletionReader, CompletionWriter, Rest, Wanted};
use loom::sync::Arc;
use loom::thread::{self, JoinHandle};

/// A request ends in a context of its own: the driver is interrupted, or a worker that rests is woken.
fn ends(
    tag: u16,
    memory: &Arc<Memory>,
    writer: &Arc<CompletionWriter>,
    rest: &Arc<Rest>,
    [call, wake]: [&Event; 2],
) -> JoinHandle<()> {
    let (memory, writer, rest) = (memory.clone(), writer.clone(), rest.clone());
    let (call, wake) = (call.clone(), wake.clone());
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
        let completer = ends(0, &memory, &writer, &rest, [&call, &wake]);
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
        let completers = [0, 1].map(|tag| ends(tag, &memory, &writer, &rest, [&call, &wake]));

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
