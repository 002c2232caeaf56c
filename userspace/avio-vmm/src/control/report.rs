// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What `status`, `stats` and `save` tell.

use std::collections::BTreeMap;

use avio_abi::ioctl;
use avio_abi::pci::{reg, state};
use avio_abi::release::Release;
use avio_abi::ring::Broken;
use avio_abi::stor::{lun_flags, Status as Ended};
use avio_control::{
    AdapterStats, AdapterStatus, LunStats, LunStatus, QueueStats, Saved, SavedAdapter, SavedQueue,
    Status, DEFAULT_WEIGHT,
};

use super::Guest;
use crate::hba::Hba;
use crate::inventory::{Adapter, Lun};

const FLAGS: [(u32, &str); 8] = [
    (lun_flags::PRESENT, "present"),
    (lun_flags::READ_ONLY, "read-only"),
    (lun_flags::WRITE_CACHE, "write-cache"),
    (lun_flags::FUA, "fua"),
    (lun_flags::NON_ROTATIONAL, "non-rotational"),
    (lun_flags::GATED, "gated"),
    (lun_flags::LOST, "lost"),
    (lun_flags::STABLE_WRITES, "stable-writes"),
];

/// State of everything.
pub fn status(guest: &Guest) -> Status {
    let inventory = guest.inventory.lock();
    let both = inventory.adapters.iter().zip(&guest.hbas);
    Status {
        version: env!("CARGO_PKG_VERSION").into(),
        adapters: both
            .map(|(adapter, hba)| adapter_status(adapter, hba, inventory.cgroups.is_some()))
            .collect(),
    }
}

fn adapter_status(adapter: &Adapter, hba: &Hba, weighed: bool) -> AdapterStatus {
    let weight = |given: Option<u32>| weighed.then(|| given.unwrap_or(DEFAULT_WEIGHT));
    let registers = hba.registers();
    let (driver_version, driver_features, driver_queues) = registers.driver();
    let lun = |(number, lun): (&u32, &Lun)| {
        let info = registers.lun(*number);
        LunStatus {
            lun: *number,
            path: lun.disk.path.clone(),
            identity: lun.backing.facts.identity.text.clone(),
            serial: lun.serial().into(),
            flags: flags(info.flags, lun.lost),
            sectors: info.sectors,
            logical_block: info.logical_block,
            in_use: registers.in_use(*number),
            shared: lun.disk.shared,
            limits: lun.disk.limits,
            weight: weight(lun.disk.weight),
        }
    };
    AdapterStatus {
        hba: adapter.id.clone(),
        address: format!("00:{:02x}.0", hba.slot),
        state: state_name(registers.state()).into(),
        quiesced: hba.is_quiesced(),
        driver_release: Release(registers.read(reg::DRIVER_RELEASE)).to_string(),
        driver_version,
        driver_features,
        driver_queues,
        max_queues: hba.max_queues,
        generation: registers.read(reg::GENERATION),
        weight: weight(adapter.weight),
        luns: adapter.luns.iter().map(lun).collect(),
    }
}

fn flags(flags: u32, lost: bool) -> Vec<String> {
    let flags = if lost { flags | lun_flags::LOST } else { flags };
    let set = FLAGS.iter().filter(|(flag, _)| flags & flag != 0);
    set.map(|(_, name)| name.to_string()).collect()
}

fn state_name(number: u32) -> &'static str {
    match number {
        state::STOPPED => "stopped",
        state::RUNNING => "running",
        state::STOPPING => "stopping",
        _ => "failed",
    }
}

/// Counters of everything.
pub fn stats(guest: &Guest) -> Result<Vec<AdapterStats>, String> {
    let inventory = guest.inventory.lock();
    let of = |(adapter, hba): (&Adapter, &std::sync::Arc<Hba>)| {
        let luns = adapter.luns.keys().filter(|lun| hba.has(**lun));
        let luns = luns.map(|lun| hba.stor.lun(*lun).map(|status| lun_stats(&status)));
        let (running, (_, _, count)) = {
            let registers = hba.registers();
            (registers.state() == state::RUNNING, registers.driver())
        };
        let queues = 0..if running { count } else { 0 };
        let queues = queues.map(|queue| hba.stor.queue(queue).map(|status| queue_stats(&status)));
        Ok(AdapterStats {
            hba: adapter.id.clone(),
            luns: luns.collect::<Result<_, _>>()?,
            queues: queues.collect::<Result<_, _>>()?,
        })
    };
    let both = inventory.adapters.iter().zip(&guest.hbas);
    let all: Result<_, crate::backend::Error> = both.map(of).collect();
    all.map_err(|error| crate::error_chain(&error))
}

