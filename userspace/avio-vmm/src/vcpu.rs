// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A virtual processor's thread: run the guest, serve its exit, again.

use std::ffi::{c_int, c_void};
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::signal::{register_signal_handler, Killable, SIGRTMIN};

use crate::control::Guest;
use crate::exit::Outcome;
use crate::input::Input;
use crate::seccomp::{Filter, Filters};

/// The processors' threads.
pub struct Vcpus(Vec<JoinHandle<()>>);

/// Does nothing: the signal is to interrupt the system call that a thread is in.
extern "C" fn interrupt(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {}

impl Vcpus {
    /// Starts a thread for each processor.
    pub fn start(vcpus: Vec<VcpuFd>, guest: &Arc<Guest>, filters: &Filters) -> io::Result<Self> {
        register_signal_handler(SIGRTMIN(), interrupt)
            .map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
        let spawn = |(number, vcpu)| spawn(number, vcpu, guest.clone(), filters.vcpu.clone());
        (0..)
            .zip(vcpus)
            .map(spawn)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Waits until all threads have left the guest, whose run has ended. If one does not, since nobody takes what it
    /// writes to standard output, a signal to the process ends the wait: then this is its outcome.
    pub fn stop(self, input: &Input) -> Option<Outcome> {
        /// Milliseconds from one interruption to the next: one may come before the system call that it is to interrupt.
        const PAUSE: u16 = 10;
        loop {
            let mut running = self
                .0
                .iter()
                .filter(|thread| !thread.is_finished())
                .peekable();
            if running.peek().is_none() {
                break;
            }
            for thread in running {
                let _ = thread.kill(SIGRTMIN());
            }
            if let Some(outcome) = input.wait_signal(PAUSE) {
                return Some(outcome);
            }
        }
        for thread in self.0 {
            let _ = thread.join();
        }
        None
    }
}

fn spawn(
    number: u8,
    vcpu: VcpuFd,
    guest: Arc<Guest>,
    filter: Filter,
) -> io::Result<JoinHandle<()>> {
    let body = move || {
        let result = match filter.apply() {
            Ok(()) => run(number, vcpu, &guest),
            Err(error) => Err(crate::error_chain(&error)),
        };
        if let Err(text) = result {
            guest.exit.end(Outcome::Failed(text));
        }
    };
    thread::Builder::new()
        .name(format!("vcpu{number}"))
        .spawn(body)
}

/// Runs until the guest cannot go on, or its run has ended. A guest that ends by itself does so through a device.
fn run(number: u8, mut vcpu: VcpuFd, guest: &Guest) -> Result<(), String> {
    let devices = &guest.devices;
    while guest.exit.outcome().is_none() {
        match vcpu.run() {
            Ok(VcpuExit::IoIn(port, data)) => devices.read_port(port, data),
            Ok(VcpuExit::IoOut(port, data)) => devices.write_port(port, data),
            Ok(VcpuExit::MmioRead(address, data)) => devices.read_memory(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => devices.write_memory(address, data),
            Ok(VcpuExit::Intr) => {}
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
            other => return Err(failure(number, other)),
        }
    }
    Ok(())
}

fn failure(number: u8, exit: Result<VcpuExit, kvm_ioctls::Error>) -> String {
    match exit {
        Ok(VcpuExit::Shutdown) => format!("the guest crashed: triple fault on processor {number}"),
        Ok(VcpuExit::InternalError) => {
            format!("the guest crashed: KVM cannot execute what processor {number} is at")
        }
        Ok(VcpuExit::FailEntry(reason, cpu)) => {
            format!("KVM cannot enter the guest on processor {number}: hardware reason {reason:#x} on host CPU {cpu}")
        }
        Ok(other) => format!("KVM stopped processor {number} for an unknown reason: {other:?}"),
        Err(error) => format!("KVM cannot run processor {number}: {error}"),
    }
}
