//! What is to be seen of a socket's connection: libzmq makes it and makes it anew in silence otherwise.

use std::ffi::c_int;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};

use super::context::Context;
use super::error::ZmqError;
use super::socket::{PAIR, Socket};

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
        // Relaxed: only the numbers must differ.
        let endpoint = format!("inproc://headrace-monitor-{}", MONITORS.fetch_add(1, Ordering::Relaxed));
        watched.monitor(&endpoint, SEEN)?;
        let mut socket = Socket::open(context, PAIR)?;
        socket.connect(&endpoint)?;
        Ok(Self { socket })
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
