// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Every case of small size: memory tables, and the regions of which they are made, against models of single pages.

#![cfg(not(loom))]

use avio_abi::ioctl::{region_flags, Region, SetupError};
use avio_abi::PAGE_SIZE;
use avio_core::memory::{Access, GuestAddr, MemoryTable, Near, Run};
use avio_core::regions::check_regions;

/// First page that no table may hold.
const END_PAGE: u64 = (1 << 52) / PAGE_SIZE;

/// Runs that begin and end at every interesting place. Frames are such that neighbours are not adjacent in the host.
fn all_runs() -> Vec<Run> {
    let mut runs = Vec::new();
    for guest_page in [0, 1, 2, 3, 5, END_PAGE - 2, END_PAGE - 1] {
        for pages in [1, 2] {
            for writable in [true, false] {
                runs.push(Run {
                    guest_page,
                    frame: 1000 - 10 * (guest_page % 64),
                    pages,
                    writable,
                });
            }
        }
    }
    runs
}

/// The frame of a guest page, found the slow way.
fn frame(runs: &[Run], page: u64, access: Access) -> Option<u64> {
    let run = runs
        .iter()
        .find(|run| (run.guest_page..run.guest_page + run.pages).contains(&page))?;
    (run.writable || access == Access::DeviceReads).then(|| run.frame + (page - run.guest_page))
}

/// Checks one translation: granted exactly when every page of the range is there, and then byte for byte the same.
fn check(table: &MemoryTable<&[Run]>, addr: u64, len: u32, access: Access) {
    let runs = table.runs();
    let last = u64::from(len)
        .checked_sub(1)
        .and_then(|more| addr.checked_add(more));
    let pages = last.map(|last| addr / PAGE_SIZE..=last / PAGE_SIZE);
    let legal =
        pages.is_some_and(|mut pages| pages.all(|page| frame(runs, page, access).is_some()));
    let found = table.translate(GuestAddr(addr), len, access);
    // Wherever a look-up begins.
    for place in 0..=runs.len() {
        let again = table.translate_near(GuestAddr(addr), len, access, &mut Near(place));
        let same = match (&found, again) {
            (Ok(found), Ok(again)) => found.clone().eq(again),
            (found, again) => found.is_err() && again.is_err(),
        };
        assert!(
            same,
            "{addr:#x}+{len:#x}, looked for at {place} in {runs:?}"
        );
    }
    let Ok(pieces) = found else {
        return assert!(
            !legal,
            "{addr:#x}+{len:#x} {access:?} was refused in {runs:?}"
        );
    };
    assert!(
        legal,
        "{addr:#x}+{len:#x} {access:?} was granted in {runs:?}"
    );
    let mut at = addr;
    for piece in pieces {
        assert!(u64::from(piece.offset) < PAGE_SIZE && piece.len > 0);
        let mut host = piece.frame * PAGE_SIZE + u64::from(piece.offset);
        let piece_end = at + u64::from(piece.len);
        while at < piece_end {
            let frame = frame(runs, at / PAGE_SIZE, access).expect("legal");
            assert_eq!(
                host,
                frame * PAGE_SIZE + at % PAGE_SIZE,
                "{addr:#x}+{len:#x} in {runs:?}"
            );
            let step = (PAGE_SIZE - at % PAGE_SIZE).min(piece_end - at);
            at += step;
            host += step;
        }
    }
    assert_eq!(at, addr + u64::from(len), "the pieces cover the range");
}

#[test]
fn m1_m2_m3_m6_every_small_table_translates_as_its_pages_say() {
    let all = all_runs();
    let mut tables: Vec<Vec<Run>> = vec![vec![]];
    for (i, first) in all.iter().enumerate() {
        tables.push(vec![*first]);
        for (j, second) in all.iter().enumerate().skip(i) {
            tables.push(vec![*first, *second]);
            tables.extend(
                all.iter()
                    .skip(j)
                    .map(|third| vec![*first, *second, *third]),
            );
        }
    }
    let mut addrs: Vec<u64> = Vec::new();
    for page in [
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        END_PAGE - 3,
        END_PAGE - 2,
        END_PAGE - 1,
        END_PAGE,
    ] {
        let start = page * PAGE_SIZE;
        addrs.extend([start.wrapping_sub(1), start, start + 1, start + 0x800]);
    }
    addrs.extend([u64::MAX - PAGE_SIZE, 1 << 63]);
    let lens = [
        0,
        1,
        2,
        0x7ff,
        0x800,
        0xfff,
        0x1000,
        0x1001,
        0x2000,
        0x3000,
        0x4001,
        1 << 31,
        u32::MAX,
    ];
    let mut made = 0;
    for runs in &tables {
        let legal = runs
            .windows(2)
            .all(|two| two[0].guest_page + two[0].pages <= two[1].guest_page)
            && runs
                .iter()
                .all(|run| run.guest_page + run.pages <= END_PAGE);
        let table = MemoryTable::new(&runs[..]);
        assert_eq!(table.is_some(), legal, "{runs:?}");
        let Some(table) = table else { continue };
        made += 1;
        for &addr in &addrs {
            for len in lens {
                check(&table, addr, len, Access::DeviceReads);
                check(&table, addr, len, Access::DeviceWrites);
            }
        }
    }
    assert!(made > 500, "{made} tables");
}

