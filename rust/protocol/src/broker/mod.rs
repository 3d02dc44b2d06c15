//! The broker: sessions, leases, credits, placement.
//!
//! A pure machine. Events come in through `handle_*`, each with the time; [`Broker::finish_turn`] then gives out work and
//! collects news, once per turn however much came in; [`Broker::poll_action`] hands out what is to be done. It knows no
//! socket, no clock and no Python, and it never looks into a pickle.
//!
//! Which task is ready is the kernel's business (K1–K8). The broker adds who asked for a task, which worker takes it,
//! and what each worker can be trusted to hold:
//!
//! - **B1** A worker holds at most two frames of unsettled leases, each about a millisecond of estimated work.
//! - **B2** A lease travels with every input that its worker has not got; an input is sent to a worker once.
//! - **B3** A task that ended is told to its client exactly once if it is kept or ended badly.
//! - **B4** No worker idles while another holds an unstarted lease whose predecessors are done (recall on idle).
//! - **B5** A worker's death blames only the attempt on its status page.

mod action;
mod budget;
mod cancel;
mod check;
mod classes;
mod clients;
mod copies;
mod deaths;
mod dispatch;
mod functions;
mod largest;
mod leaving;
mod ledger;
mod machines;
mod nested;
mod observers;
mod output;
mod overruns;
mod owed;
mod payload;
mod peers;
mod placement;
mod policy;
mod processes;
mod put;
mod recall;
mod reports;
mod results;
mod retire;
mod retry;
mod rivals;
mod roster;
mod runs;
mod spares;
mod spill;
mod store;
mod streaming;
mod submit;
mod timers;
mod watch;
mod why;
mod workers;

pub use action::{Action, PeerId, SegmentNews, Wake};
pub use copies::CopyPart;
pub use deaths::{Exit, Shortage};
pub use owed::GatherPart;
pub use payload::{Frame, Payload};

pub use spill::{SpillFrom, SpillPart};
pub use store::StoreStatistics;
pub use submit::ARGS_BYTES_MAX;

use crate::limits::{Group, Limits, Offer};
use deaths::Deaths;
pub use dispatch::LEASE_BYTES_MAX;
use dispatch::LeaseColumns;
use functions::Functions;
use headrace_kernel::{Kernel, Leased, WorkerId};
use headrace_wire::{DecodeError, Message};
use ledger::Ledger;
use nested::Nests;
use overruns::Waits;
use owed::Debts;
use peers::Peer;
use policy::Policies;
use retry::Retries;
use rivals::Rivals;
pub use rivals::STRAGGLER_NS;
use roster::Roster;
use runs::{Counts, Run};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, VecDeque};
use store::Store;
use streaming::Rest;
use timers::Timers;
use watch::Watch;
use workers::{Life, Worker};

/// How a broker is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Worker processes; at least 1.
    pub workers: u32,
    /// Further places, for workers of other machines that come and go.
    pub places: u32,
    /// Further ones that may stand in for workers whose tasks wait for others.
    pub spares: u32,
    /// What tasks may ask for while they run.
    pub offer: Offer,
    /// Executing deaths after which a task is failed instead of tried again; at least 1.
    pub crash_limit: u8,
    /// The same for deaths by the kernel's OOM killer, which are counted apart.
    pub oom_limit: u8,
    /// Leases that a worker process is given before a fresh one takes its place; `u64::MAX` for no end.
    pub tasks_max: u64,
    /// Largest result in bytes that a worker may report.
    pub result_bytes_max: u64,
    /// Bytes that results may take in memory: shared memory of all processes, and what is inline here.
    pub store_limit: u64,
    /// Bytes that results may take on disk beyond that.
    pub spill_limit: u64,
    /// Version of headrace that peers must match.
    pub version: String,
    /// Version of Python; peers must match its first two numbers.
    pub python: String,
    /// Nanoseconds between an interrupt of a running task and the kill of its worker.
    pub grace_ns: u64,
    /// For how long an attempt runs at least before another worker may try the same task; of those whose options allow it.
    pub straggler_ns: u64,
    /// Where the chance in pauses before retries begins: equal seeds and events give equal pauses.
    pub seed: u64,
}

