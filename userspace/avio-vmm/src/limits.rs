// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Limits of the process: raised as far as they may be, and checked where it is known what is needed.

use nix::sys::resource::{getrlimit, setrlimit, Resource};

use crate::plan::Adapter;

/// Descriptors beside those of adapters: standard streams, KVM, processors, sockets, guest memory, clients and commands that
/// wait, disks that are being opened, room for more of them.
const OTHERS: u64 = 256;

/// Raises the limits for these adapters.
///
/// Guest memory is pinned and counts against RLIMIT_MEMLOCK; if that is not enough, the module says so.
pub fn raise(plan: &[Adapter], cgroups: bool) -> Result<(), String> {
    raise_to_hard(Resource::RLIMIT_MEMLOCK);
    let allowed = raise_to_hard(Resource::RLIMIT_NOFILE);
    check_files(needed_files(plan, cgroups), allowed)
}

/// Raises a soft limit to the hard one; what holds then.
fn raise_to_hard(resource: Resource) -> u64 {
    let Ok((_, hard)) = getrlimit(resource) else {
        return u64::MAX;
    };
    let _ = setrlimit(resource, hard, hard);
    getrlimit(resource).map_or(u64::MAX, |(soft, _)| soft)
}

/// For each adapter the module's descriptor and the configuration interrupt, for each queue doorbell and interrupt, for
/// each disk its device, and its cgroup if it has one.
fn needed_files(plan: &[Adapter], cgroups: bool) -> u64 {
    let disk = if cgroups { 2 } else { 1 };
    let of =
        |adapter: &Adapter| 2 + 2 * u64::from(adapter.queues) + disk * adapter.disks.len() as u64;
    plan.iter().map(of).sum::<u64>() + OTHERS
}

fn check_files(needed: u64, allowed: u64) -> Result<(), String> {
    if needed <= allowed {
        return Ok(());
    }
    Err(format!(
        "this many disks and queues need {needed} open files and {allowed} are allowed; raise the limit (ulimit -n \
         {needed}, or LimitNOFILE= of the service)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use avio_control::Disk;

    #[test]
    fn too_low_a_limit_is_told_with_the_right_one() {
        let disks = (0..200).map(|lun| (lun, Disk::default())).collect();
        let adapter = Adapter {
            id: "a".into(),
            queues: 4,
            weight: None,
            without: 0,
            disks,
        };
        let adapters = [adapter];
        let needed = needed_files(&adapters, false);
        assert_eq!(needed, 466);
        assert_eq!(needed_files(&adapters, true), 666);
        assert!(check_files(needed, 466).is_ok());
        assert!(check_files(needed, 465)
            .unwrap_err()
            .contains("ulimit -n 466"));
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let allowed = raise_to_hard(Resource::RLIMIT_NOFILE);
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!((soft, allowed), (hard, hard));
    }
}
