// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A split virtqueue with event indexes, as a virtio guest's driver has it (virtio 1.3, 2.7). Each tag has a chain of
//! three descriptors, made once.

use crate::sys::Mapping;
use anyhow::Result;
use std::sync::atomic::{fence, Ordering};

/// Entries of a queue: a chain of three for each tag.
pub const ENTRIES: usize = 512;
const CHAIN: usize = 3;
/// Where the rings lie behind the descriptors, and how much memory a queue takes.
pub const AVAIL: usize = 0x2000;
pub const USED: usize = 0x3000;
pub const SIZE: usize = 0x5000;
/// Guest address of the first byte of memory.
pub const RAM: u64 = 0x10_0000;

/// A link of a chain: where it lies in memory, how long it is, and whether the device writes it.
pub type Link = (usize, u32, bool);

/// The driver's end of a queue.
pub struct Vring {
    /// Where the queue lies in memory.
    base: usize,
    avail: u16,
    published: u16,
    used: u16,
}

impl Vring {
    /// A fresh queue.
    pub fn new(base: usize) -> Self {
        Self {
            base,
            avail: 0,
            published: 0,
            used: 0,
        }
    }

    /// Makes a tag's chain of descriptors.
    pub fn chain(&self, memory: &Mapping, tag: u16, links: [Link; CHAIN]) {
        const NEXT: u64 = 1;
        const WRITE: u64 = 2;
        let first = usize::from(tag) * CHAIN;
        for (index, (place, len, writes)) in links.into_iter().enumerate() {
            let more = if index + 1 < CHAIN { NEXT } else { 0 };
            let flags = more | if writes { WRITE } else { 0 };
            let at = self.base + 16 * (first + index);
            let next = (first + index + 1) as u64;
            let rest = u64::from(len) | (flags << 32) | (next << 48);
            memory.u64(at).store(RAM + place as u64, Ordering::Relaxed);
            memory.u64(at + 8).store(rest, Ordering::Relaxed);
        }
    }

    /// Puts a tag's chain in.
    pub fn push(&mut self, memory: &Mapping, tag: u16) {
        let slot = usize::from(self.avail) % ENTRIES;
        memory
            .u16(self.base + AVAIL + 4 + 2 * slot)
            .store(tag * CHAIN as u16, Ordering::Relaxed);
        self.avail = self.avail.wrapping_add(1);
    }

    /// Shows what was put in; `true` if the device wants the doorbell.
    pub fn publish(&mut self, memory: &Mapping) -> bool {
        memory
            .u16(self.base + AVAIL + 2)
            .store(self.avail, Ordering::Release);
        fence(Ordering::SeqCst);
        let event = memory
            .u16(self.base + USED + 4 + 8 * ENTRIES)
            .load(Ordering::Relaxed);
        let old = std::mem::replace(&mut self.published, self.avail);
        event.wrapping_sub(old) < self.avail.wrapping_sub(old)
    }

    /// The tag of the next chain that the device is done with, if there is one.
    pub fn take(&mut self, memory: &Mapping) -> Result<Option<u16>> {
        if memory.u16(self.base + USED + 2).load(Ordering::Acquire) == self.used {
            return Ok(None);
        }
        let slot = usize::from(self.used) % ENTRIES;
        let first = memory
            .u32(self.base + USED + 4 + 8 * slot)
            .load(Ordering::Relaxed);
        self.used = self.used.wrapping_add(1);
        Ok(Some(u16::try_from(first as usize / CHAIN)?))
    }

    /// Asks for an interrupt with the next chain; `true` if the device is done with one already.
    pub fn arm(&self, memory: &Mapping) -> bool {
        memory
            .u16(self.base + AVAIL + 4 + 2 * ENTRIES)
            .store(self.used, Ordering::Release);
        fence(Ordering::SeqCst);
        memory.u16(self.base + USED + 2).load(Ordering::Acquire) != self.used
    }
}
