// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! From a submission entry to a storage request.
//!
//! Parsing has three steps, each on private copies: [`Request::parse`] for the entry, [`Segments::add`] for each
//! segment wherever it lay, and [`Request::check`] against the LUN. What has passed all three can be carried out.

use crate::memory::{Access, GuestAddr};
use avio_abi::ring::{
    segment_flags, Segment, Submission, INLINE_SEGMENTS, MAX_REQUEST_BYTES, MAX_SEGMENTS,
};
use avio_abi::stor::{flags, lun_flags, opcode, LunInfo, Status};
use avio_abi::wire::Wire;
use avio_abi::{features, SECTOR_SIZE};

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Blocks to memory.
    Read,
    /// Memory to blocks.
    Write {
        /// Complete only when durable.
        fua: bool,
    },
    /// Make completed writes durable.
    Flush,
}

impl Command {
    /// What the device does with the request's memory.
    pub const fn access(self) -> Access {
        match self {
            Self::Read => Access::DeviceWrites,
            Self::Write { .. } | Self::Flush => Access::DeviceReads,
        }
    }
}

/// Where a request's segments are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// In the entry: the first so many of [`Submission::inline`].
    Inline(usize),
    /// In guest memory.
    List {
        /// Where the list begins.
        addr: GuestAddr,
        /// Number of segments, from 1 to [`MAX_SEGMENTS`].
        segments: usize,
        /// Its length in bytes.
        bytes: u32,
    },
}

/// A storage request whose entry is well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub command: Command,
    /// On which LUN. Not checked yet.
    pub lun: u16,
    /// First sector, in units of [`SECTOR_SIZE`]. Not checked before [`check`](Self::check).
    pub sector: u64,
    /// Where the segments are.
    pub layout: Layout,
}

impl Request {
    /// Parses an entry, given the [`features`] that were negotiated.
    ///
    /// # Errors
    ///
    /// [`Status::Unsupported`] or [`Status::BadSegments`].
    pub fn parse(entry: &Submission, features: u64) -> Result<Self, Status> {
        let command = parse_command(entry, features)?;
        let layout = parse_layout(entry, features)?;
        let empty = matches!(layout, Layout::Inline(0));
        if (command == Command::Flush) != empty {
            return Err(Status::BadSegments);
        }
        Ok(Self {
            command,
            lun: entry.lun,
            sector: entry.sector,
            layout,
        })
    }

    /// Checks the request, whose segments have `bytes` in all, against its LUN.
    ///
    /// # Errors
    ///
    /// [`Status::ReadOnly`], [`Status::OutOfRange`] or [`Status::BadSegments`].
    pub fn check(&self, bytes: u32, lun: &LunInfo) -> Result<(), Status> {
        if self.command != Command::Read && lun.flags & lun_flags::READ_ONLY != 0 {
            return Err(Status::ReadOnly);
        }
        if self.command == Command::Flush {
            return if self.sector == 0 {
                Ok(())
            } else {
                Err(Status::OutOfRange)
            };
        }
        if bytes > lun.max_bytes {
            return Err(Status::BadSegments);
        }
        let block = u64::from(lun.logical_block);
        let whole = |value: u64| value.checked_rem(block) == Some(0);
        let start = self
            .sector
            .checked_mul(SECTOR_SIZE)
            .ok_or(Status::OutOfRange)?;
        let end = self
            .sector
            .checked_add(u64::from(bytes) / SECTOR_SIZE)
            .ok_or(Status::OutOfRange)?;
        if whole(start) && whole(u64::from(bytes)) && end <= lun.sectors {
            Ok(())
        } else {
            Err(Status::OutOfRange)
        }
    }
}

fn parse_command(entry: &Submission, offered: u64) -> Result<Command, Status> {
    let has = |feature: u64| offered & feature != 0;
    match (entry.opcode, entry.flags) {
        (opcode::READ, 0) => Ok(Command::Read),
        (opcode::WRITE, 0) => Ok(Command::Write { fua: false }),
        (opcode::WRITE, flags::FUA) if has(features::FUA) => Ok(Command::Write { fua: true }),
        (opcode::FLUSH, 0) if has(features::FLUSH) => Ok(Command::Flush),
        _ => Err(Status::Unsupported),
    }
}

fn parse_layout(entry: &Submission, offered: u64) -> Result<Layout, Status> {
    let segments = usize::from(entry.segments);
    let unused = |from: usize| {
        entry
            .inline
            .iter()
            .skip(from)
            .all(|segment| *segment == Segment::ZERO)
    };
    let [first, ..] = entry.inline;
    if segments <= INLINE_SEGMENTS && first.flags & segment_flags::LIST == 0 {
        return if unused(segments) {
            Ok(Layout::Inline(segments))
        } else {
            Err(Status::BadSegments)
        };
    }
    if offered & features::SEGMENT_LIST == 0 {
        return Err(Status::Unsupported);
    }
    let bytes = u32::from(entry.segments) * Segment::SIZE as u32;
    let legal = u32::from(entry.segments) <= MAX_SEGMENTS
        && segments > 0
        && first.flags == segment_flags::LIST
        && first.len == bytes
        && unused(1);
    if legal {
        Ok(Layout::List {
            addr: GuestAddr(first.addr),
            segments,
            bytes,
        })
    } else {
        Err(Status::BadSegments)
    }
}

