// SPDX-License-Identifier: GPL-2.0

//! Requests as bios: the guest's own pages go to the block layer and nothing is copied.
//!
//! A [`Bios`] has a place for each request that can be in flight. One thread at a time submits, by way of a [`Batch`];
//! requests end in any context, interrupts included. Guest memory can be exchanged between batches, when nothing is
//! in flight; a request in flight therefore needs no reference of its own to the memory, nor to the block device,
//! which the owner keeps.

use super::block_file::BlockFile;
use super::drain::InFlight;
use super::pinned::PinnedMemory;
use avio_bindings as bindings;
use avio_core::memory::{bio_part, Access, BadAddress, GuestAddr, Piece};
use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr;
use kernel::alloc::{KVVec, KVec};
use kernel::error::code::*;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full, Relaxed};
use kernel::sync::lock::mutex::MutexGuard;
use kernel::sync::{Arc, Mutex};

/// Most pieces in one request: each of [`MAX_SEGMENTS`](avio_abi::ring::MAX_SEGMENTS) may begin in the middle of a
/// page, and all together cross [`MAX_REQUEST_BYTES`](avio_abi::ring::MAX_REQUEST_BYTES) of pages.
const MAX_PIECES: usize = 2 * avio_abi::ring::MAX_SEGMENTS as usize
    + (avio_abi::ring::MAX_REQUEST_BYTES as u64 / avio_abi::PAGE_SIZE) as usize;

/// Most pieces in one bio.
const BIO_PIECES: usize = 256;

/// What a request does to the block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Blocks to memory.
    Read,
    /// Memory to blocks.
    Write {
        /// Durable when done.
        fua: bool,
    },
    /// Make the device's cache durable.
    Flush,
}

impl Op {
    const fn opf(self) -> u32 {
        const SYNC: u32 =
            1 << bindings::req_flag_bits___REQ_SYNC | 1 << bindings::req_flag_bits___REQ_IDLE;
        let write = bindings::req_op_REQ_OP_WRITE as u32 | SYNC;
        match self {
            Self::Read => bindings::req_op_REQ_OP_READ as u32,
            Self::Write { fua: false } => write,
            Self::Write { fua: true } => write | 1 << bindings::req_flag_bits___REQ_FUA,
            Self::Flush => write | 1 << bindings::req_flag_bits___REQ_PREFLUSH,
        }
    }
}

/// Who has requests carried out.
pub trait BioOwner: Send + Sync + 'static {
    /// The block device of a LUN. It must stay the same as long as the owner lives.
    fn disk(&self, lun: u16) -> Option<&BlockFile>;

    /// The request in `place` has ended, well or with an error. Runs in any context; must not sleep.
    fn ended(&self, place: u32, result: Result);
}

/// A request that may be in flight.
struct Place {
    /// The bios that have not ended, and one for the submitter while it still makes them.
    left: Atomic<i32>,
    /// The errno of a bio that failed, or zero.
    errno: Atomic<i32>,
    index: u32,
    /// The [`Bios`] that this belongs to. Written by the submitter while nothing is in flight here.
    bios: UnsafeCell<*const c_void>,
}

