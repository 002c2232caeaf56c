// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Section 4.6: a tag can be used again as soon as it came back.

use super::{explore, request, size, Flaw, Memory};
use avio_abi::ring::Completion;
use avio_core::ring::{CompletionReader, CompletionWriter, SubmissionReader, SubmissionWriter};
use avio_core::sync::InFlight;
use loom::sync::Arc;
use loom::thread;

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
