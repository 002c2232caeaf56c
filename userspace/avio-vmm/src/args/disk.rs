// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! `--disk`: a block device, how to attach it, and where.

use std::str::FromStr;

use avio_control::{Disk, Limits};

use super::WEIGHTS;

/// A disk of the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskSpec {
    /// What to attach.
    pub disk: Disk,
    /// The adapter's ID; `None` for the only one.
    pub hba: Option<String>,
    /// LUN; `None` for the lowest one that is free.
    pub lun: Option<u32>,
}

/// Why a disk was not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No `path=`.
    #[error("path=/dev/… is missing")]
    NoPath,
    /// A key that is not known.
    #[error(
        "'{0}' is unknown; known are path=, hba=, lun=, serial=, readonly, shared, iops=, iops-burst=, bytes=, \
         bytes-burst= and weight="
    )]
    Unknown(String),
    /// A key that is there twice.
    #[error("{0} is given twice")]
    Twice(String),
    /// A serial number that does not fit.
    #[error("a serial number has 1 to 40 printable ASCII characters")]
    Serial,
    /// A LUN that is out of range.
    #[error("lun= takes a number from 0 to {}", avio_abi::MAX_LUNS - 1)]
    Lun,
    /// A limit that is no number.
    #[error("{0}= takes a number, zero for no limit")]
    Limit(&'static str),
    /// A weight that is out of range.
    #[error("a weight is a number from {} to {}", WEIGHTS.start(), WEIGHTS.end())]
    Weight,
    /// A burst of nothing.
    #[error("{0}-burst= is nothing without {0}=; give the rate, too")]
    Burst(&'static str),
}

impl FromStr for DiskSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(key) = given_twice(text) {
            return Err(Error::Twice(key.into()));
        }
        let mut spec = Self::default();
        for part in text.split(',') {
            spec.take(part)?;
        }
        if spec.disk.path.as_os_str().is_empty() {
            return Err(Error::NoPath);
        }
        check(&spec.disk)?;
        Ok(spec)
    }
}

impl DiskSpec {
    fn take(&mut self, part: &str) -> Result<(), Error> {
        let limits = &mut self.disk.limits;
        match part.split_once('=') {
            Some(("path", path)) => self.disk.path = path.into(),
            Some(("hba", id)) => self.hba = Some(id.into()),
            Some(("serial", serial)) => self.disk.serial = Some(serial.into()),
            Some(("lun", number)) => self.lun = Some(lun(number)?),
            Some(("iops", number)) => limits.iops = limit("iops", number)?,
            Some(("iops-burst", number)) => limits.iops_burst = limit("iops-burst", number)?,
            Some(("bytes", number)) => limits.bytes = limit("bytes", number)?,
            Some(("bytes-burst", number)) => limits.bytes_burst = limit("bytes-burst", number)?,
            Some(("weight", number)) => {
                self.disk.weight = Some(number.parse().map_err(|_| Error::Weight)?);
            }
            None if part == "readonly" => self.disk.readonly = true,
            None if part == "shared" => self.disk.shared = true,
            _ => return Err(Error::Unknown(part.into())),
        }
        Ok(())
    }
}

/// The first key that `text`, of parts with commas between them, has twice.
pub(super) fn given_twice(text: &str) -> Option<&str> {
    let mut seen = Vec::new();
    for part in text.split(',') {
        let key = part.split_once('=').map_or(part, |(key, _)| key);
        if seen.contains(&key) {
            return Some(key);
        }
        seen.push(key);
    }
    None
}

fn lun(number: &str) -> Result<u32, Error> {
    number.parse().ok().and_then(checked_lun).ok_or(Error::Lun)
}

fn checked_lun(lun: u32) -> Option<u32> {
    (lun < avio_abi::MAX_LUNS).then_some(lun)
}

fn limit(name: &'static str, number: &str) -> Result<u64, Error> {
    number.parse().map_err(|_| Error::Limit(name))
}

/// What can be judged of a disk without looking at the machine.
pub fn check(disk: &Disk) -> Result<(), Error> {
    if disk.path.as_os_str().is_empty() {
        return Err(Error::NoPath);
    }
    if let Some(serial) = &disk.serial {
        let printable = serial.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        if !printable || !(1..=40).contains(&serial.len()) {
            return Err(Error::Serial);
        }
    }
    if disk.weight.is_some_and(|weight| !WEIGHTS.contains(&weight)) {
        return Err(Error::Weight);
    }
    check_limits(&disk.limits)
}

/// What can be judged of limits.
pub fn check_limits(limits: &Limits) -> Result<(), Error> {
    if limits.iops == 0 && limits.iops_burst != 0 {
        return Err(Error::Burst("iops"));
    }
    if limits.bytes == 0 && limits.bytes_burst != 0 {
        return Err(Error::Burst("bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> Result<DiskSpec, Error> {
        text.parse()
    }

    #[test]
    fn a_disk_with_everything() {
        let text = "path=/dev/loop3,hba=b,lun=7,serial=AB 12,readonly,shared,iops=1,iops-burst=2,bytes=3,bytes-burst=4,weight=5";
        let limits = Limits {
            iops: 1,
            iops_burst: 2,
            bytes: 3,
            bytes_burst: 4,
        };
        let disk = Disk {
            path: "/dev/loop3".into(),
            serial: Some("AB 12".into()),
            readonly: true,
            shared: true,
            limits,
            weight: Some(5),
        };
        let wanted = DiskSpec {
            disk,
            hba: Some("b".into()),
            lun: Some(7),
        };
        assert_eq!(spec(text), Ok(wanted));
    }

    #[test]
    fn bad_disks_are_refused_with_a_reason() {
        let long = format!("path=/dev/a,serial={}", "x".repeat(41));
        let cases = [
            ("readonly", Error::NoPath),
            ("/dev/sda", Error::Unknown("/dev/sda".into())),
            ("path=/dev/a,lun=256", Error::Lun),
            ("path=/dev/a,lun=-1", Error::Lun),
            ("path=/dev/a,serial=", Error::Serial),
            (&long, Error::Serial),
            (
                "path=/dev/a,readonly=1",
                Error::Unknown("readonly=1".into()),
            ),
            ("path=/dev/a,path=/dev/b", Error::Twice("path".into())),
            ("path=/dev/a,iops=1k", Error::Limit("iops")),
            ("path=/dev/a,weight=0", Error::Weight),
            ("path=/dev/a,weight=10001", Error::Weight),
            ("path=/dev/a,weight=many", Error::Weight),
            ("path=/dev/a,bytes-burst=1", Error::Burst("bytes")),
        ];
        for (text, error) in cases {
            assert_eq!(spec(text), Err(error), "{text}");
        }
    }
}
