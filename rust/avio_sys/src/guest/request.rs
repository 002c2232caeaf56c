// SPDX-License-Identifier: GPL-2.0

//! Block requests as owned values.

mod ending;
mod runs;
mod slow;

pub use ending::Batch;
pub use runs::{Run, Runs};
pub use slow::Slow;

pub(super) use ending::complete;
pub(super) use slow::set_time;

use core::ffi::c_void;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use kernel::sync::atomic::{Atomic, Relaxed};

/// In the queue data, beside the disk's number: the disk is [shut](super::disk::Disk::shut).
const SHUT: usize = 1 << 16;

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Blocks to memory.
    Read,
    /// Memory to blocks.
    Write {
        /// Complete only when durable.
        fua: bool,
    },
    /// Make completed writes durable.
    Flush,
    /// Blocks may be forgotten.
    Discard,
    /// Blocks and all their copies are to be forgotten.
    SecureErase,
    /// Blocks are zero.
    WriteZeroes {
        /// They stay allocated.
        keep: bool,
    },
    /// Anything else.
    Other,
}

/// What we keep with each request, behind it in memory.
#[repr(C)]
pub(super) struct Private {
    /// How the request ended, on its way to another processor.
    status: avio_bindings::blk_status_t,
    /// How often it was tried again.
    retries: u8,
    /// How often its time ran out, since it was given to the driver.
    timeouts: Atomic<u32>,
}

/// Its size.
pub(super) const PRIVATE_SIZE: u32 = size_of::<Private>() as u32;

/// A block request that the driver has to end.
///
/// One that is dropped ends as an I/O error, so that none is lost.
///
/// # Invariants
///
/// The pointer is to a request of a [`TagSet`](super::blkmq::TagSet) that was started and has not ended, and nobody
/// else will end it.
pub struct Request(NonNull<avio_bindings::request>);

// SAFETY: A request may be ended in any context.
unsafe impl Send for Request {}

impl Request {
    /// Starts a request.
    ///
    /// # Safety
    ///
    /// `rq` must be a request that the block layer passes to the driver of a [`TagSet`](super::blkmq::TagSet) just
    /// now, and is to be used through the result only.
    pub(super) unsafe fn start(rq: NonNull<avio_bindings::request>) -> Self {
        let ptr = rq.as_ptr();
        // SAFETY: The request is valid and ours, and has room for our private data behind it as its tag set was made
        // so. The flag says that the private data was set before, by an earlier try of the same request.
        unsafe {
            let prepared = 1 << avio_bindings::rqf_flags___RQF_DONTPREP;
            if (*ptr).rq_flags & prepared == 0 {
                (*ptr).rq_flags |= prepared;
                private(ptr).write(Private {
                    status: 0,
                    retries: 0,
                    timeouts: Atomic::new(0),
                });
            }
            (*private(ptr)).timeouts.store(0, Relaxed);
            set_time(ptr, (*ptr).tag & 1 != 0);
            avio_bindings::blk_mq_start_request(ptr);
        }
        // INVARIANT: Just started, and ours by the safety requirements.
        Self(rq)
    }

    /// One that [`into_raw`](Self::into_raw) has returned.
    ///
    /// # Safety
    ///
    /// Once only.
    pub(super) unsafe fn from_raw(rq: NonNull<avio_bindings::request>) -> Self {
        // INVARIANT: It was one, and is no other's, by the safety requirements.
        Self(rq)
    }

    /// What is to be ended by way of [`from_raw`](Self::from_raw), or by hand.
    pub(super) fn into_raw(self) -> *mut avio_bindings::request {
        ManuallyDrop::new(self).0.as_ptr()
    }

    /// Its tag: unique among the requests in flight of one hardware queue, and less than the tag set's depth.
    #[inline]
    pub fn tag(&self) -> u32 {
        // SAFETY: By the type invariant the request is valid. A started request has a tag, which is not negative.
        unsafe { (*self.0.as_ptr()).tag as u32 }
    }

