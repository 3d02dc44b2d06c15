//! Python values to and from bytes: arguments of tasks, and results.
//!
//! Small exact atoms and containers are written by tag in native code; anything else is one pickle (protocol 5). All
//! numbers are little-endian.
//!
//! | tag | value | | tag | value |
//! | --- | --- | --- | --- | --- |
//! | 0 | `None` | | 9 | list: u32 n, then n values |
//! | 1, 2 | `True`, `False` | | 10 | tuple: u32 n, then n values |
//! | 3 | int: i8 | | 11 | dict: u32 n, then n × (key, value) |
//! | 4 | int: i32 | | 12 | pickle: u32 length, bytes |
//! | 5 | int: i64 | | 13 | the result of the task's k-th predecessor: u32 k |
//! | 6 | float: f64 | | 14 | list of the results of predecessors k … k+n-1: u32 k, u32 n |
//! | 7 | str: u32 length, UTF-8 | | 15 | live object i of a by-reference graph: u32 i |
//! | 8 | bytes: u32 length, bytes | | 16 | pickle that cites predecessors: u32 n, n × u32 k, then as 12 |
//!
//! 18 is a pickle that has not got its large buffers (`large.rs`): u32 n, n × u32 k, the predecessors that are the buffers; u32 n,
//! n × u32 k, the predecessors that the pickle cites; then the pickle, as 8 or 13. 19 is a result alone, an array of plain numbers
//! that may be written to (`array.rs`): u32 length, its bytes, then its type and shape.
//!
//! A result is one value (never tags 13 to 16, or 18), or begins with 17: then parts of it lie in shared memory (`shared.rs`).
//! Arguments are a head byte, then values: head 0 … 253 is the number of positional arguments, 254 says that a u32 with that
//! number follows; then a u8 with the number of keyword arguments, the positional values, and for each keyword its name (as
//! tag 7) and its value. Head 255 says that one value follows, the pickle of `(args, kwargs)`, written when two arguments could
//! share an object, so that they still do on arrival; then the u8 and the keywords as above.
mod array;
mod citations;
mod constants;
mod decode;
mod encode;
mod large;
mod live;
mod main_names;
mod out_of_band;
mod passed;
mod pickle;
mod shared;
mod writable;

pub(crate) use citations::{Citations, External, ExternalId};
pub(crate) use constants::{Constant, ConstantValue};
pub(crate) use decode::{decode_args, decode_args_live, decode_value};
pub(crate) use encode::{Encoder, encode_value, is_atom, put_int};
pub(crate) use large::{LargeId, LargeKind, encode_large, large_input};
pub(crate) use live::LiveObjects;
pub(crate) use main_names::names_main;
pub(crate) use passed::{Keywords, Passed};
pub(crate) use pickle::{_dep, cite, reduce_node, reduce_nodes, try_pickle};
pub(crate) use shared::wrap;
pub(crate) use writable::make_writable;

const NONE: u8 = 0;
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const INT8: u8 = 3;
const INT32: u8 = 4;
const INT64: u8 = 5;
const FLOAT: u8 = 6;
const STR: u8 = 7;
const BYTES: u8 = 8;
const LIST: u8 = 9;
const TUPLE: u8 = 10;
const DICT: u8 = 11;
const PICKLE: u8 = 12;
const DEP: u8 = 13;
const DEP_RANGE: u8 = 14;
const OBJECT: u8 = 15;
const CITING_PICKLE: u8 = 16;
const LARGE_PICKLE: u8 = 18;
const ARRAY: u8 = 19;

/// Head byte: a u32 with the number of positional arguments follows.
const HEAD_LONG: u8 = 254;
/// Head byte: one pickle of `(args, kwargs)` follows.
const HEAD_WHOLE: u8 = 255;

/// Longest container that is written by tag; beyond it the C pickler is as fast.
const ITEMS_MAX: usize = 64;
/// Deepest nesting that is written by tag.
const DEPTH_MAX: u32 = 8;
/// Most items that one task's arguments may have by tag, all containers together.
const ITEMS_TOTAL_MAX: usize = 4096;
/// Most keyword arguments that are written one by one.
const KEYWORDS_MAX: usize = 255;
