// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The control socket and its clients.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::stat::{umask, Mode};
use vmm_sys_util::epoll::EventSet;

use super::client::Client;
use super::Wait;

/// Most clients, beside those that wait for an answer; if one more comes, the one goes that has been here longest.
const CLIENTS: usize = 16;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be made.
    #[error("cannot listen on control socket {path}")]
    Bind {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody listens.
    #[error("control socket {0} is in use by another VMM; give each guest its own")]
    InUse(PathBuf),
    /// Something else has the name.
    #[error("{0} is not a socket; name a file that does not exist")]
    NotSocket(PathBuf),
}

/// The socket.
pub struct Server {
    listener: UnixListener,
    /// Each with its number; none is given twice.
    clients: Vec<(u64, Client)>,
    next: u64,
}

impl Server {
    /// Listens at `path`, for this user alone.
    pub fn new(path: &Path) -> Result<Self, Error> {
        clear(path)?;
        let failed = |source| Error::Bind {
            path: path.into(),
            source,
        };
        let mask = umask(Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(path);
        umask(mask);
        let listener = listener.map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self {
            listener,
            clients: Vec::new(),
            next: 0,
        })
    }

    /// What to wait for.
    pub fn waits(&self) -> impl Iterator<Item = Wait> + '_ {
        let listener = (self.listener.as_raw_fd(), EventSet::IN);
        std::iter::once(listener)
            .chain(self.clients.iter().filter_map(|(_, client)| client.waits()))
    }

    /// The answer to a client's last line, which was yet to come. If the client is gone, nobody is told.
    pub fn answer(&mut self, number: u64, text: String) {
        if let Some((_, client)) = self.clients.iter_mut().find(|(n, _)| *n == number) {
            client.answer(text);
        }
    }

    /// Does what there is to do, without waiting. `answer` is told a client's number and line; `None` for an answer that is
    /// yet to come.
    pub fn serve(&mut self, mut answer: impl FnMut(u64, &str) -> Option<String>) {
        while self.idle() < 2 * CLIENTS {
            let Ok((stream, _)) = self.listener.accept() else {
                break;
            };
            if stream.set_nonblocking(true).is_ok() {
                self.clients.push((self.next, Client::new(stream)));
                self.next += 1;
            }
        }
        self.clients
            .retain_mut(|(number, client)| client.serve(|line| answer(*number, line)));
        // Who has waited has its answer by now.
        let mut over = self.idle().saturating_sub(CLIENTS);
        self.clients.retain(|(_, client)| {
            let goes = over != 0 && !client.is_waiting();
            over -= usize::from(goes);
            !goes
        });
    }

    /// How many clients wait for no answer. As many can wait as commands can.
    fn idle(&self) -> usize {
        let idle = self
            .clients
            .iter()
            .filter(|(_, client)| !client.is_waiting());
        idle.count()
    }
}

/// The socket's name, removed when this is dropped. The process may end while the control thread still has the socket.
pub struct Name(pub PathBuf);

impl Drop for Name {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Removes a socket that a dead VMM has left.
fn clear(path: &Path) -> Result<(), Error> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::NotSocket(path.into()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let _ = std::fs::remove_file(path);
            Ok(())
        }
        _ => Err(Error::InUse(path.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("avio-socket-{}-{name}", std::process::id()))
    }

    fn ask(path: &Path) -> UnixStream {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(b"hello\n").unwrap();
        stream
    }

    #[test]
    fn only_its_user_may_use_it_and_it_is_removed() {
        let path = path("mode");
        let _server = Server::new(&path).unwrap();
        let name = Name(path.clone());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(Server::new(&path), Err(Error::InUse(_))));
        drop(name);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_dead_vmm_left_does_not_disturb() {
        let path = path("stale");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        assert!(Server::new(&path).is_ok());
        drop(Name(path));
    }

    #[test]
    fn a_file_is_left_alone() {
        let path = path("file");
        std::fs::write(&path, "text").unwrap();
        assert!(matches!(Server::new(&path), Err(Error::NotSocket(_))));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn idle_clients_do_not_keep_others_out() {
        let path = path("idle");
        let mut server = Server::new(&path).unwrap();
        let idle: Vec<_> = (0..2 * CLIENTS)
            .map(|_| UnixStream::connect(&path).unwrap())
            .collect();
        server.serve(|_, _| Some("yes".into()));
        assert_eq!(server.clients.len(), CLIENTS);
        let mut last = ask(&path);
        server.serve(|_, _| Some("yes".into()));
        let mut text = [0; 4];
        last.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"yes\n");
        drop((idle, last));
        server.serve(|_, _| Some("yes".into()));
        assert_eq!(server.clients.len(), 0);
        drop(Name(path));
    }

    #[test]
    fn who_waits_for_an_answer_is_not_thrown_out() {
        let path = path("waits");
        let mut server = Server::new(&path).unwrap();
        let mut first = ask(&path);
        server.serve(|_, _| None);
        let _idle: Vec<_> = (0..2 * CLIENTS)
            .map(|_| UnixStream::connect(&path).unwrap())
            .collect();
        server.serve(|_, _| None);
        assert_eq!(server.clients.len(), CLIENTS + 1);
        server.answer(0, "yes".into());
        server.serve(|_, _| None);
        let mut text = [0; 4];
        first.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"yes\n");
        drop(Name(path));
    }

    #[test]
    fn who_waits_for_an_answer_keeps_nobody_waiting() {
        let path = path("late");
        let mut server = Server::new(&path).unwrap();
        let (mut first, mut second) = (ask(&path), ask(&path));
        let mut asked = Vec::new();
        server.serve(|number, _| {
            asked.push(number);
            (asked.len() == 2).then(|| "now".into())
        });
        let mut text = [0; 4];
        second.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"now\n");
        assert_eq!(server.waits().count(), 2, "the socket and the second");
        server.answer(asked[0], "too".into());
        server.serve(|_, _| None);
        first.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"too\n");
        server.answer(7, "nobody".into());
        drop(Name(path));
    }
}
