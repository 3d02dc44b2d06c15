//! Messages of libzmq: bytes on their way out, and frames that arrived.

use std::ffi::{CStr, c_int, c_void};
use std::fmt;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::error::{ZmqError, last_errno};
use super::library::{Functions, Handle};
use crate::segment::Segment;

/// `zmq_msg_t`: 64 opaque bytes, aligned as the strictest thing that libzmq keeps in them.
#[repr(C, align(16))]
pub(super) struct RawMessage([u8; 64]);

/// An initialised message at an address of its own. Short contents live inside it, so it must not move; and it is held
/// by pointer, not by `Box`, so that a pointer to its contents stays good while the owner moves.
pub(super) struct Message {
    raw: NonNull<RawMessage>,
    functions: &'static Functions,
}

// SAFETY: libzmq lets a message be used by any thread, one at a time; contents shared with libzmq are counted atomically.
unsafe impl Send for Message {}

/// Large contents that libzmq reads in place, until it calls [`free_lent`].
type Lent = NonNull<Vec<u8>>;

impl Message {
    pub(super) fn empty(functions: &'static Functions) -> Self {
        Self::init(functions, "zmq_msg_init", |raw| {
            // SAFETY: `raw` is valid for writes of a `zmq_msg_t`.
            unsafe { (functions.msg_init)(raw) }
        })
        .expect("zmq_msg_init never fails")
    }

    /// A message with a copy of `bytes`.
    pub(super) fn copy_of(functions: &'static Functions, bytes: &[u8]) -> Result<Self, ZmqError> {
        let message = Self::init(functions, "zmq_msg_init_size", |raw| {
            // SAFETY: `raw` is valid for writes of a `zmq_msg_t`.
            unsafe { (functions.msg_init_size)(raw, bytes.len()) }
        })?;
        // SAFETY: the message has just been given room for exactly `bytes.len()` bytes, which nobody else knows of.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), message.data(), bytes.len()) };
        Ok(message)
    }

    /// A message that reads `bytes` where they are. On success the vector is empty and [`Message::reclaim`] may bring it
    /// back, as long as the message was not sent.
    pub(super) fn lend(functions: &'static Functions, bytes: &mut Vec<u8>) -> Result<(Self, Lent), ZmqError> {
        let lent = NonNull::from(Box::leak(Box::new(std::mem::take(bytes))));
        let message = Self::init(functions, "zmq_msg_init_data", |raw| {
            // SAFETY: `raw` is valid for writes of a `zmq_msg_t`. The vector is on the heap behind `lent`, owned by
            // nobody but the message from here on: its bytes stay where they are until `free_lent` drops it, and libzmq
            // calls that once.
            unsafe {
                let data = (*lent.as_ptr()).as_mut_ptr().cast();
                let len = (*lent.as_ptr()).len();
                (functions.msg_init_data)(raw, data, len, Some(free_lent), lent.as_ptr().cast())
            }
        });
        match message {
            Ok(message) => Ok((message, lent)),
            Err(error) => {
                // SAFETY: a message that was not made does not own the vector.
                *bytes = *unsafe { Box::from_raw(lent.as_ptr()) };
                Err(error)
            }
        }
    }

    /// A message that reads so many bytes of a map where they are. The map stays until libzmq has read them.
    ///
    /// # Panics
    /// If the bytes leave the map.
    pub(super) fn of_map(
        functions: &'static Functions,
        map: &Arc<Segment>,
        offset: u64,
        len: usize,
    ) -> Result<Self, ZmqError> {
        assert!(offset.checked_add(len as u64).is_some_and(|end| end <= map.len()), "a message leaves its segment");
        let data = map.at(offset);
        let owner = NonNull::from(Box::leak(Box::new(Arc::clone(map))));
        let message = Self::init(functions, "zmq_msg_init_data", |raw| {
            // SAFETY: `raw` is valid for writes of a `zmq_msg_t`. The bytes lie in the map, which `owner` keeps, and libzmq calls
            // `free_map` once, when it reads no more.
            unsafe { (functions.msg_init_data)(raw, data.as_ptr().cast(), len, Some(free_map), owner.as_ptr().cast()) }
        });
        message.inspect_err(|_| {
            // SAFETY: a message that was not made does not own the map.
            drop(unsafe { Box::from_raw(owner.as_ptr()) });
        })
    }

    /// Takes lent bytes back from a message that was not sent.
    ///
    /// # Safety
    /// `lent` must come with this message from [`Message::lend`], and no send of it may have succeeded.
    pub(super) unsafe fn reclaim(self, lent: Lent) -> Vec<u8> {
        // SAFETY: unsent, so the message is the only owner and `free_lent` has not run. Closing it afterwards frees an
        // empty vector and does not read the bytes.
        std::mem::take(unsafe { &mut *lent.as_ptr() })
    }

