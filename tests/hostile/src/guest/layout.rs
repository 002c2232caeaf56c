// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Where things lie in a guest's memory, and what its disks hold.
//!
//! Guest memory has a large region, a second one that goes on where the first ends but lies elsewhere in the host, a
//! hole, and a read-only region. Between them in the host lie canaries that no device may ever write.

use crate::sys::Mapping;
use anyhow::{ensure, Result};
use avio_abi::ioctl::{region_flags, Region};
use std::ops::Range;
use std::sync::atomic::Ordering;

/// Guest address of the large region.
pub const RAM: u64 = 0x10_0000;
pub const RAM_SIZE: u64 = 9 << 20;
/// Guest address of the region that follows it: adjacent in the guest, not in the host.
pub const NEXT: u64 = RAM + RAM_SIZE;
pub const NEXT_SIZE: u64 = 1 << 20;
/// Guest address of the read-only region. Before and behind it there is nothing.
pub const ROM: u64 = 0x100_0000;
pub const ROM_SIZE: u64 = 0x1_0000;
/// Where tests put segment lists.
pub const LIST: u64 = RAM + 0x7_0000;
/// Where tests put data: room for the largest request, twice.
pub const DATA: u64 = RAM + 0x8_0000;
pub const BACK: u64 = DATA + (4 << 20);
/// Where a guest reads back what it has at `DATA`, if that is little.
pub const NEAR: u64 = DATA + 0x1_0000;
/// Bytes of the large region that a guest needs who does no more.
const FEW: u64 = NEAR + 0x1_0000 - RAM;

/// What the device may not write between two regions: all of it is looked at again and again.
const GAP: usize = 64 << 10;
const NEXT_OFFSET: usize = RAM_SIZE as usize + GAP;
const ROM_OFFSET: usize = NEXT_OFFSET + NEXT_SIZE as usize + GAP;
pub const MAPPING: usize = ROM_OFFSET + ROM_SIZE as usize + GAP;
const CANARY: u64 = 0x6361_6e61_7279_2121;
/// Parts of the mapping that the device may not write.
const CANARIES: [Range<usize>; 2] = [
    RAM_SIZE as usize..NEXT_OFFSET,
    NEXT_OFFSET + NEXT_SIZE as usize..MAPPING,
];

/// The regions of a guest's memory.
pub fn regions(mapping: &Mapping) -> Vec<Region> {
    let region = |guest_addr, size, offset: usize, flags| Region {
        guest_addr,
        size,
        user_addr: mapping.user_addr() + offset as u64,
        flags,
        reserved: 0,
    };
    vec![
        region(ROM, ROM_SIZE, ROM_OFFSET, region_flags::READ_ONLY),
        region(RAM, RAM_SIZE, 0, 0),
        region(NEXT, NEXT_SIZE, NEXT_OFFSET, 0),
    ]
}

/// The same for a guest of which [`works`](super::Guest::works) is all that is wanted: pinning memory takes long.
pub fn few_regions(mapping: &Mapping) -> Vec<Region> {
    let large = regions(mapping)[1];
    vec![Region { size: FEW, ..large }]
}

/// Where a guest address lies in the mapping.
pub fn offset(addr: u64) -> usize {
    let at = |start: u64, size: u64, offset: usize| {
        addr.checked_sub(start)
            .filter(|off| *off < size)
            .map(|off| offset + off as usize)
    };
    at(RAM, RAM_SIZE, 0)
        .or_else(|| at(NEXT, NEXT_SIZE, NEXT_OFFSET))
        .or_else(|| at(ROM, ROM_SIZE, ROM_OFFSET))
        .expect("an address of the guest")
}

/// Lays canaries where the device may not write.
pub fn lay_canaries(mapping: &Mapping) {
    for at in CANARIES.into_iter().flat_map(|range| range.step_by(8)) {
        mapping.u64(at).store(CANARY, Ordering::Relaxed);
    }
}

/// Demands that nothing outside the table of memory, and nothing read-only, was written.
pub fn check_canaries(mapping: &Mapping) -> Result<()> {
    for at in CANARIES.into_iter().flat_map(|range| range.step_by(8)) {
        let found = mapping.u64(at).load(Ordering::Relaxed);
        ensure!(
            found == CANARY,
            "memory that is not the device's was written, at offset {at:#x}: {found:#x}"
        );
    }
    Ok(())
}

/// What a disk of this seed has from `sector` on.
pub fn pattern(sector: u64, len: u32, seed: u64) -> Vec<u8> {
    let mix = |word: u64| {
        let mut x = word.wrapping_add(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    };
    (0..u64::from(len) / 8)
        .flat_map(|word| mix(sector * 64 + word).to_le_bytes())
        .collect()
}
