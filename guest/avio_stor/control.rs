// SPDX-License-Identifier: GPL-2.0

//! What the administrator says to the adapter's node, `/dev/gvsdN` (`avio_abi::gvsd`).
//!
//! A file that is open may outlive the device: registers then read as all ones and take no writes.

use crate::controller::Controller;
use crate::lun::{disk_name, read};
use crate::tasks::request;
use avio_abi::gvsd::{Info, Lun, Stat, Task, ALL, CLEAR_STAT, GET_INFO, GET_LUN, GET_STAT, TASK};
use avio_abi::pci::{reg, task, DEVICE_STOR, VENDOR_ID};
use avio_abi::release::Release;
use avio_abi::stor::lun_flags;
use avio_abi::wire::Wire;
use avio_sys::guest::node::Calls;
use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;
use kernel::uaccess::{UserPtr, UserSlice};

impl Calls for Controller {
    type Module = crate::LocalModule;

    fn ioctl(&self, command: u32, argument: usize) -> Result {
        match command {
            GET_INFO => answer(argument, |_: Info| self.info()),
            GET_LUN => answer(argument, |lun| self.lun(lun)),
            GET_STAT => answer(argument, |stat| self.stat(stat)),
            CLEAR_STAT => answer(argument, |task| self.clear(task)),
            TASK => answer(argument, |task| self.task(task)),
            _ => Err(ENOTTY),
        }
    }
}

/// Takes a call's argument in and gives its answer out.
fn answer<T: Wire>(argument: usize, call: impl FnOnce(T) -> Result<T>) -> Result {
    let mut buffer = [0; Stat::SIZE];
    let bytes = buffer.get_mut(..T::SIZE).ok_or(EINVAL)?;
    let (mut reader, mut writer) =
        UserSlice::new(UserPtr::from_addr(argument), T::SIZE).reader_writer();
    reader.read_slice(bytes)?;
    let (value, _) = T::take(bytes).ok_or(EINVAL)?;
    call(value)?.put(bytes).ok_or(EINVAL)?;
    writer.write_slice(bytes)
}

impl Controller {
    /// Fails if the device is gone.
    fn version(&self) -> Result<u32> {
        match self.link.registers.read(reg::VERSION) {
            u32::MAX => Err(ENODEV),
            version => Ok(version),
        }
    }

    /// The number of a LUN that is there, or none for all.
    fn chosen(&self, lun: u32) -> Result<Option<u16>> {
        self.version()?;
        if lun == ALL {
            return Ok(None);
        }
        let lun = u16::try_from(lun).map_err(|_| ENXIO)?;
        read(&self.link.registers, lun)?.ok_or(ENXIO)?;
        Ok(Some(lun))
    }

    fn info(&self) -> Result<Info> {
        let registers = &self.link.registers;
        let mut info = Info {
            vendor: VENDOR_ID,
            device: DEVICE_STOR,
            version: self.version()?,
            features: self.link.features,
            state: self.state.load(Relaxed),
            queues: u32::try_from(self.link.queues.len())?,
            polled: self.polled,
            queue_size: self.link.size.entries(),
            luns: registers.read(reg::LUNS),
            resets: self.resets.load(Relaxed),
            release: Release::CURRENT.0,
            host_release: registers.read(reg::RELEASE),
            ..Info::ZERO
        };
        for lun in 0..u16::try_from(info.luns)? {
            if let Some(lun) = read(registers, lun)? {
                info.present = info.present.saturating_add(1);
                info.max_bytes = info.max_bytes.max(lun.max_bytes);
            }
        }
        let path = self.link.device.name().to_bytes();
        for (to, from) in info.path.iter_mut().zip(path) {
            *to = *from;
        }
        Ok(info)
    }

    fn lun(&self, asked: Lun) -> Result<Lun> {
        let lun = self.chosen(asked.lun)?.ok_or(EINVAL)?;
        let mut answer = Lun {
            lun: asked.lun,
            opens: self.usage.opens(lun),
            info: read(&self.link.registers, lun)?.ok_or(ENXIO)?,
            ..Lun::ZERO
        };
        if let Some(index) = self.usage.disk(lun) {
            for (to, from) in answer.disk.iter_mut().zip(disk_name(index)) {
                *to = from;
            }
        }
        Ok(answer)
    }

    fn stat(&self, asked: Stat) -> Result<Stat> {
        let lun = self.chosen(asked.lun)?;
        let mut sum = Stat {
            lun: asked.lun,
            ..Stat::ZERO
        };
        for queue in &self.link.queues {
            queue.counters.add_to(&mut sum, lun);
            sum.in_flight = sum.in_flight.saturating_add(queue.in_flight(lun));
        }
        Ok(sum)
    }

    fn clear(&self, asked: Task) -> Result<Task> {
        let only_lun = Task {
            lun: asked.lun,
            ..Task::ZERO
        };
        if asked != only_lun {
            return Err(EINVAL);
        }
        let lun = self.chosen(asked.lun)?;
        for queue in &self.link.queues {
            queue.counters.clear(lun);
        }
        Ok(asked)
    }

    fn task(&self, asked: Task) -> Result<Task> {
        let queues = self.link.queues.len() as u64;
        let depth = self.link.size.entries();
        let (changes, no_request) = (asked.changes, asked.queue == 0 && asked.tag == 0);
        let request = match asked.kind {
            task::ABORT if u64::from(asked.queue) < queues && asked.tag < depth && changes == 0 => {
                request(asked.queue, asked.tag)
            }
            task::LUN_RESET if no_request && changes == 0 => 0,
            task::OPEN_GATE if no_request => changes,
            _ => return Err(EINVAL),
        };
        if asked.left != 0 || asked.reserved != 0 {
            return Err(EINVAL);
        }
        let lun = self.chosen(asked.lun)?.ok_or(EINVAL)?;
        // The old disk's requests would reach the new backing.
        if asked.kind == task::OPEN_GATE && self.luns.is_waiting(lun) {
            return Err(EBUSY);
        }
        let refused = match asked.kind {
            task::OPEN_GATE => EBUSY,
            _ => EOPNOTSUPP,
        };
        let left = self.tasks.run(asked.kind, lun, request).ok_or(refused)?;
        if asked.kind == task::OPEN_GATE {
            self.luns.scan();
            let info = read(&self.link.registers, lun)?.ok_or(ENXIO)?;
            if info.flags & lun_flags::GATED != 0 {
                return Err(EBUSY);
            }
        }
        Ok(Task { left, ..asked })
    }
}
