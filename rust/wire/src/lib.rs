//! Frames to and from bytes: the messages of headrace and a bounded, non-recursive decoder for them.
//!
//! [`Message::encode`] appends one frame to a buffer; [`Message::decode`] reads one from the bytes that arrived. The
//! decoder allocates nothing, recurses never, and checks everything that users of a decoded message rely on: columns
//! that run in parallel are equally long, counts add up, positions are in range, enum numbers are known.
#![forbid(unsafe_code)]

mod check;
mod codec;
mod columns;
mod death;
mod error;
mod machine;
mod mark;
mod memory;
mod message;
mod msgpack;
mod nested;
mod numbers;
mod policy;
mod state;
mod value;
mod why;

pub use columns::{Blobs, BlobsBuf, U32s};
pub use error::DecodeError;
pub use mark::{MARK_BYTES, MARKED_BYTES_MAX, Mark, MarkReader, PIECE_BYTES_MAX};
pub use message::*;
pub use numbers::UnknownNumber;
pub use value::{
    CARRIED, CITING, Citation, WRAPPED, behind_citations, carried, citations, cite_elsewhere, cites,
    write_carried_head, write_citations, write_wrapped,
};
