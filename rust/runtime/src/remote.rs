//! A client of a broker in another process. A native thread carries frames between the channel that every client has and the
//! socket, so whoever waits sees no difference; and it answers the broker's questions whatever the interpreter does.
//!
//! A session lives as long as its connection: frames that were on their way when that broke may have arrived or not. So the
//! thread ends with the first connection, and the end of the channel tells those who wait.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use headrace_sys::poll::{self, PollFd};
use headrace_sys::threads::spawn_native;
use headrace_sys::zmq::{
    Context, Dealer, FRAME_BYTES_MAX, Library, LoadError, Monitor, PeerKeys, SendError, Sight, ZmqError,
};
use headrace_wire::{Goodbye, GoodbyeReason, Message};

use crate::inproc::{self, BrokerEnd, ClientEnd, Wake};

/// What the last frames get to leave.
const LINGER: Duration = Duration::from_secs(1);
/// After this a frame that the socket did not take is tried again.
const RETRY: Duration = Duration::from_millis(1);
/// The broker asks for a sign of life every second. After so long without any word of it, it is lost: its machine may be off, or
/// the network be cut.
const TICK: Duration = Duration::from_secs(1);
const QUIET_MAX: Duration = Duration::from_secs(30);
/// Bytes of a client's goodbye at most.
const GOODBYE_BYTES_MAX: usize = 4_096;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// libzmq is missing or too old.
    #[error(transparent)]
    Library(#[from] LoadError),
    /// The socket could not be made.
    #[error(transparent)]
    Socket(#[from] ZmqError),
    /// The system refused a descriptor or a thread.
    #[error("the connection could not be made: {0}")]
    System(#[from] io::Error),
    /// The other side does not accept us, or is no broker.
    #[error(
        "the broker does not accept this connection: is the key on its list, and is that broker the one of the key?"
    )]
    Refused,
}

/// A connection that is being made.
pub struct Connection {
    dealer: Dealer,
    monitor: Monitor,
    context: Context,
}

impl Connection {
    /// Begins to connect to `endpoint`, with keys if it asks for some.
    ///
    /// # Errors
    /// [`ConnectError`]. That nobody listens is no error.
    pub fn begin(libzmq: &[PathBuf], endpoint: &str, keys: Option<&PeerKeys>) -> Result<Self, ConnectError> {
        let context = Context::new(&Library::open(libzmq)?)?;
        // Nobody can guess it: the router gives a name to whoever comes with it last.
        let name = format!("c-{:016x}", RandomState::new().build_hasher().finish());
        let (mut dealer, monitor) = Dealer::connect_watched(&context, endpoint, name.as_bytes(), keys)?;
        dealer.set_linger_ms(LINGER.as_millis() as u32)?;
        Ok(Self { dealer, monitor, context })
    }

    /// Sleeps until the connection is up, for at most `timeout`; whether it is.
    ///
    /// # Errors
    /// [`ConnectError::Refused`], or the socket is broken.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool, ConnectError> {
        let until = Instant::now() + timeout;
        loop {
            match self.monitor.poll()? {
                Some(Sight::Up) => return Ok(true),
                Some(Sight::Refused) => return Err(ConnectError::Refused),
                Some(Sight::Down) => continue,
                None => {}
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            // Interrupted or not: the deadline bounds it.
            let _ = poll::wait(&mut [PollFd::input(self.monitor.fd())], Some(left));
        }
    }

    /// Starts to carry frames.
    ///
    /// # Errors
    /// When the system has no thread or descriptor to give.
    pub fn carry(self) -> Result<(RemoteHandle, ClientEnd), ConnectError> {
        let (client, end) = inproc::pair()?;
        let leaves = Arc::<AtomicBool>::default();
        let Connection { dealer, monitor, context } = self;
        let mut carrier = Carrier {
            dealer,
            monitor,
            end,
            answers: VecDeque::new(),
            unsent: Vec::new(),
            heard: Instant::now(),
            leaves: Arc::clone(&leaves),
            leave_by: None,
        };
        let thread = spawn_native("headrace-link", move || {
            carrier.run();
            // The channel ends last: who waits for it finds the connection closed.
            let Carrier { dealer, monitor, end, .. } = carrier;
            drop((dealer, monitor));
            drop(context);
            drop(end);
        })?;
        Ok((RemoteHandle { thread, leaves }, client))
    }
}

/// The thread of a connection.
#[derive(Debug)]
pub struct RemoteHandle {
    thread: JoinHandle<()>,
    leaves: Arc<AtomicBool>,
}

impl RemoteHandle {
    /// Waits until the client's goodbye, which it has said, is out; for about a second at most.
    pub fn join(self) {
        // Relaxed: nothing else is told by it.
        self.leaves.store(true, Ordering::Relaxed);
        // A panic of the thread was printed by the panic hook; its end has closed the channel.
        let _ = self.thread.join();
    }
}

