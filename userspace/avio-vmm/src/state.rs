// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Which backing the guest last knew as which LUN, and the file that remembers it from run to run.

use std::collections::BTreeMap;
use std::fs::{read_to_string, rename, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// The file's version.
const VERSION: u32 = 1;

/// Why the state cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error("cannot {what} state file {path}")]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another VMM has it.
    #[error("state file {0} is in use by another VMM; give each guest its own")]
    Locked(PathBuf),
    /// Its content.
    #[error("{path} is not a state file of this version; delete it, and the guest takes every disk as known")]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// The file's content: identities by adapter and LUN.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    adapters: BTreeMap<String, BTreeMap<u32, String>>,
}

/// The state.
pub struct State {
    content: Content,
    file: Option<StateFile>,
}

struct StateFile {
    path: PathBuf,
    /// On a file beside it, for the file itself is replaced whenever it is written.
    _lock: Flock<File>,
}

impl State {
    /// State that ends with this process.
    pub fn volatile() -> Self {
        Self {
            content: Content::default(),
            file: None,
        }
    }

    /// State that is kept at `path`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |what| {
            move |source| Error::File {
                what,
                path: path.into(),
                source,
            }
        };
        let lock = File::create(beside(path, "lock")).map_err(failed("lock"))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|_| Error::Locked(path.into()))?;
        let content = match read_to_string(path) {
            Ok(text) => parse(&text).map_err(|source| Error::Content {
                path: path.into(),
                source,
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Content::default(),
            Err(error) => return Err(failed("read")(error)),
        };
        let state = Self {
            content,
            file: Some(StateFile {
                path: path.into(),
                _lock: lock,
            }),
        };
        state.write()?;
        Ok(state)
    }

    /// The identity that the guest knows as this LUN.
    pub fn known(&self, adapter: &str, lun: u32) -> Option<&str> {
        Some(self.content.adapters.get(adapter)?.get(&lun)?)
    }

    /// From now on the guest knows this one.
    pub fn know(&mut self, adapter: &str, lun: u32, identity: &str) -> Result<(), Error> {
        if self.known(adapter, lun) == Some(identity) {
            return Ok(());
        }
        let before = self.known(adapter, lun).map(String::from);
        self.note(adapter, lun, identity);
        // What could not be written is not known, so that the next call tries again.
        self.write().inspect_err(|_| match before {
            Some(before) => self.note(adapter, lun, &before),
            None => self.forget(adapter, lun),
        })
    }

    /// Likewise, but the caller writes the file later.
    pub fn note(&mut self, adapter: &str, lun: u32, identity: &str) {
        let luns = self.content.adapters.entry(adapter.into()).or_default();
        luns.insert(lun, identity.into());
    }

    /// The guest knows of no such LUN. The caller writes the file later.
    pub fn forget(&mut self, adapter: &str, lun: u32) {
        if let Some(luns) = self.content.adapters.get_mut(adapter) {
            luns.remove(&lun);
        }
    }

    /// Writes the file: another one, and puts it in the place of the old one, so that a crash leaves one of them whole.
    pub fn write(&self) -> Result<(), Error> {
        let Some(StateFile { path, .. }) = &self.file else {
            return Ok(());
        };
        let fresh = beside(path, "new");
        let put = || {
            let version = VERSION;
            let adapters = &self.content.adapters;
            let text = serde_json::json!({"version": version, "adapters": adapters});
            let mut file = File::create(&fresh)?;
            writeln!(file, "{text:#}")?;
            file.sync_all()?;
            rename(&fresh, path)?;
            let folder = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        put().map_err(|source| Error::File {
            what: "write",
            path: path.clone(),
            source,
        })
    }
}

fn parse(text: &str) -> Result<Content, serde_json::Error> {
    let content: Content = serde_json::from_str(text)?;
    if content.version != VERSION {
        return Err(serde::de::Error::custom(format!(
            "its version is {}, not {VERSION}",
            content.version
        )));
    }
    Ok(content)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own.
    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("avio-state-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn what_is_known_is_known_to_the_next_run() {
        let folder = folder("next");
        let path = folder.join("state");
        let mut state = State::open(&path).unwrap();
        state.know("a", 3, "wwn 1").unwrap();
        state.know("a", 4, "wwn 2").unwrap();
        state.forget("a", 4);
        state.forget("b", 4);
        state.write().unwrap();
        drop(state);
        let state = State::open(&path).unwrap();
        assert_eq!(state.known("a", 3), Some("wwn 1"));
        assert_eq!(state.known("a", 4), None);
        assert_eq!(state.known("b", 3), None);
        assert!(!beside(&path, "new").exists());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_cannot_be_written_is_not_known() {
        let folder = folder("unwritable");
        let path = folder.join("state");
        let mut state = State::open(&path).unwrap();
        state.know("a", 3, "first").unwrap();
        // Nothing can take the place of a folder that is not empty.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir_all(path.join("in the way")).unwrap();
        let error = state.know("a", 3, "second").unwrap_err();
        assert!(error.to_string().contains("cannot write"), "{error}");
        assert!(state.know("a", 4, "third").is_err());
        assert_eq!(
            (state.known("a", 3), state.known("a", 4)),
            (Some("first"), None)
        );
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn two_guests_cannot_share_a_state_file() {
        let folder = folder("locked");
        let path = folder.join("state");
        let first = State::open(&path).unwrap();
        assert!(matches!(State::open(&path), Err(Error::Locked(_))));
        drop(first);
        assert!(State::open(&path).is_ok());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn other_content_is_refused_and_kept() {
        let folder = folder("content");
        let path = folder.join("state");
        for text in [
            "",
            "{}",
            "[1]",
            r#"{"version": 2, "adapters": {}}"#,
            r#"{"version": 1, "adapters": {}, "x": 1}"#,
        ] {
            std::fs::write(&path, text).unwrap();
            assert!(
                matches!(State::open(&path), Err(Error::Content { .. })),
                "{text}"
            );
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = State::open(Path::new("/no/where/state")).err().unwrap();
        assert!(error.to_string().contains("/no/where/state"), "{error}");
    }
}
