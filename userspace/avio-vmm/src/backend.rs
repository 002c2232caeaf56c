// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The storage backend in the host kernel, as this VMM uses it.

pub mod call;
mod luns;
pub mod release;
mod served;
mod stor;

use std::io;
use std::path::PathBuf;

use avio_abi::ioctl::SetupError;

pub use served::{Events, Served};
pub use stor::Stor;

/// Why the module could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The module is not there.
    #[error("{0} does not exist: the host module is not loaded; insmod avio_host.ko")]
    NoModule(PathBuf),
    /// The device cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// The device.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not the module's.
    #[error("{0} is not an AVIO storage backend")]
    NotBackend(PathBuf),
    /// The module has a reason.
    #[error("{what}: {}", .error.text())]
    Refused {
        /// What was tried.
        what: String,
        /// The reason.
        error: SetupError,
        /// The region or queue at fault, where there is one.
        index: u32,
    },
    /// The module gave an errno only.
    #[error("{what}")]
    Failed {
        /// What was tried.
        what: String,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// Whether the host's page cache has something to write first.
    pub fn is_dirty(&self) -> bool {
        let dirty = SetupError::DeviceDirty;
        matches!(self, Self::Refused { error, .. } if *error == dirty)
    }
}

/// Turns an ioctl's result and the reason in its argument into one error.
fn checked(
    result: io::Result<()>,
    error: u32,
    index: u32,
    what: impl FnOnce() -> String,
) -> Result<(), Error> {
    result.map_err(|source| match SetupError::from_u32(error) {
        Some(error) => Error::Refused {
            what: what(),
            error,
            index,
        },
        None => Error::Failed {
            what: what(),
            source,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modules_reason_is_preferred_to_the_errno() {
        let failed = || Err(io::Error::from_raw_os_error(libc::EINVAL));
        let refused =
            checked(failed(), SetupError::LunBusy as u32, 0, || "LUN 3".into()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("LUN 3: {}", SetupError::LunBusy.text())
        );
        assert!(matches!(
            checked(failed(), 0, 0, || "LUN 3".into()),
            Err(Error::Failed { .. })
        ));
        assert!(checked(Ok(()), 0, 0, || "LUN 3".into()).is_ok());
    }
}
