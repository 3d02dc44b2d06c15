//! The messages about the memory that results lie in.

use crate::columns::{Blobs, U32s};

/// Asks for a segment of shared memory (worker or client to broker). The answer comes with a descriptor, not as a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Want {
    /// The largest block that it must have room for.
    pub bytes: u64,
}

/// Takes the last wish back (worker or client to broker). It is answered all the same, and at once, unless it has been.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Withdraw {
    /// For how many bytes it was.
    pub bytes: u64,
}

/// A segment that the sender was to see has not come or could not be mapped: too many files were open. It wants it once more
/// (worker or client to broker).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lack {
    /// Number of the segment.
    pub segment: u32,
}

/// Blocks that no live result cites (broker to whoever may have them). Their owner may use the bytes again once it sees them
/// no more itself; anybody else answers [`Released`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Release<'a> {
    /// Segment of each block.
    pub segment: U32s<'a>,
    /// Offset of each block within its segment, in units of [`BLOCK_ALIGN`] bytes.
    pub offset: U32s<'a>,
    /// To the owner of a block: how many of its citations the broker has received since the last RELEASE. If it has sent
    /// more, one is on its way, and the block stays until the broker speaks again. 0 to anybody else.
    pub citations: U32s<'a>,
}

/// Blocks of others that the sender sees no more (worker or client to broker).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Released<'a> {
    /// Segment of each block.
    pub segment: U32s<'a>,
    /// Offset of each block within its segment, in units of [`BLOCK_ALIGN`] bytes.
    pub offset: U32s<'a>,
}

/// Shared memory that its owner does not use and returns (worker or client to broker); or, without segments, the wish that it
/// does (broker to owners, and where somebody waits to holders of dead blocks as well).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GiveBack<'a> {
    /// Numbers of segments.
    pub segment: U32s<'a>,
    /// How many pages of each were punched; 0 for a whole segment.
    pub pages: U32s<'a>,
    /// Of a wish: 0, [`WANTED`] or [`WANTED_BADLY`].
    pub urgency: u8,
}

/// Somebody waits for memory, so that it may be worth while to look for garbage that keeps some.
pub const WANTED: u8 = 1;

/// Somebody will be told that there is none: whoever has dead blocks looks for garbage before.
pub const WANTED_BADLY: u8 = 2;

/// Results whose encoding is another one now, because their bytes were moved to disk (broker to client). What the client has of
/// the former encoding it may forget.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Moved<'a> {
    /// The run.
    pub run: u32,
    /// Index of each task within the run.
    pub index: U32s<'a>,
    /// Their encoded values.
    pub values: Blobs<'a>,
}

/// Segments with this number and above lie in files; the others are memory.
pub const FILE_SEGMENTS: u32 = 1 << 31;

/// Size of a page of shared memory.
pub const PAGE_BYTES: u64 = 4096;

/// Blocks of shared memory start at multiples of this many bytes.
pub const BLOCK_ALIGN: u64 = 64;
