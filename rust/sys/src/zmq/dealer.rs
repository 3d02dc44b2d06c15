//! The socket of a worker or a remote client.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::context::Context;
use super::curve::PeerKeys;
use super::error::{SendError, ZmqError};
use super::message::{Frame, Message};
use super::monitor::Monitor;
use super::socket::{CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS, DEALER, Events, IMMEDIATE, ROUTING_ID, Socket};
use crate::poll::{self, PollFd};

/// A DEALER: one connection to a router. One frame is one message.
pub struct Dealer {
    socket: Socket,
}

impl Dealer {
    /// A dealer that connects to `endpoint` in the background, and again whenever the connection is lost.
    ///
    /// `name` is its routing id, 1 to 31 bytes, not beginning with a zero byte. A router gives it to whoever comes with it last, so
    /// nobody else should be able to guess it. Empty: the router chooses one.
    ///
    /// # Errors
    /// libzmq's, with the endpoint. That nobody listens is no error.
    pub fn connect(context: &Context, endpoint: &str, name: &[u8]) -> Result<Self, ZmqError> {
        let mut dealer = Self::open(context, name)?;
        dealer.socket.connect(endpoint)?;
        Ok(dealer)
    }

    /// The same with keys, if the endpoint asks for some; and what is to be seen of its connection.
    ///
    /// # Errors
    /// As [`connect`](Dealer::connect).
    pub fn connect_watched(
        context: &Context,
        endpoint: &str,
        name: &[u8],
        keys: Option<&PeerKeys>,
    ) -> Result<(Self, Monitor), ZmqError> {
        let mut dealer = Self::open(context, name)?;
        keys.map_or(Ok(()), |keys| dealer.socket.show(keys))?;
        let monitor = Monitor::start(context, &mut dealer.socket)?;
        dealer.socket.connect(endpoint)?;
        Ok((dealer, monitor))
    }

    fn open(context: &Context, name: &[u8]) -> Result<Self, ZmqError> {
        let mut socket = Socket::open(context, DEALER)?;
        // Frames are queued for a living connection only: what could not be sent is known to be not sent.
        socket.set_int(IMMEDIATE, 1)?;
        socket.set_int(CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS)?;
        if !name.is_empty() {
            socket.set(ROUTING_ID, name)?;
        }
        Ok(Self { socket })
    }

    /// Sleeps until the connection is up and takes frames, for at most `timeout`; returns whether it is. Sending before
    /// that answers [`SendError::WouldBlock`].
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn wait_connected(&mut self, timeout: Duration) -> Result<bool, ZmqError> {
        let deadline = Instant::now() + timeout;
        loop {
            if self.events()?.output {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            // Interrupted or not: the deadline bounds it.
            let _ = poll::wait(&mut [PollFd::input(self.fd())], Some(left));
        }
    }

    /// Queues one frame for the router. On success `frame` is left empty (with its memory, if it was below
    /// [`LARGE_FRAME_BYTES`](super::LARGE_FRAME_BYTES) and copied); on an error it is untouched.
    ///
    /// # Errors
    /// [`SendError::WouldBlock`] while the connection is down or the queue is full.
    pub fn send(&mut self, frame: &mut Vec<u8>) -> Result<(), SendError> {
        self.socket.send_body(frame)
    }

    /// The next frame, if one has arrived. A transmission of several parts comes out as one empty frame.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn try_recv(&mut self) -> Result<Option<Frame>, ZmqError> {
        let Some(body) = self.socket.receive()? else { return Ok(None) };
        let several = self.socket.drop_rest(&body)?;
        let body = if several { Message::empty(self.socket.functions()) } else { body };
        Ok(Some(Frame::new(body)))
    }

    /// The next frame, with the second part of its transmission if it has one.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn try_recv_pair(&mut self) -> Result<Option<(Frame, Option<Frame>)>, ZmqError> {
        let Some(head) = self.socket.receive()? else { return Ok(None) };
        if !head.has_more() {
            return Ok(Some((Frame::new(head), None)));
        }
        // The parts of a transmission arrive together.
        let Some(body) = self.socket.receive()? else { return Ok(None) };
        self.socket.drop_rest(&body)?;
        Ok(Some((Frame::new(head), Some(Frame::new(body)))))
    }

    /// Whether a frame has arrived. To be asked before every sleep on [`fd`](Dealer::fd).
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
