// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0

//! The state in which virtual processors start.

pub mod cpuid;
pub mod state;
