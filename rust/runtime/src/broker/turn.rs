//! The broker's turn: drain all input, apply it, flush; then sleep until something happens.

use super::children::{Children, LOST_PATIENCE};
use super::door::Door;
use super::spiller::{Job, Part, Source, Spiller, Target, Task, What};
use crate::clock;
use crate::estate::Tracts;
use crate::exchange::{CopyJob, Exchange};
use crate::inproc::{BrokerEnd, Wake};
use crate::segments::Segments;
use headrace_protocol::broker::{Action, Broker, Config, Frame, PeerId, SegmentNews, SpillPart};
use headrace_sys::poll::{self, PollFd};
use headrace_sys::zmq::{Library, Router, RoutingId, SendError};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The in-process client; socket peers are numbered from 1.
const CLIENT: PeerId = PeerId(0);
/// Frames taken from the socket in one turn, so that a flood cannot keep work from being given out.
const FRAMES_A_TURN: usize = 256;
/// Time that workers get to leave by themselves when the broker shuts down.
const LEAVE_NS: u64 = 1_000_000_000;
/// What the last frames get to leave.
const LINGER_MS: u32 = 1_000;
/// Longest time without a look at the worker processes while there is no time to sleep.
const CHILDREN_NS: u64 = 1_000_000;
/// Frames that wait for a peer whose socket is full. A worker's credit keeps its own far below; more are a peer's that asks and
/// does not read.
const BACKLOG_FRAMES_MAX: usize = 1_024;
/// Pause before a frame that a full socket refused is tried again.
const RETRY_NS: u64 = 1_000_000;

/// Everything that the broker's thread owns.
pub(super) struct Loop {
    machine: Broker,
    router: Router,
    client: BrokerEnd,
    children: Children,
    /// Every segment, of memory or a file.
    tracts: Tracts,
    library: Arc<Library>,
    /// Whether it listens to the network.
    listens: bool,
    spiller: Spiller,
    /// Those that the client has mapped.
    client_segments: Arc<Segments>,
    peers: HashMap<RoutingId, PeerId>,
    routes: HashMap<PeerId, RoutingId>,
    next_peer: u64,
    /// Frames that the socket would not take yet, in order, by peer.
    backlog: HashMap<PeerId, VecDeque<Vec<u8>>>,
    poll_fds: Vec<PollFd>,
    client_gone: bool,
    /// Whether others than that client are taken.
    is_open: bool,
    /// Whether a process has ended or written something.
    children_call: bool,
    /// When the processes are looked at next even if none has called.
    children_due_ns: u64,
    /// To the network, if it listens there.
    door: Option<Door>,
}

/// What the thread is given at its start.
pub(super) struct Parts {
    pub(super) router: Router,
    pub(super) door: Option<Door>,
    pub(super) client: BrokerEnd,
    pub(super) client_segments: Arc<Segments>,
    pub(super) children: Children,
    pub(super) spiller: Spiller,
    pub(super) library: Arc<Library>,
    pub(super) is_open: bool,
    pub(super) listens: bool,
}

impl Loop {
    pub(super) fn new(config: Config, parts: Parts) -> Self {
        let Parts { router, door, client, client_segments, children, spiller, library, is_open, listens } = parts;
        let mut machine = Broker::new(config, clock::now_ns());
        machine.live_with(CLIENT, is_open);
        Loop {
            machine,
            router,
            client,
            children,
            tracts: Tracts::new(None),
            library,
            listens,
            spiller,
            client_segments,
            peers: HashMap::new(),
            routes: HashMap::new(),
            next_peer: 1,
            backlog: HashMap::new(),
            poll_fds: Vec::new(),
            client_gone: false,
            is_open,
            children_call: false,
            children_due_ns: 0,
            door,
        }
    }

    /// Runs until the client is gone or no work can be done, then ends the workers.
    pub(super) fn run(mut self) {
        loop {
            self.turn();
            if self.client_gone || self.machine.has_given_up() {
                break;
            }
            self.sleep();
        }
        self.shut_down();
    }

    fn turn(&mut self) {
        let now_ns = clock::now_ns();
        self.children.age(now_ns);
        self.drain_client(now_ns);
        self.drain_router(now_ns);
        // A look at the processes costs several system calls each: it is taken when `poll` points at them, and now and
        // then while there is no time to sleep.
        if self.children_call || now_ns >= self.children_due_ns {
            self.children_due_ns = now_ns + CHILDREN_NS;
            self.drain_children(now_ns);
        }
        self.drain_spiller();
        let now_ns = clock::now_ns();
        if let Some(door) = &mut self.door {
            door.turn(now_ns);
        }
        let machine = &mut self.machine;
        self.children.poll_stacks(now_ns, |worker, text| machine.handle_stacks(worker, text));
        self.machine.handle_timeout(now_ns);
        self.machine.finish_turn(now_ns);
        self.flush(now_ns);
    }

