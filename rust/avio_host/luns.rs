// SPDX-License-Identifier: GPL-2.0

//! The block devices behind an adapter.

use avio_abi::ioctl::{AddLun, SetupError};
use avio_abi::ring::{MAX_REQUEST_BYTES, MAX_SEGMENTS};
use avio_abi::stor::{lun_flags, LunInfo};
use avio_abi::{MAX_LUNS, PAGE_SIZE};
use avio_sys::host::BlockFile;
use kernel::alloc::KVVec;
use kernel::prelude::*;
use kernel::sync::Arc;

/// A block device and what the guest is told of it.
pub(crate) struct Lun {
    pub(crate) file: BlockFile,
    pub(crate) info: LunInfo,
}

impl Lun {
    /// The LUN that the caller asks for.
    pub(crate) fn open(call: &AddLun) -> Result<Self, SetupError> {
        if call.flags & !lun_flags::READ_ONLY != 0 || call.reserved != [0] {
            return Err(SetupError::Reserved);
        }
        let file = BlockFile::from_fd(call.fd).map_err(|_| SetupError::NotBlockDevice)?;
        if !file.writable() && call.flags & lun_flags::READ_ONLY == 0 {
            return Err(SetupError::DeviceReadOnly);
        }
        file.forget_cache()
            .map_err(|_| SetupError::DeviceUnsuitable)?;
        let device = file.info();
        let info = LunInfo {
            flags: device.flags | call.flags,
            max_bytes: MAX_REQUEST_BYTES,
            max_segments: MAX_SEGMENTS,
            serial: call.serial,
            ..device
        };
        let suitable = u64::from(info.logical_block) <= PAGE_SIZE
            && info.logical_block.is_power_of_two()
            && u64::from(info.segment_align) <= PAGE_SIZE
            && info.sectors != 0;
        if suitable {
            Ok(Self { file, info })
        } else {
            Err(SetupError::DeviceUnsuitable)
        }
    }
}

/// All LUNs of an adapter, by number. Queues that run share one set; a change makes a new one.
pub(crate) struct Luns(KVVec<Option<Arc<Lun>>>);

impl Luns {
    /// No LUNs.
    pub(crate) fn none() -> Result<Self> {
        let mut all = KVVec::with_capacity(MAX_LUNS as usize, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..MAX_LUNS {
            all.push(None, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(Self(all))
    }

    /// These LUNs, but for one place.
    pub(crate) fn with(&self, number: u32, lun: Option<Arc<Lun>>) -> Result<Self> {
        let mut all = Self::none()?;
        for (to, from) in all.0.iter_mut().zip(&self.0) {
            to.clone_from(from);
        }
        *all.0.get_mut(number as usize).ok_or(EINVAL)? = lun;
        Ok(all)
    }

    /// The LUN with this number.
    pub(crate) fn get(&self, number: u32) -> Option<&Lun> {
        self.0.get(number as usize)?.as_deref()
    }

    /// All LUNs with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Lun)> {
        self.0
            .iter()
            .enumerate()
            .filter_map(|(number, lun)| Some((number, lun.as_deref()?)))
    }
}
