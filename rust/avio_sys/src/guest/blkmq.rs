// SPDX-License-Identifier: GPL-2.0

//! Hardware queues of a block driver, and the tag set that all its disks share.
//!
//! Tags are given out per hardware queue: no two requests in flight on one queue have the same tag, whichever disk
//! they are for. So that a disk which never ends its requests leaves tags to the others, the block layer shares them out
//! among the disks that are at work, as if there were always one more of these.

use super::partitions::Looks;
use super::request::{self, Request, Slow};
use core::ffi::{c_int, c_uint, c_void};
use core::mem::MaybeUninit;
use core::pin::Pin;
use core::ptr::{from_ref, null_mut, NonNull};
use kernel::device;
use kernel::error::{from_err_ptr, to_result};
use kernel::prelude::*;
use kernel::sync::aref::ARef;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::Arc;
use kernel::time::Msecs;
use kernel::types::Opaque;

/// Which of a tag set's maps is that of the polled queues; C's `HCTX_TYPE_POLL`.
const POLL_MAP: usize = 2;

/// What the driver does about a request that takes long.
pub enum Timeout {
    /// Wait on.
    Wait,
    /// It was ended.
    Ended,
}

/// A hardware queue. Called by the block layer in process context, on several processors at once.
pub trait HwQueue: Send + Sync + 'static {
    /// Takes a request. If not `last`, more will follow, or else [`commit`](Self::commit), so the device need not be
    /// told yet.
    fn queue(&self, request: Request, last: bool);

    /// Tells the device of all requests that it was not told of.
    fn commit(&self);

    /// A request takes long. May sleep.
    fn timeout(&self, slow: Slow) -> Timeout;

    /// Looks for completions on a polled queue; how many there were.
    fn poll(&self) -> u32;
}

/// How many hardware queues to use, at most `most`: no more than there are processors.
pub fn queue_count(most: u32) -> u32 {
    // SAFETY: Any number may be asked for.
    unsafe { avio_bindings::blk_mq_num_possible_queues(most) }
}

/// The hardware queues and the requests that they have room for.
///
/// # Invariants
///
/// `set` is initialised, and its driver data points to `self`. `spare` is a queue of `set`, which we own.
#[pin_data(PinnedDrop)]
pub struct TagSet<Q: HwQueue> {
    #[pin]
    set: Opaque<avio_bindings::blk_mq_tag_set>,
    spare: Atomic<*mut avio_bindings::request_queue>,
    queues: KVec<Arc<Q>>,
    /// How many of them are polled: the last ones.
    polled: u32,
    device: ARef<device::Device>,
    first_vector: u32,
    looks: Arc<Looks>,
}

// SAFETY: The C structure belongs to no thread, and `HwQueue` is `Send`.
unsafe impl<Q: HwQueue> Send for TagSet<Q> {}

// SAFETY: The C structure has its own locks, and `HwQueue` is `Sync`.
unsafe impl<Q: HwQueue> Sync for TagSet<Q> {}

impl<Q: HwQueue> TagSet<Q> {
    /// Makes a tag set of these queues with `depth` tags each. The last `polled` of them never interrupt. Of the
    /// others, queue `n` interrupts by vector `first_vector + n` of `device`, whose affinity says which processors use
    /// the queue.
    pub fn new(
        queues: KVec<Arc<Q>>,
        polled: u32,
        depth: u32,
        device: ARef<device::Device>,
        first_vector: u32,
    ) -> impl PinInit<Self, Error> {
        let count = u32::try_from(queues.len()).unwrap_or(0);
        let maps = if polled == 0 { 1 } else { POLL_MAP + 1 };
        try_pin_init!(&this in Self {
            queues,
            polled,
            device,
            first_vector,
            looks: Looks::new()?,
            spare: Atomic::new(null_mut()),
            set <- Opaque::try_ffi_init(move |set: *mut avio_bindings::blk_mq_tag_set| {
                // SAFETY: `set` is valid for writes. The other fields come before this one and so are initialised
                // when the operations are called; `self` stays where it is, as it is pinned. Nobody uses the set before
                // we are done; if it gets no queue, it is freed again.
                unsafe {
                    set.write(avio_bindings::blk_mq_tag_set {
                        ops: &Self::OPS,
                        nr_maps: maps as u32,
                        nr_hw_queues: count,
                        queue_depth: depth,
                        cmd_size: request::PRIVATE_SIZE,
                        numa_node: avio_bindings::NUMA_NO_NODE,
                        flags: avio_bindings::BLK_MQ_F_NO_SCHED_BY_DEFAULT,
                        driver_data: this.as_ptr().cast::<c_void>(),
                        ..MaybeUninit::zeroed().assume_init()
                    });
                    to_result(avio_bindings::blk_mq_alloc_tag_set(set))?;
                    hold_back_a_share(set);
                    // When a second disk comes, or the last but one goes, the block layer waits for the requests of the
                    // other, to have its tags shared or its own. With this queue, which never has a request, there is
                    // always a second one.
                    match from_err_ptr(avio_bindings::blk_mq_alloc_queue(set, null_mut(), null_mut())) {
                        Ok(spare) => (*this.as_ptr()).spare.store(spare, Relaxed),
                        Err(error) => {
                            avio_bindings::blk_mq_free_tag_set(set);
                            return Err(error);
                        }
                    }
                    Ok(())
                }
            }),
        }? Error)
    }

