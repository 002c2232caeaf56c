// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The log on standard error. A guest can bring the same lines about over and over, by resetting itself if in no other way;
//! so there are so many of a kind in a minute only, and none is lost for those of another kind. What is asked for to find a
//! fault, `debug` and `trace`, is not limited.

use std::collections::HashMap;
use std::io::{stderr, Stderr, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::writer::{MakeWriter, OptionalWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Most lines of a kind in a period: a host that loses all disks of an adapter at once has one for each.
const LINES: u32 = 256;
const PERIOD: Duration = Duration::from_secs(60);

/// Begins to log what passes this filter.
pub fn start(filter: &str) -> Result<(), String> {
    let targets: Targets = filter.parse().map_err(|e| format!("--log {filter}: {e}"))?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(Limited(Mutex::default()))
        .without_time();
    tracing_subscriber::registry()
        .with(targets)
        .with(lines)
        .init();
    Ok(())
}

/// What is to become of a line.
#[derive(Debug, PartialEq)]
enum Fate {
    Written,
    /// It is the first of its period that is left out.
    Replaced,
    LeftOut,
}

/// The lines of one kind in a period.
struct Count {
    began: Instant,
    lines: u32,
}

impl Count {
    fn new(now: Instant) -> Self {
        Self {
            began: now,
            lines: 0,
        }
    }

    fn one_more(&mut self, now: Instant) -> Fate {
        if now.saturating_duration_since(self.began) >= PERIOD {
            *self = Self::new(now);
        }
        self.lines = self.lines.saturating_add(1);
        match self.lines {
            ..=LINES => Fate::Written,
            lines if lines == LINES + 1 => Fate::Replaced,
            _ => Fate::LeftOut,
        }
    }
}

/// Standard error, which takes no more lines than it may. Counts them by where in the program they are written.
struct Limited(Mutex<HashMap<Identifier, Count>>);

impl<'a> MakeWriter<'a> for Limited {
    type Writer = OptionalWriter<Stderr>;

    fn make_writer(&'a self) -> Self::Writer {
        OptionalWriter::some(stderr())
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Self::Writer {
        if *event.level() > Level::INFO {
            return self.make_writer();
        }
        let now = Instant::now();
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts
            .entry(event.callsite())
            .or_insert_with(|| Count::new(now));
        let fate = count.one_more(now);
        drop(counts);
        match fate {
            Fate::Written => self.make_writer(),
            Fate::Replaced => {
                let _ = writeln!(
                    stderr(),
                    "avio-vmm: more than {LINES} lines like the last in a minute; the rest of them are left out"
                );
                OptionalWriter::none()
            }
            Fate::LeftOut => OptionalWriter::none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_off_and_said_to_be_so_once() {
        let began = Instant::now();
        let mut count = Count::new(began);
        for line in 0..LINES {
            let now = began + PERIOD * line / (2 * LINES);
            assert_eq!(count.one_more(now), Fate::Written, "line {line}");
        }
        assert_eq!(count.one_more(began + PERIOD / 2), Fate::Replaced);
        let last = began + PERIOD - Duration::from_nanos(1);
        for now in [began + PERIOD / 2, last, began] {
            assert_eq!(count.one_more(now), Fate::LeftOut);
        }
    }

    #[test]
    fn the_next_period_has_as_many_lines() {
        let began = Instant::now();
        let mut count = Count::new(began);
        for period in 0..3 {
            let now = began + period * PERIOD;
            let written = (0..2 * LINES).filter(|_| count.one_more(now) == Fate::Written);
            assert_eq!(written.count(), LINES as usize);
        }
    }
}
