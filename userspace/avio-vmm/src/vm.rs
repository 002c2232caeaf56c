// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A virtual machine on KVM: made from the command line, then run to its end.

mod adapters;
mod kvm;

use std::io;
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use kvm_ioctls::{VcpuFd, VmFd};

use crate::adapter::{self, Adapter};
use crate::args::Args;
use crate::control::{Control, Guest};
use crate::devices::Devices;
use crate::event_loop::{EventLoop, Listener};
use crate::exit::{Exit, Outcome};
use crate::input::Input;
use crate::inventory::Shared;
use crate::layout::{COM1_IRQ, SCI_IRQ};
use crate::memory::{self, GuestMemory};
use crate::pci::host_bridge::HostBridge;
use crate::pci::{Function, Root};
use crate::power::Line;
use crate::resets::Asked;
use crate::seccomp::{Filter, Filters};
use crate::serial::Serial;
use crate::signal::Signal;
use crate::vcpu::Vcpus;
use crate::{backend, boot, cpu, event_loop, interrupts, resets, seccomp};

/// Why the machine could not be made or run.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("/dev/kvm does not exist; load kvm_amd or kvm_intel, and see that virtualization is on in the firmware")]
    NoKvm,
    #[error("no permission for /dev/kvm; run as root or join the group that owns it (often kvm)")]
    KvmPermission,
    #[error("cannot use /dev/kvm")]
    Kvm(#[source] io::Error),
    #[error("/dev/kvm speaks API version {0}; {needed} is needed", needed = kvm::KVM_API)]
    KvmVersion(i32),
    #[error("KVM is too old or incomplete: it lacks {0}")]
    KvmLacks(&'static str),
    #[error("too many processors: this KVM runs at most {0}")]
    TooManyCpus(usize),
    #[error("KVM cannot {0}")]
    KvmCall(&'static str, #[source] kvm_ioctls::Error),
    #[error("cannot build the processors' CPUID: {0}")]
    Cpuid(String),
    #[error(transparent)]
    Memory(#[from] memory::Error),
    #[error(transparent)]
    Boot(#[from] boot::Error),
    #[error(transparent)]
    Backend(#[from] backend::Error),
    #[error("cannot attach disk {path}")]
    Attach {
        path: PathBuf,
        source: backend::Error,
    },
    #[error("{asked} queues are too many for adapter {id}: the module allows {allowed}")]
    Queues {
        id: String,
        asked: u32,
        allowed: u32,
    },
    #[error("--queue-size {asked} is too large: the module allows {allowed}")]
    QueueSize { asked: u32, allowed: u32 },
    #[error("no room for the adapter among PCI addresses")]
    NoPciRoom(#[source] vm_allocator::Error),
    #[error(transparent)]
    Adapter(#[from] adapter::Error),
    #[error(transparent)]
    Interrupts(#[from] interrupts::Error),
    #[error("cannot make an eventfd")]
    EventFd(#[source] io::Error),
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    #[error(transparent)]
    EventLoop(#[from] event_loop::Error),
    #[error(transparent)]
    Seccomp(#[from] seccomp::Error),
}

/// Names what KVM was asked, for its error.
fn kvm_call(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Error {
    move |source| Error::KvmCall(what, source)
}

/// A machine that is ready to run.
pub struct Machine {
    vcpus: Vec<VcpuFd>,
    guest: Guest,
    serial: Arc<Mutex<Serial>>,
    room: Signal,
    asked: Asked,
    seccomp: bool,
    /// KVM lets go of all eventfds when this is closed, even while processors run.
    vm: Arc<VmFd>,
    /// KVM's memory slots point into it.
    memory: GuestMemory,
}

impl Machine {
    /// Makes the machine: everything that can fail for the user's or the host's reasons happens here.
    pub fn new(args: &Args, inventory: &Shared) -> Result<Self, Error> {
        let kvm = kvm::open_kvm()?;
        if usize::from(args.cpus) > kvm.get_max_vcpus() {
            return Err(Error::TooManyCpus(kvm.get_max_vcpus()));
        }
        let vm = Arc::new(kvm::create_vm(&kvm)?);
        let memory = memory::create(u64::from(args.memory), args.huge_pages)?;
        memory::register(&vm, &memory)?;
        let entry = boot::load(&memory, args)?;
        cpu::state::write_tables(&memory).map_err(boot::Error::from)?;
        let vcpus = kvm::create_vcpus(&kvm, &vm, args.cpus, entry)?;

        let exit = Exit::new().map_err(Error::EventFd)?;
        let interrupt = Signal::new().map_err(Error::EventFd)?;
        let room = Signal::new().map_err(Error::EventFd)?;
        let notice = Signal::new().map_err(Error::EventFd)?;
        vm.register_irqfd(interrupt.event(), COM1_IRQ)
            .map_err(kvm_call("connect the serial interrupt"))?;
        let serial = Arc::new(Mutex::new(Serial::new(interrupt, room.clone())));

        let (resets, asked) = resets::channel(&inventory.lock().turns);
        let adapters = adapters::create(&vm, &memory, args, &inventory.lock(), &notice, &resets)?;
        let hbas = adapters.iter().map(Adapter::hba).collect();
        let mut functions: Vec<Box<dyn Function>> = vec![Box::new(HostBridge::new())];
        for adapter in adapters {
            functions.push(Box::new(adapter));
        }
        let root = Root::new(functions);
        let line = vm.clone();
        let sci: Line = Box::new(move |on| {
            // It can only fail without interrupt controllers.
            let _ = line.set_irq_line(u32::from(SCI_IRQ), on);
        });
        let devices = Arc::new(Devices::new(serial.clone(), root, exit.clone(), sci));
        let guest = Guest {
            hbas,
            inventory: inventory.clone(),
            devices,
            exit,
            notice,
        };
        Ok(Self {
            vcpus,
            guest,
            serial,
            room,
            asked,
            seccomp: !args.no_seccomp,
            vm,
            memory,
        })
    }

    /// Runs the guest to its end. After a reset nothing of the machine is left. After any other end its threads go on
    /// until the process ends, which must be soon.
    pub fn run(self, control: &Arc<Mutex<Control>>, input: &Input) -> Result<Outcome, Error> {
        let exit = self.guest.exit.clone();
        let listener = Listener::new(self.serial, self.room, exit, input);
        let event_loop = EventLoop::new(listener)?;
        let filters = Filters::new(self.seccomp)?;
        // The processors' threads must not find these gone, whatever fails here.
        let kept = ManuallyDrop::new((self.vm, self.memory));
        let guest = Arc::new(self.guest);
        let vcpus = Vcpus::start(self.vcpus, &guest, &filters).map_err(Error::Thread)?;
        let inventory = guest.inventory.clone();
        // It ends by itself when no adapter can ask it any more; a reset that is under way may take long.
        thread("resets", &filters.resets, &guest, move || {
            resets::run(&self.asked, &inventory);
        })?;
        let (shared, of) = (control.clone(), guest.clone());
        let controller = thread("control", &filters.control, &guest, move || {
            let mut control = shared.lock().unwrap_or_else(PoisonError::into_inner);
            control.run(&of);
        })?;
        filters.event_loop.apply()?;
        let outcome = event_loop.run()?;
        if outcome != Outcome::Reset {
            return Ok(outcome);
        }
        if let Some(signal) = vcpus.stop(input) {
            return Ok(signal);
        }
        let _ = controller.join();
        drop(guest);
        drop(ManuallyDrop::into_inner(kept));
        Ok(Outcome::Reset)
    }
}

/// Starts a thread that is confined before it does anything.
fn thread(
    name: &str,
    filter: &Filter,
    guest: &Arc<Guest>,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, Error> {
    let (filter, exit) = (filter.clone(), guest.exit.clone());
    let confined = move || match filter.apply() {
        Ok(()) => body(),
        Err(error) => exit.end(Outcome::Failed(crate::error_chain(&error))),
    };
    let builder = std::thread::Builder::new().name(name.into());
    builder.spawn(confined).map_err(Error::Thread)
}
