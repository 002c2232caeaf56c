// SPDX-License-Identifier: GPL-2.0

//! Calls that change an adapter's LUNs, at any time. The data path takes no lock for it: a worker has a set of LUNs of
//! its own until it is given another.

use crate::calls::Refusal;
use crate::lun::{heed, Lun};
use crate::luns::Luns;
use crate::state::State;
use avio_abi::ioctl::{
    remove_flags, AddLun, LunStatus, RemoveLun, SetLimits, SetupError, UpdateLun,
};
use avio_abi::stor::{lun_flags, LunInfo};
use avio_abi::MAX_LUNS;
use avio_core::limits::Limits;
use avio_sys::host::wait_until;
use kernel::prelude::*;
use kernel::sync::atomic::Relaxed;
use kernel::sync::Arc;

/// For how long a call waits for the workers to take another set of LUNs. It is no error if one does not: it may be in
/// the block layer's hands.
const TAKE_NS: u64 = 1_000_000_000;

impl State {
    pub(crate) fn lun(&self, number: u32) -> Result<&Lun, SetupError> {
        if number >= MAX_LUNS {
            return Err(SetupError::LunRange);
        }
        self.luns.get(number).ok_or(SetupError::LunAbsent)
    }

    pub(crate) fn add_lun(&mut self, call: &mut AddLun) -> Result<(), Refusal> {
        self.must_not_be_stopping()?;
        match self.lun(call.lun) {
            Ok(_) => return Err(SetupError::LunBusy.into()),
            Err(SetupError::LunAbsent) => {}
            Err(error) => return Err(error.into()),
        }
        let heed = if self.tells_changes() {
            heed::ATTENTION
        } else {
            0
        };
        let mut lun = Lun::open(call, heed)?;
        lun.info.changes = self.changes.wrapping_add(1);
        let info = lun.info;
        let luns = self.luns.with(call.lun, Some(lun))?;
        self.changes = info.changes;
        self.put_luns(luns);
        call.info = info;
        Ok(())
    }

    pub(crate) fn remove_lun(&mut self, call: &mut RemoveLun) -> Result<(), Refusal> {
        self.must_not_be_stopping()?;
        if call.flags & !remove_flags::FORCE != 0 || call.reserved != 0 {
            return Err(SetupError::Reserved.into());
        }
        let disk = self.lun(call.lun)?.disk.clone();
        let luns = self.luns.with(call.lun, None)?;
        self.leaving.reserve(1, GFP_KERNEL_ACCOUNT)?;
        // From here on new requests wait until we have decided, see `Disk::enter`.
        disk.change(heed::LEAVING, 0);
        if call.flags & remove_flags::FORCE != 0 {
            self.condemn_lun(call.lun);
        } else if disk.in_flight() != 0 || self.held_back(call.lun) != 0 {
            disk.change(0, heed::LEAVING);
            return Err(SetupError::LunInFlight.into());
        }
        self.put_luns(luns);
        self.leaving.push(disk, GFP_KERNEL_ACCOUNT)?;
        self.let_disks_go();
        Ok(())
    }

    pub(crate) fn update_lun(&mut self, call: &mut UpdateLun) -> Result<(), Refusal> {
        self.must_not_be_stopping()?;
        if call.flags & !(lun_flags::GATED | lun_flags::LOST) != 0 || call.reserved != [0; 5] {
            return Err(SetupError::Reserved.into());
        }
        let info = self.lun(call.lun)?.seen_again(call.flags)?;
        call.info = self.redescribe(call.lun, info, self.tells_changes())?;
        Ok(())
    }

    /// Gives a LUN another description, if it is another, and tells the guest if `tell`; what the description then is.
    pub(crate) fn redescribe(
        &mut self,
        number: u32,
        mut info: LunInfo,
        tell: bool,
    ) -> Result<LunInfo, Refusal> {
        let lun = self.lun(number)?;
        if info == lun.info {
            return Ok(info);
        }
        info.changes = self.changes.wrapping_add(1);
        let disk = lun.disk.clone();
        let luns = self.luns.with(
            number,
            Some(Lun {
                info,
                disk: disk.clone(),
            }),
        )?;
        self.changes = info.changes;
        let both = heed::GATED | heed::LOST;
        let attention = if tell { heed::ATTENTION } else { 0 };
        disk.change(info.flags & both | attention, !info.flags & both);
        self.put_luns(luns);
        Ok(info)
    }

    /// Gives all queues another set of LUNs.
    fn put_luns(&mut self, luns: Arc<Luns>) {
        for running in &self.running {
            running.queue.set_luns(luns.clone());
            running.knock();
        }
        self.luns = luns;
        wait_until(TAKE_NS, || {
            self.running.iter().all(|running| running.queue.heard())
        });
    }

    /// Has what is in flight or held back of a LUN end as aborted; the workers see that when they are knocked at.
    fn condemn_lun(&self, number: u32) {
        if let Ok(lun) = u16::try_from(number) {
            for running in &self.running {
                running.queue.condemn_lun(lun);
            }
        }
    }

    /// Closes disks of removed LUNs that have no more requests, and that no worker has any more: a worker that let go of the
    /// last reference would close the device at its own end only.
    pub(crate) fn let_disks_go(&mut self) {
        if self.running.iter().all(|running| running.queue.heard()) {
            self.leaving.retain(|disk| disk.in_flight() != 0);
        }
    }

    /// How many disks of removed LUNs cannot go yet.
    pub(crate) fn leaving(&mut self) -> u64 {
        self.let_disks_go();
        self.leaving.len() as u64
    }

    /// How many requests of a LUN wait for its limits.
    fn held_back(&self, number: u32) -> u32 {
        let held = |running: &crate::state::Running| {
            let held = running.queue.shared().held(number);
            held.map_or(0, |held| held.load(Relaxed))
        };
        self.running.iter().map(held).fold(0, u32::saturating_add)
    }

    pub(crate) fn set_limits(&mut self, call: &mut SetLimits) -> Result<(), Refusal> {
        self.must_not_be_stopping()?;
        if call.reserved != 0 {
            return Err(SetupError::Reserved.into());
        }
        let lun = self.lun(call.lun)?;
        let limited = call.iops != 0 || call.bytes != 0;
        lun.disk.set_limits(
            limited.then(|| Limits::new(call.iops, call.iops_burst, call.bytes, call.bytes_burst)),
        );
        // What is held back is held to the new limits.
        for running in &self.running {
            running.knock();
        }
        Ok(())
    }

    pub(crate) fn get_lun(&mut self, call: &mut LunStatus) -> Result<(), Refusal> {
        if call.reserved != [0; 7] {
            return Err(EINVAL.into());
        }
        let lun = self.lun(call.lun).map_err(|_| EINVAL)?;
        *call = self.lun_status(call.lun, lun);
        Ok(())
    }

    /// State and counters of a LUN.
    pub(crate) fn lun_status(&self, number: u32, lun: &Lun) -> LunStatus {
        LunStatus {
            held_back: self.held_back(number),
            ..lun.status(number)
        }
    }
}
