// SPDX-License-Identifier: GPL-2.0

//! From a LUN's description in the register window to what the block layer is to know.

use crate::lists::LIST_SEGMENTS;
use crate::registers::Registers;
use avio_abi::pci::reg;
use avio_abi::ring::{INLINE_SEGMENTS, MAX_REQUEST_BYTES};
use avio_abi::stor::{lun_flags, LunInfo};
use avio_abi::wire::Wire;
use avio_abi::{features, PAGE_SIZE, SECTOR_SIZE};
use avio_sys::guest::disk::{Limits, Text, Texts};
use kernel::prelude::*;
use kernel::str::CString;

/// Largest preferred size of a transfer that is believed, in bytes.
const MAX_HINT: u32 = 16 << 20;

/// How often a description that changes while it is read is read again.
const READ_TRIES: u32 = 8;

/// Most sectors of a disk: the kernel counts its bytes in a signed integer.
const MAX_SECTORS: u64 = i64::MAX as u64 / SECTOR_SIZE;

/// The description of a LUN, or none if it is not present.
pub(crate) fn read(registers: &Registers, lun: u16) -> Result<Option<LunInfo>> {
    let start = reg::LUN_INFO.wrapping_add(u64::from(lun).wrapping_mul(LunInfo::SIZE as u64));
    for _ in 0..READ_TRIES {
        let generation = registers.read(reg::GENERATION);
        if registers.read(start) & lun_flags::PRESENT == 0 {
            return Ok(None);
        }
        let mut bytes = [0; LunInfo::SIZE];
        for (index, word) in (0..LunInfo::SIZE as u64).zip(bytes.chunks_exact_mut(size_of::<u32>()))
        {
            let offset = start.wrapping_add(index.wrapping_mul(size_of::<u32>() as u64));
            word.copy_from_slice(&registers.read(offset).to_le_bytes());
        }
        if registers.read(reg::GENERATION) == generation {
            return Ok(Some(LunInfo::from_bytes(&bytes)));
        }
    }
    Err(EAGAIN)
}

/// What the disk's attributes show.
pub(crate) fn texts(lun: u16, info: &LunInfo) -> Result<Texts> {
    let mut serial = [0; 64];
    for (to, from) in serial.iter_mut().zip(info.serial) {
        *to = if from == 0 || from.is_ascii_graphic() {
            from
        } else {
            b' '
        };
    }
    let (high, low) = (half(info.wwn), half(info.wwn.iter().skip(8).copied()));
    let wwid = match (high, low) {
        (0, 0) => CString::try_from_fmt(fmt!(""))?,
        (high, 0) => CString::try_from_fmt(fmt!("0x{high:016x}"))?,
        (high, low) => CString::try_from_fmt(fmt!("0x{high:016x}{low:016x}"))?,
    };
    Ok(Texts {
        serial,
        wwid: text(&wwid),
        lun: text(&CString::try_from_fmt(fmt!("{lun}"))?),
    })
}

/// Eight bytes as a number, as it is written.
fn half(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let bytes = bytes.into_iter().take(8);
    bytes.fold(0, |value, byte| value << 8 | u64::from(byte))
}

fn text(from: &CString) -> Text {
    let mut text = [0; 64];
    for (to, from) in text.iter_mut().zip(from.to_bytes()) {
        *to = *from;
    }
    text
}

/// What the block layer is to know of a LUN. Fails if the description makes no sense.
pub(crate) fn limits(info: &LunInfo, offered: u64) -> Result<Limits> {
    let flag = |bit: u32| info.flags & bit != 0;
    let block = |bytes: u32| {
        bytes.is_power_of_two() && u64::from(bytes) >= SECTOR_SIZE && u64::from(bytes) <= PAGE_SIZE
    };
    let lists = offered & features::SEGMENT_LIST != 0;
    let room = if lists {
        LIST_SEGMENTS
    } else {
        INLINE_SEGMENTS
    };
    let max_segments =
        u16::try_from(room)?.min(u16::try_from(info.max_segments).unwrap_or(u16::MAX));
    let read_only = flag(lun_flags::READ_ONLY);
    // A device that takes no writes has none to flush, and refuses to.
    let write_cache = flag(lun_flags::WRITE_CACHE) && offered & features::FLUSH != 0 && !read_only;
    let ranges = |most: u32| {
        if offered & features::RANGES != 0 && !read_only {
            most
        } else {
            0
        }
    };
    let sensible = block(info.logical_block)
        && block(info.segment_align)
        && info.physical_block.is_power_of_two()
        && info.physical_block >= info.logical_block
        && u64::from(info.max_bytes) >= PAGE_SIZE
        && max_segments > 0
        && (1..=MAX_SECTORS).contains(&info.sectors);
    if !sensible {
        return Err(EINVAL);
    }
    Ok(Limits {
        sectors: info.sectors,
        logical_block: info.logical_block,
        physical_block: info.physical_block,
        max_sectors: info.max_bytes.min(MAX_REQUEST_BYTES) / SECTOR_SIZE as u32,
        max_segments,
        segment_align: info.segment_align,
        write_cache,
        fua: write_cache && flag(lun_flags::FUA) && offered & features::FUA != 0,
        rotational: !flag(lun_flags::NON_ROTATIONAL),
        read_only,
        stable_writes: flag(lun_flags::STABLE_WRITES),
        io_min: hint(info.io_min, info.physical_block),
        io_opt: hint(info.io_opt, info.physical_block),
        max_discard: ranges(info.max_discard),
        discard_granularity: info.discard_granularity.max(info.logical_block),
        max_secure_erase: ranges(info.max_secure_erase),
        max_write_zeroes: ranges(info.max_write_zeroes),
    })
}

/// A preferred size of transfers, or zero if it makes no sense: the block layer reads ahead by it.
fn hint(bytes: u32, physical_block: u32) -> u32 {
    match bytes.checked_rem(physical_block) {
        Some(0) if bytes <= MAX_HINT => bytes,
        _ => 0,
    }
}

/// The name of a disk: `avioa` to `avioz`, then `avioaa` and on. The rest is zeroes.
pub(crate) fn disk_name(index: u32) -> [u8; 16] {
    let mut name = *b"avio\0\0\0\0\0\0\0\0\0\0\0\0";
    let (mut letters, mut names, mut rest) = (1usize, 26u64, u64::from(index));
    while let Some(behind) = rest.checked_sub(names) {
        rest = behind;
        names = names.wrapping_mul(26);
        letters = letters.wrapping_add(1);
    }
    let [_, _, _, _, room @ ..] = &mut name;
    for to in room.get_mut(..letters).unwrap_or_default().iter_mut().rev() {
        *to = b'a'.wrapping_add((rest % 26) as u8);
        rest /= 26;
    }
    name
}
