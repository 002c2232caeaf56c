// SPDX-License-Identifier: GPL-2.0

//! Block requests as owned values.

use super::processor::now_ns;
use core::ffi::c_void;
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, MaybeUninit};
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};

/// How long after it was given back a request comes again.
const RETRY_DELAY_MS: c_ulong = 100;

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

/// A request whose time ran out. Whether it is still in flight only the table knows.
pub struct Slow {
    /// Its [`tag`](Request::tag).
    pub tag: u32,
    /// Its [`disk`](Request::disk).
    pub disk: u16,
    /// How often its time ran out, with this time.
    pub times: u32,
}

impl Slow {
    /// # Safety
    ///
    /// `rq` must be a started request of a [`TagSet`](super::blkmq::TagSet), and stay a valid one meanwhile.
    pub(super) unsafe fn new(rq: *mut avio_bindings::request) -> Self {
        // SAFETY: By the safety requirements. `Request::start` has initialised the private data; the counter is only
        // accessed atomically from then on, and at worst counts for the request's successor.
        unsafe {
            Self {
                tag: (*rq).tag as u32,
                disk: queue_data(rq).load(Relaxed) as usize as u16,
                times: (*private(rq))
                    .timeouts
                    .fetch_add(1, Relaxed)
                    .saturating_add(1),
            }
        }
    }
}

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

    /// No fewer than its [`runs`](Self::runs).
    #[inline]
    pub fn max_runs(&self) -> usize {
        // SAFETY: By the type invariant the request is valid.
        unsafe { (*self.0.as_ptr()).nr_phys_segments }.into()
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

    /// How many nanoseconds before the end of `batch`, for which the clock is read once, the block layer made it; none if
    /// its disk keeps no statistics (`iostats` in sysfs), unless it is a flush.
    #[inline]
    pub fn age(&self, batch: &mut Batch) -> Option<u64> {
        // SAFETY: By the type invariant the request is valid.
        let (flags, start) = unsafe {
            let rq = self.0.as_ptr();
            ((*rq).rq_flags, (*rq).start_time_ns)
        };
        // Without it the time is that of another request, which had the same tag. A flush has a request of its own, which is
        // made anew each time.
        let counted = flags & 1 << avio_bindings::rqf_flags___RQF_IO_STAT != 0;
        if !counted && self.command() != Command::Flush {
            return None;
        }
        let now = *batch.now.get_or_insert_with(now_ns);
        Some(now.saturating_sub(start))
    }

    /// Its data, as runs of physically contiguous memory.
    #[inline]
    pub fn runs(&self) -> Runs<'_> {
        // SAFETY: By the type invariant the request is valid, and so are the bios that it consists of.
        let (bio, iter) = unsafe {
            let bio = (*self.0.as_ptr()).bio;
            (
                bio,
                if bio.is_null() {
                    Default::default()
                } else {
                    (*bio).bi_iter
                },
            )
        };
        Runs {
            bio,
            iter,
            ahead: None,
            _request: PhantomData,
        }
    }

    /// Has the kernel's log say nothing if it fails: whoever sent it has another way.
    pub fn be_quiet(&self) {
        // SAFETY: By the type invariant the request is valid, and nobody else changes its flags while the driver has it.
        unsafe { (*self.0.as_ptr()).rq_flags |= 1 << avio_bindings::rqf_flags___RQF_QUIET };
    }

    /// Ends it here and now.
    pub fn end(self, result: Result) {
        let rq = self.into_raw();
        // SAFETY: By the type invariant the request may be ended, and it is not used after this.
        unsafe { avio_bindings::blk_mq_end_request(rq, status(result)) };
    }

    /// Ends it on a processor near the one that it came from, or at the end of `batch`.
    pub fn complete(self, result: Result, batch: &mut Batch) {
        let rq = self.into_raw();
        let status = status(result);
        // SAFETY: By the type invariant the request is valid and may be ended, which happens exactly once: by
        // `super::blkmq::complete` if it was sent to another processor, else by the batch or by us.
        unsafe {
            (*private(rq)).status = status;
            if !avio_bindings::blk_mq_complete_request_remote(rq)
                && !avio_bindings::avio_rq_add_to_batch(rq, batch.c.as_mut_ptr(), status != 0)
            {
                avio_bindings::blk_mq_end_request(rq, status);
            }
        }
    }

    /// Sends it to the driver once more, a little later; gives it back if that was done `most` times.
    pub fn retry(self, most: u8) -> Result<(), Self> {
        // SAFETY: By the type invariant the request is valid, with our private data behind it.
        let retries = unsafe { &mut (*private(self.0.as_ptr())).retries };
        if *retries >= most {
            return Err(self);
        }
        *retries = retries.saturating_add(1);
        self.requeue();
        Ok(())
    }

    /// Sends it to the driver once more, a little later.
    pub fn requeue(self) {
        let rq = self.into_raw();
        let _reading = kernel::sync::rcu::read_lock();
        // SAFETY: By the type invariant the request is ours to give back, and it is not used after that. Somebody else's
        // kick may end it before ours, so it does not keep the queue; but a queue is freed only an RCU grace period
        // after its last reference, which does not pass while we hold RCU's reading lock.
        unsafe {
            let queue = (*rq).q;
            avio_bindings::blk_mq_requeue_request(rq, false);
            avio_bindings::blk_mq_delay_kick_requeue_list(queue, RETRY_DELAY_MS);
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the request may be ended, and it is not used after this.
        unsafe { avio_bindings::blk_mq_end_request(self.0.as_ptr(), status(Err(EIO))) };
    }
}

