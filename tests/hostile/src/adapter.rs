// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The calls of `/dev/avio-stor`, with their refusals as values.

use crate::sys;
use anyhow::{ensure, Context};
use avio_abi::ioctl::*;
use avio_abi::stor::LunInfo;
use avio_abi::wire::Wire;
use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process::Stdio;

/// All calls that have an argument.
pub const CALLS: [u32; 13] = [
    GET_INFO,
    SET_MEMORY,
    ADD_LUN,
    REMOVE_LUN,
    SET_FEATURES,
    SET_QUEUE,
    START,
    GET_QUEUE,
    UPDATE_LUN,
    SET_LIMITS,
    GET_LUN,
    TASK,
    SET_POLL,
];

/// How a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{errno:?}, error {error:?} (number {number}), index {index}")]
pub struct Refused {
    pub errno: Errno,
    pub error: Option<SetupError>,
    pub number: u32,
    pub index: u32,
}

impl From<Refused> for Errno {
    fn from(refused: Refused) -> Self {
        refused.errno
    }
}

/// The argument of a call.
pub trait Argument: Wire {
    /// Its fields `error` and `error_index`, where it has them.
    fn verdict(&self) -> (u32, u32);
}

macro_rules! arguments {
    ($($name:ident: $argument:pat => $verdict:expr;)*) => {
        $(impl Argument for $name {
            fn verdict(&self) -> (u32, u32) {
                let $argument = self;
                $verdict
            }
        })*
    };
}

arguments! {
    Info: _ => (0, 0);
    QueueStatus: _ => (0, 0);
    LunStatus: _ => (0, 0);
    SetMemory: it => (it.error, it.error_index);
    Start: it => (it.error, it.error_index);
    AddLun: it => (it.error, 0);
    RemoveLun: it => (it.error, 0);
    UpdateLun: it => (it.error, 0);
    SetFeatures: it => (it.error, 0);
    SetQueue: it => (it.error, 0);
    SetLimits: it => (it.error, 0);
    SetPoll: it => (it.error, 0);
    Task: it => (it.error, 0);
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
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).open("/dev/avio-stor")?;
        Ok(Self(file))
    }

    /// The adapter that whoever started this program has open, and gave it as its standard input.
    pub fn inherited() -> std::io::Result<Self> {
        Ok(Self(std::io::stdin().as_fd().try_clone_to_owned()?.into()))
    }

    /// The same adapter, for the standard input of a program.
    pub fn to_inherit(&self) -> std::io::Result<Stdio> {
        Ok(self.0.try_clone()?.into())
    }

    pub fn raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// Calls with a structure; the structure as the module answers it, or the refusal.
    pub fn call<T: Argument>(&self, request: u32, argument: &T) -> Result<T, Refused> {
        let mut bytes = vec![0; T::SIZE];
        argument.put(&mut bytes);
        let result = sys::ioctl(self.as_fd(), request, &mut bytes);
        let (after, _) = T::take(&bytes).expect("as many bytes as were put");
        let (number, index) = after.verdict();
        match result {
            Ok(()) => Ok(after),
            Err(errno) => Err(Refused {
                errno,
                error: SetupError::from_u32(number),
                number,
                index,
            }),
        }
    }

    pub fn info(&self) -> Result<Info, Refused> {
        self.call(GET_INFO, &Info::ZERO)
    }

    /// Gives the table of memory; pages that were pinned.
    pub fn set_memory(&self, regions: &[Region]) -> Result<u64, Refused> {
        let bytes: Vec<u8> = regions.iter().flat_map(Region::to_bytes).collect();
        let argument = SetMemory {
            regions: bytes.as_ptr() as u64,
            count: regions.len() as u32,
            ..SetMemory::ZERO
        };
        Ok(self.call(SET_MEMORY, &argument)?.pages)
    }

    pub fn add_lun(&self, lun: u32, fd: i32, flags: u32) -> Result<LunInfo, Refused> {
        let argument = AddLun {
            lun,
            fd,
            flags,
            ..AddLun::ZERO
        };
        Ok(self.call(ADD_LUN, &argument)?.info)
    }

    /// `flags`: [`remove_flags`].
    pub fn remove_lun(&self, lun: u32, flags: u32) -> Result<(), Refused> {
        let argument = RemoveLun {
            lun,
            flags,
            ..RemoveLun::ZERO
        };
        self.call(REMOVE_LUN, &argument).map(drop)
    }

    pub fn update_lun(&self, lun: u32, flags: u32) -> Result<LunInfo, Refused> {
        let argument = UpdateLun {
            lun,
            flags,
            ..UpdateLun::ZERO
        };
        Ok(self.call(UPDATE_LUN, &argument)?.info)
    }

    /// So many bytes a second, and so many at once; zero is no limit.
    pub fn limit_bytes(&self, lun: u32, bytes: u64, bytes_burst: u64) -> Result<(), Refused> {
        let argument = SetLimits {
            lun,
            bytes,
            bytes_burst,
            ..SetLimits::ZERO
        };
        self.call(SET_LIMITS, &argument).map(drop)
    }

    /// How long a worker may poll, in nanoseconds.
    pub fn set_poll(&self, window_ns: u32) -> Result<(), Refused> {
        let argument = SetPoll {
            window_ns,
            ..SetPoll::ZERO
        };
        self.call(SET_POLL, &argument).map(drop)
    }

    pub fn lun(&self, lun: u32) -> Result<LunStatus, Refused> {
        let argument = LunStatus {
            lun,
            ..LunStatus::ZERO
        };
        self.call(GET_LUN, &argument)
    }

    /// A task command; how many of its requests the backing still has. `request`: queue and tag.
    pub fn task(&self, kind: u32, lun: u32, request: (u32, u32)) -> Result<u32, Refused> {
        let (queue, tag) = request;
        let argument = Task {
            kind,
            lun,
            queue,
            tag,
            ..Task::ZERO
        };
        Ok(self.call(TASK, &argument)?.in_flight)
    }

    pub fn set_features(&self, version: u32, features: u64) -> Result<(), Refused> {
        let argument = SetFeatures {
            version,
            features,
            ..SetFeatures::ZERO
        };
        self.call(SET_FEATURES, &argument).map(drop)
    }

    pub fn set_queue(&self, queue: &SetQueue) -> Result<(), Refused> {
        self.call(SET_QUEUE, queue).map(drop)
    }

    pub fn start(&self, queues: u32) -> Result<(), Refused> {
        let argument = Start {
            queues,
            ..Start::ZERO
        };
        self.call(START, &argument).map(drop)
    }

    pub fn stop(&self) -> Result<(), Errno> {
        sys::ioctl_raw(self.as_fd(), STOP, 0)
    }

    pub fn quiesce(&self) -> Result<(), Errno> {
        sys::ioctl_raw(self.as_fd(), QUIESCE, 0)
    }

    pub fn resume(&self) -> Result<(), Errno> {
        sys::ioctl_raw(self.as_fd(), RESUME, 0)
    }

    pub fn queue(&self, index: u32) -> Result<QueueStatus, Refused> {
        let argument = QueueStatus {
            index,
            ..QueueStatus::ZERO
        };
        self.call(GET_QUEUE, &argument)
    }
}

