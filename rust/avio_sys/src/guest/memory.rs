// SPDX-License-Identifier: GPL-2.0

//! Memory that a guest driver shares with the device.
//!
//! The device is told physical addresses, not DMA addresses: the host module looks them up in the guest's memory
//! table, and there is no IOMMU, bounce buffer or address limit between the two that the DMA API could speak for. A
//! platform that needs one (memory encrypted against the host) is one whose memory the host module cannot reach.

use crate::queue_memory::RawQueue;
use avio_abi::ring::{COMPLETION_SIZE, CONTROL_SIZE, RING_ALIGN, SUBMISSION_SIZE};
use avio_core::ring::RingSize;
use core::ffi::c_void;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};

/// Zeroed, physically contiguous memory, aligned to a page.
///
/// # Invariants
///
/// `ptr` points to `size` bytes from `alloc_pages_exact`, which are ours and, apart from what the device does, are
/// only accessed atomically.
pub struct SharedMemory {
    ptr: NonNull<u64>,
    size: usize,
}

// SAFETY: The memory belongs to no thread.
unsafe impl Send for SharedMemory {}

// SAFETY: By the type invariant all accesses are atomic.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Allocates at least `size` bytes. May sleep.
    pub fn new(size: usize) -> Result<Self> {
        let flags = avio_bindings::GFP_KERNEL | avio_bindings::__GFP_ZERO;
        // SAFETY: Any size and these flags may be asked for; we are in a context that may sleep, as documented.
        let ptr = unsafe { avio_bindings::alloc_pages_exact_noprof(size, flags) };
        let ptr = NonNull::new(ptr.cast()).ok_or(ENOMEM)?;
        // INVARIANT: Just allocated, and private to the new value.
        Ok(Self { ptr, size })
    }

    /// Its physical address.
    pub fn phys_addr(&self) -> u64 {
        // SAFETY: The memory came from the page allocator without highmem, so it is in the linear map.
        unsafe { avio_bindings::avio_virt_to_phys(self.ptr.as_ptr().cast::<c_void>()) }
    }

    /// Stores the word with this index; out of range does nothing. Ordered by whatever publishes the memory.
    #[inline]
    pub fn store(&self, index: usize, value: u64) {
        if index < self.size / size_of::<u64>() {
            // SAFETY: Just checked to lie in our memory, which is aligned to a page and, by the type invariant, is
            // accessed atomically.
            unsafe { Atomic::from_ptr(self.ptr.add(index).as_ptr()) }.store(value, Relaxed);
        }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this is what `alloc_pages_exact` returned for this size, and it is ours.
        unsafe { avio_bindings::free_pages_exact(self.ptr.as_ptr().cast(), self.size) };
    }
}

/// A queue pair in memory of its own: the control block, then the submission ring, then the completion ring.
pub struct SharedQueue {
    raw: RawQueue,
    memory: SharedMemory,
}

const SUBMISSIONS: usize = CONTROL_SIZE;
const _: () =
    assert!(SUBMISSIONS as u64 % RING_ALIGN == 0 && SUBMISSION_SIZE as u64 % RING_ALIGN == 0);

/// Guest-physical addresses of a queue pair's parts.
#[derive(Clone, Copy)]
pub struct QueueAddresses {
    /// The submission ring.
    pub submissions: u64,
    /// The completion ring.
    pub completions: u64,
    /// The control block.
    pub control: u64,
}

impl SharedQueue {
    /// Allocates a queue pair, as the device expects it before START: all zeroes.
    pub fn new(size: RingSize) -> Result<Self> {
        let memory = SharedMemory::new(
            Self::completions_at(size) + size.entries() as usize * COMPLETION_SIZE,
        )?;
        let base = memory.ptr.cast::<u8>();
        // SAFETY: The three parts lie behind each other in `memory`, at multiples of `RING_ALIGN`. The result owns
        // the memory beside the `RawQueue`, hands out only references to the latter, and touches the memory in no
        // other way.
        let raw = unsafe {
            RawQueue::new(
                base.add(SUBMISSIONS).cast(),
                base.add(Self::completions_at(size)).cast(),
                base.cast(),
                size,
            )
        };
        Ok(Self { raw, memory })
    }

    const fn completions_at(size: RingSize) -> usize {
        SUBMISSIONS + size.entries() as usize * SUBMISSION_SIZE
    }

    /// Where the device finds it.
    pub fn addresses(&self) -> QueueAddresses {
        let base = self.memory.phys_addr();
        QueueAddresses {
            submissions: base.wrapping_add(SUBMISSIONS as u64),
            completions: base.wrapping_add(Self::completions_at(self.raw.size()) as u64),
            control: base,
        }
    }

    /// Zeroes it all, as a queue that is to start must be. The device must not use it meanwhile.
    pub fn clear(&self) {
        for word in 0..self.memory.size / size_of::<u64>() {
            self.memory.store(word, 0);
        }
    }

    /// The rings and the control block, for the ends of the queue pair.
    #[inline]
    pub fn raw(&self) -> &RawQueue {
        &self.raw
    }
}