#[test]
fn m3_lengths_up_to_the_largest_stay_in_long_runs() {
    let pages = (u64::from(u32::MAX) + 1) / PAGE_SIZE;
    for pages in [pages - 1, pages, pages + 1] {
        let runs = [Run {
            guest_page: 1,
            frame: 7,
            pages,
            writable: true,
        }];
        let table = MemoryTable::new(&runs[..]).expect("a legal table");
        for addr in [PAGE_SIZE, PAGE_SIZE + 1, PAGE_SIZE + 2, 2 * PAGE_SIZE] {
            for len in [u32::MAX, u32::MAX - 1, u32::MAX - 4096] {
                let fits = addr + u64::from(len) <= (1 + pages) * PAGE_SIZE;
                let pieces = table.translate(GuestAddr(addr), len, Access::DeviceWrites);
                assert_eq!(pieces.is_ok(), fits, "{addr:#x}+{len:#x} of {pages} pages");
                let Ok(pieces) = pieces else { continue };
                assert_eq!(
                    pieces.map(|piece| u64::from(piece.len)).sum::<u64>(),
                    u64::from(len)
                );
            }
        }
    }
}

#[test]
fn runs_at_the_end_of_numbers_are_refused() {
    for (guest_page, frame, pages) in [
        (u64::MAX, 0, 1),
        (0, u64::MAX, 1),
        (u64::MAX, 0, u64::MAX),
        (1, 0, u64::MAX),
        (END_PAGE, 0, 1),
        (0, 0, 0),
    ] {
        let runs = [Run {
            guest_page,
            frame,
            pages,
            writable: true,
        }];
        assert!(MemoryTable::new(&runs[..]).is_none(), "{runs:?}");
    }
}

/// Guest pages by which regions are told apart: all that one of them begins at, or could wrongly wrap to.
const PAGES: [u64; 9] = [
    0,
    1,
    2,
    3,
    4,
    END_PAGE - 2,
    END_PAGE - 1,
    END_PAGE,
    u64::MAX / PAGE_SIZE,
];

/// A region, and what the specification says of it.
#[derive(Clone, Debug)]
struct Candidate {
    region: Region,
    /// What is wrong with it by itself.
    fault: Option<SetupError>,
    /// Which of [`PAGES`] it has.
    pages: [bool; PAGES.len()],
}

