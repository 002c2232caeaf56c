// SPDX-License-Identifier: GPL-2.0

//! Guest memory: pages of the caller's, pinned for as long as a table of them lives, and counted against its limit.

use avio_abi::ioctl::{region_flags, Region, SetupError};
use avio_abi::PAGE_SIZE;
use avio_bindings as bindings;
use avio_core::memory::{Access, BadAddress, GuestAddr, MemoryTable, Near, Pieces, Run};
use core::ops::Deref;
use kernel::alloc::KVVec;
use kernel::mm::Mm;
use kernel::prelude::*;
use kernel::sync::aref::ARef;

/// Pages that are pinned at once.
const CHUNK: usize = 512;

/// Why memory could not be pinned, and the index of the region at fault.
#[derive(Clone, Copy, Debug)]
pub struct PinError {
    /// What is wrong.
    pub error: SetupError,
    /// Which region.
    pub index: usize,
}

/// Pages counted against RLIMIT_MEMLOCK of a process. Dropping it gives them back. May sleep.
struct Accounted {
    mm: ARef<Mm>,
    pages: usize,
}

impl Accounted {
    fn new(mm: ARef<Mm>, pages: usize) -> Result<Self> {
        // SAFETY: `mm` is alive.
        kernel::error::to_result(unsafe { bindings::account_locked_vm(mm.as_raw(), pages, true) })?;
        Ok(Self { mm, pages })
    }
}

impl Drop for Accounted {
    fn drop(&mut self) {
        // SAFETY: `mm` is alive. Giving back what was taken in `new` does not fail.
        unsafe { bindings::account_locked_vm(self.mm.as_raw(), self.pages, false) };
    }
}

/// Runs of pages that are pinned. Dropping it unpins them. May sleep.
///
/// # Invariants
///
/// Each page of each run was pinned once, for writing where the run is writable.
struct Pins(KVVec<Run>);

impl Deref for Pins {
    type Target = [Run];

    fn deref(&self) -> &[Run] {
        &self.0
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        for run in self.0.iter() {
            // SAFETY: By the type's invariant, and the frames of a run are adjacent. What the device may have
            // written becomes dirty.
            unsafe { bindings::avio_unpin(run.frame, run.pages, run.writable) };
        }
    }
}

impl Pins {
    /// Pins a region behind those that are there, `buffer` being room for [`CHUNK`] frames.
    fn add(&mut self, region: &Region, buffer: &mut [u64]) -> Result<(), SetupError> {
        let writable = region.flags & region_flags::READ_ONLY == 0;
        let mut page = region.guest_addr / PAGE_SIZE;
        let mut addr = region.user_addr;
        let mut left = region.size / PAGE_SIZE;
        while left != 0 {
            let want = left.min(buffer.len() as u64) as u32;
            // SAFETY: `buffer` has room for `want` frames. The call checks the address.
            let got = unsafe { bindings::avio_pin(addr, want, writable, buffer.as_mut_ptr()) };
            let got = usize::try_from(got).map_err(|_| match Error::from_errno(got as i32) {
                ENOMEM => SetupError::NoMemory,
                _ => SetupError::RegionUnpinnable,
            })?;
            let mut frames = buffer.iter().take(got);
            while let Some(frame) = frames.next() {
                // INVARIANT: The page was just pinned.
                let run = Run {
                    guest_page: page,
                    frame: *frame,
                    pages: 1,
                    writable,
                };
                if let Err(error) = self.push(run) {
                    frames.for_each(|frame| unpin_one(*frame));
                    return Err(error);
                }
                page = page.saturating_add(1);
                addr = addr.saturating_add(PAGE_SIZE);
                left = left.saturating_sub(1);
            }
            if got == 0 {
                return Err(SetupError::RegionUnpinnable);
            }
        }
        Ok(())
    }

