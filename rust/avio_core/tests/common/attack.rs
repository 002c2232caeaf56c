// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The device's end of a ring against a hostile driver.

use super::bytes::Bytes;
use super::Pair;
use avio_abi::ring::control::{CQ_EVENT, CQ_HEAD, SQ_EVENT, SQ_HEAD, SQ_TAIL};
use avio_abi::ring::{Broken, Completion};
use avio_core::ring::QueueMemory;

/// A step of a hostile history.
#[derive(Clone, Debug)]
pub enum Attack {
    /// Writes a control word.
    Word(usize, u32),
    /// Writes a control word, of [`NEAR`], close to where it should be.
    Near(usize, i8),
    /// Writes a submission entry.
    Submission(u8, [u64; 8]),
    /// Writes a completion entry.
    Completion(u8, u64),
    /// The device goes on.
    Take,
    /// The device is about to sleep.
    Arm,
    /// The device ends one of the requests that it has.
    Post(u8),
}

/// What [`Attack::Near`] writes.
pub const NEAR: [usize; 5] = [SQ_TAIL, CQ_HEAD, CQ_EVENT, SQ_HEAD, SQ_EVENT];

impl Attack {
    fn from_bytes(bytes: &mut Bytes<'_>) -> Option<Self> {
        Some(match bytes.u8()? % 7 {
            0 => Self::Word(usize::from(bytes.u8()? % 32) * 4, bytes.u32()?),
            1 => Self::Near(usize::from(bytes.u8()?) % NEAR.len(), bytes.u8()? as i8),
            2 => {
                let mut entry = [0; 8];
                let slot = bytes.u8()?;
                for word in &mut entry {
                    *word = bytes.u64()?;
                }
                Self::Submission(slot, entry)
            }
            3 => Self::Completion(bytes.u8()?, bytes.u64()?),
            4 => Self::Take,
            5 => Self::Arm,
            _ => Self::Post(bytes.u8()?),
        })
    }
}

/// A history out of a fuzzer's bytes.
pub fn fuzz_ring(data: &[u8]) -> Option<Broken> {
    let mut bytes = Bytes(data);
    let (entries, start) = (bytes.one_of(&[2, 4, 8])?, bytes.u32()?);
    let attacks: Vec<_> = std::iter::from_fn(|| Attack::from_bytes(&mut bytes)).collect();
    survive(entries, start, &attacks)
}

/// Runs the device against a hostile driver, up to the reason for which it gives up.
pub fn survive(entries: u32, start: u32, attacks: &[Attack]) -> Option<Broken> {
    let mut pair = Pair::at(entries, start);
    let mut in_flight = Vec::new();
    for attack in attacks {
        let Pair {
            memory, take, post, ..
        } = &mut pair;
        match attack {
            Attack::Word(word, value) => memory.store_release(*word, *value),
            Attack::Near(word, by) => {
                let word = NEAR[*word];
                let base = if word == SQ_TAIL {
                    take.position()
                } else {
                    post.posted()
                };
                memory.store_release(word, base.wrapping_add_signed((*by).into()));
            }
            Attack::Submission(slot, entry) => {
                memory.write_submission(u32::from(*slot) % entries, entry)
            }
            Attack::Completion(slot, entry) => {
                memory.store_completion(u32::from(*slot) % entries, *entry)
            }
            Attack::Take => match take.take(memory, || post.posted()) {
                Ok(entry) => in_flight.extend(entry),
                Err(reason) => return Some(reason),
            },
            Attack::Arm => {
                if let Err(reason) = take.arm(memory) {
                    return Some(reason);
                }
            }
            Attack::Post(_) if in_flight.is_empty() => {}
            Attack::Post(choice) => {
                let tag = in_flight
                    .swap_remove(usize::from(*choice) % in_flight.len())
                    .tag;
                let slot = post.posted() & (entries - 1);
                let completion = Completion {
                    tag,
                    status: 0,
                    bytes: 1,
                };
                post.post(memory, completion);
                let written = Completion::decode(memory.load_completion(slot)).0;
                assert_eq!(
                    written, completion,
                    "whatever lay there, the completion is whole"
                );
            }
        }
        let requests = in_flight.len();
        assert!(
            requests <= entries as usize,
            "more in flight than the ring is long"
        );
        assert_eq!(
            take.position().wrapping_sub(post.posted()) as usize,
            requests
        );
    }
    None
}
