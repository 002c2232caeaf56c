// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The command line, and what it says to the VMM.

use std::path::PathBuf;

use avio_control as protocol;
use clap::{Parser, Subcommand};

/// Speaks to a running avio-vmm through its control socket.
///
/// Exit status 0: done. Otherwise the VMM's reason is on standard error, and nothing has changed.
#[derive(Debug, Parser)]
#[command(name = "avio-ctl", version)]
pub struct Args {
    /// The socket that avio-vmm was given with its own --control
    #[arg(long, value_name = "PATH")]
    pub control: PathBuf,

    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,

    /// What to say
    #[command(subcommand)]
    pub command: Command,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show adapters and LUNs
    Status,
    /// Show counters and latencies
    Stats,
    /// Attach a disk
    AddLun {
        /// As which LUN [default: the lowest that is free]
        #[arg(long, value_name = "N")]
        lun: Option<u32>,
        #[command(flatten)]
        adapter: Adapter,
        #[command(flatten)]
        disk: Disk,
    },
    /// Detach a disk
    RemoveLun {
        /// Which
        lun: u32,
        /// Although the guest uses it: its requests are aborted
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        adapter: Adapter,
    },
    /// Put another disk in a LUN's place; the guest has to open its gate
    ReplaceLun {
        /// Which
        lun: u32,
        /// Although requests are in flight: they are aborted
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        adapter: Adapter,
        #[command(flatten)]
        disk: Disk,
    },
    /// Look at a LUN's device again, after a resize that the kernel did not tell of
    RescanLun {
        /// Which
        lun: u32,
        #[command(flatten)]
        adapter: Adapter,
    },
    /// Limit a LUN's rate; what is left out is not limited
    SetLimits {
        /// Which
        lun: u32,
        #[command(flatten)]
        adapter: Adapter,
        #[command(flatten)]
        limits: Limits,
    },
    /// Set an adapter's weight among the guest's adapters, or a LUN's among those of its adapter
    ///
    /// The VMM must have been given --cgroup.
    SetWeight {
        /// 1 to 10000; 100 is what everything has that was given none
        #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
        weight: u32,
        /// Of which LUN [default: of the adapter itself]
        #[arg(long, value_name = "N")]
        lun: Option<u32>,
        #[command(flatten)]
        adapter: Adapter,
    },
    /// Set how long the host's workers may poll for requests before they sleep
    SetPoll {
        /// In nanoseconds, at most 10000000; 0 is never
        window_ns: u32,
        #[command(flatten)]
        adapter: Adapter,
    },
    /// Take no more requests, and wait until none is in flight
    Quiesce,
    /// Print, as JSON, how adapters and queues stand after quiesce
    Save,
    /// Go on after quiesce
    Resume,
    /// Press the guest's power button
    PowerButton,
    /// End the VMM at once
    Quit,
}

/// Which adapter.
#[derive(Debug, clap::Args)]
pub struct Adapter {
    /// Of which adapter [default: the only one]
    #[arg(long, value_name = "ID")]
    hba: Option<String>,
}

/// A disk.
#[derive(Debug, clap::Args)]
pub struct Disk {
    /// The block device
    path: PathBuf,
    /// Show this serial number instead of the device's own
    #[arg(long, value_name = "TEXT")]
    serial: Option<String>,
    /// Refuse writes
    #[arg(long)]
    readonly: bool,
    /// Let others who say so, too, use the device
    #[arg(long)]
    shared: bool,
    /// Weight among the adapter's LUNs, 1 to 10000 [default: 100]; the VMM must have been given --cgroup
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    weight: Option<u32>,
    #[command(flatten)]
    limits: Limits,
}

/// Limits.
#[derive(Debug, clap::Args)]
pub struct Limits {
    /// Requests a second
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    iops: u64,
    /// Requests at once, after a pause
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    iops_burst: u64,
    /// Bytes a second
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    bytes: u64,
    /// Bytes at once, after a pause
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    bytes_burst: u64,
}

