// SPDX-License-Identifier: GPL-2.0

//! MSI-X vectors whose affinity the kernel spreads over the processors, and their handlers.
//!
//! The kernel crate's vectors are neither spread nor can they be kept in one structure with their handlers.

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use kernel::device;
use kernel::error::to_result;
use kernel::pci;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::Arc;

/// What an interrupt does.
pub trait Handler: Send + Sync + 'static {
    /// Called in interrupt context, not while a call for the same vector runs.
    fn handle(&self);
}

/// The MSI-X vectors of a device. Those from `first` on are each for some of the processors.
///
/// # Invariants
///
/// The device has `count` vectors, which are freed when this is dropped.
pub struct Vectors<'a> {
    device: &'a pci::Device<device::Bound>,
    first: u32,
    count: u32,
}

impl<'a> Vectors<'a> {
    /// Allocates `first` vectors for other purposes, and from one to `most` spread ones.
    pub fn new(device: &'a pci::Device<device::Bound>, first: u32, most: u32) -> Result<Self> {
        let affinity = avio_bindings::irq_affinity {
            pre_vectors: first,
            // SAFETY: Integers and an optional function, for which all zeroes is a legal value.
            ..unsafe { MaybeUninit::zeroed().assume_init() }
        };
        let flags = avio_bindings::PCI_IRQ_MSIX | avio_bindings::PCI_IRQ_AFFINITY;
        // SAFETY: The device is bound. The affinity is only read during the call, though C does not say so.
        let count = unsafe {
            avio_bindings::pci_alloc_irq_vectors_affinity(
                as_raw(device),
                first.saturating_add(1),
                first.saturating_add(most),
                flags,
                (&raw const affinity).cast_mut(),
            )
        };
        to_result(count)?;
        // INVARIANT: Just allocated. Not negative, as it is no error.
        Ok(Self {
            device,
            first,
            count: count as u32,
        })
    }

    /// How many spread vectors there are.
    pub fn spread(&self) -> u32 {
        self.count.saturating_sub(self.first)
    }
}

impl Drop for Vectors<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the device has vectors, and none has a handler: `Interrupts` drops its
        // handlers first.
        unsafe { avio_bindings::pci_free_irq_vectors(as_raw(self.device)) };
    }
}

/// Handlers of the first vector and of the spread ones. They are called until this is dropped.
pub struct Interrupts<'a, C: Handler, H: Handler> {
    /// Dropped before the vectors.
    _config: Registered<C>,
    _handlers: KVec<Registered<H>>,
    _vectors: Vectors<'a>,
}

impl<'a, C: Handler, H: Handler> Interrupts<'a, C, H> {
    /// Has `config` called for vector 0, and each of `handlers` for a spread vector, from the first of them on. In
    /// `/proc/interrupts` they are `name` with `config` or their number behind.
    pub fn new(
        vectors: Vectors<'a>,
        name: &str,
        config: Arc<C>,
        handlers: &[Arc<H>],
    ) -> Result<Self> {
        let text = CString::try_from_fmt(fmt!("{name}-config"))?;
        let config = Registered::new(&vectors, 0, text, config)?;
        let mut registered = KVec::with_capacity(handlers.len(), GFP_KERNEL)?;
        for (index, handler) in (0..vectors.spread()).zip(handlers) {
            let text = CString::try_from_fmt(fmt!("{name}-q{index}"))?;
            let vector = vectors.first.saturating_add(index);
            registered.push(
                Registered::new(&vectors, vector, text, handler.clone())?,
                GFP_KERNEL,
            )?;
        }
        if registered.len() != handlers.len() {
            return Err(ENOSPC);
        }
        Ok(Self {
            _config: config,
            _handlers: registered,
            _vectors: vectors,
        })
    }
}

/// A handler of one interrupt.
///
/// # Invariants
///
/// `irq` has a handler whose cookie is the address of what `handler` points to.
struct Registered<H: Handler> {
    irq: u32,
    handler: Arc<H>,
    /// C keeps a pointer to it.
    _name: CString,
}

impl<H: Handler> Registered<H> {
    fn new(vectors: &Vectors<'_>, vector: u32, name: CString, handler: Arc<H>) -> Result<Self> {
        // SAFETY: The device is bound; any vector may be asked for.
        let irq = unsafe { avio_bindings::pci_irq_vector(as_raw(vectors.device), vector) };
        to_result(irq)?;
        let irq = irq as u32;
        // SAFETY: The interrupt is one of the device's. The cookie is what the callback expects, and it and the name
        // stay until `drop` has freed the interrupt.
        to_result(unsafe {
            avio_bindings::request_irq(
                irq,
                Some(Self::call),
                0,
                name.as_char_ptr(),
                Arc::as_ptr(&handler) as *mut c_void,
            )
        })?;
        // INVARIANT: Just set.
        Ok(Self {
            irq,
            handler,
            _name: name,
        })
    }

    /// # Safety
    ///
    /// Only for the interrupt that [`Registered::new`] asks for.
    unsafe extern "C" fn call(_irq: c_int, cookie: *mut c_void) -> avio_bindings::irqreturn_t {
        // SAFETY: The cookie is the address of an `H` that lives until the interrupt was freed.
        unsafe { &*cookie.cast::<H>() }.handle();
        avio_bindings::irqreturn_t(avio_bindings::irqreturn::IRQ_HANDLED.0)
    }
}

impl<H: Handler> Drop for Registered<H> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the interrupt has our handler. This waits until none is running.
        unsafe { avio_bindings::free_irq(self.irq, Arc::as_ptr(&self.handler) as *mut c_void) };
    }
}

/// In an interrupt handler: whether the processor had nothing to do when the interrupt came.
pub fn found_idle() -> bool {
    // SAFETY: No requirements: it looks at the current task.
    unsafe { avio_bindings::avio_current_is_idle() }
}

fn as_raw(device: &pci::Device<device::Bound>) -> *mut avio_bindings::pci_dev {
    // A `pci::Device` is a transparent wrapper of the C structure.
    core::ptr::from_ref(device).cast_mut().cast()
}
