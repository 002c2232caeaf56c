// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! `/dev/avio-stor`: one open file is one adapter, and each method one ioctl.
//!
//! One of the two files with `unsafe` (`memory.rs` is the other).
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use avio_abi::ioctl::{
    self, AddLun, Info, Region, SetFeatures, SetMemory, SetQueue, SetupError, Start,
};
use avio_abi::stor::{lun_flags, LunInfo};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::ioctl_with_mut_ptr;

use crate::memory::{slots, GuestMemory};
use crate::registers::{Backend, Queue, Refusal};

/// Why the module could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The module is not there.
    #[error("{0} does not exist: the host module is not loaded; insmod avio_host.ko")]
    NoModule(PathBuf),
    /// The device cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// The device.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not the module's.
    #[error("{0} is not an AVIO storage backend")]
    NotBackend(PathBuf),
    /// The module has a reason.
    #[error("{what}: {}", .error.text())]
    Refused {
        /// What was tried.
        what: String,
        /// The reason.
        error: SetupError,
        /// The region or queue at fault, where there is one.
        index: u32,
    },
    /// The module gave an errno only.
    #[error("{what}")]
    Failed {
        /// What was tried.
        what: String,
        /// Why.
        source: io::Error,
    },
}

/// An adapter.
pub struct Stor {
    file: File,
    /// What the module can do.
    pub info: Info,
}

impl Stor {
    /// Makes an adapter.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file =
            File::options()
                .read(true)
                .write(true)
                .open(path)
                .map_err(|source| match source.kind() {
                    io::ErrorKind::NotFound => Error::NoModule(path.into()),
                    _ => Error::Open {
                        path: path.into(),
                        source,
                    },
                })?;
        let mut bytes = [0; 64];
        call(&file, ioctl::GET_INFO, &mut bytes).map_err(|_| Error::NotBackend(path.into()))?;
        Ok(Self {
            file,
            info: Info::from_bytes(&bytes),
        })
    }

    /// Sets the guest's memory, which the module pins. Returns the pages that it pinned.
    pub fn set_memory(&self, memory: &GuestMemory) -> Result<u64, Error> {
        let slots = slots(memory);
        let table: Vec<u8> = slots
            .iter()
            .flat_map(|slot| {
                let (guest_addr, size, user_addr) = (slot.guest_addr, slot.size, slot.user_addr);
                Region {
                    guest_addr,
                    size,
                    user_addr,
                    ..Region::default()
                }
                .to_bytes()
            })
            .collect();
        let arg = SetMemory {
            regions: table.as_ptr() as u64,
            count: slots.len() as u32,
            ..SetMemory::default()
        };
        let mut bytes = arg.to_bytes();
        let result = call(&self.file, ioctl::SET_MEMORY, &mut bytes);
        let answer = SetMemory::from_bytes(&bytes);
        checked(result, answer.error, answer.error_index, || {
            match slots.get(answer.error_index as usize) {
                Some(slot) => format!(
                    "guest memory of {} MiB at {:#x}",
                    slot.size >> 20,
                    slot.guest_addr
                ),
                None => "guest memory".into(),
            }
        })?;
        Ok(answer.pages)
    }

    /// Attaches an open block device and returns the LUN as the guest is to see it.
    pub fn add_lun(
        &self,
        lun: u32,
        disk: &File,
        readonly: bool,
        serial: &str,
    ) -> Result<LunInfo, Error> {
        let mut arg = AddLun {
            lun,
            fd: disk.as_raw_fd(),
            ..AddLun::default()
        };
        arg.flags = if readonly { lun_flags::READ_ONLY } else { 0 };
        for (to, from) in arg.serial.iter_mut().zip(serial.bytes()) {
            *to = from;
        }
        let mut bytes = arg.to_bytes();
        let result = call(&self.file, ioctl::ADD_LUN, &mut bytes);
        let answer = AddLun::from_bytes(&bytes);
        checked(result, answer.error, 0, || format!("LUN {lun}"))?;
        Ok(answer.info)
    }

    fn set_features(&self, version: u32, features: u64) -> Result<(), Error> {
        let mut bytes = SetFeatures {
            version,
            features,
            ..SetFeatures::default()
        }
        .to_bytes();
        let result = call(&self.file, ioctl::SET_FEATURES, &mut bytes);
        checked(result, SetFeatures::from_bytes(&bytes).error, 0, || {
            "features".into()
        })
    }

    fn set_queue(
        &self,
        index: u32,
        queue: &Queue,
        kick: &EventFd,
        call_event: &EventFd,
    ) -> Result<(), Error> {
        let mut bytes = SetQueue {
            index,
            size: queue.size,
            submissions: queue.submissions,
            completions: queue.completions,
            control: queue.control,
            kick_fd: kick.as_raw_fd(),
            call_fd: call_event.as_raw_fd(),
            ..SetQueue::default()
        }
        .to_bytes();
        let result = call(&self.file, ioctl::SET_QUEUE, &mut bytes);
        checked(result, SetQueue::from_bytes(&bytes).error, index, || {
            format!("queue {index}")
        })
    }

    fn start(&self, queues: u32) -> Result<(), Error> {
        let mut bytes = Start {
            queues,
            ..Start::default()
        }
        .to_bytes();
        let result = call(&self.file, ioctl::START, &mut bytes);
        let answer = Start::from_bytes(&bytes);
        checked(result, answer.error, answer.error_index, || {
            format!("start of {queues} queues")
        })
    }

    fn stop(&self) -> Result<(), Error> {
        checked(call(&self.file, ioctl::STOP, &mut []), 0, 0, || {
            "stop".into()
        })
    }
}

