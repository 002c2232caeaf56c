// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Carrying out the control socket's commands. A command that is refused changes nothing.

use avio_abi::{ioctl, MAX_LUNS};
use avio_control::{
    AddLun, Answer, Place, Quiesced, RemoveLun, ReplaceLun, Replaced, Request, SetLimits, SetPoll,
    SetWeight,
};
use serde::Serialize;
use serde_json::Value;

use super::{report, watch, Guest};
use crate::args::{check_disk, check_limits, WEIGHTS};
use crate::exit::Outcome;
use crate::inventory::Inventory;
use crate::plan::free;

/// The answer to a line.
pub fn answer(guest: &Guest, line: &str) -> String {
    let result = serde_json::from_str(line)
        .map_err(|error| format!("not understood: {error}"))
        .and_then(|request| execute(guest, request));
    match result {
        Ok(value) => text(&Answer::Return(value)),
        Err(error) => text(&Answer::Error(error)),
    }
}

/// The answer that something is wrong.
pub fn error(what: &str) -> String {
    text(&Answer::Error(what.into()))
}

fn text(answer: &Answer) -> String {
    serde_json::to_string(answer).unwrap_or_default()
}

/// What a command gives; else why it was refused.
type Outcomes = Result<Value, String>;

fn execute(guest: &Guest, request: Request) -> Outcomes {
    tracing::debug!(?request, "command");
    match request {
        Request::Status => value(&report::status(guest)),
        Request::Stats => value(&report::stats(guest)?),
        Request::AddLun(arguments) => add(guest, arguments),
        Request::RemoveLun(arguments) => remove(guest, &arguments),
        Request::ReplaceLun(arguments) => replace(guest, arguments),
        Request::RescanLun(place) => rescan(guest, &place),
        Request::SetLimits(arguments) => set_limits(guest, &arguments),
        Request::SetWeight(arguments) => set_weight(guest, &arguments),
        Request::SetPoll(arguments) => set_poll(guest, &arguments),
        Request::Quiesce => quiesce(guest),
        Request::Save => value(&report::save(guest)?),
        Request::Resume => resume(guest),
        Request::PowerButton => {
            guest.devices.press_power_button();
            Ok(Value::Null)
        }
        Request::Quit => {
            guest.exit.end(Outcome::Quit);
            Ok(Value::Null)
        }
    }
}

fn value(answer: &impl Serialize) -> Outcomes {
    serde_json::to_value(answer).map_err(|error| error.to_string())
}

fn chain(error: impl std::error::Error) -> String {
    crate::error_chain(&error)
}

fn add(guest: &Guest, arguments: AddLun) -> Outcomes {
    check_disk(&arguments.disk).map_err(chain)?;
    let mut inventory = guest.inventory.lock();
    let index = adapter(&inventory, arguments.hba.as_deref())?;
    let luns = &inventory.adapters[index].luns;
    let number = match arguments.lun {
        Some(number) if number >= MAX_LUNS => {
            return Err(format!(
                "LUN {number} is out of range; use 0 to {}",
                MAX_LUNS - 1
            ));
        }
        Some(number) if luns.contains_key(&number) => {
            return Err(format!(
                "LUN {number} is taken; remove it first, or replace it"
            ));
        }
        Some(number) => number,
        None => {
            // Rather one that the guest has no old requests for.
            let clings = |n| guest.hbas.get(index).is_some_and(|hba| hba.clings_to(n));
            let best = free(luns).find(|n| !clings(*n));
            best.or_else(|| free(luns).next())
                .ok_or("all LUNs are taken")?
        }
    };
    let lun = inventory
        .open_disk((index, number), arguments.disk)
        .map_err(chain)?;
    let hba = &guest.hbas[index];
    let foreign = inventory.is_foreign(index, number, &lun);
    // Remembered first: of a disk that is not, the guest would not be told that it was exchanged.
    let met = inventory.meet(index, number, &lun);
    let remembered = inventory.state.write().map_err(chain);
    let result = remembered.and_then(|()| {
        if hba.is_let_go(number) {
            hba.attach(number, &lun, foreign).map_err(chain)
        } else {
            Err(format!(
                "the guest has not let go of the disk that was LUN {number}; use another LUN, or wait until it has"
            ))
        }
    });
    if let Err(error) = result {
        if met {
            forget(&mut inventory, (index, number));
        }
        inventory.settle_cgroup((index, number));
        return Err(error);
    }
    inventory.adapters[index].luns.insert(number, lun);
    value(&Place {
        hba: Some(inventory.adapters[index].id.clone()),
        lun: number,
    })
}

fn remove(guest: &Guest, arguments: &RemoveLun) -> Outcomes {
    let mut inventory = guest.inventory.lock();
    let index = place(&inventory, arguments.hba.as_deref(), arguments.lun)?;
    let hba = &guest.hbas[index];
    hba.detach(arguments.lun, arguments.force).map_err(chain)?;
    inventory.adapters[index].luns.remove(&arguments.lun);
    inventory.settle_cgroup((index, arguments.lun));
    forget(&mut inventory, (index, arguments.lun));
    Ok(Value::Null)
}

