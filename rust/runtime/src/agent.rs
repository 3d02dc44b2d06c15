//! The agent of a machine: a native thread that has worker processes for a broker elsewhere, and does with them what that says.
//!
//! The broker has the rules; here are the processes, as a broker has them that are its own children. Each worker speaks with
//! the broker over a connection of its own, the agent over another one. When that breaks, the agent ends its processes, because
//! what they were leased is leased to others by then, and joins anew.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use headrace_protocol::broker::Exit;
use headrace_sys::eventfd::EventFd;
use headrace_sys::poll::{self, PollFd};
use headrace_sys::threads::spawn_native;
use headrace_sys::zmq::{Context, Dealer, Library, Monitor, PeerKeys, SendError, Sight};
use headrace_wire::{
    Event, EventKind, Goodbye, GoodbyeReason, Hello, Message, Order, OrderKind, PROTOCOL_VERSION, Role,
};

use crate::broker::{Children, Ended, Launch, StartError};
use crate::clock::now_ns;
use crate::estate::Estate;
use crate::exchange::{Copied, ExchangeError};

/// The broker asks every second. After so long without a word of it the connection is lost, whatever the system says: about as
/// soon as the broker gives the machine up, so that it is back as soon as the network is.
const TICK: Duration = Duration::from_secs(1);
const QUIET_MAX: Duration = Duration::from_secs(5);
/// After this a frame that the socket did not take is tried again.
const RETRY: Duration = Duration::from_millis(1);
/// Pause before the agent joins anew; it doubles up to the second one.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// What the processes get to end that were killed, and the last frames to leave.
const END: Duration = Duration::from_secs(2);
const LINGER_MS: u32 = 500;

/// How an agent is set up.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Where the broker listens.
    pub endpoint: String,
    /// The keys of the agent and of its workers.
    pub keys: Option<PeerKeys>,
    /// Where libzmq may be, best guess first.
    pub libzmq: Vec<PathBuf>,
    /// Worker processes that it may have.
    pub slots: u32,
    /// Bytes that results may take in the memory of the machine.
    pub store_limit: u64,
    /// What people call the machine.
    pub name: String,
    /// What it has for its workers, by name.
    pub resources: Vec<(String, u64)>,
    /// How to start a worker.
    pub launch: Launch,
    /// Version of headrace.
    pub version: String,
    /// Version of Python.
    pub python: String,
}

/// A running agent.
#[derive(Debug)]
pub struct AgentHandle {
    thread: JoinHandle<()>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    end: EventFd,
    leaves: AtomicBool,
    /// It is to leave once its workers have ended what they run.
    drains: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

/// What the agent has to tell.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Times that it has joined.
    pub joined: u64,
    /// Whether it is with the broker now.
    pub is_up: bool,
    /// Whether it has ended, and why, if the broker does not want it.
    pub over: Option<Result<(), String>>,
}

/// Starts an agent.
///
/// # Errors
/// libzmq is missing, or the system has no thread or descriptor to give. That nobody listens is no error.
pub fn start(config: AgentConfig) -> Result<AgentHandle, StartError> {
    let library = Library::open(&config.libzmq)?;
    let context = Context::new(&library)?;
    let shared = Arc::new(Shared {
        end: EventFd::new()?,
        leaves: AtomicBool::new(false),
        drains: AtomicBool::new(false),
        state: Mutex::default(),
        changed: Condvar::new(),
    });
    let agent = Agent { config, library, shared: Arc::clone(&shared) };
    let thread = spawn_native("headrace-agent", move || agent.run(&context))?;
    Ok(AgentHandle { thread, shared })
}

impl AgentHandle {
    /// Waits until what it has to tell is other than before, for at most `timeout`.
    #[must_use]
    pub fn wait(&self, joined: u64, is_up: bool, timeout: Duration) -> State {
        let state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |state: &mut State| state.over.is_none() && (state.joined, state.is_up) == (joined, is_up);
        let waited = self.shared.changed.wait_timeout_while(state, timeout, is_same);
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Has it leave once its workers have ended what they run.
    pub fn drain(&self) {
        // Relaxed: the eventfd orders it.
        self.shared.drains.store(true, Ordering::Relaxed);
        self.shared.end.signal();
    }

    /// Leaves the broker, ends the workers, and waits for that.
    pub fn stop(self) {
        // Relaxed: the eventfd orders it.
        self.shared.leaves.store(true, Ordering::Relaxed);
        self.shared.end.signal();
        // A panic of the thread was printed by the panic hook.
        let _ = self.thread.join();
    }
}

impl Shared {
    fn leaves(&self) -> bool {
        self.leaves.load(Ordering::Relaxed)
    }

