// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Where things lie in the guest's physical address space and among its I/O ports.

use vm_memory::GuestAddress;

/// One MiB in bytes.
pub const MIB: u64 = 1 << 20;

/// End of low memory that a kernel may use; the BIOS area follows.
pub const EBDA_START: u64 = 0xa_0000;
/// The flat segment descriptors.
pub const GDT: GuestAddress = GuestAddress(0x500);
/// An empty interrupt descriptor table.
pub const IDT: GuestAddress = GuestAddress(0x520);
/// The Linux boot parameters.
pub const BOOT_PARAMS: GuestAddress = GuestAddress(0x7000);
/// Page tables for the first 4 GiB: one PML4, one PDPT, four page directories.
pub const PAGE_TABLES: GuestAddress = GuestAddress(0x9000);
/// The kernel's command line.
pub const CMDLINE: GuestAddress = GuestAddress(0x2_0000);
/// Longest command line, with its closing zero.
pub const CMDLINE_MAX: usize = 0x1_0000;
/// ACPI tables, up to 1 MiB; the root pointer comes first.
pub const ACPI_TABLES: GuestAddress = GuestAddress(0xe_0000);
/// End of the BIOS area, and where a kernel is loaded.
pub const HIGH_MEMORY: GuestAddress = GuestAddress(MIB);

/// End of RAM below 4 GiB. What does not fit goes above 4 GiB.
pub const LOW_RAM_END: u64 = 0xc000_0000;
/// Start of RAM above 4 GiB.
pub const HIGH_RAM: GuestAddress = GuestAddress(1 << 32);

/// Window for memory BARs.
pub const PCI_WINDOW: u64 = LOW_RAM_END;
/// Length of the window for memory BARs.
pub const PCI_WINDOW_SIZE: u64 = 0x2000_0000;
/// PCI configuration space, memory-mapped: one bus.
pub const ECAM: u64 = 0xe000_0000;
/// Length of the memory-mapped configuration space of one bus.
pub const ECAM_SIZE: u64 = MIB;
/// The I/O APIC, inside KVM.
pub const IOAPIC: u32 = 0xfec0_0000;
/// The local APICs, inside KVM.
pub const LAPIC: u32 = 0xfee0_0000;
/// A page that KVM needs on Intel processors.
pub const IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages that KVM needs on Intel processors.
pub const TSS: usize = 0xfffb_d000;

/// I/O ports of the first serial port.
pub const COM1: u16 = 0x3f8;
/// Interrupt of the first serial port.
pub const COM1_IRQ: u32 = 4;
/// ACPI power management: PM1 status (2 bytes) and enable (2 bytes).
pub const PM1_EVENT: u16 = 0x600;
/// ACPI power management: PM1 control (2 bytes).
pub const PM1_CONTROL: u16 = 0x604;
/// ACPI power management: the timer (4 bytes). Linux checks the local APIC's timer against it.
pub const PM_TIMER: u16 = 0x608;
/// The reset register that the FADT names.
pub const RESET: u16 = 0x60c;
/// Interrupt of ACPI: the power button.
pub const SCI_IRQ: u16 = 9;

/// First interrupt number (GSI) after those of the I/O APIC.
pub const FIRST_MSI_GSI: u32 = 24;
