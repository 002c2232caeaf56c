// SPDX-License-Identifier: GPL-2.0

//! A LUN: a block device, what the guest is told of it, and what its requests have to heed.

use crate::counters::LunCounters;
use avio_abi::ioctl::{add_flags, AddLun, LunStatus, SetupError};
use avio_abi::ring::{MAX_REQUEST_BYTES, MAX_SEGMENTS};
use avio_abi::stor::{lun_flags, LunInfo, Status};
use avio_abi::PAGE_SIZE;
use avio_core::limits::Limits;
use avio_sys::host::{now_ns, BlockFile, Cgroup, Disk};
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Full, Relaxed};
use kernel::sync::{Arc, Mutex};

/// What keeps a LUN's requests from just being carried out. [`GATED`](lun_flags::GATED) and [`LOST`](lun_flags::LOST)
/// are the flags of the description; the rest is only here.
pub(crate) mod heed {
    pub(crate) use avio_abi::stor::lun_flags::{GATED, LOST};
    /// The description has changed, and the guest was not told with a request.
    pub(crate) const ATTENTION: u32 = 1 << 0;
    /// The LUN is being removed.
    pub(crate) const LEAVING: u32 = 1 << 1;
    /// There are limits.
    pub(crate) const LIMITED: u32 = 1 << 2;
}

/// For how long a request waits to learn whether its LUN goes.
const LEAVING_NS: u64 = 1_000_000;

/// Why a request is not carried out now.
pub(crate) enum Refused {
    /// It ends with this status.
    With(Status),
    /// It may be tried again at this time.
    Until(u64),
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self::With(status)
    }
}

/// What all descriptions of one backing share.
#[pin_data]
pub(crate) struct Backing {
    /// What requests have to heed: one word, so that it is one load when there is nothing.
    heed: Atomic<u32>,
    #[pin]
    limits: Mutex<Limits>,
}

impl Backing {
    fn new(heed: u32) -> impl PinInit<Self> {
        pin_init!(Self {
            heed: Atomic::new(heed),
            limits <- new_mutex!(Limits::none()),
        })
    }

    /// What requests have to heed.
    pub(crate) fn heed(&self) -> u32 {
        self.heed.load(Relaxed)
    }

    /// Has these bits set and those cleared, fully ordered; what it was before.
    pub(crate) fn change(&self, set: u32, clear: u32) -> u32 {
        let mut old = self.heed();
        loop {
            match self.heed.cmpxchg(old, old & !clear | set, Full) {
                Ok(_) => return old,
                Err(now) => old = now,
            }
        }
    }

    /// Whether a request may go on; `heed` is not zero.
    pub(crate) fn may_go_on(&self, heed: u32) -> Result<(), Refused> {
        if heed & heed::LEAVING != 0 {
            return Err(Refused::Until(now_ns().saturating_add(LEAVING_NS)));
        }
        if heed & heed::GATED != 0 {
            return Err(Status::Replaced.into());
        }
        if heed & heed::ATTENTION != 0 && self.change(0, heed::ATTENTION) & heed::ATTENTION != 0 {
            return Err(Status::Attention.into());
        }
        if heed & heed::LOST != 0 {
            return Err(Status::IoError.into());
        }
        Ok(())
    }

    /// Sets the limits, which begin with a full burst.
    pub(crate) fn set_limits(&self, limits: Option<Limits>) {
        match limits {
            Some(limits) => {
                *self.limits.lock() = limits;
                self.change(heed::LIMITED, 0);
            }
            None => {
                self.change(0, heed::LIMITED);
            }
        }
    }

    /// Lets a request of so many bytes go, or says when to ask again.
    pub(crate) fn within_limits(&self, bytes: u32) -> Result<(), Refused> {
        let now = now_ns();
        self.limits
            .lock()
            .take(now, bytes)
            .map_err(|wait| Refused::Until(now.saturating_add(wait)))
    }
}

/// The disk behind a LUN.
pub(crate) type LunDisk = Disk<Backing, LunCounters>;

