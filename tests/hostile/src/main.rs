// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Plays guests against `/dev/avio-stor` without a virtual machine.
//!
//! Tests that are named by a letter and a number are attacks: the offender's queue or request fails in the way that
//! `docs/abi.md` says, the verified I/O of a second guest in another process goes on beside it, and a fresh guest works
//! afterwards. Tests that begin with `legal` are odd but legal requests, which must work. The first 12 MiB of the block
//! device are overwritten. Tests make further devices for themselves, by null_blk's configfs and by dmsetup.

mod adapter;
mod backing;
mod bystander;
mod cases;
mod counts;
mod guest;
mod kernel_log;
mod run;
mod sys;
mod vcpu;
mod victim;

use anyhow::{ensure, Result};
use clap::{Parser, Subcommand};
use run::{Env, Test};
use std::path::PathBuf;
use std::process::ExitCode;
use victim::{Step, Waiting};

#[derive(Parser)]
#[command(about = "Hostile and odd guests against /dev/avio-stor")]
struct Arguments {
    /// Block device to use; its first 12 MiB are overwritten.
    #[arg(long)]
    device: PathBuf,
    /// Run only tests whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// A file on a disk file system (not tmpfs): memory that cannot be pinned, and room for a loop device beside it.
    #[arg(long)]
    disk_file: Option<PathBuf>,
    /// Run the tests that make the kernel fail. They lower the level of the kernel's console meanwhile.
    #[arg(long)]
    faults: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// Print the names of all tests and end.
    List,
    /// Set a guest up as far as this, say so, and wait to be killed.
    Victim { step: Step },
    /// Set a guest up, say so, and make this call with a request in flight, over and over, until it is killed.
    Caller { call: Waiting },
    /// Set a guest up on the adapter that is standard input, say so, and go on reading until it is killed.
    Owner,
    /// Do verified I/O, and count the rounds in the file that is standard input, until whoever started this is dead.
    Bystander,
    /// Have a virtual processor ring the doorbell that is standard input, say so, and go on until it is killed.
    Ringer,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match play(&arguments) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            println!("RESULT fail setup 0.0 {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line asks for; how many tests failed.
fn play(arguments: &Arguments) -> Result<usize> {
    let part = arguments.only.as_deref().unwrap_or_default();
    let all = if arguments.faults {
        cases::faults()
    } else {
        cases::all()
    };
    let tests: Vec<Test> = all
        .into_iter()
        .filter(|(name, _)| name.contains(part))
        .collect();
    match &arguments.role {
        Some(Role::List) => tests.iter().for_each(|(name, _)| println!("{name}")),
        Some(Role::Victim { step }) => victim::play(&arguments.device, *step)?,
        Some(Role::Caller { call }) => victim::call(&arguments.device, *call)?,
        Some(Role::Owner) => victim::own(&arguments.device)?,
        Some(Role::Bystander) => bystander::play(&arguments.device)?,
        Some(Role::Ringer) => victim::ring()?,
        None => {
            ensure!(
                !tests.is_empty(),
                "no test has such a name; `list` shows them"
            );
            let env = Env::open(&arguments.device, arguments.disk_file.as_deref())?;
            return run::all(env, tests);
        }
    }
    Ok(0)
}
