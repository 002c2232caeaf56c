// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Opening the block devices that become LUNs. The VMM opens them, so that its user's rights decide; the module gets
//! descriptors only.

use std::fs::{metadata, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;

use avio_abi::stor::LunInfo;

use crate::args::{assign_luns, Disk, DiskError};
use crate::backend::{self, Stor};

/// Why a disk could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The specifications do not fit together.
    #[error(transparent)]
    Spec(#[from] DiskError),
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
    #[error("disk {0} is in use: it is mounted, part of another device, or another guest's")]
    Busy(PathBuf),
    /// The module does not take it.
    #[error("cannot attach disk {path}")]
    Attach {
        /// The disk.
        path: PathBuf,
        /// Why.
        source: backend::Error,
    },
}

/// Opens and attaches the disks. Returns the LUNs by number, absent ones all zero.
pub fn attach(stor: &Stor, disks: &[Disk]) -> Result<Vec<LunInfo>, Error> {
    let assigned = assign_luns(disks)?;
    let count = assigned
        .iter()
        .map(|(lun, _)| *lun as usize + 1)
        .max()
        .unwrap_or(0);
    let mut luns = vec![LunInfo::default(); count];
    for (lun, disk) in assigned {
        let file = open(disk)?;
        let info = stor
            .add_lun(lun, &file, disk.readonly, &disk.serial)
            .map_err(|source| Error::Attach {
                path: disk.path.clone(),
                source,
            })?;
        tracing::debug!(lun, path = %disk.path.display(), sectors = info.sectors, "disk attached");
        luns[lun as usize] = info;
    }
    Ok(luns)
}

fn open(disk: &Disk) -> Result<File, Error> {
    let failed = |source| Error::Open {
        path: disk.path.clone(),
        source,
    };
    if !metadata(&disk.path)
        .map_err(failed)?
        .file_type()
        .is_block_device()
    {
        return Err(Error::NotBlock(disk.path.clone()));
    }
    // Without O_CREAT, O_EXCL claims a block device against mounts and other claims.
    let file = File::options()
        .read(true)
        .write(!disk.readonly)
        .custom_flags(libc::O_EXCL)
        .open(&disk.path);
    file.map_err(|source| match source.raw_os_error() {
        Some(libc::EBUSY) => Error::Busy(disk.path.clone()),
        _ => failed(source),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(path: &str) -> Disk {
        Disk {
            path: path.into(),
            readonly: false,
            serial: String::new(),
            lun: None,
        }
    }

    #[test]
    fn a_file_is_refused_with_advice() {
        let error = open(&disk("/etc/passwd")).unwrap_err();
        assert!(error.to_string().contains("losetup"), "{error}");
    }

    #[test]
    fn a_character_device_is_no_disk() {
        assert!(matches!(open(&disk("/dev/zero")), Err(Error::NotBlock(_))));
    }

    #[test]
    fn a_missing_disk_is_named() {
        let error = open(&disk("/dev/avio-no-disk")).unwrap_err();
        assert!(error.to_string().contains("/dev/avio-no-disk"), "{error}");
    }
}