    fn drains(&self) -> bool {
        self.drains.load(Ordering::Relaxed)
    }

    fn note(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

struct Agent {
    config: AgentConfig,
    library: Arc<Library>,
    shared: Arc<Shared>,
}

/// How a connection ended.
enum Done {
    /// It is to be made anew.
    Lost,
    /// There will be no other.
    Over(Result<(), String>),
}

impl Agent {
    fn run(&self, context: &Context) {
        let mut pause = PAUSE;
        loop {
            let joined = self.joined();
            let done = self.serve(context).unwrap_or_else(|error| Done::Over(Err(error.to_string())));
            if let Done::Over(over) = done {
                return self.shared.note(|state| (state.is_up, state.over) = (false, Some(over)));
            }
            self.shared.note(|state| state.is_up = false);
            pause = if self.joined() > joined { PAUSE } else { (pause * 2).min(PAUSE_MAX) };
            // Interrupted or not, it is tried again.
            let _ = poll::wait(&mut [PollFd::input(self.shared.end.fd())], Some(pause));
            if self.shared.leaves() || self.shared.drains() {
                return self.shared.note(|state| state.over = Some(Ok(())));
            }
        }
    }

    fn joined(&self) -> u64 {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).joined
    }

    /// One connection, from its beginning to its end.
    fn serve(&self, context: &Context) -> Result<Done, StartError> {
        let AgentConfig { endpoint, keys, launch, .. } = &self.config;
        let name = format!("a-{:016x}", RandomState::new().build_hasher().finish());
        let (mut dealer, monitor) = Dealer::connect_watched(context, endpoint, name.as_bytes(), keys.as_ref())?;
        dealer.set_linger_ms(LINGER_MS)?;
        let children = Children::new(launch.clone(), 0, endpoint, self.library.path())?;
        let estate = match Estate::open(&self.library, endpoint, self.config.store_limit) {
            Ok(estate) => estate,
            // Where the name of the broker cannot be resolved, it cannot be reached either.
            Err(ExchangeError::System(_)) => return Ok(Done::Lost),
            Err(ExchangeError::Socket(error)) => return Err(error.into()),
        };
        let mut visit = Visit {
            agent: self,
            dealer,
            monitor,
            children,
            estate,
            out: VecDeque::new(),
            unsent: Vec::new(),
            is_connected: false,
            is_welcome: false,
            is_leaving: false,
            heard: Instant::now(),
        };
        let done = visit.stay();
        visit.end_processes();
        Ok(done)
    }
}

/// The agent while it has one connection.
struct Visit<'a> {
    agent: &'a Agent,
    dealer: Dealer,
    monitor: Monitor,
    children: Children,
    estate: Estate,
    out: VecDeque<Vec<u8>>,
    /// A frame that the socket did not take.
    unsent: Vec<u8>,
    is_connected: bool,
    is_welcome: bool,
    /// It has said that it is to leave.
    is_leaving: bool,
    /// When the broker said something last, or the connection came up.
    heard: Instant,
}

impl Visit<'_> {
    fn stay(&mut self) -> Done {
        loop {
            if let Err(done) = self.turn() {
                return done;
            }
            self.sleep();
        }
    }

