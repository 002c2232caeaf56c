// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A LUN and entries that the tests of the steps share.

use super::{Command, Request};
use avio_abi::features;
use avio_abi::ring::{Segment, Submission, MAX_REQUEST_BYTES, MAX_SEGMENTS};
use avio_abi::stor::{lun_flags, opcode, LunInfo, Status};
use avio_abi::wire::Wire;

pub(super) const NONE: Segment = Segment::ZERO;

pub(super) const RANGES: [(u8, Command, u64); 3] = [
    (opcode::DISCARD, Command::Discard, 64),
    (opcode::SECURE_ERASE, Command::SecureErase, 32),
    (
        opcode::WRITE_ZEROES,
        Command::WriteZeroes { keep: false },
        16,
    ),
];

pub(super) fn lun() -> LunInfo {
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

pub(super) fn read(segments: u16, inline: [Segment; 3]) -> Submission {
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

pub(super) fn segment(addr: u64, len: u32, flags: u32) -> Segment {
    Segment { addr, len, flags }
}

pub(super) fn range(op: u8, sector: u64, sectors: u64) -> Submission {
    Submission {
        opcode: op,
        sector,
        ..read(0, [segment(sectors, 0, 0), NONE, NONE])
    }
}

pub(super) fn checked(entry: &Submission, lun: &LunInfo) -> Result<u32, Status> {
    Request::parse(entry, features::ALL)?.check(0, lun)
}
