// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! `avio-ctl`: says something to a running avio-vmm through its control socket, and prints the answer.

mod args;
mod print;

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use avio_control::{Answer, Quiesced, Request};
use serde_json::Value;

use crate::args::Args;

/// From one try of a quiesce to the next; the module itself waits for a while.
const PAUSE: Duration = Duration::from_millis(100);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot connect to {0}: {1}; is avio-vmm running with --control {0}?")]
    Connect(String, io::Error),
    #[error("the connection failed: {0}")]
    Broken(#[from] io::Error),
    #[error("avio-vmm closed the connection without an answer")]
    Closed,
    #[error("avio-vmm answered what avio-ctl does not understand ({0}); are they of one version?")]
    Odd(#[from] serde_json::Error),
    #[error("{0}")]
    Refused(String),
}

/// A connection.
struct Connection {
    reader: BufReader<UnixStream>,
}

impl Connection {
    fn new(path: &Path) -> Result<Self, Error> {
        let failed = |error| Error::Connect(path.display().to_string(), error);
        let stream = UnixStream::connect(path).map_err(failed)?;
        let reader = BufReader::new(stream);
        Ok(Self { reader })
    }

    fn ask(&mut self, request: &Request) -> Result<Value, Error> {
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        self.reader.get_mut().write_all(line.as_bytes())?;
        let mut answer = String::new();
        if self.reader.read_line(&mut answer)? == 0 {
            return Err(Error::Closed);
        }
        match serde_json::from_str(&answer)? {
            Answer::Return(value) => Ok(value),
            Answer::Error(text) => Err(Error::Refused(text)),
        }
    }

    /// Asks again until it is complete.
    fn quiesce(&mut self) -> Result<Value, Error> {
        loop {
            let value = self.ask(&Request::Quiesce)?;
            let quiesced: Quiesced = serde_json::from_value(value.clone())?;
            if quiesced.complete {
                return Ok(value);
            }
            sleep(PAUSE);
        }
    }
}

fn run(args: Args) -> Result<(), Error> {
    let mut connection = Connection::new(&args.control)?;
    let request = Request::from(args.command);
    let value = match request {
        Request::Quiesce => connection.quiesce()?,
        _ => connection.ask(&request)?,
    };
    let text = match args.json {
        true => format!("{value:#}\n"),
        false => print::text(&request, value)?,
    };
    // Whoever reads may have enough.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(())
}

fn main() -> ExitCode {
    match run(manpage::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("avio-ctl: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection to somebody who reads a line for each answer.
    fn connected(answers: &'static [&'static str]) -> Connection {
        let (near, far) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(far);
            for answer in answers {
                reader.read_line(&mut String::new()).unwrap();
                let stream = reader.get_mut();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let reader = BufReader::new(near);
        Connection { reader }
    }

    #[test]
    fn answers_refusals_and_silence_are_told_apart() {
        let mut connection = connected(&["{\"return\":7}\n", "{\"error\":\"no\"}\n", "what\n"]);
        assert_eq!(connection.ask(&Request::Status).unwrap(), Value::from(7));
        let refused = connection.ask(&Request::Status).unwrap_err();
        assert_eq!(refused.to_string(), "no");
        assert!(matches!(
            connection.ask(&Request::Status),
            Err(Error::Odd(_))
        ));
        assert!(connection.ask(&Request::Status).is_err());
    }

    #[test]
    fn a_quiesce_is_asked_for_until_it_is_complete() {
        let mut connection = connected(&[
            "{\"return\":{\"complete\":false}}\n",
            "{\"return\":{\"complete\":true}}\n",
        ]);
        let value = connection.quiesce().unwrap();
        assert_eq!(value, serde_json::json!({"complete": true}));
    }
}