/// Counts since the broker's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Lease frames sent.
    pub lease_frames: u64,
    /// Report frames received.
    pub report_frames: u64,
    /// Late or duplicate reports dropped (K4).
    pub stale_reports: u64,
    /// Recalls sent.
    pub recalls: u64,
    /// Workers that died.
    pub worker_deaths: u64,
    /// Those of them that the kernel killed for want of memory.
    pub oom_deaths: u64,
    /// Deaths that were counted against a task, because it was executing; those of silent workers are not.
    pub blamed_deaths: u64,
    /// Workers that left because they had run their share of tasks.
    pub workers_retired: u64,
    /// Attempts that failed and were followed by another one.
    pub retries: u64,
    /// Attempts, and waits for a worker, that passed a time limit.
    pub timeouts: u64,
    /// Attempts that were begun beside others of the same tasks.
    pub second_attempts: u64,
    /// Frames of unknown type that were skipped.
    pub unknown_frames: u64,
    /// Bytes of arguments and results held now, in shared memory and out of it.
    pub bytes_held: u64,
    /// Bytes of the pickles of functions held now.
    pub function_bytes: u64,
    /// Tasks held now.
    pub tasks_held: u64,
    /// Times kept at which something may have to happen.
    pub timers: u64,
    /// Peers known now, those that were cut among them.
    pub peers: u64,
}

/// The broker's state. See the module's text.
pub struct Broker {
    config: Config,
    kernel: Kernel,
    ledger: Ledger,
    store: Store,
    /// Results that somebody is to be told of and cannot be yet.
    debts: Debts,
    functions: Functions,
    policies: Policies,
    retries: Retries,
    waits: Waits,
    rivals: Rivals,
    timers: Timers,
    deaths: Deaths,
    limits: Limits,
    runs: Vec<Option<Run>>,
    free_runs: Vec<u32>,
    /// The tasks of runs of which nothing is left.
    past: Counts,
    /// Runs with something to tell.
    news: Vec<u32>,
    /// Runs with a task that failed, which are to be stopped then.
    failed_runs: Vec<u32>,
    /// Whether their rest is to come in now: a turn has given out what is in already.
    rest_due: bool,
    /// Graphs of which only the first part is in.
    rest: VecDeque<Rest>,
    peers: BTreeMap<PeerId, Peer>,
    /// The roles of strangers that were let in at a gate and have not said which one is theirs.
    admitted: FxHashMap<PeerId, Box<str>>,
    /// Those that were cut, in that order; some may be forgotten by now.
    strays: VecDeque<PeerId>,
    /// The client in whose process the broker runs; and whether it has others beside that. Such a broker shares no memory.
    home: Option<PeerId>,
    is_open: bool,
    /// It ends as soon as nothing is left to run.
    drains: bool,
    /// Machines that are about to leave.
    leaving: u32,
    /// Those that may stand in for others come last.
    workers: Roster,
    nests: Nests,
    next_session: u64,
    heartbeat_number: u64,
    heartbeat_due_ns: u64,
    recall_due_ns: Option<u64>,
    /// Before this time nobody looks for work to be recalled.
    recall_rest_ns: u64,
    actions: VecDeque<Action>,
    statistics: Statistics,
    columns: LeaseColumns,
    leased: Vec<Leased>,
    group: Group,
    watch: Watch,
    /// Answers that wait for the stacks of processes.
    pending: Vec<why::Pending>,
    shutting_down: bool,
    given_up: bool,
    /// Whether the kernel has more slots to free than fit into one turn.
    freeing: bool,
    /// Leases of tasks with inputs.
    consuming: u64,
}

/// Time between two questions whether a worker lives.
const HEARTBEAT_NS: u64 = 1_000_000_000;
/// Bytes of a frame that is read of a peer which may only say HELLO or ask.
const SMALL_BYTES_MAX: usize = 4_096;

impl Broker {
    /// A broker that asks at once for its workers to be started.
    pub fn new(mut config: Config, now_ns: u64) -> Self {
        let own = config.workers;
        // From here on these count as workers whose process is away, so that spare ones come last.
        config.workers += config.places;
        let mut workers: Vec<Worker> =
            (0..config.workers + config.spares).map(|number| Worker::new(number, config.tasks_max)).collect();
        workers[own as usize..].iter_mut().for_each(|worker| worker.life = Life::Vacant);
        workers[config.workers as usize..].iter_mut().for_each(|spare| spare.life = Life::Spare);
        let mut broker = Broker {
            store: Store::new(config.store_limit, config.spill_limit),
            debts: Debts::default(),
            retries: Retries::new(config.seed),
            waits: Waits::default(),
            rivals: Rivals::default(),
            timers: Timers::default(),
            limits: Limits::with_spares(config.workers, config.spares, std::mem::take(&mut config.offer)),
            config,
            kernel: Kernel::new(),
            ledger: Ledger::default(),
            functions: Functions::default(),
            policies: Policies::default(),
            deaths: Deaths::default(),
            runs: Vec::new(),
            free_runs: Vec::new(),
            past: Counts::default(),
            news: Vec::new(),
            failed_runs: Vec::new(),
            rest_due: false,
            rest: VecDeque::new(),
            peers: BTreeMap::new(),
            admitted: FxHashMap::default(),
            strays: VecDeque::new(),
            home: None,
            is_open: false,
            drains: false,
            leaving: 0,
            workers: Roster::new(workers),
            nests: Nests::default(),
            next_session: 1,
            heartbeat_number: 0,
            heartbeat_due_ns: now_ns + HEARTBEAT_NS,
            recall_due_ns: None,
            recall_rest_ns: 0,
            actions: VecDeque::new(),
            statistics: Statistics::default(),
            columns: LeaseColumns::default(),
            leased: Vec::new(),
            group: Group::default(),
            watch: Watch::default(),
            pending: Vec::new(),
            shutting_down: false,
            given_up: false,
            freeing: false,
            consuming: 0,
        };
        broker.limits.set_present(own);
        broker.start_due_workers(now_ns);
        broker
    }

