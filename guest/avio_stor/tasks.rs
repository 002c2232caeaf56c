// SPDX-License-Identifier: GPL-2.0

//! The task registers, for one user at a time (`docs/abi.md`, 6.7).

use crate::registers::Registers;
use avio_abi::features;
use avio_abi::pci::{reg, task};
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::{Arc, Mutex};

/// TASK_REQUEST for a request of a queue.
pub(crate) fn request(queue: u32, tag: u32) -> u32 {
    queue << 16 | tag & 0xffff
}

/// Gives task commands.
#[pin_data]
pub(crate) struct Tasks {
    registers: Arc<Registers>,
    /// What was agreed on with the device.
    features: u64,
    #[pin]
    turn: Mutex<()>,
}

impl Tasks {
    /// The task registers of a device with which these features were agreed on.
    pub(crate) fn new(registers: Arc<Registers>, features: u64) -> Result<Arc<Self>> {
        Arc::pin_init(
            try_pin_init!(Self {
                registers,
                features,
                turn <- new_mutex!((), "avio_stor_tasks"),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// Gives a command, with what goes to TASK_REQUEST; how many requests the backing still has, or none if the device knows
    /// no such command, LUN or queue, or the LUN is another by now. May sleep.
    pub(crate) fn run(&self, kind: u32, lun: u16, request: u32) -> Option<u32> {
        let needed = match kind {
            task::OPEN_GATE => 0,
            task::QUEUE_STOP | task::QUEUE_START => features::QUEUE_RESET,
            _ => features::TASKS,
        };
        if needed & !self.features != 0 {
            return None;
        }
        let _turn = self.turn.lock();
        self.registers.write(reg::TASK_LUN, lun.into());
        self.registers.write(reg::TASK_REQUEST, request);
        self.registers.write(reg::TASK, kind);
        let left = self.registers.read(reg::TASK_RESULT);
        (left != task::REFUSED).then_some(left)
    }
}
