// SPDX-License-Identifier: GPL-2.0

//! The module's directory in debugfs, and text files in it.
//!
//! The kernel crate's debugfs files have no owner: one that is held open keeps operations in use that go with the
//! module. Ours are C's `DEFINE_SHOW_ATTRIBUTE`, which hold the module as long as a file is open.

use avio_bindings as bindings;
use core::ffi::c_void;
use core::ptr::NonNull;
use kernel::fmt;
use kernel::prelude::*;
use kernel::seq_file::SeqFile;
use kernel::seq_print;
use kernel::sync::Arc;

/// The module's directory. It goes when this is dropped.
pub struct DebugRoot(());

impl DebugRoot {
    /// Makes the directory. A module has one.
    pub fn new(name: &CStr) -> Self {
        // SAFETY: The name is a C string.
        unsafe { bindings::avio_debug_init(name.as_char_ptr()) };
        Self(())
    }
}

impl Drop for DebugRoot {
    fn drop(&mut self) {
        // SAFETY: No requirements; it was made in `new`.
        unsafe { bindings::avio_debug_exit() };
    }
}

/// Something that can be shown as text. May sleep.
pub trait Show: Send + Sync + 'static {
    /// Writes the text.
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// A file that shows something. It goes when this is dropped.
///
/// # Invariants
///
/// `file` is a file whose argument is `shown`.
pub struct DebugFile<T: Show> {
    file: NonNull<c_void>,
    shown: Arc<T>,
}

// SAFETY: The file is only removed through the pointer; what it shows is `Send + Sync`.
unsafe impl<T: Show> Send for DebugFile<T> {}
// SAFETY: As above.
unsafe impl<T: Show> Sync for DebugFile<T> {}

impl<T: Show> DebugFile<T> {
    /// Makes a file in the module's directory.
    ///
    /// # Errors
    ///
    /// `ENOMEM`. Failures of debugfs itself are not errors: there is then no file.
    pub fn new(name: &CStr, shown: Arc<T>) -> Result<Self> {
        let arg: *const T = &*shown;
        // SAFETY: The name is a C string. `shown` stays until the file was removed (`drop`).
        let file = unsafe {
            bindings::avio_debug_create(name.as_char_ptr(), Some(show::<T>), arg.cast_mut().cast())
        };
        // INVARIANT: Just made so.
        NonNull::new(file)
            .map(|file| Self { file, shown })
            .ok_or(ENOMEM)
    }

    /// What the file shows.
    pub fn shown(&self) -> &Arc<T> {
        &self.shown
    }
}

impl<T: Show> Drop for DebugFile<T> {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant. The call waits until nobody is in `show`.
        unsafe { bindings::avio_debug_remove(self.file.as_ptr()) };
    }
}

/// Lets [`Show`] be printed.
struct Shown<'a, T>(&'a T);

impl<T: Show> fmt::Display for Shown<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.show(f)
    }
}

/// # Safety
///
/// `m` is a sequence file that is being read, `arg` a `T` that is alive.
unsafe extern "C" fn show<T: Show>(m: *mut bindings::seq_file, arg: *mut c_void) {
    // SAFETY: By the function's requirement.
    let (m, shown) = unsafe { (SeqFile::from_raw(m), &*arg.cast::<T>()) };
    seq_print!(m, "{}", Shown(shown));
}
