// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! System call filters: what each kind of thread may still ask of the kernel once the guest runs. Anything else
//! kills the process; the kernel's audit log then has the number of the call.

use avio_abi::ioctl;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// A compiled filter.
pub type Filter = BpfProgram;

/// Why a filter could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not compile.
    #[error("cannot compile a system call filter: {0}")]
    Compile(String),
    /// The kernel does not take it.
    #[error("cannot install a system call filter (the kernel needs CONFIG_SECCOMP_FILTER)")]
    Apply(#[source] seccompiler::Error),
}

/// Calls of every thread: memory, locks, time, writing, waiting, leaving.
const COMMON: [i64; 23] = [
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_read,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_write,
];

/// Besides, calls of the event loop and of the end.
const EVENT_LOOP: [i64; 5] = [
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_writev,
];

/// Ioctls of the event loop's thread: the terminal's modes.
const EVENT_LOOP_IOCTLS: [u32; 6] = [
    libc::TCGETS as u32,
    libc::TCSETS as u32,
    libc::TCSETSW as u32,
    TCGETS2,
    TCSETS2,
    TCSETSW2,
];
const TCGETS2: u32 = 0x802c_542a;
const TCSETS2: u32 = 0x402c_542b;
const TCSETSW2: u32 = 0x402c_542c;

/// Ioctls of a processor's thread: running, moving doorbells, routing interrupts, starting and stopping the adapter.
const VCPU_IOCTLS: [u32; 8] = [
    KVM_RUN,
    KVM_IOEVENTFD,
    KVM_IRQFD,
    KVM_SET_GSI_ROUTING,
    ioctl::SET_FEATURES,
    ioctl::SET_QUEUE,
    ioctl::START,
    ioctl::STOP,
];
const KVM_RUN: u32 = 0xae80;
const KVM_SET_GSI_ROUTING: u32 = 0x4008_ae6a;
const KVM_IRQFD: u32 = 0x4020_ae76;
const KVM_IOEVENTFD: u32 = 0x4040_ae79;

/// The filter of the main thread.
pub fn event_loop() -> Result<Filter, Error> {
    compile(&EVENT_LOOP, &EVENT_LOOP_IOCTLS)
}

/// The filter of a processor's thread.
pub fn vcpu() -> Result<Filter, Error> {
    compile(&[libc::SYS_writev], &VCPU_IOCTLS)
}

/// Confines the calling thread for good.
pub fn apply(filter: &Filter) -> Result<(), Error> {
    seccompiler::apply_filter(filter).map_err(Error::Apply)
}

fn compile(calls: &[i64], ioctls: &[u32]) -> Result<Filter, Error> {
    let failed = |e: seccompiler::BackendError| Error::Compile(e.to_string());
    let mut rules: std::collections::BTreeMap<i64, Vec<SeccompRule>> = COMMON
        .iter()
        .chain(calls)
        .map(|call| (*call, Vec::new()))
        .collect();

    let ioctl_rules = ioctls.iter().map(|request| {
        argument(
            1,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Eq,
            u64::from(*request),
        )
    });
    rules.insert(
        libc::SYS_ioctl,
        ioctl_rules.collect::<Result<_, _>>().map_err(failed)?,
    );

    let executable = libc::PROT_EXEC as u64;
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let not_executable = argument(
            2,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::MaskedEq(executable),
            0,
        );
        rules.insert(call, vec![not_executable.map_err(failed)?]);
    }
    // The first argument: for prctl only naming memory, which the allocator may do; signals only for this process, as
    // in a panic.
    let firsts = [
        (libc::SYS_prctl, libc::PR_SET_VMA as u64),
        (libc::SYS_tgkill, u64::from(std::process::id())),
    ];
    for (call, value) in firsts {
        let rule = argument(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value);
        rules.insert(call, vec![rule.map_err(failed)?]);
    }

    let filter = SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        TargetArch::x86_64,
    )
    .map_err(failed)?;
    filter.try_into().map_err(failed)
}

fn argument(
    index: u8,
    len: SeccompCmpArgLen,
    op: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(index, len, op, value)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ioctl_numbers_are_those_of_the_kernel() {
        use vmm_sys_util::ioctl::{ioctl_expr, _IOC_NONE, _IOC_WRITE};
        assert_eq!(u64::from(KVM_RUN), ioctl_expr(_IOC_NONE, 0xae, 0x80, 0));
        assert_eq!(
            u64::from(KVM_SET_GSI_ROUTING),
            ioctl_expr(_IOC_WRITE, 0xae, 0x6a, 8)
        );
        let irqfd = size_of::<kvm_bindings::kvm_irqfd>() as u32;
        assert_eq!(
            u64::from(KVM_IRQFD),
            ioctl_expr(_IOC_WRITE, 0xae, 0x76, irqfd)
        );
        let ioeventfd = size_of::<kvm_bindings::kvm_ioeventfd>() as u32;
        assert_eq!(
            u64::from(KVM_IOEVENTFD),
            ioctl_expr(_IOC_WRITE, 0xae, 0x79, ioeventfd)
        );
    }

    #[test]
    fn both_filters_compile() {
        assert!(!event_loop().unwrap().is_empty());
        assert!(!vcpu().unwrap().is_empty());
    }
}