    pub(super) fn looks(&self) -> Arc<Looks> {
        self.looks.clone()
    }

    /// Waits until the partitions are there of all disks that were added, or so many milliseconds. May sleep.
    pub fn wait_for_partitions(&self, limit: Msecs) {
        self.looks.wait(limit);
    }

    pub(super) fn as_raw(&self) -> *mut avio_bindings::blk_mq_tag_set {
        self.set.get()
    }

    const OPS: avio_bindings::blk_mq_ops = avio_bindings::blk_mq_ops {
        queue_rq: Some(Self::queue_rq),
        commit_rqs: Some(Self::commit_rqs),
        timeout: Some(Self::timeout),
        poll: Some(Self::poll),
        complete: Some(request::complete),
        init_hctx: Some(Self::init_hctx),
        map_queues: Some(Self::map_queues),
        // SAFETY: All fields are optional functions, for which all zeroes means none.
        ..unsafe { MaybeUninit::zeroed().assume_init() }
    };

    /// The queue behind a hardware context.
    ///
    /// # Safety
    ///
    /// `hctx` must be a live context of a disk of such a tag set.
    unsafe fn queue<'a>(hctx: *mut avio_bindings::blk_mq_hw_ctx) -> &'a Q {
        // SAFETY: `init_hctx` has set the driver data to a queue of the tag set, which outlives all its contexts.
        unsafe { &*(*hctx).driver_data.cast::<Q>() }
    }

    /// # Safety
    ///
    /// Only for the block layer, as the operation of this name.
    unsafe extern "C" fn init_hctx(
        hctx: *mut avio_bindings::blk_mq_hw_ctx,
        data: *mut c_void,
        index: c_uint,
    ) -> c_int {
        // SAFETY: By the type invariant the driver data of our tag sets points to the `TagSet`.
        let this = unsafe { &*data.cast::<Self>() };
        let Some(queue) = this.queues.get(index as usize) else {
            return EINVAL.to_errno();
        };
        // SAFETY: The context is being initialised, and its driver data is ours to set.
        unsafe { (*hctx).driver_data = from_ref::<Q>(queue).cast_mut().cast() };
        0
    }

    /// # Safety
    ///
    /// Only for the block layer, as the operation of this name.
    unsafe extern "C" fn map_queues(set: *mut avio_bindings::blk_mq_tag_set) {
        // SAFETY: By the type invariant the driver data of our tag sets points to the `TagSet`. Only the fields
        // before `set` are used, which are initialised. The device reference is a transparent wrapper of the C one.
        unsafe {
            let this = (*set).driver_data.cast::<Self>();
            let device = from_ref::<device::Device>(&(*this).device)
                .cast_mut()
                .cast();
            let [ordinary, _, polled] = &mut (*set).map;
            ordinary.nr_queues = (*set).nr_hw_queues.saturating_sub((*this).polled);
            avio_bindings::blk_mq_map_hw_queues(ordinary, device, (*this).first_vector);
            if (*set).nr_maps as usize > POLL_MAP {
                polled.queue_offset = ordinary.nr_queues;
                polled.nr_queues = (*this).polled;
                avio_bindings::blk_mq_map_queues(polled);
            }
        }
    }

