//! Native threads.

use std::io;
use std::thread::{Builder, JoinHandle};

use crate::signals;

/// Starts a thread that never takes a signal. Linux shows the first 15 bytes of `name`.
///
/// # Errors
/// What the system says when it has no thread to give.
pub fn spawn_native<T, F>(name: &str, body: F) -> io::Result<JoinHandle<T>>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    // The new thread inherits the mask of its maker: it is never unblocked, not even for its first instruction.
    let _blocked = signals::block_all();
    Builder::new().name(name.to_owned()).spawn(body)
}
