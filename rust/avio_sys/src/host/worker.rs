// SPDX-License-Identifier: GPL-2.0

//! A worker thread that an eventfd wakes.
//!
//! The thread is a `vhost_task` (`kernel/vhost_task.c`): it belongs to the process that made it, so that CPU limits,
//! accounting and SIGKILL reach it as they reach the process. If it is a virtual processor that signals the eventfd, that can
//! be made to serve in its place.

use super::eventfd::Kick;
use super::time::now_ns;
use super::visit::Visit;
use avio_bindings as bindings;
use core::ffi::c_void;
use core::ptr;
use kernel::error::{from_err_ptr, Result};
use kernel::prelude::*;
use kernel::sync::atomic::{Acquire, Atomic, Full, Relaxed, Release};
use kernel::sync::{new_spinlock_irq, Arc, SpinLockIrq};

/// One of so many wake-ups is timed.
const TIMED: u64 = 16;

/// Whether a worker has more to do at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// Yes: the budget is used up.
    Yes,
    /// No: sleep until the next kick.
    No,
    /// Not before so many nanoseconds, or the next kick.
    In(u64),
}

/// What a worker does.
pub trait Serve: Send + Sync + 'static {
    /// Serves what has come. Runs in the worker's thread, may sleep, and should return after a bounded time. `woken_ns`
    /// is how long ago the kick came that woke it; zero if none did, or nobody looked at the clock.
    fn serve(&self, woken_ns: u64) -> More;

    /// The eventfd was signalled, by a virtual processor of the worker's process or not: whether that is to
    /// [`visit`](Self::visit) rather than to wake the worker. Called in any context, also while the worker serves.
    fn rung(&self, by_vcpu: bool) -> bool;

    /// Serves in the thread of a virtual processor, which does not run its guest meanwhile. Whether the worker has to be
    /// woken all the same.
    fn visit(&self) -> bool;

    /// What wakes the worker from any context.
    fn waker(&self) -> &Waker;
}

/// The way to wake a worker, while there is one.
#[pin_data]
pub struct Waker {
    #[pin]
    sleeper: SpinLockIrq<Option<Sleeper>>,
}

/// The parts of an [`Inner`] that a wake-up touches.
struct Sleeper {
    pending: *const Atomic<i32>,
    task: *mut c_void,
}

// SAFETY: The atomic and the task may be used from any thread.
unsafe impl Send for Sleeper {}

impl Waker {
    /// One that wakes nobody yet.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            sleeper <- new_spinlock_irq!(None, "avio_waker"),
        })
    }

    /// Has the worker look at once. Usable in any context.
    pub fn wake(&self) {
        if let Some(sleeper) = &*self.sleeper.lock() {
            // SAFETY: The worker takes itself out, under the lock, before its thread and its flag go.
            unsafe {
                (*sleeper.pending).store(1, Release);
                bindings::avio_task_wake(sleeper.task);
            }
        }
    }
}

struct Inner<T> {
    /// A `struct vhost_task`. Written once, before the thread runs and before the kick is attached.
    task: *mut c_void,
    pending: Atomic<i32>,
    /// Zero until [`Worker::go`].
    going: Atomic<i32>,
    kicks: Atomic<u64>,
    /// When a kick came for which the thread has yet to wake up, or zero.
    kicked: Atomic<u64>,
    /// How long to sleep at most, or zero. Only the thread uses it.
    sleep: Atomic<u64>,
    serve: Arc<T>,
    /// Set before the kick is attached.
    visit: Option<Visit>,
}

/// A thread that serves, whatever wakes it. Dropping it closes its visits, then ends the thread.
///
/// # Invariants
///
/// The pointer came from `KBox::into_raw`; its task runs until `drop`.
struct Thread<T: Serve>(*mut Inner<T>);

