// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A virtual processor's thread: run the guest, serve its exit, again.

use std::io;
use std::sync::Arc;
use std::thread;

use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::devices::Devices;
use crate::exit::{Exit, Outcome};
use crate::seccomp::{self, Filter};

/// Starts the thread of processor `number`.
pub fn spawn(
    number: u8,
    vcpu: VcpuFd,
    devices: Arc<Devices>,
    exit: Exit,
    filter: Option<Arc<Filter>>,
) -> io::Result<()> {
    let body = move || {
        let result = filter.map_or(Ok(()), |filter| seccomp::apply(&filter));
        let outcome = match result {
            Ok(()) => run(number, vcpu, &devices),
            Err(error) => Outcome::Failed(crate::error_chain(&error)),
        };
        exit.end(outcome);
    };
    thread::Builder::new()
        .name(format!("vcpu{number}"))
        .spawn(body)
        .map(drop)
}

/// Runs until the guest cannot go on. A guest that ends by itself does so through a device.
fn run(number: u8, mut vcpu: VcpuFd, devices: &Devices) -> Outcome {
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoIn(port, data)) => devices.read_port(port, data),
            Ok(VcpuExit::IoOut(port, data)) => devices.write_port(port, data),
            Ok(VcpuExit::MmioRead(address, data)) => devices.read_memory(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => devices.write_memory(address, data),
            Ok(VcpuExit::Intr) => {}
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
            other => return Outcome::Failed(failure(number, other)),
        }
    }
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
