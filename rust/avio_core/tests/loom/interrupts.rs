// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Sections 5.3 and 5.4: no interrupt is lost.

use super::{explore, size, Event, Flaw, Memory};
use avio_abi::ring::Completion;
use avio_core::ring::{CompletionReader, CompletionWriter, Wanted};
use loom::sync::Arc;
use loom::thread;

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
