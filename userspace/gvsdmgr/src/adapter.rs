// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The calls to an adapter's node, and how a LUN is found. The one file with `unsafe`: an ioctl is.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use avio_abi::gvsd::{Info, Lun, Stat, Task, CLEAR_STAT, GET_INFO, GET_LUN, GET_STAT, TASK};
use avio_abi::pci::task;
use avio_abi::wire::Wire;

use crate::args::Qualifier;
use crate::report::text;

/// Why a command cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open {0}: {1}{hint}", hint = match .1.kind() {
        io::ErrorKind::NotFound => " (the adapters are /dev/gvsd0 and on, where the driver avio_stor is loaded)",
        io::ErrorKind::PermissionDenied => " (only root may)",
        _ => "",
    })]
    Open(PathBuf, io::Error),
    #[error("{0} is not the node of an AVIO storage adapter, which is called /dev/gvsdN")]
    NotAdapter(PathBuf),
    #[error("{0} is gone: the adapter was removed, or its driver unbound")]
    Gone(PathBuf),
    #[error("{0}: {1}: {2}{hint}", hint = match .2.kind() {
        io::ErrorKind::ResourceBusy => " (the old disk still has requests in flight, or the new one was replaced in turn)",
        _ => "",
    })]
    Call(PathBuf, &'static str, io::Error),
    #[error("{0}: there is no {1}; the numbers are: {2}")]
    NoNumber(PathBuf, Qualifier, String),
    #[error("{0}: {1}")]
    NoPath(PathBuf, io::Error),
    #[error("{0}: no LUN has the disk {1}; the disks are: {2}")]
    NoDisk(PathBuf, PathBuf, String),
    #[error("say which LUN: -q lun=/dev/avioX, lun_dsf=/dev/avioX or lun=NUMBER")]
    NoQualifier,
    #[error("this is for one LUN, no target: -q lun=/dev/avioX, lun_dsf=/dev/avioX or lun=NUMBER")]
    NotOne,
    #[error("the disk of {0} was not replaced; there is nothing to accept")]
    NotReplaced(String),
    #[error("{0} is for task_mgmt: leave it out")]
    Misplaced(&'static str),
    #[error("say which task: -t abort or -t reset")]
    NoTask,
    #[error("say which request is to be aborted: -r QUEUE:TAG")]
    NoRequest,
    #[error("a reset is for all requests: leave -r out")]
    RequestOfReset,
    #[error("nothing was done")]
    Declined,
    #[error("cannot read the answer: {0}")]
    Answer(io::Error),
    #[error("cannot write: {0}")]
    Output(io::Error),
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// An open node.
pub struct Adapter {
    path: PathBuf,
    file: File,
}

impl Adapter {
    /// Opens the node.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let file = opened.map_err(|e| Error::Open(path.into(), e))?;
        let path = path.into();
        Ok(Self { path, file })
    }

    fn call<T: Wire>(&self, name: &'static str, number: u32, argument: &T) -> Result<T, Error> {
        let mut buffer = vec![0; T::SIZE];
        let _ = argument.put(&mut buffer);
        // SAFETY: All calls of the interface read and write as many bytes as their number says, which is how long the
        // structure is: `avio_abi::gvsd` pairs them, and so does each caller. The type is no other driver's (the kernel's
        // list, Documentation/userspace-api/ioctl/ioctl-number.rst), and drivers refuse what is not theirs.
        let result =
            unsafe { libc::ioctl(self.file.as_raw_fd(), number.into(), buffer.as_mut_ptr()) };
        if result == -1 {
            let error = io::Error::last_os_error();
            return Err(match error.raw_os_error() {
                Some(libc::ENOTTY) => Error::NotAdapter(self.path.clone()),
                Some(libc::ENODEV) => Error::Gone(self.path.clone()),
                _ => Error::Call(self.path.clone(), name, error),
            });
        }
        Ok(T::take(&buffer).map_or(T::ZERO, |(value, _)| value))
    }

    /// What the adapter is.
    pub fn info(&self) -> Result<Info, Error> {
        self.call("get_info", GET_INFO, &Info::ZERO)
    }

    /// What was counted for a LUN or for all.
    pub fn stat(&self, lun: u32) -> Result<Stat, Error> {
        self.call("get_stat", GET_STAT, &Stat { lun, ..Stat::ZERO })
    }

    /// Counts from zero again.
    pub fn clear_stat(&self, lun: u32) -> Result<(), Error> {
        self.call("clear_stat", CLEAR_STAT, &Task { lun, ..Task::ZERO })?;
        Ok(())
    }

    /// Accepts what is behind a LUN, if that is still what `lun` tells.
    pub fn open_gate(&self, lun: &Lun) -> Result<(), Error> {
        let task = Task {
            kind: task::OPEN_GATE,
            lun: lun.lun,
            changes: lun.info.changes,
            ..Task::ZERO
        };
        self.call("replace_dsk", TASK, &task)?;
        Ok(())
    }

    /// Gives a task command; how many requests the backing still has.
    pub fn task(&self, kind: u32, lun: u32, queue: u32, tag: u32) -> Result<u32, Error> {
        let task = Task {
            kind,
            lun,
            queue,
            tag,
            ..Task::ZERO
        };
        Ok(self.call("task", TASK, &task)?.left)
    }

    /// The LUNs that are there.
    fn luns(&self) -> Result<Vec<Lun>, Error> {
        let mut luns = Vec::new();
        for lun in 0..self.info()?.luns {
            match self.call("get_info", GET_LUN, &Lun { lun, ..Lun::ZERO }) {
                Ok(lun) => luns.push(lun),
                Err(Error::Call(_, _, e)) if e.raw_os_error() == Some(libc::ENXIO) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(luns)
    }

    /// The LUNs that a qualifier names.
    pub fn chosen(&self, wanted: &Qualifier) -> Result<Vec<Lun>, Error> {
        choose(&self.path, self.luns()?, wanted)
    }

    /// The one LUN that a qualifier names.
    pub fn one(&self, wanted: Option<&Qualifier>) -> Result<Lun, Error> {
        match wanted {
            None => Err(Error::NoQualifier),
            Some(Qualifier::All | Qualifier::Target(_)) => Err(Error::NotOne),
            Some(one) => self.chosen(one)?.first().copied().ok_or(Error::NotOne),
        }
    }
}

/// Those of an adapter's LUNs that a qualifier names.
fn choose(adapter: &Path, luns: Vec<Lun>, wanted: &Qualifier) -> Result<Vec<Lun>, Error> {
    let list = |name: &dyn Fn(&Lun) -> String| {
        let names: Vec<_> = luns.iter().map(name).collect();
        names.join(", ")
    };
    match wanted {
        Qualifier::All => Ok(luns),
        Qualifier::Number(number) | Qualifier::Target(number) => {
            match luns.iter().find(|lun| lun.lun == *number) {
                Some(lun) => Ok(vec![*lun]),
                None => Err(Error::NoNumber(
                    adapter.into(),
                    wanted.clone(),
                    list(&|lun| lun.lun.to_string()),
                )),
            }
        }
        Qualifier::Disk(path) => {
            // A link such as those in /dev/disk names the disk as well.
            let disk = path
                .canonicalize()
                .map_err(|e| Error::NoPath(path.clone(), e))?;
            let name = |lun: &Lun| format!("/dev/{}", text(&lun.disk));
            match luns.iter().find(|lun| Path::new(&name(lun)) == disk) {
                Some(lun) => Ok(vec![*lun]),
                None => Err(Error::NoDisk(adapter.into(), path.clone(), list(&name))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_the_lun_of_its_number() {
        let luns = || [0, 3, 7].map(|lun| Lun { lun, ..Lun::ZERO }).to_vec();
        let chosen = |wanted| choose(Path::new("/dev/gvsd0"), luns(), &wanted);
        let numbers = |wanted| {
            let chosen = chosen(wanted).unwrap();
            chosen.iter().map(|lun| lun.lun).collect::<Vec<_>>()
        };
        assert_eq!(numbers(Qualifier::Target(3)), [3]);
        assert_eq!(numbers(Qualifier::Number(7)), [7]);
        assert_eq!(numbers(Qualifier::All), [0, 3, 7]);
        let refusal = |wanted| chosen(wanted).unwrap_err().to_string();
        let text = refusal(Qualifier::Target(4));
        assert_eq!(
            text,
            "/dev/gvsd0: there is no target 4; the numbers are: 0, 3, 7"
        );
        assert!(refusal(Qualifier::Number(4)).contains("no LUN 4"));
    }

    #[test]
    fn what_is_for_one_lun_is_for_no_target() {
        let adapter = Adapter {
            path: "/dev/null".into(),
            file: File::open("/dev/null").unwrap(),
        };
        for wanted in [Qualifier::Target(3), Qualifier::All] {
            let refused = adapter.one(Some(&wanted));
            assert!(matches!(refused, Err(Error::NotOne)), "{wanted}");
        }
    }
}
