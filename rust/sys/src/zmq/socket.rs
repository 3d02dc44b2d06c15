//! What routers and dealers share: options, descriptor, sending and receiving one part.

use std::ffi::{CString, c_int, c_void};
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;

use super::context::Context;
use super::error::{SendError, ZmqError};
use super::library::{Functions, Handle};
use super::message::{Message, retry_interrupted};
use crate::segment::Segment;
use crate::signals;

/// Frames from this size on are lent to libzmq instead of copied; below it, the copy is cheaper than the bookkeeping.
pub const LARGE_FRAME_BYTES: usize = 64 * 1024;

/// The largest frame that a socket accepts; a peer that announces more is disconnected before anything is allocated.
/// A submit of 10⁶ tasks with a few hundred bytes of arguments each fits; larger ones are sent in chunks.
pub const FRAME_BYTES_MAX: i64 = 1 << 30;

/// The frames that a socket queues for one peer. Credits keep the real numbers far below it; where they do not,
/// [`SendError::WouldBlock`] says so instead of a queue that grows without an end.
pub const QUEUED_FRAMES_MAX: c_int = 65_536;

/// The frames that a socket queues from one peer before it lets the rest wait at the sender. An honest peer has a few on their
/// way; of one that floods, not more than this lies in memory while the reader has no time.
pub const UNREAD_FRAMES_MAX: c_int = 256;

/// A connection that has not shaken hands after this long is cut.
pub const HANDSHAKE_TIMEOUT_MS: c_int = 5_000;

/// A connection that has not come up after this long is tried anew: the system's own pauses would double to a minute while a
/// network is away, and go on when it is back. Just after its first one.
pub(super) const CONNECT_TIMEOUT_MS: c_int = 1_500;

pub(super) const PAIR: c_int = 0;
pub(super) const REP: c_int = 4;
pub(super) const DEALER: c_int = 5;
pub(super) const ROUTER: c_int = 6;

pub(super) const ROUTING_ID: c_int = 5;
pub(super) const ROUTER_MANDATORY: c_int = 33;
pub(super) const ROUTER_HANDOVER: c_int = 56;
pub(super) const IMMEDIATE: c_int = 39;
const FD: c_int = 14;
const EVENTS: c_int = 15;
const LINGER: c_int = 17;
const MAXMSGSIZE: c_int = 22;
const SNDHWM: c_int = 23;
const RCVHWM: c_int = 24;
const LAST_ENDPOINT: c_int = 32;
const HANDSHAKE_IVL: c_int = 66;
pub(super) const CONNECT_TIMEOUT: c_int = 79;

const DONTWAIT: c_int = 1;
const SNDMORE: c_int = 2;
const POLLIN: c_int = 1;
const POLLOUT: c_int = 2;

/// What a socket can do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Events {
    /// A receive would succeed.
    pub input: bool,
    /// A send would succeed: for a dealer, that it is connected and its peer keeps up. A router always says yes.
    pub output: bool,
}

/// An open socket.
pub(super) struct Socket {
    handle: NonNull<c_void>,
    fd: RawFd,
    spare: Option<Message>,
    context: Context,
}

// SAFETY: libzmq allows moving a socket to another thread with a full fence, which any safe way to move a value has.
// It stays !Sync through its pointers, and every use takes `&mut self`.
unsafe impl Send for Socket {}

impl Socket {
    /// Opens a socket with the options that all have in common. Every thread that libzmq starts for it blocks signals.
    pub(super) fn open(context: &Context, kind: c_int) -> Result<Self, ZmqError> {
        let functions = context.functions();
        let _blocked = signals::block_all();
        // SAFETY: the context is alive.
        let handle = NonNull::new(unsafe { (functions.socket)(context.handle(), kind) });
        let handle = handle.ok_or_else(|| ZmqError::last(functions, "zmq_socket"))?;
        let mut socket = Self { handle, fd: -1, spare: None, context: context.clone() };
        socket.set_int(LINGER, 0)?;
        socket.set_int(SNDHWM, QUEUED_FRAMES_MAX)?;
        socket.set_int(RCVHWM, UNREAD_FRAMES_MAX)?;
        socket.set_int(HANDSHAKE_IVL, HANDSHAKE_TIMEOUT_MS)?;
        socket.set(MAXMSGSIZE, &FRAME_BYTES_MAX.to_ne_bytes())?;
        socket.fd = socket.get_int(FD)?;
        Ok(socket)
    }

