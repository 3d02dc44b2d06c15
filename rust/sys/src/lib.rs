//! The unsafe room: every foreign call that Rust cannot check stands here, each block with its argument.
