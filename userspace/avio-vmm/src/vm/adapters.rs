// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Making the machine's storage adapters: each an adapter of the module with the guest's memory, a PCI function, and
//! what is attached to it.

use std::sync::Arc;

use kvm_ioctls::VmFd;
use vm_allocator::{AddressAllocator, AllocPolicy};

use super::Error;
use crate::adapter::{Adapter, Parts};
use crate::args::Args;
use crate::backend::{self, Stor};
use crate::backing::Look;
use crate::hba::Hba;
use crate::interrupts::Router;
use crate::inventory::{self, Inventory, Lun};
use crate::layout::{PCI_WINDOW, PCI_WINDOW_SIZE};
use crate::memory::GuestMemory;
use crate::registers::Offer;
use crate::resets::Resets;
use crate::signal::Signal;

/// Makes the adapters of the inventory, in their order, from PCI device 1 on.
pub fn create(
    vm: &Arc<VmFd>,
    memory: &GuestMemory,
    args: &Args,
    inventory: &Inventory,
    notice: &Signal,
    resets: &Resets,
) -> Result<Vec<Adapter>, Error> {
    let mut window =
        AddressAllocator::new(PCI_WINDOW, PCI_WINDOW_SIZE).map_err(Error::NoPciRoom)?;
    let router = Arc::new(Router::new(vm.clone())?);
    let mut adapters = Vec::with_capacity(inventory.adapters.len());
    for (index, planned) in inventory.adapters.iter().enumerate() {
        let stor = Stor::open(&args.device)?;
        let offer = offer(&stor, planned, args.queue_size)?;
        let pages = stor.set_memory(memory)?;
        tracing::debug!(pages, id = planned.id, "guest memory is pinned");
        if let Some(window) = planned.poll_ns {
            stor.set_poll(window)?;
        }
        let size = avio_abi::pci::BAR_SIZE;
        let bar = window
            .allocate(size, size, AllocPolicy::FirstMatch)
            .map_err(Error::NoPciRoom)?;
        let parts = Parts {
            slot: index + 1,
            bar: bar.start() as u32,
            offer,
            stor,
            notice: notice.clone(),
            resets: resets.of(index),
        };
        let adapter = Adapter::new(vm, &router, parts)?;
        attach(&adapter.hba(), index, planned, inventory)?;
        adapters.push(adapter);
    }
    Ok(adapters)
}

/// Of what a newer module can do, only what this VMM knows.
fn offer(stor: &Stor, planned: &inventory::Adapter, queue_size: u32) -> Result<Offer, Error> {
    let info = &stor.info;
    if planned.queues > info.max_queues {
        return Err(Error::Queues {
            id: planned.id.clone(),
            asked: planned.queues,
            allowed: info.max_queues,
        });
    }
    if queue_size > info.max_queue_size {
        return Err(Error::QueueSize {
            asked: queue_size,
            allowed: info.max_queue_size,
        });
    }
    Ok(Offer {
        version: info.version.min(avio_abi::ABI_VERSION),
        features: info.features & avio_abi::features::ALL & !planned.without,
        max_queues: planned.queues,
        max_queue_size: queue_size,
    })
}

/// Attaches all LUNs. One that is gone, and that the module does not take, is left out until it is back.
fn attach(
    hba: &Hba,
    index: usize,
    planned: &inventory::Adapter,
    inventory: &Inventory,
) -> Result<(), Error> {
    for (number, lun) in &planned.luns {
        let foreign = inventory.is_foreign(index, *number, lun);
        if foreign {
            tracing::warn!(
                "LUN {number} of adapter {} is another disk than the guest last knew ({}); its gate is closed",
                planned.id,
                lun.backing.facts.identity.text
            );
        }
        match attach_one(hba, *number, lun, foreign) {
            Ok(()) if lun.lost => hba.update(*number, true, None)?,
            Err(_) if lun.lost || lun.backing.look() == Look::Gone => {}
            other => other.map_err(|source| Error::Attach {
                path: lun.disk.path.clone(),
                source,
            })?,
        }
    }
    Ok(())
}

/// Attaches a LUN. What the host's page cache has of it is written back if it must be: a device that hangs is to hold up the
/// guest's reset no longer than what it has in flight.
fn attach_one(hba: &Hba, number: u32, lun: &Lun, foreign: bool) -> Result<(), backend::Error> {
    match hba.attach(number, lun, foreign) {
        Err(error) if error.is_dirty() && !lun.lost => {
            lun.backing.write_back(&lun.disk.path);
            hba.attach(number, lun, foreign)
        }
        result => result,
    }
}