/// Turns an ioctl's result and the reason in its argument into one error.
fn checked(
    result: io::Result<()>,
    error: u32,
    index: u32,
    what: impl FnOnce() -> String,
) -> Result<(), Error> {
    result.map_err(|source| match SetupError::from_u32(error) {
        Some(error) => Error::Refused {
            what: what(),
            error,
            index,
        },
        None => Error::Failed {
            what: what(),
            source,
        },
    })
}

/// The one way into the module. `request` must encode `N` as its argument's length, or zero.
fn call<const N: usize>(file: &File, request: u32, arg: &mut [u8; N]) -> io::Result<()> {
    assert_eq!((request >> 16 & 0x3fff) as usize, N);
    // SAFETY: the module reads and writes N bytes at most, the length in the request, and `arg` has them. Of the
    // addresses inside an argument, `set_memory` alone passes any: those of its table, which lives through the call,
    // and those of guest memory, which is mapped shared and reached by volatile accesses only.
    let result = unsafe { ioctl_with_mut_ptr(file, u64::from(request), arg.as_mut_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// An adapter with the eventfds of its queues.
pub struct Served {
    stor: Stor,
    kicks: Vec<Arc<EventFd>>,
    calls: Vec<Arc<EventFd>>,
    warned: bool,
}

impl Served {
    /// Queue N is kicked by `kicks[N]` and raises `calls[N]`.
    pub fn new(stor: Stor, kicks: Vec<Arc<EventFd>>, calls: Vec<Arc<EventFd>>) -> Self {
        Self {
            stor,
            kicks,
            calls,
            warned: false,
        }
    }

    fn try_start(&self, version: u32, features: u64, queues: &[Queue]) -> Result<(), Error> {
        self.stor.set_features(version, features)?;
        for (index, ((queue, kick), call)) in
            (0..).zip(queues.iter().zip(&self.kicks).zip(&self.calls))
        {
            self.stor.set_queue(index, queue, kick, call)?;
        }
        self.stor.start(queues.len() as u32)
    }
}

impl Backend for Served {
    fn start(&mut self, version: u32, features: u64, queues: &[Queue]) -> Result<(), Refusal> {
        tracing::debug!(
            version,
            features,
            queues = queues.len(),
            "the guest starts its adapter"
        );
        self.try_start(version, features, queues).map_err(|error| {
            // Once only: a guest could fill the log.
            if !self.warned {
                self.warned = true;
                tracing::warn!(
                    "the guest's adapter does not start: {}",
                    crate::error_chain(&error)
                );
            }
            match error {
                Error::Refused { error, index, .. } => Refusal {
                    error: Some(error),
                    queue: index,
                },
                _ => Refusal {
                    error: None,
                    queue: 0,
                },
            }
        })
    }

    fn stop(&mut self) {
        tracing::debug!("the guest resets its adapter");
        if let Err(error) = self.stor.stop() {
            tracing::debug!("{}", crate::error_chain(&error));
        }
    }
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

    #[test]
    fn the_modules_reason_is_preferred_to_the_errno() {
        let failed = || Err(io::Error::from_raw_os_error(libc::EINVAL));
        let refused =
            checked(failed(), SetupError::LunBusy as u32, 0, || "LUN 3".into()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("LUN 3: {}", SetupError::LunBusy.text())
        );
        assert!(matches!(
            checked(failed(), 0, 0, || "LUN 3".into()),
            Err(Error::Failed { .. })
        ));
        assert!(checked(Ok(()), 0, 0, || "LUN 3".into()).is_ok());
    }
}