impl Candidate {
    fn new(region: Region) -> Self {
        let end = |start: u64| u128::from(start) + u128::from(region.size);
        let whole = |value: u64| value.trailing_zeros() >= 12;
        let reserved = region.flags > region_flags::READ_ONLY || region.reserved > 0;
        let bounds = region.size == 0
            || !whole(region.guest_addr)
            || !whole(region.size)
            || !whole(region.user_addr)
            || end(region.guest_addr) > 1 << 52
            || end(region.user_addr) >= 1 << 64;
        let has = |page: u64| {
            let addr = u128::from(page) * u128::from(PAGE_SIZE);
            u128::from(region.guest_addr) <= addr && addr < end(region.guest_addr)
        };
        Self {
            region,
            fault: match (reserved, bounds) {
                (true, _) => Some(SetupError::Reserved),
                (_, true) => Some(SetupError::RegionBounds),
                _ => None,
            },
            pages: PAGES.map(has),
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        let both = |(ours, theirs): (&bool, &bool)| *ours && *theirs;
        self.pages.iter().zip(&other.pages).any(both)
    }
}

const GUESTS: [u64; 12] = [
    0,
    PAGE_SIZE,
    2 * PAGE_SIZE,
    3 * PAGE_SIZE,
    (END_PAGE - 2) * PAGE_SIZE,
    (END_PAGE - 1) * PAGE_SIZE,
    END_PAGE * PAGE_SIZE,
    // Not whole pages, or at the end of numbers.
    1,
    PAGE_SIZE - 1,
    END_PAGE * PAGE_SIZE - 1,
    u64::MAX - (PAGE_SIZE - 1),
    u64::MAX,
];
const SIZES: [u64; 12] = [
    PAGE_SIZE,
    2 * PAGE_SIZE,
    3 * PAGE_SIZE,
    (END_PAGE - 1) * PAGE_SIZE,
    END_PAGE * PAGE_SIZE,
    (END_PAGE + 1) * PAGE_SIZE,
    0,
    1,
    PAGE_SIZE + 1,
    1 << 63,
    u64::MAX - (PAGE_SIZE - 1),
    u64::MAX,
];
const USERS: [u64; 7] = [
    0x7000_0000,
    0,
    1 << 63,
    u64::MAX - (2 * PAGE_SIZE - 1),
    u64::MAX - (PAGE_SIZE - 1),
    0x7000_0001,
    u64::MAX,
];
/// Flags, and the reserved field.
const MARKS: [(u32, u32); 5] = [(0, 0), (1, 0), (2, 0), (1 << 31, 0), (0, 1)];

/// Every region of these.
fn regions(guests: &[u64], sizes: &[u64], users: &[u64], marks: &[(u32, u32)]) -> Vec<Candidate> {
    let mut all = Vec::new();
    for &guest_addr in guests {
        for &size in sizes {
            for &user_addr in users {
                for &(flags, reserved) in marks {
                    all.push(Candidate::new(Region {
                        guest_addr,
                        size,
                        user_addr,
                        flags,
                        reserved,
                    }));
                }
            }
        }
    }
    all
}

/// Whether the regions, in order of their addresses, make a memory table.
fn makes_table(list: &[&Candidate]) -> bool {
    let run = |candidate: &&Candidate| Run {
        guest_page: candidate.region.guest_addr / PAGE_SIZE,
        frame: 0,
        pages: candidate.region.size / PAGE_SIZE,
        writable: candidate.region.flags & region_flags::READ_ONLY == 0,
    };
    let mut runs: Vec<_> = list.iter().map(run).collect();
    runs.sort_by_key(|run| run.guest_page);
    MemoryTable::new(&runs[..]).is_some()
}

/// Checks a list of regions: the first that is wrong by itself, or that overlaps with an earlier one, is named. Whether it
/// is legal.
fn check_list(list: &[&Candidate]) -> bool {
    let wrong = |index: usize| {
        let overlaps = list[..index]
            .iter()
            .any(|other| other.overlaps(list[index]));
        let overlap = overlaps.then_some(SetupError::RegionOverlap);
        list[index].fault.or(overlap).map(|fault| (fault, index))
    };
    let expected = (0..list.len()).find_map(wrong);
    let regions: Vec<_> = list.iter().map(|candidate| candidate.region).collect();
    assert_eq!(check_regions(&regions).err(), expected, "{regions:x?}");
    let legal = expected.is_none();
    assert!(!legal || makes_table(list), "no table of {regions:x?}");
    legal
}

#[test]
fn m4_every_list_of_up_to_three_regions_is_accepted_exactly_when_its_pages_say_so() {
    let mut accepted = [0; 4];
    let mut check = |list: &[&Candidate]| accepted[list.len()] += u32::from(check_list(list));
    check(&[]);
    let all = regions(&GUESTS, &SIZES, &USERS, &MARKS);
    let few = regions(&GUESTS, &SIZES, &USERS[..1], &MARKS[..1]);
    for first in &all {
        check(&[first]);
        for second in &few {
            check(&[first, second]);
            check(&[second, first]);
        }
    }
    let fewer = regions(&GUESTS[..8], &SIZES[..8], &USERS[..1], &MARKS[..1]);
    for first in &fewer {
        for second in &fewer {
            for third in &fewer {
                check(&[first, second, third]);
            }
        }
    }
    println!("{accepted:?} of lists of so many regions were accepted");
    assert_eq!(accepted[0], 1);
    assert!(accepted.iter().skip(1).all(|count| *count > 100));
}
