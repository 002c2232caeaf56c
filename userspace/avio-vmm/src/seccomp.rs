// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! System call filters: what each kind of thread may still ask of the kernel once the guest runs, and what none may from
//! the beginning. Anything else kills the process; the kernel's audit log then has the number of the call.

use std::collections::BTreeMap;
use std::sync::Arc;

use avio_abi::ioctl;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::backend::call;

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

/// What no thread ever asks for, the main one included: other programs, processes and users, another view of the files, a
/// change of the system, and ways round this filter.
const NEVER: [i64; 45] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_capset,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_finit_module,
    libc::SYS_fork,
    libc::SYS_fsopen,
    libc::SYS_init_module,
    libc::SYS_io_uring_setup,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setuid,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vfork,
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

/// Ioctls of a processor's thread: running, moving doorbells, routing interrupts, the ACPI interrupt, starting and
/// stopping the adapter, task commands and what they are for.
const VCPU_IOCTLS: [u32; 11] = [
    KVM_RUN,
    KVM_IOEVENTFD,
    KVM_IRQFD,
    KVM_IRQ_LINE,
    KVM_SET_GSI_ROUTING,
    ioctl::SET_FEATURES,
    ioctl::SET_QUEUE,
    ioctl::START,
    ioctl::STOP,
    ioctl::TASK,
    ioctl::GET_LUN,
];
const KVM_RUN: u32 = 0xae80;
const KVM_IRQ_LINE: u32 = 0x4008_ae61;
const KVM_SET_GSI_ROUTING: u32 = 0x4008_ae6a;
const KVM_IRQFD: u32 = 0x4020_ae76;
const KVM_IOEVENTFD: u32 = 0x4040_ae79;

/// Besides, calls of the control thread: it opens adapters, reads what sysfs tells of devices, writes the state file,
/// makes, weighs and removes cgroups, and serves sockets.
const CONTROL: [i64; 28] = [
    libc::SYS_accept4,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fsync,
    libc::SYS_lseek,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_rmdir,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_statx,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_writev,
];

/// Ioctls of the control thread: what does not move the guest's queues, but for the end of a stop; the ACPI interrupt;
/// what a disk is.
const CONTROL_IOCTLS: [u32; 14] = [
    ioctl::GET_INFO,
    ioctl::ADD_LUN,
    ioctl::REMOVE_LUN,
    ioctl::UPDATE_LUN,
    ioctl::GET_LUN,
    ioctl::GET_QUEUE,
    ioctl::SET_LIMITS,
    ioctl::SET_POLL,
    ioctl::QUIESCE,
    ioctl::RESUME,
    ioctl::STOP,
    KVM_IRQ_LINE,
    call::BLKGETDISKSEQ,
    libc::FIONBIO as u32,
];

/// Besides, calls of a thread that opens devices: it locks them, reads what sysfs tells of them, and writes back the page
/// cache.
const OPENER: [i64; 11] = [
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_statx,
    libc::SYS_sync_file_range,
    libc::SYS_writev,
];

/// What is asked of each call.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// A filter, or none at all.
#[derive(Clone)]
pub struct Filter(Option<Arc<BpfProgram>>);

impl Filter {
    /// Of the main thread, and of all that it starts: each of those has a closer one besides. Without `on` it lets
    /// everything pass.
    pub fn of_process(on: bool) -> Result<Self, Error> {
        if !on {
            return Ok(Self(None));
        }
        let rules = NEVER.iter().map(|call| (*call, Vec::new())).collect();
        program(rules, SeccompAction::Allow, SeccompAction::KillProcess).map(|p| Self(Some(p)))
    }

    /// Of a thread that opens devices. Without `on` it lets everything pass.
    pub fn of_opener(on: bool) -> Result<Self, Error> {
        let program = on.then(|| compile(&OPENER, &[call::BLKGETDISKSEQ]));
        program.transpose().map(Self)
    }

    /// Confines the calling thread for good.
    pub fn apply(&self) -> Result<(), Error> {
        match &self.0 {
            Some(program) => seccompiler::apply_filter(program).map_err(Error::Apply),
            None => Ok(()),
        }
    }
}

/// The filters of the kinds of threads that a machine has.
pub struct Filters {
    /// Of the machine's thread, once the guest runs.
    pub event_loop: Filter,
    /// Of a processor's thread.
    pub vcpu: Filter,
    /// Of the control thread.
    pub control: Filter,
    /// Of the thread that resets SCSI disks.
    pub resets: Filter,
}

impl Filters {
    /// Compiles them; without `on` they let everything pass.
    pub fn new(on: bool) -> Result<Self, Error> {
        let filter = |calls: &[i64], ioctls: &[u32]| {
            let program = on.then(|| compile(calls, ioctls)).transpose()?;
            Ok(Filter(program))
        };
        Ok(Self {
            event_loop: filter(&EVENT_LOOP, &EVENT_LOOP_IOCTLS)?,
            vcpu: filter(&[libc::SYS_writev], &VCPU_IOCTLS)?,
            control: filter(&CONTROL, &CONTROL_IOCTLS)?,
            resets: filter(&[libc::SYS_writev], &[call::SG_SCSI_RESET])?,
        })
    }
}

fn failed(error: seccompiler::BackendError) -> Error {
    Error::Compile(error.to_string())
}

fn program(
    rules: Rules,
    otherwise: SeccompAction,
    then: SeccompAction,
) -> Result<Arc<BpfProgram>, Error> {
    let filter = SeccompFilter::new(rules, otherwise, then, TargetArch::x86_64).map_err(failed)?;
    filter.try_into().map(Arc::new).map_err(failed)
}

/// Lets only these calls pass.
fn compile(calls: &[i64], ioctls: &[u32]) -> Result<Arc<BpfProgram>, Error> {
    let mut rules: Rules = COMMON
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

    program(rules, SeccompAction::KillProcess, SeccompAction::Allow)
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
        let level = size_of::<kvm_bindings::kvm_irq_level>() as u32;
        assert_eq!(
            u64::from(KVM_IRQ_LINE),
            ioctl_expr(_IOC_WRITE, 0xae, 0x61, level)
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
    fn all_filters_compile() {
        assert!(Filters::new(true).is_ok());
        assert!(Filters::new(false).unwrap().vcpu.apply().is_ok());
        assert!(Filter::of_process(true).unwrap().0.is_some());
        assert!(Filter::of_process(false).unwrap().0.is_none());
    }
}
