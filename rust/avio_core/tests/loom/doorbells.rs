// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Section 5.2: no doorbell is lost.

use super::{explore, request, size, Event, Flaw, Memory};
use avio_core::ring::{SubmissionReader, SubmissionWriter};
use loom::sync::Arc;
use loom::thread;

/// Two requests, published one by one, while the device drains the ring, arms and goes to sleep.
pub(super) fn doorbell(flaw: Flaw) {
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