    pub(super) fn bind(&mut self, endpoint: &str) -> Result<(), ZmqError> {
        let _blocked = signals::block_all();
        let name = self.endpoint(endpoint)?;
        // SAFETY: the socket is open and ours; `name` is a C string.
        let result = unsafe { (self.functions().bind)(self.handle.as_ptr(), name.as_ptr()) };
        self.check(result, || format!("zmq_bind {endpoint}"))
    }

    pub(super) fn connect(&mut self, endpoint: &str) -> Result<(), ZmqError> {
        let _blocked = signals::block_all();
        let name = self.endpoint(endpoint)?;
        // SAFETY: the socket is open and ours; `name` is a C string.
        let result = unsafe { (self.functions().connect)(self.handle.as_ptr(), name.as_ptr()) };
        self.check(result, || format!("zmq_connect {endpoint}"))
    }

    /// Has libzmq tell of these events of the connection at another endpoint.
    pub(super) fn monitor(&mut self, endpoint: &str, events: c_int) -> Result<(), ZmqError> {
        let name = self.endpoint(endpoint)?;
        // SAFETY: the socket is open and ours; `name` is a C string.
        let result = unsafe { (self.functions().socket_monitor)(self.handle.as_ptr(), name.as_ptr(), events) };
        self.check(result, || "zmq_socket_monitor".to_owned())
    }

    pub(super) fn set_int(&mut self, option: c_int, value: c_int) -> Result<(), ZmqError> {
        self.set(option, &value.to_ne_bytes())
    }

    pub(super) fn set(&mut self, option: c_int, value: &[u8]) -> Result<(), ZmqError> {
        // SAFETY: the socket is open and ours; libzmq reads `value.len()` bytes.
        let result =
            unsafe { (self.functions().setsockopt)(self.handle.as_ptr(), option, value.as_ptr().cast(), value.len()) };
        self.check(result, || format!("zmq_setsockopt {option}"))
    }

    pub(super) fn set_linger_ms(&mut self, linger_ms: u32) -> Result<(), ZmqError> {
        self.set_int(LINGER, c_int::try_from(linger_ms).unwrap_or(c_int::MAX))
    }

    pub(super) fn fd(&self) -> RawFd {
        self.fd
    }

    pub(super) fn events(&mut self) -> Result<Events, ZmqError> {
        let events = self.get_int(EVENTS)?;
        Ok(Events { input: events & POLLIN != 0, output: events & POLLOUT != 0 })
    }

    /// Sends a part that more parts follow.
    pub(super) fn send_head(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        let mut message = Message::copy_of(self.functions(), bytes)?;
        self.send_message(&mut message, SNDMORE)
    }

    /// Sends the last or only part. On success `frame` is empty, with its memory unless that was lent to libzmq; on an
    /// error it is as it was.
    pub(super) fn send_body(&mut self, frame: &mut Vec<u8>) -> Result<(), SendError> {
        if frame.len() < LARGE_FRAME_BYTES {
            let mut message = Message::copy_of(self.functions(), frame)?;
            self.send_message(&mut message, 0)?;
            frame.clear();
            return Ok(());
        }
        let (mut message, lent) = Message::lend(self.functions(), frame)?;
        self.send_message(&mut message, 0).inspect_err(|_| {
            // SAFETY: `lent` came with this message, and sending it has just failed.
            *frame = unsafe { message.reclaim(lent) };
        })
    }

    /// Sends the last part from where it lies in a map.
    pub(super) fn send_map(&mut self, map: &Arc<Segment>, offset: u64, len: usize) -> Result<(), SendError> {
        let mut message = Message::of_map(self.functions(), map, offset, len)?;
        self.send_message(&mut message, 0)
    }

