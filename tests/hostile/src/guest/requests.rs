// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Submission entries, as a driver would make them.

use super::Guest;
use avio_abi::ring::{segment_flags, Segment, Submission};
use avio_abi::stor::opcode;
use avio_abi::wire::Wire;

fn transfer(opcode: u8, flags: u32, tag: u16, sector: u64, segments: &[(u64, u32)]) -> Submission {
    let mut inline = [Segment::ZERO; 3];
    for (slot, (addr, len)) in inline.iter_mut().zip(segments) {
        (slot.addr, slot.len, slot.flags) = (*addr, *len, flags);
    }
    let segments = segments.len() as u16;
    Submission {
        opcode,
        tag,
        segments,
        sector,
        inline,
        ..Submission::ZERO
    }
}

/// A READ of LUN 0 with inline segments.
pub fn read(tag: u16, sector: u64, segments: &[(u64, u32)]) -> Submission {
    let flags = segment_flags::DEVICE_WRITES;
    transfer(opcode::READ, flags, tag, sector, segments)
}

/// A WRITE to LUN 0 with inline segments.
pub fn write(tag: u16, sector: u64, segments: &[(u64, u32)]) -> Submission {
    transfer(opcode::WRITE, 0, tag, sector, segments)
}

/// A FLUSH of LUN 0.
pub fn flush(tag: u16) -> Submission {
    transfer(opcode::FLUSH, 0, tag, 0, &[])
}

/// A DISCARD, SECURE_ERASE or WRITE_ZEROES of so many sectors of LUN 0.
pub fn range(opcode: u8, tag: u16, sector: u64, sectors: u64) -> Submission {
    let mut entry = transfer(opcode, 0, tag, sector, &[]);
    entry.inline[0].addr = sectors;
    entry
}

/// The same request, varied.
pub trait Vary {
    /// To another LUN.
    fn on(self, lun: u32) -> Self;
    /// With these flags.
    fn flagged(self, flags: u8) -> Self;
}

impl Vary for Submission {
    fn on(self, lun: u32) -> Self {
        let lun = lun as u16;
        Self { lun, ..self }
    }

    fn flagged(self, flags: u8) -> Self {
        Self { flags, ..self }
    }
}

/// A segment.
pub fn segment(addr: u64, len: u32, flags: u32) -> Segment {
    Segment { addr, len, flags }
}

/// A READ of LUN 0 whose list is described like this, without a list behind it.
pub fn list(segments: u16, addr: u64, len: u32) -> Submission {
    let list = segment(addr, len, segment_flags::LIST);
    Submission {
        segments,
        inline: [list, Segment::ZERO, Segment::ZERO],
        ..read(0, 0, &[])
    }
}

/// The same request with its segments in a list at `addr`, which is written here.
pub fn with_list(
    guest: &Guest,
    entry: Submission,
    addr: u64,
    segments: &[(u64, u32)],
) -> Submission {
    let reads = entry.opcode == opcode::READ;
    let flags = u32::from(reads) * segment_flags::DEVICE_WRITES;
    let bytes = segments
        .iter()
        .flat_map(|(addr, len)| segment(*addr, *len, flags).to_bytes());
    for (at, byte) in bytes.enumerate() {
        guest.write_memory(addr + at as u64, &[byte]);
    }
    let count = segments.len() as u16;
    let Submission { inline, .. } = list(count, addr, u32::from(count) * Segment::SIZE as u32);
    Submission {
        segments: count,
        inline,
        ..entry
    }
}