/// A description of a disk. A change makes a new one of the same disk.
pub(crate) struct Lun {
    pub(crate) info: LunInfo,
    pub(crate) disk: Arc<LunDisk>,
}

impl Lun {
    /// The LUN that the caller asks for, with what its requests have to heed beside its gate.
    pub(crate) fn open(call: &AddLun, heed: u32) -> Result<Self, SetupError> {
        let flags = call.flags & (lun_flags::READ_ONLY | lun_flags::GATED);
        if call.flags & !(flags | add_flags::CGROUP) != 0 || call.reserved != 0 {
            return Err(SetupError::Reserved);
        }
        let cgroup = cgroup(call)?;
        let file = BlockFile::from_fd(call.fd).map_err(|_| SetupError::NotBlockDevice)?;
        if !file.writable() && call.flags & lun_flags::READ_ONLY == 0 {
            return Err(SetupError::DeviceReadOnly);
        }
        if !file.forget_cache() {
            return Err(SetupError::DeviceDirty);
        }
        let info = describe(&file).ok_or(SetupError::DeviceUnsuitable)?;
        let backing = Backing::new(heed | flags & heed::GATED);
        let disk = Arc::pin_init(Disk::new(file, cgroup, backing), GFP_KERNEL_ACCOUNT)
            .map_err(|_| SetupError::NoMemory)?;
        Ok(Self {
            info: LunInfo {
                flags: info.flags | flags,
                serial: call.serial,
                wwn: call.wwn,
                ..info
            },
            disk,
        })
    }

    /// What the description becomes with these of the flags GATED and LOST, the device being what it now is.
    pub(crate) fn seen_again(&self, flags: u32) -> Result<LunInfo, SetupError> {
        let old = &self.info;
        let now = match describe(self.disk.file()) {
            Some(now) => LunInfo {
                flags: now.flags | old.flags & lun_flags::READ_ONLY,
                serial: old.serial,
                wwn: old.wwn,
                changes: old.changes,
                ..now
            },
            // What was lost may say nothing of itself any more.
            None if flags & lun_flags::LOST != 0 => *old,
            None => return Err(SetupError::DeviceUnsuitable),
        };
        let both = lun_flags::GATED | lun_flags::LOST;
        Ok(LunInfo {
            flags: now.flags & !both | flags & both,
            ..now
        })
    }

    /// State and counters, but for what queues hold back.
    pub(crate) fn status(&self, number: u32) -> LunStatus {
        let mut sum = LunStatus {
            lun: number,
            flags: self.info.flags,
            in_flight: self.disk.in_flight(),
            ..LunStatus::default()
        };
        for lane in self.disk.lanes() {
            lane.add_to(&mut sum);
        }
        sum
    }
}

/// The cgroup that the caller asks for.
fn cgroup(call: &AddLun) -> Result<Option<Cgroup>, SetupError> {
    if call.flags & add_flags::CGROUP == 0 {
        return if call.cgroup == 0 {
            Ok(None)
        } else {
            Err(SetupError::Reserved)
        };
    }
    match Cgroup::from_fd(call.cgroup) {
        Ok(cgroup) => Ok(Some(cgroup)),
        Err(ENODEV) => Err(SetupError::CgroupWithoutIo),
        Err(EACCES | EPERM) => Err(SetupError::CgroupDenied),
        Err(ENOMEM) => Err(SetupError::NoMemory),
        Err(_) => Err(SetupError::NotCgroup),
    }
}

/// What the device says of itself, and what we make of it; `None` if it cannot be offered.
fn describe(file: &BlockFile) -> Option<LunInfo> {
    let info = LunInfo {
        max_bytes: MAX_REQUEST_BYTES,
        max_segments: MAX_SEGMENTS,
        ..file.info()
    };
    let suitable = u64::from(info.logical_block) <= PAGE_SIZE
        && info.logical_block.is_power_of_two()
        && u64::from(info.segment_align) <= PAGE_SIZE
        && info.sectors != 0
        && !file.zoned();
    suitable.then_some(info)
}
