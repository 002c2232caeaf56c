// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Every case of small size: memory tables against a model of single pages, and ring states against whole numbers.

#![cfg(not(loom))]

mod common;

use avio_abi::ring::{control, Broken, Completion};
use avio_abi::PAGE_SIZE;
use avio_core::memory::{Access, GuestAddr, MemoryTable, Run};
use avio_core::ring::QueueMemory;
use common::Pair;

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
    let Ok(pieces) = table.translate(GuestAddr(addr), len, access) else {
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

/// What the driver writes before the device looks once more, relative to what is legal, and how many requests end.
#[derive(Clone, Copy)]
struct Turn {
    tail: i64,
    taken: i64,
    posts: u32,
}

/// The device's own account of a ring, in whole numbers that do not wrap.
#[derive(Default)]
struct Account {
    head: i64,
    posted: i64,
    /// `SQ_TAIL` and `CQ_HEAD` as the device last believed them.
    tail: i64,
    taken: i64,
}

impl Account {
    /// What `take` must answer: whether there is an entry, or the violation.
    fn take(&mut self, entries: i64, tail: i64, taken: i64) -> Result<bool, Broken> {
        if self.head == self.tail {
            if tail < self.tail || tail - self.head > entries {
                return Err(Broken::SubmissionIndex);
            }
            self.tail = tail;
        }
        if self.head == self.tail {
            return Ok(false);
        }
        if self.head - self.taken == entries {
            if taken < self.taken || taken > self.posted {
                return Err(Broken::CompletionIndex);
            }
            self.taken = taken;
            if self.head - self.taken == entries {
                return Err(Broken::CompletionOverrun);
            }
        }
        self.head += 1;
        Ok(true)
    }
}

fn play(entries: u32, start: u32, turns: &[Turn]) {
    let mut pair = Pair::at(entries, start);
    let mut account = Account::default();
    let wrapped = |whole: i64| start.wrapping_add(whole as u32);
    for turn in turns {
        let Pair {
            memory, take, post, ..
        } = &mut pair;
        let (tail, taken) = (account.head + turn.tail, account.posted + turn.taken);
        memory.store_release(control::SQ_TAIL, wrapped(tail));
        memory.store_release(control::CQ_HEAD, wrapped(taken));
        // As often as the ring is long and once more: it must end before.
        for _ in 0..=entries {
            let expected = account.take(entries.into(), tail, taken);
            let found = take
                .take(memory, || post.posted())
                .map(|entry| entry.is_some());
            assert_eq!(found, expected, "{entries} entries from {start:#x}");
            assert_eq!(take.position(), wrapped(account.head));
            assert!(
                account.head - account.posted <= entries.into(),
                "more in flight than the ring is long"
            );
            match found {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => return,
            }
        }
        for _ in 0..turn.posts.min((account.head - account.posted) as u32) {
            post.post(
                memory,
                Completion {
                    tag: 0,
                    status: 0,
                    bytes: 0,
                },
            );
            account.posted += 1;
        }
        assert_eq!(post.posted(), wrapped(account.posted));
    }
}

#[test]
fn r1_r15_every_ring_state_takes_no_more_than_the_ring() {
    for entries in [2u32, 4] {
        let whole = i64::from(entries);
        let mut turns = Vec::new();
        for tail in [-1, 0, 1, whole, whole + 1, -(1 << 31)] {
            for taken in [-whole, -1, 0, 1] {
                turns.extend([0, 1, entries].map(|posts| Turn { tail, taken, posts }));
            }
        }
        // What ends after the last turn no longer matters.
        let last: Vec<_> = turns.iter().filter(|turn| turn.posts == 0).collect();
        for start in [0, u32::MAX - entries, u32::MAX] {
            for first in &turns {
                for second in &turns {
                    for third in &last {
                        play(entries, start, &[*first, *second, **third]);
                    }
                }
            }
        }
    }
}
