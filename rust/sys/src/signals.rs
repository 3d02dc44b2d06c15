//! Signal masks: native threads take no signals, so that Python's main thread gets them all.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;

/// While this lives, the calling thread has every signal blocked; threads made meanwhile inherit that for good.
/// Dropping it restores the mask. It stays on its thread.
#[must_use]
pub struct AllBlocked {
    before: libc::sigset_t,
    on_this_thread: PhantomData<*const ()>,
}

/// Blocks every signal in the calling thread.
pub fn block_all() -> AllBlocked {
    let mut all = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: both sets are valid for writes; `sigfillset` initialises `all`, and `pthread_sigmask`, which cannot fail
    // with SIG_BLOCK and valid pointers, initialises `before`.
    let before = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr());
        before.assume_init()
    };
    AllBlocked { before, on_this_thread: PhantomData }
}

/// Sends SIGINT to this process's main thread, wherever it is: a system call that it sleeps in returns.
pub fn interrupt_main_thread() {
    let process = std::process::id();
    // SAFETY: no memory is passed. The main thread's number is the process's own, and it is there as long as the process.
    unsafe { libc::syscall(libc::SYS_tgkill, process, process, libc::SIGINT) };
}

impl Drop for AllBlocked {
    fn drop(&mut self) {
        // SAFETY: `before` is the set that `block_all` read on this same thread (the type is neither Send nor Sync).
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, ptr::null_mut()) };
    }
}
