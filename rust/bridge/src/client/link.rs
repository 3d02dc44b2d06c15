//! A session's way to its broker: a channel, which in a worker's process leads over the connection of the worker.
use std::ops::Deref;

use headrace_runtime::inproc::{ClientEnd, Closed};

use crate::worker::Host;

/// See the module.
pub(crate) struct Link {
    end: ClientEnd,
    host: Option<Host>,
}

impl Link {
    /// To a broker in this process.
    pub(crate) fn embedded(end: ClientEnd) -> Self {
        Self { end, host: None }
    }

    /// Over the connection of a worker.
    pub(crate) fn hosted(end: ClientEnd, host: Host) -> Self {
        Self { end, host: Some(host) }
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
