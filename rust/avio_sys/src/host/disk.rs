// SPDX-License-Identifier: GPL-2.0

//! A block device that requests are sent to, and the count of those that it has.
//!
//! The count is kept in lanes, each on cache lines of its own, so that queues do not share one; and each lane carries
//! what else the owner counts. A request in flight holds no reference: the disk waits for the last one when it is
//! dropped.

use super::block_file::BlockFile;
use super::cgroup::Cgroup;
use super::deferred::Deferred;
use super::drain::InFlight;
use avio_bindings as bindings;
use core::ops::Deref;
use kernel::alloc::KVVec;
use kernel::prelude::*;

/// Most lanes of a disk.
const MAX_LANES: u32 = 64;

/// A part of a disk's counts. Two cache lines is what processors fetch at once.
#[repr(align(128))]
pub(super) struct Lane<C> {
    in_flight: InFlight,
    counters: C,
}

impl<C> Lane<C> {
    pub(super) fn counters(&self) -> &C {
        &self.counters
    }

    /// A request that had entered has ended. The last access: whoever drops the disk may free the lane.
    pub(super) fn leave(&self) {
        self.in_flight.leave();
    }
}

/// Where a disk's bios go.
pub(super) struct Target {
    pub(super) file: BlockFile,
    pub(super) deferred: Deferred,
    /// They have a cgroup of their own.
    own_cgroup: bool,
    /// The driver may sleep over them.
    blocking: bool,
}

/// Tells the block layer to refuse a bio rather than to have its submitter wait.
pub(super) const NOWAIT: u32 = 1 << bindings::req_flag_bits___REQ_NOWAIT;

impl Target {
    fn new(file: BlockFile, cgroup: Option<Cgroup>) -> Result<Self> {
        let (own_cgroup, blocking) = (cgroup.is_some(), file.blocking());
        Ok(Self {
            file,
            blocking,
            deferred: Deferred::new(cgroup.unwrap_or_else(Cgroup::current))?,
            own_cgroup,
        })
    }

    /// Submits a bio without having to sleep for it: with [`NOWAIT`], if it `may_be_refused` and whoever it then comes
    /// back to defers it; else by deferring it at once.
    ///
    /// # Safety
    ///
    /// The bio is new, complete and the caller's, who gives it up, and was made for this target. The disk waits until
    /// it has ended.
    pub(super) unsafe fn submit(&self, bio: *mut bindings::bio, may_be_refused: bool) {
        // SAFETY: The device is open. The bio is as each function wants it by the requirement of this one.
        unsafe {
            if self.own_cgroup {
                self.deferred.charge(bio);
            } else if may_be_refused
                && !self.blocking
                && self.file.nowait()
                && !self.deferred.busy()
            {
                (*bio).bi_opf |= NOWAIT;
                return bindings::submit_bio(bio);
            }
            self.deferred.submit(bio);
        }
    }
}

/// A block device with requests in flight. `T` is what else belongs to it, `C` what is counted in each lane.
#[pin_data(PinnedDrop)]
pub struct Disk<T, C> {
    target: Target,
    lanes: KVVec<Lane<C>>,
    #[pin]
    more: T,
}

impl<T, C: Default> Disk<T, C> {
    /// A disk with as many lanes as there can be processors, whose bios belong to this cgroup, or if there is none to
    /// that of the thread that makes them.
    pub fn new<E>(
        file: BlockFile,
        cgroup: Option<Cgroup>,
        more: impl PinInit<T, E>,
    ) -> impl PinInit<Self, Error>
    where
        Error: From<E>,
    {
        let room = || -> Result<_> {
            let count = kernel::cpu::nr_cpu_ids().clamp(1, MAX_LANES);
            let mut lanes = KVVec::with_capacity(count as usize, GFP_KERNEL_ACCOUNT)?;
            for _ in 0..count {
                let lane = Lane {
                    in_flight: InFlight::new(),
                    counters: C::default(),
                };
                lanes.push(lane, GFP_KERNEL_ACCOUNT)?;
            }
            Ok(lanes)
        };
        pin_init::pin_init_scope(move || {
            let lanes = room()?;
            Ok(try_pin_init!(Self {
                target: Target::new(file, cgroup)?,
                lanes,
                more <- more,
            }? Error))
        })
    }
}

impl<T, C> Disk<T, C> {
    /// The block device.
    pub fn file(&self) -> &BlockFile {
        &self.target.file
    }

    /// What was counted in each lane.
    pub fn lanes(&self) -> impl Iterator<Item = &C> {
        self.lanes.iter().map(|lane| &lane.counters)
    }

    /// The counters of the lane of this queue.
    pub fn lane(&self, queue: usize) -> Option<&C> {
        Some(&self.lane_of(queue)?.counters)
    }

    fn lane_of(&self, queue: usize) -> Option<&Lane<C>> {
        self.lanes.get(queue.checked_rem(self.lanes.len())?)
    }

    /// Counts a request of this queue as in flight. Fully ordered: who changes something and then finds nothing in
    /// flight knows that every request that enters later sees the change.
    pub fn enter(&self, queue: usize) -> Option<Entered<'_, C>> {
        let lane = self.lane_of(queue)?;
        lane.in_flight.enter();
        Some(Entered {
            target: &self.target,
            lane,
        })
    }

    /// Number of requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.lanes
            .iter()
            .fold(0, |sum, lane| sum.saturating_add(lane.in_flight.count()))
    }
}

impl<T, C> Deref for Disk<T, C> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.more
    }
}

#[pinned_drop]
impl<T, C> PinnedDrop for Disk<T, C> {
    fn drop(self: Pin<&mut Self>) {
        // A request that ends reaches its lane, so the lanes stay until the last has ended.
        for lane in self.lanes.iter() {
            lane.in_flight.wait();
        }
    }
}

/// A request that counts as in flight on a disk. Dropping it takes the count back.
pub struct Entered<'a, C> {
    target: &'a Target,
    lane: &'a Lane<C>,
}

impl<'a, C> Entered<'a, C> {
    /// The disk's target and lane; the count stays, and [`Lane::leave`] takes it back.
    pub(super) fn into_parts(self) -> (&'a Target, &'a Lane<C>) {
        let parts = (self.target, self.lane);
        core::mem::forget(self);
        parts
    }
}

impl<C> Drop for Entered<'_, C> {
    fn drop(&mut self) {
        self.lane.leave();
    }
}