/// Sets how long a request may take from now on: as long as its disk says, or a third less.
///
/// If the time of all requests of a disk ran out together, the block layer would take the disk for one that is at rest, and
/// give those who wait for a tag more than the disk's share. So some have less time at first, and never get in step.
///
/// # Safety
///
/// `rq` must be a request of a [`Disk`](super::disk::Disk) that the block layer keeps, and whose time is not running.
pub(super) unsafe fn set_time(rq: *mut avio_bindings::request, less: bool) {
    // SAFETY: A request keeps its queue. Whoever changes the time by sysfs does so by a single store.
    unsafe {
        let time = (&raw const (*(*rq).q).rq_timeout).read_volatile();
        (*rq).timeout = time.saturating_sub(if less { time / 3 } else { 0 });
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

/// Ends a request that [`Request::complete`] has sent to this processor.
///
/// # Safety
///
/// Only for the `complete` operation of a tag set.
pub(super) unsafe extern "C" fn complete(rq: *mut avio_bindings::request) {
    // SAFETY: `Request::complete` has set the status and handed over the right to end the request.
    unsafe { avio_bindings::blk_mq_end_request(rq, (*private(rq)).status) };
}

fn status(result: Result) -> avio_bindings::blk_status_t {
    match result {
        Ok(()) => 0,
        // SAFETY: Any error number may be asked for.
        Err(error) => unsafe { avio_bindings::errno_to_blk_status(error.to_errno()) },
    }
}

/// A run of physically contiguous memory.
#[derive(Clone, Copy)]
pub struct Run {
    /// Physical address.
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
}

/// The runs of memory of a request, as long as they can be.
pub struct Runs<'a> {
    bio: *mut avio_bindings::bio,
    iter: avio_bindings::bvec_iter,
    /// The run that did not continue the last one.
    ahead: Option<Run>,
    _request: PhantomData<&'a Request>,
}

impl Runs<'_> {
    #[inline]
    fn piece(&mut self) -> Option<Run> {
        let mut run = Run { addr: 0, len: 0 };
        // SAFETY: The position is one in the data of a request, which is borrowed.
        let found = unsafe {
            avio_bindings::avio_rq_next_run(
                &mut self.bio,
                &mut self.iter,
                &mut run.addr,
                &mut run.len,
            )
        };
        found.then_some(run)
    }
}

impl Iterator for Runs<'_> {
    type Item = Run;

    #[inline]
    fn next(&mut self) -> Option<Run> {
        let mut run = self.ahead.take().or_else(|| self.piece())?;
        while let Some(next) = self.piece() {
            match run.len.checked_add(next.len) {
                Some(len) if run.addr.wrapping_add(run.len.into()) == next.addr => run.len = len,
                _ => {
                    self.ahead = Some(next);
                    break;
                }
            }
        }
        Some(run)
    }
}

/// Requests that end together when this is dropped, which saves taking each one's locks.
pub struct Batch {
    c: MaybeUninit<avio_bindings::io_comp_batch>,
    /// When they end, once somebody has asked.
    now: Option<u64>,
}

impl Batch {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            c: MaybeUninit::zeroed(),
            now: None,
        }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let batch = self.c.as_mut_ptr();
        // SAFETY: All zeroes is an empty batch. Once a request was added, the callback is set, and takes such a batch.
        unsafe {
            if let Some(end) = (*batch).complete {
                end(batch);
            }
        }
    }
}

pub(super) const PRIVATE_SIZE: u32 = size_of::<Private>() as u32;
