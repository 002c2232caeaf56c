// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Section 5.1: entries are whole and new when the other side sees them.

use super::doorbells::doorbell;
use super::{explore, request, size, Flaw, Memory};
use avio_abi::ring::Completion;
use avio_core::ring::{CompletionReader, CompletionWriter, SubmissionReader, SubmissionWriter};
use avio_core::sync::InFlight;
use loom::sync::Arc;
use loom::thread;

#[test]
#[should_panic]
fn abi_5_1_without_release_of_the_tail_a_stale_entry_is_seen() {
    doorbell(Flaw::RelaxedWords);
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
