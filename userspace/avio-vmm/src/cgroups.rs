// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Cgroups for adapters and LUNs: DIR/ADAPTER/lunN, whose weights the kernel's I/O controller heeds. The VMM sees to them
//! alone: those that a VMM left which was killed are taken over, and all go at the end.
//!
//! Used by the main thread, and by the control thread, whose filter lets it make and remove directories.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use avio_control::DEFAULT_WEIGHT;
use nix::fcntl::{Flock, FlockArg};

/// Why cgroups cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a directory of cgroup v2.
    #[error("{0} is no cgroup (v2); give a directory below /sys/fs/cgroup that is delegated to this user")]
    NotCgroup(PathBuf),
    /// The controller does not reach it.
    #[error(
        "cgroup {0} has no io controller; write +io to cgroup.subtree_control of its parent, or say Delegate=io in the \
         service"
    )]
    NoController(PathBuf),
    /// Processes live in it.
    #[error(
        "processes live in cgroup {0}, so that it cannot have cgroups with controllers inside; move them, and this VMM, \
         to one beside it or inside (as {0}/vmm)"
    )]
    Inhabited(PathBuf),
    /// Another VMM has it.
    #[error("cgroup {0} is in use by another VMM; give each guest its own")]
    Locked(PathBuf),
    /// The kernel cannot weigh.
    #[error(
        "this kernel has no weights for I/O ({0} is missing); it needs CONFIG_BLK_CGROUP_IOCOST"
    )]
    NoWeights(PathBuf),
    /// Anything else.
    #[error("cannot {what} {path}")]
    File {
        /// What was tried.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The cgroups of a guest.
pub struct Cgroups {
    dir: PathBuf,
    _lock: Flock<File>,
}

impl Cgroups {
    /// Takes a cgroup for a guest's adapters.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let controllers = dir.join("cgroup.controllers");
        let controllers =
            fs::read_to_string(&controllers).map_err(|source| match source.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => Error::NotCgroup(dir.into()),
                _ => failed("read", &controllers)(source),
            })?;
        if !has_io(&controllers) {
            return Err(Error::NoController(dir.into()));
        }
        let file = File::open(dir).map_err(failed("open", dir))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| Error::Locked(dir.into()))?;
        pass_io_on(dir)?;
        Ok(Self {
            dir: dir.into(),
            _lock: lock,
        })
    }

    /// Makes an adapter's cgroup.
    pub fn make_adapter(&self, id: &str, weight: Option<u32>) -> Result<(), Error> {
        let path = self.dir.join(id);
        make(&path)?;
        pass_io_on(&path)?;
        weigh(&path, weight)
    }

    /// Makes a LUN's cgroup in that of its adapter; its directory, for the module.
    pub fn make_lun(&self, id: &str, lun: u32, weight: Option<u32>) -> Result<Arc<File>, Error> {
        let path = self.lun(id, lun);
        make(&path)?;
        weigh(&path, weight)?;
        let file = File::open(&path).map_err(failed("open", &path))?;
        Ok(Arc::new(file))
    }

    /// Sets the weight of an adapter's cgroup.
    pub fn weigh_adapter(&self, id: &str, weight: Option<u32>) -> Result<(), Error> {
        weigh(&self.dir.join(id), weight)
    }

    /// Sets the weight of a LUN's cgroup.
    pub fn weigh_lun(&self, id: &str, lun: u32, weight: Option<u32>) -> Result<(), Error> {
        weigh(&self.lun(id, lun), weight)
    }

    /// Removes a LUN's cgroup. If somebody put something in it, it stays.
    pub fn remove_lun(&self, id: &str, lun: u32) {
        let _ = fs::remove_dir(self.lun(id, lun));
    }

    fn lun(&self, id: &str, lun: u32) -> PathBuf {
        self.dir.join(id).join(format!("lun{lun}"))
    }
}