impl<T: Serve> Thread<T> {
    /// Starts one in the calling process.
    fn start(serve: Arc<T>, name: &CStr) -> Result<Self> {
        let inner = KBox::new(
            Inner {
                task: ptr::null_mut(),
                pending: Atomic::new(0),
                going: Atomic::new(0),
                kicks: Atomic::new(0),
                kicked: Atomic::new(0),
                sleep: Atomic::new(0),
                serve,
                visit: None,
            },
            GFP_KERNEL,
        )?;
        let inner = KBox::into_raw(inner);
        // SAFETY: Visits get `inner`, which stays until the visit was closed (`drop`; below there was none yet). Nobody else
        // has it yet.
        match unsafe { Visit::new(visited::<T>, inner.cast()) } {
            // SAFETY: As above.
            Ok(visit) => unsafe { (*inner).visit = Some(visit) },
            Err(error) => {
                // SAFETY: `into_raw` gave us the pointer.
                drop(unsafe { KBox::from_raw(inner) });
                return Err(error);
            }
        }
        // SAFETY: `run` and `killed` get `inner`, which stays until the thread has ended (`drop`, or below). The
        // slot for the task is written before the thread runs.
        let task = unsafe {
            bindings::avio_task_start(
                Some(run::<T>),
                Some(killed),
                inner.cast(),
                ptr::addr_of_mut!((*inner).task),
                name.as_char_ptr(),
            )
        };
        if let Err(error) = from_err_ptr(task) {
            // SAFETY: No thread was made, so nobody else has the pointer that `into_raw` gave us.
            drop(unsafe { KBox::from_raw(inner) });
            return Err(error);
        }
        // INVARIANT: The task runs.
        Ok(Self(inner))
    }
}

impl<T: Serve> Drop for Thread<T> {
    fn drop(&mut self) {
        // SAFETY: By the type's invariant all is ours, and no kick is attached that could begin a visit. Closing visits waits
        // for those that have begun, and ending the thread waits out `run`. After that nobody else has the pointer.
        unsafe {
            let visit = &*ptr::addr_of!((*self.0).visit);
            visit.as_ref().inspect(|visit| visit.close());
            bindings::avio_task_stop((*self.0).task);
            drop(KBox::from_raw(self.0));
        }
    }
}

/// A worker thread and the eventfd that wakes it. Dropping it detaches the eventfd, then ends the thread.
///
/// # Invariants
///
/// `kick` is attached until `drop`, with the pointer of `thread` as argument.
pub struct Worker<T: Serve> {
    thread: Thread<T>,
    kick: *mut c_void,
}

// SAFETY: All that is behind the pointers is atomic, or `Send + Sync`, or only used in `drop`.
unsafe impl<T: Serve> Send for Worker<T> {}
// SAFETY: As above.
unsafe impl<T: Serve> Sync for Worker<T> {}

impl<T: Serve> Worker<T> {
    /// Starts a thread in the calling process that serves whenever `kick` is signalled, but not before
    /// [`go`](Self::go).
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or what kept the thread from being made; `ERESTARTNOINTR` if a signal came in between.
    pub fn start(serve: Arc<T>, kick: &Kick, name: &CStr) -> Result<Self> {
        let thread = Thread::start(serve, name)?;
        let inner = thread.0;
        // SAFETY: The file is an eventfd. `kicked` gets `inner`, which stays until the kick was detached.
        let kick =
            unsafe { bindings::avio_kick_attach(kick.as_ptr(), Some(kicked::<T>), inner.cast()) };
        let kick = from_err_ptr(kick)?;
        // SAFETY: `inner` is alive, and its task was set before the thread ran.
        let (serve, pending, task) = unsafe {
            (
                &(*inner).serve,
                ptr::addr_of!((*inner).pending),
                (*inner).task,
            )
        };
        *serve.waker().sleeper.lock() = Some(Sleeper { pending, task });
        // INVARIANT: The kick is attached.
        Ok(Self { thread, kick })
    }

    /// Lets the thread serve, and has it look at once.
    pub fn go(&self) {
        // SAFETY: By the thread's invariant the pointer is to one that is alive; only its atomics are touched.
        unsafe { (*self.thread.0).going.store(1, Release) };
        self.wake();
    }

    /// Has the thread look at once.
    pub fn wake(&self) {
        let inner = self.thread.0;
        // SAFETY: By the thread's invariant `inner` is alive; its atomics are touched, and its task, which runs.
        unsafe {
            (*inner).pending.store(1, Release);
            bindings::avio_task_wake((*inner).task);
        }
    }

    /// How often the eventfd was signalled.
    pub fn kicks(&self) -> u64 {
        // SAFETY: As in `go`.
        unsafe { (*self.thread.0).kicks.load(Relaxed) }
    }
}

