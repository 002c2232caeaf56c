// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! From a submission entry to a storage request.
//!
//! Parsing has three steps, each on private copies: [`Request::parse`] for the entry,
//! [`Segments::add`](crate::segments::Segments::add) for each segment wherever it lay, and [`Request::check`] against
//! the LUN. What has passed all three can be carried out.

use crate::memory::{Access, GuestAddr};
use avio_abi::ring::{segment_flags, Segment, Submission, INLINE_SEGMENTS, MAX_SEGMENTS};
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
    /// Forget blocks; they then hold anything.
    Discard,
    /// Forget blocks and every copy of them.
    SecureErase,
    /// Make blocks zero.
    WriteZeroes {
        /// They stay allocated.
        keep: bool,
    },
}

impl Command {
    /// What the device does with the request's memory, if it has any.
    pub const fn access(self) -> Access {
        match self {
            Self::Read => Access::DeviceWrites,
            _ => Access::DeviceReads,
        }
    }

    /// Most sectors that the LUN takes with a command that names blocks and moves no data; `None` for the others.
    const fn most_sectors(self, lun: &LunInfo) -> Option<u32> {
        match self {
            Self::Read | Self::Write { .. } | Self::Flush => None,
            Self::Discard => Some(lun.max_discard),
            Self::SecureErase => Some(lun.max_secure_erase),
            Self::WriteZeroes { .. } => Some(lun.max_write_zeroes),
        }
    }
}

/// What a request is about beside its first sector: where its segments are, or how many sectors it names.
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
    /// There are none, but so many sectors. Not checked before [`Request::check`].
    Range(u64),
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
        let layout = match command {
            Command::Read | Command::Write { .. } | Command::Flush => {
                parse_segments(entry, features)?
            }
            Command::Discard | Command::SecureErase | Command::WriteZeroes { .. } => {
                parse_range(entry)?
            }
        };
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

    /// Checks the request, whose segments have `bytes` in all, against its LUN, and returns how many sectors it is
    /// about.
    ///
    /// # Errors
    ///
    /// [`Status::ReadOnly`], [`Status::Unsupported`], [`Status::OutOfRange`] or [`Status::BadSegments`].
    pub fn check(&self, bytes: u32, lun: &LunInfo) -> Result<u32, Status> {
        if self.command != Command::Read && lun.flags & lun_flags::READ_ONLY != 0 {
            return Err(Status::ReadOnly);
        }
        match (self.layout, self.command.most_sectors(lun)) {
            (Layout::Range(_), Some(0)) => Err(Status::Unsupported),
            (Layout::Range(sectors), Some(most)) => match u32::try_from(sectors) {
                Ok(sectors) if sectors != 0 && sectors <= most => self.inside(sectors, lun),
                _ => Err(Status::OutOfRange),
            },
            _ if self.command == Command::Flush && self.sector == 0 => Ok(0),
            _ if self.command == Command::Flush => Err(Status::OutOfRange),
            _ if bytes > lun.max_bytes => Err(Status::BadSegments),
            _ if u64::from(bytes) % SECTOR_SIZE != 0 => Err(Status::OutOfRange),
            _ => self.inside(bytes / SECTOR_SIZE as u32, lun),
        }
    }

    /// Returns `sectors` if so many from the first on are whole logical blocks of the LUN.
    fn inside(&self, sectors: u32, lun: &LunInfo) -> Result<u32, Status> {
        let block = u64::from(lun.logical_block) / SECTOR_SIZE;
        let whole = |value: u64| value.checked_rem(block) == Some(0);
        match self.sector.checked_add(u64::from(sectors)) {
            Some(end) if whole(self.sector) && whole(end) && end <= lun.sectors => Ok(sectors),
            _ => Err(Status::OutOfRange),
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
        (opcode::DISCARD, 0) if has(features::RANGES) => Ok(Command::Discard),
        (opcode::SECURE_ERASE, 0) if has(features::RANGES) => Ok(Command::SecureErase),
        (opcode::WRITE_ZEROES, 0 | flags::KEEP) if has(features::RANGES) => {
            Ok(Command::WriteZeroes {
                keep: entry.flags == flags::KEEP,
            })
        }
        _ => Err(Status::Unsupported),
    }
}

/// The number of sectors of a command that has no segments: it stands where the first one would have its address.
fn parse_range(entry: &Submission) -> Result<Layout, Status> {
    let [first, second, third] = entry.inline;
    let unused = first.len == 0 && first.flags == 0 && [second, third] == [Segment::ZERO; 2];
    if entry.segments == 0 && unused {
        Ok(Layout::Range(first.addr))
    } else {
        Err(Status::BadSegments)
    }
}

