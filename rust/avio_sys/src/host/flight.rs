// SPDX-License-Identifier: GPL-2.0

//! One request on its way to the block layer, in as many bios as it takes, and back.

use super::bios::{BioOwner, Bios, OwnBio, Place, OWN_PIECES};
use super::disk::Target;
use avio_bindings as bindings;
use avio_core::cut::{bio_part, Piece};
use core::marker::PhantomData;
use core::mem::offset_of;
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
    const fn opf(self) -> u32 {
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
        let own = if self.first && pieces.len() <= OWN_PIECES {
            own
        } else {
            ptr::null_mut()
        };
        self.first = false;
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
        // SAFETY: The bio is complete, and now belongs to the block layer. The disk keeps its cgroup until all requests
        // have ended.
        unsafe {
            match &self.target.cgroup {
                Some(cgroup) => cgroup.submit(bio),
                None => bindings::submit_bio(bio),
            }
        }
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
