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

use headrace_sys::zmq::{Dealer, Frame, Router};
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
