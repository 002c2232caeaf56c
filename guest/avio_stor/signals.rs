// SPDX-License-Identifier: GPL-2.0

//! How interrupts and queues have the adapter's controller do something later, in a context that may sleep.
//!
//! The controller owns the queues, and they must reach it: the circle is cut here, by [`Signals::disconnect`].

use crate::controller::{Controller, RECOVER, SCAN};
use avio_sys::guest::irq::Handler;
use avio_sys::guest::work;
use kernel::prelude::*;
use kernel::sync::{new_spinlock_irq, Arc, SpinLockIrq};

/// The way to the controller, while there is one. Usable in any context.
#[pin_data]
pub(crate) struct Signals {
    #[pin]
    controller: SpinLockIrq<Option<Arc<Controller>>>,
}

impl Signals {
    /// A way that leads nowhere yet.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                controller <- new_spinlock_irq!(None, "avio_stor_signals"),
            }),
            GFP_KERNEL,
        )
    }

    /// From now on it leads to the controller.
    pub(crate) fn connect(&self, controller: Arc<Controller>) {
        *self.controller.lock() = Some(controller);
    }

    /// Cuts the way, and waits until nothing that came along it is left to do. May sleep.
    pub(crate) fn disconnect(&self) {
        let controller = self.controller.lock().take();
        if let Some(controller) = controller {
            work::flush::<_, SCAN>(&controller);
            work::flush::<_, RECOVER>(&controller);
        }
    }

    fn controller(&self) -> Option<Arc<Controller>> {
        self.controller.lock().clone()
    }

    /// The LUNs have to be looked at.
    pub(crate) fn scan(&self) {
        if let Some(controller) = self.controller() {
            // If it is queued already, that is as good.
            let _ = work::long().enqueue::<_, SCAN>(controller);
        }
    }

    /// A queue has stopped, or lost a request.
    pub(crate) fn recover(&self) {
        if let Some(controller) = self.controller() {
            let _ = work::long().enqueue::<_, RECOVER>(controller);
        }
    }
}

/// The configuration interrupt.
impl Handler for Signals {
    fn handle(&self) {
        self.scan();
    }
}