    /// Applies a frame of `peer`.
    pub fn handle_frame(&mut self, peer: PeerId, frame: &Frame, now_ns: u64) {
        if matches!(self.peers.get(&peer), Some(Peer::Client(_))) {
            self.admit_rest(now_ns);
        }
        match self.peers.get_mut(&peer) {
            Some(Peer::Cut { heard_ns }) => {
                *heard_ns = now_ns;
                return;
            }
            Some(Peer::Observer { heard_ns }) => *heard_ns = now_ns,
            Some(Peer::Worker(worker)) => self.workers[*worker as usize].unanswered = 0,
            Some(Peer::Client(session)) => session.unanswered = 0,
            Some(Peer::Agent(machine)) => machine.unanswered = 0,
            Some(Peer::Successor(_)) | None => {}
        }
        let known = self.peers.get(&peer);
        let bytes: &[u8] = (**frame).as_ref();
        if bytes.len() > SMALL_BYTES_MAX && matches!(known, None | Some(Peer::Observer { .. })) {
            let text = format!("{} bytes in a frame, where at most {SMALL_BYTES_MAX} are read", bytes.len());
            return self.refuse(peer, &text, now_ns);
        }
        let message = match Message::decode(bytes) {
            Ok(message) => message,
            Err(DecodeError::UnknownType(_)) if known.is_some() => {
                self.statistics.unknown_frames += 1;
                return;
            }
            Err(error) => return self.refuse(peer, &format!("a frame could not be decoded: {error}"), now_ns),
        };
        match (known, message) {
            (None, Message::Hello(hello)) => self.handle_hello(peer, &hello, now_ns),
            (None, _) => self.refuse(peer, "the first message must be HELLO", now_ns),
            (Some(Peer::Client(_) | Peer::Worker(_)), Message::Submit(submit)) => {
                self.handle_submit(peer, frame, &submit, now_ns);
            }
            (Some(Peer::Client(_) | Peer::Worker(_)), Message::Hold(hold)) => self.handle_hold(peer, &hold, now_ns),
            (Some(Peer::Client(_) | Peer::Worker(_)), Message::Cancel(cancel)) => {
                self.handle_cancel(peer, &cancel, now_ns);
            }
            (Some(Peer::Client(_) | Peer::Worker(_) | Peer::Observer { .. }), Message::Query(query)) => {
                self.handle_query(peer, &query, now_ns);
            }
            (Some(&Peer::Worker(worker)), Message::Report(report)) => {
                self.handle_report(worker, frame, &report, now_ns);
            }
            (Some(Peer::Client(_) | Peer::Worker(_) | Peer::Observer { .. }), Message::Why(why)) => {
                self.handle_why(peer, &why, now_ns);
            }
            (Some(_), Message::Heartbeat(_)) => {}
            (Some(Peer::Agent(_)), Message::Event(event)) => self.handle_event(peer, &event, now_ns),
            (Some(&Peer::Worker(worker)), Message::Overdue(overdue)) => self.handle_overdue(worker, &overdue, now_ns),
            (Some(Peer::Client(_) | Peer::Worker(_)), Message::Put(put)) => self.handle_put(peer, frame, &put, now_ns),
            (Some(&Peer::Worker(worker)), Message::Waiting(waiting)) => self.handle_waiting(worker, &waiting),
            (Some(Peer::Worker(_) | Peer::Client(_)), Message::Lack(lack)) => self.handle_lack(peer, lack.segment),
            (Some(Peer::Worker(_) | Peer::Client(_)), Message::Withdraw(withdraw)) => {
                self.handle_withdraw(peer, withdraw.bytes, now_ns);
            }
            (Some(Peer::Worker(_) | Peer::Client(_)), Message::Want(want)) => {
                self.handle_want(peer, want.bytes, now_ns);
            }
            (Some(Peer::Worker(_) | Peer::Client(_)), Message::Released(released)) => {
                self.handle_released(peer, &released, now_ns);
            }
            (Some(Peer::Worker(_) | Peer::Client(_)), Message::GiveBack(given)) => {
                self.handle_give_back(peer, &given, now_ns);
            }
            (Some(_), Message::Goodbye(goodbye)) => self.handle_goodbye(peer, &goodbye, now_ns),
            (Some(_), _) => self.refuse(peer, "a message that this peer may not send", now_ns),
        }
    }

