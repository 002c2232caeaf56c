// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Registers at the kernel's entry: 64-bit mode with the first 4 GiB mapped one to one, as the Linux boot protocol
//! wants it. Only the first processor needs them; the others wait for it to start them.

use kvm_bindings::{kvm_msr_entry, kvm_regs, kvm_segment, Msrs};
use kvm_ioctls::{Error, VcpuFd};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryError};

use crate::layout::{BOOT_PARAMS, GDT, IDT, PAGE_TABLES};
use crate::memory::GuestMemory;

const MSR_MISC_ENABLE: u32 = 0x1a0;
const MSR_MISC_ENABLE_FAST_STRINGS: u64 = 1;
const MSR_MTRR_DEFAULT: u32 = 0x2ff;
const MTRR_ENABLED_WRITE_BACK: u64 = 1 << 11 | 6;

const CR0_PROTECTED: u64 = 1 << 0;
const CR0_EXTENSION: u64 = 1 << 4;
const CR0_PAGING: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LONG_ENABLE: u64 = 1 << 8;
const EFER_LONG_ACTIVE: u64 = 1 << 10;

const PRESENT_WRITABLE: u64 = 3;
const LARGE_PAGE: u64 = 1 << 7;
const PAGE: u64 = 4096;
const ENTRIES: u64 = 512;

const LAPIC_LINT0: usize = 0x350;
const LAPIC_LINT1: usize = 0x360;
const DELIVERY_MODE: u32 = 7 << 8;
const DELIVER_NMI: u32 = 4 << 8;
const DELIVER_EXTINT: u32 = 7 << 8;

/// Descriptors as in the boot protocol: nothing, nothing, code at 0x10, data at 0x18.
const DESCRIPTORS: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// Writes page tables and descriptors into guest memory.
pub fn write_tables(memory: &GuestMemory) -> Result<(), GuestMemoryError> {
    let directory_pointers = PAGE_TABLES.unchecked_add(PAGE);
    let directories = PAGE_TABLES.unchecked_add(2 * PAGE);
    memory.write_obj(directory_pointers.0 | PRESENT_WRITABLE, PAGE_TABLES)?;
    for gib in 0..4 {
        let directory = directories.unchecked_add(gib * PAGE);
        memory.write_obj(
            directory.0 | PRESENT_WRITABLE,
            directory_pointers.unchecked_add(gib * 8),
        )?;
        for entry in 0..ENTRIES {
            let page = (gib * ENTRIES + entry) << 21;
            memory.write_obj(
                page | PRESENT_WRITABLE | LARGE_PAGE,
                directory.unchecked_add(entry * 8),
            )?;
        }
    }
    for (descriptor, index) in DESCRIPTORS.iter().zip(0..) {
        memory.write_obj(*descriptor, GDT.unchecked_add(index * 8))?;
    }
    memory.write_obj(0u64, IDT)
}

/// Sets what every processor needs.
pub fn set_common(vcpu: &VcpuFd) -> Result<(), Error> {
    let msr = |index, data| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    let msrs = [
        msr(MSR_MISC_ENABLE, MSR_MISC_ENABLE_FAST_STRINGS),
        msr(MSR_MTRR_DEFAULT, MTRR_ENABLED_WRITE_BACK),
    ];
    let msrs = Msrs::from_entries(&msrs).map_err(|_| Error::new(libc::E2BIG))?;
    if vcpu.set_msrs(&msrs)? != msrs.as_slice().len() {
        return Err(Error::new(libc::EINVAL));
    }
    let mut lapic = vcpu.get_lapic()?;
    for (register, mode) in [(LAPIC_LINT0, DELIVER_EXTINT), (LAPIC_LINT1, DELIVER_NMI)] {
        let bytes = &mut lapic.regs[register..register + 4];
        let old = bytes
            .iter()
            .rev()
            .fold(0u32, |value, byte| value << 8 | u32::from(*byte as u8));
        let new = (old & !DELIVERY_MODE | mode).to_le_bytes();
        for (to, from) in bytes.iter_mut().zip(new) {
            *to = from as _;
        }
    }
    vcpu.set_lapic(&lapic)
}

/// Puts the first processor at the kernel's entry.
pub fn set_entry(vcpu: &VcpuFd, entry: GuestAddress) -> Result<(), Error> {
    let code = segment(2, 0xb, true);
    let data = segment(3, 0x3, false);
    let mut sregs = vcpu.get_sregs()?;
    sregs.gdt.base = GDT.0;
    sregs.gdt.limit = (DESCRIPTORS.len() * 8 - 1) as u16;
    sregs.idt.base = IDT.0;
    sregs.idt.limit = 7;
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.cr3 = PAGE_TABLES.0;
    sregs.cr4 |= CR4_PAE;
    sregs.cr0 |= CR0_PROTECTED | CR0_EXTENSION | CR0_PAGING;
    sregs.efer |= EFER_LONG_ENABLE | EFER_LONG_ACTIVE;
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&kvm_regs {
        rflags: 2,
        rip: entry.0,
        rsi: BOOT_PARAMS.0,
        ..Default::default()
    })
}

/// A flat segment: descriptor `index`, of `kind`, of 64-bit code or of data.
fn segment(index: u16, kind: u8, code: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: index * 8,
        type_: kind,
        present: 1,
        dpl: 0,
        db: u8::from(!code),
        s: 1,
        l: u8::from(code),
        g: 1,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_four_gib_are_mapped_one_to_one() {
        let memory = crate::memory::create(64, false).unwrap();
        write_tables(&memory).unwrap();
        let read = |at: u64| memory.read_obj::<u64>(GuestAddress(at)).unwrap();
        for address in [
            0u64,
            0x10_0000,
            0x3fff_ffff,
            0x4000_0000,
            0xc000_1234,
            0xffff_ffff,
        ] {
            let pointers = read(PAGE_TABLES.0 + (address >> 39 & 511) * 8) & !0xfff;
            let directory = read(pointers + (address >> 30 & 511) * 8) & !0xfff;
            let entry = read(directory + (address >> 21 & 511) * 8);
            assert_eq!(
                entry & (LARGE_PAGE | PRESENT_WRITABLE),
                LARGE_PAGE | PRESENT_WRITABLE
            );
            assert_eq!(entry & !0x1f_ffff, address & !0x1f_ffff);
        }
    }
}
