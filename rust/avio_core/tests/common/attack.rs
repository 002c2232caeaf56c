// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The device's end of a ring against a hostile driver.

use super::bytes::Bytes;
use super::Pair;
use avio_abi::ring::control::{CQ_ARMS, CQ_EVENT, CQ_HEAD, SQ_EVENT, SQ_HEAD, SQ_TAIL};
use avio_abi::ring::{Broken, Completion, Submission};
use avio_core::ring::{QueueMemory, Rest, Wanted};
use avio_core::sync::InFlight;

/// A step of a hostile history.
#[derive(Clone, Debug, PartialEq)]
pub enum Attack {
    /// Writes a control word, by its number.
    Word(u8, u32),
    /// Writes a control word, of [`NEAR`], close to where it should be.
    Near(u8, i8),
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
    /// The device counts what there is to take.
    Pending,
    /// The device begins to rest.
    Rest,
    /// The device works again.
    Work,
    /// The driver takes all completions and publishes a request with a tag that is free, as a legal one does.
    Push,
}

/// What [`Attack::Near`] writes.
pub const NEAR: [usize; 6] = [SQ_TAIL, CQ_HEAD, CQ_EVENT, CQ_ARMS, SQ_HEAD, SQ_EVENT];
/// Number of control words.
const WORDS: u8 = 32;

impl Attack {
    fn from_bytes(bytes: &mut Bytes<'_>) -> Option<Self> {
        Some(match bytes.u8()? % 11 {
            0 => Self::Word(bytes.u8()? % WORDS, bytes.u32()?),
            1 => Self::Near(bytes.u8()? % NEAR.len() as u8, bytes.u8()? as i8),
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
            6 => Self::Post(bytes.u8()?),
            7 => Self::Pending,
            8 => Self::Rest,
            9 => Self::Work,
            _ => Self::Push,
        })
    }

    /// The bytes of which [`from_bytes`](Self::from_bytes) makes this step.
    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Word(word, value) => [&[0, *word], &value.to_le_bytes()[..]].concat(),
            Self::Near(word, by) => vec![1, *word, *by as u8],
            Self::Submission(slot, entry) => {
                let words = entry.iter().flat_map(|word| word.to_le_bytes());
                [2, *slot].into_iter().chain(words).collect()
            }
            Self::Completion(slot, entry) => [&[3, *slot], &entry.to_le_bytes()[..]].concat(),
            Self::Take => vec![4],
            Self::Arm => vec![5],
            Self::Post(choice) => vec![6, *choice],
            Self::Pending => vec![7],
            Self::Rest => vec![8],
            Self::Work => vec![9],
            Self::Push => vec![10],
        }
    }
}

const ENTRIES: [u32; 3] = [2, 4, 8];

/// A history out of a fuzzer's bytes.
pub fn fuzz_ring(data: &[u8]) -> Option<Broken> {
    let mut bytes = Bytes(data);
    let (entries, start) = (bytes.one_of(&ENTRIES)?, bytes.u32()?);
    let attacks: Vec<_> = std::iter::from_fn(|| Attack::from_bytes(&mut bytes)).collect();
    survive(entries, start, &attacks)
}

/// The bytes of which [`fuzz_ring`] makes this history.
pub fn ring_bytes(entries: u32, start: u32, attacks: &[Attack]) -> Vec<u8> {
    let size = ENTRIES.iter().position(|legal| *legal == entries);
    let mut data = vec![size.expect("one of the sizes") as u8];
    data.extend(start.to_le_bytes());
    data.extend(attacks.iter().flat_map(Attack::to_bytes));
    data
}

/// Runs the device against a hostile driver, up to the reason for which it gives up.
pub fn survive(entries: u32, start: u32, attacks: &[Attack]) -> Option<Broken> {
    let mut device = Device::new(entries, start);
    for attack in attacks {
        if let Err(reason) = device.meet(attack) {
            return Some(reason);
        }
        device.is_sound();
    }
    None
}

/// The device as `avio_host` is one, without what carries out requests.
struct Device {
    entries: u32,
    pair: Pair,
    rest: Rest,
    tags: Vec<InFlight>,
    in_flight: Vec<Submission>,
}

impl Device {
    fn new(entries: u32, start: u32) -> Self {
        let device = Self {
            entries,
            pair: Pair::at(entries, start),
            rest: Rest::new(),
            tags: (0..entries).map(|_| InFlight::new()).collect(),
            in_flight: Vec::new(),
        };
        // So that who publishes entries without writing them does not fail at the tags of them.
        for slot in 0..entries {
            device.write_request(slot, slot as u16);
        }
        device
    }

