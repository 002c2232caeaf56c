// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The storage adapter as a PCI function: configuration space, and a BAR with registers, doorbells and MSI-X.
//!
//! A doorbell is an ioeventfd where the BAR lies, so that KVM signals the module's worker without coming here.

use std::io;
use std::sync::Arc;

use avio_abi::pci::{self as abi, reg};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;

use crate::backend::{Events, Stor};
use crate::hba::Hba;
use crate::interrupts::{self, KvmVectors, Router};
use crate::pci::config::{ConfigSpace, Identity};
use crate::pci::{msix, Function};
use crate::registers::Offer;
use crate::resets::Resets;
use crate::signal::Signal;

const IDENTITY: Identity = Identity {
    vendor: abi::VENDOR_ID,
    device: abi::DEVICE_STOR,
    class: abi::CLASS_STOR,
};

/// Why an adapter could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An eventfd.
    #[error("cannot create a doorbell")]
    Doorbell(#[source] io::Error),
    /// An interrupt.
    #[error("cannot create an interrupt vector")]
    Vector(#[from] interrupts::Error),
}

/// The function.
pub struct Adapter {
    config: ConfigSpace,
    msix_control: u16,
    msix: msix::Msix<KvmVectors>,
    hba: Arc<Hba>,
    doorbells: Doorbells,
}

/// What an adapter is made of.
pub struct Parts {
    /// PCI device number.
    pub slot: usize,
    /// Where its BAR lies.
    pub bar: u32,
    /// What the guest is offered.
    pub offer: Offer,
    /// The module's side.
    pub stor: Stor,
    /// Tells the control thread of what it has to do.
    pub notice: Signal,
    /// Asks for resets of backings.
    pub resets: Resets,
}

impl Adapter {
    /// An adapter without LUNs.
    pub fn new(vm: &Arc<VmFd>, router: &Arc<Router>, parts: Parts) -> Result<Self, Error> {
        let max_queues = parts.offer.max_queues;
        let vectors = KvmVectors::new(router.clone(), max_queues + 1)?;
        let mut interrupts = vectors.events();
        let calls = interrupts.split_off(abi::queue_vector(0) as usize);
        let config_interrupt = interrupts.swap_remove(abi::VECTOR_CONFIG as usize);
        let doorbells = Doorbells::new(vm.clone(), max_queues).map_err(Error::Doorbell)?;
        let events = Events {
            kicks: doorbells.kicks.clone(),
            calls,
            config: config_interrupt,
            notice: parts.notice,
        };
        let hba = Hba::new(parts.slot, parts.offer, parts.stor, events, parts.resets);

        let mut config = ConfigSpace::new(IDENTITY);
        config.set_bar(abi::BAR_SIZE as u32, parts.bar);
        let count = max_queues as u16 + 1;
        let (body, writable) = msix::capability(
            count,
            abi::BAR,
            reg::MSIX_TABLE as u32,
            reg::MSIX_PBA as u32,
        );
        let msix_control = config.add_capability(msix::CAPABILITY, &body, &writable) + 2;
        let mut adapter = Self {
            config,
            msix_control,
            msix: msix::Msix::new(usize::from(count), vectors),
            hba: Arc::new(hba),
            doorbells,
        };
        adapter.doorbells.place(adapter.config.bar());
        Ok(adapter)
    }

    /// What other threads share of it.
    pub fn hba(&self) -> Arc<Hba> {
        self.hba.clone()
    }

    fn read_word(&self, offset: u64) -> u32 {
        match offset {
            reg::MSIX_TABLE..reg::MSIX_PBA => self.msix.read_table(offset - reg::MSIX_TABLE),
            reg::MSIX_PBA..reg::LUN_INFO => self.msix.read_pending(offset - reg::MSIX_PBA),
            _ => self.hba.registers().read(offset),
        }
    }

    fn write_word(&mut self, offset: u64, value: u32) {
        match offset {
            reg::DOORBELLS..reg::MSIX_TABLE => self
                .doorbells
                .ring((offset - reg::DOORBELLS) / reg::DOORBELL_STRIDE),
            reg::MSIX_TABLE..reg::MSIX_PBA => {
                self.msix.write_table(offset - reg::MSIX_TABLE, value)
            }
            reg::MSIX_PBA..reg::LUN_INFO => {}
            _ => self.hba.registers().write(offset, value),
        }
    }
}

impl Function for Adapter {
    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        let control = self.config.u16_at(self.msix_control);
        self.config.write(offset, data);
        self.hba
            .registers()
            .set_bus_master(self.config.bus_master());
        self.doorbells.place(self.config.bar());
        let new_control = self.config.u16_at(self.msix_control);
        if new_control != control {
            self.msix.set_control(new_control);
        }
    }

    fn claims(&self, address: u64) -> Option<u64> {
        self.config.offset_in_bar(address)
    }

    /// Any size and alignment; a part of a word is a part of what the whole word reads as.
    fn read_bar(&mut self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            *byte = self.read_word(at & !3).to_le_bytes()[(at & 3) as usize];
        }
    }

    /// Whole words only; anything else has no effect.
    fn write_bar(&mut self, offset: u64, data: &[u8]) {
        if offset % 4 != 0 || data.len() % 4 != 0 {
            return;
        }
        for (at, word) in (offset..).step_by(4).zip(data.chunks_exact(4)) {
            if let Ok(bytes) = word.try_into() {
                self.write_word(at, u32::from_le_bytes(bytes));
            }
        }
    }
}

/// The doorbells of all queues, and where KVM watches for them.
struct Doorbells {
    vm: Arc<VmFd>,
    kicks: Vec<Arc<EventFd>>,
    bar: Option<u64>,
}

impl Doorbells {
    fn new(vm: Arc<VmFd>, count: u32) -> io::Result<Self> {
        let kicks = (0..count)
            .map(|_| {
                Ok(Arc::new(EventFd::new(
                    libc::EFD_NONBLOCK | libc::EFD_CLOEXEC,
                )?))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            vm,
            kicks,
            bar: None,
        })
    }

    /// Follows the BAR.
    fn place(&mut self, bar: Option<u64>) {
        if bar == self.bar {
            return;
        }
        tracing::debug!(from = ?self.bar, to = ?bar, "the adapter's BAR moves");
        if let Some(old) = self.bar {
            for (address, kick) in self.addresses(old) {
                let _ = self.vm.unregister_ioevent(kick, &address, NoDatamatch);
            }
        }
        if let Some(new) = bar {
            for (address, kick) in self.addresses(new) {
                // A doorbell that KVM does not take, at an impossible address for instance, works through `ring`.
                if let Err(error) = self.vm.register_ioevent(kick, &address, NoDatamatch) {
                    tracing::debug!(%error, "KVM refuses a doorbell");
                }
            }
        }
        self.bar = bar;
    }

    fn addresses(&self, bar: u64) -> impl Iterator<Item = (IoEventAddress, &EventFd)> {
        let first = bar + reg::DOORBELLS;
        self.kicks.iter().zip(0..).map(move |(kick, queue)| {
            let address: u64 = first + queue * reg::DOORBELL_STRIDE;
            (IoEventAddress::Mmio(address), &**kick)
        })
    }

    fn ring(&self, queue: u64) {
        if let Some(kick) = usize::try_from(queue)
            .ok()
            .and_then(|queue| self.kicks.get(queue))
        {
            let _ = kick.write(1);
        }
    }
}
