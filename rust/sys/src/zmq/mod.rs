//! The part of libzmq that headrace uses, bound at run time to the library that pyzmq ships.
//!
//! There is no blocking call: a send or a receive that cannot go through says so at once, and who wants to wait polls
//! the socket's descriptor. That descriptor is **edge-triggered**: it turns readable when something *happened*, and any
//! send or receive may swallow that edge. So before sleeping on it, ask [`Router::has_input`] (or `events`), and sleep
//! only if the answer is no; after every wake-up, receive until nothing is left.
//!
//! A socket may move from thread to thread, and be shared behind a mutex (whose hand-over is the full fence that libzmq
//! asks for), but two threads never use it at once: it is `Send` and not `Sync`, and its methods take `&mut self`.
//!
//! libzmq's own threads have every signal blocked. Nothing here may be used in a forked child; dropping there is safe.

mod context;
mod curve;
mod dealer;
mod error;
mod library;
mod message;
mod monitor;
mod router;
mod search;
mod socket;
mod zap;

pub use context::Context;
pub use curve::{Key, OwnKeys, PeerKeys};
pub use dealer::Dealer;
pub use error::{SendError, ZmqError};
pub use library::{Library, LoadError, Version};
pub use message::Frame;
pub use monitor::{Arrivals, Monitor, Sight};
pub use router::{Router, RoutingId};
pub use search::find_candidates;
pub use socket::{
    Events, FRAME_BYTES_MAX, HANDSHAKE_TIMEOUT_MS, LARGE_FRAME_BYTES, QUEUED_FRAMES_MAX, UNREAD_FRAMES_MAX,
};
pub use zap::{Caller, Gatekeeper};
