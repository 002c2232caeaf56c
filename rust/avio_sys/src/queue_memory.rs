// SPDX-License-Identifier: GPL-2.0

//! The memory of a queue pair, as the kernel reaches it: [`QueueMemory`] over three raw pointers.
//!
//! Either side may use it, in any context. The other side may change the memory at any time, so nothing here forms a
//! reference to it, each access is one atomic load or store, and all values are little-endian in memory.
//!
//! The partner is another processor's kernel, guest or host, whatever this kernel was built for. So the barriers must
//! be real ones even in a kernel for one processor: those of C's `virt_*` family.

use avio_abi::ring::{COMPLETION_SIZE, CONTROL_SIZE, SUBMISSION_SIZE};
use avio_core::ring::{QueueMemory, RingSize};
use core::ptr::NonNull;
use kernel::sync::atomic::{Acquire, Atomic, AtomicType, Relaxed, Release};
use kernel::sync::barrier;

const SUBMISSION_WORDS: usize = SUBMISSION_SIZE / size_of::<u64>();
const CONTROL_WORDS: usize = CONTROL_SIZE / size_of::<u32>();

const _: () = assert!(
    SUBMISSION_WORDS == 8 && COMPLETION_SIZE == size_of::<u64>() && CONTROL_WORDS.is_power_of_two()
);

/// Two rings and a control block somewhere in memory that this kernel has mapped.
///
/// # Invariants
///
/// For as long as `self` exists, the pointers are aligned to 8 bytes and valid for reads and writes of
/// `size.entries()` submission entries, as many completion entries, and one control block; and no other code of this
/// kernel accesses that memory but by atomic operations.
pub struct RawQueue {
    submissions: NonNull<u64>,
    completions: NonNull<u64>,
    control: NonNull<u32>,
    size: RingSize,
}

// SAFETY: The pointers own nothing, and by the type invariant what they point to may be accessed from any context.
unsafe impl Send for RawQueue {}

// SAFETY: By the type invariant all accesses are atomic, so that they may be concurrent.
unsafe impl Sync for RawQueue {}

impl RawQueue {
    /// A queue in this memory.
    ///
    /// # Safety
    ///
    /// For as long as the result exists, the three pointers must be aligned to 8 bytes and valid for reads and writes
    /// of `size.entries()` submission entries of [`SUBMISSION_SIZE`] bytes, as many completion entries of
    /// [`COMPLETION_SIZE`] bytes, and one control block of [`CONTROL_SIZE`] bytes. In this kernel nothing but atomic
    /// operations may access that memory meanwhile. (What a guest, a host or a user process does to it is beyond any
    /// rule; whatever a load returns is a legal integer.)
    pub const unsafe fn new(
        submissions: NonNull<u64>,
        completions: NonNull<u64>,
        control: NonNull<u32>,
        size: RingSize,
    ) -> Self {
        // INVARIANT: By the safety requirements of this function.
        Self {
            submissions,
            completions,
            control,
            size,
        }
    }

    /// Number of entries in each ring.
    pub const fn size(&self) -> RingSize {
        self.size
    }

    #[inline]
    fn control(&self, word: usize) -> &Atomic<u32> {
        let index = word / size_of::<u32>() % CONTROL_WORDS;
        // SAFETY: `index` is less than `CONTROL_WORDS`, so the word lies in the control block.
        unsafe { atomic(self.control.add(index)) }
    }

    #[inline]
    fn submission(&self, slot: u32, word: usize) -> &Atomic<u64> {
        let index = self.size.slot(slot) as usize * SUBMISSION_WORDS + word % SUBMISSION_WORDS;
        // SAFETY: `RingSize::slot` is less than the number of entries, so the word lies in the submission ring.
        unsafe { atomic(self.submissions.add(index)) }
    }

    #[inline]
    fn completion(&self, slot: u32) -> &Atomic<u64> {
        // SAFETY: `RingSize::slot` is less than the number of entries, so the entry lies in the completion ring.
        unsafe { atomic(self.completions.add(self.size.slot(slot) as usize)) }
    }
}

/// The atomic at `ptr`.
///
/// # Safety
///
/// `ptr` must point into the memory that the invariant of a [`RawQueue`] that outlives `'a` speaks of.
#[inline]
unsafe fn atomic<'a, T: AtomicType>(ptr: NonNull<T>) -> &'a Atomic<T> {
    // SAFETY: By the invariant of `RawQueue` the pointer is aligned and valid for `'a`, and this kernel accesses the
    // memory by atomic operations alone, so there are no data races in it.
    unsafe { Atomic::from_ptr(ptr.as_ptr()) }
}

impl QueueMemory for RawQueue {
    #[inline]
    fn load_acquire(&self, word: usize) -> u32 {
        u32::from_le(self.control(word).load(Acquire))
    }

    #[inline]
    fn store_release(&self, word: usize, value: u32) {
        self.control(word).store(value.to_le(), Release);
    }

    #[inline]
    fn full_barrier(&self) {
        // C's `virt_mb()`: what `smp_mb()` is on several processors, never the bare compiler barrier of one.
        if cfg!(CONFIG_SMP) {
            barrier::smp_mb(barrier::Full);
        } else {
            barrier::mb(barrier::Full);
        }
    }

    #[inline]
    fn read_submission(&self, slot: u32) -> [u64; 8] {
        core::array::from_fn(|word| u64::from_le(self.submission(slot, word).load(Relaxed)))
    }

    #[inline]
    fn write_submission(&self, slot: u32, entry: &[u64; 8]) {
        for (word, value) in entry.iter().enumerate() {
            self.submission(slot, word).store(value.to_le(), Relaxed);
        }
    }

    #[inline]
    fn load_completion(&self, slot: u32) -> u64 {
        u64::from_le(self.completion(slot).load(Acquire))
    }

    #[inline]
    fn store_completion(&self, slot: u32, entry: u64) {
        self.completion(slot).store(entry.to_le(), Release);
    }
}
