// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Loading a Linux kernel, its initial RAM file system and its boot parameters into guest memory (64-bit boot
//! protocol). bzImage and ELF kernels start alike.

mod kernel;
mod params;

use std::fs::File;
use std::io;
use std::path::PathBuf;

use linux_loader::loader::{load_cmdline, Cmdline};
use vm_memory::{Bytes, GuestAddress, GuestMemory as _, GuestMemoryError};

use crate::acpi;
use crate::args::Args;
use crate::layout::{ACPI_TABLES, CMDLINE, CMDLINE_MAX, LOW_RAM_END, MIB};
use crate::memory::GuestMemory;

/// Why the guest could not be made ready to boot.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Neither of the two formats.
    #[error("{0} is not bootable: it is neither a bzImage (arch/x86/boot/bzImage) nor an x86-64 ELF vmlinux")]
    NotKernel(PathBuf),
    /// A 32-bit kernel.
    #[error("{0} is not bootable: it has no 64-bit entry point; use an x86-64 kernel of version 3.8 or later")]
    Not64Bit(PathBuf),
    /// The loader's own reason.
    #[error("{path} is not bootable")]
    Load {
        /// The file.
        path: PathBuf,
        /// Why.
        source: linux_loader::loader::Error,
    },
    /// Too little memory for the kernel.
    #[error("{path} needs {needed} MiB of guest memory to start and the guest has {has}; raise --memory")]
    KernelTooLarge {
        /// The file.
        path: PathBuf,
        /// MiB from address zero to the kernel's end.
        needed: u64,
        /// MiB that there are.
        has: u64,
    },
    /// Too little memory for the initial RAM file system.
    #[error(
        "{path} of {size} MiB does not fit beside the kernel; there are {free} MiB; raise --memory"
    )]
    InitrdTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in MiB, rounded up.
        size: u64,
        /// MiB that are free for it.
        free: u64,
    },
    /// A command line that cannot be passed.
    #[error("the kernel command line is longer than {0} characters or not ASCII")]
    Cmdline(usize),
    /// Guest memory.
    #[error("cannot write to guest memory")]
    Memory(#[from] GuestMemoryError),
}

/// Fills guest memory and returns the kernel's entry point.
pub fn load(memory: &GuestMemory, args: &Args) -> Result<GuestAddress, Error> {
    let ram = u64::from(args.memory) * MIB;
    let kernel = kernel::load(memory, &args.kernel, ram.min(LOW_RAM_END))?;
    write_cmdline(memory, &args.cmdline, kernel.header.cmdline_size as usize)?;
    let initrd = match &args.initrd {
        Some(path) => Some(load_initrd(memory, path, &kernel, ram.min(LOW_RAM_END))?),
        None => None,
    };
    memory.write_slice(&acpi::tables(ACPI_TABLES.0, args.cpus), ACPI_TABLES)?;
    params::write(memory, kernel.header, initrd, ram)?;
    Ok(kernel.entry)
}

fn write_cmdline(memory: &GuestMemory, text: &str, kernel_max: usize) -> Result<(), Error> {
    let max = kernel_max.min(CMDLINE_MAX - 1);
    if text.len() > max {
        return Err(Error::Cmdline(max));
    }
    let mut cmdline = Cmdline::new(max + 1).map_err(|_| Error::Cmdline(max))?;
    cmdline.insert_str(text).map_err(|_| Error::Cmdline(max))?;
    load_cmdline(memory, CMDLINE, &cmdline).map_err(|_| Error::Cmdline(max))
}

/// Where the initial RAM file system lies: address and length.
type Initrd = (u64, u64);

/// Loads it as high as the kernel allows.
fn load_initrd(
    memory: &GuestMemory,
    path: &PathBuf,
    kernel: &kernel::Kernel,
    ram: u64,
) -> Result<Initrd, Error> {
    let failed = |source| Error::Read {
        path: path.clone(),
        source,
    };
    let mut file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let limit = ram.min(u64::from(kernel.header.initrd_addr_max) + 1);
    let too_large = || Error::InitrdTooLarge {
        path: path.clone(),
        size: size.div_ceil(MIB),
        free: limit.saturating_sub(kernel.end) / MIB,
    };
    let address = limit
        .checked_sub(size)
        .map(|top| top & !0xfff)
        .ok_or_else(too_large)?;
    if address < kernel.end {
        return Err(too_large());
    }
    read_into(memory, &mut file, address, size).map_err(failed)?;
    Ok((address, size))
}

fn read_into(memory: &GuestMemory, file: &mut File, address: u64, size: u64) -> io::Result<()> {
    let size = usize::try_from(size).map_err(io::Error::other)?;
    memory
        .read_exact_volatile_from(GuestAddress(address), file, size)
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;
    use clap::Parser;

    fn args(kernel: &str) -> Args {
        Args::parse_from(["avio-vmm", "--kernel", kernel, "--memory", "64"])
    }

    #[test]
    fn what_is_no_kernel_is_refused_by_name() {
        let memory = memory::create(64, false).unwrap();
        let error = load(&memory, &args("/etc/passwd")).unwrap_err();
        assert!(matches!(error, Error::NotKernel(_)), "{error:?}");
        assert!(error.to_string().contains("/etc/passwd"));
    }

    #[test]
    fn a_missing_kernel_is_named() {
        let memory = memory::create(64, false).unwrap();
        assert!(load(&memory, &args("/no/kernel"))
            .unwrap_err()
            .to_string()
            .contains("/no/kernel"));
    }

    #[test]
    fn a_long_command_line_is_refused() {
        let memory = memory::create(64, false).unwrap();
        assert!(write_cmdline(&memory, &"x".repeat(2047), 2047).is_ok());
        assert!(matches!(
            write_cmdline(&memory, &"x".repeat(2048), 2047),
            Err(Error::Cmdline(2047))
        ));
    }

    #[test]
    fn a_command_line_is_written_as_it_is() {
        let memory = memory::create(64, false).unwrap();
        write_cmdline(&memory, "console=ttyS0 a=\"b c\" -- x", 2047).unwrap();
        let mut bytes = [0; 28];
        memory.read_slice(&mut bytes, CMDLINE).unwrap();
        assert_eq!(&bytes, b"console=ttyS0 a=\"b c\" -- x\0\0");
    }
}
