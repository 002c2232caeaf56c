// SPDX-License-Identifier: GPL-2.0

//! Looking for partitions.
//!
//! That reads from a disk, and so takes as long as its backing likes. The block layer would do it while a disk is added;
//! here each disk has a work item for it, so that those of others come although one hangs.

use super::work;
use core::ptr::NonNull;
use kernel::prelude::*;
use kernel::sync::{new_condvar, new_mutex, Arc, CondVar, CondVarTimeoutResult, Mutex};
use kernel::time::{msecs_to_jiffies, Msecs};
use kernel::workqueue::{impl_has_work, new_work, Work, WorkItem};

/// How many disks of a tag set are being looked at.
#[pin_data]
pub(super) struct Looks {
    #[pin]
    count: Mutex<u32>,
    #[pin]
    fewer: CondVar,
}

impl Looks {
    pub(super) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                count <- new_mutex!(0, "avio_stor_looks"),
                fewer <- new_condvar!("avio_stor_looks"),
            }),
            GFP_KERNEL,
        )
    }

    /// Waits until all are done, or so many milliseconds. May sleep.
    pub(super) fn wait(&self, limit: Msecs) {
        let mut left = msecs_to_jiffies(limit);
        let mut count = self.count.lock();
        while *count != 0 {
            match self.fewer.wait_interruptible_timeout(&mut count, left) {
                CondVarTimeoutResult::Woken { jiffies } => left = jiffies,
                CondVarTimeoutResult::Timeout | CondVarTimeoutResult::Signal { .. } => break,
            }
        }
    }

    fn change(&self, change: impl FnOnce(u32) -> u32) {
        let mut count = self.count.lock();
        *count = change(*count);
        drop(count);
        self.fewer.notify_all();
    }
}

/// A look at one disk, which has yet to be added.
///
/// # Invariants
///
/// The disk is a valid one while the work item is queued or running.
#[pin_data]
pub(super) struct Look {
    disk: NonNull<avio_bindings::gendisk>,
    looks: Arc<Looks>,
    #[pin]
    work: Work<Self>,
}

// SAFETY: A disk belongs to no thread.
unsafe impl Send for Look {}

// SAFETY: The disk is only used by the work item, which runs once.
unsafe impl Sync for Look {}

impl_has_work! {
    impl HasWork<Self> for Look { self.work }
}

impl Look {
    /// Has the block layer leave the disk's partitions alone until we [begin](Self::begin).
    ///
    /// # Safety
    ///
    /// `disk` must not have been added yet.
    pub(super) unsafe fn new(
        disk: NonNull<avio_bindings::gendisk>,
        looks: Arc<Looks>,
    ) -> Result<Arc<Self>> {
        // SAFETY: The disk is a valid one, and nobody else has it yet.
        unsafe { avio_bindings::avio_disk_hold_partitions(disk.as_ptr()) };
        Arc::pin_init(
            // INVARIANT: The work item is neither queued nor running.
            pin_init!(Self {
                disk,
                looks,
                work <- new_work!("avio_stor_look"),
            }),
            GFP_KERNEL,
        )
    }

    /// Has somebody look who may wait.
    ///
    /// # Safety
    ///
    /// To be called once; and [`end`](Self::end), before the disk's last reference is dropped.
    pub(super) unsafe fn begin(self: &Arc<Self>) {
        self.looks.change(|count| count.saturating_add(1));
        // INVARIANT: By the safety requirements the disk stays valid until the work item has run.
        // It cannot be queued already.
        let _ = work::long().enqueue(self.clone());
    }

    /// Waits until the look is over. A disk that was removed ends it soon. May sleep.
    pub(super) fn end(self: &Arc<Self>) {
        work::flush::<_, 0>(self);
    }
}

impl WorkItem for Look {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        // SAFETY: By the type invariant the disk is valid. Once it was removed it is not opened any more.
        unsafe { avio_bindings::avio_disk_find_partitions(this.disk.as_ptr()) };
        this.looks.change(|count| count.saturating_sub(1));
    }
}