impl<T: Serve> Drop for Worker<T> {
    fn drop(&mut self) {
        // SAFETY: By the thread's invariant its pointer is to one that is alive.
        let serve = unsafe { &(*self.thread.0).serve };
        *serve.waker().sleeper.lock() = None;
        // SAFETY: By the type's invariant. Detaching waits out a callback that is running. The thread goes behind this.
        unsafe { bindings::avio_kick_detach(self.kick) };
    }
}

/// The thread's loop body; it sleeps until the next wake-up if this returns `false`.
///
/// # Safety
///
/// `arg` is an `Inner<T>` that is alive.
unsafe extern "C" fn run<T: Serve>(arg: *mut c_void) -> bool {
    // SAFETY: By the function's requirement. `task` is not touched here.
    let (pending, going, kicked, sleep, serve) = unsafe {
        let inner = arg.cast::<Inner<T>>();
        (
            &*ptr::addr_of!((*inner).pending),
            &*ptr::addr_of!((*inner).going),
            &*ptr::addr_of!((*inner).kicked),
            &*ptr::addr_of!((*inner).sleep),
            &*ptr::addr_of!((*inner).serve),
        )
    };
    if going.load(Acquire) == 0 {
        return false;
    }
    // The thread's state is TASK_INTERRUPTIBLE since before this read, and a kick sets the flag before it wakes: a
    // kick that comes after the read turns the coming sleep into none.
    if pending.load(Acquire) == 0 || pending.xchg(0, Full) == 0 {
        let most = sleep.load(Relaxed);
        if most == 0 {
            return false;
        }
        // SAFETY: The thread's state was set before the flag was read, as the call wants.
        if unsafe { bindings::avio_sleep_elapsed(most) } {
            pending.store(1, Relaxed);
        }
        return true;
    }
    // SAFETY: No requirements; we are about to do things that may sleep.
    unsafe { bindings::avio_set_running() };
    let woken_ns = match kicked.load(Relaxed) {
        0 => 0,
        _ => now_ns().saturating_sub(kicked.xchg(0, Relaxed)),
    };
    let more = serve.serve(woken_ns);
    sleep.store(
        if let More::In(time) = more {
            time.max(1)
        } else {
            0
        },
        Relaxed,
    );
    if more == More::Yes {
        pending.store(1, Relaxed);
        // SAFETY: We hold no locks.
        unsafe { bindings::avio_yield() };
    }
    true
}

/// The process is being killed. What is in flight ends by itself, and the file's release does the rest.
extern "C" fn killed(_arg: *mut c_void) {}

/// The eventfd was signalled. Runs in the signaller's context, under the eventfd's lock.
///
/// # Safety
///
/// `arg` is an `Inner<T>` that is alive, and its task was set.
unsafe extern "C" fn kicked<T: Serve>(arg: *mut c_void) {
    // SAFETY: By the function's requirement; the task was written before the kick was attached.
    unsafe {
        let inner = arg.cast::<Inner<T>>();
        let kicks = (*inner).kicks.fetch_add(1, Relaxed);
        let visit = &*ptr::addr_of!((*inner).visit);
        let visit = visit.as_ref().filter(|visit| visit.in_vcpu());
        if (*inner).serve.rung(visit.is_some()) && visit.is_some_and(Visit::queue) {
            return;
        }
        if (*inner).pending.xchg(1, Full) == 0 && kicks % TIMED == 0 {
            (*inner).kicked.store(now_ns(), Relaxed);
        }
        bindings::avio_task_wake((*inner).task);
    }
}

/// A virtual processor that has signalled the eventfd is about to go back into its guest.
///
/// # Safety
///
/// `arg` is an `Inner<T>` that is alive until this has returned, and its task was set.
unsafe extern "C" fn visited<T: Serve>(arg: *mut c_void) {
    // SAFETY: By the function's requirement. `Thread::drop` closes the visit, which waits for us, before it ends the thread;
    // `visit` was set before the kick was attached.
    let (inner, visit) = unsafe {
        let inner = arg.cast::<Inner<T>>();
        (inner, &*ptr::addr_of!((*inner).visit))
    };
    let Some(visit) = visit else {
        return;
    };
    visit.begin();
    // SAFETY: As above.
    unsafe {
        if (*inner).going.load(Acquire) == 0 || (*inner).serve.visit() {
            (*inner).pending.store(1, Release);
            bindings::avio_task_wake((*inner).task);
        }
    }
}
