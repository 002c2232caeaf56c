// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What the VMM tells of itself: state, and counters.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Limits;

/// Answer to `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The VMM's version.
    pub version: String,
    /// The adapters, by PCI address.
    pub adapters: Vec<AdapterStatus>,
}

/// An adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AdapterStatus {
    /// Its ID.
    pub hba: String,
    /// Its PCI address in the guest.
    pub address: String,
    /// `stopped`, `running`, `failed` or `stopping`.
    pub state: String,
    /// Whether it is quiesced.
    pub quiesced: bool,
    /// Release of the guest's driver; `unknown` without one.
    #[serde(default)]
    pub driver_release: String,
    /// ABI version that the guest's driver chose; zero without a driver.
    pub driver_version: u32,
    /// Features that the guest's driver chose, a bit set.
    pub driver_features: u64,
    /// Queues that the guest's driver uses.
    pub driver_queues: u32,
    /// Most queues that it could use.
    pub max_queues: u32,
    /// Changes of LUNs since the guest started.
    pub generation: u32,
    /// Its weight among the adapters, if the VMM has cgroups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Its LUNs, by number.
    pub luns: Vec<LunStatus>,
}

/// A LUN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LunStatus {
    /// Its number.
    pub lun: u32,
    /// The block device.
    pub path: PathBuf,
    /// What tells the backing from any other.
    pub identity: String,
    /// Serial number that the guest sees.
    pub serial: String,
    /// Names of what it is: `present`, `read-only`, `write-cache`, `fua`, `non-rotational`, `gated`, `lost`,
    /// `stable-writes`.
    pub flags: Vec<String>,
    /// Capacity in sectors of 512 bytes.
    pub sectors: u64,
    /// Logical block size in bytes.
    pub logical_block: u32,
    /// Whether the guest says that it uses it.
    pub in_use: bool,
    /// Others who say so, too, may use the device.
    pub shared: bool,
    /// Its limits.
    pub limits: Limits,
    /// Its weight among the adapter's LUNs, if the VMM has cgroups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// Answer to `save`: how each adapter stands while it is quiesced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The VMM's version.
    pub version: String,
    /// The adapters, by PCI address.
    pub adapters: Vec<SavedAdapter>,
}

/// A quiesced adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedAdapter {
    /// State of the adapter and its LUNs.
    #[serde(flatten)]
    pub status: AdapterStatus,
    /// The queues that the guest's driver uses.
    pub queues: Vec<SavedQueue>,
}

/// A queue of a quiesced adapter. Nothing of it is in flight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SavedQueue {
    /// Its number.
    pub queue: u32,
    /// Entries in each ring.
    pub size: u32,
    /// Guest address of the submission ring.
    pub submissions: u64,
    /// Guest address of the completion ring.
    pub completions: u64,
    /// Guest address of the control block.
    pub control: u64,
    /// Position of the next submission entry.
    pub submission: u32,
    /// Position of the next completion entry.
    pub completion: u32,
    /// Why it is broken, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

/// Counters of an adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterStats {
    /// Its ID.
    pub hba: String,
    /// Those of its LUNs; they count from when the LUN was attached.
    pub luns: Vec<LunStats>,
    /// Those of the queues that the guest's driver uses; they count from its start.
    pub queues: Vec<QueueStats>,
}

/// Counters of a LUN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LunStats {
    /// Its number.
    pub lun: u32,
    /// Requests that the backing has.
    pub in_flight: u32,
    /// Requests that wait for the limits.
    pub held_back: u32,
    /// Reads carried out.
    pub reads: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Writes carried out.
    pub writes: u64,
    /// Their bytes.
    pub write_bytes: u64,
    /// Flushes carried out.
    pub flushes: u64,
    /// Discards, secure erases and writes of zeroes carried out.
    pub ranges: u64,
    /// Requests that had to wait for the limits.
    pub throttled: u64,
    /// Requests by how they ended; those that never happened are left out.
    pub statuses: BTreeMap<String, u64>,
    /// How long a sample of the requests took: entry *n* counts those from 2ⁿ to less than 2ⁿ⁺¹ µs, entry 0 all below
    /// 2 µs. Zeroes at the end are left out.
    pub latency: Vec<u64>,
}

/// Counters of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct QueueStats {
    /// Its number.
    pub queue: u32,
    /// Why it is broken, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests taken.
    pub requests: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Wake-ups by the doorbell.
    pub doorbells: u64,
    /// Interrupts raised.
    pub interrupts: u64,
    /// Completions without an interrupt of their own.
    pub interrupts_suppressed: u64,
    /// Requests that ended in an error.
    pub errors: u64,
    /// Position of the next submission entry.
    pub submission: u32,
    /// Position of the next completion entry.
    pub completion: u32,
    /// Times that the worker polled before it slept.
    pub polls: u64,
    /// Of these, how often work came.
    pub polls_found: u64,
}
