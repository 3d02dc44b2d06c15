//! What is to be seen of a socket's connection: libzmq makes it and makes it anew in silence otherwise.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use super::context::Context;
use super::error::ZmqError;
use super::socket::{PAIR, Socket};

const LISTENING: c_int = 0x0008;
const ACCEPTED: c_int = 0x0020;
const DISCONNECTED: c_int = 0x0200;
const FAILED_WITHOUT_DETAIL: c_int = 0x0800;
const SUCCEEDED: c_int = 0x1000;
const FAILED_BY_PROTOCOL: c_int = 0x2000;
const FAILED_BY_KEY: c_int = 0x4000;
const SEEN: c_int = DISCONNECTED | FAILED_WITHOUT_DETAIL | SUCCEEDED | FAILED_BY_PROTOCOL | FAILED_BY_KEY;

/// Monitors so far: each has an endpoint of its own.
static MONITORS: AtomicU64 = AtomicU64::new(0);

/// Something that happened to a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sight {
    /// It is up, and frames can go.
    Up,
    /// It was up, and is gone; libzmq goes on to try.
    Down,
    /// The other side does not accept us, or does not speak as we do; libzmq goes on to try.
    Refused,
}

/// Sees one socket's connection.
pub struct Monitor {
    socket: Socket,
}

impl Monitor {
    pub(super) fn start(context: &Context, watched: &mut Socket) -> Result<Self, ZmqError> {
        Ok(Self { socket: monitor(context, watched, SEEN)? })
    }

    /// The next thing that happened. To be asked before every sleep on [`fd`](Monitor::fd), until there is none.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn poll(&mut self) -> Result<Option<Sight>, ZmqError> {
        while let Some(part) = self.socket.receive()? {
            let event = part.bytes().first_chunk().map_or(0, |number| c_int::from(u16::from_ne_bytes(*number)));
            self.socket.drop_rest(&part)?;
            match event {
                SUCCEEDED => return Ok(Some(Sight::Up)),
                DISCONNECTED => return Ok(Some(Sight::Down)),
                FAILED_WITHOUT_DETAIL | FAILED_BY_PROTOCOL | FAILED_BY_KEY => return Ok(Some(Sight::Refused)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// The descriptor to poll for input; edge-triggered, see the [module](super).
    pub fn fd(&self) -> RawFd {
        self.socket.fd()
    }
}

/// Counts the connections that come to a socket, and keeps further ones out for a while.
pub struct Arrivals {
    socket: Socket,
    /// What listens; libzmq has another descriptor of the same.
    listener: Option<OwnedFd>,
}

impl Arrivals {
    pub(super) fn watch(context: &Context, watched: &mut Socket) -> Result<Self, ZmqError> {
        Ok(Self { socket: monitor(context, watched, LISTENING | ACCEPTED)?, listener: None })
    }

    /// How many have come since it was last asked. To be asked before every sleep on [`fd`](Arrivals::fd).
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn count(&mut self) -> Result<usize, ZmqError> {
        let mut count = 0;
        while let Some(part) = self.socket.receive()? {
            let event = part.bytes().first_chunk().map_or(0, |number| c_int::from(u16::from_ne_bytes(*number)));
            let value = part.bytes().get(2..).and_then(<[u8]>::first_chunk).map(|value| i32::from_ne_bytes(*value));
            self.socket.drop_rest(&part)?;
            match (event, value) {
                (ACCEPTED, _) => count += 1,
                (LISTENING, Some(fd)) => self.listener = duplicate(fd),
                _ => {}
            }
        }
        Ok(count)
    }

    /// Lets nobody in, or everybody again. Whoever tries meanwhile hears nothing, and his system tries again for a minute or two;
    /// connections that are there stay. (libzmq ends them where it is told to listen no more.)
    ///
    /// # Errors
    /// The system's.
    pub fn keep_out(&mut self, is_shut: bool) -> io::Result<()> {
        // A filter of one step: of whatever comes to what listens, nothing is kept.
        let mut nothing = libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
        let filter = libc::sock_fprog { len: 1, filter: &raw mut nothing };
        let option = if is_shut { libc::SO_ATTACH_FILTER } else { libc::SO_DETACH_FILTER };
        let Some(listener) = &self.listener else { return Err(io::ErrorKind::NotConnected.into()) };
        let len = size_of::<libc::sock_fprog>() as libc::socklen_t;
        // SAFETY: the descriptor is ours; the system copies the filter and its one step, which live until it returns.
        let result = unsafe {
            libc::setsockopt(listener.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const filter).cast(), len)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The descriptor to poll for input; edge-triggered, see the [module](super).
    pub fn fd(&self) -> RawFd {
        self.socket.fd()
    }
}

/// A descriptor of our own of what libzmq listens with.
fn duplicate(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: libzmq has told of it, and has it open as long as it listens, which is as long as the socket lives.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    fd.try_clone_to_owned().ok()
}

/// Has libzmq tell of events of a socket, and gives the socket that hears of them.
fn monitor(context: &Context, watched: &mut Socket, events: c_int) -> Result<Socket, ZmqError> {
    // Relaxed: only the numbers must differ.
    let endpoint = format!("inproc://headrace-monitor-{}", MONITORS.fetch_add(1, Ordering::Relaxed));
    watched.monitor(&endpoint, events)?;
    let mut socket = Socket::open(context, PAIR)?;
    socket.connect(&endpoint)?;
    Ok(socket)
}
