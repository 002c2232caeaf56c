// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! A connection to the control socket: lines in, answers out, and never a wait. A client that does not take its answer
//! is not listened to until it has, so that it costs one line and one answer of memory; nor is one whose answer is yet to
//! come, so that answers keep their order.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use avio_control::MAX_REQUEST;
use vmm_sys_util::epoll::EventSet;

use super::Wait;

/// The connection.
pub struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// The answer to its last line is yet to come.
    waiting: bool,
    ended: bool,
}

impl Client {
    /// A connection that does not block.
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            waiting: false,
            ended: false,
        }
    }

    /// What to wait for, if anything: whoever hangs up before the answer is found out when it has come.
    pub fn waits(&self) -> Option<Wait> {
        let events = match (self.waiting, self.output.is_empty()) {
            (true, _) => return None,
            (false, true) => EventSet::IN,
            (false, false) => EventSet::OUT,
        };
        Some((self.stream.as_raw_fd(), events))
    }

    /// Whether its last answer is yet to come.
    pub fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Has the answer that was yet to come; [`Self::serve`] sends it.
    pub fn answer(&mut self, text: String) {
        self.waiting = false;
        self.output = text.into_bytes();
        self.output.push(b'\n');
    }

    /// Takes and answers what there is; `None` for an answer that is yet to come. Whether the connection is of further use.
    pub fn serve(&mut self, mut answer: impl FnMut(&str) -> Option<String>) -> bool {
        if self.waiting {
            return true;
        }
        if !self.send() {
            return false;
        }
        if self.output.is_empty() {
            self.receive();
        }
        while self.output.is_empty() && !self.waiting {
            let Some(line) = self.next_line() else {
                return !self.ended && self.fits();
            };
            let text = String::from_utf8_lossy(&line);
            if !text.trim().is_empty() {
                match answer(&text) {
                    Some(text) => self.answer(text),
                    None => self.waiting = true,
                }
                if !self.send() {
                    return false;
                }
            }
        }
        true
    }

    /// Reads a piece. Not all that there is: others wait, too.
    fn receive(&mut self) {
        let mut piece = [0; 4096];
        match self.stream.read(&mut piece) {
            Ok(0) => self.ended = true,
            Ok(len) => self.input.extend_from_slice(&piece[..len]),
            Err(error) if would_block(&error) => {}
            Err(_) => self.ended = true,
        }
    }

    fn next_line(&mut self) -> Option<Vec<u8>> {
        let end = self.input.iter().position(|byte| *byte == b'\n')?;
        Some(self.input.drain(..=end).collect())
    }

    /// Whether a line can still become whole. If not, the client is told, if it listens.
    fn fits(&mut self) -> bool {
        if self.input.len() < MAX_REQUEST {
            return true;
        }
        let text = format!("a line has at most {MAX_REQUEST} bytes");
        self.answer(super::commands::text(Err(text)));
        let _ = self.send();
        false
    }

    /// Sends as much of the answer as is taken. Whether somebody is there.
    fn send(&mut self) -> bool {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return false,
                Ok(len) => drop(self.output.drain(..len)),
                Err(error) => return would_block(&error),
            }
        }
        true
    }
}

fn would_block(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (UnixStream, Client) {
        let (near, far) = UnixStream::pair().unwrap();
        for stream in [&near, &far] {
            stream.set_nonblocking(true).unwrap();
        }
        (near, Client::new(far))
    }

    fn echo(line: &str) -> Option<String> {
        Some(format!("<{}>", line.trim()))
    }

    fn said(stream: &mut UnixStream) -> String {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn lines_are_answered_in_their_order() {
        let (mut near, mut client) = pair();
        near.write_all(b"one\ntw").unwrap();
        assert!(client.serve(echo));
        assert_eq!(said(&mut near), "<one>\n");
        near.write_all(b"o\n\n  \nthree\n").unwrap();
        assert!(client.serve(echo));
        assert_eq!(said(&mut near), "<two>\n<three>\n");
        assert!(client.serve(echo), "nothing to do");
    }

    #[test]
    fn a_client_that_has_said_its_last_gets_its_answer() {
        let (mut near, mut client) = pair();
        near.write_all(b"one\n").unwrap();
        near.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(client.serve(echo));
        assert!(!client.serve(echo));
        assert_eq!(said(&mut near), "<one>\n");
    }

    #[test]
    fn an_answer_that_is_yet_to_come_keeps_its_place() {
        let (mut near, mut client) = pair();
        near.write_all(b"slow\nquick\n").unwrap();
        near.shutdown(std::net::Shutdown::Write).unwrap();
        let late = |line: &str| echo(line).filter(|text| text != "<slow>");
        for _ in 0..3 {
            assert!(client.serve(late), "its answer is to come");
            assert!(client.waits().is_none() && said(&mut near).is_empty());
        }
        client.answer("<slow>".into());
        assert!(!client.serve(late));
        assert_eq!(said(&mut near), "<slow>\n<quick>\n");
    }

    #[test]
    fn an_endless_line_ends_the_connection_with_a_reason() {
        let (mut near, mut client) = pair();
        let piece = [b'x'; 4096];
        let mut goes_on = true;
        for _ in 0..=MAX_REQUEST / piece.len() {
            let _ = near.write(&piece);
            goes_on = client.serve(echo);
            if !goes_on {
                break;
            }
        }
        assert!(!goes_on);
        assert!(client.input.len() <= MAX_REQUEST);
        assert!(said(&mut near).contains("at most 65536 bytes"));
    }

    #[test]
    fn a_client_that_takes_no_answers_is_not_listened_to() {
        let (mut near, mut client) = pair();
        let mut asked = 0;
        let long = |_: &str| Some("y".repeat(1 << 20));
        near.write_all(b"one\ntwo\n").unwrap();
        assert!(client.serve(|line| {
            asked += 1;
            long(line)
        }));
        let held = client.output.len();
        assert!(held != 0 && client.waits().unwrap().1 == EventSet::OUT);
        near.write_all(b"three\n").unwrap();
        for _ in 0..10 {
            assert!(client.serve(long));
        }
        assert_eq!((asked, client.output.len()), (1, held));
    }

    #[test]
    fn a_client_that_is_gone_is_gone() {
        let (near, mut client) = pair();
        drop(near);
        assert!(!client.serve(echo));
    }
}
