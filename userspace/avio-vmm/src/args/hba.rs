// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! `--hba`: a storage adapter.

use std::str::FromStr;

use avio_abi::{features, MAX_QUEUES};

use super::disk::given_twice;
use super::WEIGHTS;

/// An adapter of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HbaSpec {
    /// Its name for `--disk` and the control socket.
    pub id: String,
    /// Queue pairs; `None` for as many as `--queues` says.
    pub queues: Option<u32>,
    /// Its weight among the adapters.
    pub weight: Option<u32>,
    /// `avio_abi::features` that it does without.
    pub without: u64,
}

/// Why an adapter was not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No or an odd ID.
    #[error("id= takes 1 to 32 letters, digits, '-' and '_'")]
    Id,
    /// A key that is not known.
    #[error("'{0}' is unknown; known are id=, queues=, weight= and without=")]
    Unknown(String),
    /// A key that is there twice.
    #[error("{0} is given twice")]
    Twice(String),
    /// A number of queues that is out of range.
    #[error("queues= takes a number from 1 to {MAX_QUEUES}")]
    Queues,
    /// A weight that is out of range.
    #[error("weight= takes a number from {} to {}", WEIGHTS.start(), WEIGHTS.end())]
    Weight,
    /// A feature that is not known, or that no adapter can do without.
    #[error("without= takes names with '+' between them, of {known}; not '{name}'", known = known())]
    Feature {
        /// What was given.
        name: String,
    },
}

impl FromStr for HbaSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(key) = given_twice(text) {
            return Err(Error::Twice(key.into()));
        }
        let mut spec = Self {
            id: String::new(),
            queues: None,
            weight: None,
            without: 0,
        };
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("id", id)) => spec.id = id.into(),
                Some(("queues", number)) => spec.queues = Some(queues(number)?),
                Some(("weight", number)) => spec.weight = Some(weight(number)?),
                Some(("without", names)) => spec.without = without(names)?,
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

fn weight(number: &str) -> Result<u32, Error> {
    let parsed = number.parse().ok();
    parsed.filter(|n| WEIGHTS.contains(n)).ok_or(Error::Weight)
}

/// The features that an adapter can do without, with their names here. A guest that cannot flush could lose what it believes
/// to be written.
fn optional() -> impl Iterator<Item = (u64, String)> {
    let optional = features::NAMES
        .iter()
        .filter(|(bit, _)| *bit != features::FLUSH);
    optional.map(|(bit, name)| (*bit, name.to_ascii_lowercase().replace('_', "-")))
}

fn known() -> String {
    optional()
        .map(|(_, name)| name)
        .collect::<Vec<_>>()
        .join(", ")
}

fn without(names: &str) -> Result<u64, Error> {
    names.split('+').try_fold(0, |bits, wanted| {
        let found = optional().find(|(_, name)| name == wanted);
        let name = || wanted.to_string();
        found.map_or_else(
            || Err(Error::Feature { name: name() }),
            |(bit, _)| Ok(bits | bit),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_are_understood_or_refused_with_a_reason() {
        let spec = |text: &str| text.parse::<HbaSpec>();
        let id = "fast".to_string();
        let (queues, weight) = (Some(4), Some(10_000));
        let without = features::FUA | features::QUEUE_RESET;
        let wanted = HbaSpec {
            id,
            queues,
            weight,
            without,
        };
        let text = "id=fast,queues=4,weight=10000,without=fua+queue-reset";
        assert_eq!(spec(text), Ok(wanted));
        for (names, bad) in [("flush", "flush"), ("fua+", ""), ("FUA", "FUA")] {
            let error = Error::Feature { name: bad.into() };
            assert_eq!(spec(&format!("id=a,without={names}")), Err(error));
        }
        assert_eq!(spec("id=a,weight=0"), Err(Error::Weight));
        assert_eq!(spec("id=a,weight=10001"), Err(Error::Weight));
        assert_eq!(spec("queues=4"), Err(Error::Id));
        assert_eq!(spec("id=a b"), Err(Error::Id));
        assert_eq!(spec("id=a,queues=0"), Err(Error::Queues));
        assert_eq!(spec("id=a,queues=65"), Err(Error::Queues));
        assert_eq!(spec("a"), Err(Error::Unknown("a".into())));
        for (key, text) in [
            ("id", "id=a,id=b,queues=1,queues=4"),
            ("queues", "id=a,queues=1,queues=4"),
            ("without", "id=a,without=fua,without=fua"),
        ] {
            assert_eq!(spec(text), Err(Error::Twice(key.into())), "{text}");
        }
    }
}
