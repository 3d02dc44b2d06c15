//! Frames to and from bytes: the messages of headrace and a bounded, non-recursive decoder for them.
#![forbid(unsafe_code)]

mod columns;
mod message;

pub use columns::{Blobs, BlobsBuf, U32s};
pub use message::*;
