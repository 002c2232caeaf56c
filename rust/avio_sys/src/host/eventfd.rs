// SPDX-License-Identifier: GPL-2.0

//! Eventfds: the signalling end, by which an interrupt is raised, and the other, by which a doorbell is heard.
//!
//! C header: `include/linux/eventfd.h`. The kernel crate has no wrapper for them.

use avio_bindings as bindings;
use core::ptr::NonNull;
use kernel::error::{from_err_ptr, Result};
use kernel::prelude::*;

/// An eventfd that is signalled by the kernel. Usable from interrupt context.
///
/// # Invariants
///
/// The pointer is a context to which we own a reference.
pub struct Call(NonNull<bindings::eventfd_ctx>);

// SAFETY: An eventfd context is reference-counted and locks itself.
unsafe impl Send for Call {}
// SAFETY: As above.
unsafe impl Sync for Call {}

impl Call {
    /// Takes a reference to the eventfd behind a descriptor of the calling process.
    ///
    /// # Errors
    ///
    /// `EBADF` if there is no such descriptor, `EINVAL` if it is not an eventfd.
    pub fn from_fd(fd: i32) -> Result<Self> {
        // SAFETY: The function checks the descriptor; it has no other requirement.
        let context = from_err_ptr(unsafe { bindings::eventfd_ctx_fdget(fd) })?;
        // INVARIANT: On success the function hands over a reference.
        NonNull::new(context).map(Self).ok_or(EINVAL)
    }

    /// Signals it.
    pub fn signal(&self) {
        // SAFETY: By the type's invariant the context is alive.
        unsafe { bindings::eventfd_signal_mask(self.0.as_ptr(), 0) }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant the reference is ours to give up.
        unsafe { bindings::eventfd_ctx_put(self.0.as_ptr()) }
    }
}

/// An eventfd that the kernel listens to.
///
/// # Invariants
///
/// The pointer is the file of an eventfd, to which we own a reference.
pub struct Kick(NonNull<bindings::file>);

// SAFETY: Files are reference-counted and lock themselves.
unsafe impl Send for Kick {}
// SAFETY: As above.
unsafe impl Sync for Kick {}

impl Kick {
    /// Takes a reference to the eventfd behind a descriptor of the calling process.
    ///
    /// # Errors
    ///
    /// `EBADF` if there is no such descriptor, `EINVAL` if it is not an eventfd.
    pub fn from_fd(fd: i32) -> Result<Self> {
        // SAFETY: The function checks the descriptor; it has no other requirement.
        let file = from_err_ptr(unsafe { bindings::eventfd_fget(fd) })?;
        // INVARIANT: On success the function hands over a reference to an eventfd's file.
        NonNull::new(file).map(Self).ok_or(EINVAL)
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::file {
        self.0.as_ptr()
    }
}

impl Drop for Kick {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant the reference is ours to give up.
        unsafe { bindings::fput(self.0.as_ptr()) }
    }
}
