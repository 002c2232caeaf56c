// SPDX-License-Identifier: GPL-2.0

//! Safe wrappers over what the kernel crate does not have yet. All `unsafe` of the modules is here.
//!
//! The crate is built twice: [`host`] into the host modules and [`guest`] into the guest drivers, so that neither
//! needs kernel symbols that only the other has. [`queue_memory`] is for both.

#[cfg(avio_guest)]
pub mod guest;
#[cfg(avio_host)]
pub mod host;
pub mod queue_memory;