fn parse_segments(entry: &Submission, offered: u64) -> Result<Layout, Status> {
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

#[cfg_attr(avio_kunit, kernel::macros::kunit_tests(avio_request))]
#[cfg(any(test, avio_kunit))]
mod tests {
    use super::*;
    use avio_abi::ring::MAX_REQUEST_BYTES;

    fn lun() -> LunInfo {
        LunInfo {
            flags: lun_flags::PRESENT,
            logical_block: 512,
            sectors: 1000,
            physical_block: 512,
            max_bytes: MAX_REQUEST_BYTES,
            max_segments: MAX_SEGMENTS,
            segment_align: 512,
            max_discard: 64,
            max_secure_erase: 32,
            max_write_zeroes: 16,
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
        for op in [0, 7, 77, 255] {
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
    fn s1_requests_stay_inside_the_lun() {
        let at = |sector: u64| Request {
            command: Command::Read,
            lun: 0,
            sector,
            layout: Layout::Inline(1),
        };
        assert_eq!(at(0).check(1000 * 512 - 512, &lun()), Ok(999));
        assert_eq!(at(999).check(512, &lun()), Ok(1));
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
        assert_eq!(at(8).check(4096, &large_blocks), Ok(8));
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
            Command::Discard,
            Command::SecureErase,
            Command::WriteZeroes { keep: false },
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

    const RANGES: [(u8, Command, u64); 3] = [
        (opcode::DISCARD, Command::Discard, 64),
        (opcode::SECURE_ERASE, Command::SecureErase, 32),
        (
            opcode::WRITE_ZEROES,
            Command::WriteZeroes { keep: false },
            16,
        ),
    ];

    fn range(op: u8, sector: u64, sectors: u64) -> Submission {
        Submission {
            opcode: op,
            sector,
            ..read(0, [segment(sectors, 0, 0), NONE, NONE])
        }
    }

    fn checked(entry: &Submission, lun: &LunInfo) -> Result<u32, Status> {
        Request::parse(entry, features::ALL)?.check(0, lun)
    }

    #[test]
    fn s5_ranges_are_held_to_the_luns_limits() {
        for (op, command, most) in RANGES {
            let entry = range(op, 8, most);
            let request = Request::parse(&entry, features::ALL);
            assert!(request.is_ok());
            let Ok(request) = request else { return };
            assert_eq!(request.command, command);
            assert_eq!(checked(&entry, &lun()), Ok(most as u32));
            for sectors in [0, most + 1, 1 << 32, (1 << 32) + 1, u64::MAX] {
                assert_eq!(
                    checked(&range(op, 8, sectors), &lun()),
                    Err(Status::OutOfRange)
                );
            }
            let none = LunInfo {
                max_discard: 0,
                max_secure_erase: 0,
                max_write_zeroes: 0,
                ..lun()
            };
            assert_eq!(checked(&entry, &none), Err(Status::Unsupported));
        }
    }

    #[test]
    fn s1_ranges_stay_inside_the_lun_and_are_whole_blocks() {
        for (op, ..) in RANGES {
            assert_eq!(checked(&range(op, 999, 1), &lun()), Ok(1));
            for sector in [1000, u64::MAX, u64::MAX - 7] {
                assert_eq!(
                    checked(&range(op, sector, 8), &lun()),
                    Err(Status::OutOfRange)
                );
            }
            let large_blocks = LunInfo {
                logical_block: 4096,
                ..lun()
            };
            assert_eq!(checked(&range(op, 8, 8), &large_blocks), Ok(8));
            assert_eq!(
                checked(&range(op, 8, 9), &large_blocks),
                Err(Status::OutOfRange)
            );
            assert_eq!(
                checked(&range(op, 4, 8), &large_blocks),
                Err(Status::OutOfRange)
            );
        }
    }

    #[test]
    fn s3_ranges_have_no_segments_and_only_zeroes_are_kept() {
        for (op, command, _) in RANGES {
            let entry = range(op, 0, 8);
            let bad = [
                Submission {
                    segments: 1,
                    ..entry
                },
                Submission {
                    inline: [segment(8, 512, 0), NONE, NONE],
                    ..entry
                },
                Submission {
                    inline: [segment(8, 0, segment_flags::LIST), NONE, NONE],
                    ..entry
                },
                Submission {
                    inline: [segment(8, 0, 0), NONE, segment(1, 0, 0)],
                    ..entry
                },
            ];
            for entry in &bad {
                assert_eq!(checked(entry, &lun()), Err(Status::BadSegments));
            }
            assert_eq!(
                Request::parse(&entry, features::ALL & !features::RANGES),
                Err(Status::Unsupported)
            );
            let kept = Submission {
                flags: flags::KEEP,
                ..entry
            };
            let expected = match command {
                Command::WriteZeroes { .. } => Ok(Command::WriteZeroes { keep: true }),
                _ => Err(Status::Unsupported),
            };
            assert_eq!(
                Request::parse(&kept, features::ALL).map(|request| request.command),
                expected
            );
        }
    }
}
