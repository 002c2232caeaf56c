// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Plays guests against `/dev/avio-stor` without a virtual machine.
//!
//! Tests that are named by a letter and a number are attacks: the offender's queue or request fails in the way that
//! `docs/abi.md` says, a second guest's verified I/O goes on beside it, and a fresh guest works afterwards. Tests that
//! begin with `legal` are odd but legal requests, which must work. The first 8 MiB of the block device and the 4 MiB
//! behind them are overwritten.

mod adapter;
mod bystander;
mod callers;
mod guest;
mod legal;
mod memory;
mod requests;
mod rings;
mod sys;

use anyhow::{ensure, Context, Result};
use bystander::Bystander;
use clap::Parser;
use guest::Guest;
use std::fs::{File, OpenOptions};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{mpsc, Arc};
use std::time::{Duration, Instant};

/// A test that has not ended by then hangs.
const TEST_LIMIT: Duration = Duration::from_secs(180);

#[derive(Parser)]
#[command(about = "Hostile and odd guests against /dev/avio-stor")]
struct Arguments {
    /// Block device to use; its first 12 MiB are overwritten.
    #[arg(long)]
    device: PathBuf,
    /// Run only tests whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// A file on a disk file system (not tmpfs), for the test of memory that cannot be pinned.
    #[arg(long)]
    disk_file: Option<PathBuf>,
    /// Print the names of all tests and end.
    #[arg(long)]
    list: bool,
}

/// What all tests share.
pub struct Env {
    /// The block device, for reading and writing.
    pub device: File,
    pub device_path: PathBuf,
    pub disk_file: Option<PathBuf>,
}

/// How a test ended well.
pub enum Outcome {
    /// What was seen.
    Pass(String),
    /// Why it could not be tried.
    Skip(String),
}

/// A pass with nothing to add.
pub fn pass() -> Result<Outcome> {
    Ok(Outcome::Pass(String::new()))
}

/// A test and its name.
pub type Test = (&'static str, fn(&Env) -> Result<Outcome>);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let all = [
        rings::TESTS,
        memory::TESTS,
        requests::TESTS,
        callers::TESTS,
        legal::TESTS,
    ]
    .concat();
    if arguments.list {
        all.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    let wanted = |name: &str| {
        arguments
            .only
            .as_ref()
            .is_none_or(|part| name.contains(part.as_str()))
    };
    match run(
        &arguments,
        all.into_iter().filter(|(name, _)| wanted(name)).collect(),
    ) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            println!("RESULT fail setup 0.0 {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs tests; how many failed.
fn run(arguments: &Arguments, tests: Vec<Test>) -> Result<usize> {
    ensure!(
        !tests.is_empty(),
        "no test has such a name; --list shows them"
    );
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&arguments.device);
    let env = Arc::new(Env {
        device: device.with_context(|| arguments.device.display().to_string())?,
        device_path: arguments.device.clone(),
        disk_file: arguments.disk_file.clone(),
    });
    let disk = Guest::simple(&env)?.lun;
    let (has, needs) = (disk.sectors, bystander::DISK_SECTORS);
    ensure!(
        has >= needs,
        "the device has {has} sectors; the tests need {needs}"
    );

    let mut bystander = Bystander::start(&env);
    bystander.is_unharmed()?;
    let mut failed = 0;
    for (name, test) in tests {
        let began = Instant::now();
        let result = one(&env, test).and_then(|outcome| {
            bystander.is_unharmed()?;
            Guest::simple(&env)
                .and_then(|mut fresh| fresh.works(0, 99))
                .context("a fresh guest does not work")?;
            Ok(outcome)
        });
        let seconds = began.elapsed().as_secs_f64();
        match result {
            Ok(Outcome::Pass(detail)) => println!("RESULT pass {name} {seconds:.1} {detail}"),
            Ok(Outcome::Skip(reason)) => println!("RESULT skip {name} {seconds:.1} {reason}"),
            Err(error) => {
                println!("RESULT fail {name} {seconds:.1} {error:#}");
                failed += 1;
            }
        }
    }
    bystander.end().context("the second guest")?;
    Ok(failed)
}

/// Runs one test in a thread of its own, so that one that hangs in the kernel is still told of.
fn one(env: &Arc<Env>, test: fn(&Env) -> Result<Outcome>) -> Result<Outcome> {
    let (send, receive) = mpsc::channel();
    let env = env.clone();
    std::thread::spawn(move || {
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| test(&env)));
        let _ = send.send(result.unwrap_or_else(|_| Err(anyhow::anyhow!("the test panicked"))));
    });
    receive
        .recv_timeout(TEST_LIMIT)
        .with_context(|| format!("hangs: no end after {TEST_LIMIT:?}"))?
}
