// SPDX-License-Identifier: GPL-2.0

//! One request on its way to the block layer, in as many bios as it takes, and back.

use super::bios::{BioOwner, Bios, Origin, OwnBio, Place, OWN_PIECES};
use super::disk::{Target, NOWAIT};
use avio_bindings as bindings;
use avio_core::cut::{bio_part, Piece};
use core::marker::PhantomData;
use core::mem::{offset_of, replace};
use core::ptr;
use kernel::error::code::*;
use kernel::sync::atomic::Relaxed;

/// Most pieces in one bio.
const BIO_PIECES: usize = 256;

/// Most sectors that a command without memory can name: less than the 4 GiB that a bio can, and a multiple of any
/// block size and granularity.
pub(super) const MAX_RANGE_SECTORS: u32 = 1 << 22;

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
    /// Forget so many sectors, at most as many as the LUN's description says.
    Discard(u32),
    /// Forget so many sectors, and every copy, likewise.
    SecureErase(u32),
    /// Make so many sectors zero, likewise.
    WriteZeroes {
        /// How many.
        sectors: u32,
        /// They stay allocated.
        keep: bool,
    },
}

impl Op {
    pub(super) const fn opf(self) -> u32 {
        const SYNC: u32 =
            1 << bindings::req_flag_bits___REQ_SYNC | 1 << bindings::req_flag_bits___REQ_IDLE;
        let write = bindings::req_op_REQ_OP_WRITE | SYNC;
        match self {
            Self::Read => bindings::req_op_REQ_OP_READ,
            Self::Write { fua: false } => write,
            Self::Write { fua: true } => write | 1 << bindings::req_flag_bits___REQ_FUA,
            Self::Flush => write | 1 << bindings::req_flag_bits___REQ_PREFLUSH,
            Self::Discard(_) => bindings::req_op_REQ_OP_DISCARD,
            Self::SecureErase(_) => bindings::req_op_REQ_OP_SECURE_ERASE,
            Self::WriteZeroes { keep: false, .. } => bindings::req_op_REQ_OP_WRITE_ZEROES,
            Self::WriteZeroes { keep: true, .. } => {
                bindings::req_op_REQ_OP_WRITE_ZEROES | 1 << bindings::req_flag_bits___REQ_NOUNMAP
            }
        }
    }

    /// Bytes of a bio that has no memory.
    const fn size(self) -> u32 {
        match self {
            Self::Read | Self::Write { .. } | Self::Flush => 0,
            Self::Discard(sectors)
            | Self::SecureErase(sectors)
            | Self::WriteZeroes { sectors, .. } => {
                sectors.saturating_mul(avio_abi::SECTOR_SIZE as u32)
            }
        }
    }
}

/// A request that is being submitted, bio by bio.
pub(super) struct Flight<'a, O: BioOwner> {
    slot: &'a Place,
    target: &'a Target,
    op: Op,
    sector: u64,
    /// The place's own bio was not used yet.
    first: bool,
    owner: PhantomData<O>,
}

impl<'a, O: BioOwner> Flight<'a, O> {
    /// A request in a place that the submitter has won.
    pub(super) fn new(slot: &'a Place, target: &'a Target, op: Op, sector: u64) -> Self {
        Self {
            slot,
            target,
            op,
            sector,
            first: true,
            owner: PhantomData,
        }
    }

    /// Submits everything, in as many bios as it takes.
    pub(super) fn send(&mut self, pieces: &mut [Piece]) {
        let block = self.target.file.logical_block();
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
        let own = self.slot.own_bio.get().cast::<OwnBio>();
        let first = replace(&mut self.first, false);
        let own = if first && pieces.len() <= OWN_PIECES {
            own
        } else {
            ptr::null_mut()
        };
        // SAFETY: The device is open. `end_io` gets the place back, which outlives the bio, as does the `Bios` that it
        // names: that waits for `in_flight` before it goes. The place's own bio is nobody's, as the submitter has won the
        // place, and we pass it once. With GFP_NOIO and so few vectors the allocation waits, it does not fail.
        let bio = unsafe {
            bindings::avio_bio_make(
                own.cast(),
                own.wrapping_byte_add(offset_of!(OwnBio, table)).cast(),
                self.target.file.as_ptr(),
                vecs,
                self.op.opf(),
                self.sector,
                self.op.size(),
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
        // What `end_io` knows how to make anew. The rest may have the block layer sleep even where it is told not to.
        let may_be_refused = first && matches!(self.op, Op::Read | Op::Write { .. });
        // SAFETY: The bio is complete, and now belongs to the target, whose disk waits for the request.
        unsafe { self.target.submit(bio, may_be_refused) };
        true
    }
}

/// A bio has ended. Runs in any context.
///
/// # Safety
///
/// `bio` was made by [`Flight::send_one`] with this `O`, and has ended.
unsafe extern "C" fn end_io<O: BioOwner>(bio: *mut bindings::bio) {
    // SAFETY: By the function's requirement the bio is ours again, and carries a place that was won for a `Bios<O>` and
    // counts this bio; it stays until the request has ended, which is not before `one_ended`.
    unsafe {
        let place = &*(*bio).bi_private.cast::<Place>();
        let errno = bindings::blk_status_to_errno((*bio).bi_status);
        if errno != 0 && was_refused(bio, errno) {
            return submit_anew(bio, *place.origin.get());
        }
        if bio == place.own_bio.get().cast() {
            bindings::bio_uninit(bio);
        } else {
            bindings::bio_put(bio);
        }
        if errno != 0 {
            place.errno.store(errno, Relaxed);
        }
        Bios::<O>::one_ended(place);
    }
}

/// Whether a bio ended with this errno because to carry it out would have kept its submitter waiting. A driver that does
/// not know [`NOWAIT`], though it had said so when the bio was submitted, does not support it.
///
/// # Safety
///
/// The bio is the caller's.
unsafe fn was_refused(bio: *mut bindings::bio, errno: i32) -> bool {
    let refusals = [EAGAIN.to_errno(), EOPNOTSUPP.to_errno()];
    // SAFETY: By the function's requirement.
    unsafe { (*bio).bi_opf & NOWAIT != 0 && refusals.contains(&errno) }
}

/// Has a bio that was refused submitted once more, by who may wait. Drivers may have sent it elsewhere, or carried out
/// parts of it: it becomes what it was at first.
///
/// # Safety
///
/// The bio is the caller's, who gives it up, and the first one of a request that has this origin.
unsafe fn submit_anew(bio: *mut bindings::bio, origin: Origin) {
    // SAFETY: By the function's requirement; the target stays until the request has ended, which it may have when the last
    // of these calls returns. A bio that may be refused has vectors, which drivers leave as they are.
    unsafe {
        let target = &*origin.target;
        (*bio).bi_bdev = target.file.as_ptr();
        (*bio).bi_iter.bi_sector = origin.sector;
        (*bio).bi_opf = origin.opf;
        let deferred = target.deferred.as_ptr();
        bindings::avio_deferred_submit(deferred, bio);
    }
}
