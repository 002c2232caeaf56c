// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Runs tests, each in a thread of its own, beside a second guest in another process.

use crate::bystander::{Bystander, DISK_SECTORS};
use crate::counts::Held;
use crate::guest::{Guest, PLAIN};
use anyhow::{ensure, Context, Result};
use std::fs::{File, OpenOptions};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{mpsc, Arc};
use std::time::{Duration, Instant};

/// A test that has not ended by then hangs, also on a debug kernel and a slow machine.
const TEST_LIMIT: Duration = Duration::from_secs(900);

/// What all tests share.
pub struct Env {
    /// The block device, for reading and writing.
    pub device: File,
    pub device_path: PathBuf,
    pub disk_file: Option<PathBuf>,
    /// The second guest.
    pub bystander: Bystander,
}

impl Env {
    pub fn open(device_path: &Path, disk_file: Option<&Path>) -> Result<Arc<Self>> {
        let device = read_write(device_path)?;
        let has = Guest::on(&device, &PLAIN)?.lun.sectors;
        ensure!(
            has >= DISK_SECTORS,
            "the device has {has} sectors; the tests need {DISK_SECTORS}"
        );
        Ok(Arc::new(Self {
            device,
            device_path: device_path.to_owned(),
            disk_file: disk_file.map(Path::to_owned),
            bystander: Bystander::start(device_path)?,
        }))
    }
}

/// Opens a block device for reading and writing.
pub fn read_write(path: &Path) -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.with_context(|| path.display().to_string())
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

/// Runs tests; how many failed.
pub fn all(env: Arc<Env>, tests: Vec<Test>) -> Result<usize> {
    env.bystander.goes_on()?;
    let mut failed = 0;
    let mut held = Held::now()?;
    for (name, test) in tests {
        let began = Instant::now();
        let result = one(&env, test).and_then(|outcome| {
            env.bystander.goes_on()?;
            Guest::one_more_works(&env).context("a fresh guest does not work")?;
            held.is_back().context("something is left behind")?;
            Ok(outcome)
        });
        let seconds = began.elapsed().as_secs_f64();
        match result {
            Ok(Outcome::Pass(detail)) => println!("RESULT pass {name} {seconds:.1} {detail}"),
            Ok(Outcome::Skip(reason)) => println!("RESULT skip {name} {seconds:.1} {reason}"),
            Err(error) => {
                println!("RESULT fail {name} {seconds:.1} {error:#}");
                failed += 1;
                if held.is_back().is_err() {
                    held = Held::now()?;
                }
            }
        }
    }
    env.bystander.end().context("the second guest")?;
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
