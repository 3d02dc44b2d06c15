//! What libzmq answers when it does not do as asked.

use std::ffi::{CStr, c_int};

use super::library::Functions;

/// A call of libzmq that failed, in its own words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{call}: {text}")]
pub struct ZmqError {
    /// What was called, and with which endpoint.
    pub call: String,
    /// The error number: one of the system's, or one of libzmq's own above 156384712.
    pub errno: i32,
    /// libzmq's text for it.
    pub text: String,
}

/// Why a frame was not sent. The frame is still the caller's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendError {
    /// The peer's queue is full, or (a dealer) the connection is not up. The socket's descriptor turns readable when that changes.
    #[error("the peer does not take more frames now")]
    WouldBlock,
    /// No peer of that name is connected.
    #[error("no such peer is connected")]
    Unreachable,
    /// The socket is broken.
    #[error(transparent)]
    Failed(#[from] ZmqError),
}

/// The error number of the last call that failed on this thread.
pub(super) fn last_errno(functions: &Functions) -> c_int {
    // SAFETY: takes nothing and reads a thread-local.
    unsafe { (functions.errno)() }
}

impl ZmqError {
    /// The last error on this thread, for `call`.
    pub(super) fn last(functions: &Functions, call: impl Into<String>) -> Self {
        Self::new(functions, last_errno(functions), call)
    }

    pub(super) fn new(functions: &Functions, errno: c_int, call: impl Into<String>) -> Self {
        // SAFETY: `zmq_strerror` takes any number and returns a C string, which is copied before anybody can change it.
        let text = unsafe { CStr::from_ptr((functions.strerror)(errno)) }.to_string_lossy().into_owned();
        Self { call: call.into(), errno, text }
    }
}
