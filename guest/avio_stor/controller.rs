// SPDX-License-Identifier: GPL-2.0

//! What happens on an adapter in contexts that may sleep: its LUNs are looked at, and a queue that has stopped is reset,
//! or the whole adapter if that does not help.

use crate::link::{Link, HANGS, STOP_DELAY_MS, STOP_LOOKS};
use crate::luns::Luns;
use crate::queue::{Cause, Door, Queue};
use crate::signals::Signals;
use crate::tasks::Tasks;
use crate::usage::Usage;
use avio_abi::gvsd::state;
use core::mem::replace;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{new_mutex, Arc, Mutex};
use kernel::time::delay::fsleep;
use kernel::time::{Delta, Instant, Monotonic};
use kernel::workqueue::{impl_has_work, new_work, Work, WorkItem};

/// The work items.
pub(crate) const SCAN: u64 = 0;
pub(crate) const RECOVER: u64 = 1;

/// How often the adapter is reset before it is given up, unless so much time lies between.
const MOST_RESETS: u32 = 5;
const CALM: Delta = Delta::from_secs(600);

/// Between two looks at LUNs while somebody else changes the limits of a disk.
const LATE: Delta = Delta::from_millis(100);

/// The resets of late.
struct Resets {
    count: u32,
    last: Option<Instant<Monotonic>>,
    /// It was said that a queue does not stop.
    told: bool,
}

impl Resets {
    /// Counts one; whether it may be tried.
    fn allow(&mut self) -> bool {
        if self.last.is_some_and(|last| last.elapsed() > CALM) {
            self.count = 0;
        }
        self.last = Some(Instant::now());
        self.count = self.count.saturating_add(1);
        self.count <= MOST_RESETS
    }
}

/// An adapter, for as long as somebody has its node open or it is bound.
#[pin_data]
pub(crate) struct Controller {
    pub(crate) link: Arc<Link>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) usage: Arc<Usage>,
    /// How many of the queues are polled.
    pub(crate) polled: u32,
    #[pin]
    pub(crate) luns: Luns,
    pub(crate) state: Atomic<u32>,
    pub(crate) resets: Atomic<u32>,
    #[pin]
    recent: Mutex<Resets>,
    #[pin]
    scan: Work<Self, SCAN>,
    #[pin]
    recover: Work<Self, RECOVER>,
}

impl_has_work! {
    impl HasWork<Self, 0> for Controller { self.scan }
    impl HasWork<Self, 1> for Controller { self.recover }
}

impl Controller {
    /// Of a device that runs.
    pub(crate) fn new(
        link: Arc<Link>,
        signals: Arc<Signals>,
        tasks: Arc<Tasks>,
        usage: Arc<Usage>,
        luns: impl PinInit<Luns>,
        polled: u32,
    ) -> Result<Arc<Self>> {
        let none = Resets {
            count: 0,
            last: None,
            told: false,
        };
        Arc::pin_init(
            pin_init!(Self {
                link,
                signals,
                tasks,
                usage,
                polled,
                luns <- luns,
                state: Atomic::new(state::ONLINE),
                resets: Atomic::new(0),
                recent <- new_mutex!(none, "avio_stor_resets"),
                scan <- new_work!("avio_stor_scan"),
                recover <- new_work!("avio_stor_recover"),
            }),
            GFP_KERNEL,
        )
    }

    /// Says what becomes of requests.
    pub(crate) fn set_doors(&self, door: Door) {
        self.link
            .queues
            .iter()
            .for_each(|queue| queue.set_door(door));
    }

    fn ill(&self) -> impl Iterator<Item = &Arc<Queue>> {
        self.link.queues.iter().filter(|queue| queue.is_ill())
    }

    /// Resets what needs it, and sends again what was in flight.
    fn recover(&self) {
        let mut recent = self.recent.lock();
        match self.state.load(Relaxed) {
            state::ONLINE if self.ill().next().is_none() => return,
            state::ONLINE if self.mend_queues(&mut recent) => return,
            _ => {}
        }
        self.reset(&mut recent);
    }

    /// Resets the queues that need it, while the others go on; whether nothing more is called for.
    fn mend_queues(&self, recent: &mut Resets) -> bool {
        // As long as the device does not stop a queue, it may write to the memory of what is in flight there. Somebody
        // may wait for our end, so that it comes after some seconds, and we come again.
        let mut hanging = None;
        for _ in 0..STOP_LOOKS {
            hanging = None;
            for queue in self.ill() {
                if queue.needs_all() {
                    return false;
                }
                queue.set_door(Door::Paused);
                match queue.stop() {
                    Some(0) if recent.allow() => {
                        renew(queue, true);
                        if !queue.start() {
                            return false;
                        }
                        queue.set_door(Door::Open);
                        self.resets.add(1, Relaxed);
                    }
                    Some(0) | None => return false,
                    Some(_) => hanging = Some(queue),
                }
            }
            if hanging.is_none() {
                recent.told = false;
                return true;
            }
            fsleep(Delta::from_millis(STOP_DELAY_MS));
        }
        if let Some(queue) = hanging.filter(|_| !replace(&mut recent.told, true)) {
            queue.says_it_hangs();
        }
        self.signals.recover();
        true
    }

    /// Resets the adapter.
    fn reset(&self, recent: &mut Resets) {
        let tried = self.state.xchg(state::RESETTING, Relaxed) == state::RESETTING;
        self.set_doors(Door::Paused);
        // As long as the device does not stop, it may write to the memory of what is in flight, which stays so; and what
        // else is wanted waits, rather than fail for a backing that hangs.
        match self.link.stop() {
            Ok(()) => {}
            Err(ETIMEDOUT) => {
                if !tried {
                    dev_err!(self.link.device, "the adapter {HANGS}; all its I/O waits\n");
                }
                return self.signals.recover();
            }
            Err(_) => return self.fail(),
        }
        let again = recent.allow();
        for queue in &self.link.queues {
            renew(queue, again);
        }
        if !again || self.link.start().is_err() {
            return self.fail();
        }
        self.usage.restore();
        self.state.store(state::ONLINE, Relaxed);
        // The device tells nothing of changes from before it was started: no request may go to what has taken a LUN's place.
        self.luns.scan();
        self.set_doors(Door::Open);
        self.resets.add(1, Relaxed);
        dev_info!(self.link.device, "the adapter was reset, and goes on\n");
    }

    fn fail(&self) {
        self.state.store(state::FAILED, Relaxed);
        self.set_doors(Door::Failed);
        dev_err!(
            self.link.device,
            "the adapter is given up; all its I/O fails\n"
        );
    }
}

/// Takes back what is in flight on a queue that the device does not serve, to send it again or to fail it, and makes the
/// queue as new.
fn renew(queue: &Queue, again: bool) {
    queue.reap(Cause::Look);
    queue.take_back(again);
    queue.restart();
}

impl WorkItem<SCAN> for Controller {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        if this.luns.is_late() {
            fsleep(LATE);
        }
        this.luns.scan();
    }
}

impl WorkItem<RECOVER> for Controller {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.recover();
    }
}