    fn drain_client(&mut self, now_ns: u64) {
        while let Some(frame) = self.client.try_recv() {
            let frame: Frame = Arc::new(frame);
            self.machine.handle_frame(CLIENT, &frame, now_ns);
        }
        if self.client.is_closed() && !self.client_gone {
            self.client_gone = true;
            self.machine.handle_disconnect(CLIENT, now_ns);
        }
    }

    fn drain_router(&mut self, now_ns: u64) {
        for _ in 0..FRAMES_A_TURN {
            // A broken socket cannot be mended; the workers see their end of it and leave.
            let Ok(Some((route, frame))) = self.router.try_recv() else { return };
            let peer = *self.peers.entry(route).or_insert_with(|| {
                let peer = PeerId(self.next_peer);
                self.next_peer += 1;
                self.routes.insert(peer, route);
                if let Some(roles) = frame.user() {
                    self.machine.let_in(peer, roles);
                }
                peer
            });
            let frame: Frame = Arc::new(frame);
            let Loop { machine, children, .. } = self;
            if let Some(worker) = machine.worker_of(peer) {
                children.catch_up(worker, |worker, stream, text, by| machine.handle_output(worker, stream, text, by));
            }
            machine.handle_frame(peer, &frame, now_ns);
        }
    }

    fn drain_children(&mut self, now_ns: u64) {
        let Loop { machine, children, .. } = self;
        children.read_output(|worker, stream, text, by| machine.handle_output(worker, stream, text, by));
        let ended = children.reap(|worker, stream, text, by| machine.handle_output(worker, stream, text, by));
        if ended.is_empty() {
            return;
        }
        // What a process sent before its end counts: it may still be in the socket.
        self.drain_router(now_ns);
        for end in ended {
            self.machine.handle_exit(end.worker, end.incarnation, end.exit, end.executing, now_ns);
        }
    }

    fn drain_spiller(&mut self) {
        while let Some(written) = self.spiller.poll() {
            match written.what {
                What::File { segment, file, outcome } => {
                    if let Some(file) = file {
                        self.tracts.enter(segment, Arc::new(file), false);
                    }
                    self.machine.handle_spilled(written.job, outcome, clock::now_ns());
                }
                What::Value(outcome) => self.machine.handle_gathered(written.job, outcome, clock::now_ns()),
            }
        }
        while let Some(copied) = self.tracts.exchange.as_ref().and_then(Exchange::poll) {
            self.machine.handle_copied(copied.job, copied.outcome, clock::now_ns());
        }
    }

    fn spill(&mut self, number: u64, segment: u32, create: Option<u64>, parts: Vec<SpillPart>) {
        let find = |segment: u32| self.tracts.get(segment);
        // What is gone meanwhile needs no copy; the machine will see that it is.
        let part = |part: SpillPart| Some(Part { from: Source::of(part.from, find)?, to: part.to });
        let parts = parts.into_iter().filter_map(part).collect();
        let file = match (create, find(segment)) {
            (None, Some(file)) => Target::Known(file),
            (bytes, _) => Target::New(bytes.unwrap_or(0)),
        };
        self.spiller.start(Job { number, what: Task::Write { segment, file, parts } });
    }

    /// Another machine has joined, and will want to fetch what lies here.
    fn open_exchange(&mut self) {
        if self.tracts.exchange.is_some() {
            return;
        }
        // Nothing listens to the network unless the broker does.
        let address = if self.listens { "0.0.0.0" } else { "127.0.0.1" };
        match Exchange::start(&self.library, address) {
            Ok(exchange) => {
                self.machine.set_place(&exchange.endpoint, &exchange.key);
                self.tracts.exchange_by(exchange);
            }
            Err(error) => eprintln!("headrace: nothing can be copied from or to this machine: {error}"),
        }
    }

    fn tell_of_segment(&mut self, worker: Option<u32>, news: SegmentNews) {
        if let SegmentNews::Granted { segment, bytes } = news
            && let Err(error) = self.tracts.make(segment, bytes, false)
        {
            let text = format!("a segment of {bytes} bytes of shared memory cannot be made: {error}");
            self.machine.handle_segment_failure(segment);
            return self.hand_segment(worker, SegmentNews::Refused { text });
        }
        self.hand_segment(worker, news);
    }