/// Checks a request's segments one by one and sums them up.
pub struct Segments {
    flags: u32,
    align: u32,
    bytes: u32,
}

impl Segments {
    /// For a request of this command to this LUN.
    pub fn new(command: Command, lun: &LunInfo) -> Self {
        let flags = match command.access() {
            Access::DeviceWrites => segment_flags::DEVICE_WRITES,
            Access::DeviceReads => 0,
        };
        Self {
            flags,
            align: lun.segment_align,
            bytes: 0,
        }
    }

    /// Adds a segment and returns its address and length, to be translated.
    ///
    /// # Errors
    ///
    /// [`Status::BadSegments`]: empty, against the command's direction, unaligned, or too much in all.
    pub fn add(&mut self, segment: &Segment) -> Result<(GuestAddr, u32), Status> {
        let aligned = |value: u64| value.checked_rem(u64::from(self.align)) == Some(0);
        let sum = self
            .bytes
            .checked_add(segment.len)
            .filter(|sum| *sum <= MAX_REQUEST_BYTES);
        match sum {
            Some(sum)
                if segment.len != 0
                    && segment.flags == self.flags
                    && aligned(segment.addr)
                    && aligned(u64::from(segment.len)) =>
            {
                self.bytes = sum;
                Ok((GuestAddr(segment.addr), segment.len))
            }
            _ => Err(Status::BadSegments),
        }
    }

    /// Bytes of all segments that were added.
    pub const fn bytes(&self) -> u32 {
        self.bytes
    }
}

#[cfg_attr(avio_kunit, kernel::macros::kunit_tests(avio_request))]
#[cfg(any(test, avio_kunit))]
mod tests {
    use super::*;

    fn lun() -> LunInfo {
        LunInfo {
            flags: lun_flags::PRESENT,
            logical_block: 512,
            sectors: 1000,
            physical_block: 512,
            max_bytes: MAX_REQUEST_BYTES,
            max_segments: MAX_SEGMENTS,
            segment_align: 512,
            ..LunInfo::ZERO
        }
    }

    fn read(segments: u16, inline: [Segment; 3]) -> Submission {
        Submission {
            opcode: opcode::READ,
            flags: 0,
            tag: 0,
            lun: 0,
            segments,
            sector: 0,
            inline,
        }
    }

    fn segment(addr: u64, len: u32, flags: u32) -> Segment {
        Segment { addr, len, flags }
    }

    const NONE: Segment = Segment::ZERO;

    #[test]
    fn s3_unknown_opcodes_and_flags_are_unsupported() {
        let data = segment(0, 512, segment_flags::DEVICE_WRITES);
        for op in [0, 4, 77, 255] {
            let entry = Submission {
                opcode: op,
                ..read(1, [data, NONE, NONE])
            };
            assert_eq!(
                Request::parse(&entry, features::ALL),
                Err(Status::Unsupported)
            );
        }
        let flagged = Submission {
            flags: flags::FUA,
            ..read(1, [data, NONE, NONE])
        };
        assert_eq!(
            Request::parse(&flagged, features::ALL),
            Err(Status::Unsupported)
        );
        let flush = Submission {
            opcode: opcode::FLUSH,
            ..read(0, [NONE; 3])
        };
        assert_eq!(
            Request::parse(&flush, features::ALL & !features::FLUSH),
            Err(Status::Unsupported)
        );
        assert!(Request::parse(&flush, features::ALL).is_ok());
    }

    #[test]
    fn s3_a_read_without_segments_and_a_flush_with_some_are_refused() {
        assert_eq!(
            Request::parse(&read(0, [NONE; 3]), features::ALL),
            Err(Status::BadSegments)
        );
        let data = segment(0, 512, 0);
        let flush = Submission {
            opcode: opcode::FLUSH,
            ..read(1, [data, NONE, NONE])
        };
        assert_eq!(
            Request::parse(&flush, features::ALL),
            Err(Status::BadSegments)
        );
    }