/// Removes the cgroups of these adapters when it is dropped, whichever LUNs they now have.
pub struct Cleanup {
    /// The guest's cgroups.
    pub cgroups: Arc<Cgroups>,
    /// IDs of its adapters.
    pub adapters: Vec<String>,
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        for id in &self.adapters {
            for lun in 0..avio_abi::MAX_LUNS {
                self.cgroups.remove_lun(id, lun);
            }
            let _ = fs::remove_dir(self.cgroups.dir.join(id));
        }
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::File { what, path, source }
}

fn has_io(controllers: &str) -> bool {
    controllers.split_whitespace().any(|name| name == "io")
}

fn make(path: &Path) -> Result<(), Error> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(failed("make", path)(error)),
        _ => Ok(()),
    }
}

/// Lets the children of a cgroup have the io controller.
fn pass_io_on(dir: &Path) -> Result<(), Error> {
    let path = dir.join("cgroup.subtree_control");
    let given = fs::read_to_string(&path).map_err(failed("read", &path))?;
    if has_io(&given) {
        return Ok(());
    }
    fs::write(&path, "+io").map_err(|source| match source.raw_os_error() {
        Some(libc::EBUSY) => Error::Inhabited(dir.into()),
        _ => failed("write +io to", &path)(source),
    })
}

fn weigh(dir: &Path, weight: Option<u32>) -> Result<(), Error> {
    let path = dir.join("io.weight");
    match fs::OpenOptions::new().write(true).open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => match weight {
            None => Ok(()),
            Some(_) => Err(Error::NoWeights(path)),
        },
        result => result
            .and_then(|mut file| {
                let text = weight.unwrap_or(DEFAULT_WEIGHT).to_string();
                io::Write::write_all(&mut file, text.as_bytes())
            })
            .map_err(failed("set", &path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that looks like a cgroup to who only reads and writes; it goes when this does.
    struct Fake(PathBuf);

    impl Fake {
        fn new(name: &str, controllers: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("avio-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("cgroup.controllers"), controllers).unwrap();
            fs::write(dir.join("cgroup.subtree_control"), "cpu io\n").unwrap();
            Self(dir)
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn refusal(dir: &Path) -> String {
        Cgroups::open(dir).err().unwrap().to_string()
    }

    #[test]
    fn what_is_no_cgroup_with_io_is_refused_with_advice() {
        assert!(refusal(Path::new("/proc")).contains("/proc is no cgroup"));
        assert!(refusal(Path::new("/dev/null")).contains("no cgroup"));
        let without = Fake::new("without-io", "cpu iox\n");
        assert!(refusal(&without.0).contains("no io controller"));
    }

    #[test]
    fn a_cgroup_has_one_vmm() {
        let fake = Fake::new("locked", "cpu io\n");
        let first = Cgroups::open(&fake.0).unwrap();
        assert!(refusal(&fake.0).contains("another VMM"));
        drop(first);
        assert!(Cgroups::open(&fake.0).is_ok());
    }

    #[test]
    fn luns_have_places_of_their_own_which_go_at_the_end() {
        let fake = Fake::new("places", "io\n");
        let cgroups = Arc::new(Cgroups::open(&fake.0).unwrap());
        let adapter = fake.0.join("a");
        fs::create_dir(&adapter).unwrap();
        cgroups.make_lun("a", 3, None).unwrap();
        cgroups.make_lun("a", 3, None).unwrap();
        assert!(adapter.join("lun3").is_dir());
        let error = cgroups.make_lun("a", 4, Some(7)).unwrap_err().to_string();
        assert!(error.contains("lun4/io.weight is missing"), "{error}");
        drop(Cleanup {
            cgroups,
            adapters: vec!["a".into()],
        });
        assert!(!adapter.exists());
    }

    #[test]
    fn weights_are_written_and_the_default_too() {
        let fake = Fake::new("weights", "io\n");
        let (cgroups, dir) = (Cgroups::open(&fake.0).unwrap(), fake.0.join("a"));
        fs::create_dir(&dir).unwrap();
        let file = dir.join("io.weight");
        for (weight, written) in [(Some(7), "7"), (None, "100"), (Some(10_000), "10000")] {
            fs::write(&file, "").unwrap();
            cgroups.weigh_adapter("a", weight).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), written);
        }
    }
}