    fn hand_segment(&mut self, worker: Option<u32>, news: SegmentNews) {
        let fd = match &news {
            SegmentNews::Granted { segment, .. } | SegmentNews::Shared { segment, .. } => {
                self.tracts.descriptor(*segment)
            }
            SegmentNews::Refused { .. } | SegmentNews::Dropped { .. } => None,
        };
        match worker {
            None => self.client_segments.handle(news, fd),
            Some(worker) => self.children.tell_of_segment(worker, &news, fd),
        }
    }

    fn flush(&mut self, now_ns: u64) {
        self.retry_backlog();
        self.children.retry_control();
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Log { peer: CLIENT, frame } => {
                    let _ = self.client.send_log(frame);
                }
                Action::Log { peer, frame } => self.send(peer, frame, now_ns),
                Action::Send { peer: CLIENT, frame, wake } => {
                    let wake = wake.as_ref().map_or(Wake::All, |wake| Wake::Results {
                        run: wake.run,
                        finished: wake.finished,
                        indices: &wake.indices,
                    });
                    // A client that is gone is noticed at the start of the next turn.
                    let _ = self.client.send(frame, wake);
                }
                Action::Send { peer, frame, .. } => self.send(peer, frame, now_ns),
                Action::Spawn { worker, incarnation } => {
                    if let Err(error) = self.children.start(worker, incarnation) {
                        self.machine.handle_spawn_failure(worker, &error.to_string(), now_ns);
                    }
                }
                Action::Interrupt { worker, task, attempt } => self.children.interrupt(worker, (task, attempt)),
                Action::Look { worker } => {
                    if self.children.has_heard(worker) {
                        self.machine.handle_sign_of_life(worker);
                    }
                    if let Some(cpu_ns) = self.children.cpu_ns(worker) {
                        self.machine.handle_cpu_time(worker, cpu_ns);
                    }
                }
                Action::Kill { worker } => self.children.kill(worker),
                Action::DumpStacks { worker } => {
                    if let Err(text) = self.children.ask_for_stacks(worker, now_ns) {
                        self.machine.handle_stacks(worker, &text);
                    }
                }
                Action::Segment { worker, news } => self.tell_of_segment(worker, news),
                Action::CloseSegment { segment, discard } => self.tracts.close(segment, discard),
                Action::MakeSegment { segment, bytes } => {
                    if self.tracts.make(segment, bytes, true).is_err() {
                        self.machine.handle_segment_failure(segment);
                    }
                }
                Action::Copy { job, endpoint, key, parts } => {
                    if let Some(exchange) = &self.tracts.exchange {
                        exchange.copy(CopyJob { number: job, endpoint, key, parts });
                    }
                }
                Action::Neighbour { key, left } => {
                    self.open_exchange();
                    if let Some(exchange) = &self.tracts.exchange {
                        exchange.introduce(&key, left);
                    }
                }
                Action::Gather { job, head, parts } => {
                    let parts = parts.into_iter().map(|(segment, offset, bytes)| {
                        let file = self.tracts.get(segment);
                        file.map(|file| Source::Memory(file, offset, bytes))
                    });
                    match parts.collect::<Option<Vec<Source>>>() {
                        Some(parts) => self.spiller.start(Job { number: job, what: Task::Gather { head, parts } }),
                        None => self.machine.handle_gathered(job, Err("its memory is gone".to_owned()), now_ns),
                    }
                }
                Action::Spill { job, file, create, parts } => self.spill(job, file, create, parts),
                // It said goodbye, or was told so: the broker ends with its client.
                Action::Cut { peer: CLIENT } | Action::Forget { peer: CLIENT } => self.client_gone = true,
                // The name stays known, so that the machine drops what still comes from it.
                Action::Cut { peer } => drop(self.backlog.remove(&peer)),
                Action::Forget { peer } => {
                    self.backlog.remove(&peer);
                    if let Some(route) = self.routes.remove(&peer) {
                        self.peers.remove(&route);
                    }
                }
            }
        }
    }

    fn send(&mut self, peer: PeerId, mut frame: Vec<u8>, now_ns: u64) {
        let Some(route) = self.routes.get(&peer) else { return };
        if !self.backlog.contains_key(&peer) {
            match self.router.send(route, &mut frame) {
                Ok(()) | Err(SendError::Failed(_)) => return,
                Err(SendError::Unreachable) => return self.machine.handle_unreachable(peer, now_ns),
                Err(SendError::WouldBlock) => {}
            }
        }
        let waiting = self.backlog.entry(peer).or_default();
        waiting.push_back(frame);
        if waiting.len() > BACKLOG_FRAMES_MAX {
            self.machine.handle_congestion(peer, now_ns);
        }
    }

    fn retry_backlog(&mut self) {
        let Loop { router, routes, backlog, .. } = self;
        backlog.retain(|peer, frames| {
            let Some(route) = routes.get(peer) else { return false };
            while let Some(frame) = frames.front_mut() {
                if matches!(router.send(route, frame), Err(SendError::WouldBlock)) {
                    return true;
                }
                frames.pop_front();
            }
            false
        });
    }

    /// Sleeps until there is input or a timeout of the machine, unless there is input already. No wake-up is lost: the client's end is told before the
    /// last look at its queue, and the socket is asked before its descriptor is polled.
    fn sleep(&mut self) {
        if !self.client.prepare_to_sleep() {
            return;
        }
        if self.router.has_input().unwrap_or(false) || self.door.as_mut().is_some_and(Door::is_called) {
            self.client.wake_up();
            return;
        }
        let now_ns = clock::now_ns();
        let mut until_ns = self.machine.next_timeout_ns();
        if !self.backlog.is_empty() || self.children.is_blocked() {
            until_ns = Some(until_ns.map_or(now_ns + RETRY_NS, |known_ns| known_ns.min(now_ns + RETRY_NS)));
        }
        if self.children.awaits_end() {
            let look_ns = now_ns + LOST_PATIENCE.as_nanos() as u64;
            until_ns = Some(until_ns.map_or(look_ns, |known_ns| known_ns.min(look_ns)));
        }
        if let Some(due_ns) = self.children.stacks_due_ns(now_ns) {
            until_ns = Some(until_ns.map_or(due_ns, |known_ns| known_ns.min(due_ns)));
        }
        let timeout = until_ns.map(|until_ns| Duration::from_nanos(until_ns.saturating_sub(now_ns)));
        self.poll_fds.clear();
        self.poll_fds.push(PollFd::input(self.router.fd()));
        self.poll_fds.push(PollFd::input(self.client.fd()));
        self.poll_fds.push(PollFd::input(self.spiller.fd()));
        // Where there is no exchange, once more what is polled anyway.
        let exchange = self.tracts.exchange.as_ref().map_or(self.spiller.fd(), Exchange::fd);
        self.poll_fds.push(PollFd::input(exchange));
        self.children.poll_fds(&mut self.poll_fds);
        let processes = 4..self.poll_fds.len();
        self.poll_fds.extend(self.door.iter().map(|door| PollFd::input(door.fd())));
        // An error means a signal or a descriptor that has just gone; the next turn looks again either way.
        let _ = poll::wait(&mut self.poll_fds, timeout);
        self.client.wake_up();
        self.children_due_ns = clock::now_ns() + CHILDREN_NS;
        self.children_call = self.children.awaits_end()
            || self.poll_fds[processes].iter().any(|fd| fd.is_ready() || fd.hung_up() || fd.failed());
    }

    /// Tells the workers to leave, waits for them, and kills those that stay.
    fn shut_down(&mut self) {
        self.machine.shut_down();
        self.children.kill_successors();
        if self.is_open {
            // The last words to other processes may take their time.
            let _ = self.router.set_linger_ms(LINGER_MS);
        }
        self.flush(clock::now_ns());
        let until_ns = clock::now_ns() + LEAVE_NS;
        loop {
            let now_ns = clock::now_ns();
            self.drain_router(now_ns);
            self.drain_children(now_ns);
            // An attempt that was about to start when it was to be interrupted is interrupted now.
            self.machine.handle_timeout(now_ns);
            self.flush(now_ns);
            let alive = self.children.alive();
            let is_late = now_ns >= until_ns;
            let has_guests = self.machine.has_guests() && !is_late;
            if alive.is_empty() && !has_guests {
                return;
            }
            if is_late {
                for worker in alive {
                    self.children.kill(worker);
                }
            }
            self.poll_fds.clear();
            self.children.poll_fds(&mut self.poll_fds);
            let next_ns = self.machine.next_timeout_ns().map_or(until_ns, |next_ns| next_ns.min(until_ns));
            let step_ns = LEAVE_NS / 100;
            let left_ns = if has_guests { step_ns } else { next_ns.saturating_sub(now_ns).max(step_ns) };
            let _ = poll::wait(&mut self.poll_fds, Some(Duration::from_nanos(left_ns)));
        }
    }
}
