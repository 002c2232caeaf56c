// SPDX-License-Identifier: GPL-2.0

//! Requests as bios: the guest's own pages go to the block layer and nothing is copied.
//!
//! A [`Bios`] has a place for each request that can be in flight. One thread at a time submits, by way of a [`Batch`];
//! requests end in any context, interrupts included. Guest memory can be exchanged between batches, when nothing is
//! in flight; a request in flight therefore needs no reference of its own to the memory, nor to the disk, which waits
//! for it.
//!
//! A bio belongs to its disk's cgroup if that has one, else to that of the thread that makes it: the submitter, a thread
//! of the VMM's process. One that was refused, and is submitted anew, belongs to the process that added the disk.

use super::disk::{Entered, Lane, Target};
use super::drain::InFlight;
use super::flight::{Flight, Op};
use super::pinned::PinnedMemory;
use avio_bindings as bindings;
use avio_core::cut::Piece;
use avio_core::memory::{Access, BadAddress, GuestAddr, Near};
use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr;
use kernel::alloc::KVVec;
use kernel::error::code::*;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full, Relaxed};
use kernel::sync::lock::mutex::MutexGuard;
use kernel::sync::{Arc, Mutex};

/// How many disks' requests are held back together. The block layer goes through all that it holds back once for each disk,
/// and what goes to many disks has few neighbours.
const DISKS: usize = 4;

/// Most pieces in one request: each of [`MAX_SEGMENTS`](avio_abi::ring::MAX_SEGMENTS) may begin in the middle of a
/// page, and all together cross [`MAX_REQUEST_BYTES`](avio_abi::ring::MAX_REQUEST_BYTES) of pages.
const MAX_PIECES: usize = 2 * avio_abi::ring::MAX_SEGMENTS as usize
    + (avio_abi::ring::MAX_REQUEST_BYTES as u64 / avio_abi::PAGE_SIZE) as usize;

/// Most pieces of a request whose bio is not allocated.
pub(super) const OWN_PIECES: usize = 4;

/// Who has requests carried out.
pub trait BioOwner: Send + Sync + 'static {
    /// What is counted in each lane of a disk.
    type Counters: Send + Sync + 'static;

    /// What is answered to a request.
    type Answer;

    /// The request in `place` has ended, well or with an error, on the lane of a disk that has these counters; its
    /// answer. Runs in any context; must not sleep.
    fn ended(&self, place: u32, counters: &Self::Counters, result: Result) -> Self::Answer;

    /// Gives that answer. The disk does not count the request any more: whoever has all answers can have it removed.
    /// Runs in any context; must not sleep.
    fn answer(&self, place: u32, answer: Self::Answer);
}

/// A request that may be in flight.
pub(super) struct Place {
    /// The bios that have not ended, and one for the submitter while it still makes them.
    pub(super) left: Atomic<i32>,
    /// The errno of a bio that failed, or zero.
    pub(super) errno: Atomic<i32>,
    index: u32,
    /// Written by the submitter while nothing is in flight here.
    pub(super) origin: UnsafeCell<Origin>,
    /// The first bio of the request in flight here, if it needs few vectors: that spares its allocation.
    pub(super) own_bio: UnsafeCell<MaybeUninit<OwnBio>>,
}

/// Where a request comes from.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    /// The [`Bios`] that the place belongs to.
    bios: *const c_void,
    /// The disk's [`Lane`].
    lane: *const c_void,
    /// Where its bios go.
    pub(super) target: *const Target,
    /// The operation of its bios.
    pub(super) opf: u32,
    /// Where the first of them begins.
    pub(super) sector: u64,
}

/// A bio and room for its vectors.
#[repr(C)]
pub(super) struct OwnBio {
    pub(super) bio: bindings::bio,
    pub(super) table: [bindings::bio_vec; OWN_PIECES],
}

// SAFETY: `origin` is written only by who has won `left` from zero, and read only by bios that were submitted later. The
// own bio is made by the same one, and from then on the block layer's until it has ended.
unsafe impl Send for Place {}
// SAFETY: As above.
unsafe impl Sync for Place {}

