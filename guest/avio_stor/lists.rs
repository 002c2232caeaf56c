// SPDX-License-Identifier: GPL-2.0

//! Memory for the segments of requests that have more than an entry holds: a page for each tag of a queue.
//!
//! Allocated at set-up, so that the I/O path allocates nothing. Whoever has a tag writes its list; publishing the
//! entry that points to it orders these writes.

use avio_abi::ring::{Segment, MAX_SEGMENTS};
use avio_abi::wire::Wire;
use avio_abi::PAGE_SIZE;
use avio_sys::guest::memory::SharedMemory;
use kernel::prelude::*;

/// Most segments in a list.
pub(crate) const LIST_SEGMENTS: usize = MAX_SEGMENTS as usize;

const WORDS_PER_SEGMENT: usize = Segment::SIZE / size_of::<u64>();

const _: () = assert!(LIST_SEGMENTS * Segment::SIZE <= PAGE_SIZE as usize);

/// The lists of a queue, by tag.
pub(crate) struct Lists(KVec<SharedMemory>);

impl Lists {
    /// Lists for tags less than `tags`.
    pub(crate) fn new(tags: usize) -> Result<Self> {
        let mut lists = KVec::with_capacity(tags, GFP_KERNEL)?;
        for _ in 0..tags {
            lists.push(SharedMemory::new(PAGE_SIZE as usize)?, GFP_KERNEL)?;
        }
        Ok(Self(lists))
    }

    /// Writes a request's segments into the list of its tag; where the list is and how many segments it has. Fails if
    /// they are too many.
    pub(crate) fn fill(
        &self,
        tag: u32,
        mut segments: impl Iterator<Item = Segment>,
    ) -> Result<(u64, u16)> {
        let page = self.0.get(tag as usize).ok_or(EIO)?;
        let mut count: u16 = 0;
        for (index, segment) in (0..LIST_SEGMENTS).zip(&mut segments) {
            let word = index.wrapping_mul(WORDS_PER_SEGMENT);
            let second = u64::from(segment.len) | u64::from(segment.flags) << 32;
            page.store(word, segment.addr.to_le());
            page.store(word.wrapping_add(1), second.to_le());
            count = count.wrapping_add(1);
        }
        match segments.next() {
            None => Ok((page.phys_addr(), count)),
            Some(_) => Err(EIO),
        }
    }
}
