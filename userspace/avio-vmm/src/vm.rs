// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A virtual machine on KVM: made from the command line, then run to its end.

use std::io;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex};

use kvm_bindings::{kvm_pit_config, KVM_PIT_SPEAKER_DUMMY};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use nix::sys::resource::{getrlimit, setrlimit, Resource};
use vm_allocator::{AddressAllocator, AllocPolicy};

use crate::adapter::{self, Adapter};
use crate::args::Args;
use crate::backend::{self, Stor};
use crate::devices::Devices;
use crate::event_loop::{EventLoop, Listener};
use crate::exit::{Exit, Outcome};
use crate::interrupts::{self, Router};
use crate::layout::{COM1_IRQ, IDENTITY_MAP, PCI_WINDOW, PCI_WINDOW_SIZE, TSS};
use crate::memory::{self, GuestMemory};
use crate::pci::host_bridge::HostBridge;
use crate::pci::{Function, Root};
use crate::registers::Offer;
use crate::serial::{Serial, Signal};
use crate::terminal::RawMode;
use crate::{boot, cpu, disks, event_loop, seccomp, vcpu};

const KVM_API: i32 = 12;

/// What KVM must be able to do, and what it is called in an error.
const NEEDED: [(Cap, &str); 7] = [
    (
        Cap::Irqchip,
        "interrupt controllers (KVM_CAP_IRQCHIP; for x86 the host needs CONFIG_KVM_IOAPIC)",
    ),
    (Cap::Pit2, "a timer (KVM_CAP_PIT2)"),
    (Cap::Ioeventfd, "ioeventfd (KVM_CAP_IOEVENTFD)"),
    (Cap::Irqfd, "irqfd (KVM_CAP_IRQFD)"),
    (Cap::IrqRouting, "interrupt routing (KVM_CAP_IRQ_ROUTING)"),
    (Cap::UserMemory, "user memory (KVM_CAP_USER_MEMORY)"),
    (Cap::ExtCpuid, "CPUID (KVM_CAP_EXT_CPUID)"),
];

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
    #[error("/dev/kvm speaks API version {0}; {KVM_API} is needed")]
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
    #[error(transparent)]
    Disk(#[from] disks::Error),
    #[error("--queues {asked} is too many: the module allows {allowed}")]
    Queues { asked: u32, allowed: u32 },
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
    devices: Arc<Devices>,
    serial: Arc<Mutex<Serial>>,
    room: Signal,
    exit: Exit,
    seccomp: bool,
    /// KVM lets go of all eventfds when this is closed, even while processors run.
    vm: Arc<VmFd>,
    /// KVM's memory slots point into it.
    memory: GuestMemory,
}

impl Machine {
    /// Makes the machine: everything that can fail for the user's or the host's reasons happens here.
    pub fn new(args: &Args) -> Result<Self, Error> {
        let kvm = open_kvm()?;
        if usize::from(args.cpus) > kvm.get_max_vcpus() {
            return Err(Error::TooManyCpus(kvm.get_max_vcpus()));
        }
        let vm = Arc::new(create_vm(&kvm)?);
        let memory = memory::create(u64::from(args.memory), args.huge_pages)?;
        memory::register(&vm, &memory)?;
        let entry = boot::load(&memory, args)?;
        cpu::state::write_tables(&memory).map_err(boot::Error::from)?;
        let vcpus = create_vcpus(&kvm, &vm, args.cpus, entry)?;

        let exit = Exit::new().map_err(Error::EventFd)?;
        let interrupt = Signal::new().map_err(Error::EventFd)?;
        let room = Signal::new().map_err(Error::EventFd)?;
        vm.register_irqfd(interrupt.event(), COM1_IRQ)
            .map_err(kvm_call("connect the serial interrupt"))?;
        let serial = Arc::new(Mutex::new(Serial::new(interrupt, room.clone())));

        let mut functions: Vec<Box<dyn Function>> = vec![Box::new(HostBridge::new())];
        if !args.disks.is_empty() {
            functions.push(Box::new(create_adapter(&vm, &memory, args)?));
        }
        let devices = Arc::new(Devices::new(
            serial.clone(),
            Root::new(functions),
            exit.clone(),
        ));
        Ok(Self {
            vcpus,
            devices,
            serial,
            room,
            exit,
            seccomp: !args.no_seccomp,
            vm,
            memory,
        })
    }