/// Requests of one owner.
#[pin_data(PinnedDrop)]
pub struct Bios<O: BioOwner> {
    owner: O,
    places: KVVec<Place>,
    in_flight: InFlight,
    #[pin]
    submitter: Mutex<Submitter>,
}

struct Submitter {
    memory: Arc<PinnedMemory>,
    /// What the next request consists of. Its pieces were translated by `memory`.
    pieces: KVVec<Piece>,
    /// Where the last of them was found.
    near: Near,
}

impl<O: BioOwner> Bios<O> {
    /// Room for `places` requests at a time.
    pub fn new(owner: O, places: u32, memory: Arc<PinnedMemory>) -> impl PinInit<Self, Error> {
        let room = move || -> Result<_> {
            let mut all = KVVec::with_capacity(places as usize, GFP_KERNEL_ACCOUNT)?;
            for index in 0..places {
                let place = Place {
                    left: Atomic::new(0),
                    errno: Atomic::new(0),
                    index,
                    origin: UnsafeCell::new(Origin {
                        bios: ptr::null(),
                        lane: ptr::null(),
                        target: ptr::null(),
                        opf: 0,
                        sector: 0,
                    }),
                    own_bio: UnsafeCell::new(MaybeUninit::uninit()),
                };
                all.push(place, GFP_KERNEL_ACCOUNT)?;
            }
            Ok((all, KVVec::with_capacity(MAX_PIECES, GFP_KERNEL_ACCOUNT)?))
        };
        pin_init::pin_init_scope(move || {
            let (places, pieces) = room()?;
            Ok(try_pin_init!(Self {
                owner,
                places,
                in_flight: InFlight::new(),
                submitter <- new_mutex!(Submitter {
                    memory,
                    pieces,
                    near: Near::default(),
                }),
            }))
        })
    }

    /// Whose requests these are.
    pub fn owner(&self) -> &O {
        &self.owner
    }

    /// Number of requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.count()
    }

    /// One of a request's bios has ended, or its submitter is done. The last one to say so ends the request.
    ///
    /// # Safety
    ///
    /// `place` is one that [`Batch::submit`] has won, with an `O` of the type of its [`Bios`], and that counts this bio
    /// or submitter.
    pub(super) unsafe fn one_ended(place: &Place) {
        if place.left.fetch_sub(1, Full) != 1 {
            return;
        }
        let result = kernel::error::to_result(place.errno.load(Relaxed));
        // SAFETY: Both pointers were written when the place was won. The `Bios` waits for `in_flight` before it goes,
        // and the disk of the lane for those on the lane: this request is counted by both.
        let (bios, lane) = unsafe {
            let origin = &*place.origin.get();
            (
                &*origin.bios.cast::<Self>(),
                &*origin.lane.cast::<Lane<O::Counters>>(),
            )
        };
        let answer = bios.owner.ended(place.index, lane.counters(), result);
        // The last access to the lane: whoever waits for it may free it.
        lane.leave();
        bios.owner.answer(place.index, answer);
        // Likewise to `bios`, and to the owner in it.
        bios.in_flight.leave();
    }

    /// Begins to submit requests. Sleeps while another batch is open.
    pub fn batch(&self) -> Batch<'_, O> {
        Batch {
            bios: self,
            submitter: self.submitter.lock(),
            plug: ptr::null_mut(),
            disks: [ptr::null(); DISKS],
        }
    }

    /// Replaces guest memory, after all requests that use the old one have ended. Sleeps.
    pub fn set_memory(&self, memory: Arc<PinnedMemory>) {
        let mut submitter = self.submitter.lock();
        self.in_flight.wait();
        submitter.pieces.clear();
        submitter.memory = memory;
    }
}

#[pinned_drop]
impl<O: BioOwner> PinnedDrop for Bios<O> {
    fn drop(self: Pin<&mut Self>) {
        // A bio that ends reaches the owner and the places, so they stay until the last has ended.
        self.in_flight.wait();
    }
}

