// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Requests that a device must accept, and what makes others of them, by random bytes.

use super::bytes::Bytes;
use super::case::{Case, BLOCKS, MAX_BYTES, MAX_RANGE, SECTORS};
use avio_abi::ring::{segment_flags, Segment, Submission, INLINE_SEGMENTS, MAX_SEGMENTS};
use avio_abi::stor::{flags, lun_flags, opcode, LunInfo};
use avio_abi::wire::Wire;
use avio_abi::{features, PAGE_SIZE, SECTOR_SIZE};
use avio_core::memory::Run;

/// Bytes that are enough for [`legal`] with so many segments as it makes.
pub const LEGAL_BYTES: usize = 64;
/// Bytes that are enough for [`mutate`].
pub const MUTATION_BYTES: usize = 12;
/// Most segments in a list of [`legal`], if it is not as long as a list can be.
const SEGMENTS: u8 = 8;

/// A request of a kind of [`KINDS`](super::accept::KINDS) that must be accepted.
pub fn legal(kind: usize, bytes: &mut Bytes<'_>) -> Option<Case> {
    let mut case = Case {
        lun: lun(bytes)?,
        offered: features::ALL,
        runs: vec![run(0, 32), run(32, 256)],
        entry: Submission {
            tag: bytes.u8()?.into(),
            ..Submission::ZERO
        },
        list: Vec::new(),
    };
    let (opcode, needed) = match kind {
        0 | 1 => (opcode::READ, 0),
        2 | 3 => (opcode::WRITE, 0),
        4 => (opcode::FLUSH, features::FLUSH),
        5 => (opcode::DISCARD, features::RANGES),
        6 => (opcode::SECURE_ERASE, features::RANGES),
        _ => (opcode::WRITE_ZEROES, features::RANGES),
    };
    case.entry.opcode = opcode;
    match kind {
        0..4 => data(&mut case, kind % 2 == 1, bytes)?,
        4 => {}
        _ => range(&mut case, bytes)?,
    }
    let mut needed = needed
        | if kind < 4 && kind % 2 == 1 {
            features::SEGMENT_LIST
        } else {
            0
        };
    let (flag, for_flag) = match opcode {
        opcode::WRITE => (flags::FUA, features::FUA),
        opcode::WRITE_ZEROES => (flags::KEEP, 0),
        _ => (0, 0),
    };
    if bytes.one_of(&[true, false])? {
        case.entry.flags = flag;
        needed |= for_flag;
    }
    // What it does not need may be missing.
    case.offered &= needed | bytes.one_of(&[0, features::ALL])?;
    if opcode == opcode::READ {
        case.lun.flags |= bytes.one_of(&[0, lun_flags::READ_ONLY])?;
    }
    Some(case)
}

/// A LUN that takes every command.
fn lun(bytes: &mut Bytes<'_>) -> Option<LunInfo> {
    let logical_block = bytes.one_of(&BLOCKS)?;
    Some(LunInfo {
        flags: lun_flags::PRESENT,
        logical_block,
        sectors: bytes.one_of(&SECTORS[..5])?,
        max_bytes: bytes.one_of(&MAX_BYTES)?,
        max_segments: MAX_SEGMENTS,
        segment_align: bytes.one_of(&[logical_block, 4096])?,
        max_discard: bytes.one_of(&MAX_RANGE[..2])?,
        max_secure_erase: bytes.one_of(&MAX_RANGE[..2])?,
        max_write_zeroes: bytes.one_of(&MAX_RANGE[..2])?,
        ..LunInfo::ZERO
    })
}

fn run(guest_page: u64, pages: u64) -> Run {
    Run {
        guest_page,
        frame: u64::from(guest_page != 0) << 20,
        pages,
        writable: true,
    }
}

/// Gives the request so many sectors, at the beginning of the LUN, at its end, or between.
fn place(case: &mut Case, sectors: u64, bytes: &mut Bytes<'_>) -> Option<()> {
    let block = u64::from(case.lun.logical_block) / SECTOR_SIZE;
    let last = (case.lun.sectors - sectors) / block;
    let between = bytes.u64()? % (last + 1);
    case.entry.sector = bytes.one_of(&[0, last, between])? * block;
    Some(())
}