    #[test]
    fn r2_r3_lists_must_match_their_count() {
        let list = |count: u16, len: u32| {
            read(
                count,
                [segment(0x1000, len, segment_flags::LIST), NONE, NONE],
            )
        };
        assert!(Request::parse(&list(4, 64), features::ALL).is_ok());
        assert!(Request::parse(&list(1, 16), features::ALL).is_ok());
        assert!(Request::parse(&list(256, 4096), features::ALL).is_ok());
        for (count, len) in [
            (0, 0),
            (4, 63),
            (4, 65),
            (4, 0),
            (4, 48),
            (257, 4112),
            (u16::MAX, 0xf_fff0),
        ] {
            assert_eq!(
                Request::parse(&list(count, len), features::ALL),
                Err(Status::BadSegments)
            );
        }
        assert_eq!(
            Request::parse(&list(4, 64), features::FLUSH),
            Err(Status::Unsupported)
        );
        let plain = read(4, [segment(0x1000, 64, 0), NONE, NONE]);
        assert_eq!(
            Request::parse(&plain, features::ALL),
            Err(Status::BadSegments)
        );
    }

    #[test]
    fn r4_unused_inline_segments_must_be_zero() {
        let data = segment(0, 512, segment_flags::DEVICE_WRITES);
        assert_eq!(
            Request::parse(&read(1, [data, data, NONE]), features::ALL),
            Err(Status::BadSegments)
        );
        let list = segment(0, 64, segment_flags::LIST);
        assert_eq!(
            Request::parse(&read(4, [list, data, NONE]), features::ALL),
            Err(Status::BadSegments)
        );
    }

    #[test]
    fn r5_r6_segments_that_are_empty_or_go_the_wrong_way_are_refused() {
        let write = segment_flags::DEVICE_WRITES;
        let mut reading = Segments::new(Command::Read, &lun());
        assert!(reading.add(&segment(512, 512, write)).is_ok());
        for bad in [
            segment(512, 0, write),
            segment(512, 512, 0),
            segment(512, 512, write | segment_flags::LIST),
        ] {
            assert_eq!(reading.add(&bad), Err(Status::BadSegments));
        }
        let mut writing = Segments::new(Command::Write { fua: false }, &lun());
        assert!(writing.add(&segment(512, 512, 0)).is_ok());
        assert_eq!(
            writing.add(&segment(512, 512, write)),
            Err(Status::BadSegments)
        );
        assert_eq!(reading.bytes(), 512);
    }

    #[test]
    fn r7_the_sum_of_segments_is_bounded() {
        let mut sum = Segments::new(Command::Write { fua: false }, &lun());
        assert!(sum.add(&segment(0, MAX_REQUEST_BYTES, 0)).is_ok());
        assert_eq!(sum.add(&segment(0, 512, 0)), Err(Status::BadSegments));
        assert_eq!(
            sum.add(&segment(0, u32::MAX & !511, 0)),
            Err(Status::BadSegments)
        );
        assert_eq!(sum.bytes(), MAX_REQUEST_BYTES);
    }

    #[test]
    fn segments_must_be_aligned_as_the_lun_says() {
        let mut sum = Segments::new(Command::Write { fua: false }, &lun());
        assert_eq!(sum.add(&segment(8, 512, 0)), Err(Status::BadSegments));
        assert_eq!(sum.add(&segment(0, 520, 0)), Err(Status::BadSegments));
    }

    #[test]
    fn s1_requests_stay_inside_the_lun() {
        let at = |sector: u64| Request {
            command: Command::Read,
            lun: 0,
            sector,
            layout: Layout::Inline(1),
        };
        assert_eq!(at(0).check(1000 * 512 - 512, &lun()), Ok(()));
        assert_eq!(at(999).check(512, &lun()), Ok(()));
        for sector in [1000, 1001, u64::MAX, u64::MAX / 512, 1 << 55] {
            assert_eq!(at(sector).check(512, &lun()), Err(Status::OutOfRange));
        }
        assert_eq!(at(999).check(1024, &lun()), Err(Status::OutOfRange));
        let large_blocks = LunInfo {
            logical_block: 4096,
            ..lun()
        };
        assert_eq!(at(1).check(4096, &large_blocks), Err(Status::OutOfRange));
        assert_eq!(at(8).check(512, &large_blocks), Err(Status::OutOfRange));
        assert_eq!(at(8).check(4096, &large_blocks), Ok(()));
        assert_eq!(
            at(0).check(
                4096,
                &LunInfo {
                    max_bytes: 2048,
                    ..lun()
                }
            ),
            Err(Status::BadSegments)
        );
    }

    #[test]
    fn s4_nothing_writes_to_a_read_only_lun() {
        let read_only = LunInfo {
            flags: lun_flags::PRESENT | lun_flags::READ_ONLY,
            ..lun()
        };
        for command in [
            Command::Write { fua: true },
            Command::Write { fua: false },
            Command::Flush,
        ] {
            let request = Request {
                command,
                lun: 0,
                sector: 0,
                layout: Layout::Inline(1),
            };
            assert_eq!(request.check(512, &read_only), Err(Status::ReadOnly));
        }
    }
}
