// SPDX-License-Identifier: GPL-2.0

//! How a request ends, or comes again.

use super::{private, Command, Request};
use crate::guest::processor::now_ns;
use core::mem::MaybeUninit;
use kernel::prelude::*;

/// How long after it was given back a request comes again.
const RETRY_DELAY_MS: c_ulong = 100;

impl Request {
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
        // [`complete`] if it was sent to another processor, else by the batch or by us.
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

/// Ends a request that [`Request::complete`] has sent to this processor.
///
/// # Safety
///
/// Only for the `complete` operation of a tag set.
pub(in crate::guest) unsafe extern "C" fn complete(rq: *mut avio_bindings::request) {
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
