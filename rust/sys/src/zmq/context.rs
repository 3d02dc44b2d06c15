//! The context: libzmq's threads, shared by the sockets of one owner.

use std::ffi::c_int;
use std::ptr::NonNull;
use std::sync::Arc;

use super::error::ZmqError;
use super::library::{Functions, Handle, Library};
use crate::origin::Origin;
use crate::signals;

const IO_THREADS: c_int = 1;
const BLOCKY: c_int = 70;

/// libzmq's threads and their book-keeping. A cheap handle: clones name the same context.
///
/// It ends with its last handle and last socket, whichever goes later, so it can neither end under a socket nor wait
/// for one: the last drop takes as long as the longest linger time set on a socket, which is 0 unless changed.
#[derive(Clone)]
pub struct Context {
    shared: Arc<Shared>,
}

struct Shared {
    handle: NonNull<std::ffi::c_void>,
    functions: &'static Functions,
    origin: Origin,
}

// SAFETY: contexts are the thread-safe objects of libzmq; every function on them may be called from any thread.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Context {
    /// A context with one I/O thread. Threads start with the first socket.
    ///
    /// # Errors
    /// When the process is out of descriptors or memory.
    pub fn new(library: &Arc<Library>) -> Result<Self, ZmqError> {
        let functions = library.functions();
        let _blocked = signals::block_all();
        // SAFETY: takes nothing.
        let handle = NonNull::new(unsafe { (functions.ctx_new)() });
        let handle = handle.ok_or_else(|| ZmqError::last(functions, "zmq_ctx_new"))?;
        let shared = Shared { handle, functions, origin: Origin::here() };
        shared.set(IO_THREADS, 1)?;
        // Linger 0 unless a socket says otherwise, also for sockets that libzmq closes itself.
        shared.set(BLOCKY, 0)?;
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(super) fn handle(&self) -> Handle {
        self.shared.handle.as_ptr()
    }

    pub(super) fn functions(&self) -> &'static Functions {
        self.shared.functions
    }

    pub(super) fn origin(&self) -> Origin {
        self.shared.origin
    }
}

impl Shared {
    fn set(&self, option: c_int, value: c_int) -> Result<(), ZmqError> {
        // SAFETY: the context is alive.
        match unsafe { (self.functions.ctx_set)(self.handle.as_ptr(), option, value) } {
            0 => Ok(()),
            _ => Err(ZmqError::last(self.functions, "zmq_ctx_set")),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !self.origin.is_here() {
            return; // its threads stayed behind in the parent: terminating would wait for them for ever
        }
        // SAFETY: the last handle and, since sockets hold one, the last socket are gone; nothing uses it afterwards.
        // It fails with EINTR only, having done nothing.
        while unsafe { (self.functions.ctx_term)(self.handle.as_ptr()) } != 0
            && super::error::last_errno(self.functions) == libc::EINTR
        {}
    }
}