    fn turn(&mut self) -> Result<(), Done> {
        let mut is_down = false;
        while let Some(sight) = self.monitor.poll().map_err(|_| Done::Lost)? {
            match sight {
                Sight::Up if !self.is_connected => self.greet(),
                // It may have been made anew, of which the broker knows nothing. What it said before counts.
                Sight::Up | Sight::Down if self.is_connected => is_down = true,
                Sight::Refused if self.agent.joined() == 0 => {
                    let text =
                        "the broker does not accept this key: is it on its list, and is it the broker of the key?";
                    return Err(Done::Over(Err(text.to_owned())));
                }
                Sight::Up | Sight::Down | Sight::Refused => return Err(Done::Lost),
            }
        }
        self.receive()?;
        if is_down {
            return Err(Done::Lost);
        }
        self.look_after_processes();
        while let Some(Copied { job, outcome }) = self.estate.exchange().poll() {
            let text = outcome.err().unwrap_or_default();
            let kind = EventKind::Copied as u8;
            self.tell(Event { kind, incarnation: job, text: text.as_bytes(), ..Event::default() });
        }
        if self.agent.shared.drains() && !std::mem::replace(&mut self.is_leaving, true) {
            if !self.is_welcome {
                return Err(Done::Over(Ok(())));
            }
            self.agent.shared.end.clear();
            self.tell(Event { kind: EventKind::Leaving as u8, ..Event::default() });
        }
        if self.agent.shared.leaves() {
            self.say(&Message::Goodbye(Goodbye { reason: GoodbyeReason::Closed as u8, text: "the agent was ended" }));
            self.send();
            return Err(Done::Over(Ok(())));
        }
        self.send();
        if self.is_connected && self.heard.elapsed() >= QUIET_MAX { Err(Done::Lost) } else { Ok(()) }
    }

