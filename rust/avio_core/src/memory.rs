// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! From guest-physical addresses to host page frames.
//!
//! [`MemoryTable::translate`] is the only way: whatever a guest gives as an address becomes [`Pieces`] of pinned
//! memory here or nothing. Nothing below takes a raw guest address.

use crate::cut::Piece;
use avio_abi::PAGE_SIZE;
use core::cmp::Ordering;
use core::ops::Deref;

/// A guest-physical address, as the guest gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuestAddr(pub u64);

/// What the device is about to do with guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read it.
    DeviceReads,
    /// Write it.
    DeviceWrites,
}

/// An address range that is not wholly in guest memory, or that the device may not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadAddress;

/// First address that no region may reach: 52 bits are what x86-64 and arm64 define.
pub(crate) const ADDRESS_END: u64 = 1 << 52;

/// Guest pages that are adjacent in host memory too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First guest page: guest-physical address divided by [`PAGE_SIZE`].
    pub guest_page: u64,
    /// First host page frame. This crate only adds to it.
    pub frame: u64,
    /// Number of pages, not zero.
    pub pages: u64,
    /// Whether the device may write them.
    pub writable: bool,
}

impl Run {
    /// Adds `next` to this run if it goes on in the guest and in the host; whether it did.
    pub fn merge(&mut self, next: &Run) -> bool {
        let goes_on = |start: u64, after: u64| start.checked_add(self.pages) == Some(after);
        let adjacent = goes_on(self.guest_page, next.guest_page)
            && goes_on(self.frame, next.frame)
            && self.writable == next.writable;
        match self.pages.checked_add(next.pages) {
            Some(pages) if adjacent => {
                self.pages = pages;
                true
            }
            _ => false,
        }
    }

    fn end_page(&self) -> u64 {
        self.guest_page.saturating_add(self.pages)
    }
}

/// All guest memory that the device may touch.
///
/// # Invariants
///
/// Runs are in order of `guest_page`, not empty, do not overlap, and end below [`ADDRESS_END`].
pub struct MemoryTable<V>(V);

impl<V: Deref<Target = [Run]>> MemoryTable<V> {
    /// A table of these runs; `None` if they break the invariant.
    pub fn new(runs: V) -> Option<Self> {
        let mut free_from = 0;
        for run in runs.iter() {
            let end = run.guest_page.checked_add(run.pages)?;
            run.frame.checked_add(run.pages)?;
            if run.guest_page < free_from || run.pages == 0 || end > ADDRESS_END / PAGE_SIZE {
                return None;
            }
            free_from = end;
        }
        // INVARIANT: just checked.
        Some(Self(runs))
    }

    /// The place of the run that has a page. A request's segments, and those of requests in a row, mostly lie in one run or
    /// two neighbours: those at `near` are tried first.
    fn find(&self, page: u64, near: usize) -> Option<usize> {
        let has = |place: usize| {
            let run = self.0.get(place)?;
            (run.guest_page <= page && page < run.end_page()).then_some(place)
        };
        let around = |run: &Run| {
            if run.end_page() <= page {
                Ordering::Less
            } else if run.guest_page > page {
                Ordering::Greater
            } else {
                Ordering::Equal
            }
        };
        has(near)
            .or_else(|| has(near.saturating_add(1)))
            .or_else(|| self.0.binary_search_by(around).ok())
    }

    /// The runs, in order of their guest pages.
    pub fn runs(&self) -> &[Run] {
        &self.0
    }

    /// The host memory behind `len` bytes of guest memory at `addr`.
    ///
    /// Every address of the range lies in a run that allows the access, or the answer is an error. A range may cross
    /// from run to run where the guest addresses go on. An empty range is an error.
    pub fn translate(
        &self,
        addr: GuestAddr,
        len: u32,
        access: Access,
    ) -> Result<Pieces<'_>, BadAddress> {
        self.translate_near(addr, len, access, &mut Near::default())
    }

    /// The same, which begins to look where the last address was found, and keeps where this one was.
    pub fn translate_near(
        &self,
        addr: GuestAddr,
        len: u32,
        access: Access,
        near: &mut Near,
    ) -> Result<Pieces<'_>, BadAddress> {
        let end = addr.0.checked_add(u64::from(len)).ok_or(BadAddress)?;
        if len == 0 || end > ADDRESS_END {
            return Err(BadAddress);
        }
        near.0 = self.find(addr.0 / PAGE_SIZE, near.0).ok_or(BadAddress)?;
        let runs = self.0.get(near.0..).ok_or(BadAddress)?;

        let mut next_page = runs.first().ok_or(BadAddress)?.guest_page;
        let mut covering = 0usize;
        for run in runs {
            let allowed = run.writable || access == Access::DeviceReads;
            if run.guest_page != next_page || !allowed {
                return Err(BadAddress);
            }
            covering = covering.saturating_add(1);
            next_page = run.end_page();
            if end <= next_page.saturating_mul(PAGE_SIZE) {
                let runs = runs.get(..covering).ok_or(BadAddress)?;
                return Ok(Pieces {
                    runs,
                    addr: addr.0,
                    left: len,
                });
            }
        }
        Err(BadAddress)
    }
}

/// Where in a table an address was found. In another table it is a guess as good as any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Near(pub usize);

