// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Loading the kernel image.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use linux_loader::bootparam::setup_header;
use linux_loader::loader::{BzImage, Elf, KernelLoader, KernelLoaderResult};
use vm_memory::{Address, GuestAddress};

use super::Error;
use crate::layout::{HIGH_MEMORY, MIB};
use crate::memory::GuestMemory;

const ELF_MAGIC: [u8; 4] = *b"\x7fELF";
const ELF_X86_64: [u8; 2] = [62, 0];
const SETUP_MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
const BOOT_FLAG: u16 = 0xaa55;
/// The boot protocol's version that has the 64-bit entry flag.
const PROTOCOL_64BIT: u16 = 0x20c;
const FLAG_64BIT: u16 = 1;
/// The 64-bit entry of a bzImage, from where its protected-mode part is loaded.
const ENTRY_64BIT: u64 = 0x200;
/// For an ELF kernel, which does not say: all kernels take a command line and an initial RAM file system so far.
const DEFAULT_CMDLINE_SIZE: u32 = 2047;
const DEFAULT_INITRD_MAX: u32 = 0x7fff_ffff;

/// A loaded kernel.
pub struct Kernel {
    /// Where it starts.
    pub entry: GuestAddress,
    /// First address that it leaves free, once it has unpacked itself.
    pub end: u64,
    /// What it says about itself.
    pub header: setup_header,
}

/// Loads the kernel; `ram` is the end of memory below 4 GiB.
pub fn load(memory: &GuestMemory, path: &Path, ram: u64) -> Result<Kernel, Error> {
    let failed = |source| Error::Read {
        path: path.into(),
        source,
    };
    let mut file = File::open(path).map_err(failed)?;
    let mut start = [0; 0x264];
    let len = read_start(&mut file, &mut start).map_err(failed)?;
    file.rewind().map_err(failed)?;
    if start[..4] == ELF_MAGIC && start[18..20] == ELF_X86_64 {
        load_elf(memory, path, &mut file, ram)
    } else if len == start.len() && start[0x202..0x206] == SETUP_MAGIC.to_le_bytes() {
        load_bzimage(memory, path, &mut file, ram)
    } else {
        Err(Error::NotKernel(path.into()))
    }
}

fn read_start(file: &mut File, start: &mut [u8]) -> std::io::Result<usize> {
    let mut len = 0;
    while len < start.len() {
        match file.read(&mut start[len..])? {
            0 => break,
            more => len += more,
        }
    }
    Ok(len)
}

fn loader_error(path: &Path) -> impl FnOnce(linux_loader::loader::Error) -> Error + '_ {
    move |source| Error::Load {
        path: path.into(),
        source,
    }
}

fn load_elf(memory: &GuestMemory, path: &Path, file: &mut File, ram: u64) -> Result<Kernel, Error> {
    let loaded: KernelLoaderResult =
        Elf::load(memory, None, file, Some(HIGH_MEMORY)).map_err(loader_error(path))?;
    let header = setup_header {
        boot_flag: BOOT_FLAG,
        header: SETUP_MAGIC,
        version: PROTOCOL_64BIT,
        kernel_alignment: 0x100_0000,
        cmdline_size: DEFAULT_CMDLINE_SIZE,
        initrd_addr_max: DEFAULT_INITRD_MAX,
        ..Default::default()
    };
    check_fit(path, loaded.kernel_end, ram)?;
    Ok(Kernel {
        entry: loaded.kernel_load,
        end: loaded.kernel_end,
        header,
    })
}

fn load_bzimage(
    memory: &GuestMemory,
    path: &Path,
    file: &mut File,
    ram: u64,
) -> Result<Kernel, Error> {
    let size = file
        .metadata()
        .map_err(|source| Error::Read {
            path: path.into(),
            source,
        })?
        .len();
    check_fit(path, HIGH_MEMORY.0 + size, ram)?;
    let loaded =
        BzImage::load(memory, None, file, Some(HIGH_MEMORY)).map_err(loader_error(path))?;
    let header = loaded
        .setup_header
        .ok_or_else(|| Error::NotKernel(path.into()))?;
    if header.version < PROTOCOL_64BIT || header.xloadflags & FLAG_64BIT == 0 {
        return Err(Error::Not64Bit(path.into()));
    }
    let unpacked = header
        .pref_address
        .saturating_add(u64::from(header.init_size));
    let end = loaded.kernel_end.max(unpacked);
    check_fit(path, end, ram)?;
    Ok(Kernel {
        entry: loaded.kernel_load.unchecked_add(ENTRY_64BIT),
        end,
        header,
    })
}

fn check_fit(path: &Path, end: u64, ram: u64) -> Result<(), Error> {
    if end <= ram {
        return Ok(());
    }
    Err(Error::KernelTooLarge {
        path: path.into(),
        needed: end.div_ceil(MIB),
        has: ram / MIB,
    })
}
