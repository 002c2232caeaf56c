// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Block devices that back LUNs. The VMM opens them, so that its user's rights decide; the module gets descriptors
//! only.

mod claims;
mod facts;

use std::fs::{metadata, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use avio_control::Disk;
use nix::errno::Errno;
use nix::sys::stat::{major, minor};

use crate::backend::call;
#[cfg(test)]
pub use facts::Identity;
pub use facts::{Facts, Number};

/// Where sysfs is.
const SYS: &str = "/sys";
/// Without O_CREAT, it claims a block device against mounts and other claims.
const CLAIM: i32 = libc::O_EXCL;

/// Why a device could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not there, or no right to it.
    #[error("cannot open disk {path}")]
    Open {
        /// The disk.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or something else.
    #[error(
        "{0} is not a block device; for an image file make one with: losetup --find --show {0}"
    )]
    NotBlock(PathBuf),
    /// Somebody else has it.
    #[error(
        "disk {0} is in use: it is mounted, part of another device, or another guest's; if it is a guest's, and both can \
         cope with each other, say shared with both"
    )]
    Busy(PathBuf),
    /// Others share it.
    #[error(
        "disk {0} is in use: another guest shares it, or a program has locked it; if this guest can cope with the other, \
         say shared here, too"
    )]
    Shared(PathBuf),
    /// Somebody has it who does not share it.
    #[error(
        "disk {0} cannot be shared: it is mounted, part of another device, another guest's that does not say shared, or \
         locked by a program; unmount it, or say shared with the other guest, too"
    )]
    Unshared(PathBuf),
    /// The path led to one device, and then to another.
    #[error("disk {0} became another while it was opened; try again when its name has settled")]
    Exchanged(PathBuf),
    /// It was there.
    #[error(
        "disk {0} went away, or lost its medium, while it was opened; try again when it is back"
    )]
    Gone(PathBuf),
    /// The host's kernel does not tell.
    #[error("sysfs does not tell what disk {0} is; /sys must be mounted, and the kernel must be 5.15 or later")]
    Unknown(PathBuf),
}

/// An open block device.
#[derive(Clone)]
pub struct Backing {
    /// Claimed for this process as long as it is open, or locked as shared.
    pub file: Arc<File>,
    /// Its number.
    pub number: Number,
    /// What it was when it was opened.
    pub facts: Facts,
}

/// What tells an open device from any other, and from the same when it is opened again. It does not keep it open.
pub struct Mark(Weak<File>);

impl PartialEq for Mark {
    fn eq(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }
}

/// What became of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// It is there; what it is now.
    Here(Facts),
    /// It is gone, or has no medium.
    Gone,
}

impl Backing {
    /// Opens and claims a device, of this number. What is described is what was opened, although its path may lead
    /// elsewhere at any moment.
    pub fn open(disk: &Disk, number: Number) -> Result<Self, Error> {
        let claim = if disk.shared { 0 } else { CLAIM };
        let file = File::options()
            .read(true)
            .write(!disk.readonly)
            .custom_flags(claim)
            .open(&disk.path)
            .map_err(|source| match source.raw_os_error() {
                // Of a mounted disk a kernel may refuse any opening for writing (BLK_DEV_WRITE_MOUNTED).
                Some(libc::EBUSY) if disk.shared => Error::Unshared(disk.path.clone()),
                Some(libc::EBUSY) => Error::Busy(disk.path.clone()),
                _ => failed(&disk.path)(source),
            })?;
        let opened = file.metadata().map_err(failed(&disk.path))?;
        let facts = Facts::read(Path::new(SYS), number, None)
            .ok_or_else(|| Error::Unknown(disk.path.clone()))?;
        let sequence = call::disk_sequence(&file).map_err(failed(&disk.path))?;
        if number_of(&opened) != Some(number) || sequence != facts.sequence {
            return Err(Error::Exchanged(disk.path.clone()));
        }
        keep_apart(&file, disk, number)?;
        Ok(Self {
            file: Arc::new(file),
            number,
            facts,
        })
    }