/// The host memory behind a range of guest memory, in order.
///
/// # Invariants
///
/// `runs` are adjacent in the guest, and hold all `left` bytes from `addr` on.
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    runs: &'a [Run],
    addr: u64,
    left: u32,
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let (run, rest) = self.runs.split_first()?;
        if self.left == 0 {
            return None;
        }
        let page = self.addr / PAGE_SIZE;
        let run_end = run.end_page().saturating_mul(PAGE_SIZE);
        let in_run = run_end.saturating_sub(self.addr);
        let len = u32::try_from(in_run).unwrap_or(u32::MAX).min(self.left);
        let piece = Piece {
            frame: run
                .frame
                .saturating_add(page.saturating_sub(run.guest_page)),
            offset: (self.addr % PAGE_SIZE) as u32,
            len,
        };
        self.runs = rest;
        self.addr = run_end;
        self.left = self.left.saturating_sub(len);
        Some(piece)
    }
}

#[cfg_attr(avio_kunit, kernel::macros::kunit_tests(avio_memory))]
#[cfg(any(test, avio_kunit))]
mod tests {
    use super::*;

    const RUNS: [Run; 3] = [
        Run {
            guest_page: 1,
            frame: 100,
            pages: 2,
            writable: true,
        },
        Run {
            guest_page: 3,
            frame: 50,
            pages: 1,
            writable: true,
        },
        Run {
            guest_page: 8,
            frame: 7,
            pages: 4,
            writable: false,
        },
    ];

    const fn piece(frame: u64, offset: u32, len: u32) -> Option<Piece> {
        Some(Piece { frame, offset, len })
    }

    /// The pieces of a range that the device reads, looked for first at a place.
    fn pieces(addr: u64, len: u32, near: usize) -> Option<[Option<Piece>; 3]> {
        let table = MemoryTable::new(&RUNS[..])?;
        let (addr, read) = (GuestAddr(addr), Access::DeviceReads);
        let mut pieces = table
            .translate_near(addr, len, read, &mut Near(near))
            .ok()?;
        Some([pieces.next(), pieces.next(), pieces.next()])
    }

    #[test]
    fn a_range_is_one_piece_for_each_run_wherever_it_is_looked_for() {
        for near in [0, 1, 2, 3, usize::MAX] {
            let both = [piece(101, 0xff0, 0x10), piece(50, 0, 0x10), None];
            assert_eq!(pieces(0x2ff0, 0x20, near), Some(both));
            let adjacent = [piece(100, 0x800, 0x1000), None, None];
            assert_eq!(pieces(0x1800, 0x1000, near), Some(adjacent));
            assert_eq!(pieces(0x7fff, 2, near), None);
        }
    }

    #[test]
    fn m1_addresses_outside_every_run_are_refused() {
        let table = MemoryTable::new(&RUNS[..]).unwrap();
        for addr in [
            0,
            0xfff,
            0x4000,
            0x7fff,
            0xc000,
            ADDRESS_END - 1,
            ADDRESS_END,
            u64::MAX,
        ] {
            assert!(table
                .translate(GuestAddr(addr), 1, Access::DeviceReads)
                .is_err());
        }
    }

    #[test]
    fn m2_ranges_into_a_hole_are_refused() {
        let table = MemoryTable::new(&RUNS[..]).unwrap();
        assert!(table
            .translate(GuestAddr(0x3fff), 1, Access::DeviceReads)
            .is_ok());
        assert!(table
            .translate(GuestAddr(0x3fff), 2, Access::DeviceReads)
            .is_err());
        assert!(table
            .translate(GuestAddr(0x3000), 0x6000, Access::DeviceReads)
            .is_err());
    }

    #[test]
    fn m3_ranges_that_wrap_are_refused() {
        let table = MemoryTable::new(&RUNS[..]).unwrap();
        assert!(table
            .translate(GuestAddr(u64::MAX - 10), 100, Access::DeviceReads)
            .is_err());
        assert!(table
            .translate(GuestAddr(0x1000), u32::MAX, Access::DeviceReads)
            .is_err());
    }

    #[test]
    fn m6_read_only_runs_are_not_written() {
        let table = MemoryTable::new(&RUNS[..]).unwrap();
        assert!(table
            .translate(GuestAddr(0x8000), 0x4000, Access::DeviceReads)
            .is_ok());
        assert!(table
            .translate(GuestAddr(0x8000), 1, Access::DeviceWrites)
            .is_err());
    }

    #[test]
    fn empty_ranges_and_empty_tables_give_nothing() {
        let table = MemoryTable::new(&RUNS[..]).unwrap();
        assert!(table
            .translate(GuestAddr(0x1000), 0, Access::DeviceReads)
            .is_err());
        let none: &[Run] = &[];
        assert!(MemoryTable::new(none)
            .unwrap()
            .translate(GuestAddr(0), 1, Access::DeviceReads)
            .is_err());
    }

    #[test]
    fn tables_that_overlap_or_are_out_of_order_are_not_made() {
        let overlap = [
            RUNS[0],
            Run {
                guest_page: 2,
                frame: 0,
                pages: 1,
                writable: true,
            },
        ];
        assert!(MemoryTable::new(&overlap[..]).is_none());
        let order = [RUNS[1], RUNS[0]];
        assert!(MemoryTable::new(&order[..]).is_none());
        let empty = [Run {
            guest_page: 2,
            frame: 0,
            pages: 0,
            writable: true,
        }];
        assert!(MemoryTable::new(&empty[..]).is_none());
    }

    #[test]
    fn runs_merge_only_when_adjacent_on_both_sides() {
        let mut run = RUNS[0];
        assert!(!run.merge(&RUNS[1]));
        assert!(run.merge(&Run {
            guest_page: 3,
            frame: 102,
            pages: 5,
            writable: true
        }));
        assert_eq!(run.pages, 7);
        assert!(!run.merge(&Run {
            guest_page: 8,
            frame: 107,
            pages: 1,
            writable: false
        }));
    }
}