impl From<Limits> for protocol::Limits {
    fn from(limits: Limits) -> Self {
        Self {
            iops: limits.iops,
            iops_burst: limits.iops_burst,
            bytes: limits.bytes,
            bytes_burst: limits.bytes_burst,
        }
    }
}

impl From<Disk> for protocol::Disk {
    fn from(disk: Disk) -> Self {
        Self {
            // The VMM has a folder of its own.
            path: std::path::absolute(&disk.path).unwrap_or(disk.path),
            serial: disk.serial,
            readonly: disk.readonly,
            shared: disk.shared,
            limits: disk.limits.into(),
            weight: disk.weight,
        }
    }
}

impl From<Command> for protocol::Request {
    fn from(command: Command) -> Self {
        match command {
            Command::Status => Self::Status,
            Command::Stats => Self::Stats,
            Command::AddLun { lun, adapter, disk } => Self::AddLun(protocol::AddLun {
                hba: adapter.hba,
                lun,
                disk: disk.into(),
            }),
            Command::RemoveLun {
                lun,
                force,
                adapter,
            } => Self::RemoveLun(protocol::RemoveLun {
                hba: adapter.hba,
                lun,
                force,
            }),
            Command::ReplaceLun {
                lun,
                force,
                adapter,
                disk,
            } => Self::ReplaceLun(protocol::ReplaceLun {
                hba: adapter.hba,
                lun,
                disk: disk.into(),
                force,
            }),
            Command::RescanLun { lun, adapter } => Self::RescanLun(protocol::Place {
                hba: adapter.hba,
                lun,
            }),
            Command::SetLimits {
                lun,
                adapter,
                limits,
            } => Self::SetLimits(protocol::SetLimits {
                hba: adapter.hba,
                lun,
                limits: limits.into(),
            }),
            Command::SetWeight {
                weight,
                lun,
                adapter,
            } => Self::SetWeight(protocol::SetWeight {
                hba: adapter.hba,
                lun,
                weight,
            }),
            Command::SetPoll { window_ns, adapter } => Self::SetPoll(protocol::SetPoll {
                hba: adapter.hba,
                window_ns,
            }),
            Command::Quiesce => Self::Quiesce,
            Command::Save => Self::Save,
            Command::Resume => Self::Resume,
            Command::PowerButton => Self::PowerButton,
            Command::Quit => Self::Quit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use avio_control::Request;

    fn said(line: &str) -> String {
        let words = format!("avio-ctl --control s {line}");
        let args = Args::try_parse_from(words.split_whitespace()).unwrap();
        serde_json::to_string(&Request::from(args.command)).unwrap()
    }

    #[test]
    fn commands_are_said_as_the_specification_has_them() {
        assert_eq!(said("status"), r#"{"execute":"status"}"#);
        assert_eq!(
            said("remove-lun 3 --force"),
            r#"{"execute":"remove-lun","arguments":{"lun":3,"force":true}}"#
        );
        assert_eq!(
            said("set-poll 5000 --hba b"),
            r#"{"execute":"set-poll","arguments":{"hba":"b","window-ns":5000}}"#
        );
        assert_eq!(
            said("set-weight 500 --lun 2"),
            r#"{"execute":"set-weight","arguments":{"lun":2,"weight":500}}"#
        );
        let added = said("add-lun /dev/x --weight 7");
        assert!(added.contains(r#""weight":7"#), "{added}");
        let added = said("add-lun /dev/x --lun 9 --iops 100");
        assert!(
            added.contains(r#""lun":9,"disk":{"path":"/dev/x""#),
            "{added}"
        );
        assert!(added.contains(r#""iops":100,"iops-burst":0"#), "{added}");
    }

    #[test]
    fn weights_are_those_of_the_kernel() {
        for (weight, right) in [("1", true), ("10000", true), ("0", false), ("10001", false)] {
            let args = ["avio-ctl", "--control", "s", "set-weight", weight];
            assert_eq!(Args::try_parse_from(args).is_ok(), right, "{weight}");
        }
    }

    #[test]
    fn a_disk_needs_a_path() {
        let args = ["avio-ctl", "--control", "s", "add-lun"];
        assert!(Args::try_parse_from(args).is_err());
    }
}
