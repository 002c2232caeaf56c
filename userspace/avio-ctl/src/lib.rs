// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The control socket's protocol: what is said to a running VMM and what it answers. `docs/vmm.md` is its
//! specification.
//!
//! One JSON object a line each way: `{"execute": "add-lun", "arguments": {…}}` is answered by `{"return": …}` or
//! `{"error": "…"}`.

mod report;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use report::{
    AdapterStats, AdapterStatus, LunStats, LunStatus, QueueStats, Saved, SavedAdapter, SavedQueue,
    Status,
};

/// Longest line in bytes, either way to the VMM.
pub const MAX_REQUEST: usize = 64 * 1024;

/// Weight of what was given none, as the kernel has it.
pub const DEFAULT_WEIGHT: u32 = 100;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "execute", content = "arguments", rename_all = "kebab-case")]
pub enum Request {
    /// Answers with a [`Status`].
    Status,
    /// Attaches a disk. Answers with a [`Place`].
    AddLun(AddLun),
    /// Detaches a LUN. Answers with null.
    RemoveLun(RemoveLun),
    /// Puts another backing in a LUN's place. Answers with [`Replaced`].
    ReplaceLun(ReplaceLun),
    /// Looks at a LUN's backing again, as a resize should cause by itself. Answers with null.
    RescanLun(Place),
    /// Limits a LUN's rate. Answers with null.
    SetLimits(SetLimits),
    /// Sets the weight of an adapter or a LUN. Answers with null.
    SetWeight(SetWeight),
    /// Sets how long the module's workers poll. Answers with null.
    SetPoll(SetPoll),
    /// Answers with a list of [`AdapterStats`].
    Stats,
    /// Takes no more requests and lets those in flight end. Answers with [`Quiesced`]; ask again until it is complete.
    Quiesce,
    /// Answers with [`Saved`]; refused unless a quiesce is complete.
    Save,
    /// Goes on after a quiesce. Answers with null.
    Resume,
    /// Presses the guest's power button. Answers with null.
    PowerButton,
    /// Ends the VMM at once. Answers with null.
    Quit,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It was done.
    Return(serde_json::Value),
    /// It was refused, and nothing changed.
    Error(String),
}

/// Which LUN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The adapter's ID; may be left out if there is one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hba: Option<String>,
    /// The LUN's number.
    pub lun: u32,
}

/// A block device, and how to attach it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// The block device.
    pub path: PathBuf,
    /// Serial number that the guest is to see instead of the device's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Refuse writes.
    #[serde(default)]
    pub readonly: bool,
    /// Others who say so, too, may use the device.
    #[serde(default)]
    pub shared: bool,
    /// Its rate.
    #[serde(default)]
    pub limits: Limits,
    /// Its weight among the adapter's LUNs, 1 to 10000; [`DEFAULT_WEIGHT`] if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// Limits of a LUN's rate; zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// Requests a second.
    pub iops: u64,
    /// Requests at once, after a pause; zero for a tenth of a second's worth.
    pub iops_burst: u64,
    /// Bytes a second.
    pub bytes: u64,
    /// Bytes at once, after a pause; zero for a tenth of a second's worth.
    pub bytes_burst: u64,
}

/// Arguments of `add-lun`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddLun {
    /// The adapter's ID; may be left out if there is one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hba: Option<String>,
    /// The LUN's number; the lowest that is free if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lun: Option<u32>,
    /// What to attach.
    pub disk: Disk,
}

/// Arguments of `remove-lun`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveLun {
    /// The adapter's ID; may be left out if there is one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hba: Option<String>,
    /// The LUN's number.
    pub lun: u32,
    /// Although the guest uses it: its requests end as aborted.
    #[serde(default)]
    pub force: bool,
}

/// Arguments of `replace-lun`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplaceLun {
    /// The adapter's ID; may be left out if there is one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hba: Option<String>,
    /// The LUN's number.
    pub lun: u32,
    /// What to attach.
    pub disk: Disk,
    /// Although requests are in flight: they end as aborted.
    #[serde(default)]
    pub force: bool,
}

/// Answer to `replace-lun`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// Whether the backing is another, so that the guest must open the gate before it reads or writes a byte.
    pub gated: bool,
}

/// Arguments of `set-limits`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetLimits {
    /// The adapter's ID; may be left out if there is one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hba: Option<String>,
    /// The LUN's number.
    pub lun: u32,
    /// The limits; those left out are none.
    pub limits: Limits,
}

/// Arguments of `set-weight`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetWeight {
    /// The adapter's ID; may be left out if there is one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hba: Option<String>,
    /// The LUN's number; the adapter itself is weighed if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lun: Option<u32>,
    /// The weight, 1 to 10000.
    pub weight: u32,
}

/// Arguments of `set-poll`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SetPoll {
    /// The adapter's ID; may be left out if there is one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hba: Option<String>,
    /// Longest time in nanoseconds; zero is never.
    pub window_ns: u32,
}

/// Answer to `quiesce`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quiesced {
    /// Whether nothing is in flight any more.
    pub complete: bool,
}
