// SPDX-License-Identifier: GPL-2.0

//! Waiting for work items, which the kernel crate cannot do, and the work queues that it has no names for yet .

use kernel::sync::Arc;
use kernel::workqueue::{HasWork, Queue, Work};

/// The kernel's work queue for work that may wait long.
pub fn long() -> &'static Queue {
    // SAFETY: The kernel made it when it started, and keeps it.
    unsafe { Queue::from_raw(avio_bindings::system_dfl_wq) }
}

/// Waits until the work item of `owner` is neither queued nor running.
///
/// For the end of a driver: whoever could queue it again must have been stopped.
pub fn flush<T: HasWork<T, ID>, const ID: u64>(owner: &Arc<T>) {
    let ptr = Arc::as_ptr(owner).cast_mut();
    // SAFETY: The owner lives, as it is borrowed, and its work item was initialised with it.
    unsafe { avio_bindings::flush_work(Work::raw_get(T::raw_get_work(ptr))) };
}