/// The right to submit requests. Guest memory stays the same while it lives.
pub struct Batch<'a, O: BioOwner> {
    bios: &'a Bios<O>,
    submitter: MutexGuard<'a, Submitter>,
    /// The plug while requests are held back, and null else.
    plug: *mut bindings::blk_plug,
    /// The disks that they are for. Only addresses, to be compared.
    disks: [*const c_void; DISKS],
}

impl<O: BioOwner> Batch<'_, O> {
    /// Guest memory.
    pub fn memory(&self) -> &PinnedMemory {
        &self.submitter.memory
    }

    /// Runs `f` with the block layer holding back what it submits, so that neighbours merge and go out together.
    pub fn plugged<T>(&mut self, f: impl FnOnce(&mut Self) -> T) -> T {
        let plug = UnsafeCell::new(MaybeUninit::<bindings::blk_plug>::uninit());
        self.plug = plug.get().cast();
        self.disks = [ptr::null(); DISKS];
        // SAFETY: `blk_start_plug` initialises the plug, and it does not move before `blk_finish_plug`.
        unsafe { bindings::blk_start_plug(self.plug) };
        let result = f(self);
        // SAFETY: As above; the plug is this thread's current one, as nothing in between changed that but `goes_to`,
        // which starts it anew.
        unsafe { bindings::blk_finish_plug(self.plug) };
        self.plug = ptr::null_mut();
        result
    }

    /// Before a request for a disk: lets go what is held back if that is for as many others as it may be.
    fn goes_to(&mut self, disk: *const c_void) {
        if self.plug.is_null() {
            return;
        }
        for seen in &mut self.disks {
            if seen.is_null() {
                *seen = disk;
            }
            if *seen == disk {
                return;
            }
        }
        self.disks = [ptr::null(); DISKS];
        self.disks[0] = disk;
        // SAFETY: The plug is there, and this thread's current one, while `plugged` runs; that finishes it.
        unsafe {
            bindings::blk_finish_plug(self.plug);
            bindings::blk_start_plug(self.plug);
        }
    }

    /// Forgets what was gathered.
    pub fn clear(&mut self) {
        self.submitter.pieces.clear();
    }

    /// Adds a range of guest memory to the next request.
    ///
    /// # Errors
    ///
    /// [`BadAddress`] if it is not wholly in guest memory that allows the access, or there is too much.
    pub fn gather(&mut self, addr: GuestAddr, len: u32, access: Access) -> Result<(), BadAddress> {
        let submitter = &mut *self.submitter;
        for piece in submitter
            .memory
            .translate_near(addr, len, access, &mut submitter.near)?
        {
            submitter
                .pieces
                .push_within_capacity(piece)
                .map_err(|_| BadAddress)?;
        }
        Ok(())
    }

    /// Submits a request to the disk that it has entered, made of what was gathered since [`clear`](Self::clear), which
    /// must have been for the access that `op` has. [`BioOwner::ended`] is called when it has ended, perhaps before
    /// this returns.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such place, or it is taken; then nothing was submitted.
    pub fn submit(
        &mut self,
        place: u32,
        entered: Entered<'_, O::Counters>,
        op: Op,
        sector: u64,
    ) -> Result {
        let bios = self.bios;
        let slot = bios.places.get(place as usize).ok_or(EINVAL)?;
        if slot.left.cmpxchg(0, 1, Full).is_err() {
            return Err(EINVAL);
        }
        let (target, lane) = entered.into_parts();
        self.goes_to(ptr::from_ref(target).cast());
        slot.errno.store(0, Relaxed);
        // SAFETY: We have won the place, and nothing of it is in flight that could read the field.
        unsafe {
            *slot.origin.get() = Origin {
                bios: ptr::from_ref(bios).cast(),
                lane: ptr::from_ref(lane).cast(),
                target,
                opf: op.opf(),
                sector,
            };
        }
        bios.in_flight.enter();
        Flight::<O>::new(slot, target, op, sector).send(&mut self.submitter.pieces);
        // SAFETY: The place was won above, and `left` counts us since then.
        unsafe { Bios::<O>::one_ended(slot) };
        Ok(())
    }
}
