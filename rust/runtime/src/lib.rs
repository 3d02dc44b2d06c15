//! The only place with sockets, threads, timers and file input and output.
#![forbid(unsafe_code)]

pub mod agent;
pub mod broker;
pub mod clock;
mod estate;
mod exchange;
pub mod inproc;
mod nested;
pub mod remote;
pub mod run_dir;
pub mod segments;
pub mod transport;
mod warden;
pub mod worker_loop;
mod worker_memory;
