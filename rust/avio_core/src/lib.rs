// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The pure logic of AVIO: rings, guest memory, requests.
//!
//! No `unsafe`, no allocation, no kernel crate: the same code runs in the host module, in the guest driver, in user
//! space, under Loom and under KUnit. Values that come from the other side are parsed here into types that hold only
//! legal values; nothing in here panics on any input.
//!
//! - [`ring`]: both ends of a queue pair.
//! - [`regions`]: what a caller may say guest memory is.
//! - [`memory`]: from guest-physical addresses to host page frames.
//! - [`request`] and [`segments`]: from a submission entry to a storage request.
//! - [`cut`]: from a request's memory to bios.
//! - [`limits`]: how fast a LUN may be used.
//! - [`poll`]: how long a worker looks for work before it sleeps, and (`aside`) whether it lets others run first.
//! - [`coalesce`]: when a driver asks for its next interrupt.
//! - [`linger`]: how long it looks for a completion before that.
//! - [`hold`]: when to try again what did not pay.
//! - [`visits`]: who serves a queue whose doorbell was rung.
//! - [`latency`]: how long requests take, in classes.

#![cfg_attr(not(any(test, avio_kernel)), no_std)]
#![deny(unsafe_code)]
#![warn(missing_docs)]

mod aside;
pub mod coalesce;
pub mod cut;
pub mod hold;
pub mod latency;
pub mod limits;
pub mod linger;
pub mod memory;
pub mod poll;
pub mod regions;
pub mod request;
pub mod ring;
pub mod segments;
pub mod sync;
pub mod visits;
