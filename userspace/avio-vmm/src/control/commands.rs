// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Carrying out the control socket's commands. A command that is refused changes nothing.

use avio_abi::{ioctl, MAX_LUNS};
use avio_control::{
    AddLun, Answer, Place, Quiesced, RemoveLun, ReplaceLun, Replaced, Request, SetLimits, SetPoll,
    SetWeight,
};
use serde::Serialize;
use serde_json::Value;

use super::tasks::Task;
use super::{report, watch, Guest};
use crate::args::{check_disk, check_limits, WEIGHTS};
use crate::backend;
use crate::backing::{Backing, Mark};
use crate::exit::Outcome;
use crate::inventory::Inventory;
use crate::openers::Openers;
use crate::plan::free;

/// What becomes of a line.
pub enum Reply {
    /// The answer.
    Now(String),
    /// A device is to be opened first.
    Later(Box<Task>),
}

/// Carries out a line, as far as that needs no wait.
pub fn answer(guest: &Guest, openers: &Openers, line: &str) -> Reply {
    let result = serde_json::from_str(line)
        .map_err(|error| format!("not understood: {error}"))
        .and_then(|request| execute(guest, openers, request));
    result.unwrap_or_else(|error| Reply::Now(text(Err(error))))
}

/// What a command gives; else why it was refused.
pub type Outcomes = Result<Value, String>;

/// Why a command was not carried out with the device that was opened for it.
pub struct Refusal {
    /// As text.
    pub text: String,
    /// Whether it may do when the page cache is written back once more.
    pub dirty: bool,
}

impl From<String> for Refusal {
    fn from(text: String) -> Self {
        Self { text, dirty: false }
    }
}

impl From<backend::Error> for Refusal {
    fn from(error: backend::Error) -> Self {
        Self {
            dirty: error.is_dirty(),
            text: chain(error),
        }
    }
}

/// An answer as a line.
pub fn text(outcome: Outcomes) -> String {
    let answer = outcome.map_or_else(Answer::Error, Answer::Return);
    serde_json::to_string(&answer).unwrap_or_default()
}

fn execute(guest: &Guest, openers: &Openers, request: Request) -> Result<Reply, String> {
    tracing::debug!(?request, "command");
    let outcome = match request {
        Request::AddLun(arguments) => return add(guest, openers, arguments),
        Request::ReplaceLun(arguments) => {
            return replace(guest, openers, arguments);
        }
        Request::Status => value(&report::status(guest)),
        Request::Stats => value(&report::stats(guest)?),
        Request::RemoveLun(arguments) => remove(guest, &arguments),
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
    };
    outcome.map(|value| Reply::Now(text(Ok(value))))
}

fn value(answer: &impl Serialize) -> Outcomes {
    serde_json::to_value(answer).map_err(|error| error.to_string())
}

/// An error and its causes.
pub fn chain(error: impl std::error::Error) -> String {
    crate::error_chain(&error)
}

fn add(guest: &Guest, openers: &Openers, arguments: AddLun) -> Result<Reply, String> {
    check_disk(&arguments.disk).map_err(chain)?;
    let inventory = guest.inventory.lock();
    let index = adapter(&inventory, arguments.hba.as_deref())?;
    free_number(guest, &inventory, index, arguments.lun)?;
    let disk = arguments.disk.clone();
    let finish = move |guest: &Guest, backing| add_open(guest, index, &arguments, backing);
    let task = Task::new(&inventory, openers, &disk, Box::new(finish));
    Ok(Reply::Later(task.map_err(chain)?.into()))
}

