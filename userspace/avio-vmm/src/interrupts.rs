// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Message-signalled interrupts by KVM: each vector is an eventfd, which KVM turns into an interrupt without coming
//! here (irqfd). The route of a vector is what the guest wrote to its MSI-X table.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_irqchip,
    kvm_irq_routing_msi, KvmIrqRouting, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI,
};
use kvm_ioctls::VmFd;
use vm_allocator::IdAllocator;
use vmm_sys_util::eventfd::EventFd;

use crate::layout::FIRST_MSI_GSI;
use crate::pci::msix::{Message, NotConnected, Vectors};

/// Most interrupt numbers that this VMM hands out.
const MAX_GSIS: u32 = 1024;

/// Why a vector could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No eventfd.
    #[error("cannot create an eventfd")]
    EventFd(#[source] io::Error),
    /// No interrupt number.
    #[error("no interrupt number is free")]
    Gsi(#[source] vm_allocator::Error),
}

/// The routes of messages, by interrupt number.
type Routes = BTreeMap<u32, Message>;

/// The VM's interrupt routes.
pub struct Router {
    vm: Arc<VmFd>,
    routes: Mutex<Routes>,
    gsis: Mutex<IdAllocator>,
}

impl Router {
    /// The routes of a VM that has its interrupt controllers.
    pub fn new(vm: Arc<VmFd>) -> Result<Self, Error> {
        let gsis = IdAllocator::new(FIRST_MSI_GSI, MAX_GSIS - 1).map_err(Error::Gsi)?;
        Ok(Self {
            vm,
            routes: Mutex::default(),
            gsis: Mutex::new(gsis),
        })
    }

    fn allocate(&self) -> Result<u32, Error> {
        self.gsis
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .allocate_id()
            .map_err(Error::Gsi)
    }

    /// Sets one route. KVM takes the whole table at a time.
    fn route(&self, gsi: u32, message: Message) -> Result<(), String> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        replace(&mut routes, gsi, message, |routes| {
            let entries: Vec<_> = wired_routes()
                .chain(routes.iter().map(|(gsi, m)| message_route(*gsi, *m)))
                .collect();
            let table = KvmIrqRouting::from_entries(&entries).map_err(|e| format!("{e:?}"))?;
            self.vm.set_gsi_routing(&table).map_err(|e| e.to_string())
        })
    }
}

/// Replaces a route, if it is another one, and has the table set; puts the former one back if that fails.
fn replace(
    routes: &mut Routes,
    gsi: u32,
    message: Message,
    set: impl FnOnce(&Routes) -> Result<(), String>,
) -> Result<(), String> {
    let before = routes.insert(gsi, message);
    if before == Some(message) {
        return Ok(());
    }
    let result = set(routes);
    if result.is_err() {
        match before {
            Some(before) => routes.insert(gsi, before),
            None => routes.remove(&gsi),
        };
    }
    result
}

/// What KVM has by default: interrupts 0 to 15 to both kinds of controller, 16 to 23 to the I/O APIC.
fn wired_routes() -> impl Iterator<Item = kvm_irq_routing_entry> {
    let pic = (0..16).map(|gsi| {
        let chip = if gsi < 8 {
            KVM_IRQCHIP_PIC_MASTER
        } else {
            KVM_IRQCHIP_PIC_SLAVE
        };
        wired_route(gsi, chip, gsi % 8)
    });
    pic.chain((0..24).map(|gsi| wired_route(gsi, KVM_IRQCHIP_IOAPIC, gsi)))
}

fn wired_route(gsi: u32, irqchip: u32, pin: u32) -> kvm_irq_routing_entry {
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        u: kvm_irq_routing_entry__bindgen_ty_1 {
            irqchip: kvm_irq_routing_irqchip { irqchip, pin },
        },
        ..Default::default()
    }
}

fn message_route(gsi: u32, message: Message) -> kvm_irq_routing_entry {
    let msi = kvm_irq_routing_msi {
        address_lo: message.address as u32,
        address_hi: (message.address >> 32) as u32,
        data: message.data,
        ..Default::default()
    };
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        u: kvm_irq_routing_entry__bindgen_ty_1 { msi },
        ..Default::default()
    }
}

