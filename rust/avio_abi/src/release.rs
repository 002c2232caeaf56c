// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Releases of the software, which guest and host tell each other, so that an administrator sees who is behind.
//!
//! What they can do together goes by the interface's version and by features, not by this.

use core::fmt;

/// A release, as one number of which the newer is greater: ten bits for each of major, minor and patch number. Zero is
/// unknown: before there was this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(pub u32);

impl Release {
    /// This one. `userspace/Cargo.toml` and `rust/avio_sys/shim_host.c` have the same.
    pub const CURRENT: Self = Self::new(0, 1, 0);

    /// Major, minor and patch number.
    pub const fn parts(self) -> (u32, u32, u32) {
        (
            (self.0 >> 20) & 0x3ff,
            (self.0 >> 10) & 0x3ff,
            self.0 & 0x3ff,
        )
    }

    /// What there is to say if a part of the software, which is of this release, works with another part that is of another
    /// one. What both can do they agree on; but the older one lacks mends that the other has.
    pub fn compare(
        self,
        part: &'static str,
        other: Self,
        other_part: &'static str,
    ) -> Option<Difference> {
        let [this, other] = [(part, self), (other_part, other)];
        (this.1 != other.1).then_some(Difference { this, other })
    }

    /// The release that a program or module shows as its version.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| part.parse().ok());
        let mut next = || parts.next()?.filter(|part| *part <= 0x3ff);
        let release = Self::new(next()?, next()?, next()?);
        parts.next().is_none().then_some(release)
    }

    const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self(((major & 0x3ff) << 20) | ((minor & 0x3ff) << 10) | (patch & 0x3ff))
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            (0, 0, 0) => f.write_str("unknown"),
            (major, minor, patch) => write!(f, "{major}.{minor}.{patch}"),
        }
    }
}

/// Two parts of the software that are not of one release, as an administrator is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    this: (&'static str, Release),
    other: (&'static str, Release),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((this, own), (other, theirs)) = (self.this, self.other);
        let older = if own < theirs { this } else { other };
        write!(
            f,
            "{this} is of release {own}, {other} of {theirs}; both should be of one: renew {older}"
        )
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn the_current_one_is_cargos() {
        assert_eq!(Release::CURRENT.to_string(), env!("CARGO_PKG_VERSION"));
        let module = include_str!("../../avio_sys/shim_host.c");
        let line = std::format!("MODULE_VERSION(\"{}\");", Release::CURRENT);
        assert!(module.contains(&line), "{line}");
    }

    #[test]
    fn a_version_is_read_as_it_is_shown() {
        let release = Release::new(1, 20, 1023);
        assert_eq!(Release::parse(&release.to_string()), Some(release));
        for text in [
            "", "1", "1.2", "1.2.3.4", "1.2.x", "1.2.-3", "1.2.1024", "unknown",
        ] {
            assert_eq!(Release::parse(text), None, "{text}");
        }
    }

    #[test]
    fn newer_is_greater() {
        assert!(Release::new(0, 1, 1023) < Release::new(0, 2, 0));
        assert!(Release::new(0, 1023, 9) < Release::new(1, 0, 0));
        assert_eq!(Release::new(1, 20, 300).to_string(), "1.20.300");
        assert_eq!(Release(0).to_string(), "unknown");
    }

    #[test]
    fn of_two_releases_the_older_is_to_be_renewed() {
        let [old, new] = [Release::new(0, 9, 2), Release::new(0, 10, 1)];
        let compare = |driver: Release, host| driver.compare("the driver", host, "the host");
        let said = |driver, host| compare(driver, host).unwrap().to_string();
        assert_eq!(compare(old, old), None);
        assert_eq!(
            said(old, new),
            "the driver is of release 0.9.2, the host of 0.10.1; both should be of one: renew the driver"
        );
        assert!(said(new, old).ends_with("renew the host"));
        assert!(said(new, Release(0)).contains("the host of unknown"));
    }
}