    /// Adds a pinned page, or unpins it if there is no memory to remember it.
    fn push(&mut self, run: Run) -> Result<(), SetupError> {
        if self.0.last_mut().is_some_and(|last| last.merge(&run)) {
            return Ok(());
        }
        self.0
            .push(run, GFP_KERNEL_ACCOUNT | __GFP_NOWARN)
            .map_err(|_| {
                unpin_one(run.frame);
                SetupError::NoMemory
            })
    }
}

/// Unpins a page that was pinned, not written, and is in no run.
fn unpin_one(frame: u64) {
    // SAFETY: Private to this file; called for pages that `Pins::add` has just pinned.
    unsafe { bindings::avio_unpin(frame, 1, false) }
}

/// All guest memory of an adapter.
pub struct PinnedMemory {
    table: MemoryTable<Pins>,
    accounted: Accounted,
}

impl PinnedMemory {
    /// Pins memory of the calling process, given regions that passed
    /// [`check_regions`](avio_core::regions::check_regions).
    ///
    /// # Errors
    ///
    /// [`SetupError::MemoryLimit`], [`SetupError::RegionUnpinnable`] or [`SetupError::NoMemory`].
    pub fn pin(regions: &[Region]) -> Result<Self, PinError> {
        let whole = |error| PinError { error, index: 0 };
        let pages = regions.iter().fold(0u64, |sum, region| {
            sum.saturating_add(region.size / PAGE_SIZE)
        });
        let pages = usize::try_from(pages).map_err(|_| whole(SetupError::MemoryLimit))?;
        let task = current!();
        let mm = task.mm().ok_or(whole(SetupError::RegionUnpinnable))?;
        let accounted =
            Accounted::new(ARef::from(&**mm), pages).map_err(|_| whole(SetupError::MemoryLimit))?;

        let mut buffer =
            KVVec::zeroed(CHUNK, GFP_KERNEL).map_err(|_| whole(SetupError::NoMemory))?;
        let mut pins = Pins(KVVec::new());
        let mut from = 0;
        // In the order of guest addresses; the regions do not overlap, so that none is taken twice.
        while let Some((index, region)) = regions
            .iter()
            .enumerate()
            .filter(|(_, r)| r.guest_addr >= from)
            .min_by_key(|(_, r)| r.guest_addr)
        {
            pins.add(region, &mut buffer)
                .map_err(|error| PinError { error, index })?;
            from = region.guest_addr.saturating_add(region.size);
        }
        let table = MemoryTable::new(pins).ok_or(whole(SetupError::RegionOverlap))?;
        Ok(Self { table, accounted })
    }

    /// Number of pinned pages.
    pub fn pages(&self) -> u64 {
        self.accounted.pages as u64
    }

    /// The host memory behind a range of guest memory. It stays pinned as long as `self` lives.
    pub fn translate(
        &self,
        addr: GuestAddr,
        len: u32,
        access: Access,
    ) -> Result<Pieces<'_>, BadAddress> {
        self.table.translate(addr, len, access)
    }

    /// The same, looked for where the last one was found.
    pub fn translate_near(
        &self,
        addr: GuestAddr,
        len: u32,
        access: Access,
        near: &mut Near,
    ) -> Result<Pieces<'_>, BadAddress> {
        self.table.translate_near(addr, len, access, near)
    }

    /// Copies guest memory, which the guest may change meanwhile, into private memory.
    pub fn copy_from_guest(&self, addr: GuestAddr, to: &mut [u8]) -> Result<(), BadAddress> {
        let len = u32::try_from(to.len()).map_err(|_| BadAddress)?;
        let mut rest = to;
        for piece in self.translate(addr, len, Access::DeviceReads)? {
            let (part, behind) = rest
                .split_at_mut_checked(piece.len as usize)
                .ok_or(BadAddress)?;
            // SAFETY: `part` has `piece.len` bytes, and the piece lies in pages that `self` keeps pinned. That the
            // guest may write them makes the bytes arbitrary, no more: they are copied, not referred to.
            unsafe {
                bindings::avio_copy_from_frame(
                    part.as_mut_ptr().cast(),
                    piece.frame,
                    piece.offset,
                    piece.len,
                )
            };
            rest = behind;
        }
        Ok(())
    }
}
