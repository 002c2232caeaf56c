// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What a caller says guest memory is, before any of it is pinned.

use crate::memory::ADDRESS_END;
use avio_abi::ioctl::{region_flags, Region, SetupError};
use avio_abi::PAGE_SIZE;

/// Checks the regions that a caller gave for a memory table.
///
/// # Errors
///
/// What is wrong, and the index of the region at fault.
pub fn check_regions(regions: &[Region]) -> Result<(), (SetupError, usize)> {
    for (index, region) in regions.iter().enumerate() {
        check_region(region).map_err(|error| (error, index))?;
        let overlaps = |other: &Region| {
            // Neither sum overflows: both regions passed `check_region`.
            region.guest_addr < other.guest_addr.saturating_add(other.size)
                && other.guest_addr < region.guest_addr.saturating_add(region.size)
        };
        if regions.iter().take(index).any(overlaps) {
            return Err((SetupError::RegionOverlap, index));
        }
    }
    Ok(())
}

fn check_region(region: &Region) -> Result<(), SetupError> {
    if region.flags & !region_flags::READ_ONLY != 0 || region.reserved != 0 {
        return Err(SetupError::Reserved);
    }
    let aligned = (region.guest_addr | region.size | region.user_addr) % PAGE_SIZE == 0;
    let ends = |start: u64| start.checked_add(region.size);
    match (ends(region.guest_addr), ends(region.user_addr)) {
        (Some(end), Some(_)) if aligned && region.size != 0 && end <= ADDRESS_END => Ok(()),
        _ => Err(SetupError::RegionBounds),
    }
}

#[cfg_attr(avio_kunit, kernel::macros::kunit_tests(avio_regions))]
#[cfg(any(test, avio_kunit))]
mod tests {
    use super::*;

    fn region(guest_addr: u64, size: u64) -> Region {
        Region {
            guest_addr,
            size,
            user_addr: 0x7000_0000,
            flags: 0,
            reserved: 0,
        }
    }

    #[test]
    fn m4_bad_regions_are_named() {
        assert_eq!(
            check_regions(&[region(0, 0x1000), region(0x1000, 0x1000)]),
            Ok(())
        );
        assert_eq!(
            check_regions(&[region(0, 0x2000), region(0x1000, 0x1000)]),
            Err((SetupError::RegionOverlap, 1))
        );
        for bad in [
            region(0, 0),
            region(1, 0x1000),
            region(0, 0x1001),
            region(u64::MAX - 0xfff, 0x1000),
            region(0, ADDRESS_END + 0x1000),
            Region {
                user_addr: u64::MAX - 0xfff,
                ..region(0, 0x2000)
            },
            Region {
                user_addr: 12,
                ..region(0, 0x1000)
            },
        ] {
            assert_eq!(
                check_regions(&[region(0x10_0000, 0x1000), bad]),
                Err((SetupError::RegionBounds, 1))
            );
        }
        let flagged = Region {
            flags: 2,
            ..region(0, 0x1000)
        };
        assert_eq!(check_regions(&[flagged]), Err((SetupError::Reserved, 0)));
    }
}
