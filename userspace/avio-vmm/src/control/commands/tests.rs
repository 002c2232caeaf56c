// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Lines and their answers, without a machine.

use super::*;
use crate::devices::Devices;
use crate::exit::Exit;
use crate::inventory::Shared;
use crate::openers::Ways;
use crate::pci::Root;
use crate::plan;
use crate::seccomp::Filter;
use crate::serial::Serial;
use crate::signal::Signal;
use crate::state::State;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// A guest with two adapters that have nothing.
pub fn guest() -> Guest {
    let adapter = |id: &str| plan::Adapter {
        id: id.into(),
        queues: 1,
        weight: None,
        without: 0,
        disks: BTreeMap::new(),
    };
    let plan = vec![adapter("a"), adapter("b")];
    let inventory = Inventory::open(plan, State::volatile(), None).unwrap();
    let signal = || Signal::new().unwrap();
    let exit = Exit::new().unwrap();
    let serial = Arc::new(Mutex::new(Serial::new(signal(), signal())));
    let devices = Devices::new(serial, Root::new(vec![]), exit.clone(), Box::new(|_| {}));
    Guest {
        hbas: vec![],
        inventory: Shared::new(inventory),
        devices: Arc::new(devices),
        exit,
        notice: signal(),
    }
}

/// The answer to a line that waits for nothing.
pub fn now(guest: &Guest, openers: &Openers, line: &str) -> String {
    match answer(guest, openers, line) {
        Reply::Now(text) => text,
        Reply::Later(_) => panic!("{line} waits for a device"),
    }
}

fn block_openers() -> Openers {
    Openers::start(&Filter::of_opener(false).unwrap(), Ways::BLOCK).unwrap()
}

#[test]
fn what_is_not_understood_is_told() {
    let (guest, openers) = (guest(), block_openers());
    let cases = [
        ("status", "not understood"),
        ("{}", "execute"),
        (
            r#"{"execute": "format"}"#,
            "unknown variant `format`, expected one of `status`",
        ),
        (r#"{"execute": "add-lun"}"#, "arguments"),
        (
            r#"{"execute": "add-lun", "arguments": {"disk": {"path": "/dev/x"}, "lnu": 1}}"#,
            "unknown field `lnu`",
        ),
        (
            r#"{"execute": "add-lun", "arguments": {"disk": {"path": ""}}}"#,
            "path",
        ),
        (
            r#"{"execute": "add-lun", "arguments": {"disk": {"path": "/dev/x"}}}"#,
            "one of a, b",
        ),
        (
            r#"{"execute": "add-lun", "arguments": {"hba": "c", "disk": {"path": "/dev/x"}}}"#,
            "there are a, b",
        ),
        (
            r#"{"execute": "add-lun", "arguments": {"hba": "a", "lun": 256, "disk": {"path": "/dev/x"}}}"#,
            "0 to 255",
        ),
        (
            r#"{"execute": "add-lun", "arguments": {"hba": "a", "disk": {"path": "/dev/null"}}}"#,
            "not a block device",
        ),
        (
            r#"{"execute": "remove-lun", "arguments": {"hba": "a", "lun": 3}}"#,
            "adapter a has no LUN 3",
        ),
        (
            r#"{"execute": "set-limits", "arguments": {"hba": "a", "lun": 3, "limits": {"iops-burst": 3}}}"#,
            "rate",
        ),
        (
            r#"{"execute": "set-weight", "arguments": {"hba": "a", "weight": 0}}"#,
            "1 to 10000",
        ),
        (
            r#"{"execute": "set-weight", "arguments": {"hba": "a", "weight": 7}}"#,
            "--cgroup",
        ),
        (
            r#"{"execute": "set-weight", "arguments": {"hba": "a", "lun": 3, "weight": 7}}"#,
            "adapter a has no LUN 3",
        ),
        (
            r#"{"execute": "set-poll", "arguments": {"hba": "a", "window-ns": 10000001}}"#,
            "at most 10000000",
        ),
    ];
    for (line, words) in cases {
        match serde_json::from_str(&now(&guest, &openers, line)).unwrap() {
            Answer::Error(text) => assert!(text.contains(words), "{line}: {text}"),
            Answer::Return(_) => panic!("{line} was carried out"),
        }
    }
    assert_eq!(guest.exit.outcome(), None);
}

#[test]
fn quit_ends_the_run() {
    let guest = guest();
    assert_eq!(
        now(&guest, &block_openers(), r#"{"execute": "quit"}"#),
        r#"{"return":null}"#
    );
    assert_eq!(guest.exit.outcome(), Some(Outcome::Quit));
}