// SAFETY: `bios` is written only by who has won `left` from zero, and read only by bios that were submitted later.
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
    pieces: KVec<Piece>,
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
                    bios: UnsafeCell::new(ptr::null()),
                };
                all.push(place, GFP_KERNEL_ACCOUNT)?;
            }
            Ok((all, KVec::with_capacity(MAX_PIECES, GFP_KERNEL_ACCOUNT)?))
        };
        pin_init::pin_init_scope(move || {
            let (places, pieces) = room()?;
            Ok(try_pin_init!(Self {
                owner,
                places,
                in_flight: InFlight::new(),
                submitter <- new_mutex!(Submitter { memory, pieces }),
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
    fn one_ended(&self, place: &Place) {
        if place.left.fetch_sub(1, Full) != 1 {
            return;
        }
        let result = kernel::error::to_result(place.errno.load(Relaxed));
        self.owner.ended(place.index, result);
        // The last access to `self`: whoever waits for this may free it.
        self.in_flight.leave();
    }

    /// Begins to submit requests. Sleeps while another batch is open.
    pub fn batch(&self) -> Batch<'_, O> {
        Batch {
            bios: self,
            submitter: self.submitter.lock(),
        }
    }

    /// Waits, while nobody can submit, until nothing is in flight. Sleeps.
    pub fn drain(&self) {
        let _submitter = self.submitter.lock();
        self.in_flight.wait();
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
}

impl<O: BioOwner> Batch<'_, O> {
    /// Guest memory.
    pub fn memory(&self) -> &PinnedMemory {
        &self.submitter.memory
    }

    /// Runs `f` with the block layer holding back what it submits, so that neighbours merge and go out together.
    pub fn plugged<T>(&mut self, f: impl FnOnce(&mut Self) -> T) -> T {
        let plug = UnsafeCell::new(MaybeUninit::<bindings::blk_plug>::uninit());
        // SAFETY: `blk_start_plug` initialises the plug, and it does not move before `blk_finish_plug`.
        unsafe { bindings::blk_start_plug(plug.get().cast()) };
        let result = f(self);
        // SAFETY: As above; the plug is this thread's current one, as nothing in between changed that.
        unsafe { bindings::blk_finish_plug(plug.get().cast()) };
        result
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
        for piece in submitter.memory.translate(addr, len, access)? {
            submitter
                .pieces
                .push_within_capacity(piece)
                .map_err(|_| BadAddress)?;
        }
        Ok(())
    }

    /// Submits a request made of what was gathered since [`clear`](Self::clear), which must have been for the access
    /// that `op` has. [`BioOwner::ended`] is called when it has ended, perhaps before this returns.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such place or LUN; then nothing was submitted.
    pub fn submit(&mut self, place: u32, lun: u16, op: Op, sector: u64) -> Result {
        let bios = self.bios;
        let slot = bios.places.get(place as usize).ok_or(EINVAL)?;
        let disk = bios.owner.disk(lun).ok_or(EINVAL)?;
        if slot.left.cmpxchg(0, 1, Full).is_err() {
            return Err(EINVAL);
        }
        slot.errno.store(0, Relaxed);
        // SAFETY: We have won the place, and nothing of it is in flight that could read the field.
        unsafe { *slot.bios.get() = ptr::from_ref(bios).cast() };
        bios.in_flight.enter();
        let mut flight = Flight::<O> {
            slot,
            disk,
            op,
            sector,
            owner: PhantomData,
        };
        flight.send(&mut self.submitter.pieces);
        bios.one_ended(slot);
        Ok(())
    }
}

/// A request that is being submitted, bio by bio.
struct Flight<'a, O: BioOwner> {
    slot: &'a Place,
    disk: &'a BlockFile,
    op: Op,
    sector: u64,
    owner: PhantomData<O>,
}

impl<O: BioOwner> Flight<'_, O> {
    /// Submits everything, in as many bios as it takes.
    fn send(&mut self, pieces: &mut [Piece]) {
        let block = self.disk.logical_block();
        let mut from = 0usize;
        loop {
            let rest = pieces.get_mut(from..).unwrap_or(&mut []);
            let part = bio_part(rest, BIO_PIECES, block);
            let Some((part, cut)) =
                part.and_then(|(count, cut)| Some((rest.get_mut(..count)?, cut)))
            else {
                self.slot.errno.store(EIO.to_errno(), Relaxed);
                return;
            };
            if !self.send_one(part, cut) {
                return;
            }
            from = from.saturating_add(part.len());
            if let Some(last) = part.last_mut().filter(|_| cut != 0) {
                // What was cut off is the first piece of the next bio.
                *last = last.tail(last.len.saturating_sub(cut));
                from = from.saturating_sub(1);
            }
            if from >= pieces.len() {
                return;
            }
        }
    }

    /// Submits one bio of these pieces, the last of them shortened by `cut` bytes; `false` if the block layer does not
    /// take them, and the request has failed.
    fn send_one(&mut self, pieces: &[Piece], cut: u32) -> bool {
        let place = ptr::from_ref(self.slot).cast_mut().cast();
        let vecs = u16::try_from(pieces.len()).unwrap_or(u16::MAX);
        // SAFETY: The device is open. `end_io` gets the place back, which outlives the bio, as does the `Bios` that it
        // names: that waits for `in_flight` before it goes. With GFP_NOIO and so few vectors the allocation waits, it
        // does not fail.
        let bio = unsafe {
            bindings::avio_bio_alloc(
                self.disk.as_ptr(),
                vecs,
                self.op.opf(),
                self.sector,
                Some(end_io::<O>),
                place,
            )
        };
        self.slot.left.fetch_add(1, Relaxed);
        for (index, piece) in pieces.iter().enumerate() {
            let last = index.saturating_add(1) == pieces.len();
            let len = piece.len.saturating_sub(if last { cut } else { 0 });
            // SAFETY: The bio is ours until it is submitted. The frames are pinned, and stay so until the request has
            // ended, because memory is exchanged or dropped only when nothing is in flight.
            if !unsafe { bindings::avio_bio_add_frame(bio, piece.frame, len, piece.offset) } {
                // SAFETY: The bio is ours and was not submitted; its `end_io` runs here.
                unsafe {
                    (*bio).bi_status = bindings::errno_to_blk_status(EIO.to_errno());
                    bindings::bio_endio(bio);
                }
                return false;
            }
            self.sector = self
                .sector
                .saturating_add(u64::from(len) / avio_abi::SECTOR_SIZE);
        }
        // SAFETY: The bio is complete, and now belongs to the block layer.
        unsafe { bindings::submit_bio(bio) };
        true
    }
}

/// A bio has ended. Runs in any context.
///
/// # Safety
///
/// `bio` was made by [`Flight::send_one`] with this `O`, and has ended.
unsafe extern "C" fn end_io<O: BioOwner>(bio: *mut bindings::bio) {
    // SAFETY: By the function's requirement the bio is ours again, and carries a place of a `Bios<O>`, both of which
    // stay until `in_flight` counts this request no more.
    let (place, bios, errno) = unsafe {
        let place = &*(*bio).bi_private.cast::<Place>();
        let errno = bindings::blk_status_to_errno((*bio).bi_status);
        bindings::bio_put(bio);
        (place, &*(*place.bios.get()).cast::<Bios<O>>(), errno)
    };
    if errno != 0 {
        place.errno.store(errno, Relaxed);
    }
    bios.one_ended(place);
}
