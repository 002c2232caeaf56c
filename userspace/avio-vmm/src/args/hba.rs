// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! `--hba`: a storage adapter.

use std::str::FromStr;

use avio_abi::MAX_QUEUES;

/// An adapter of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HbaSpec {
    /// Its name for `--disk` and the control socket.
    pub id: String,
    /// Queue pairs; `None` for as many as `--queues` says.
    pub queues: Option<u32>,
}

/// Why an adapter was not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No or an odd ID.
    #[error("id= takes 1 to 32 letters, digits, '-' and '_'")]
    Id,
    /// A key that is not known.
    #[error("'{0}' is unknown; known are id= and queues=")]
    Unknown(String),
    /// A number of queues that is out of range.
    #[error("queues= takes a number from 1 to {MAX_QUEUES}")]
    Queues,
}

impl FromStr for HbaSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut spec = Self {
            id: String::new(),
            queues: None,
        };
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("id", id)) => spec.id = id.into(),
                Some(("queues", number)) => spec.queues = Some(queues(number)?),
                _ => return Err(Error::Unknown(part.into())),
            }
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        if !(1..=32).contains(&spec.id.len()) || !spec.id.bytes().all(plain) {
            return Err(Error::Id);
        }
        Ok(spec)
    }
}

fn queues(number: &str) -> Result<u32, Error> {
    let parsed = number.parse().ok();
    parsed
        .filter(|n| (1..=MAX_QUEUES).contains(n))
        .ok_or(Error::Queues)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_are_understood_or_refused_with_a_reason() {
        let spec = |text: &str| text.parse::<HbaSpec>();
        let id = "fast".to_string();
        let queues = Some(4);
        assert_eq!(spec("id=fast,queues=4"), Ok(HbaSpec { id, queues }));
        assert_eq!(spec("queues=4"), Err(Error::Id));
        assert_eq!(spec("id=a b"), Err(Error::Id));
        assert_eq!(spec("id=a,queues=0"), Err(Error::Queues));
        assert_eq!(spec("id=a,queues=65"), Err(Error::Queues));
        assert_eq!(spec("a"), Err(Error::Unknown("a".into())));
    }
}
