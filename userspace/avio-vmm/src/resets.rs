// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A thread that resets SCSI disks when the guest resets their LUNs. A reset may take a minute, and no virtual processor
//! is to wait for it.

use std::sync::mpsc::{sync_channel, Receiver, SyncSender};

use crate::backend::call;
use crate::inventory::Shared;

/// Resets that may wait; of more the guest has no use.
const WAITING: usize = 16;

/// Asks for resets of an adapter's LUNs.
#[derive(Clone)]
pub struct Resets {
    adapter: usize,
    sender: SyncSender<(usize, u32)>,
}

/// What was asked for.
pub struct Asked(Receiver<(usize, u32)>);

/// A way to ask, for adapter 0, and what was asked that way.
pub fn channel() -> (Resets, Asked) {
    let (sender, receiver) = sync_channel(WAITING);
    (Resets { adapter: 0, sender }, Asked(receiver))
}

impl Resets {
    /// The same for another adapter.
    pub fn of(&self, adapter: usize) -> Self {
        let sender = self.sender.clone();
        Self { adapter, sender }
    }

    /// Asks for a reset of a LUN's backing, unless too many wait. Does not wait itself.
    pub fn ask(&self, lun: u32) {
        let _ = self.sender.try_send((self.adapter, lun));
    }
}

/// Carries out what is asked for until nobody can ask any more.
pub fn run(asked: &Asked, inventory: &Shared) {
    for (adapter, lun) in &asked.0 {
        let disk = {
            let inventory = inventory.lock();
            let found = inventory
                .adapters
                .get(adapter)
                .and_then(|a| a.luns.get(&lun));
            let scsi = found.filter(|lun| lun.backing.facts.scsi);
            scsi.map(|lun| lun.backing.file.clone())
        };
        if let Some(disk) = disk {
            match call::scsi_reset(&disk) {
                Ok(()) => tracing::debug!(adapter, lun, "SCSI disk is reset"),
                Err(error) => tracing::debug!(adapter, lun, %error, "SCSI disk cannot be reset"),
            }
        }
    }
}
