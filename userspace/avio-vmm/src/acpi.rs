// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The ACPI tables that the guest finds: processors, interrupt controllers, the PCI root, the serial port, and how to
//! switch off and reset.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, Interrupt, Memory32Fixed, Name, Package,
    Path, ResourceTemplate, Scope, IO,
};
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace as GasSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, ProcessorLocalApic, MADT,
};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::Aml;

use crate::layout;
use crate::power::{RESET_VALUE, SLEEP_TYPE_OFF};

const OEM: [u8; 6] = *b"AVIO  ";
const OEM_TABLE: [u8; 8] = *b"AVIOVMM ";
const REVISION: u32 = 1;

/// Boot architecture flags of the FADT: legacy devices yes; VGA, ASPM and a CMOS clock no; i8042 not listed.
const BOOT_ARCH: u16 = 1 << 0 | 1 << 2 | 1 << 4 | 1 << 5;

/// The tables as one run of bytes for guest address `base`, which is a multiple of 64; the root pointer comes first.
pub fn tables(base: u64, cpus: u8) -> Vec<u8> {
    let mut image = Image {
        base,
        bytes: vec![0; 64],
    };
    let facs = image.append(&bytes_of(&FACS::new()));
    let dsdt = image.append(&dsdt());
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, REVISION);
    xsdt.add_entry(image.append(&fadt(facs, dsdt)));
    xsdt.add_entry(image.append(&madt(cpus)));
    xsdt.add_entry(image.append(&mcfg()));
    let xsdt = image.append(&bytes_of(&xsdt));
    let rsdp = bytes_of(&Rsdp::new(OEM, xsdt));
    image.bytes[..rsdp.len()].copy_from_slice(&rsdp);
    image.bytes
}

struct Image {
    base: u64,
    bytes: Vec<u8>,
}

impl Image {
    /// Adds a table, 64-byte aligned as the FACS must be, and returns its guest address.
    fn append(&mut self, table: &[u8]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(64), 0);
        let address = self.base + self.bytes.len() as u64;
        self.bytes.extend_from_slice(table);
        address
    }
}

fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn io_register(port: u16, bits: u8, access: AccessSize) -> GAS {
    GAS::new(GasSpace::SystemIo, bits, 0, access, u64::from(port))
}

fn fadt(facs: u64, dsdt: u64) -> Vec<u8> {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, REVISION)
        .firmware_ctrl_64(facs)
        .dsdt_64(dsdt)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless);
    fadt.sci_int = layout::SCI_IRQ.into();
    fadt.pm1a_evt_blk = u32::from(layout::PM1_EVENT).into();
    fadt.pm1a_cnt_blk = u32::from(layout::PM1_CONTROL).into();
    fadt.pm_tmr_blk = u32::from(layout::PM_TIMER).into();
    fadt.pm1_evt_len = 4;
    fadt.pm1_cnt_len = 2;
    fadt.pm_tmr_len = 4;
    fadt.x_pm1a_evt_blk = io_register(layout::PM1_EVENT, 32, AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = io_register(layout::PM1_CONTROL, 16, AccessSize::WordAccess);
    fadt.x_pm_tmr_blk = io_register(layout::PM_TIMER, 32, AccessSize::DwordAccess);
    // No C2 or C3 state: these latencies mean "not supported".
    fadt.p_lvl2_lat = 0x65.into();
    fadt.p_lvl3_lat = 0x3e9.into();
    fadt.iapc_boot_arch = BOOT_ARCH.into();
    fadt.reset_reg = io_register(layout::RESET, 8, AccessSize::ByteAccess);
    fadt.reset_value = RESET_VALUE;
    bytes_of(&fadt.finalize())
}

fn madt(cpus: u8) -> Vec<u8> {
    let mut madt = MADT::new(
        OEM,
        OEM_TABLE,
        REVISION,
        LocalInterruptController::Address(layout::LAPIC),
    );
    for cpu in 0..cpus {
        madt.add_structure(ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, layout::IOAPIC, 0));
    bytes_of(&madt)
}

fn mcfg() -> Vec<u8> {
    let mut mcfg = MCFG::new(OEM, OEM_TABLE, REVISION);
    mcfg.add_ecam(layout::ECAM, 0, 0, 0);
    bytes_of(&mcfg)
}

fn dsdt() -> Vec<u8> {
    let sleep_type = SLEEP_TYPE_OFF;
    let s5 = Name::new(
        "_S5_".into(),
        &Package::new(vec![&sleep_type, &0u8, &0u8, &0u8]),
    );
    let mut body = bytes_of(&s5);
    body.extend(scope());
    let mut dsdt = Sdt::new(*b"DSDT", 36, 2, OEM, OEM_TABLE, REVISION);
    dsdt.append_slice(&body);
    dsdt.as_slice().to_vec()
}

