//! The exchange of a machine: a thread that serves the bytes of its segments to other machines, and fetches theirs.
//!
//! It listens on a port of its own, with keys that live as long as it does; the broker says who may come in. A request names a few
//! bytes of a segment, and the reply has them. Requests stand alone, so who fetches may go on anywhere: it asks
//! for what is missing, from whoever has it. What a copy has not got yet is served once it is there.
//!
//! The bytes are encrypted on libzmq's own threads, and go from the socket to their place and back without another copy.

mod chunk;
mod fetch;
mod ranges;
mod serve;

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use headrace_protocol::broker::CopyPart;
use headrace_sys::eventfd::EventFd;
use headrace_sys::poll::{self, PollFd};
use headrace_sys::segment::Segment;
use headrace_sys::threads::spawn_native;
use headrace_sys::zmq::{Context, Gatekeeper, Key, Library, OwnKeys, Router, ZmqError};

use fetch::Fetcher;
use serve::Server;

/// Longest sleep, and the one while something waits to be sent or asked once more.
const TICK: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(5);
/// Frames handled in a row before others have their turn.
const FRAMES_A_TURN: usize = 32;

/// A copy to make here. The same number once more: go on, from there. Without parts: give it up.
#[derive(Clone, Debug)]
pub(crate) struct CopyJob {
    pub(crate) number: u64,
    pub(crate) endpoint: String,
    pub(crate) key: String,
    pub(crate) parts: Vec<CopyPart>,
}

/// How a copy ended.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) job: u64,
    pub(crate) outcome: Result<(), String>,
}

enum Command {
    Enter { segment: u32, file: Arc<File>, is_copy: bool },
    Leave(u32),
    Admit(Key),
    Expel(Key),
    Copy(CopyJob),
    End,
}

