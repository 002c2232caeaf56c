// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The task registers: which task, for which LUN and request, and what it left.

use avio_abi::features;
use avio_abi::pci::{reg, task};

/// A task command of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Let one request be sent again if it fails.
    Abort {
        /// Its LUN.
        lun: u32,
        /// Its queue.
        queue: u32,
        /// Its tag.
        tag: u32,
    },
    /// All requests of a LUN, likewise.
    LunReset {
        /// Which.
        lun: u32,
    },
    /// The guest knows that a LUN's backing is another.
    OpenGate {
        /// Which.
        lun: u32,
        /// `changes` of the description that it has seen.
        changes: u32,
    },
    /// Serve a queue no more.
    QueueStop {
        /// Which.
        queue: u32,
    },
    /// Serve it anew.
    QueueStart {
        /// Which.
        queue: u32,
    },
}

impl Task {
    /// The feature that the driver must have asked for, if any.
    pub fn feature(self) -> u64 {
        match self {
            Self::Abort { .. } | Self::LunReset { .. } => features::TASKS,
            Self::OpenGate { .. } => 0,
            Self::QueueStop { .. } | Self::QueueStart { .. } => features::QUEUE_RESET,
        }
    }
}

/// The registers.
#[derive(Default)]
pub struct Tasks {
    lun: u32,
    request: u32,
    result: u32,
}

impl Tasks {
    /// Reads a register.
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            reg::TASK_LUN => self.lun,
            reg::TASK_REQUEST => self.request,
            reg::TASK_RESULT => self.result,
            _ => 0,
        }
    }

    /// Writes a register other than TASK.
    pub fn write(&mut self, offset: u64, value: u32) {
        match offset {
            reg::TASK_LUN => self.lun = value,
            reg::TASK_REQUEST => self.request = value,
            _ => {}
        }
    }

    /// What a write of `kind` to TASK asks for.
    pub fn command(&self, kind: u32) -> Option<Task> {
        let (lun, queue) = (self.lun, self.request >> 16);
        match kind {
            task::ABORT => Some(Task::Abort {
                lun,
                queue,
                tag: self.request & 0xffff,
            }),
            task::LUN_RESET => Some(Task::LunReset { lun }),
            task::OPEN_GATE => Some(Task::OpenGate {
                lun,
                changes: self.request,
            }),
            task::QUEUE_STOP => Some(Task::QueueStop { queue }),
            task::QUEUE_START => Some(Task::QueueStart { queue }),
            _ => None,
        }
    }

    /// Sets TASK_RESULT.
    pub fn set_result(&mut self, result: u32) {
        self.result = result;
    }
}
