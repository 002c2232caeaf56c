// SPDX-License-Identifier: GPL-2.0

//! The guest's task commands. Some mark requests, which end as Aborted if the backing fails them; what waits for its LUN's
//! limits goes on waiting. Others stop one queue and start it anew, while the others go on.

use crate::calls::Refusal;
use crate::state::{Running, State};
use avio_abi::ioctl::{SetupError, Task};
use avio_abi::pci::task;
use avio_abi::stor::lun_flags;
use avio_sys::host::wait_until;

/// For how long a queue's start waits for a pass of its old worker.
const PASS_NS: u64 = 1_000_000_000;

impl State {
    pub(crate) fn task(&mut self, call: &mut Task) -> Result<(), Refusal> {
        self.must_not_be_stopping()?;
        if call.reserved != 0 {
            return Err(SetupError::Reserved.into());
        }
        call.in_flight = match call.kind {
            task::ABORT => self.abort(call)?,
            task::LUN_RESET => {
                self.lun(call.lun)?;
                self.abort_lun(call.lun)
            }
            task::OPEN_GATE => {
                self.open_gate(call.lun)?;
                0
            }
            task::QUEUE_STOP => self.stop_queue(call.queue)?,
            task::QUEUE_START => {
                self.start_queue_again(call.queue)?;
                0
            }
            _ => return Err(SetupError::TaskRange.into()),
        };
        Ok(())
    }

    fn queue_that_runs(&self, number: u32) -> Result<&Running, SetupError> {
        let running = self.running.get(number as usize);
        running.ok_or(SetupError::TaskRange)
    }

    /// Stops a queue; how many requests it still has, a pass that goes on being one.
    fn stop_queue(&self, number: u32) -> Result<u32, SetupError> {
        let Running { queue, .. } = self.queue_that_runs(number)?;
        queue.shared().stop();
        Ok(match queue.in_flight() {
            0 => u32::from(!queue.idle()),
            left => left,
        })
    }

    /// Puts a new queue in the place of one that was stopped. What the old one held back is forgotten.
    fn start_queue_again(&mut self, number: u32) -> Result<(), Refusal> {
        let Running { queue, .. } = self.queue_that_runs(number)?;
        if !queue.shared().is_stopped() {
            return Err(SetupError::Running.into());
        }
        // A pass that was begun since finds the queue stopped, and ends soon.
        if queue.in_flight() != 0 || !wait_until(PASS_NS, || queue.idle()) {
            return Err(SetupError::Stuck.into());
        }
        self.renew_queue(number)
    }

    /// Marks one request; how many that were.
    fn abort(&self, call: &Task) -> Result<u32, SetupError> {
        let number = |value: u32| u16::try_from(value).map_err(|_| SetupError::TaskRange);
        let (tag, lun) = (number(call.tag)?, number(call.lun)?);
        let running = self.queue_that_runs(call.queue)?;
        if running.queue.shared().tag(tag).is_none() {
            return Err(SetupError::TaskRange);
        }
        Ok(u32::from(running.queue.abort(tag, lun)))
    }

    /// Marks all requests of a LUN; how many there are.
    fn abort_lun(&self, number: u32) -> u32 {
        let Ok(lun) = u16::try_from(number) else {
            return 0;
        };
        let marked = self.running.iter().map(|it| it.queue.abort_lun(lun));
        marked.fold(0, u32::saturating_add)
    }

    /// Opens a gate that is closed. The guest, who asked for it, is not told of this change with a request.
    fn open_gate(&mut self, number: u32) -> Result<(), Refusal> {
        let mut info = self.lun(number)?.info;
        info.flags &= !lun_flags::GATED;
        self.redescribe(number, info, false)?;
        Ok(())
    }
}