    fn write_request(&self, slot: u32, tag: u16) {
        let mut entry = [0; 8];
        entry[0] = u64::from(tag) << 16;
        self.pair.memory.write_submission(slot, &entry);
    }

    /// One step. An error is the end of the queue.
    fn meet(&mut self, attack: &Attack) -> Result<(), Broken> {
        let Pair {
            memory, take, post, ..
        } = &mut self.pair;
        match *attack {
            Attack::Word(word, value) => {
                memory.store_release(usize::from(word % WORDS) * 4, value);
            }
            Attack::Near(word, by) => {
                let word = NEAR[usize::from(word) % NEAR.len()];
                let base = match word {
                    SQ_TAIL => take.position(),
                    _ => post.posted(),
                };
                memory.store_release(word, base.wrapping_add_signed(by.into()));
            }
            Attack::Submission(slot, entry) => {
                memory.write_submission(u32::from(slot) % self.entries, &entry);
            }
            Attack::Completion(slot, entry) => {
                memory.store_completion(u32::from(slot) % self.entries, entry);
            }
            Attack::Take => self.take()?,
            Attack::Arm => {
                take.arm(memory)?;
                assert_eq!(memory.load_acquire(SQ_EVENT), take.position());
            }
            Attack::Post(_) if self.in_flight.is_empty() => {}
            Attack::Post(choice) => self.post(choice),
            Attack::Pending => {
                let pending = take.pending(memory)?;
                assert!(pending <= self.entries, "more to take than the ring holds");
            }
            Attack::Rest => self.begin_rest(),
            Attack::Work => self.rest.end(),
            Attack::Push => self.push(),
        }
        Ok(())
    }

    fn take(&mut self) -> Result<(), Broken> {
        let Pair {
            memory, take, post, ..
        } = &mut self.pair;
        let Some(entry) = take.take(memory, || post.posted())? else {
            return Ok(());
        };
        let tag = self.tags.get(usize::from(entry.tag));
        if !tag.ok_or(Broken::TagRange)?.claim(entry.lun) {
            return Err(Broken::TagInFlight);
        }
        self.in_flight.push(entry);
        Ok(())
    }

    fn post(&mut self, choice: u8) {
        let index = usize::from(choice) % self.in_flight.len();
        let entry = self.in_flight.swap_remove(index);
        self.tags[usize::from(entry.tag)].release();
        let Pair { memory, post, .. } = &self.pair;
        let slot = post.posted() & (self.entries - 1);
        let completion = Completion {
            tag: entry.tag,
            status: 0,
            bytes: 1,
        };
        let wanted = post.post(memory, completion);
        let written = Completion::decode(memory.load_completion(slot)).0;
        assert_eq!(
            written, completion,
            "whatever lay there, the completion is whole"
        );
        match wanted {
            Wanted::Now => assert!(!Rest::new().begin(memory, post), "one interrupt is enough"),
            Wanted::Later if self.rest.is_resting() => self.begin_rest(),
            Wanted::Later | Wanted::Never => {}
        }
    }

    fn begin_rest(&self) {
        let Pair { memory, post, .. } = &self.pair;
        if self.rest.begin(memory, post) {
            assert!(!self.rest.begin(memory, post), "one interrupt is enough");
        }
        assert!(self.rest.is_resting());
    }

    fn push(&self) {
        let Pair {
            memory, take, post, ..
        } = &self.pair;
        let (head, tail) = (take.position(), memory.load_acquire(SQ_TAIL));
        let ahead = tail.wrapping_sub(head);
        if ahead > self.entries {
            return;
        }
        let slot = |position: u32| position & (self.entries - 1);
        let published = (0..ahead).map(|more| slot(head.wrapping_add(more)));
        let tag_in = |slot: u32| (memory.read_submission(slot)[0] >> 16) as u16;
        let mut used: Vec<_> = published.map(tag_in).collect();
        used.extend(self.in_flight.iter().map(|entry| entry.tag));
        let Some(tag) = (0..self.entries as u16).find(|tag| !used.contains(tag)) else {
            return;
        };
        memory.store_release(CQ_HEAD, post.posted());
        self.write_request(slot(tail), tag);
        memory.store_release(SQ_TAIL, tail.wrapping_add(1));
    }

    /// What holds after each step.
    fn is_sound(&self) {
        let Pair { take, post, .. } = &self.pair;
        let requests = self.in_flight.len();
        assert!(
            requests <= self.entries as usize,
            "more in flight than the ring is long"
        );
        let unanswered = take.position().wrapping_sub(post.posted());
        assert_eq!(unanswered as usize, requests);
    }
}
