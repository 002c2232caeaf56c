// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The last step: whether the LUN takes the request (6.1 and 6.5 of `docs/abi.md`).

use super::{Command, Layout, Request};
use avio_abi::stor::{lun_flags, LunInfo, Status};
use avio_abi::SECTOR_SIZE;

impl Command {
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

impl Request {
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

#[cfg_attr(avio_kunit, kernel::macros::kunit_tests(avio_request_check))]
#[cfg(any(test, avio_kunit))]
mod tests {
    use super::super::examples::{checked, lun, range, RANGES};
    use super::*;
    use avio_abi::features;

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
}