    /// Sends it over `socket`, leaving an empty message.
    ///
    /// # Safety
    /// `socket` must be open and used by no other thread now.
    pub(super) unsafe fn send(&mut self, socket: Handle, flags: c_int) -> Result<(), c_int> {
        retry_interrupted(self.functions, || {
            // SAFETY: the message is initialised; the caller vouches for the socket.
            unsafe { (self.functions.msg_send)(self.raw.as_ptr(), socket, flags) }
        })
    }

    /// Receives one part from `socket` in place of what the message held.
    ///
    /// # Safety
    /// `socket` must be open and used by no other thread now.
    pub(super) unsafe fn receive(&mut self, socket: Handle, flags: c_int) -> Result<(), c_int> {
        retry_interrupted(self.functions, || {
            // SAFETY: the message is initialised; the caller vouches for the socket.
            unsafe { (self.functions.msg_recv)(self.raw.as_ptr(), socket, flags) }
        })
    }

    /// Whether more parts of the same transmission follow.
    pub(super) fn has_more(&self) -> bool {
        // SAFETY: the message is initialised.
        unsafe { (self.functions.msg_more)(self.raw.as_ptr()) != 0 }
    }

    /// The name under which the gate let the sender in; `None` where there is no gate.
    pub(super) fn user(&self) -> Option<&str> {
        // SAFETY: the message is initialised; the name is a C string.
        let text = unsafe { (self.functions.msg_gets)(self.raw.as_ptr(), c"User-Id".as_ptr()) };
        // SAFETY: libzmq gives a C string that lives as long as the message.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }).and_then(|text| text.to_str().ok())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        let len = self.len();
        if len == 0 {
            return &[];
        }
        // SAFETY: libzmq keeps `len` readable bytes there until the message changes, which takes `&mut self`.
        unsafe { std::slice::from_raw_parts(self.data(), len) }
    }

    fn data(&self) -> *mut u8 {
        // SAFETY: the message is initialised; the call only computes an address.
        unsafe { (self.functions.msg_data)(self.raw.as_ptr()) }.cast()
    }

    fn len(&self) -> usize {
        // SAFETY: the message is initialised.
        unsafe { (self.functions.msg_size)(self.raw.as_ptr()) }
    }

    fn init(
        functions: &'static Functions,
        call: &str,
        init: impl FnOnce(*mut RawMessage) -> c_int,
    ) -> Result<Self, ZmqError> {
        let raw = NonNull::from(Box::leak(Box::new(RawMessage([0; 64]))));
        if init(raw.as_ptr()) == 0 {
            return Ok(Self { raw, functions });
        }
        let error = ZmqError::last(functions, call);
        // SAFETY: made by `Box` above, and not initialised as a message.
        drop(unsafe { Box::from_raw(raw.as_ptr()) });
        Err(error)
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: initialised, closed once, and its memory was made by `Box`; nobody uses either afterwards.
        unsafe {
            (self.functions.msg_close)(self.raw.as_ptr());
            drop(Box::from_raw(self.raw.as_ptr()));
        }
    }
}

/// Drops a lent vector. libzmq calls it from its I/O thread or from who closes the message.
unsafe extern "C" fn free_lent(_data: *mut c_void, lent: *mut c_void) {
    // SAFETY: `lent` is the box that `Message::lend` leaked, and libzmq calls this once, when it reads no more.
    drop(unsafe { Box::from_raw(lent.cast::<Vec<u8>>()) });
}

/// Lets go of a map. libzmq calls it from its I/O thread or from who closes the message.
unsafe extern "C" fn free_map(_data: *mut c_void, owner: *mut c_void) {
    // SAFETY: `owner` is the box that `Message::of_map` leaked, and libzmq calls this once.
    drop(unsafe { Box::from_raw(owner.cast::<Arc<Segment>>()) });
}

/// Repeats `call` while a signal interrupts it, a bounded number of times: in a forked child libzmq answers so for ever.
pub(super) fn retry_interrupted(functions: &Functions, mut call: impl FnMut() -> c_int) -> Result<(), c_int> {
    const TRIES: u32 = 64;
    for _ in 0..TRIES {
        if call() >= 0 {
            return Ok(());
        }
        let errno = last_errno(functions);
        if errno != libc::EINTR {
            return Err(errno);
        }
    }
    Err(libc::EINTR)
}

/// A frame that arrived. It owns libzmq's memory, so receiving copies nothing that libzmq did not copy; it may be kept,
/// and dropped in any thread.
pub struct Frame {
    data: *const u8,
    len: usize,
    owner: Message,
}

// SAFETY: the bytes are owned by the message, which is Send, and nobody writes to them.
unsafe impl Send for Frame {}
// SAFETY: shared access reads the bytes and nothing else.
unsafe impl Sync for Frame {}

impl Frame {
    pub(super) fn new(message: Message) -> Self {
        let bytes = message.bytes();
        Self { data: bytes.as_ptr(), len: bytes.len(), owner: message }
    }

    /// The name under which the gate let the sender in; `None` if the endpoint has no gate.
    pub fn user(&self) -> Option<&str> {
        self.owner.user()
    }
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: taken from the owner's slice, which neither moves nor changes while the owner lives unchanged.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.len)
    }
}
