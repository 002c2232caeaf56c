// SPDX-License-Identifier: GPL-2.0

//! How long a request may take, and one that takes longer.

use super::{private, queue_data};
use kernel::sync::atomic::Relaxed;

/// A request whose time ran out. Whether it is still in flight only the table knows.
pub struct Slow {
    /// Its [`tag`](super::Request::tag).
    pub tag: u32,
    /// Its [`disk`](super::Request::disk).
    pub disk: u16,
    /// How often its time ran out, with this time.
    pub times: u32,
}

impl Slow {
    /// # Safety
    ///
    /// `rq` must be a started request of a [`TagSet`](crate::guest::blkmq::TagSet), and stay a valid one meanwhile.
    pub(in crate::guest) unsafe fn new(rq: *mut avio_bindings::request) -> Self {
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

/// Sets how long a request may take from now on: as long as its disk says, or a third less.
///
/// If the time of all requests of a disk ran out together, the block layer would take the disk for one that is at rest, and
/// give those who wait for a tag more than the disk's share. So some have less time at first, and never get in step.
///
/// # Safety
///
/// `rq` must be a request of a [`Disk`](crate::guest::disk::Disk) that the block layer keeps, and whose time is not running.
pub(in crate::guest) unsafe fn set_time(rq: *mut avio_bindings::request, less: bool) {
    // SAFETY: A request keeps its queue. Whoever changes the time by sysfs does so by a single store.
    unsafe {
        let time = (&raw const (*(*rq).q).rq_timeout).read_volatile();
        (*rq).timeout = time.saturating_sub(if less { time / 3 } else { 0 });
    }
}
