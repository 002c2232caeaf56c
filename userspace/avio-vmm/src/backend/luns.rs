// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The module's calls for LUNs.

use std::fs::File;
use std::os::fd::AsRawFd;

use avio_abi::ioctl::{
    self, add_flags, remove_flags, AddLun, LunStatus, RemoveLun, SetLimits, UpdateLun,
};
use avio_abi::pci::task;
use avio_abi::stor::LunInfo;
use avio_control::Limits;

use super::call::exchange;
use super::{checked, Error, Stor};
use crate::registers::Task;

impl Stor {
    /// Attaches an open block device with these of `lun_flags`, in the cgroup of this directory if there is one, and
    /// returns the LUN as the guest is to see it.
    pub fn add_lun(
        &self,
        lun: u32,
        disk: &File,
        flags: u32,
        serial: &str,
        wwn: [u8; 16],
        cgroup: Option<&File>,
    ) -> Result<LunInfo, Error> {
        let mut arg = AddLun {
            lun,
            fd: disk.as_raw_fd(),
            flags,
            wwn,
            ..AddLun::default()
        };
        if let Some(cgroup) = cgroup {
            arg.flags |= add_flags::CGROUP;
            arg.cgroup = cgroup.as_raw_fd();
        }
        for (to, from) in arg.serial.iter_mut().zip(serial.bytes()) {
            *to = from;
        }
        let result = exchange(&self.file, ioctl::ADD_LUN, &mut arg);
        checked(result, arg.error, 0, || format!("LUN {lun}"))?;
        Ok(arg.info)
    }

    /// Whether the module would take an open block device as a LUN with these of `lun_flags`, in this cgroup, tried on an
    /// adapter that is there for nothing else.
    pub fn try_lun(&self, disk: &File, flags: u32, cgroup: Option<&File>) -> Result<(), Error> {
        let trial = Self::open(&self.path)?;
        trial.add_lun(0, disk, flags, "", [0; 16], cgroup).map(drop)
    }

    /// Detaches a LUN; with `force` although requests are in flight.
    pub fn remove_lun(&self, lun: u32, force: bool) -> Result<(), Error> {
        let mut arg = RemoveLun {
            lun,
            flags: if force { remove_flags::FORCE } else { 0 },
            ..RemoveLun::default()
        };
        let result = exchange(&self.file, ioctl::REMOVE_LUN, &mut arg);
        checked(result, arg.error, 0, || format!("LUN {lun}"))
    }

    /// Looks at a LUN's backing again; `flags` says whether it is GATED and LOST from now on.
    pub fn update_lun(&self, lun: u32, flags: u32) -> Result<LunInfo, Error> {
        let mut arg = UpdateLun {
            lun,
            flags,
            ..UpdateLun::default()
        };
        let result = exchange(&self.file, ioctl::UPDATE_LUN, &mut arg);
        checked(result, arg.error, 0, || format!("LUN {lun}"))?;
        Ok(arg.info)
    }

    /// Limits a LUN's rate.
    pub fn set_limits(&self, lun: u32, limits: &Limits) -> Result<(), Error> {
        let mut arg = SetLimits {
            lun,
            iops: limits.iops,
            iops_burst: limits.iops_burst,
            bytes: limits.bytes,
            bytes_burst: limits.bytes_burst,
            ..SetLimits::default()
        };
        let result = exchange(&self.file, ioctl::SET_LIMITS, &mut arg);
        checked(result, arg.error, 0, || format!("limits of LUN {lun}"))
    }

    /// State and counters of a LUN.
    pub fn lun(&self, lun: u32) -> Result<LunStatus, Error> {
        let mut arg = LunStatus {
            lun,
            ..LunStatus::default()
        };
        let result = exchange(&self.file, ioctl::GET_LUN, &mut arg);
        checked(result, 0, 0, || format!("LUN {lun}"))?;
        Ok(arg)
    }

    /// Carries out a task command of the guest. How many of its requests the backing still has.
    pub fn task(&self, task: Task) -> Result<u32, Error> {
        let (kind, lun, queue, tag) = match task {
            Task::Abort { lun, queue, tag } => (task::ABORT, lun, queue, tag),
            Task::LunReset { lun } => (task::LUN_RESET, lun, 0, 0),
            Task::OpenGate { lun, .. } => (task::OPEN_GATE, lun, 0, 0),
            Task::QueueStop { queue } => (task::QUEUE_STOP, 0, queue, 0),
            Task::QueueStart { queue } => (task::QUEUE_START, 0, queue, 0),
        };
        let mut arg = ioctl::Task {
            kind,
            lun,
            queue,
            tag,
            ..ioctl::Task::default()
        };
        let result = exchange(&self.file, ioctl::TASK, &mut arg);
        checked(result, arg.error, 0, || format!("{task:?}"))?;
        Ok(arg.in_flight)
    }
}