struct Vector {
    gsi: u32,
    event: Arc<EventFd>,
    connected: bool,
}

/// The vectors of a function.
pub struct KvmVectors {
    router: Arc<Router>,
    vectors: Vec<Vector>,
    warned: bool,
}

impl KvmVectors {
    /// `count` vectors, none of them connected.
    pub fn new(router: Arc<Router>, count: u32) -> Result<Self, Error> {
        let vectors = (0..count)
            .map(|_| {
                let event =
                    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(Error::EventFd)?;
                Ok(Vector {
                    gsi: router.allocate()?,
                    event: Arc::new(event),
                    connected: false,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            router,
            vectors,
            warned: false,
        })
    }

    /// What to signal to raise each vector.
    pub fn events(&self) -> Vec<Arc<EventFd>> {
        self.vectors
            .iter()
            .map(|vector| vector.event.clone())
            .collect()
    }
}

impl Vector {
    fn connect(&mut self, router: &Router, message: Message) -> Result<(), String> {
        router.route(self.gsi, message)?;
        if self.connected {
            return Ok(());
        }
        // KVM hears of signals only from the moment it is connected, so those that came before are signalled again.
        let waiting = self.event.read().is_ok();
        let result = router.vm.register_irqfd(&self.event, self.gsi);
        if waiting {
            let _ = self.event.write(1);
        }
        self.connected = result.is_ok();
        result.map_err(|e| e.to_string())
    }
}

impl Vectors for KvmVectors {
    fn connect(&mut self, index: usize, message: Message) -> Result<(), NotConnected> {
        let vector = self.vectors.get_mut(index).ok_or(NotConnected)?;
        vector.connect(&self.router, message).map_err(|error| {
            // Once only: a guest could fill the log.
            if !self.warned {
                self.warned = true;
                tracing::warn!("KVM refuses interrupt {index} of an adapter: {error}");
            }
            NotConnected
        })
    }

    fn disconnect(&mut self, index: usize) {
        let Some(vector) = self.vectors.get_mut(index) else {
            return;
        };
        if vector.connected {
            vector.connected = false;
            let _ = self.router.vm.unregister_irqfd(&vector.event, vector.gsi);
        }
    }

    fn pending(&self, index: usize) -> bool {
        let Some(vector) = self.vectors.get(index) else {
            return false;
        };
        let waiting = vector.event.read().is_ok();
        if waiting {
            let _ = vector.event.write(1);
        }
        waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wired_interrupt_reaches_the_io_apic() {
        let routes: Vec<_> = wired_routes().collect();
        assert_eq!(routes.len(), 40);
        assert!(routes
            .iter()
            .all(|route| route.type_ == KVM_IRQ_ROUTING_IRQCHIP && route.gsi < FIRST_MSI_GSI));
        assert_eq!(
            routes[16..]
                .iter()
                .map(|route| route.gsi)
                .collect::<Vec<_>>(),
            (0..24).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_route_that_kvm_refuses_is_put_back() {
        let message = |data| Message {
            address: 0xfee0_0000,
            data,
        };
        let refuse = |_: &Routes| Err("no".to_string());
        let mut routes = Routes::new();
        assert!(replace(&mut routes, 24, message(1), refuse).is_err());
        assert!(routes.is_empty());
        assert!(replace(&mut routes, 24, message(1), |_| Ok(())).is_ok());
        assert!(replace(&mut routes, 24, message(2), refuse).is_err());
        assert_eq!(routes, Routes::from([(24, message(1))]));
        assert!(
            replace(&mut routes, 24, message(1), refuse).is_ok(),
            "no change"
        );
    }

    #[test]
    fn a_message_becomes_a_route() {
        let route = message_route(
            30,
            Message {
                address: 0x1_fee0_1000,
                data: 0x21,
            },
        );
        assert_eq!((route.gsi, route.type_), (30, KVM_IRQ_ROUTING_MSI));
    }
}