    fn greet(&mut self) {
        (self.is_connected, self.heard) = (true, Instant::now());
        let agent = self.agent;
        let AgentConfig { slots, name, resources, version, python, .. } = &agent.config;
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            role: Role::Agent,
            version,
            python,
            features: 0,
            worker: *slots,
            incarnation: 0,
            pid: std::process::id(),
        };
        self.say(&Message::Hello(hello));
        self.tell(Event { kind: EventKind::Named as u8, text: name.as_bytes(), ..Event::default() });
        let (limit, place) = self.estate.place();
        let kind = EventKind::Stores as u8;
        self.tell(Event { kind, incarnation: limit, text: place.as_bytes(), ..Event::default() });
        for (name, amount) in resources {
            let text = name.as_bytes();
            self.tell(Event { kind: EventKind::Has as u8, text, incarnation: *amount, ..Event::default() });
        }
    }

    fn receive(&mut self) -> Result<(), Done> {
        while let Some(frame) = self.dealer.try_recv().map_err(|_| Done::Lost)? {
            self.heard = Instant::now();
            match Message::decode(&frame) {
                Ok(Message::Welcome(_)) => {
                    self.is_welcome = true;
                    self.agent.shared.note(|state| (state.joined, state.is_up) = (state.joined + 1, true));
                }
                Ok(Message::Heartbeat(_)) => self.out.push_back(frame.to_vec()),
                Ok(Message::Order(order)) => self.obey(order),
                Ok(Message::Estate(message)) => {
                    let Visit { children, estate, out, .. } = self;
                    estate.obey(&message, children, |event| out.push_back(encoded(&Message::Event(event))));
                }
                Ok(Message::Transfer(transfer)) => self.estate.fetch(&transfer),
                Ok(Message::Neighbour(neighbour)) => {
                    self.estate.exchange().introduce(neighbour.key, neighbour.left);
                }
                Ok(Message::Goodbye(goodbye)) if !self.is_welcome => {
                    return Err(Done::Over(Err(goodbye.text.to_owned())));
                }
                Ok(Message::Goodbye(goodbye)) if goodbye.reason == GoodbyeReason::Shutdown as u8 => {
                    // The broker waits for it.
                    self.say(&Message::Goodbye(Goodbye { reason: GoodbyeReason::Closed as u8, text: "" }));
                    self.send();
                    return Err(Done::Over(Ok(())));
                }
                Ok(Message::Goodbye(goodbye)) if goodbye.reason == GoodbyeReason::WorkersFailed as u8 => {
                    return Err(Done::Over(Err(goodbye.text.to_owned())));
                }
                Ok(Message::Goodbye(_)) if self.is_leaving => return Err(Done::Over(Ok(()))),
                Ok(Message::Goodbye(_)) | Err(_) => return Err(Done::Lost),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    fn obey(&mut self, order: Order) {
        let Order { worker, incarnation, task, attempt, .. } = order;
        let event = Event { worker, ..Event::default() };
        match OrderKind::try_from(order.kind) {
            Ok(OrderKind::Start) => {
                if let Err(error) = self.children.start(worker, incarnation) {
                    let text = error.to_string();
                    self.tell(Event { kind: EventKind::NotStarted as u8, text: text.as_bytes(), ..event });
                }
            }
            Ok(OrderKind::Interrupt) => self.children.interrupt(worker, (task, attempt)),
            Ok(OrderKind::Kill) => self.children.kill(worker),
            Ok(OrderKind::Look) => {
                if self.children.has_heard(worker) {
                    self.tell(Event { kind: EventKind::Heard as u8, ..event });
                }
            }
            Ok(OrderKind::Stacks) => {
                if let Err(text) = self.children.ask_for_stacks(worker, now_ns()) {
                    self.tell(Event { kind: EventKind::Stacks as u8, text: text.as_bytes(), ..event });
                }
            }
            // A newer broker knows it.
            Err(_) => {}
        }
    }

    fn look_after_processes(&mut self) {
        let Visit { children, out, .. } = self;
        children.age(now_ns());
        children.retry_control();
        let mut hear = |worker: u32, stream: u8, text: &[u8], by: Option<(u32, u32)>| {
            let (task, attempt) = by.unwrap_or_default();
            let number = stream.into();
            out.push_back(encoded(&Message::Event(Event {
                kind: EventKind::Wrote as u8,
                worker,
                number,
                task,
                attempt,
                text,
                ..Event::default()
            })));
        };
        children.read_output(&mut hear);
        let ended = children.reap(&mut hear);
        children.poll_stacks(now_ns(), |worker, text| {
            let event = Event { kind: EventKind::Stacks as u8, worker, text: text.as_bytes(), ..Event::default() };
            out.push_back(encoded(&Message::Event(event)));
        });
        ended.into_iter().for_each(|ended| self.tell_end(&ended));
    }

    fn tell_end(&mut self, ended: &Ended) {
        let (kind, number) = match ended.exit {
            Exit::Code(code) => (EventKind::Exited, code as u32),
            Exit::Signal(signal) => (EventKind::Killed, signal),
            Exit::OutOfMemory(_) => (EventKind::OutOfMemory, 0),
            Exit::Unknown => (EventKind::Ended, 0),
        };
        let (task, attempt) = ended.executing.unwrap_or_default();
        let Ended { worker, incarnation, .. } = *ended;
        self.tell(Event { kind: kind as u8, worker, incarnation, number, task, attempt, text: &[] });
    }

    fn tell(&mut self, event: Event<'_>) {
        self.say(&Message::Event(event));
    }

    fn say(&mut self, message: &Message<'_>) {
        self.out.push_back(encoded(message));
    }

    fn send(&mut self) {
        if !self.is_connected {
            return;
        }
        loop {
            if self.unsent.is_empty() {
                let Some(frame) = self.out.pop_front() else { return };
                self.unsent = frame;
            }
            match self.dealer.send(&mut self.unsent) {
                Ok(()) => self.unsent.clear(),
                // A broken one is seen when something is to be received.
                Err(SendError::WouldBlock | SendError::Unreachable | SendError::Failed(_)) => return,
            }
        }
    }

    /// Sleeps until there is something to do. Only the socket has to be asked first: the monitor was last asked until it said no.
    fn sleep(&mut self) {
        if self.dealer.has_input().unwrap_or(false) {
            return;
        }
        let mut timeout = if self.unsent.is_empty() { TICK } else { RETRY };
        if self.children.awaits_end() || self.children.is_blocked() || self.children.stacks_due_ns(now_ns()).is_some() {
            timeout = timeout.min(Duration::from_millis(20));
        }
        let end = &self.agent.shared.end;
        let fds = [self.dealer.fd(), self.monitor.fd(), end.fd(), self.estate.exchange().fd()];
        let mut fds: Vec<PollFd> = fds.map(PollFd::input).into();
        self.children.poll_fds(&mut fds);
        // Whatever comes of it: the next turn looks.
        let _ = poll::wait(&mut fds, Some(timeout));
    }

    /// Kills what is left, and waits for it.
    fn end_processes(&mut self) {
        let until = Instant::now() + END;
        loop {
            for worker in self.children.alive() {
                self.children.kill_all(worker);
            }
            drop(self.children.reap(|_, _, _, _| {}));
            if self.children.alive().is_empty() || Instant::now() >= until {
                return;
            }
            let mut fds = Vec::new();
            self.children.poll_fds(&mut fds);
            let _ = poll::wait(&mut fds, Some(Duration::from_millis(20)));
        }
    }
}

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    message.encode(&mut frame);
    frame
}
