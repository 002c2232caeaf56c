// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Answers as text for people.

use std::fmt::Write;

use avio_control::{
    AdapterStats, AdapterStatus, Limits, LunStats, LunStatus, Place, QueueStats, Replaced, Request,
    Status,
};
use serde_json::Value;

/// The answer to a request as text; empty if there is nothing to tell.
pub fn text(request: &Request, value: Value) -> Result<String, serde_json::Error> {
    let mut text = String::new();
    match request {
        Request::Status => {
            let status: Status = serde_json::from_value(value)?;
            for adapter in &status.adapters {
                adapter_status(&mut text, adapter);
            }
        }
        Request::Stats => {
            let adapters: Vec<AdapterStats> = serde_json::from_value(value)?;
            for adapter in &adapters {
                adapter_stats(&mut text, adapter);
            }
        }
        Request::AddLun(_) => {
            let place: Place = serde_json::from_value(value)?;
            let hba = place.hba.unwrap_or_default();
            line(
                &mut text,
                format_args!("LUN {} of adapter {hba}", place.lun),
            );
        }
        Request::ReplaceLun(_) => {
            let replaced: Replaced = serde_json::from_value(value)?;
            if replaced.gated {
                let told =
                    "another disk: the guest reads and writes nothing until it opens the gate";
                line(&mut text, format_args!("{told}"));
            }
        }
        Request::Save => line(&mut text, format_args!("{value:#}")),
        _ => {}
    }
    Ok(text)
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    // A string takes everything.
    let _ = writeln!(text, "{what}");
}

fn adapter_status(text: &mut String, adapter: &AdapterStatus) {
    let quiesced = if adapter.quiesced { ", quiesced" } else { "" };
    let weight = weight(adapter.weight);
    line(
        text,
        format_args!(
            "adapter {} at {}: {}{quiesced}, driver {}, {} of {} queues, features {:#x}{weight}",
            adapter.hba,
            adapter.address,
            adapter.state,
            adapter.driver_release,
            adapter.driver_queues,
            adapter.max_queues,
            adapter.driver_features
        ),
    );
    for lun in &adapter.luns {
        lun_status(text, lun);
    }
}

fn weight(weight: Option<u32>) -> String {
    weight.map_or(String::new(), |weight| format!(", weight {weight}"))
}

fn lun_status(text: &mut String, lun: &LunStatus) {
    let used = if lun.in_use { "in use" } else { "not in use" };
    let mib = lun.sectors / 2048;
    let weight = weight(lun.weight);
    line(
        text,
        format_args!(
            "  LUN {}: {}, {mib} MiB, {used}{weight}",
            lun.lun,
            lun.path.display()
        ),
    );
    line(text, format_args!("    is {}", lun.flags.join(", ")));
    line(
        text,
        format_args!("    known as {}; serial '{}'", lun.identity, lun.serial),
    );
    if lun.limits != Limits::default() {
        let limits = &lun.limits;
        line(
            text,
            format_args!(
                "    limited to {} requests and {} bytes a second; bursts {} and {} (0: none set)",
                limits.iops, limits.bytes, limits.iops_burst, limits.bytes_burst
            ),
        );
    }
}

fn adapter_stats(text: &mut String, adapter: &AdapterStats) {
    line(text, format_args!("adapter {}", adapter.hba));
    for lun in &adapter.luns {
        lun_stats(text, lun);
    }
    for queue in &adapter.queues {
        queue_stats(text, queue);
    }
}

fn lun_stats(text: &mut String, lun: &LunStats) {
    line(
        text,
        format_args!(
            "  LUN {}: {} reads of {} bytes, {} writes of {} bytes, {} flushes, {} discards and zeroes",
            lun.lun, lun.reads, lun.read_bytes, lun.writes, lun.write_bytes, lun.flushes, lun.ranges
        ),
    );
    line(
        text,
        format_args!(
            "    {} in flight, {} held back, {} had to wait for limits",
            lun.in_flight, lun.held_back, lun.throttled
        ),
    );
    let ended: Vec<String> = lun
        .statuses
        .iter()
        .map(|(status, count)| format!("{status} {count}"))
        .collect();
    line(text, format_args!("    ended: {}", ended.join(", ")));
    for (class, count) in lun
        .latency
        .iter()
        .enumerate()
        .filter(|(_, count)| **count != 0)
    {
        let (from, to) = match class.min(64) {
            0 => (0, 2),
            class => (1u128 << class, 2u128 << class),
        };
        line(text, format_args!("    took {from} to {to} µs: {count}"));
    }
}

fn queue_stats(text: &mut String, queue: &QueueStats) {
    let broken = queue.broken.as_ref();
    let broken = broken.map_or(String::new(), |reason| format!(", BROKEN: {reason}"));
    line(
        text,
        format_args!(
            "  queue {}: {} requests, {} in flight, {} errors, {} doorbells, {} interrupts and {} saved{broken}",
            queue.queue,
            queue.requests,
            queue.in_flight,
            queue.errors,
            queue.doorbells,
            queue.interrupts,
            queue.interrupts_suppressed
        ),
    );
    line(
        text,
        format_args!(
            "    polled {} times, {} of them with success; positions {} and {}",
            queue.polls, queue.polls_found, queue.submission, queue.completion
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn status_names_what_matters() {
        let value = json!({"version": "1", "adapters": [{
            "hba": "fast", "address": "00:01.0", "state": "running", "quiesced": true, "driver-version": 1,
            "driver-release": "1.2.3", "driver-features": 63, "driver-queues": 2, "max-queues": 4, "generation": 5, "weight": 300, "luns": [{
                "lun": 3, "path": "/dev/sdb", "identity": "wwn naa.1", "serial": "S", "flags": ["present", "gated"],
                "sectors": 4096, "logical-block": 512, "in-use": true, "shared": false,
                "limits": {"iops": 7}, "weight": 40}]}]});
        let text = text(&Request::Status, value).unwrap();
        for word in [
            "fast",
            "running, quiesced, driver 1.2.3",
            "weight 300",
            "LUN 3: /dev/sdb, 2 MiB, in use, weight 40",
            "gated",
            "wwn naa.1",
            "7 requests",
        ] {
            assert!(text.contains(word), "{word} is missing in {text}");
        }
    }

    #[test]
    fn latency_is_told_by_the_bounds_of_its_classes() {
        let value = json!([{"hba": "h", "queues": [], "luns": [{
            "lun": 0, "in-flight": 0, "held-back": 0, "reads": 1, "read-bytes": 512, "writes": 0, "write-bytes": 0,
            "flushes": 0, "ranges": 0, "throttled": 0, "statuses": {"ok": 1}, "latency": [3, 0, 4]}]}]);
        let text = text(&Request::Stats, value).unwrap();
        for words in ["took 0 to 2 µs: 3", "took 4 to 8 µs: 4"] {
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn what_has_no_answer_prints_nothing() {
        assert_eq!(text(&Request::Quit, Value::Null).unwrap(), "");
    }

    #[test]
    fn what_is_saved_is_printed_as_it_is() {
        let value = json!({"version": "1", "adapters": []});
        let text = text(&Request::Save, value.clone()).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
