// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The first step, without memory: what an entry asks for, and where its segments are (4.2, 4.3 and 6.1 to 6.3 of
//! `docs/abi.md`).

use super::{Command, Layout, Request};
use crate::memory::GuestAddr;
use avio_abi::features;
use avio_abi::ring::{segment_flags, Segment, Submission, INLINE_SEGMENTS, MAX_SEGMENTS};
use avio_abi::stor::{flags, opcode, Status};
use avio_abi::wire::Wire;

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

#[cfg_attr(avio_kunit, kernel::macros::kunit_tests(avio_request_parse))]
#[cfg(any(test, avio_kunit))]
mod tests {
    use super::super::examples::{checked, lun, range, read, segment, NONE, RANGES};
    use super::*;

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
