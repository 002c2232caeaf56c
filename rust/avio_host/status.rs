// SPDX-License-Identifier: GPL-2.0

//! What an adapter says of itself: GET_QUEUE and debugfs.

use crate::calls::Refusal;
use crate::counters::{show_latency, show_lun, sum};
use crate::state::{Phase, Running, State};
use avio_abi::ioctl::{LunStatus, QueueStatus};
use avio_abi::pci;
use avio_abi::release::Release;
use avio_abi::ring::Broken;
use avio_abi::wire::Wire;
use kernel::fmt;
use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;

impl State {
    pub(crate) fn get_queue(&mut self, call: &mut QueueStatus) -> Result<(), Refusal> {
        if call.reserved != [0; 4] || !self.is_set(call.index) {
            return Err(EINVAL.into());
        }
        let Some(Running { worker, queue }) = self.running.get(call.index as usize) else {
            *call = QueueStatus {
                index: call.index,
                state: pci::state::STOPPED,
                ..QueueStatus::ZERO
            };
            return Ok(());
        };
        let shared = queue.shared();
        let counters = &shared.counters;
        *call = QueueStatus {
            index: call.index,
            state: match self.phase {
                Phase::Running if !shared.is_stopped() => pci::state::RUNNING,
                _ if !queue.idle() => pci::state::STOPPING,
                _ => pci::state::STOPPED,
            },
            broken: shared.broken(),
            in_flight: queue.in_flight(),
            requests: counters.requests.get(),
            read_bytes: counters.read_bytes.get(),
            write_bytes: counters.write_bytes.get(),
            doorbells: worker.kicks(),
            interrupts: counters.interrupts.get(),
            interrupts_suppressed: counters.suppressed.get(),
            errors: counters.errors(),
            submission: shared.position.load(Relaxed),
            completion: shared.writer.posted(),
            polls: counters.polls.get(),
            polls_found: counters.polls_found.get(),
            reserved: [0; 4],
        };
        Ok(())
    }

    /// What debugfs shows, of `name=value` pairs: a line for the adapter with the totals from its open, and the LUNs' queue
    /// depth and latency together; one for each LUN from its ADD_LUN, and one for each queue from its start.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.show_adapter(f)?;
        self.show_luns(f)?;
        self.show_queues(f)
    }

    fn show_adapter(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages = self.memory.as_ref().map_or(0, |memory| memory.pages());
        let state = match self.phase {
            Phase::Stopped => "stopped",
            Phase::Running => "running",
            Phase::Stopping => "stopping",
            Phase::Quiesced => "quiesced",
        };
        let (major, minor, patch) = Release::CURRENT.parts();
        write!(
            f,
            "adapter release={major}.{minor}.{patch} pages={pages} queues={} state={state} disks_leaving={}",
            self.running.len(),
            self.leaving.len()
        )?;
        let mut totals = self.past.clone();
        for running in &self.running {
            running.add_to(&mut totals);
        }
        totals.show(f)?;
        let mut luns = LunStatus::default();
        for (number, lun) in self.luns.iter() {
            let one = self.lun_status(number, lun);
            luns.in_flight = luns.in_flight.saturating_add(one.in_flight);
            luns.held_back = luns.held_back.saturating_add(one.held_back);
            sum(&mut luns.latency, one.latency);
        }
        write!(
            f,
            " in_flight={} held_back={}",
            luns.in_flight, luns.held_back
        )?;
        show_latency(&luns.latency, f)?;
        writeln!(f)
    }

    fn show_luns(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, lun) in self.luns.iter() {
            let info = &lun.info;
            write!(
                f,
                "lun{number} sectors={} logical_block={} flags={:#x}",
                info.sectors, info.logical_block, info.flags
            )?;
            show_lun(&self.lun_status(number, lun), f)?;
            writeln!(f)?;
        }
        Ok(())
    }

    fn show_queues(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Running { worker, queue }) in self.running.iter().enumerate() {
            let shared = queue.shared();
            let broken = Broken::from_u32(shared.broken()).map_or("no", Broken::name);
            let (in_flight, doorbells) = (queue.in_flight(), worker.kicks());
            write!(
                f,
                "queue{number} broken={broken} in_flight={in_flight} doorbells={doorbells}"
            )?;
            shared.counters.show(f)?;
            writeln!(f)?;
        }
        Ok(())
    }
}
