// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The command line. Everything that can be judged without looking at the machine is judged here.

mod disk;
mod hba;

use std::path::PathBuf;

use clap::Parser;

use std::ops::RangeInclusive;

pub use disk::{check as check_disk, check_limits, DiskSpec};
pub use hba::HbaSpec;

/// Weights that the kernel knows.
pub const WEIGHTS: RangeInclusive<u32> = 1..=10_000;

/// Boots a Linux guest on KVM, with its disks served by the avio_host kernel module.
///
/// The guest's first serial port is standard input and output. On a terminal, Ctrl-A x ends the guest.
/// Exit status 0: the guest switched itself off, reset itself (with --no-reboot), or was ended by `avio-ctl quit`.
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

    /// Add a storage adapter: id=NAME[,queues=N][,weight=N][,without=FEATURE[+FEATURE…]]; may be repeated
    ///
    /// Without any there is one, hba0, if there is a disk or a control socket. The adapters' PCI addresses follow their
    /// order here. weight=N is the adapter's weight among the others, see --cgroup. without= offers the guest fewer
    /// features than there are, as an older release would: fua, segment-list, ranges, events, tasks, coalesce,
    /// queue-reset.
    #[arg(long = "hba", value_name = "SPEC")]
    pub hbas: Vec<HbaSpec>,

    /// Attach a block device: path=/dev/X[,hba=ID][,lun=N][,…]; may be repeated
    ///
    /// hba=ID says to which adapter, if there are several; lun=N as which LUN, 0 to 255, else the lowest that is free;
    /// serial=TEXT shows another serial number than the device's own; readonly refuses writes; shared lets others who say
    /// so, too, use the device, which is else claimed for this guest alone; iops=N and bytes=N limit requests and bytes a
    /// second, iops-burst=N and bytes-burst=N say what may pass at once after a pause; weight=N is the LUN's
    /// weight among those of its adapter, see --cgroup.
    #[arg(long = "disk", value_name = "SPEC")]
    pub disks: Vec<DiskSpec>,

    /// Queue pairs of each storage adapter [default: one for each virtual processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(avio_abi::MAX_QUEUES)))]
    pub queues: Option<u32>,

    /// Most entries of a ring that the guest may ask for, a power of two
    ///
    /// The driver takes them all. They are as many as requests can be in flight on a queue; a LUN that is alone at work
    /// has half of them.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = queue_size)]
    pub queue_size: u32,

    /// The storage backend
    #[arg(long, value_name = "FILE", default_value = "/dev/avio-stor")]
    pub device: PathBuf,

    /// Listen on this Unix socket for commands; avio-ctl speaks to it
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,

    /// Remember in this file which backing the guest last knew as which LUN
    ///
    /// A LUN whose backing is another than remembered is gated: the guest reads and writes nothing until somebody in it
    /// has said that the exchange is known.
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,

    /// Make a cgroup for each adapter and each LUN inside this one, so that they can have weights
    ///
    /// DIR/ADAPTER/lunN. DIR is a cgroup v2 with the io controller, delegated to this user, without processes: the VMM
    /// itself must live in another one, for instance DIR/vmm. Weights are 1 to 10000, and 100 where none is given; they
    /// count where the device has the kernel's io.cost controller enabled.
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,

    /// End when the guest resets itself, instead of starting it again
    #[arg(long)]
    pub no_reboot: bool,

    /// Leave out the system call filters; for debugging
    #[arg(long)]
    pub no_seccomp: bool,

    /// What to log to standard error: a level, or module=level pairs, for instance avio_vmm=debug.
    /// Of each message that is not debug or trace there are 256 lines a minute at most
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    pub log: String,
}

impl Args {
    /// Queue pairs of an adapter that says nothing else.
    pub fn queue_count(&self) -> u32 {
        self.queues.unwrap_or(u32::from(self.cpus))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
