//! The broker's socket.

use std::fmt;
use std::ops::Deref;
use std::os::fd::RawFd;
use std::sync::Arc;

use super::context::Context;
use super::curve::OwnKeys;
use super::error::{SendError, ZmqError};
use super::message::{Frame, Message};
use super::monitor::Arrivals;
use super::socket::{Events, ROUTER, ROUTER_HANDOVER, ROUTER_MANDATORY, Socket};
use crate::segment::Segment;

/// Frames of peers that cannot be answered which one call of [`Router::try_recv`] drops before it looks up.
const NAMELESS_MAX: u32 = 256;

/// A ROUTER: one socket for all peers, each known by its routing id. One frame is one message.
pub struct Router {
    socket: Socket,
}

impl Router {
    /// A router that peers reach at `endpoint`.
    ///
    /// The path of an `ipc://` endpoint has at most 107 bytes. Binding takes over a path that another socket has, and the
    /// path stays behind at the end: whoever calls this holds the lock of the directory, and cleans it up.
    ///
    /// A peer takes over the name of another one, whose connection ends: a name that matters has to be a secret.
    ///
    /// # Errors
    /// libzmq's, with the endpoint.
    pub fn bind(context: &Context, endpoint: &str) -> Result<Self, ZmqError> {
        let mut socket = Socket::open(context, ROUTER)?;
        socket.set_int(ROUTER_MANDATORY, 1)?;
        // Without it, what a second peer of the same name sends is never read, and kept until the socket is closed.
        socket.set_int(ROUTER_HANDOVER, 1)?;
        socket.bind(endpoint)?;
        Ok(Self { socket })
    }

    /// Listens at one endpoint more, for those alone whom the gate of the context lets in and who show a key of theirs; where
    /// there is no gate, for nobody. The answer is the endpoint, with the port that the system chose if it ends in `:*`.
    ///
    /// # Errors
    /// libzmq's, with the endpoint.
    pub fn bind_guarded(&mut self, endpoint: &str, keys: &OwnKeys) -> Result<String, ZmqError> {
        self.socket.guard(keys)?;
        self.socket.bind(endpoint)?;
        self.socket.last_endpoint()
    }

    /// Counts the connections that come to what is bound from now on.
    ///
    /// # Errors
    /// libzmq's.
    pub fn watch_arrivals(&mut self, context: &Context) -> Result<Arrivals, ZmqError> {
        Arrivals::watch(context, &mut self.socket)
    }

    /// Queues one frame for `peer`. On success `frame` is left empty (with its memory, if it was below
    /// [`LARGE_FRAME_BYTES`](super::LARGE_FRAME_BYTES) and copied); on an error it is untouched.
    ///
    /// A frame accepted for a peer that disconnects is lost like one on the wire: the peer's death is learnt elsewhere.
    ///
    /// # Errors
    /// [`SendError::Unreachable`] if no peer of that name is connected, [`SendError::WouldBlock`] if its queue is full:
    /// nothing is ever dropped in silence.
    pub fn send(&mut self, peer: &[u8], frame: &mut Vec<u8>) -> Result<(), SendError> {
        // Both refusals come with the head. Once it is taken, the body is taken as well.
        self.socket.send_head(peer)?;
        self.socket.send_body(frame)
    }

    /// Queues a head for `peer`, with so many bytes of a map behind it, which are read where they are. The peer gets both with
    /// [`Dealer::try_recv_pair`](super::Dealer::try_recv_pair).
    ///
    /// # Errors
    /// As [`send`](Router::send).
    ///
    /// # Panics
    /// If the bytes leave the map.
    pub fn send_mapped(
        &mut self,
        peer: &[u8],
        head: &[u8],
        map: &Arc<Segment>,
        offset: u64,
        len: usize,
    ) -> Result<(), SendError> {
        self.socket.send_head(peer)?;
        self.socket.send_head(head)?;
        self.socket.send_map(map, offset, len)
    }

    /// The next frame, if one has arrived; also none after very many that are dropped.
    ///
    /// A transmission of several parts is no message of ours; it comes out as one empty frame, which no decoder takes.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn try_recv(&mut self) -> Result<Option<(RoutingId, Frame)>, ZmqError> {
        for _ in 0..NAMELESS_MAX {
            let Some(head) = self.socket.receive()? else { return Ok(None) };
            let peer = RoutingId::new(head.bytes());
            let Some(body) = self.socket.receive()? else { return Ok(None) };
            let several = self.socket.drop_rest(&body)?;
            // A name that long is none that headrace gives, and could not be answered.
            let Some(peer) = peer else { continue };
            let body = if several { Message::empty(self.socket.functions()) } else { body };
            return Ok(Some((peer, Frame::new(body))));
        }
        Ok(None)
    }

    /// Whether a frame has arrived. To be asked before every sleep on [`fd`](Router::fd).
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn has_input(&mut self) -> Result<bool, ZmqError> {
        Ok(self.events()?.input)
    }

    /// What the socket can do now.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn events(&mut self) -> Result<Events, ZmqError> {
        self.socket.events()
    }

    /// The descriptor to poll for input; edge-triggered, see the [module](super).
    pub fn fd(&self) -> RawFd {
        self.socket.fd()
    }

    /// How long queued frames may take to leave after the socket is dropped; 0 at first. Set it before the last
    /// goodbye: the drop returns at once, and the last drop of the [`Context`] waits for at most this long.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn set_linger_ms(&mut self, linger_ms: u32) -> Result<(), ZmqError> {
        self.socket.set_linger_ms(linger_ms)
    }
}

/// The name by which a router knows a peer: what the peer chose, or five bytes of libzmq's own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoutingId {
    len: u8,
    bytes: [u8; Self::BYTES_MAX],
}

impl RoutingId {
    /// The longest name.
    pub const BYTES_MAX: usize = 31;

    /// The name in `bytes`; `None` if it is longer than [`BYTES_MAX`](Self::BYTES_MAX).
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut id = Self { len: u8::try_from(bytes.len()).ok()?, bytes: [0; Self::BYTES_MAX] };
        id.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(id)
    }
}

impl Deref for RoutingId {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for RoutingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoutingId({})", self.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::socket::{DEALER, Socket};
    use super::super::{Library, find_candidates};
    use super::*;
    use crate::poll::{self, PollFd};

    #[test]
    fn a_transmission_of_several_parts_is_one_empty_frame() {
        let context = Context::new(&Library::open(&find_candidates()).unwrap()).unwrap();
        let endpoint = "inproc://parts";
        let mut router = Router::bind(&context, endpoint).unwrap();
        let mut dealer = Socket::open(&context, DEALER).unwrap();
        dealer.connect(endpoint).unwrap();
        for part in [b"one".as_slice(), b"two"] {
            dealer.send_head(part).unwrap();
        }
        dealer.send_body(&mut b"three".to_vec()).unwrap();
        dealer.send_body(&mut b"whole".to_vec()).unwrap();
        let mut frames = Vec::new();
        while frames.len() < 2 {
            match router.try_recv().unwrap() {
                Some((_, frame)) => frames.push(frame.to_vec()),
                None if router.has_input().unwrap() => {}
                None => {
                    let ready = poll::wait(&mut [PollFd::input(router.fd())], Some(Duration::from_secs(30)));
                    assert_eq!(ready.unwrap(), 1);
                }
            }
        }
        assert_eq!(frames, [b"".as_slice(), b"whole"]);
    }
}
