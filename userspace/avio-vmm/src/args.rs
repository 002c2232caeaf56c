// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The command line. Everything that can be judged without looking at the machine is judged here.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;

/// Boots a Linux guest on KVM, with its disks served by the avio_host kernel module.
///
/// The guest's first serial port is standard input and output. On a terminal, Ctrl-A x ends the guest.
/// Exit status 0: the guest switched itself off or reset itself.
#[derive(Clone, Debug, Parser)]
#[command(name = "avio-vmm", version)]
pub struct Args {
    /// Kernel to boot: a bzImage or an ELF vmlinux
    #[arg(long, value_name = "FILE")]
    pub kernel: PathBuf,

    /// Initial RAM file system
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,

    /// Kernel command line
    #[arg(long, value_name = "STRING", default_value = "console=ttyS0 panic=-1")]
    pub cmdline: String,

    /// Virtual processors, 1 to 16
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub cpus: u8,

    /// Guest memory in MiB, at least 64
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u32).range(64..=1 << 20))]
    pub memory: u32,

    /// Back the guest's memory with 2 MiB huge pages, which must be free
    #[arg(long)]
    pub huge_pages: bool,

    /// Attach a block device: path=/dev/X[,readonly][,serial=TEXT][,lun=N]; may be repeated
    #[arg(long = "disk", value_name = "SPEC")]
    pub disks: Vec<Disk>,

    /// Queue pairs of the storage adapter [default: one for each virtual processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(avio_abi::MAX_QUEUES)))]
    pub queues: Option<u32>,

    /// Most entries of a ring that the guest may ask for, a power of two
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = queue_size)]
    pub queue_size: u32,

    /// The storage backend
    #[arg(long, value_name = "FILE", default_value = "/dev/avio-stor")]
    pub device: PathBuf,

    /// Leave out the system call filters; for debugging
    #[arg(long)]
    pub no_seccomp: bool,

    /// What to log to standard error: a level, or module=level pairs, for instance avio_vmm=debug
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    pub log: String,
}

impl Args {
    /// Queue pairs that the adapter is to have.
    pub fn queue_count(&self) -> u32 {
        self.queues.unwrap_or(u32::from(self.cpus))
    }
}

/// A disk to attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The block device.
    pub path: PathBuf,
    /// Refuse writes.
    pub readonly: bool,
    /// Serial number that the guest is to see.
    pub serial: String,
    /// LUN; `None` for the lowest one that is free.
    pub lun: Option<u32>,
}

/// Why a `--disk` was not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// No `path=`.
    #[error("path=/dev/… is missing")]
    NoPath,
    /// A key that is not known.
    #[error("'{0}' is unknown; known are path=, readonly, serial= and lun=")]
    Unknown(String),
    /// A serial number that does not fit.
    #[error("a serial number has 1 to 40 printable ASCII characters")]
    Serial,
    /// A LUN that is out of range.
    #[error("lun= takes a number from 0 to {}", avio_abi::MAX_LUNS - 1)]
    Lun,
    /// Two disks with one LUN.
    #[error("LUN {0} is given to two disks; give each its own")]
    LunTwice(u32),
    /// More disks than LUNs.
    #[error("too many disks; an adapter has {} LUNs", avio_abi::MAX_LUNS)]
    TooMany,
}

impl FromStr for Disk {
    type Err = DiskError;

    fn from_str(spec: &str) -> Result<Self, DiskError> {
        let mut disk = Self {
            path: PathBuf::new(),
            readonly: false,
            serial: String::new(),
            lun: None,
        };
        for part in spec.split(',') {
            match part.split_once('=') {
                Some(("path", path)) => disk.path = path.into(),
                Some(("serial", serial)) => disk.serial = checked_serial(serial)?,
                Some(("lun", lun)) => disk.lun = Some(checked_lun(lun)?),
                None if part == "readonly" => disk.readonly = true,
                _ => return Err(DiskError::Unknown(part.into())),
            }
        }
        if disk.path.as_os_str().is_empty() {
            return Err(DiskError::NoPath);
        }
        Ok(disk)
    }
}

fn checked_serial(serial: &str) -> Result<String, DiskError> {
    let printable = serial.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if printable && (1..=40).contains(&serial.len()) {
        Ok(serial.into())
    } else {
        Err(DiskError::Serial)
    }
}

