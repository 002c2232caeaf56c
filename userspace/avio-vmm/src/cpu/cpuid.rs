// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! CPUID as the guest sees it: what KVM supports, with this guest's topology (one package, one thread a core) and
//! only those timers that work.

use kvm_bindings::{kvm_cpuid_entry2, CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm};

const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
const HYPER_THREADING: u32 = 1 << 28;
const CMP_LEGACY: u32 = 1 << 1;

/// What KVM supports on this host.
pub fn supported(kvm: &Kvm) -> Result<CpuId, kvm_ioctls::Error> {
    kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
}

/// Whether to offer the TSC-deadline timer. Not on a processor that is itself virtual: on an emulated one KVM accepts
/// the deadline and it never fires.
pub fn deadline_timer_works(kvm: &Kvm) -> bool {
    let host_is_virtual = raw_cpuid::CpuId::new()
        .get_feature_info()
        .is_none_or(|leaf| leaf.has_hypervisor());
    kvm.check_extension(Cap::TscDeadlineTimer) && !host_is_virtual
}

/// CPUID of processor `cpu` of `cpus`.
pub fn for_cpu(
    supported: &CpuId,
    cpu: u8,
    cpus: u8,
    deadline_timer: bool,
) -> Result<CpuId, String> {
    let mut entries: Vec<_> = supported.as_slice().to_vec();
    let topology = Topology {
        cpu: u32::from(cpu),
        cpus: u32::from(cpus),
    };
    // Leaf 0x1f would describe the same as 0xb; a guest that does not find it uses 0xb.
    entries.retain(|entry| !matches!(entry.function, 0xb | 0x1f | 0x8000_0026));
    for entry in &mut entries {
        topology.adjust(entry);
        if entry.function == 1 {
            entry.ecx |= HYPERVISOR;
            entry.ecx = if deadline_timer {
                entry.ecx | TSC_DEADLINE
            } else {
                entry.ecx & !TSC_DEADLINE
            };
        }
    }
    entries.extend(topology.extended());
    CpuId::from_entries(&entries).map_err(|e| format!("{e:?}"))
}

/// Where a processor is. Its number is its APIC ID.
struct Topology {
    cpu: u32,
    cpus: u32,
}

impl Topology {
    /// Bits of an APIC ID that tell processors of the package apart.
    fn bits(&self) -> u32 {
        self.cpus.next_power_of_two().trailing_zeros()
    }

    fn adjust(&self, entry: &mut kvm_cpuid_entry2) {
        let several = self.cpus > 1;
        match entry.function {
            1 => {
                entry.ebx = entry.ebx & 0xffff | self.cpus << 16 | self.cpu << 24;
                set(&mut entry.edx, HYPER_THREADING, several);
            }
            4 => self.adjust_cache(entry, 0xfc00_0000),
            0x8000_0001 => set(&mut entry.ecx, CMP_LEGACY, several),
            0x8000_0008 => entry.ecx = entry.ecx & !0xf0ff | (self.cpus - 1) | self.bits() << 12,
            0x8000_001d => self.adjust_cache(entry, 0),
            0x8000_001e => {
                entry.eax = self.cpu;
                entry.ebx = self.cpu;
                entry.ecx = 0;
            }
            _ => {}
        }
    }

    /// Caches of level 1 and 2 belong to a core, those of level 3 to the package.
    fn adjust_cache(&self, entry: &mut kvm_cpuid_entry2, core_ids: u32) {
        if entry.eax & 0x1f == 0 {
            return;
        }
        let level = (entry.eax >> 5) & 7;
        let sharing = if level >= 3 { self.cpus - 1 } else { 0 };
        entry.eax = entry.eax & !(0xfff << 14) & !core_ids | sharing << 14;
        if core_ids != 0 {
            entry.eax |= ((1 << self.bits()) - 1) << 26;
        }
    }

    /// Leaf 0xb: a level of threads, one a core, and a level of cores.
    fn extended(&self) -> [kvm_cpuid_entry2; 3] {
        const SIGNIFICANT_INDEX: u32 = 1;
        let leaf = |index, eax, ebx, ecx| kvm_cpuid_entry2 {
            function: 0xb,
            index,
            flags: SIGNIFICANT_INDEX,
            eax,
            ebx,
            ecx,
            edx: self.cpu,
            ..Default::default()
        };
        [
            leaf(0, 0, 1, 0x100),
            leaf(1, self.bits(), self.cpus, 0x201),
            leaf(2, 0, 0, 2),
        ]
    }
}

fn set(register: &mut u32, bit: u32, on: bool) {
    *register = if on {
        *register | bit
    } else {
        *register & !bit
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            ..Default::default()
        }
    }

    fn guest(cpu: u8, cpus: u8, deadline_timer: bool) -> Vec<kvm_cpuid_entry2> {
        let mut one = leaf(1);
        one.ecx = TSC_DEADLINE;
        let host = CpuId::from_entries(&[
            one,
            leaf(0xb),
            leaf(0x1f),
            leaf(0x8000_0008),
            leaf(0x8000_001e),
        ])
        .unwrap();
        for_cpu(&host, cpu, cpus, deadline_timer)
            .unwrap()
            .as_slice()
            .to_vec()
    }

    fn find(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        *entries
            .iter()
            .find(|e| e.function == function && e.index == index)
            .unwrap()
    }

    #[test]
    fn the_deadline_timer_is_hidden_where_it_does_not_work() {
        assert_eq!(find(&guest(0, 1, false), 1, 0).ecx & TSC_DEADLINE, 0);
        assert_eq!(
            find(&guest(0, 1, true), 1, 0).ecx & TSC_DEADLINE,
            TSC_DEADLINE
        );
    }

    #[test]
    fn every_processor_has_its_own_apic_id_in_every_leaf() {
        for cpu in 0..16 {
            let entries = guest(cpu, 16, false);
            let id = u32::from(cpu);
            assert_eq!(find(&entries, 1, 0).ebx >> 24, id);
            assert_eq!(find(&entries, 0xb, 0).edx, id);
            assert_eq!(find(&entries, 0xb, 1).edx, id);
            assert_eq!(find(&entries, 0x8000_001e, 0).eax, id);
        }
    }

    #[test]
    fn cores_are_counted() {
        let entries = guest(2, 3, false);
        assert_eq!(find(&entries, 1, 0).ebx >> 16 & 0xff, 3);
        assert_eq!(find(&entries, 0xb, 1).ebx, 3);
        assert_eq!(
            find(&entries, 0xb, 1).eax,
            2,
            "two bits tell three processors apart"
        );
        assert_eq!(find(&entries, 0x8000_0008, 0).ecx & 0xff, 2);
        assert_eq!(entries.iter().filter(|e| e.function == 0xb).count(), 3);
        assert!(entries.iter().all(|e| e.function != 0x1f));
    }
}
