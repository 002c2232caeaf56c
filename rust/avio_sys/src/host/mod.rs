// SPDX-License-Identifier: GPL-2.0

//! What the host modules need.

mod bios;
mod block_file;
mod cgroup;
mod debug_file;
mod deferred;
mod disk;
mod drain;
mod eventfd;
mod flight;
mod pinned;
mod queue_map;
mod time;
mod trace;
mod visit;
mod worker;

pub use bios::{Batch, BioOwner, Bios};
pub use block_file::BlockFile;
pub use cgroup::Cgroup;
pub use debug_file::{DebugFile, DebugRoot, Show};
pub use disk::{Disk, Entered};
pub use eventfd::{Call, Kick};
pub use flight::Op;
pub use pinned::{PinError, PinnedMemory};
pub use queue_map::MappedQueue;
pub use time::{alone, now_ns, step_aside, wait_until};
pub use trace::Origin;
pub use visit::VisitsEnd;
pub use worker::{More, Serve, Waker, Worker};