/// What the thread owns.
struct Carrier {
    dealer: Dealer,
    monitor: Monitor,
    end: BrokerEnd,
    /// Answers to the broker's questions.
    answers: VecDeque<Vec<u8>>,
    /// A frame that the socket did not take.
    unsent: Vec<u8>,
    /// When the broker said something last.
    heard: Instant,
    leaves: Arc<AtomicBool>,
    leave_by: Option<Instant>,
}

/// The session is over.
struct Over;

impl Carrier {
    fn run(&mut self) {
        while self.turn().is_ok() {
            self.sleep();
        }
    }

    fn turn(&mut self) -> Result<(), Over> {
        let mut is_down = false;
        while let Some(sight) = self.monitor.poll().map_err(|_| Over)? {
            is_down |= sight != Sight::Up;
        }
        self.receive()?;
        if is_down || self.heard.elapsed() >= QUIET_MAX || self.has_waited_to_leave() {
            return Err(Over);
        }
        self.send()?;
        if self.end.is_closed() { Err(Over) } else { Ok(()) }
    }

    fn has_waited_to_leave(&mut self) -> bool {
        if self.leave_by.is_none() && self.leaves.load(Ordering::Relaxed) {
            self.leave_by = Some(Instant::now() + LINGER);
        }
        self.leave_by.is_some_and(|by| Instant::now() >= by)
    }

    fn receive(&mut self) -> Result<(), Over> {
        while let Some(frame) = self.dealer.try_recv().map_err(|_| Over)? {
            self.heard = Instant::now();
            match Message::decode(&frame) {
                Ok(Message::Heartbeat(_)) => self.answers.push_back(frame.to_vec()),
                Ok(Message::Log(_)) => self.end.send_log(frame.to_vec()).map_err(|_| Over)?,
                Ok(Message::Results(results)) => {
                    let indices: Vec<u32> = results.index.iter().collect();
                    let wake = Wake::Results { run: results.run, finished: results.finished, indices: &indices };
                    self.end.send(frame.to_vec(), wake).map_err(|_| Over)?;
                }
                Ok(Message::Goodbye(_)) => {
                    let _ = self.end.send(frame.to_vec(), Wake::All);
                    // The broker that ends waits for it.
                    let _ = self.dealer.send(&mut goodbye(GoodbyeReason::Closed, ""));
                    return Err(Over);
                }
                // What cannot be read is the session's to judge.
                _ => self.end.send(frame.to_vec(), Wake::All).map_err(|_| Over)?,
            }
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Over> {
        loop {
            if self.unsent.is_empty() {
                let next = self.answers.pop_front().or_else(|| self.end.try_recv());
                let Some(frame) = next else { return Ok(()) };
                self.check_length(&frame)?;
                self.unsent = frame;
            }
            let is_last = is_goodbye(&self.unsent);
            match self.dealer.send(&mut self.unsent) {
                Ok(()) if is_last => return Err(Over),
                Ok(()) => {}
                Err(SendError::WouldBlock | SendError::Unreachable) => return Ok(()),
                Err(SendError::Failed(_)) => return Err(Over),
            }
        }
    }

    /// A connection ends without a word where a frame is too long, so that is said here.
    fn check_length(&mut self, frame: &[u8]) -> Result<(), Over> {
        if frame.len() as u64 <= FRAME_BYTES_MAX.unsigned_abs() {
            return Ok(());
        }
        let text = format!(
            "a graph or value of {} bytes cannot be sent in one frame, which takes {FRAME_BYTES_MAX} at most: cut it into \
             several, or pass paths of files",
            frame.len()
        );
        let _ = self.end.send(goodbye(GoodbyeReason::ProtocolError, &text), Wake::All);
        Err(Over)
    }

    /// Sleeps until there is something to carry. Only the socket has to be asked first: the monitor was last asked until it
    /// said no, and is never sent anything.
    fn sleep(&mut self) {
        if !self.end.prepare_to_sleep() {
            return;
        }
        if self.dealer.has_input().unwrap_or(false) {
            self.end.wake_up();
            return;
        }
        let timeout = if self.unsent.is_empty() { TICK } else { RETRY };
        let mut fds = [self.dealer.fd(), self.monitor.fd(), self.end.fd()].map(PollFd::input);
        // Whatever comes of it: the next turn looks.
        let _ = poll::wait(&mut fds, Some(timeout));
        self.end.wake_up();
    }
}

fn goodbye(reason: GoodbyeReason, text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    Message::Goodbye(Goodbye { reason: reason as u8, text }).encode(&mut frame);
    frame
}

/// Whether it is a client's goodbye, which is short. Others are not looked at.
fn is_goodbye(frame: &[u8]) -> bool {
    frame.len() <= GOODBYE_BYTES_MAX && matches!(Message::decode(frame), Ok(Message::Goodbye(_)))
}
