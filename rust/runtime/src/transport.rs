//! What a broker and its peers need of a transport, whatever carries the frames.
//!
//! ZeroMQ is the first and general one: [`Router`] is the broker's end, [`Dealer`] a peer's. A same-host lane can join
//! beside it without the loops noticing. All ends keep the same bargain:
//!
//! - No call blocks. A frame that cannot go out now is refused and stays the caller's.
//! - Frames of one sender arrive in order, whole, and once, or not at all when the connection is lost.
//! - To sleep, ask `has_input`; if it says no, poll `fd` for input. Once awake, receive until there is nothing left.

use std::ops::Deref;
use std::os::fd::RawFd;

use headrace_sys::zmq::{Dealer, Frame, Monitor, Router, Sight};
pub use headrace_sys::zmq::{RoutingId, SendError, ZmqError};

/// The broker's end: one for all peers.
pub trait Hub: Send {
    /// A frame that arrived.
    type Frame: Deref<Target = [u8]> + Send;

    /// Queues one frame for `peer`. On success `frame` is left empty, on an error untouched.
    ///
    /// # Errors
    /// When the peer is not there, its queue is full, or the transport is broken.
    fn send(&mut self, peer: &RoutingId, frame: &mut Vec<u8>) -> Result<(), SendError>;

    /// The next frame and who sent it, if one has arrived.
    ///
    /// # Errors
    /// When the transport is broken.
    fn try_recv(&mut self) -> Result<Option<(RoutingId, Self::Frame)>, ZmqError>;

    /// Whether a frame has arrived.
    ///
    /// # Errors
    /// When the transport is broken.
    fn has_input(&mut self) -> Result<bool, ZmqError>;

    /// The descriptor to poll for input.
    fn fd(&self) -> RawFd;
}

/// A peer's end.
pub trait Link: Send {
    /// A frame that arrived.
    type Frame: Deref<Target = [u8]> + Send;

    /// Queues one frame for the broker. On success `frame` is left empty, on an error untouched.
    ///
    /// # Errors
    /// When the connection is down, the queue is full, or the transport is broken.
    fn send(&mut self, frame: &mut Vec<u8>) -> Result<(), SendError>;

    /// The next frame, if one has arrived.
    ///
    /// # Errors
    /// When the transport is broken.
    fn try_recv(&mut self) -> Result<Option<Self::Frame>, ZmqError>;

    /// Whether a frame has arrived.
    ///
    /// # Errors
    /// When the transport is broken.
    fn has_input(&mut self) -> Result<bool, ZmqError>;

    /// The descriptor to poll for input.
    fn fd(&self) -> RawFd;
}

impl Hub for Router {
    type Frame = Frame;

    fn send(&mut self, peer: &RoutingId, frame: &mut Vec<u8>) -> Result<(), SendError> {
        Router::send(self, peer, frame)
    }

    fn try_recv(&mut self) -> Result<Option<(RoutingId, Frame)>, ZmqError> {
        Router::try_recv(self)
    }

    fn has_input(&mut self) -> Result<bool, ZmqError> {
        Router::has_input(self)
    }

    fn fd(&self) -> RawFd {
        Router::fd(self)
    }
}

/// A worker's connection. It ends for good when it breaks, where that can be seen: the broker must not take the next one for the
/// same, for frames may be lost between the two.
pub struct WorkerLink {
    dealer: Dealer,
    /// Where nothing but the end of one side can break it, nobody looks.
    monitor: Option<Monitor>,
}

impl WorkerLink {
    /// Over a socket of this machine.
    #[must_use]
    pub fn near(dealer: Dealer) -> Self {
        WorkerLink { dealer, monitor: None }
    }

    /// Over the network.
    #[must_use]
    pub fn far(dealer: Dealer, monitor: Monitor) -> Self {
        WorkerLink { dealer, monitor: Some(monitor) }
    }

    /// The socket.
    pub fn dealer(&mut self) -> &mut Dealer {
        &mut self.dealer
    }
}

impl Link for WorkerLink {
    type Frame = Frame;

    fn send(&mut self, frame: &mut Vec<u8>) -> Result<(), SendError> {
        self.dealer.send(frame)
    }

    fn try_recv(&mut self) -> Result<Option<Frame>, ZmqError> {
        while let Some(sight) = self.monitor.as_mut().map_or(Ok(None), Monitor::poll)? {
            if sight != Sight::Up {
                return Err(ZmqError {
                    call: "the connection to the broker".into(),
                    errno: 0,
                    text: "it broke".into(),
                });
            }
        }
        self.dealer.try_recv()
    }

    fn has_input(&mut self) -> Result<bool, ZmqError> {
        self.dealer.has_input()
    }

    fn fd(&self) -> RawFd {
        self.dealer.fd()
    }
}

impl Link for Dealer {
    type Frame = Frame;

    fn send(&mut self, frame: &mut Vec<u8>) -> Result<(), SendError> {
        Dealer::send(self, frame)
    }

    fn try_recv(&mut self) -> Result<Option<Frame>, ZmqError> {
        Dealer::try_recv(self)
    }

    fn has_input(&mut self) -> Result<bool, ZmqError> {
        Dealer::has_input(self)
    }

    fn fd(&self) -> RawFd {
        Dealer::fd(self)
    }
}
