// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The calls of `/dev/avio-stor`, with their refusals as values.

use crate::sys;
use avio_abi::ioctl::*;
use avio_abi::stor::LunInfo;
use avio_abi::wire::Wire;
use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// How a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{errno:?}, error {error:?} (number {number}), index {index}")]
pub struct Refused {
    pub errno: Errno,
    pub error: Option<SetupError>,
    pub number: u32,
    pub index: u32,
}

/// One open adapter.
pub struct Adapter(File);

impl AsFd for Adapter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Adapter {
    pub fn open() -> std::io::Result<Self> {
        Ok(Self(
            OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/avio-stor")?,
        ))
    }

    pub fn raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// Calls with a structure and returns it as the module left it, refused or not.
    pub fn call<T: Wire>(&self, request: u32, argument: &T) -> (Result<(), Errno>, T) {
        let mut bytes = vec![0; T::SIZE];
        argument.put(&mut bytes);
        let result = sys::ioctl(self.as_fd(), request, &mut bytes);
        let (after, _) = T::take(&bytes).expect("as many bytes as were put");
        (result, after)
    }

    pub fn info(&self) -> Result<Info, Errno> {
        let (result, info) = self.call(GET_INFO, &Info::ZERO);
        result.map(|()| info)
    }

    /// Gives the table of memory; pages that were pinned.
    pub fn set_memory(&self, regions: &[Region]) -> Result<u64, Refused> {
        let bytes: Vec<u8> = regions.iter().flat_map(Region::to_bytes).collect();
        let argument = SetMemory {
            regions: bytes.as_ptr() as u64,
            count: regions.len() as u32,
            ..SetMemory::ZERO
        };
        let (result, after) = self.call(SET_MEMORY, &argument);
        result
            .map(|()| after.pages)
            .map_err(|errno| refused(errno, after.error, after.error_index))
    }

    pub fn add_lun(&self, lun: u32, fd: i32, flags: u32) -> Result<LunInfo, Refused> {
        let (result, after) = self.call(
            ADD_LUN,
            &AddLun {
                lun,
                fd,
                flags,
                ..AddLun::ZERO
            },
        );
        result
            .map(|()| after.info)
            .map_err(|errno| refused(errno, after.error, 0))
    }

    pub fn remove_lun(&self, lun: u32) -> Result<(), Errno> {
        self.call(
            REMOVE_LUN,
            &RemoveLun {
                lun,
                ..RemoveLun::ZERO
            },
        )
        .0
    }

    pub fn set_features(&self, version: u32, features: u64) -> Result<(), Refused> {
        let (result, after) = self.call(
            SET_FEATURES,
            &SetFeatures {
                version,
                features,
                ..SetFeatures::ZERO
            },
        );
        result.map_err(|errno| refused(errno, after.error, 0))
    }

    pub fn set_queue(&self, queue: &SetQueue) -> Result<(), Refused> {
        let (result, after) = self.call(SET_QUEUE, queue);
        result.map_err(|errno| refused(errno, after.error, 0))
    }

    pub fn start(&self, queues: u32) -> Result<(), Refused> {
        let (result, after) = self.call(
            START,
            &Start {
                queues,
                ..Start::ZERO
            },
        );
        result.map_err(|errno| refused(errno, after.error, after.error_index))
    }

    pub fn stop(&self) -> Result<(), Errno> {
        sys::ioctl_raw(self.as_fd(), STOP, 0)
    }

    pub fn queue(&self, index: u32) -> Result<QueueStatus, Errno> {
        let (result, status) = self.call(
            GET_QUEUE,
            &QueueStatus {
                index,
                ..QueueStatus::ZERO
            },
        );
        result.map(|()| status)
    }
}

fn refused(errno: Errno, number: u32, index: u32) -> Refused {
    Refused {
        errno,
        error: SetupError::from_u32(number),
        number,
        index,
    }
}

/// The errno that stands beside a [`SetupError`].
pub fn errno_of(error: SetupError) -> Errno {
    use SetupError::*;
    match error {
        Running => Errno::EBUSY,
        LunBusy => Errno::EEXIST,
        RegionUnpinnable | QueueAddress => Errno::EFAULT,
        MemoryLimit | NoMemory | NoWorker => Errno::ENOMEM,
        NotBlockDevice => Errno::ENOTBLK,
        DeviceReadOnly => Errno::EROFS,
        Reserved | TooManyRegions | RegionBounds | RegionOverlap | LunRange | DeviceUnsuitable
        | Features | QueueRange | QueueSize | NotEventfd | NotConfigured | NoMemoryTable => {
            Errno::EINVAL
        }
    }
}