    /// The number that its disk was made with.
    #[inline]
    pub fn disk(&self) -> u16 {
        // SAFETY: By the type invariant the request is valid, and belongs to the queue of a `Disk`, which has its
        // number for queue data.
        unsafe { queue_data(self.0.as_ptr()) }.load(Relaxed) as usize as u16
    }

    /// Whether its disk is [shut](super::disk::Disk::shut), so that it has to fail.
    #[inline]
    pub fn is_shut(&self) -> bool {
        // SAFETY: As in `disk`.
        unsafe { queue_data(self.0.as_ptr()) }.load(Relaxed) as usize & SHUT != 0
    }

    /// What it asks for.
    #[inline]
    pub fn command(&self) -> Command {
        // SAFETY: By the type invariant the request is valid.
        let flags = unsafe { (*self.0.as_ptr()).cmd_flags };
        match flags & ((1 << avio_bindings::REQ_OP_BITS) - 1) {
            avio_bindings::req_op_REQ_OP_READ => Command::Read,
            avio_bindings::req_op_REQ_OP_WRITE => Command::Write {
                fua: flags & 1 << avio_bindings::req_flag_bits___REQ_FUA != 0,
            },
            avio_bindings::req_op_REQ_OP_FLUSH => Command::Flush,
            avio_bindings::req_op_REQ_OP_DISCARD => Command::Discard,
            avio_bindings::req_op_REQ_OP_SECURE_ERASE => Command::SecureErase,
            avio_bindings::req_op_REQ_OP_WRITE_ZEROES => Command::WriteZeroes {
                keep: flags & 1 << avio_bindings::req_flag_bits___REQ_NOUNMAP != 0,
            },
            _ => Command::Other,
        }
    }

    /// Its first sector, in units of 512 bytes.
    #[inline]
    pub fn sector(&self) -> u64 {
        // SAFETY: By the type invariant the request is valid.
        unsafe { (*self.0.as_ptr()).__sector }
    }

    /// Number of bytes that it moves, or that the blocks have which it names.
    #[inline]
    pub fn bytes(&self) -> u32 {
        // SAFETY: By the type invariant the request is valid.
        unsafe { (*self.0.as_ptr()).__data_len }
    }

    /// How many bios the block layer has merged into it, beyond the first.
    #[inline]
    pub fn merges(&self) -> u64 {
        let mut count: u64 = 0;
        // SAFETY: By the type invariant the request is valid, and so are the bios that it consists of, which are chained.
        unsafe {
            let mut bio = (*self.0.as_ptr()).bio;
            while !bio.is_null() && !(*bio).bi_next.is_null() {
                bio = (*bio).bi_next;
                count = count.saturating_add(1);
            }
        }
        count
    }
}

/// The queue data of a request's disk: the disk's number, and [`SHUT`].
///
/// # Safety
///
/// `rq` must be a request in flight of a [`Disk`](super::disk::Disk), and stay so while the result is used.
#[inline]
unsafe fn queue_data<'a>(rq: *mut avio_bindings::request) -> &'a Atomic<*mut c_void> {
    // SAFETY: A request in flight keeps its queue, whose data is only accessed atomically once the disk was added.
    unsafe { Atomic::from_ptr(&raw mut (*(*rq).q).queuedata) }
}

/// Has [`Request::is_shut`] say so of all requests of a queue.
///
/// # Safety
///
/// `queue` must be that of a [`Disk`](super::disk::Disk).
pub(super) unsafe fn shut(queue: *mut avio_bindings::request_queue) {
    // SAFETY: The queue is a valid one, and its data is only accessed atomically once the disk was added.
    let data = unsafe { Atomic::from_ptr(&raw mut (*queue).queuedata) };
    data.store(data.load(Relaxed).map_addr(|data| data | SHUT), Relaxed);
}

/// Our private data of a request.
fn private(rq: *mut avio_bindings::request) -> *mut Private {
    rq.wrapping_add(1).cast()
}
