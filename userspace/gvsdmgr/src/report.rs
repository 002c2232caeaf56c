// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What is printed. The same values go to people, as `label : value` lines, and to programs, as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use avio_abi::gvsd::{state, Info, Lun, Stat};
use avio_abi::release::Release;
use avio_abi::stor::{lun_flags, Status};
use avio_abi::{features, SECTOR_SIZE};
use serde::Serialize;

/// A text that is filled with zeroes.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn line(f: &mut fmt::Formatter<'_>, label: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{label:<24} : {value}")
}

/// An adapter.
#[derive(Serialize)]
pub struct AdapterReport {
    device_file: String,
    pci_vendor: u16,
    pci_device: u16,
    state: &'static str,
    hardware_path: String,
    max_io_size: u32,
    driver_release: String,
    host_release: String,
    interface_version: u32,
    features: Vec<&'static str>,
    queue_pairs: u32,
    polled_queue_pairs: u32,
    queue_size: u32,
    luns: u32,
    most_luns: u32,
    resets: u32,
}

impl AdapterReport {
    /// From the answer of the adapter with this node.
    pub fn new(node: &Path, info: &Info) -> Self {
        Self {
            device_file: node.display().to_string(),
            pci_vendor: info.vendor,
            pci_device: info.device,
            state: match info.state {
                state::ONLINE => "ONLINE",
                state::RESETTING => "RESETTING",
                state::FAILED => "FAILED",
                _ => "UNKNOWN",
            },
            hardware_path: text(&info.path),
            max_io_size: info.max_bytes,
            driver_release: Release(info.release).to_string(),
            host_release: Release(info.host_release).to_string(),
            interface_version: info.version,
            features: features::NAMES
                .into_iter()
                .filter_map(|(bit, name)| (info.features & bit != 0).then_some(name))
                .collect(),
            queue_pairs: info.queues,
            polled_queue_pairs: info.polled,
            queue_size: info.queue_size,
            luns: info.present,
            most_luns: info.luns,
            resets: info.resets,
        }
    }
}

impl fmt::Display for AdapterReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(f, "Adapter", &self.device_file)?;
        line(f, "PCI vendor", format_args!("{:#06x}", self.pci_vendor))?;
        line(f, "PCI device", format_args!("{:#06x}", self.pci_device))?;
        line(f, "State", self.state)?;
        line(f, "Hardware Path", &self.hardware_path)?;
        line(f, "Max. IO size", self.max_io_size)?;
        line(f, "Driver release", &self.driver_release)?;
        line(f, "Host release", &self.host_release)?;
        line(f, "Interface version", self.interface_version)?;
        line(f, "Features", self.features.join(" "))?;
        line(f, "Queue pairs", self.queue_pairs)?;
        line(f, "Polled queue pairs", self.polled_queue_pairs)?;
        line(f, "Entries in a ring", self.queue_size)?;
        line(
            f,
            "LUNs",
            format_args!("{} of {}", self.luns, self.most_luns),
        )?;
        line(f, "Resets", self.resets)
    }
}

/// A LUN.
#[derive(Serialize)]
pub struct LunReport {
    lun: u32,
    device_file: Option<String>,
    state: &'static str,
    capacity_bytes: u64,
    logical_block: u32,
    physical_block: u32,
    serial: String,
    wwn: Option<String>,
    read_only: bool,
    write_cache: bool,
    rotational: bool,
    max_io_size: u32,
    max_discard_bytes: u64,
    max_secure_erase_bytes: u64,
    max_write_zeroes_bytes: u64,
    opens: u32,
}

impl LunReport {
    /// From the adapter's answer.
    pub fn new(lun: &Lun) -> Self {
        let info = &lun.info;
        let flag = |bit| info.flags & bit != 0;
        let bytes = |sectors: u32| u64::from(sectors) * SECTOR_SIZE;
        let disk = text(&lun.disk);
        let digits = if info.wwn[8..] == [0; 8] { 8 } else { 16 };
        let wwn = info.wwn[..digits].iter().map(|byte| format!("{byte:02x}"));
        Self {
            lun: lun.lun,
            state: if flag(lun_flags::GATED) {
                "REPLACED"
            } else if flag(lun_flags::LOST) {
                "LOST"
            } else if disk.is_empty() {
                "UNUSABLE"
            } else {
                "ONLINE"
            },
            device_file: (!disk.is_empty()).then(|| format!("/dev/{disk}")),
            capacity_bytes: info.sectors.saturating_mul(SECTOR_SIZE),
            logical_block: info.logical_block,
            physical_block: info.physical_block,
            serial: text(&info.serial),
            wwn: (info.wwn != [0; 16]).then(|| "0x".to_owned() + &wwn.collect::<String>()),
            read_only: flag(lun_flags::READ_ONLY),
            write_cache: flag(lun_flags::WRITE_CACHE),
            rotational: !flag(lun_flags::NON_ROTATIONAL),
            max_io_size: info.max_bytes,
            max_discard_bytes: bytes(info.max_discard),
            max_secure_erase_bytes: bytes(info.max_secure_erase),
            max_write_zeroes_bytes: bytes(info.max_write_zeroes),
            opens: lun.opens,
        }
    }

    /// What people call it.
    pub fn name(&self) -> String {
        self.device_file
            .clone()
            .unwrap_or_else(|| format!("LUN {}", self.lun))
    }

    /// Its serial number.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// Whether another disk has taken the place of its own.
    pub fn is_replaced(&self) -> bool {
        self.state == "REPLACED"
    }
}