    /// Receives one part, if one is there.
    pub(super) fn receive(&mut self) -> Result<Option<Message>, ZmqError> {
        let functions = self.functions();
        // An idle socket is asked often: the message for the next part is made once.
        let mut message = self.spare.take().unwrap_or_else(|| Message::empty(functions));
        // SAFETY: the socket is open, and `&mut self` keeps other threads out.
        match unsafe { message.receive(self.handle.as_ptr(), DONTWAIT) } {
            Ok(()) => Ok(Some(message)),
            Err(libc::EAGAIN) => {
                self.spare = Some(message);
                Ok(None)
            }
            Err(errno) => Err(ZmqError::new(functions, errno, "zmq_msg_recv")),
        }
    }

    /// Drops what follows `part` in its transmission; returns whether anything did.
    pub(super) fn drop_rest(&mut self, part: &Message) -> Result<bool, ZmqError> {
        let mut more = part.has_more();
        let any = more;
        while more {
            // The parts of a transmission arrive together, so none is missing yet.
            more = self.receive()?.is_some_and(|part| part.has_more());
        }
        Ok(any)
    }

    fn send_message(&mut self, message: &mut Message, flags: c_int) -> Result<(), SendError> {
        // SAFETY: the socket is open, and `&mut self` keeps other threads out.
        match unsafe { message.send(self.handle.as_ptr(), DONTWAIT | flags) } {
            Ok(()) => Ok(()),
            Err(libc::EAGAIN) => Err(SendError::WouldBlock),
            Err(libc::EHOSTUNREACH) => Err(SendError::Unreachable),
            Err(errno) => Err(ZmqError::new(self.functions(), errno, "zmq_msg_send").into()),
        }
    }

    /// The endpoint that was bound last, with the port that the system chose if it was asked to.
    pub(super) fn last_endpoint(&mut self) -> Result<String, ZmqError> {
        let mut text = [0_u8; 256];
        let mut len = text.len();
        let functions = self.functions();
        // SAFETY: the socket is open and ours; libzmq writes at most `len` bytes, which `text` has.
        let result = unsafe {
            (functions.getsockopt)(self.handle.as_ptr(), LAST_ENDPOINT, text.as_mut_ptr().cast(), &raw mut len)
        };
        self.check(result, || "zmq_getsockopt of the endpoint".to_owned())?;
        Ok(String::from_utf8_lossy(&text[..len.saturating_sub(1)]).into_owned())
    }

    fn get_int(&mut self, option: c_int) -> Result<c_int, ZmqError> {
        let mut value: c_int = 0;
        let functions = self.functions();
        retry_interrupted(functions, || {
            let mut len = size_of::<c_int>();
            // SAFETY: the socket is open and ours; libzmq writes at most `len` bytes, which `value` has.
            unsafe { (functions.getsockopt)(self.handle.as_ptr(), option, (&raw mut value).cast(), &mut len) }
        })
        .map_err(|errno| ZmqError::new(functions, errno, format!("zmq_getsockopt {option}")))?;
        Ok(value)
    }

    fn endpoint(&self, endpoint: &str) -> Result<CString, ZmqError> {
        CString::new(endpoint)
            .map_err(|_| ZmqError::new(self.functions(), libc::EINVAL, "an endpoint with a zero byte"))
    }

    fn check(&self, result: c_int, call: impl FnOnce() -> String) -> Result<(), ZmqError> {
        if result >= 0 { Ok(()) } else { Err(ZmqError::last(self.functions(), call())) }
    }

    pub(super) fn functions(&self) -> &'static Functions {
        self.context.functions()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if !self.context.origin().is_here() {
            return; // the I/O thread that would close it stayed behind in the parent
        }
        let handle: Handle = self.handle.as_ptr();
        // SAFETY: closed once, and used by nobody afterwards; the context outlives it through `self.context`.
        unsafe { (self.functions().close)(handle) };
    }
}
