// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Requests of a hostile driver through all steps of parsing, and what must hold of those that are accepted.

use super::case::Case;
use avio_abi::ring::{segment_flags, Segment, Submission, MAX_REQUEST_BYTES, MAX_SEGMENTS};
use avio_abi::stor::{lun_flags, LunInfo};
use avio_abi::wire::Wire;
use avio_abi::{features, PAGE_SIZE, SECTOR_SIZE};
use avio_core::memory::{Access, GuestAddr, MemoryTable, Run};
use avio_core::request::{Command, Layout, Request};
use avio_core::segments::Segments;

/// The kinds of requests that can be accepted: commands, and where their segments are.
pub const KINDS: [&str; 8] = [
    "READ, inline",
    "READ, list",
    "WRITE, inline",
    "WRITE, list",
    "FLUSH",
    "DISCARD",
    "SECURE_ERASE",
    "WRITE_ZEROES",
];

/// A request that was accepted, and its segments.
pub struct Accepted {
    pub request: Request,
    pub ranges: Vec<(GuestAddr, u32)>,
    /// How many sectors it is about.
    pub sectors: u32,
}

/// A request through all three steps of parsing; `None` if it was refused.
pub fn accept(
    entry: &Submission,
    list: &[Segment],
    lun: &LunInfo,
    offered: u64,
) -> Option<Accepted> {
    let request = Request::parse(entry, offered).ok()?;
    let segments = match request.layout {
        Layout::Inline(count) => &entry.inline[..count],
        Layout::List {
            segments, bytes, ..
        } => {
            assert!((1..=MAX_SEGMENTS as usize).contains(&segments));
            assert_eq!(bytes as usize, segments * Segment::SIZE);
            list.get(..segments)?
        }
        Layout::Range(_) => &[],
    };
    let mut sum = Segments::new(request.command, lun);
    let ranges = segments
        .iter()
        .map(|segment| sum.add(segment))
        .collect::<Result<Vec<_>, _>>()
        .ok()?;
    let direction = match request.command.access() {
        Access::DeviceWrites => segment_flags::DEVICE_WRITES,
        Access::DeviceReads => 0,
    };
    for (segment, (addr, len)) in segments.iter().zip(&ranges) {
        assert_eq!((segment.addr, segment.len), (addr.0, *len));
        assert_eq!(segment.flags, direction, "of {:?}", request.command);
    }
    let sectors = request.check(sum.bytes(), lun).ok()?;
    let accepted = Accepted {
        request,
        ranges,
        sectors,
    };
    accepted.is_legal(sum.bytes(), lun, offered);
    Some(accepted)
}

impl Accepted {
    /// Checks all that the block layer will rely on.
    fn is_legal(&self, bytes: u32, lun: &LunInfo, offered: u64) {
        let total: u64 = self.ranges.iter().map(|(_, len)| u64::from(*len)).sum();
        assert_eq!(total, u64::from(bytes));
        assert!(bytes <= lun.max_bytes && bytes <= MAX_REQUEST_BYTES);
        let command = self.request.command;
        assert!(command == Command::Read || lun.flags & lun_flags::READ_ONLY == 0);
        let needed = match command {
            Command::Read | Command::Write { fua: false } => 0,
            Command::Write { fua: true } => features::FUA,
            Command::Flush => features::FLUSH,
            _ => features::RANGES,
        };
        assert_eq!(needed & !offered, 0, "{command:?} was not negotiated");
        let most = match command {
            Command::Flush => 0,
            Command::Discard => lun.max_discard,
            Command::SecureErase => lun.max_secure_erase,
            Command::WriteZeroes { .. } => lun.max_write_zeroes,
            Command::Read | Command::Write { .. } => {
                assert_eq!(u64::from(bytes), u64::from(self.sectors) * SECTOR_SIZE);
                MAX_REQUEST_BYTES / SECTOR_SIZE as u32
            }
        };
        assert!(self.sectors <= most, "{command:?} of {}", self.sectors);
        assert_eq!(self.sectors == 0, command == Command::Flush);
        let block = u128::from(lun.logical_block) / u128::from(SECTOR_SIZE);
        let end = u128::from(self.request.sector) + u128::from(self.sectors);
        assert!(u128::from(self.request.sector) % block == 0 && end % block == 0);
        assert!(end <= u128::from(lun.sectors));
        assert!(command != Command::Flush || end == 0);
        let align = lun.segment_align;
        for (addr, len) in &self.ranges {
            assert!(*len > 0 && addr.0 % u64::from(align) == 0 && len % align == 0);
        }
    }

    /// Which command it is and where its segments are, as [`KINDS`] counts them.
    pub fn kind(&self) -> usize {
        let list = matches!(self.request.layout, Layout::List { .. });
        match self.request.command {
            Command::Read => usize::from(list),
            Command::Write { .. } => 2 + usize::from(list),
            Command::Flush => 4,
            Command::Discard => 5,
            Command::SecureErase => 6,
            Command::WriteZeroes { .. } => 7,
        }
    }

    /// Checks that whatever of the segments is translated lies in runs that allow it, to the byte. Whether all of them are.
    fn translates(&self, runs: &[Run]) -> bool {
        let table = MemoryTable::new(runs).expect("runs in order");
        let access = self.request.command.access();
        let mut all = true;
        for (addr, len) in &self.ranges {
            let Ok(pieces) = table.translate(*addr, *len, access) else {
                all = false;
                continue;
            };
            let mut sum = 0;
            for piece in pieces {
                let start = piece.frame * PAGE_SIZE + u64::from(piece.offset);
                let end = start + u64::from(piece.len);
                let holds = |run: &&Run| {
                    let (first, behind) = (run.frame, run.frame + run.pages);
                    first * PAGE_SIZE <= start && end <= behind * PAGE_SIZE
                };
                let run = runs.iter().find(holds).expect("a piece inside a run");
                assert!(run.writable || self.request.command != Command::Read);
                sum += u64::from(piece.len);
            }
            assert_eq!(sum, u64::from(*len));
        }
        all
    }
}

/// A request and its translation: if it is accepted, of what kind it is, and whether all its segments are in memory.
pub fn accept_case(case: &Case) -> Option<(usize, bool)> {
    let accepted = accept(&case.entry, &case.list, &case.lun, case.offered)?;
    Some((accepted.kind(), accepted.translates(&case.runs)))
}

/// A request out of a fuzzer's bytes; whether it was accepted, or `None` if there are too few.
pub fn fuzz_request(data: &[u8]) -> Option<bool> {
    Some(accept_case(&Case::from_bytes(data)?).is_some())
}
