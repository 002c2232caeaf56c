// SPDX-License-Identifier: GPL-2.0

//! What the guest drivers need and the kernel crate does not have.
//!
//! - [`memory`]: memory whose physical address the device is told, and a queue pair in it.
//! - [`request`]: block requests as owned values; [`in_flight`]: the table of those that a device has.
//! - [`blkmq`]: hardware queues of a block driver and their tag set.
//! - [`disk`]: block devices on a tag set; [`partitions`]: looking for theirs.
//! - [`irq`]: MSI-X vectors with spread affinity, and their handlers.
//! - [`index`]: numbers for names.
//! - [`no_io`]: allocations that wait for no block device.
//! - [`node`]: a device node with calls.
//! - [`processor`]: who wants it, and its clock.
//! - [`trace`]: trace events of requests.
//! - [`work`]: waiting for work items.
//! - [`pci`]: PCI IDs.

pub mod blkmq;
pub mod disk;
pub mod in_flight;
pub mod index;
pub mod irq;
pub mod memory;
pub mod no_io;
pub mod node;
mod partitions;
pub mod pci;
pub mod processor;
pub mod request;
pub mod trace;
pub mod work;
