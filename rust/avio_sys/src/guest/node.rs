// SPDX-License-Identifier: GPL-2.0

//! A device node with a name of its own and calls, for the administrator alone.
//!
//! The kernel crate's misc devices have names that are fixed at compile time, and cannot find the data of their
//! registration.

use core::ffi::{c_int, c_uint};
use core::mem::MaybeUninit;
use core::pin::Pin;
use kernel::error::to_result;
use kernel::ffi::{c_long, c_ulong};
use kernel::module::this_module;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::Arc;
use kernel::types::Opaque;
use kernel::ModuleMetadata;

/// What a node's calls do.
pub trait Calls: Send + Sync + 'static {
    /// The module that the code is in.
    type Module: ModuleMetadata;

    /// A call, in process context. The device may be gone already: open files outlive the node.
    fn ioctl(&self, command: u32, argument: usize) -> Result;
}

/// A node in `/dev`, until it is dropped.
///
/// # Invariants
///
/// `misc` is registered, and is the field of a `Node<T>`.
#[pin_data(PinnedDrop)]
pub struct Node<T: Calls> {
    /// C keeps a pointer to it.
    name: CString,
    data: Arc<T>,
    #[pin]
    misc: Opaque<avio_bindings::miscdevice>,
}

// SAFETY: A node may be removed by any thread.
unsafe impl<T: Calls> Send for Node<T> {}

// SAFETY: There is nothing to do with a shared reference.
unsafe impl<T: Calls> Sync for Node<T> {}

impl<T: Calls> Node<T> {
    /// A node with this name, which is for root alone.
    pub fn new(name: CString, data: Arc<T>) -> impl PinInit<Self, Error> {
        let text = name.as_char_ptr();
        try_pin_init!(Self {
            name,
            data,
            misc <- Opaque::try_ffi_init(move |misc: *mut avio_bindings::miscdevice| {
                // SAFETY: `misc` is valid for writes, and what it points to stays where it is. The name is on the
                // heap, and is dropped behind the registration. The other fields come before this one, so that they
                // are initialised when a file is opened.
                unsafe {
                    misc.write(avio_bindings::miscdevice {
                        minor: avio_bindings::MISC_DYNAMIC_MINOR as c_int,
                        name: text,
                        fops: &Self::OPS,
                        mode: 0o600,
                        ..MaybeUninit::zeroed().assume_init()
                    });
                    to_result(avio_bindings::misc_register(misc))
                }
            }),
        }? Error)
    }

    const OPS: avio_bindings::file_operations = avio_bindings::file_operations {
        owner: this_module::<T::Module>().as_ptr(),
        open: Some(Self::open),
        release: Some(Self::release),
        unlocked_ioctl: Some(Self::ioctl),
        #[cfg(CONFIG_COMPAT)]
        compat_ioctl: Some(Self::ioctl),
        // SAFETY: All fields are optional functions, pointers or integers, for which all zeroes is a legal value.
        ..unsafe { MaybeUninit::zeroed().assume_init() }
    };

    /// # Safety
    ///
    /// Only for the kernel, as the operation of this name.
    unsafe extern "C" fn open(
        _inode: *mut avio_bindings::inode,
        file: *mut avio_bindings::file,
    ) -> c_int {
        // SAFETY: `misc_open` has set the private data to the `miscdevice`, which is in a `Node<T>`, and keeps it
        // registered for the time of the call. From now on the file has a reference of its own to the data.
        unsafe {
            let misc = (*file)
                .private_data
                .cast::<Opaque<avio_bindings::miscdevice>>();
            let node = kernel::container_of!(misc, Self, misc);
            (*file).private_data = Arc::into_raw((*node).data.clone()).cast_mut().cast();
        }
        0
    }

    /// # Safety
    ///
    /// Only for the kernel, as the operation of this name.
    unsafe extern "C" fn release(
        _inode: *mut avio_bindings::inode,
        file: *mut avio_bindings::file,
    ) -> c_int {
        // SAFETY: `open` has put the reference there, and nobody uses the file any more.
        drop(unsafe { Arc::from_raw((*file).private_data.cast::<T>().cast_const()) });
        0
    }

    /// # Safety
    ///
    /// Only for the kernel, as the operation of this name.
    unsafe extern "C" fn ioctl(
        file: *mut avio_bindings::file,
        command: c_uint,
        argument: c_ulong,
    ) -> c_long {
        // SAFETY: `open` has put a reference there, which the file keeps.
        let data = unsafe { &*(*file).private_data.cast::<T>() };
        match data.ioctl(command, argument) {
            Ok(()) => 0,
            Err(error) => error.to_errno() as c_long,
        }
    }
}

#[pinned_drop]
impl<T: Calls> PinnedDrop for Node<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant it is registered.
        unsafe { avio_bindings::misc_deregister(self.misc.get()) };
    }
}
