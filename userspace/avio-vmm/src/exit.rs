// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! How a run ends. Any thread may say so; the event loop hears of it through an eventfd, and the first word counts.

use std::io;
use std::sync::{Arc, OnceLock};

use vmm_sys_util::eventfd::EventFd;

/// How the guest's run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest switched itself off.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// Somebody ended it through the control socket.
    Quit,
    /// It could not go on.
    Failed(String),
}

/// Ends the run. Clones end the same run.
#[derive(Clone)]
pub struct Exit {
    inner: Arc<Inner>,
}

struct Inner {
    event: EventFd,
    outcome: OnceLock<Outcome>,
}

impl Exit {
    /// A run that has not ended.
    pub fn new() -> io::Result<Self> {
        let event = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        Ok(Self {
            inner: Arc::new(Inner {
                event,
                outcome: OnceLock::new(),
            }),
        })
    }

    /// Ends the run, unless it has ended already.
    pub fn end(&self, outcome: Outcome) {
        tracing::debug!(?outcome, "the run ends");
        let _ = self.inner.outcome.set(outcome);
        // Can only fail when the counter is full, and then the event loop is awake already.
        let _ = self.inner.event.write(1);
    }

    /// Readable once the run has ended.
    pub fn event(&self) -> &EventFd {
        &self.inner.event
    }

    /// How it ended.
    pub fn outcome(&self) -> Option<Outcome> {
        self.inner.outcome.get().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_counts() {
        let exit = Exit::new().unwrap();
        assert_eq!(exit.outcome(), None);
        assert!(exit.event().read().is_err());
        exit.clone().end(Outcome::PowerOff);
        exit.end(Outcome::Reset);
        assert_eq!(exit.outcome(), Some(Outcome::PowerOff));
        assert!(exit.event().read().is_ok());
    }
}