fn add_open(
    guest: &Guest,
    index: usize,
    arguments: &AddLun,
    backing: Backing,
) -> Result<Value, Refusal> {
    let mut inventory = guest.inventory.lock();
    let number = free_number(guest, &inventory, index, arguments.lun)?;
    let lun = inventory
        .adopt((index, number), arguments.disk.clone(), backing)
        .map_err(chain)?;
    let hba = &guest.hbas[index];
    let foreign = inventory.is_foreign(index, number, &lun);
    // Remembered first: of a disk that is not, the guest would not be told that it was exchanged.
    let met = inventory.meet(index, number, &lun);
    let remembered = inventory.state.write().map_err(chain);
    let result = remembered.map_err(Refusal::from).and_then(|()| {
        if hba.is_let_go(number) {
            Ok(hba.attach(number, &lun, foreign)?)
        } else {
            Err(Refusal::from(format!(
                "the guest has not let go of the disk that was LUN {number}; use another LUN, or wait until it has"
            )))
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
    let place = Place {
        hba: Some(inventory.adapters[index].id.clone()),
        lun: number,
    };
    Ok(value(&place)?)
}

/// The number of a new LUN: the one that is wanted, if it is free, or the lowest that is.
fn free_number(
    guest: &Guest,
    inventory: &Inventory,
    index: usize,
    wanted: Option<u32>,
) -> Result<u32, String> {
    let luns = &inventory.adapters[index].luns;
    match wanted {
        Some(number) if number >= MAX_LUNS => Err(format!(
            "LUN {number} is out of range; use 0 to {}",
            MAX_LUNS - 1
        )),
        Some(number) if luns.contains_key(&number) => Err(format!(
            "LUN {number} is taken; remove it first, or replace it"
        )),
        Some(number) => Ok(number),
        None => {
            // Rather one that the guest has no old requests for.
            let clings = |n| guest.hbas.get(index).is_some_and(|hba| hba.clings_to(n));
            let best = free(luns).find(|n| !clings(*n));
            let number = best.or_else(|| free(luns).next());
            number.ok_or_else(|| "all LUNs are taken; remove one first".into())
        }
    }
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

fn replace(guest: &Guest, openers: &Openers, arguments: ReplaceLun) -> Result<Reply, String> {
    check_disk(&arguments.disk).map_err(chain)?;
    let inventory = guest.inventory.lock();
    let index = place(&inventory, arguments.hba.as_deref(), arguments.lun)?;
    let old = inventory.mark((index, arguments.lun));
    let disk = arguments.disk.clone();
    let finish =
        move |guest: &Guest, backing| replace_by_open(guest, (index, &old), &arguments, backing);
    let task = Task::new(&inventory, openers, &disk, Box::new(finish));
    Ok(Reply::Later(task.map_err(chain)?.into()))
}

fn replace_by_open(
    guest: &Guest,
    (index, old): (usize, &Option<Mark>),
    arguments: &ReplaceLun,
    backing: Backing,
) -> Result<Value, Refusal> {
    let mut inventory = guest.inventory.lock();
    let (number, force) = (arguments.lun, arguments.force);
    let place = (index, number);
    if inventory.mark(place) != *old {
        return Err(format!(
            "LUN {number} was removed or exchanged while disk {} was opened; look at status, and try again",
            arguments.disk.path.display()
        )
        .into());
    }
    let new = inventory
        .adopt(place, arguments.disk.clone(), backing)
        .map_err(chain)?;
    let gated = inventory.is_another(place, &new);
    // Before it is there, so that no restart finds it unnoticed.
    let facts = &new.backing.facts;
    let doubted = match gated {
        true => inventory.doubt(place, facts).map_err(chain),
        false => Ok(false),
    };
    let old = inventory.adapters[index].luns.get(&number);
    let replaced = doubted.clone().map_err(Refusal::from).and_then(|_| {
        let hba = &guest.hbas[index];
        Ok(hba.replace(number, old, &new, gated, force)?)
    });
    if let Err(error) = replaced {
        if doubted == Ok(true) {
            watch::know(&mut inventory, place, &facts.identity.text);
        }
        inventory.settle_cgroup(place);
        return Err(error);
    }
    inventory.adapters[index].luns.insert(number, new);
    Ok(value(&Replaced { gated })?)
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
pub mod tests;
