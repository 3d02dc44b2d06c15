//! A session's way to its broker: a channel, which in a worker's process leads over the connection of the worker.
use std::ops::Deref;

use headrace_runtime::inproc::{ClientEnd, Closed};

use crate::worker::Host;

/// See the module.
pub(crate) struct Link {
    end: ClientEnd,
    host: Option<Host>,
    /// Whether frames go through a socket, which takes no more than so much at once.
    is_far: bool,
}

impl Link {
    /// To a broker in this process.
    pub(crate) fn embedded(end: ClientEnd) -> Self {
        Self { end, host: None, is_far: false }
    }

    /// To a broker in another process.
    pub(crate) fn to_process(end: ClientEnd) -> Self {
        Self { end, host: None, is_far: true }
    }

    /// Over the connection of a worker.
    pub(crate) fn hosted(end: ClientEnd, host: Host) -> Self {
        Self { end, host: Some(host), is_far: true }
    }

    /// Whether frames go through a socket.
    pub(crate) fn is_far(&self) -> bool {
        self.is_far
    }

    /// The worker's process.
    pub(crate) fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// Sends one frame.
    pub(crate) fn send(&self, frame: Vec<u8>) -> Result<(), Closed> {
        self.end.send(frame)?;
        self.host.iter().for_each(Host::deliver);
        Ok(())
    }

    /// Sends several frames at once.
    pub(crate) fn send_all(&self, frames: Vec<Vec<u8>>) -> Result<(), Closed> {
        self.end.send_all(frames)?;
        self.host.iter().for_each(Host::deliver);
        Ok(())
    }
}

impl Deref for Link {
    type Target = ClientEnd;

    fn deref(&self) -> &ClientEnd {
        &self.end
    }
}
