// SPDX-License-Identifier: GPL-2.0

//! Trace events of a request (`trace_host.h`). Usable in any context.
//!
//! The kernel crate's `declare_trace!` takes tracepoints that the kernel's own bindings know, and so none of a module's.

use avio_abi::ring::Submission;
use avio_abi::stor::Status;
use avio_bindings as bindings;

/// Which queue of which adapter.
#[derive(Clone, Copy)]
pub struct Origin {
    /// The number of the adapter's file in debugfs.
    pub adapter: u32,
    /// The queue's number.
    pub queue: u32,
}

impl Origin {
    /// A request was taken from the ring.
    #[inline]
    pub fn taken(self, entry: &Submission) {
        let (Self { adapter, queue }, opcode, sector) = (self, entry.opcode, entry.sector);
        // SAFETY: No requirements.
        unsafe {
            bindings::avio_trace_taken(adapter, queue, entry.tag, entry.lun, opcode, sector);
        }
    }

    /// A request with so many bytes of data goes to the block layer.
    #[inline]
    pub fn submitted(self, tag: u16, bytes: u32) {
        // SAFETY: No requirements.
        unsafe { bindings::avio_trace_submitted(self.adapter, self.queue, tag, bytes) }
    }

    /// A request is answered so.
    #[inline]
    pub fn answered(self, tag: u16, status: Status, bytes: u32) {
        let Self { adapter, queue } = self;
        // SAFETY: No requirements.
        unsafe { bindings::avio_trace_answered(adapter, queue, tag, status as u8, bytes) }
    }
}
