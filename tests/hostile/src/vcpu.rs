// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A virtual processor whose program does nothing but ring a doorbell.

use crate::sys::{eventfd, give_memory, Mapping};
use anyhow::{bail, Context, Result};
use kvm_bindings::kvm_segment;
use kvm_ioctls::{IoEventAddress, Kvm, NoDatamatch, VcpuExit, VcpuFd, VmFd};
use nix::errno::Errno;
use nix::sched::{sched_getaffinity, sched_setaffinity, CpuSet};
use nix::unistd::Pid;
use std::os::fd::AsFd;

/// The doorbell.
const PORT: u64 = 0x10;
/// `out dx, al`, `hlt`, and back.
const PROGRAM: [u8; 8] = [0xee, 0xf4, 0xeb, 0xfc, 0, 0, 0, 0];
const MEMORY: usize = 4096;

/// A virtual machine with one processor.
pub struct Vcpu {
    vcpu: VcpuFd,
    _vm: VmFd,
}

impl Vcpu {
    /// One that signals this eventfd; none on a machine without KVM.
    pub fn ringing(kick: impl AsFd) -> Result<Option<Self>> {
        let Ok(kvm) = Kvm::new() else {
            return Ok(None);
        };
        let vm = kvm.create_vm().context("KVM_CREATE_VM")?;
        // A page for each: few are made.
        let memory = Box::leak(Box::new(Mapping::new(MEMORY)?));
        memory.write(0, &PROGRAM);
        give_memory(&vm, memory).context("KVM_SET_USER_MEMORY_REGION")?;
        let address = IoEventAddress::Pio(PORT);
        vm.register_ioevent(&eventfd(kick.as_fd())?, &address, NoDatamatch)
            .context("KVM_IOEVENTFD")?;
        let vcpu = vm.create_vcpu(0).context("KVM_CREATE_VCPU")?;
        let mut sregs = vcpu.get_sregs()?;
        let flat = |segment: kvm_segment| kvm_segment {
            base: 0,
            selector: 0,
            ..segment
        };
        (sregs.cs, sregs.ds) = (flat(sregs.cs), flat(sregs.ds));
        vcpu.set_sregs(&sregs)?;
        let mut regs = vcpu.get_regs()?;
        (regs.rip, regs.rdx, regs.rflags) = (0, PORT, 2);
        vcpu.set_regs(&regs)?;
        Ok(Some(Self { vcpu, _vm: vm }))
    }

    /// Rings once. The calling thread is not to be on the first processor: one that QEMU emulates cannot run guests
    /// there.
    pub fn ring(&mut self) -> Result<()> {
        match self.vcpu.run().context("KVM_RUN")? {
            VcpuExit::Hlt => Ok(()),
            other => bail!("the virtual processor left its guest with {other:?}"),
        }
    }
}

/// Lets the calling thread run on every processor but the first, if there are more.
pub fn off_the_first_processor() -> Result<()> {
    let mut set = CpuSet::new();
    (1..CpuSet::count()).try_for_each(|cpu| set.set(cpu))?;
    match sched_setaffinity(Pid::from_raw(0), &set) {
        // There is no other.
        Ok(()) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Keeps the calling thread, and the workers that it starts, on one processor: the last, which is not the first if there are
/// more. However late such a worker runs, its guest has not gone on meanwhile.
pub fn on_one_processor() -> Result<()> {
    let may = sched_getaffinity(Pid::from_raw(0))?;
    let mut cpus = (0..CpuSet::count()).rev();
    let last = cpus.find(|cpu| may.is_set(*cpu).unwrap_or(false));
    let mut set = CpuSet::new();
    set.set(last.context("a processor")?)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}
