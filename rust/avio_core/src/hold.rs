// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! How long to leave be what did not pay when it was tried last: longer each time that it does not.

/// Occasions that go by after the first time in vain.
const FIRST: u32 = 8;

/// The same, at most.
const LAST: u32 = 4096;

/// When to try something again that costs more than it brings if it is in vain.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    /// Occasions to let go by.
    left: u32,
    /// What `left` is to be the next time.
    next: u32,
}

impl Hold {
    /// To be tried at once.
    pub const fn new() -> Self {
        Self {
            left: 0,
            next: FIRST,
        }
    }

    /// There is an occasion: whether to try.
    pub const fn is_over(&mut self) -> bool {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                false
            }
            None => true,
        }
    }

    /// It was in vain.
    pub fn in_vain(&mut self) {
        self.left = self.next;
        self.next = self.next.saturating_mul(2).min(LAST);
    }

    /// It has paid: should it be in vain again, the first hold is short.
    pub const fn paid(&mut self) {
        self.next = FIRST;
    }
}

impl Default for Hold {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg_attr(avio_kunit, kernel::macros::kunit_tests(avio_hold))]
#[cfg(any(test, avio_kunit))]
mod tests {
    use super::*;

    /// Occasions that go by until it is to be tried.
    fn wait(hold: &mut Hold) -> u32 {
        let mut occasions = 0;
        while !hold.is_over() {
            occasions += 1;
        }
        occasions
    }

    #[test]
    fn what_pays_is_tried_each_time() {
        let mut hold = Hold::new();
        for _ in 0..10 {
            assert_eq!(wait(&mut hold), 0);
            hold.paid();
        }
    }

    #[test]
    fn what_is_in_vain_is_tried_less_and_less_but_never_given_up() {
        let mut hold = Hold::new();
        for expected in [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 4096, 4096] {
            hold.in_vain();
            assert_eq!(wait(&mut hold), expected);
        }
        hold.paid();
        hold.in_vain();
        assert_eq!(wait(&mut hold), FIRST);
    }
}