/// How everything stands that is quiesced.
pub fn save(guest: &Guest) -> Result<Saved, String> {
    let inventory = guest.inventory.lock();
    let both = inventory.adapters.iter().zip(&guest.hbas);
    let weighed = inventory.cgroups.is_some();
    let adapters: Result<_, String> = both
        .map(|(adapter, hba)| save_adapter(adapter, hba, weighed))
        .collect();
    Ok(Saved {
        version: env!("CARGO_PKG_VERSION").into(),
        adapters: adapters?,
    })
}

fn save_adapter(adapter: &Adapter, hba: &Hba, weighed: bool) -> Result<SavedAdapter, String> {
    let status = adapter_status(adapter, hba, weighed);
    if !status.quiesced {
        return Err(format!(
            "adapter {} is not quiesced; say quiesce first",
            adapter.id
        ));
    }
    if status.state == state_name(state::STOPPING) {
        return Err(format!(
            "adapter {} is stopping, and a backing has requests still; try again when it is stopped",
            adapter.id
        ));
    }
    let queues = hba.registers().queues();
    let queues = (0..).zip(&queues).map(|(index, queue)| {
        let status = hba.stor.queue(index);
        let status = status.map_err(|error| crate::error_chain(&error))?;
        let stats = queue_stats(&status);
        if stats.in_flight != 0 {
            return Err(format!(
                "queue {index} of adapter {} has {} requests in flight; say quiesce again until it is complete",
                adapter.id, stats.in_flight
            ));
        }
        Ok(SavedQueue {
            queue: index,
            size: queue.size,
            submissions: queue.submissions,
            completions: queue.completions,
            control: queue.control,
            submission: stats.submission,
            completion: stats.completion,
            broken: stats.broken,
        })
    });
    let queues = queues.collect::<Result<_, String>>()?;
    Ok(SavedAdapter { status, queues })
}

fn lun_stats(status: &ioctl::LunStatus) -> LunStats {
    LunStats {
        lun: status.lun,
        in_flight: status.in_flight,
        held_back: status.held_back,
        reads: status.reads,
        read_bytes: status.read_bytes,
        writes: status.writes,
        write_bytes: status.write_bytes,
        flushes: status.flushes,
        ranges: status.ranges,
        throttled: status.throttled,
        statuses: statuses(&status.statuses),
        latency: classes(&status.latency),
    }
}

fn statuses(counts: &[u64]) -> BTreeMap<String, u64> {
    let named = Ended::ALL
        .iter()
        .zip(counts)
        .filter(|(_, count)| **count != 0);
    named
        .map(|(status, count)| (status.name().to_string(), *count))
        .collect()
}

fn classes(counts: &[u64]) -> Vec<u64> {
    let used = counts
        .iter()
        .rposition(|count| *count != 0)
        .map_or(0, |last| last + 1);
    counts.iter().take(used).copied().collect()
}

fn queue_stats(status: &ioctl::QueueStatus) -> QueueStats {
    let broken = |reason| {
        Broken::from_u32(reason)
            .map_or("unknown", Broken::name)
            .to_string()
    };
    QueueStats {
        queue: status.index,
        broken: (status.broken != 0).then(|| broken(status.broken)),
        in_flight: status.in_flight,
        requests: status.requests,
        read_bytes: status.read_bytes,
        write_bytes: status.write_bytes,
        doorbells: status.doorbells,
        interrupts: status.interrupts,
        interrupts_suppressed: status.interrupts_suppressed,
        errors: status.errors,
        submission: status.submission,
        completion: status.completion,
        polls: status.polls,
        polls_found: status.polls_found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_states_have_names() {
        assert_eq!(
            flags(lun_flags::PRESENT | lun_flags::GATED, false),
            ["present", "gated"]
        );
        assert_eq!(flags(0, true), ["lost"]);
        assert_eq!(state_name(state::STOPPING), "stopping");
    }

    #[test]
    fn counters_that_never_moved_are_left_out() {
        let mut status = ioctl::LunStatus::default();
        status.statuses[0] = 5;
        status.statuses[12] = 1;
        status.latency[3] = 7;
        let stats = lun_stats(&status);
        let wanted = [("aborted".to_string(), 1), ("ok".to_string(), 5)];
        assert_eq!(stats.statuses, BTreeMap::from(wanted));
        assert_eq!(stats.latency, [0, 0, 0, 7]);
        let mut status = ioctl::QueueStatus::default();
        assert_eq!(queue_stats(&status).broken, None);
        status.broken = 4;
        assert_eq!(queue_stats(&status).broken, Some("tag_range".into()));
    }
}
