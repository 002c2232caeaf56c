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
    /// This one. `userspace/Cargo.toml` has the same.
    pub const CURRENT: Self = Self::new(0, 1, 0);

    /// Major, minor and patch number.
    pub const fn parts(self) -> (u32, u32, u32) {
        (
            (self.0 >> 20) & 0x3ff,
            (self.0 >> 10) & 0x3ff,
            self.0 & 0x3ff,
        )
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

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn the_current_one_is_cargos() {
        assert_eq!(Release::CURRENT.to_string(), env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn newer_is_greater() {
        assert!(Release::new(0, 1, 1023) < Release::new(0, 2, 0));
        assert!(Release::new(0, 1023, 9) < Release::new(1, 0, 0));
        assert_eq!(Release::new(1, 20, 300).to_string(), "1.20.300");
        assert_eq!(Release(0).to_string(), "unknown");
    }
}
