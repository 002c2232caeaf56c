// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! Standard input as the guest's keyboard: raw mode on a terminal, and the keys that end the guest.

use std::io::{stdin, IsTerminal};

use nix::sys::termios::{cfmakeraw, tcgetattr, tcsetattr, SetArg, Termios};

const ESCAPE: u8 = 0x01;
const QUIT: u8 = b'x';

/// A terminal in raw mode; dropping it restores the former mode.
pub struct RawMode(Termios);

impl RawMode {
    /// Switches standard input to raw mode if it is a terminal.
    pub fn enter() -> Option<Self> {
        if !stdin().is_terminal() {
            return None;
        }
        let before = tcgetattr(stdin()).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin(), SetArg::TCSANOW, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), SetArg::TCSANOW, &self.0);
    }
}

/// Watches for Ctrl-A x. Ctrl-A twice sends one.
#[derive(Default)]
pub struct Keys {
    escaped: bool,
}

impl Keys {
    /// What the guest is to get of `typed`; `None` to end it.
    pub fn filter(&mut self, typed: &[u8]) -> Option<Vec<u8>> {
        let mut passed = Vec::with_capacity(typed.len());
        for &key in typed {
            match (self.escaped, key) {
                (true, QUIT) => return None,
                (false, ESCAPE) => self.escaped = true,
                _ => {
                    self.escaped = false;
                    passed.push(key);
                }
            }
        }
        Some(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_a_x_ends_even_when_typed_slowly() {
        let mut keys = Keys::default();
        assert_eq!(keys.filter(b"ls\r"), Some(b"ls\r".to_vec()));
        assert_eq!(keys.filter(&[ESCAPE]), Some(vec![]));
        assert_eq!(keys.filter(b"x"), None);
    }

    #[test]
    fn ctrl_a_twice_is_one() {
        assert_eq!(
            Keys::default().filter(&[ESCAPE, ESCAPE, b'x']),
            Some(vec![ESCAPE, b'x'])
        );
    }
}
