//! What a broker can do wrong.

use headrace_wire::{DecodeError, PROTOCOL_VERSION};

/// The broker broke the protocol, or speaks another one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProtocolError {
    /// A frame could not be decoded.
    #[error("a frame from the broker could not be read: {0}")]
    Frame(#[from] DecodeError),
    /// A frame is longer than any that a broker sends.
    #[error("a frame of {0} bytes from the broker is too large")]
    FrameTooLarge(usize),
    /// Both sides must speak one version.
    #[error(
        "this client is headrace {ours} (protocol {PROTOCOL_VERSION}), the broker is headrace {theirs} (protocol \
         {protocol}): install the same version on both sides"
    )]
    VersionMismatch {
        /// Our version.
        ours: String,
        /// The broker's version.
        theirs: String,
        /// The broker's protocol.
        protocol: u32,
    },
    /// Something came before WELCOME.
    #[error("the broker sent {0} before Welcome")]
    BeforeWelcome(&'static str),
    /// A message that only workers or brokers get, or a second WELCOME.
    #[error("the broker sent {0}, which a client does not expect")]
    NotForClients(&'static str),
    /// The ending of a task that the run has not got.
    #[error("the broker told of a task beyond the {tasks} tasks of run {run}")]
    NoSuchTask {
        /// The run.
        run: u32,
        /// How many tasks it has.
        tasks: usize,
    },
    /// An ending whose details are garbage.
    #[error("the broker's word on how task {index} of run {run} ended is unreadable")]
    UnreadableEnding {
        /// The run.
        run: u32,
        /// The task's index in it.
        index: u32,
    },
}