impl fmt::Display for LunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".into());
        let yes = |yes| if yes { "yes" } else { "no" };
        line(f, "LUN", self.lun)?;
        line(f, "Device file", or_none(&self.device_file))?;
        line(f, "State", self.state)?;
        line(f, "Capacity in bytes", self.capacity_bytes)?;
        line(f, "Logical block size", self.logical_block)?;
        line(f, "Physical block size", self.physical_block)?;
        line(f, "Serial number", &self.serial)?;
        line(f, "WWN", or_none(&self.wwn))?;
        line(f, "Read-only", yes(self.read_only))?;
        line(f, "Write cache", yes(self.write_cache))?;
        line(f, "Rotational", yes(self.rotational))?;
        line(f, "Max. IO size", self.max_io_size)?;
        line(f, "Max. discard", self.max_discard_bytes)?;
        line(f, "Max. secure erase", self.max_secure_erase_bytes)?;
        line(f, "Max. write zeroes", self.max_write_zeroes_bytes)?;
        line(f, "Open count", self.opens)
    }
}

/// What was counted.
#[derive(Serialize)]
pub struct StatReport {
    lun: Option<u32>,
    device_file: Option<String>,
    reads: u64,
    read_bytes: u64,
    writes: u64,
    write_bytes: u64,
    merges: u64,
    flushes: u64,
    ranges: u64,
    errors: BTreeMap<String, u64>,
    retries: u64,
    timeouts: u64,
    aborts: u64,
    lun_resets: u64,
    in_flight: u64,
    /// Requests by the microseconds, in powers of two, from which on they took.
    latency_us: BTreeMap<u64, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adapter: Option<QueueStat>,
}

/// What is counted for an adapter only.
#[derive(Serialize)]
struct QueueStat {
    doorbells: u64,
    doorbells_suppressed: u64,
    interrupts: u64,
    /// Completions that came without an interrupt of their own.
    interrupts_coalesced: u64,
    completions: u64,
    polls: u64,
    polls_found: u64,
}

impl StatReport {
    /// From the answer for a LUN, or for all.
    pub fn new(stat: &Stat, lun: Option<&Lun>) -> Self {
        let errors = (0u8..)
            .zip(stat.status)
            .filter(|(status, count)| *count != 0 && *status != Status::Ok as u8);
        let name = |status| Status::from_u8(status).map_or("unknown", Status::name);
        Self {
            lun: lun.map(|lun| lun.lun),
            device_file: lun.and_then(|lun| LunReport::new(lun).device_file),
            reads: stat.reads,
            read_bytes: stat.read_bytes,
            writes: stat.writes,
            write_bytes: stat.write_bytes,
            merges: stat.merges,
            flushes: stat.flushes,
            ranges: stat.ranges,
            errors: errors
                .map(|(status, count)| (name(status).to_owned(), count))
                .collect(),
            retries: stat.retries,
            timeouts: stat.timeouts,
            aborts: stat.aborts,
            lun_resets: stat.resets,
            in_flight: stat.in_flight,
            latency_us: (0..)
                .zip(stat.latency)
                .filter(|(_, count)| *count != 0)
                .map(|(class, count)| (if class == 0 { 0 } else { 1 << class }, count))
                .collect(),
            adapter: lun.is_none().then_some(QueueStat {
                doorbells: stat.doorbells,
                doorbells_suppressed: stat.doorbells_suppressed,
                interrupts: stat.interrupts,
                interrupts_coalesced: stat.completions.saturating_sub(stat.interrupts),
                completions: stat.completions,
                polls: stat.polls,
                polls_found: stat.polls_found,
            }),
        }
    }
}

impl fmt::Display for StatReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(lun) = self.lun {
            line(f, "LUN", lun)?;
        }
        if let Some(file) = &self.device_file {
            line(f, "Device file", file)?;
        }
        line(f, "Reads", self.reads)?;
        line(f, "Bytes read", self.read_bytes)?;
        line(f, "Writes", self.writes)?;
        line(f, "Bytes written", self.write_bytes)?;
        line(f, "Merges", self.merges)?;
        line(f, "Flushes", self.flushes)?;
        line(f, "Discards and zeroes", self.ranges)?;
        line(f, "Errors", self.errors.values().sum::<u64>())?;
        for (name, count) in &self.errors {
            line(f, &format!("  {name}"), count)?;
        }
        line(f, "Retries", self.retries)?;
        line(f, "Timeouts", self.timeouts)?;
        line(f, "Aborts", self.aborts)?;
        line(f, "LUN resets", self.lun_resets)?;
        line(f, "In flight", self.in_flight)?;
        for (from, count) in &self.latency_us {
            let to = from.saturating_mul(2).max(2);
            line(f, &format!("Took {from} to {to} µs"), count)?;
        }
        let Some(adapter) = &self.adapter else {
            return Ok(());
        };
        line(f, "Doorbells", adapter.doorbells)?;
        line(f, "Doorbells suppressed", adapter.doorbells_suppressed)?;
        line(f, "Interrupts", adapter.interrupts)?;
        line(f, "Interrupts coalesced", adapter.interrupts_coalesced)?;
        line(f, "Completions", adapter.completions)?;
        line(f, "Polls", adapter.polls)?;
        line(f, "Polls that found some", adapter.polls_found)
    }
}

/// What a command did.
#[derive(Serialize)]
pub struct Done {
    result: &'static str,
    /// Requests that a backing on the host still has.
    still_in_flight: u32,
}

impl Done {
    /// With so many requests left.
    pub fn new(result: &'static str, still_in_flight: u32) -> Self {
        Self {
            result,
            still_in_flight,
        }
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.result)?;
        match self.still_in_flight {
            0 => Ok(()),
            left => writeln!(
                f,
                "{left} requests end when the host's devices, or the LUN's limits, let go of them"
            ),
        }
    }
}