    /// Has the host's page cache write back what it has of the device, which lasts as long as that likes. The device's own
    /// cache is not flushed: who has written there sees to that. If it fails, the module says whether the device can do
    /// without.
    pub fn write_back(&self, path: &Path) {
        // An error of before is told once, first, instead of writing.
        for _ in 0..2 {
            let Err(error) = call::write_back(&self.file) else {
                return;
            };
            let path = path.display();
            tracing::warn!("cannot write back the page cache of {path}: {error}");
        }
    }

    /// Its mark.
    pub fn mark(&self) -> Mark {
        Mark(Arc::downgrade(&self.file))
    }

    /// Looks what became of it. A disk that was taken away leaves its number to the next one, but not its sequence
    /// number.
    pub fn look(&self) -> Look {
        let open = call::disk_sequence(&self.file).ok();
        match Facts::read(Path::new(SYS), self.number, Some(&self.facts)) {
            Some(facts) if open == Some(facts.sequence) && facts.sectors != 0 => Look::Here(facts),
            _ => Look::Gone,
        }
    }

    /// Whether it is a partition that was resized since it was looked at, which the kernel tells nobody.
    pub fn is_resized(&self) -> bool {
        self.facts.is_resized(Path::new(SYS), self.number)
    }
}

/// Keeps those who share a disk from those who do not.
fn keep_apart(file: &File, disk: &Disk, number: Number) -> Result<(), Error> {
    let path = &disk.path;
    if !disk.shared {
        let unshared = claims::is_unshared(file).map_err(failed(path))?;
        return unshared.then_some(()).ok_or(Error::Shared(path.clone()));
    }
    let claim = || {
        // Not for writing: when that is closed udev probes the disk.
        let claimed = File::options().read(true).custom_flags(CLAIM).open(path)?;
        let found = number_of(&claimed.metadata()?);
        // The path leads elsewhere by now.
        let same = (found == Some(number)).then_some(());
        same.ok_or_else(|| Errno::ESTALE.into())
    };
    let shared = claims::share(file, claim).map_err(|source| match source.raw_os_error() {
        Some(libc::ESTALE) => Error::Exchanged(path.clone()),
        _ => failed(path)(source),
    })?;
    shared.then_some(()).ok_or(Error::Unshared(path.clone()))
}

/// The number of the block device at `path`.
pub fn number(path: &Path) -> Result<Number, Error> {
    let metadata = metadata(path).map_err(failed(path))?;
    number_of(&metadata).ok_or_else(|| Error::NotBlock(path.into()))
}

/// The number of the disk that a device is, or is a partition of.
pub fn whole_disk(number: Number) -> Number {
    facts::whole(Path::new(SYS), number)
}

/// The number, if this is a block device.
fn number_of(metadata: &Metadata) -> Option<Number> {
    let device = metadata.rdev();
    metadata.file_type().is_block_device().then(|| Number {
        major: major(device) as u32,
        minor: minor(device) as u32,
    })
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    |source| Error::Open {
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &str) -> Error {
        let disk = Disk {
            path: path.into(),
            ..Disk::default()
        };
        number(&disk.path)
            .and_then(|number| Backing::open(&disk, number))
            .err()
            .unwrap()
    }

    #[test]
    fn a_file_is_refused_with_advice() {
        assert!(refusal("/etc/passwd").to_string().contains("losetup"));
    }

    #[test]
    fn a_character_device_is_no_disk() {
        assert!(matches!(refusal("/dev/zero"), Error::NotBlock(_)));
    }

    #[test]
    fn a_missing_disk_is_named() {
        let text = refusal("/dev/avio-no-disk").to_string();
        assert!(text.contains("/dev/avio-no-disk"), "{text}");
    }
}
