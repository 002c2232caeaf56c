// SPDX-License-Identifier: GPL-2.0

//! How the argument of a call comes in and its answer goes out.

use avio_abi::ioctl::{
    AddLun, Info, LunStatus, QueueStatus, RemoveLun, SetFeatures, SetLimits, SetMemory, SetPoll,
    SetQueue, SetupError, Start, Task, UpdateLun,
};
use avio_abi::wire::Wire;
use kernel::alloc::AllocError;
use kernel::prelude::*;
use kernel::uaccess::{UserPtr, UserSlice};

/// Length of the longest argument.
const LONGEST: usize = LunStatus::SIZE;

/// Why a call is refused.
pub(crate) struct Refusal {
    errno: Error,
    error: u32,
    index: u32,
}

impl Refusal {
    /// Refused because of the item with this index.
    pub(crate) fn at(error: SetupError, index: usize) -> Self {
        Self::from(error).of_item(index)
    }

    /// The same, because of the item with this index.
    pub(crate) fn of_item(self, index: usize) -> Self {
        Self {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            ..self
        }
    }
}

impl From<SetupError> for Refusal {
    fn from(error: SetupError) -> Self {
        Self {
            errno: errno(error),
            error: error as u32,
            index: 0,
        }
    }
}

/// For what has no [`SetupError`] of its own.
impl From<Error> for Refusal {
    fn from(errno: Error) -> Self {
        if errno == ENOMEM {
            return SetupError::NoMemory.into();
        }
        Self {
            errno,
            error: 0,
            index: 0,
        }
    }
}

impl From<AllocError> for Refusal {
    fn from(_: AllocError) -> Self {
        SetupError::NoMemory.into()
    }
}

fn errno(error: SetupError) -> Error {
    match error {
        SetupError::Running | SetupError::LunInFlight | SetupError::DeviceDirty => EBUSY,
        SetupError::Stopping | SetupError::Stuck => EAGAIN,
        SetupError::LunAbsent => ENOENT,
        SetupError::LunBusy => EEXIST,
        SetupError::RegionUnpinnable | SetupError::QueueAddress => EFAULT,
        SetupError::MemoryLimit | SetupError::NoMemory | SetupError::NoWorker => ENOMEM,
        SetupError::NotBlockDevice => ENOTBLK,
        SetupError::DeviceReadOnly => EROFS,
        SetupError::CgroupDenied => EACCES,
        SetupError::Reserved
        | SetupError::TooManyRegions
        | SetupError::RegionBounds
        | SetupError::RegionOverlap
        | SetupError::LunRange
        | SetupError::DeviceUnsuitable
        | SetupError::Features
        | SetupError::QueueRange
        | SetupError::QueueSize
        | SetupError::NotEventfd
        | SetupError::NotConfigured
        | SetupError::NoMemoryTable
        | SetupError::LimitRange
        | SetupError::TaskRange
        | SetupError::NotCgroup
        | SetupError::CgroupWithoutIo
        | SetupError::NoBusMaster => EINVAL,
    }
}

/// An argument, and where in it the reason of a refusal goes.
pub(crate) trait Argument: Wire {
    /// Notes why the call is refused; both are zero on success.
    fn report(&mut self, _error: u32, _index: u32) {}
}

impl Argument for Info {}
impl Argument for QueueStatus {}
impl Argument for LunStatus {}

/// Arguments that have an error but no index.
macro_rules! with_error {
    ($($argument:ty),*) => {$(
        impl Argument for $argument {
            fn report(&mut self, error: u32, _index: u32) {
                self.error = error;
            }
        }
    )*};
}

with_error!(
    AddLun,
    RemoveLun,
    UpdateLun,
    SetFeatures,
    SetQueue,
    SetLimits,
    SetPoll,
    Task
);

impl Argument for SetMemory {
    fn report(&mut self, error: u32, index: u32) {
        (self.error, self.error_index) = (error, index);
    }
}

impl Argument for Start {
    fn report(&mut self, error: u32, index: u32) {
        (self.error, self.error_index) = (error, index);
    }
}

/// Carries out a call: takes its argument from the caller's memory once, runs `f`, and puts the answer there.
pub(crate) fn call<T: Argument>(
    arg: usize,
    f: impl FnOnce(&mut T) -> Result<(), Refusal>,
) -> Result<isize> {
    let mut buffer = [0; LONGEST];
    let bytes = buffer.get_mut(..T::SIZE).ok_or(EINVAL)?;
    let (mut reader, mut writer) = UserSlice::new(UserPtr::from_addr(arg), T::SIZE).reader_writer();
    reader.read_slice(bytes)?;
    // An answer that cannot be given is found out before anything is done.
    UserSlice::new(UserPtr::from_addr(arg), T::SIZE)
        .writer()
        .write_slice(bytes)?;
    let (mut value, _) = T::take(bytes).ok_or(EINVAL)?;
    let result = match f(&mut value) {
        Ok(()) => {
            value.report(0, 0);
            Ok(0)
        }
        Err(refusal) => {
            value.report(refusal.error, refusal.index);
            Err(refusal.errno)
        }
    };
    value.put(bytes).ok_or(EINVAL)?;
    writer.write_slice(bytes)?;
    result
}