/// The thread, as its owner sees it.
pub(crate) struct Exchange {
    /// `tcp://ADDRESS:PORT`, without an address if it listens at all of them.
    pub(crate) endpoint: String,
    /// Its public key.
    pub(crate) key: String,
    commands: Sender<Command>,
    call: Arc<EventFd>,
    copied: Receiver<Copied>,
    bell: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

/// Why there is no exchange.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The socket could not be made.
    #[error(transparent)]
    Socket(#[from] ZmqError),
    /// The system refused a descriptor or a thread.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl Exchange {
    /// Starts one that listens at this address, `0.0.0.0` for all.
    pub(crate) fn start(library: &Arc<Library>, address: &str) -> Result<Self, ExchangeError> {
        let context = Context::new(library)?;
        let keys = OwnKeys::generate(library)?;
        let keeper = Gatekeeper::open(&context)?;
        let mut router = Router::bind(&context, "inproc://exchange")?;
        let bound = router.bind_guarded(&format!("tcp://{address}:*"), &keys)?;
        let port = bound.rsplit(':').next().unwrap_or_default();
        let host = if address == "0.0.0.0" { "" } else { address };
        let endpoint = format!("tcp://{host}:{port}");
        let key = keys.public.text();
        let (commands, queue) = channel();
        let (copied_to, copied) = channel();
        let (call, bell) = (Arc::new(EventFd::new()?), Arc::new(EventFd::new()?));
        let mut hall = Hall {
            queue,
            call: Arc::clone(&call),
            keeper,
            allowed: HashSet::new(),
            segments: HashMap::new(),
            server: Server::new(router),
            fetcher: Fetcher::new(context, keys),
            copied: copied_to,
            bell: Arc::clone(&bell),
        };
        let thread = spawn_native("headrace-exchange", move || hall.run())?;
        Ok(Exchange { endpoint, key, commands, call, copied, bell, thread: Some(thread) })
    }

    /// A segment is there to be read; if it is for copies, only what copies bring.
    pub(crate) fn enter(&self, segment: u32, file: Arc<File>, is_copy: bool) {
        self.tell(Command::Enter { segment, file, is_copy });
    }

    /// A segment is gone.
    pub(crate) fn leave(&self, segment: u32) {
        self.tell(Command::Leave(segment));
    }

    /// Another machine may fetch here, or may not any more.
    pub(crate) fn introduce(&self, key: &str, left: bool) {
        if let Some(key) = Key::parse(key) {
            self.tell(if left { Command::Expel(key) } else { Command::Admit(key) });
        }
    }

    /// Begins a copy, goes on with it, or gives it up.
    pub(crate) fn copy(&self, job: CopyJob) {
        self.tell(Command::Copy(job));
    }

    /// To be polled for input.
    pub(crate) fn fd(&self) -> RawFd {
        self.bell.fd()
    }

    /// The next copy that has ended.
    pub(crate) fn poll(&self) -> Option<Copied> {
        self.bell.clear();
        self.copied.try_recv().ok()
    }

    fn tell(&self, command: Command) {
        // It has ended only if it panicked, and then nothing is copied any more.
        let _ = self.commands.send(command);
        self.call.signal();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.tell(Command::End);
        // A panic of the thread was printed by the panic hook.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A segment of this machine.
pub(crate) struct Tract {
    file: Arc<File>,
    /// The map by which it is served; made when it is first asked for.
    map: OnceCell<Option<Arc<Segment>>>,
    /// What is there of it, if it is for copies; else all of it.
    present: Option<ranges::Ranges>,
}

impl Tract {
    fn map(&self) -> Option<Arc<Segment>> {
        self.map.get_or_init(|| self.make_map().ok().map(Arc::new)).clone()
    }

    fn make_map(&self) -> io::Result<Segment> {
        let bytes = self.file.metadata()?.len();
        let fd = || self.file.try_clone().map(OwnedFd::from);
        Segment::map(fd()?, bytes, false).or_else(|_| Segment::map_file(fd()?, bytes))
    }
}

/// What the thread owns.
struct Hall {
    queue: Receiver<Command>,
    call: Arc<EventFd>,
    keeper: Gatekeeper,
    allowed: HashSet<Key>,
    segments: HashMap<u32, Tract>,
    server: Server,
    fetcher: Fetcher,
    copied: Sender<Copied>,
    bell: Arc<EventFd>,
}

impl Hall {
    fn run(&mut self) {
        while self.turn().unwrap_or(false) {
            self.sleep();
        }
    }

    /// False if it is to end.
    fn turn(&mut self) -> Result<bool, ZmqError> {
        self.call.clear();
        while let Ok(command) = self.queue.try_recv() {
            match command {
                Command::Enter { segment, file, is_copy } => {
                    let present = is_copy.then(ranges::Ranges::default);
                    self.segments.insert(segment, Tract { file, map: OnceCell::new(), present });
                }
                Command::Leave(segment) => {
                    self.segments.remove(&segment);
                    self.server.forget(segment);
                }
                Command::Admit(key) => drop(self.allowed.insert(key)),
                Command::Expel(key) => {
                    self.allowed.remove(&key);
                    self.fetcher.expel(&key);
                }
                Command::Copy(job) => self.fetcher.begin(job, &mut self.segments, Instant::now()),
                Command::End => return Ok(false),
            }
        }
        while let Some(caller) = self.keeper.poll()? {
            let is_known = caller.key.is_some_and(|key| self.allowed.contains(&key));
            self.keeper.answer(is_known.then_some("neighbour"))?;
        }
        let has_news = self.fetcher.turn(&mut self.segments, Instant::now())?;
        self.server.turn(&self.segments, has_news)?;
        for (job, outcome) in self.fetcher.take_ended() {
            let _ = self.copied.send(Copied { job, outcome });
            self.bell.signal();
        }
        Ok(true)
    }

    fn sleep(&mut self) {
        let is_busy = self.keeper.has_input().unwrap_or(false) || self.server.has_input() || self.fetcher.has_input();
        if is_busy {
            return;
        }
        let timeout = if self.server.is_blocked() || self.fetcher.is_blocked() { RETRY } else { TICK };
        let mut fds =
            vec![PollFd::input(self.call.fd()), PollFd::input(self.keeper.fd()), PollFd::input(self.server.fd())];
        self.fetcher.poll_fds(&mut fds);
        // Whatever comes of it: the next turn looks.
        let _ = poll::wait(&mut fds, Some(timeout));
    }
}

#[cfg(test)]
mod tests;