    /// Runs the guest to its end. The processors' threads go on until the process ends, which must be soon.
    pub fn run(self) -> Result<Outcome, Error> {
        let mut listener = Listener::new(self.serial, self.room, self.exit.clone())?;
        let raw_mode = RawMode::enter();
        if raw_mode.is_some() {
            listener = listener.with_keys();
        }
        let event_loop = EventLoop::new(listener)?;
        let filter = if self.seccomp {
            Some(Arc::new(seccomp::vcpu()?))
        } else {
            None
        };
        // The processors' threads run until the process ends; they must not find these gone, whatever fails here.
        let _kept = ManuallyDrop::new((self.vm, self.memory));
        for (number, vcpu) in (0..).zip(self.vcpus) {
            vcpu::spawn(
                number,
                vcpu,
                self.devices.clone(),
                self.exit.clone(),
                filter.clone(),
            )
            .map_err(Error::Thread)?;
        }
        if self.seccomp {
            seccomp::apply(&seccomp::event_loop()?)?;
        }
        Ok(event_loop.run()?)
    }
}

fn open_kvm() -> Result<Kvm, Error> {
    let kvm = Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => Error::NoKvm,
        libc::EACCES | libc::EPERM => Error::KvmPermission,
        errno => Error::Kvm(io::Error::from_raw_os_error(errno)),
    })?;
    match kvm.get_api_version() {
        KVM_API => {}
        other => return Err(Error::KvmVersion(other)),
    }
    for (cap, name) in NEEDED {
        if !kvm.check_extension(cap) {
            return Err(Error::KvmLacks(name));
        }
    }
    Ok(kvm)
}

fn create_vm(kvm: &Kvm) -> Result<VmFd, Error> {
    let vm = kvm
        .create_vm()
        .map_err(kvm_call("create a virtual machine"))?;
    vm.set_identity_map_address(IDENTITY_MAP)
        .map_err(kvm_call("set the identity map"))?;
    vm.set_tss_address(TSS)
        .map_err(kvm_call("set the task state segment"))?;
    vm.create_irq_chip()
        .map_err(kvm_call("create interrupt controllers"))?;
    let pit = kvm_pit_config {
        flags: KVM_PIT_SPEAKER_DUMMY,
        ..Default::default()
    };
    vm.create_pit2(pit).map_err(kvm_call("create a timer"))?;
    Ok(vm)
}

fn create_vcpus(
    kvm: &Kvm,
    vm: &VmFd,
    count: u8,
    entry: vm_memory::GuestAddress,
) -> Result<Vec<VcpuFd>, Error> {
    let supported =
        cpu::cpuid::supported(kvm).map_err(kvm_call("say which processor features it supports"))?;
    let deadline_timer = cpu::cpuid::deadline_timer_works(kvm);
    tracing::debug!(deadline_timer, "timers");
    let create = |number: u8| {
        let vcpu = vm
            .create_vcpu(u64::from(number))
            .map_err(kvm_call("create a processor"))?;
        let cpuid =
            cpu::cpuid::for_cpu(&supported, number, count, deadline_timer).map_err(Error::Cpuid)?;
        vcpu.set_cpuid2(&cpuid)
            .map_err(kvm_call("set a processor's CPUID"))?;
        cpu::state::set_common(&vcpu).map_err(kvm_call("set a processor's state"))?;
        if number == 0 {
            cpu::state::set_entry(&vcpu, entry)
                .map_err(kvm_call("set the first processor's registers"))?;
        }
        Ok(vcpu)
    };
    (0..count).map(create).collect()
}

fn create_adapter(vm: &Arc<VmFd>, memory: &GuestMemory, args: &Args) -> Result<Adapter, Error> {
    let stor = Stor::open(&args.device)?;
    let info = stor.info;
    let max_queues = args.queue_count();
    if max_queues > info.max_queues {
        return Err(Error::Queues {
            asked: max_queues,
            allowed: info.max_queues,
        });
    }
    if args.queue_size > info.max_queue_size {
        return Err(Error::QueueSize {
            asked: args.queue_size,
            allowed: info.max_queue_size,
        });
    }
    raise_memory_lock_limit();
    let pages = stor.set_memory(memory)?;
    tracing::debug!(pages, "guest memory is pinned");
    let luns = disks::attach(&stor, &args.disks)?;

    let mut window =
        AddressAllocator::new(PCI_WINDOW, PCI_WINDOW_SIZE).map_err(Error::NoPciRoom)?;
    let size = avio_abi::pci::BAR_SIZE;
    let bar = window
        .allocate(size, size, AllocPolicy::FirstMatch)
        .map_err(Error::NoPciRoom)?;
    let offer = Offer {
        version: info.version.min(avio_abi::ABI_VERSION),
        // Of what a newer module can do, only what this VMM knows.
        features: info.features & avio_abi::features::ALL,
        max_queues,
        max_queue_size: args.queue_size,
        luns,
    };
    let router = Arc::new(Router::new(vm.clone())?);
    Ok(Adapter::new(vm, &router, stor, offer, bar.start() as u32)?)
}

/// Guest memory is pinned and counts against RLIMIT_MEMLOCK, so the soft limit goes up as far as it may. If that is
/// not enough, the module says so.
fn raise_memory_lock_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK) {
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard);
    }
}
