// SPDX-License-Identifier: GPL-2.0

//! Disks whose LUN has gone, or has another backing.
//!
//! Such a disk waits for its last request, for as long as its backing hangs. So each has a work item of its own, and no
//! other LUN waits with it, neither to come nor to go.

use crate::luns::LunDisk;
use crate::signals::Signals;
use crate::usage::Leaving;
use avio_sys::guest::work;
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Release};
use kernel::sync::{new_mutex, Arc, Mutex};
use kernel::workqueue::{impl_has_work, new_work, Work, WorkItem};

/// The removal of a disk.
#[pin_data]
pub(crate) struct Burial {
    signals: Arc<Signals>,
    /// The disk, and that its LUN is in use for as long as it has requests. They go in this order.
    #[pin]
    disk: Mutex<Option<(LunDisk, Option<Leaving>)>>,
    over: Atomic<u32>,
    #[pin]
    work: Work<Self>,
}

impl_has_work! {
    impl HasWork<Self> for Burial { self.work }
}

impl Burial {
    /// Of this disk, which has yet to [begin](Self::begin). If there is no memory for it, the disk goes here and now.
    pub(crate) fn new(
        disk: LunDisk,
        leaving: Option<Leaving>,
        signals: Arc<Signals>,
    ) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                signals,
                disk <- new_mutex!(Some((disk, leaving)), "avio_stor_burial"),
                over: Atomic::new(0),
                work <- new_work!("avio_stor_burial"),
            }),
            GFP_KERNEL,
        )
    }

    /// Has it done by somebody who may wait.
    pub(crate) fn begin(self: &Arc<Self>) {
        // It cannot be queued already, as this is called once.
        let _ = work::long().enqueue(self.clone());
    }

    /// Waits until it is over. May sleep.
    pub(crate) fn wait(self: &Arc<Self>) {
        work::flush::<_, 0>(self);
    }

    /// Whether the disk has gone, and its name is free.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Acquire) != 0
    }
}

impl WorkItem for Burial {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        let disk = this.disk.lock().take();
        if let Some((disk, leaving)) = disk {
            disk.remove();
            drop(leaving);
        }
        this.over.store(1, Release);
        // Another disk may wait for the name.
        this.signals.scan();
    }
}
