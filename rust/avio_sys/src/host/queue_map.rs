// SPDX-License-Identifier: GPL-2.0

//! A queue pair's rings in guest memory, mapped once for as long as the queue lives.

use super::pinned::PinnedMemory;
use crate::queue_memory::RawQueue;
use avio_abi::ring::{COMPLETION_SIZE, CONTROL_SIZE, RING_ALIGN, SUBMISSION_SIZE};
use avio_abi::PAGE_SIZE;
use avio_bindings as bindings;
use avio_core::memory::{Access, GuestAddr};
use avio_core::ring::RingSize;
use core::ffi::c_void;
use core::ops::Deref;
use core::ptr::NonNull;
use kernel::alloc::KVec;
use kernel::prelude::*;

/// Guest memory that is mapped into the kernel in one piece. It has references of its own to its pages, so that it
/// outlives the table that it was translated by.
///
/// # Invariants
///
/// `base` maps `frames`, to each of which a reference is held; the range asked for begins at `offset`.
struct Mapping {
    base: NonNull<c_void>,
    offset: usize,
    frames: KVec<u64>,
}

impl Mapping {
    /// # Errors
    ///
    /// `EFAULT` if the range is unaligned or not in writable guest memory, `ENOMEM`.
    fn new(memory: &PinnedMemory, addr: GuestAddr, len: usize) -> Result<Self> {
        if addr.0 % RING_ALIGN != 0 {
            return Err(EFAULT);
        }
        let len = u32::try_from(len).map_err(|_| EFAULT)?;
        let mut frames = KVec::new();
        let mut offset = None;
        for piece in memory
            .translate(addr, len, Access::DeviceWrites)
            .map_err(|_| EFAULT)?
        {
            offset.get_or_insert(piece.offset as usize);
            let bytes = u64::from(piece.offset).saturating_add(u64::from(piece.len));
            for page in 0..bytes.div_ceil(PAGE_SIZE) {
                frames.push(piece.frame.saturating_add(page), GFP_KERNEL_ACCOUNT)?;
            }
        }
        // SAFETY: The frames are pages that `memory` has pinned, so that they exist. The call takes the references.
        let base = unsafe { bindings::avio_map_frames(frames.as_ptr(), frames.len() as u32) };
        let base = NonNull::new(base).ok_or(ENOMEM)?;
        // INVARIANT: Just mapped.
        Ok(Self {
            base,
            offset: offset.ok_or(EFAULT)?,
            frames,
        })
    }

    fn start<T>(&self) -> NonNull<T> {
        // SAFETY: `offset` is less than a page, and at least one page is mapped.
        unsafe { self.base.byte_add(self.offset).cast() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant. Whoever used the mapping is gone: it is borrowed from `self`.
        unsafe {
            bindings::avio_unmap_frames(
                self.base.as_ptr(),
                self.frames.as_ptr(),
                self.frames.len() as u32,
            )
        }
    }
}

/// A queue pair in guest memory.
pub struct MappedQueue {
    raw: RawQueue,
    _mappings: [Mapping; 3],
}

// SAFETY: The mappings are only held; `RawQueue` is `Send`.
unsafe impl Send for MappedQueue {}
// SAFETY: The mappings are only held; `RawQueue` is `Sync`.
unsafe impl Sync for MappedQueue {}

impl MappedQueue {
    /// Maps the rings and the control block. Sleeps.
    ///
    /// # Errors
    ///
    /// `EFAULT` if one is unaligned or not in writable guest memory, `ENOMEM`.
    pub fn new(
        memory: &PinnedMemory,
        size: RingSize,
        submissions: GuestAddr,
        completions: GuestAddr,
        control: GuestAddr,
    ) -> Result<Self> {
        let entries = size.entries() as usize;
        let submissions =
            Mapping::new(memory, submissions, entries.saturating_mul(SUBMISSION_SIZE))?;
        let completions =
            Mapping::new(memory, completions, entries.saturating_mul(COMPLETION_SIZE))?;
        let control = Mapping::new(memory, control, CONTROL_SIZE)?;
        // SAFETY: Each mapping has the length that was asked for, begins at a multiple of 64 bytes, and lives as long
        // as `raw`, beside which it is stored. The kernel reaches the pages in other ways too, but only to let devices
        // and memcpy write what the guest asks for, which is as if the guest itself wrote.
        let raw = unsafe {
            RawQueue::new(
                submissions.start(),
                completions.start(),
                control.start(),
                size,
            )
        };
        Ok(Self {
            raw,
            _mappings: [submissions, completions, control],
        })
    }
}

impl Deref for MappedQueue {
    type Target = RawQueue;

    fn deref(&self) -> &RawQueue {
        &self.raw
    }
}
