// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! `gvsdmgr`: what the administrator of a guest has to say to its AVIO storage adapters, and to ask them.
//!
//! - [`args`]: the command line.
//! - [`adapter`]: the calls to an adapter's node, and how a LUN is found.
//! - [`report`]: what is printed, for people and for programs.

mod adapter;
mod args;
mod report;

use std::io::Write;
use std::process::ExitCode;

use avio_abi::gvsd::ALL;
use avio_abi::pci::task;
use serde::Serialize;

use crate::adapter::{Adapter, Error};
use crate::args::{Args, Command, Task};
use crate::report::{AdapterReport, Done, LunReport, StatReport};

fn main() -> ExitCode {
    let args: Args = manpage::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gvsdmgr: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Error> {
    if let Some(option) = args.misplaced() {
        return Err(Error::Misplaced(option));
    }
    let adapter = Adapter::open(&args.device)?;
    let luns = args.qualifier.as_ref();
    match args.command {
        Command::GetInfo => match luns {
            None => show(args, &AdapterReport::new(&args.device, &adapter.info()?)),
            Some(wanted) => {
                let luns = adapter.chosen(wanted)?;
                let reports: Vec<_> = luns.iter().map(LunReport::new).collect();
                show_all(args, &reports)
            }
        },
        Command::GetStat => match luns {
            None => show(args, &StatReport::new(&adapter.stat(ALL)?, None)),
            Some(wanted) => {
                let mut reports = Vec::new();
                for lun in adapter.chosen(wanted)? {
                    reports.push(StatReport::new(&adapter.stat(lun.lun)?, Some(&lun)));
                }
                show_all(args, &reports)
            }
        },
        Command::ClearStat => {
            match luns {
                None => adapter.clear_stat(ALL)?,
                Some(wanted) => {
                    for lun in adapter.chosen(wanted)? {
                        adapter.clear_stat(lun.lun)?;
                    }
                }
            }
            show(args, &Done::new("statistics cleared", 0))
        }
        Command::ReplaceDsk => replace_dsk(args, &adapter),
        Command::TaskMgmt => task_mgmt(args, &adapter),
    }
}

/// Accepts what is behind a LUN now in place of what was.
fn replace_dsk(args: &Args, adapter: &Adapter) -> Result<(), Error> {
    let lun = adapter.one(args.qualifier.as_ref())?;
    let report = LunReport::new(&lun);
    if !report.is_replaced() {
        return Err(Error::NotReplaced(report.name()));
    }
    confirm(
        args,
        &format!(
            "{} now holds another disk, with serial number \"{}\". What was on the old one is not on it. Use it",
            report.name(),
            report.serial()
        ),
    )?;
    adapter.open_gate(&lun)?;
    show(args, &Done::new("the new disk is in use", 0))
}

fn task_mgmt(args: &Args, adapter: &Adapter) -> Result<(), Error> {
    let Some(kind) = args.task else {
        return Err(Error::NoTask);
    };
    let wanted = args.qualifier.as_ref().ok_or(Error::NoQualifier)?;
    let left = match (kind, args.request) {
        (Task::Abort, Some((queue, tag))) => {
            let lun = adapter.one(Some(wanted))?;
            confirm(
                args,
                &format!(
                    "Request {tag} of queue {queue} will be marked as aborted, and end as ever if its disk carries it out \
                     after all. Go on"
                ),
            )?;
            adapter.task(task::ABORT, lun.lun, queue, tag)?
        }
        (Task::Abort, None) => return Err(Error::NoRequest),
        (_, Some(_)) => return Err(Error::RequestOfReset),
        (Task::Reset, None) => {
            let luns = adapter.chosen(wanted)?;
            confirm(
                args,
                &format!(
                    "All I/O in flight of {wanted} will be marked as aborted, and end as ever if its disk carries it out \
                     after all. Go on"
                ),
            )?;
            let mut left: u32 = 0;
            for lun in luns {
                left = left.saturating_add(adapter.task(task::LUN_RESET, lun.lun, 0, 0)?);
            }
            left
        }
    };
    show(args, &Done::new("done", left))
}

/// Asks whether to go on, unless `-f` says so.
fn confirm(args: &Args, question: &str) -> Result<(), Error> {
    if args.force {
        return Ok(());
    }
    eprint!("{question}? (y/n) [n] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(Error::Answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Error::Declined),
    }
}

fn show<T: Serialize + std::fmt::Display>(args: &Args, report: &T) -> Result<(), Error> {
    let text = if args.json {
        serde_json::to_string_pretty(report)? + "\n"
    } else {
        report.to_string()
    };
    print(&text)
}

fn show_all<T: Serialize + std::fmt::Display>(args: &Args, reports: &[T]) -> Result<(), Error> {
    let text = if args.json {
        serde_json::to_string_pretty(reports)? + "\n"
    } else {
        let texts: Vec<_> = reports.iter().map(ToString::to_string).collect();
        texts.join("\n")
    };
    print(&text)
}

fn print(text: &str) -> Result<(), Error> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(Error::Output)
}
