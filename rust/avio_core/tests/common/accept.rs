// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Requests of a hostile driver through all steps of parsing, and what must hold of those that are accepted.

use super::bytes::Bytes;
use avio_abi::ring::{Segment, Submission, MAX_REQUEST_BYTES, MAX_SEGMENTS, SUBMISSION_SIZE};
use avio_abi::stor::{lun_flags, LunInfo};
use avio_abi::wire::Wire;
use avio_abi::{features, PAGE_SIZE, SECTOR_SIZE};
use avio_core::memory::{GuestAddr, MemoryTable, Run};
use avio_core::request::{Command, Layout, Request};
use avio_core::segments::Segments;

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
        assert!(end <= u128::from(lun.sectors) || command == Command::Flush);
        let align = lun.segment_align;
        for (addr, len) in &self.ranges {
            assert!(*len > 0 && addr.0 % u64::from(align) == 0 && len % align == 0);
        }
    }

    /// Checks that whatever of the segments is translated lies in runs that allow it, to the byte.
    fn translates(&self, runs: &[Run]) {
        let Some(table) = MemoryTable::new(runs) else {
            return;
        };
        let access = self.request.command.access();
        for (addr, len) in &self.ranges {
            let Ok(pieces) = table.translate(*addr, *len, access) else {
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
    }
}

fn lun(bytes: &mut Bytes<'_>) -> Option<LunInfo> {
    let logical_block = bytes.one_of(&[512, 1024, 4096])?;
    Some(LunInfo {
        flags: lun_flags::PRESENT | bytes.one_of(&[0, lun_flags::READ_ONLY])?,
        logical_block,
        sectors: bytes.one_of(&[0, 8, 2048, 1 << 40, u64::MAX / 512, u64::MAX])?,
        max_bytes: bytes.one_of(&[4096, 65536, MAX_REQUEST_BYTES])?,
        max_segments: MAX_SEGMENTS,
        segment_align: bytes.one_of(&[logical_block, 4096])?,
        max_discard: bytes.one_of(&[0, 8, u32::MAX])?,
        max_secure_erase: bytes.one_of(&[0, 8, u32::MAX])?,
        max_write_zeroes: bytes.one_of(&[0, 8, u32::MAX])?,
        ..LunInfo::ZERO
    })
}

/// Runs in order, with holes or without; each in host memory of its own.
fn runs(bytes: &mut Bytes<'_>) -> Option<Vec<Run>> {
    let (mut runs, mut next) = (Vec::new(), 0);
    for index in 0..u64::from(bytes.u8()? % 5) {
        let guest_page = next + u64::from(bytes.one_of(&[0u8, 0, 1, 7])?);
        let pages = 1 + u64::from(bytes.u8()?);
        let writable = bytes.one_of(&[true, true, false])?;
        next = guest_page + pages;
        runs.push(Run {
            guest_page,
            frame: index << 20,
            pages,
            writable,
        });
    }
    Some(runs)
}

/// A request out of a fuzzer's bytes; whether it was accepted, or `None` if there are too few.
pub fn fuzz_request(data: &[u8]) -> Option<bool> {
    let mut bytes = Bytes(data);
    let lun = lun(&mut bytes)?;
    let offered = u64::from(bytes.u8()?);
    let runs = runs(&mut bytes)?;
    let entry = Submission::from_bytes(&bytes.take::<SUBMISSION_SIZE>()?);
    let mut list = Vec::new();
    while let Some((segment, rest)) = Segment::take(bytes.0) {
        bytes.0 = rest;
        list.push(segment);
    }
    let accepted = accept(&entry, &list, &lun, offered);
    if let Some(accepted) = &accepted {
        accepted.translates(&runs);
    }
    Some(accepted.is_some())
}
