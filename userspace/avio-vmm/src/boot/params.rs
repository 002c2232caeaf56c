// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The boot parameters ("zero page"): memory map, command line, initial RAM file system, ACPI root pointer.

use linux_loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use vm_memory::{Bytes, GuestMemoryError};

use super::Initrd;
use crate::layout::{ACPI_TABLES, BOOT_PARAMS, CMDLINE, EBDA_START, ECAM, ECAM_SIZE, HIGH_MEMORY};
use crate::memory::{ranges, GuestMemory};

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
/// "Undefined loader", which is what a loader without a number says.
const LOADER_UNDEFINED: u8 = 0xff;

/// Writes them.
pub fn write(
    memory: &GuestMemory,
    header: setup_header,
    initrd: Option<Initrd>,
    ram: u64,
) -> Result<(), GuestMemoryError> {
    let mut params = boot_params {
        hdr: header,
        ..Default::default()
    };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.cmd_line_ptr = CMDLINE.0 as u32;
    params.acpi_rsdp_addr = ACPI_TABLES.0;
    if let Some((address, size)) = initrd {
        params.hdr.ramdisk_image = address as u32;
        params.hdr.ramdisk_size = size as u32;
    }
    let map = memory_map(ram);
    params.e820_entries = map.len() as u8;
    let mut table = params.e820_table;
    for (to, from) in table.iter_mut().zip(map) {
        *to = from;
    }
    params.e820_table = table;
    memory.write_obj(params, BOOT_PARAMS)
}

/// What the guest may use, and where the memory-mapped configuration space is.
fn memory_map(ram: u64) -> Vec<boot_e820_entry> {
    let entry = |addr, size, kind| boot_e820_entry {
        addr,
        size,
        type_: kind,
    };
    let mut map = vec![
        entry(0, EBDA_START, E820_RAM),
        entry(EBDA_START, HIGH_MEMORY.0 - EBDA_START, E820_RESERVED),
    ];
    for (start, size) in ranges(ram) {
        let end = start.0 + size;
        let first = start.0.max(HIGH_MEMORY.0);
        map.push(entry(first, end - first, E820_RAM));
    }
    map.push(entry(ECAM, ECAM_SIZE, E820_RESERVED));
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::MIB;

    fn entries(ram: u64) -> Vec<(u64, u64, u32)> {
        memory_map(ram)
            .iter()
            .map(|e| (e.addr, e.addr + e.size, e.type_))
            .collect()
    }

    #[test]
    fn all_ram_but_the_bios_area_is_usable() {
        for ram in [64 * MIB, 3072 * MIB, 8192 * MIB] {
            let usable: u64 = entries(ram)
                .iter()
                .filter(|e| e.2 == E820_RAM)
                .map(|e| e.1 - e.0)
                .sum();
            assert_eq!(usable, ram - (HIGH_MEMORY.0 - EBDA_START));
        }
    }

    #[test]
    fn entries_do_not_overlap() {
        let mut entries = entries(8192 * MIB);
        entries.sort();
        assert!(
            entries.windows(2).all(|pair| pair[0].1 <= pair[1].0),
            "{entries:x?}"
        );
    }

    #[test]
    fn the_acpi_tables_are_reserved() {
        let of_tables = entries(64 * MIB)
            .into_iter()
            .find(|e| (e.0..e.1).contains(&ACPI_TABLES.0))
            .unwrap();
        assert_eq!(of_tables.2, E820_RESERVED);
    }
}
