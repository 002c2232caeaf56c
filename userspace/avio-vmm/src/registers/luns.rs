// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The LUNs in the register window: their descriptions, which change, and which of them the driver uses.

use std::cell::Cell;

use avio_abi::pci::{reg, BAR_SIZE};
use avio_abi::stor::LunInfo;
use avio_abi::wire::Wire;
use avio_abi::MAX_LUNS;

const INFO_SIZE: usize = <LunInfo as Wire>::SIZE;
const _: () = assert!(reg::LUN_INFO + MAX_LUNS as u64 * INFO_SIZE as u64 <= BAR_SIZE);

/// A slot for each LUN number.
pub struct Luns {
    slots: Vec<Slot>,
    generation: u32,
}

#[derive(Clone, Default)]
struct Slot {
    info: LunInfo,
    /// Goes on counting while there is no LUN, so that the next one differs from the last.
    changes: u32,
    /// The LUN is gone, and the guest has not looked since.
    unseen_end: Cell<bool>,
}

impl Luns {
    /// No LUNs.
    pub fn new() -> Self {
        Self {
            slots: vec![Slot::default(); MAX_LUNS as usize],
            generation: 0,
        }
    }

    /// Counts the changes of all descriptions.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The description of a LUN; all zero if there is none.
    pub fn get(&self, lun: u32) -> LunInfo {
        self.slots
            .get(lun as usize)
            .map_or(LunInfo::default(), |slot| slot.info)
    }

    /// Replaces a description, all zero for none. Whether it is another one; `changes` is ours to count and does not
    /// make a difference.
    pub fn set(&mut self, lun: u32, info: LunInfo) -> bool {
        let Some(slot) = self.slots.get_mut(lun as usize) else {
            return false;
        };
        let changes = slot.info.changes;
        if (LunInfo { changes, ..info }) == slot.info {
            return false;
        }
        slot.changes = slot.changes.wrapping_add(1);
        slot.unseen_end.set(info.flags == 0);
        slot.info = info;
        if info.flags != 0 {
            slot.info.changes = slot.changes;
        }
        self.generation = self.generation.wrapping_add(1);
        true
    }

    /// Whether there ever was such a LUN.
    pub fn was_there(&self, lun: u32) -> bool {
        let slot = self.slots.get(lun as usize);
        slot.is_some_and(|slot| slot.changes != 0)
    }

    /// Whether there is no LUN any more and the guest has not seen that yet.
    pub fn end_is_unseen(&self, lun: u32) -> bool {
        let slot = self.slots.get(lun as usize);
        slot.is_some_and(|slot| slot.unseen_end.get())
    }

    /// Reads a word of the descriptions.
    pub fn read(&self, offset: u64) -> u32 {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let Some(slot) = self.slots.get(at / INFO_SIZE) else {
            return 0;
        };
        slot.unseen_end.set(false);
        let bytes = slot.info.to_bytes();
        let word = bytes
            .get(at % INFO_SIZE..)
            .and_then(|rest| rest.first_chunk());
        word.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }
}

/// The bits of LUNS_IN_USE.
#[derive(Default)]
pub struct InUse([u32; MAX_LUNS as usize / 32]);

impl InUse {
    /// The word at an offset.
    pub fn word(&self, offset: u64) -> u32 {
        let index = usize::try_from(offset / 4).unwrap_or(usize::MAX);
        self.0.get(index).copied().unwrap_or(0)
    }

    /// Sets the word at an offset.
    pub fn set_word(&mut self, offset: u64, value: u32) {
        let index = usize::try_from(offset / 4).unwrap_or(usize::MAX);
        if let Some(word) = self.0.get_mut(index) {
            *word = value;
        }
    }

    /// Whether a LUN's bit is set.
    pub fn has(&self, lun: u32) -> bool {
        self.word(u64::from(lun / 32 * 4)) >> (lun % 32) & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(sectors: u64) -> LunInfo {
        LunInfo {
            flags: 1,
            logical_block: 512,
            sectors,
            ..LunInfo::default()
        }
    }

    #[test]
    fn luns_are_in_the_window() {
        let mut luns = Luns::new();
        luns.set(1, disk(0x1_2345_6789));
        assert_eq!(luns.read(0), 0);
        assert_eq!(luns.read(128), 1);
        assert_eq!(luns.read(128 + 4), 512);
        assert_eq!(luns.read(128 + 8), 0x2345_6789);
        assert_eq!(luns.read(128 + 12), 1);
        assert_eq!(luns.read(256 * 128 - 4), 0);
        assert_eq!(luns.read(256 * 128), 0, "past the last LUN");
        assert_eq!(luns.read(!3), 0);
    }

    #[test]
    fn every_change_counts_and_nothing_else() {
        let mut luns = Luns::new();
        assert!(!luns.set(3, LunInfo::default()), "there was none");
        assert!(luns.set(3, disk(8)));
        assert!(!luns.set(3, disk(8)));
        assert_eq!((luns.generation(), luns.get(3).changes), (1, 1));
        assert!(luns.set(3, disk(16)));
        assert_eq!((luns.generation(), luns.get(3).changes), (2, 2));
        assert!(!luns.set(256, disk(8)));
    }

    #[test]
    fn the_end_of_a_lun_is_unseen_until_it_is_read() {
        let mut luns = Luns::new();
        luns.set(1, disk(8));
        assert!(!luns.end_is_unseen(1));
        luns.set(1, LunInfo::default());
        assert_eq!(luns.read(0), 0);
        assert!(luns.end_is_unseen(1), "another LUN was looked at");
        assert_eq!(luns.read(128), 0);
        assert!(!luns.end_is_unseen(1));
        assert!(!luns.end_is_unseen(256));
    }

    #[test]
    fn another_lun_in_the_same_place_has_another_count() {
        let mut luns = Luns::new();
        luns.set(0, disk(8));
        let first = luns.get(0).changes;
        luns.set(0, LunInfo::default());
        assert_eq!(
            luns.get(0),
            LunInfo::default(),
            "a LUN that is not there is all zero"
        );
        luns.set(0, disk(8));
        assert_ne!(luns.get(0).changes, first);
    }
}
