//! The gate of a broker that listens to the network: a thread that lets in whose key is on the list. It stands before anything is
//! bound; should it fall, nobody comes in any more.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use headrace_sys::eventfd::EventFd;
use headrace_sys::poll::{self, PollFd};
use headrace_sys::threads::spawn_native;
use headrace_sys::zmq::{Context, Gatekeeper, Key, ZmqError};

/// Time between two words on callers that were sent away, of whom there may be very many.
const WORD_EVERY: Duration = Duration::from_secs(10);

/// Who may come in, and the roles that each may have.
pub type Allowed = HashMap<Key, String>;

/// A gate with its thread, until it is dropped.
pub(crate) struct Gate {
    thread: Option<JoinHandle<()>>,
    end: Arc<EventFd>,
}

impl Gate {
    /// Takes its place for all sockets of the context.
    pub(crate) fn open(context: &Context, allowed: Allowed) -> Result<Self, GateError> {
        let keeper = Gatekeeper::open(context)?;
        let end = Arc::new(EventFd::new()?);
        let mut watch = Watch { keeper, allowed, end: Arc::clone(&end), refused: 0, said: None };
        let thread = spawn_native("headrace-gate", move || {
            while watch.turn().is_ok() {
                if watch.sleep() {
                    return;
                }
            }
        })?;
        Ok(Gate { thread: Some(thread), end })
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.end.signal();
        // A panic of the thread was printed by the panic hook.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Why there is no gate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GateError {
    /// The socket could not be made.
    #[error(transparent)]
    Socket(#[from] ZmqError),
    /// The system refused a descriptor or a thread.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// What the thread owns.
struct Watch {
    keeper: Gatekeeper,
    allowed: Allowed,
    end: Arc<EventFd>,
    /// Callers that were sent away since the last word on them.
    refused: u64,
    said: Option<Instant>,
}

impl Watch {
    fn turn(&mut self) -> Result<(), ZmqError> {
        while let Some(caller) = self.keeper.poll()? {
            let roles = caller.key.and_then(|key| self.allowed.get(&key));
            self.keeper.answer(roles.map(String::as_str))?;
            if roles.is_none() {
                self.refused += 1;
                if self.said.is_none_or(|said| said.elapsed() >= WORD_EVERY) {
                    // Nobody may read it.
                    let _ = writeln!(
                        io::stderr(),
                        "headrace: {} connections were refused, the last one from {}: its key is not on the list of those \
                         that are allowed",
                        std::mem::take(&mut self.refused),
                        caller.address.escape_debug()
                    );
                    self.said = Some(Instant::now());
                }
            }
        }
        Ok(())
    }

    /// Sleeps until somebody calls; whether the gate is to end.
    fn sleep(&mut self) -> bool {
        if self.keeper.has_input().unwrap_or(false) {
            return false;
        }
        let mut fds = [self.keeper.fd(), self.end.fd()].map(PollFd::input);
        let _ = poll::wait(&mut fds, None);
        fds[1].is_ready()
    }
}