/// Gives the request segments, in the entry or in a list.
fn data(case: &mut Case, in_list: bool, bytes: &mut Bytes<'_>) -> Option<()> {
    let align = u64::from(case.lun.segment_align);
    let capacity = case.lun.sectors.saturating_mul(SECTOR_SIZE);
    // Lengths are counted in units of the alignment. There is room for one at least.
    let most = capacity.min(case.lun.max_bytes.into()) / align;
    let count = if in_list {
        let longest = MAX_SEGMENTS as u64;
        let few = 1 + u64::from(bytes.u8()? % SEGMENTS);
        bytes.one_of(&[few, few, few, longest])?
    } else {
        1 + u64::from(bytes.u8()?) % INLINE_SEGMENTS as u64
    };
    let count = count.min(most);
    let more = u64::from(bytes.u8()?) % (most - count + 1);
    let longest = most - count;
    // The first segment is longer than the others.
    let first = 1 + bytes.one_of(&[0, more, longest])?;
    let flags = match case.entry.opcode {
        opcode::READ => segment_flags::DEVICE_WRITES,
        _ => 0,
    };
    let start = u64::from(bytes.u8()?);
    let segment = |index: u64| Segment {
        addr: (start + index) % (64 * PAGE_SIZE / align) * align,
        len: (align * if index == 0 { first } else { 1 }) as u32,
        flags,
    };
    let segments: Vec<_> = (0..count).map(segment).collect();
    case.entry.segments = count as u16;
    if in_list {
        case.entry.inline[0] = Segment {
            addr: u64::from(bytes.u8()?),
            len: count as u32 * Segment::SIZE as u32,
            flags: segment_flags::LIST,
        };
        case.list = segments;
    } else {
        case.entry.inline[..segments.len()].copy_from_slice(&segments);
    }
    place(case, (first + count - 1) * align / SECTOR_SIZE, bytes)
}

/// Gives the request a number of sectors, and no segments.
fn range(case: &mut Case, bytes: &mut Bytes<'_>) -> Option<()> {
    let most = match case.entry.opcode {
        opcode::DISCARD => case.lun.max_discard,
        opcode::SECURE_ERASE => case.lun.max_secure_erase,
        _ => case.lun.max_write_zeroes,
    };
    let block = u64::from(case.lun.logical_block) / SECTOR_SIZE;
    let blocks = case.lun.sectors.min(most.into()) / block;
    let some = 1 + u64::from(bytes.u32()?) % blocks;
    let sectors = bytes.one_of(&[1, some, blocks])? * block;
    case.entry.inline[0].addr = sectors;
    place(case, sectors, bytes)
}

/// Changes one field of a request, or of what it is asked of.
pub fn mutate(case: &mut Case, bytes: &mut Bytes<'_>) -> Option<()> {
    let which = bytes.u8()?;
    let choice = usize::from(bytes.u8()?);
    let Case {
        lun,
        offered,
        entry,
        list,
        ..
    } = case;
    let inline = &mut entry.inline[choice % INLINE_SEGMENTS];
    let listed = choice % list.len().max(1);
    let segment = list.get_mut(listed).unwrap_or(inline);
    match which % 18 {
        0 => entry.opcode = 1 + bytes.u8()? % 7,
        1 => entry.flags = bytes.one_of(&[0, flags::FUA, flags::KEEP, 3, 4, 0x80])?,
        2 => entry.tag = near(entry.tag.into(), bytes)? as u16,
        3 => entry.lun = near(entry.lun.into(), bytes)? as u16,
        4 => entry.segments = near(entry.segments.into(), bytes)? as u16,
        5 | 6 => entry.sector = near(entry.sector, bytes)?,
        7 => segment.addr = near(segment.addr, bytes)?,
        8 => segment.len = near(segment.len.into(), bytes)? as u32,
        9 => segment.flags = bytes.one_of(&[0, 1, 2, 3, 4, 1 << 31])?,
        10 => entry.inline[0].addr = near(entry.inline[0].addr, bytes)?,
        11 => entry.inline[0].len = near(entry.inline[0].len.into(), bytes)? as u32,
        12 => entry.inline[0].flags = bytes.one_of(&[0, 1, 2, 3, 4, 1 << 31])?,
        13 => lun.flags ^= lun_flags::READ_ONLY,
        14 => lun.sectors = near(lun.sectors, bytes)?,
        15 => lun.max_bytes = bytes.one_of(&MAX_BYTES)?,
        16 => {
            let most = bytes.one_of(&MAX_RANGE)?;
            (lun.max_discard, lun.max_secure_erase, lun.max_write_zeroes) = (most, most, most);
        }
        _ => *offered ^= 1 << (choice % 8),
    }
    Some(())
}

/// A number that is close to another, or at one of the ends.
fn near(value: u64, bytes: &mut Bytes<'_>) -> Option<u64> {
    let by = bytes.one_of(&[1, 8, 16, 512, PAGE_SIZE])?;
    let flipped = value ^ (1 << (bytes.u8()? % 64));
    let (less, more) = (value.wrapping_sub(by), value.wrapping_add(by));
    bytes.one_of(&[less, more, less, more, flipped, 0, u64::MAX])
}
