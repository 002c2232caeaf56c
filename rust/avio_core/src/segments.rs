// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The segments of a request: where its data lies in guest memory.

use crate::memory::{Access, GuestAddr};
use crate::request::Command;
use avio_abi::ring::{segment_flags, Segment, MAX_REQUEST_BYTES};
use avio_abi::stor::{LunInfo, Status};

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

#[cfg_attr(avio_kunit, kernel::macros::kunit_tests(avio_segments))]
#[cfg(any(test, avio_kunit))]
mod tests {
    use super::*;
    use avio_abi::wire::Wire;

    fn lun() -> LunInfo {
        LunInfo {
            segment_align: 512,
            ..LunInfo::ZERO
        }
    }

    fn segment(addr: u64, len: u32, flags: u32) -> Segment {
        Segment { addr, len, flags }
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
}
