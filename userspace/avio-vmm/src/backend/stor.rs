// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! `/dev/avio-stor`: one open file is one adapter, and each method one ioctl. Here those that concern the adapter and
//! its queues; those for LUNs are in `luns.rs`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use avio_abi::ioctl::{
    self, Info, QueueStatus, Region, SetFeatures, SetMemory, SetPoll, SetQueue, Start,
};
use vmm_sys_util::eventfd::EventFd;

use super::call::{command, exchange};
use super::{checked, Error};
use crate::memory::{slots, GuestMemory};
use crate::registers::{Queue, Stop};

/// An adapter.
pub struct Stor {
    /// Where the module is.
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// What the module can do.
    pub info: Info,
}

impl Stor {
    /// Makes an adapter.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let opened = File::options().read(true).write(true).open(path);
        let file = opened.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::NoModule(path.into()),
            _ => Error::Open {
                path: path.into(),
                source,
            },
        })?;
        let info = info(&file).map_err(|_| Error::NotBackend(path.into()))?;
        Ok(Self {
            path: path.into(),
            file,
            info,
        })
    }

    /// Whether disks of removed LUNs are still open, now that the module has looked.
    pub fn has_leaving_disks(&self) -> Result<bool, Error> {
        let info = info(&self.file);
        let source = |source| Error::Failed {
            what: "disks that leave".into(),
            source,
        };
        Ok(info.map_err(source)?.leaving != 0)
    }

    /// Sets the guest's memory, which the module pins. Returns the pages that it pinned.
    pub fn set_memory(&self, memory: &GuestMemory) -> Result<u64, Error> {
        let slots = slots(memory);
        let region = |slot: &crate::memory::Slot| Region {
            guest_addr: slot.guest_addr,
            size: slot.size,
            user_addr: slot.user_addr,
            ..Region::default()
        };
        let table: Vec<u8> = slots
            .iter()
            .flat_map(|slot| region(slot).to_bytes())
            .collect();
        let mut arg = SetMemory {
            regions: table.as_ptr() as u64,
            count: slots.len() as u32,
            ..SetMemory::default()
        };
        let result = exchange(&self.file, ioctl::SET_MEMORY, &mut arg);
        checked(result, arg.error, arg.error_index, || {
            match slots.get(arg.error_index as usize) {
                Some(slot) => format!(
                    "guest memory of {} MiB at {:#x}",
                    slot.size >> 20,
                    slot.guest_addr
                ),
                None => "guest memory".into(),
            }
        })?;
        Ok(arg.pages)
    }

    /// Sets what the guest's driver chose.
    pub fn set_features(&self, version: u32, features: u64) -> Result<(), Error> {
        let mut arg = SetFeatures {
            version,
            features,
            ..SetFeatures::default()
        };
        let result = exchange(&self.file, ioctl::SET_FEATURES, &mut arg);
        checked(result, arg.error, 0, || "features".into())
    }

    /// Describes a queue.
    pub fn set_queue(
        &self,
        index: u32,
        queue: &Queue,
        kick: &EventFd,
        call: &EventFd,
    ) -> Result<(), Error> {
        let mut arg = SetQueue {
            index,
            size: queue.size,
            submissions: queue.submissions,
            completions: queue.completions,
            control: queue.control,
            kick_fd: kick.as_raw_fd(),
            call_fd: call.as_raw_fd(),
            ..SetQueue::default()
        };
        let result = exchange(&self.file, ioctl::SET_QUEUE, &mut arg);
        checked(result, arg.error, index, || format!("queue {index}"))
    }

    /// Serves this many queues.
    pub fn start(&self, queues: u32) -> Result<(), Error> {
        let mut arg = Start {
            queues,
            ..Start::default()
        };
        let result = exchange(&self.file, ioctl::START, &mut arg);
        checked(result, arg.error, arg.error_index, || {
            format!("start of {queues} queues")
        })
    }

    /// Serves no queue any more.
    pub fn stop(&self) -> Result<Stop, Error> {
        self.wind_down(ioctl::STOP, "stop")
    }

    /// Takes no more requests and waits for those in flight.
    pub fn quiesce(&self) -> Result<Stop, Error> {
        self.wind_down(ioctl::QUIESCE, "quiesce")
    }

    /// Goes on after [`Self::quiesce`].
    pub fn resume(&self) -> Result<(), Error> {
        let result = command(&self.file, ioctl::RESUME);
        checked(result, 0, 0, || "resume".into())
    }

    /// A call that waits for what is in flight, but not for ever.
    fn wind_down(&self, request: u32, what: &str) -> Result<Stop, Error> {
        match command(&self.file, request) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Stop::Pending),
            result => checked(result, 0, 0, || what.into()).map(|()| Stop::Done),
        }
    }

    /// State and counters of a queue.
    pub fn queue(&self, index: u32) -> Result<QueueStatus, Error> {
        let mut arg = QueueStatus {
            index,
            ..QueueStatus::default()
        };
        let result = exchange(&self.file, ioctl::GET_QUEUE, &mut arg);
        checked(result, 0, index, || format!("queue {index}"))?;
        Ok(arg)
    }

    /// Sets how long workers poll before they sleep.
    pub fn set_poll(&self, window_ns: u32) -> Result<(), Error> {
        let mut arg = SetPoll {
            window_ns,
            ..SetPoll::default()
        };
        let result = exchange(&self.file, ioctl::SET_POLL, &mut arg);
        checked(result, arg.error, 0, || {
            format!("polling for {window_ns} ns")
        })
    }
}

fn info(file: &File) -> io::Result<Info> {
    let mut info = Info::default();
    exchange(file, ioctl::GET_INFO, &mut info)?;
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_module_says_what_to_do() {
        let error = Stor::open(Path::new("/dev/avio-none")).err().unwrap();
        assert!(error.to_string().contains("insmod avio_host.ko"), "{error}");
    }

    #[test]
    fn another_device_is_not_taken_for_the_module() {
        assert!(matches!(
            Stor::open(Path::new("/dev/null")),
            Err(Error::NotBackend(_))
        ));
    }
}
