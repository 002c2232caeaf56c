// SPDX-License-Identifier: GPL-2.0

//! The memory of a request, as runs.

use super::Request;
use core::marker::PhantomData;

impl Request {
    /// No fewer than its [`runs`](Self::runs).
    #[inline]
    pub fn max_runs(&self) -> usize {
        // SAFETY: By the type invariant the request is valid.
        unsafe { (*self.0.as_ptr()).nr_phys_segments }.into()
    }

    /// Its data, as runs of physically contiguous memory.
    #[inline]
    pub fn runs(&self) -> Runs<'_> {
        // SAFETY: By the type invariant the request is valid, and so are the bios that it consists of.
        let (bio, iter) = unsafe {
            let bio = (*self.0.as_ptr()).bio;
            (
                bio,
                if bio.is_null() {
                    Default::default()
                } else {
                    (*bio).bi_iter
                },
            )
        };
        Runs {
            bio,
            iter,
            ahead: None,
            _request: PhantomData,
        }
    }
}

/// A run of physically contiguous memory.
#[derive(Clone, Copy)]
pub struct Run {
    /// Physical address.
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
}

/// The runs of memory of a request, as long as they can be.
pub struct Runs<'a> {
    bio: *mut avio_bindings::bio,
    iter: avio_bindings::bvec_iter,
    /// The run that did not continue the last one.
    ahead: Option<Run>,
    _request: PhantomData<&'a Request>,
}

impl Runs<'_> {
    #[inline]
    fn piece(&mut self) -> Option<Run> {
        let mut run = Run { addr: 0, len: 0 };
        // SAFETY: The position is one in the data of a request, which is borrowed.
        let found = unsafe {
            avio_bindings::avio_rq_next_run(
                &mut self.bio,
                &mut self.iter,
                &mut run.addr,
                &mut run.len,
            )
        };
        found.then_some(run)
    }
}

impl Iterator for Runs<'_> {
    type Item = Run;

    #[inline]
    fn next(&mut self) -> Option<Run> {
        let mut run = self.ahead.take().or_else(|| self.piece())?;
        while let Some(next) = self.piece() {
            match run.len.checked_add(next.len) {
                Some(len) if run.addr.wrapping_add(run.len.into()) == next.addr => run.len = len,
                _ => {
                    self.ahead = Some(next);
                    break;
                }
            }
        }
        Some(run)
    }
}