    /// Lets time pass: kills workers that ignored an interrupt, asks for signs of life.
    pub fn handle_timeout(&mut self, now_ns: u64) {
        if self.rest_due {
            self.admit_rest(now_ns);
        }
        self.press_interrupts(now_ns);
        if now_ns >= self.heartbeat_due_ns {
            self.send_heartbeats(now_ns);
        }
    }

    /// Gives out work and news after everything that arrived was handled, and starts workers that are due. Those come last:
    /// a start takes a millisecond, and what a dead worker had goes to others first.
    pub fn finish_turn(&mut self, now_ns: u64) {
        self.settle_cascades(now_ns);
        self.settle_store(now_ns);
        self.serve_wants(now_ns);
        self.keep_budget(now_ns);
        self.begin_waits(now_ns);
        self.ring_timers(now_ns);
        self.stop_failed_runs(now_ns);
        self.settle_nests(now_ns);
        self.stop_losers(now_ns);
        self.unpark(now_ns);
        self.settle_grants();
        self.bar_spares();
        self.dispatch(now_ns);
        self.order_copies(now_ns);
        self.pay(now_ns);
        self.serve_waiting(now_ns);
        self.recall_for_idle_workers(now_ns);
        self.try_stragglers(now_ns);
        self.tell_news(now_ns);
        self.retire_workers(now_ns);
        self.dismiss_machines(now_ns);
        self.start_due_workers(now_ns);
        self.rest_due = !self.rest.is_empty();
        self.end_if_drained();
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        loop {
            let action = self.actions.pop_front()?;
            if self.config.places == 0 {
                return Some(action);
            }
            if let Some(action) = self.forward(action) {
                return Some(action);
            }
        }
    }

    /// When [`Broker::handle_timeout`] and [`Broker::finish_turn`] want to be called even if nothing happens.
    pub fn next_timeout_ns(&self) -> Option<u64> {
        if self.freeing || !self.rest.is_empty() {
            return Some(0);
        }
        let workers = self.workers.maybe_timed().filter_map(|worker| match worker.life {
            Life::Down { respawn_ns } => Some(respawn_ns),
            _ => {
                let interrupts = worker.interrupted.iter().map(|asked| asked.retry_ns.min(asked.kill_ns));
                interrupts.chain(worker.leave_ns).min()
            }
        });
        let copies = [self.store.copies.due_ns, self.debts.due_ns()];
        let timers = [self.recall_due_ns, self.wants_due_ns(), self.timers.next_ns(), self.rivals.due_ns()];
        let timers = timers.into_iter().chain(copies);
        workers.chain([self.heartbeat_due_ns]).chain(timers.flatten()).min()
    }

    /// Whether no work can be done any more: workers cannot be started, and every client has been told; or the broker was to
    /// end once nothing is left to run.
    pub fn has_given_up(&self) -> bool {
        self.given_up
    }

    /// Counts since the start.
    pub fn statistics(&self) -> Statistics {
        let bytes_held = self.ledger.bytes_held() + self.store.statistics().cited;
        Statistics {
            bytes_held,
            function_bytes: self.functions.bytes(),
            tasks_held: self.tasks_held(),
            peers: self.peers.len() as u64,
            timers: self.timers.len() as u64,
            ..self.statistics
        }
    }

    /// Shared memory now.
    pub fn store_statistics(&self) -> StoreStatistics {
        self.store.statistics()
    }

    fn tasks_held(&self) -> u64 {
        let tasks = self.kernel.statistics();
        tasks.waiting + tasks.ready + tasks.leased + tasks.done + tasks.failed + tasks.skipped + tasks.cancelled
    }

    fn send(&mut self, peer: PeerId, message: &Message<'_>) {
        let mut frame = Vec::new();
        message.encode(&mut frame);
        self.actions.push_back(Action::Send { peer, frame, wake: None });
    }

    fn run(&self, position: u32) -> &Run {
        self.runs[position as usize].as_ref().expect("a live task's run is in the table")
    }

    fn run_mut(&mut self, position: u32) -> &mut Run {
        self.runs[position as usize].as_mut().expect("a live task's run is in the table")
    }
}

/// The kernel's name for worker `number`.
fn worker_id(number: u32) -> WorkerId {
    WorkerId(number)
}

/// Runs of one client by the client's numbers.
type RunTable = FxHashMap<u32, u32>;