fn scope() -> Vec<u8> {
    let mut devices = pci_root();
    devices.extend(ecam_reservation());
    devices.extend(serial_port());
    Scope::raw(Path::new("_SB_"), devices)
}

fn pci_root() -> Vec<u8> {
    let window_end = layout::PCI_WINDOW + layout::PCI_WINDOW_SIZE - 1;
    let resources = ResourceTemplate::new(vec![
        &AddressSpace::new_bus_number(0u16, 0u16),
        &IO::new(0xcf8, 0xcf8, 1, 8),
        &AddressSpace::new_memory(
            AddressSpaceCacheable::NotCacheable,
            true,
            layout::PCI_WINDOW as u32,
            window_end as u32,
            None,
        ),
    ])
    .into_bytes();
    bytes_of(&Device::new(
        "PCI0".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0A08")),
            &Name::new("_CID".into(), &EISAName::new("PNP0A03")),
            &Name::new("_UID".into(), &0u8),
            &Name::new("_SEG".into(), &0u8),
            &Name::new("_BBN".into(), &0u8),
            &Name::new("_CCA".into(), &1u8),
            &Name::new("_CRS".into(), &resources),
        ],
    ))
}

/// Linux uses the memory-mapped configuration space only if a motherboard device claims it.
fn ecam_reservation() -> Vec<u8> {
    let resources = ResourceTemplate::new(vec![&Memory32Fixed::new(
        true,
        layout::ECAM as u32,
        layout::ECAM_SIZE as u32,
    )])
    .into_bytes();
    bytes_of(&Device::new(
        "MBRD".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C02")),
            &Name::new("_UID".into(), &0u8),
            &Name::new("_CRS".into(), &resources),
        ],
    ))
}

fn serial_port() -> Vec<u8> {
    let resources = ResourceTemplate::new(vec![
        &IO::new(layout::COM1, layout::COM1, 1, 8),
        &Interrupt::new(true, true, false, false, layout::COM1_IRQ),
    ])
    .into_bytes();
    bytes_of(&Device::new(
        "COM1".into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &0u8),
            &Name::new("_CRS".into(), &resources),
        ],
    ))
}

/// A resource template whose borrowed parts are gone.
struct Raw(Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

trait IntoBytes {
    fn into_bytes(self) -> Raw;
}

impl IntoBytes for ResourceTemplate<'_> {
    fn into_bytes(self) -> Raw {
        Raw(bytes_of(&self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0xe_0000;

    fn u32_at(bytes: &[u8], at: usize) -> usize {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    /// The table at a guest address, after a check of its length and checksum.
    fn table(image: &[u8], address: u64) -> &[u8] {
        let rest = &image[usize::try_from(address - BASE).unwrap()..];
        let table = &rest[..u32_at(rest, 4)];
        assert_eq!(
            sum(table),
            0,
            "checksum of {:?}",
            std::str::from_utf8(&table[..4])
        );
        table
    }

    fn find<'a>(image: &'a [u8], signature: &[u8; 4]) -> &'a [u8] {
        let xsdt = table(image, u64_at(image, 24));
        (36..xsdt.len())
            .step_by(8)
            .map(|at| table(image, u64_at(xsdt, at)))
            .find(|table| &table[..4] == signature)
            .unwrap()
    }

    #[test]
    fn the_root_pointer_is_first_and_sound() {
        let image = tables(BASE, 2);
        assert_eq!(&image[..8], b"RSD PTR ");
        assert_eq!(sum(&image[..20]), 0);
        assert_eq!(sum(&image[..36]), 0);
        assert_eq!(&table(&image, u64_at(&image, 24))[..4], b"XSDT");
    }

    #[test]
    fn the_fadt_leads_to_dsdt_and_aligned_facs() {
        let image = tables(BASE, 1);
        let fadt = find(&image, b"FACP");
        assert_eq!(&table(&image, u64_at(fadt, 140))[..4], b"DSDT");
        let facs = u64_at(fadt, 132);
        assert_eq!(facs % 64, 0);
        assert_eq!(
            &image[usize::try_from(facs - BASE).unwrap()..][..4],
            b"FACS"
        );
    }

    #[test]
    fn every_processor_is_listed() {
        let image = tables(BASE, 16);
        let madt = find(&image, b"APIC");
        let mut lapics = Vec::new();
        let mut at = 44;
        while at < madt.len() {
            if madt[at] == 0 {
                assert_eq!(madt[at + 4] & 1, 1);
                lapics.push(madt[at + 3]);
            }
            at += usize::from(madt[at + 1]);
        }
        assert_eq!(lapics, (0..16).collect::<Vec<u8>>());
    }

    #[test]
    fn the_mcfg_names_the_ecam() {
        let image = tables(BASE, 1);
        assert_eq!(u64_at(find(&image, b"MCFG"), 44), layout::ECAM);
    }

    #[test]
    fn all_tables_fit_below_one_mib() {
        assert!(BASE + tables(BASE, 16).len() as u64 <= layout::MIB);
    }
}
