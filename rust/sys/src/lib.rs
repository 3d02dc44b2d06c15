//! The unsafe room: every foreign call that Rust cannot check stands here, each block with its argument.
//!
//! Nothing here knows tasks, graphs or frames' contents. What the modules export is safe to call.

#[cfg(not(target_os = "linux"))]
compile_error!("headrace runs on Linux only: it needs memfd, pidfd and eventfd");

pub mod control;
pub mod eventfd;
pub mod exit;
pub mod memfd;
pub mod origin;
pub mod pidfd;
pub mod poll;
pub mod room;
pub mod segment;
pub mod signals;
pub mod spawn;
pub mod standard;
pub mod status_page;
pub mod threads;
pub mod timerfd;
pub mod zmq;
