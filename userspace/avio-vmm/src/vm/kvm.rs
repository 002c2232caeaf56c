// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Making the machine's parts that are KVM's.

use std::io;

use kvm_bindings::{kvm_pit_config, KVM_PIT_SPEAKER_DUMMY};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};

use super::{kvm_call, Error};
use crate::cpu;
use crate::layout::{IDENTITY_MAP, TSS};

/// The version of KVM's interface.
pub const KVM_API: i32 = 12;

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

/// Opens KVM, if it can do what is needed.
pub fn open_kvm() -> Result<Kvm, Error> {
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

/// Makes a VM with its interrupt controllers and timer.
pub fn create_vm(kvm: &Kvm) -> Result<VmFd, Error> {
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

/// Makes the processors; the first one starts at `entry`.
pub fn create_vcpus(
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
