// SPDX-License-Identifier: GPL-2.0

//! What one open file of `/dev/avio-stor` is: an adapter.
//!
//! Calls of one adapter exclude each other by its lock, which no data path takes. Arguments are copied, and memory is
//! pinned, before the lock is taken, since the caller can make either last as long as it likes. Closing the file drops
//! everything: first the doorbells and workers, then the queues, each of which waits for what is in flight, then LUNs
//! and memory.

use crate::calls::{call, Refusal};
use crate::state::State;
use avio_abi::ioctl::{self, Info, Region, SetMemory, SetupError};
use avio_abi::wire::Wire;
use avio_abi::{features, ABI_VERSION, MAX_LUNS, MAX_QUEUES, MAX_QUEUE_SIZE, MAX_REGIONS};
use avio_core::regions::check_regions;
use avio_sys::host::{DebugFile, PinnedMemory, Show};
use kernel::alloc::KVVec;
use kernel::fmt;
use kernel::fs::File;
use kernel::miscdevice::{MiscDevice, MiscDeviceRegistration};
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::{Arc, Mutex};
use kernel::time::delay::fsleep;
use kernel::time::Delta;
use kernel::uaccess::{UserPtr, UserSlice};

/// How often debugfs looks whether no call goes on, and the time between: longer than calls wait for a backing. Not
/// without end, as the file's removal waits for its readers.
const LOOKS: u32 = 120;
const PAUSE: Delta = Delta::from_millis(10);

/// An adapter's state under its lock.
#[pin_data]
pub(crate) struct Locked {
    #[pin]
    state: Mutex<State>,
}

impl Show for Locked {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for _ in 0..LOOKS {
            if let Some(state) = self.state.try_lock() {
                return state.show(f);
            }
            fsleep(PAUSE);
        }
        writeln!(f, "adapter busy")
    }
}

/// An open file of `/dev/avio-stor`.
pub(crate) struct Adapter(DebugFile<Locked>);

/// The number that the next adapter is shown by.
static NEXT: Atomic<u32> = Atomic::new(0);

#[vtable]
impl MiscDevice for Adapter {
    type Ptr = KBox<Self>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        let number = NEXT.fetch_add(1, Relaxed);
        let state = State::new(number)?;
        let locked = Arc::pin_init(
            pin_init!(Locked { state <- new_mutex!(state) }),
            GFP_KERNEL_ACCOUNT,
        )?;
        let name = CString::try_from_fmt(fmt!("stor{number}"))?;
        Ok(KBox::new(
            Self(DebugFile::new(&name, locked)?),
            GFP_KERNEL_ACCOUNT,
        )?)
    }

    fn ioctl(adapter: &Self, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        let state = &adapter.0.shown().state;
        match cmd {
            ioctl::GET_INFO => call(arg, |info: &mut Info| {
                *info = Info {
                    leaving: state.lock().leaving(),
                    ..INFO
                };
                Ok(())
            }),
            ioctl::SET_MEMORY => call(arg, |call| {
                let memory = pin(call)?;
                state.lock().set_memory(memory)
            }),
            ioctl::ADD_LUN => call(arg, |call| state.lock().add_lun(call)),
            ioctl::REMOVE_LUN => call(arg, |call| state.lock().remove_lun(call)),
            ioctl::SET_FEATURES => call(arg, |call| state.lock().set_features(call)),
            ioctl::SET_QUEUE => call(arg, |call| state.lock().set_queue(call)),
            ioctl::START => call(arg, |call| state.lock().start(call)),
            ioctl::STOP => state.lock().stop(),
            ioctl::GET_QUEUE => call(arg, |call| state.lock().get_queue(call)),
            ioctl::UPDATE_LUN => call(arg, |call| state.lock().update_lun(call)),
            ioctl::SET_LIMITS => call(arg, |call| state.lock().set_limits(call)),
            ioctl::GET_LUN => call(arg, |call| state.lock().get_lun(call)),
            ioctl::QUIESCE => state.lock().quiesce(),
            ioctl::RESUME => state.lock().resume(),
            ioctl::TASK => call(arg, |call| state.lock().task(call)),
            ioctl::SET_POLL => call(arg, |call| state.lock().set_poll(call)),
            _ => Err(ENOTTY),
        }
    }
}

const INFO: Info = Info {
    version: ABI_VERSION,
    max_queues: MAX_QUEUES,
    max_queue_size: MAX_QUEUE_SIZE,
    max_luns: MAX_LUNS,
    features: features::ALL,
    leaving: 0,
    reserved: [0; 4],
};

/// Pins the memory that the caller describes; none if it describes none.
fn pin(call: &mut SetMemory) -> Result<Option<Arc<PinnedMemory>>, Refusal> {
    call.pages = 0;
    if call.reserved != 0 {
        return Err(SetupError::Reserved.into());
    }
    if call.count > MAX_REGIONS {
        return Err(SetupError::TooManyRegions.into());
    }
    if call.count == 0 {
        return Ok(None);
    }
    let regions = copy_regions(call)?;
    check_regions(&regions).map_err(|(error, index)| Refusal::at(error, index))?;
    let memory =
        PinnedMemory::pin(&regions).map_err(|refused| Refusal::at(refused.error, refused.index))?;
    call.pages = memory.pages();
    Ok(Some(Arc::new(memory, GFP_KERNEL_ACCOUNT)?))
}

/// Copies the caller's regions, once.
fn copy_regions(call: &SetMemory) -> Result<KVVec<Region>, Refusal> {
    let len = call.count as usize * Region::SIZE;
    let addr = usize::try_from(call.regions).map_err(|_| Refusal::from(EFAULT))?;
    let mut bytes = KVVec::zeroed(len, GFP_KERNEL_ACCOUNT)?;
    UserSlice::new(UserPtr::from_addr(addr), len)
        .reader()
        .read_slice(&mut bytes)?;
    let mut regions = KVVec::with_capacity(call.count as usize, GFP_KERNEL_ACCOUNT)?;
    let mut rest: &[u8] = &bytes;
    while let Some((region, behind)) = Region::take(rest) {
        regions.push(region, GFP_KERNEL_ACCOUNT)?;
        rest = behind;
    }
    Ok(regions)
}