fn replace(guest: &Guest, arguments: ReplaceLun) -> Outcomes {
    check_disk(&arguments.disk).map_err(chain)?;
    let mut inventory = guest.inventory.lock();
    let number = arguments.lun;
    let index = place(&inventory, arguments.hba.as_deref(), number)?;
    let new = inventory
        .open_disk((index, number), arguments.disk)
        .map_err(chain)?;
    let gated = inventory.is_another((index, number), &new);
    // Before it is there, so that no restart finds it unnoticed.
    let facts = &new.backing.facts;
    let doubted = match gated {
        true => inventory.doubt((index, number), facts).map_err(chain),
        false => Ok(false),
    };
    let old = inventory.adapters[index].luns.get(&number);
    let replaced = doubted.clone().and_then(|_| {
        let hba = &guest.hbas[index];
        let result = hba.replace(number, old, &new, gated, arguments.force);
        result.map_err(chain)
    });
    if let Err(error) = replaced {
        if doubted == Ok(true) {
            watch::know(&mut inventory, (index, number), &facts.identity.text);
        }
        inventory.settle_cgroup((index, number));
        return Err(error);
    }
    inventory.adapters[index].luns.insert(number, new);
    value(&Replaced { gated })
}

fn rescan(guest: &Guest, wanted: &Place) -> Outcomes {
    let mut inventory = guest.inventory.lock();
    let index = place(&inventory, wanted.hba.as_deref(), wanted.lun)?;
    watch::look_at(guest, &mut inventory, (index, wanted.lun)).map_err(chain)?;
    Ok(Value::Null)
}

fn set_limits(guest: &Guest, arguments: &SetLimits) -> Outcomes {
    check_limits(&arguments.limits).map_err(chain)?;
    let mut inventory = guest.inventory.lock();
    let index = place(&inventory, arguments.hba.as_deref(), arguments.lun)?;
    let stor = &guest.hbas[index].stor;
    stor.set_limits(arguments.lun, &arguments.limits)
        .map_err(chain)?;
    if let Some(lun) = inventory.adapters[index].luns.get_mut(&arguments.lun) {
        lun.disk.limits = arguments.limits;
    }
    Ok(Value::Null)
}

fn set_weight(guest: &Guest, arguments: &SetWeight) -> Outcomes {
    let (hba, weight) = (arguments.hba.as_deref(), arguments.weight);
    if !WEIGHTS.contains(&weight) {
        let (least, most) = WEIGHTS.into_inner();
        return Err(format!(
            "weight {weight} is out of range; use {least} to {most}"
        ));
    }
    let mut inventory = guest.inventory.lock();
    let index = match arguments.lun {
        None => adapter(&inventory, hba)?,
        Some(lun) => place(&inventory, hba, lun)?,
    };
    inventory
        .weigh(index, arguments.lun, weight)
        .map_err(chain)?;
    Ok(Value::Null)
}

fn set_poll(guest: &Guest, arguments: &SetPoll) -> Outcomes {
    let window = arguments.window_ns;
    if window > ioctl::MAX_POLL_NS {
        return Err(format!(
            "{window} ns are too long; at most {}",
            ioctl::MAX_POLL_NS
        ));
    }
    let mut inventory = guest.inventory.lock();
    let index = adapter(&inventory, arguments.hba.as_deref())?;
    guest.hbas[index].stor.set_poll(window).map_err(chain)?;
    inventory.adapters[index].poll_ns = Some(window);
    Ok(Value::Null)
}

fn quiesce(guest: &Guest) -> Outcomes {
    let mut complete = true;
    for hba in &guest.hbas {
        complete &= hba.quiesce().map_err(chain)?;
    }
    value(&Quiesced { complete })
}

fn resume(guest: &Guest) -> Outcomes {
    for hba in guest.hbas.iter().filter(|hba| hba.is_quiesced()) {
        hba.resume().map_err(chain)?;
    }
    Ok(Value::Null)
}

/// Index of the adapter that is meant.
fn adapter(inventory: &Inventory, id: Option<&str>) -> Result<usize, String> {
    let adapters = &inventory.adapters;
    let ids: Vec<&str> = adapters.iter().map(|adapter| adapter.id.as_str()).collect();
    match id {
        None if adapters.len() == 1 => Ok(0),
        None => Err(format!("which adapter? Say hba, one of {}", ids.join(", "))),
        Some(id) => {
            let found = ids.iter().position(|known| *known == id);
            found.ok_or_else(|| format!("there is no adapter {id}; there are {}", ids.join(", ")))
        }
    }
}

/// Index of the adapter that has this LUN.
fn place(inventory: &Inventory, id: Option<&str>, lun: u32) -> Result<usize, String> {
    let index = adapter(inventory, id)?;
    let adapter = &inventory.adapters[index];
    if adapter.luns.contains_key(&lun) {
        return Ok(index);
    }
    Err(format!("adapter {} has no LUN {lun}", adapter.id))
}

/// The guest knows of no such LUN any more. What the file cannot be told only closes the gate of the next disk there.
fn forget(inventory: &mut Inventory, (index, lun): (usize, u32)) {
    let id = inventory.adapters[index].id.clone();
    inventory.state.forget(&id, lun);
    if let Err(error) = inventory.state.write() {
        tracing::warn!("{}", chain(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::Devices;
    use crate::exit::Exit;
    use crate::inventory::Shared;
    use crate::pci::Root;
    use crate::plan;
    use crate::serial::Serial;
    use crate::signal::Signal;
    use crate::state::State;
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    /// A guest with two adapters that have nothing.
    fn guest() -> Guest {
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

    #[test]
    fn what_is_not_understood_is_told() {
        let guest = guest();
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
            let answer: Answer = serde_json::from_str(&answer(&guest, line)).unwrap();
            match answer {
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
            answer(&guest, r#"{"execute": "quit"}"#),
            r#"{"return":null}"#
        );
        assert_eq!(guest.exit.outcome(), Some(Outcome::Quit));
    }
}