    /// # Safety
    ///
    /// Only for the block layer, as the operation of this name.
    unsafe extern "C" fn queue_rq(
        hctx: *mut avio_bindings::blk_mq_hw_ctx,
        data: *const avio_bindings::blk_mq_queue_data,
    ) -> avio_bindings::blk_status_t {
        // SAFETY: The block layer passes a live context and a request that is the driver's from now on.
        unsafe {
            if let Some(rq) = NonNull::new((*data).rq) {
                Self::queue(hctx).queue(Request::start(rq), (*data).last);
            }
        }
        0
    }

    /// # Safety
    ///
    /// Only for the block layer, as the operation of this name.
    unsafe extern "C" fn commit_rqs(hctx: *mut avio_bindings::blk_mq_hw_ctx) {
        // SAFETY: The block layer passes a live context.
        unsafe { Self::queue(hctx) }.commit();
    }

    /// # Safety
    ///
    /// Only for the block layer, as the operation of this name.
    unsafe extern "C" fn timeout(
        rq: *mut avio_bindings::request,
    ) -> avio_bindings::blk_eh_timer_return {
        // SAFETY: The block layer passes a started request, which has a live context and a tag, and keeps it so for
        // the time of the call.
        let (hctx, slow) = unsafe { ((*rq).mq_hctx, Slow::new(rq)) };
        // SAFETY: As above.
        match unsafe { Self::queue(hctx) }.timeout(slow) {
            Timeout::Wait => {
                // A tag that comes back wakes somebody who waits for one, be it for a disk that has its share already. If
                // many wait for a disk that hangs, they use up what was to wake another disk's.
                // SAFETY: A live context has tags. The request's time begins when we return.
                unsafe {
                    avio_bindings::sbitmap_queue_wake_all(&raw mut (*(*hctx).tags).bitmap_tags);
                    request::set_time(rq, false);
                }
                avio_bindings::blk_eh_timer_return_BLK_EH_RESET_TIMER
            }
            Timeout::Ended => avio_bindings::blk_eh_timer_return_BLK_EH_DONE,
        }
    }

    /// # Safety
    ///
    /// Only for the block layer, as the operation of this name.
    unsafe extern "C" fn poll(
        hctx: *mut avio_bindings::blk_mq_hw_ctx,
        _batch: *mut avio_bindings::io_comp_batch,
    ) -> c_int {
        // SAFETY: The block layer passes a live context.
        unsafe { Self::queue(hctx) }.poll() as c_int
    }
}

#[pinned_drop]
impl<Q: HwQueue> PinnedDrop for TagSet<Q> {
    fn drop(self: Pin<&mut Self>) {
        let spare = self.spare.load(Relaxed);
        // SAFETY: By the type invariant the set is initialised, and the queue is one of it, and ours. Each `Disk` holds a
        // reference to the `TagSet`, so there are none left, and no other queue.
        unsafe {
            avio_bindings::blk_mq_destroy_queue(spare);
            avio_bindings::blk_put_queue(spare);
            avio_bindings::blk_mq_free_tag_set(self.set.get());
        }
    }
}

/// Has each hardware queue's tags shared as if one more disk than there are were at work.
///
/// The block layer gives a disk no more than its share of the tags, which is those of a queue divided by how many disks
/// are at work on it. So one that is alone at work gets all; and if it then hangs, the next one finds none left.
///
/// The count is the block layer's own. It would count a queue of ours, too, but only on hardware queues whose processors
/// are online at that moment, and only if we had tags set aside for that.
///
/// # Safety
///
/// `set` must be initialised, and nobody else use it yet.
unsafe fn hold_back_a_share(set: *mut avio_bindings::blk_mq_tag_set) {
    // SAFETY: An initialised set has so many pointers to tags. Nobody else uses them yet, so that their lock is not
    // needed. The block layer only ever adds to the count and takes away what it has added.
    unsafe {
        for index in 0..(*set).nr_hw_queues as usize {
            (**(*set).tags.add(index)).active_queues = 1;
        }
    }
}
