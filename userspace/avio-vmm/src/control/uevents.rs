// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! What the kernel tells of its block devices: that one came, went, or changed.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    bind, recvfrom, socket, AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType,
};

use crate::backing::Number;

/// The kernel's own messages; udev has another group.
const KERNEL_GROUP: u32 = 1;

/// Messages to take in one go.
const AT_ONCE: usize = 1024;

/// The socket that the kernel tells it to.
pub struct Uevents(OwnedFd);

/// Devices that something happened to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changed {
    numbers: Vec<Number>,
    /// Messages were lost: it can be any device.
    all: bool,
}

impl Uevents {
    /// Listens from now on.
    pub fn new() -> nix::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Self(socket))
    }

    /// Takes what has come, without waiting.
    pub fn take(&self) -> Changed {
        let mut changed = Changed::default();
        let mut message = [0; 8192];
        for _ in 0..AT_ONCE {
            match recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), &mut message) {
                // Another process can send here, too; the kernel's port is 0.
                Ok((len, Some(from))) if from.pid() == 0 => {
                    changed.numbers.extend(block_device(&message[..len]));
                }
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(nix::Error::ENOBUFS) => changed.all = true,
                Err(_) => break,
            }
        }
        changed
    }
}

impl AsRawFd for Uevents {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Changed {
    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty() && !self.all
    }

    /// Whether something may have happened to a device.
    pub fn touches(&self, number: Number) -> bool {
        self.all || self.numbers.contains(&number)
    }
}

/// The block device that a message is about.
fn block_device(message: &[u8]) -> Option<Number> {
    let field = |name: &[u8]| {
        let mut fields = message.split(|byte| *byte == 0);
        fields.find_map(|field| field.strip_prefix(name))
    };
    if field(b"SUBSYSTEM=")? != b"block" {
        return None;
    }
    let number = |name| std::str::from_utf8(field(name)?).ok()?.parse().ok();
    Some(Number {
        major: number(b"MAJOR=")?,
        minor: number(b"MINOR=")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESIZE: &[u8] = b"change@/devices/virtual/block/loop3\0ACTION=change\0SUBSYSTEM=block\0\
        RESIZE=1\0MAJOR=7\0MINOR=3\0DEVNAME=loop3\0SEQNUM=12\0";

    #[test]
    fn block_devices_are_found_in_messages() {
        let number = Number { major: 7, minor: 3 };
        assert_eq!(block_device(RESIZE), Some(number));
        let net = String::from_utf8_lossy(RESIZE).replace("=block", "=net");
        assert_eq!(block_device(net.as_bytes()), None);
        for end in 0..RESIZE.len() {
            let _ = block_device(&RESIZE[..end]);
        }
        assert_eq!(block_device(b"SUBSYSTEM=block\0MAJOR=x\0MINOR=3\0"), None);
        assert_eq!(block_device(b"\xff\0\0"), None);
    }

    #[test]
    fn lost_messages_concern_every_device() {
        let number = Number { major: 7, minor: 3 };
        let all = Changed {
            numbers: vec![],
            all: true,
        };
        assert!(all.touches(number) && !all.is_empty());
        let one = Changed {
            numbers: vec![number],
            all: false,
        };
        assert!(one.touches(number) && !one.touches(Number { major: 7, minor: 4 }));
        assert!(Changed::default().is_empty());
    }
}
