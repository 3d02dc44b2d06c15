//! Pure session machines: broker, worker and client. No socket, no clock, no Python.
#![forbid(unsafe_code)]

pub mod broker;
pub mod chunks;
pub mod client;
pub mod limits;
pub mod link;
pub mod store;
pub mod why;
pub mod worker;
