// SPDX-License-Identifier: GPL-2.0

//! What the host modules need.

mod bios;
mod block_file;
mod debug_file;
mod drain;
mod eventfd;
mod pinned;
mod queue_map;
mod worker;

pub use bios::{Batch, BioOwner, Bios, Op};
pub use block_file::BlockFile;
pub use debug_file::{DebugFile, DebugRoot, Show};
pub use eventfd::{Call, Kick};
pub use pinned::{PinError, PinnedMemory};
pub use queue_map::MappedQueue;
pub use worker::{More, Serve, Worker};