/// The errno that stands beside a [`SetupError`].
fn errno_of(error: SetupError) -> Errno {
    use SetupError::*;
    match error {
        Running | LunInFlight | DeviceDirty => Errno::EBUSY,
        LunBusy => Errno::EEXIST,
        LunAbsent => Errno::ENOENT,
        RegionUnpinnable | QueueAddress => Errno::EFAULT,
        MemoryLimit | NoMemory | NoWorker => Errno::ENOMEM,
        NotBlockDevice => Errno::ENOTBLK,
        DeviceReadOnly => Errno::EROFS,
        CgroupDenied => Errno::EACCES,
        Stopping | Stuck => Errno::EAGAIN,
        Reserved | TooManyRegions | RegionBounds | RegionOverlap | LunRange | DeviceUnsuitable
        | Features | QueueRange | QueueSize | NotEventfd | NotConfigured | NoMemoryTable
        | LimitRange | TaskRange | NotCgroup | CgroupWithoutIo | NoBusMaster => Errno::EINVAL,
    }
}

/// Demands that a call was refused for this reason, with the errno that belongs to it; the index at fault.
pub fn refused<T>(
    what: &str,
    result: Result<T, Refused>,
    wanted: SetupError,
) -> anyhow::Result<u32> {
    let refused = result
        .err()
        .with_context(|| format!("{what} was accepted"))?;
    let errno = errno_of(wanted);
    let right = refused.error == Some(wanted) && refused.errno == errno;
    ensure!(
        right,
        "{what}: {refused} instead of {wanted:?} with {errno:?}"
    );
    Ok(refused.index)
}