fn checked_lun(lun: &str) -> Result<u32, DiskError> {
    lun.parse()
        .ok()
        .filter(|lun| *lun < avio_abi::MAX_LUNS)
        .ok_or(DiskError::Lun)
}

fn queue_size(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|n: &u32| {
            n.is_power_of_two() && (avio_abi::MIN_QUEUE_SIZE..=avio_abi::MAX_QUEUE_SIZE).contains(n)
        })
        .ok_or(format!(
            "use a power of two from {} to {}",
            avio_abi::MIN_QUEUE_SIZE,
            avio_abi::MAX_QUEUE_SIZE
        ))
}

/// Each disk with its LUN: the one it asked for, else the lowest that no disk has.
pub fn assign_luns(disks: &[Disk]) -> Result<Vec<(u32, &Disk)>, DiskError> {
    let mut taken = std::collections::BTreeSet::new();
    for lun in disks.iter().filter_map(|disk| disk.lun) {
        if !taken.insert(lun) {
            return Err(DiskError::LunTwice(lun));
        }
    }
    let mut assigned = Vec::with_capacity(disks.len());
    for disk in disks {
        let lun = match disk.lun {
            Some(lun) => lun,
            None => (0..avio_abi::MAX_LUNS)
                .find(|lun| !taken.contains(lun))
                .ok_or(DiskError::TooMany)?,
        };
        taken.insert(lun);
        assigned.push((lun, disk));
    }
    Ok(assigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(spec: &str) -> Result<Disk, DiskError> {
        spec.parse()
    }

    #[test]
    fn a_disk_with_everything() {
        let all = disk("path=/dev/loop3,readonly,serial=AB 12,lun=7").unwrap();
        assert_eq!(
            all,
            Disk {
                path: "/dev/loop3".into(),
                readonly: true,
                serial: "AB 12".into(),
                lun: Some(7)
            }
        );
    }

    #[test]
    fn bad_disks_are_refused_with_a_reason() {
        assert_eq!(disk("readonly"), Err(DiskError::NoPath));
        assert_eq!(disk("/dev/sda"), Err(DiskError::Unknown("/dev/sda".into())));
        assert_eq!(disk("path=/dev/a,lun=256"), Err(DiskError::Lun));
        assert_eq!(disk("path=/dev/a,lun=-1"), Err(DiskError::Lun));
        assert_eq!(disk("path=/dev/a,serial="), Err(DiskError::Serial));
        assert_eq!(
            disk(&format!("path=/dev/a,serial={}", "x".repeat(41))),
            Err(DiskError::Serial)
        );
        assert_eq!(
            disk("path=/dev/a,readonly=1"),
            Err(DiskError::Unknown("readonly=1".into()))
        );
    }

    #[test]
    fn free_luns_are_filled_around_the_chosen_ones() {
        let disks: Vec<Disk> = ["path=/dev/a", "path=/dev/b,lun=0", "path=/dev/c"]
            .iter()
            .map(|s| s.parse().unwrap())
            .collect();
        let luns: Vec<u32> = assign_luns(&disks)
            .unwrap()
            .iter()
            .map(|(lun, _)| *lun)
            .collect();
        assert_eq!(luns, [1, 0, 2]);
    }

    #[test]
    fn one_lun_for_two_disks_is_refused() {
        let disks: Vec<Disk> = vec![
            disk("path=/dev/a,lun=4").unwrap(),
            disk("path=/dev/b,lun=4").unwrap(),
        ];
        assert_eq!(assign_luns(&disks), Err(DiskError::LunTwice(4)));
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let parse =
            |extra: &[&str]| Args::try_parse_from([&["avio-vmm", "--kernel", "k"], extra].concat());
        assert!(parse(&["--cpus", "16"]).is_ok());
        assert!(parse(&["--cpus", "17"]).is_err());
        assert!(parse(&["--cpus", "0"]).is_err());
        assert!(parse(&["--memory", "63"]).is_err());
        assert!(parse(&["--queues", "64"]).is_ok());
        assert!(parse(&["--queues", "65"]).is_err());
        assert!(parse(&["--queue-size", "1024"]).is_ok());
        for bad in ["0", "1", "100", "2048"] {
            assert!(parse(&["--queue-size", bad]).is_err());
        }
    }

    #[test]
    fn queues_follow_the_processors() {
        let args = Args::try_parse_from(["avio-vmm", "--kernel", "k", "--cpus", "3"]).unwrap();
        assert_eq!(args.queue_count(), 3);
    }
}
