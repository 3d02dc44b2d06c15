//! The cluster: real machines, and everything around them played on one clock.
//!
//! Each part of the surroundings has its file: the broker's host, the workers' processes, the clients' processes, the network
//! between them, memory and disk, and what breaks. A machine sees only what its real surroundings would show it.

mod body;
mod client;
mod end;
mod faults;
mod host;
mod memory;
mod network;
mod recorded;
mod worker;

use crate::chance::Chance;
use crate::coverage::Coverage;
use crate::encode;
use crate::history::{History, Record};
use crate::large::{Load, recoveries_ns};
use crate::queue::Queue;
use crate::scenario::{Act, Moment, Scenario};
use crate::trace::Trace;
use crate::workload::Name;
use client::ClientProcess;
use faults::Armed;
use headrace_protocol::broker::{SegmentNews, SpillPart};
use host::Host;
use memory::Memory;
use network::Conn;
use recorded::Recorded;
use std::collections::{BTreeMap, VecDeque};
use worker::WorkerProcess;

/// Why a run of the simulator failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// What kind of failure it is; a smaller scenario must fail in the same way.
    pub class: &'static str,
    /// What exactly.
    pub text: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.class, self.text)
    }
}

/// How a run of the simulator went.
#[derive(Debug)]
pub struct Outcome {
    /// What is wrong, if anything is.
    pub(crate) violation: Option<Violation>,
    /// What happened.
    pub(crate) history: History,
    /// A number that two runs share only if they went alike.
    pub trace_hash: u64,
    /// What happened, in words, if that was wanted.
    pub trace: Vec<String>,
    /// What broke while what was going on.
    pub coverage: Coverage,
    /// Events that were played.
    pub events: u64,
    /// What the broker had to do, if the scenario is large.
    pub load: Load,
    /// How long after the death of a process the tasks that it ran began again, in order.
    pub recoveries_ns: Vec<u64>,
}

/// A process, or who lives in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Who {
    Broker,
    /// The position of a worker's process among all that ever were.
    Worker(usize),
    Client(usize),
}

/// What is planned.
#[derive(Debug)]
enum Event {
    /// The next frame of an orderly connection arrives.
    Frame { conn: usize, up: bool },
    /// A packet of a lossy connection arrives.
    Packet { conn: usize, up: bool, packet: Vec<u8> },
    /// A link wants to be called.
    Link(usize),
    /// The broker's loop takes a turn.
    Host,
    /// A worker's process looks at its input.
    Worker(usize),
    /// A client's process looks at its input.
    Client(usize),
    /// A client's next operation is due.
    Op(usize),
    /// A body comes to its end, if it is still the one with this number.
    BodyEnds { process: usize, body: u64 },
    /// The broker's host notices that a worker's process is gone.
    Exit(usize),
    /// The broker's host notices that a client is gone.
    Gone(usize),
    /// A client's process ends, having said goodbye.
    Leaves(usize),
    /// News of shared memory reach a process.
    News { process: usize, news: SegmentNews },
    /// The disk's thread copies results.
    Copies { file: u32, parts: Vec<SpillPart> },
    /// It is done.
    Written { job: u64, fails: bool },
    /// Something breaks.
    Fault(usize),
    /// The faults stop.
    Heal,
}

/// The cluster.
pub(crate) struct World<'s> {
    scenario: &'s Scenario,
    now_ns: u64,
    queue: Queue<Event>,
    broker: Recorded,
    host: Host,
    conns: Vec<Conn>,
    workers: Vec<WorkerProcess>,
    /// The processes that have each worker's number: the one at work, and perhaps one that takes its place. A dead one stays
    /// until the broker's host has noticed.
    seats: Vec<VecDeque<usize>>,
    clients: Vec<ClientProcess>,
    memory: Memory,
    /// How often each task has raised.
    raised: BTreeMap<Name, u8>,
    armed: Armed,
    healed: bool,
    history: History,
    trace: Trace,
    coverage: Coverage,
    violation: Option<Violation>,
    events: u64,
    load: Load,
    checks: Chance,
}

impl<'s> World<'s> {
    pub(crate) fn new(scenario: &'s Scenario, traced: bool) -> Self {
        let mut world = World {
            scenario,
            now_ns: 0,
            queue: Queue::new(),
            broker: Recorded::new(encode::config(&scenario.setup), scenario.is_large),
            host: Host::new(scenario.seed, encode::limits(&scenario.net)),
            conns: Vec::new(),
            workers: Vec::new(),
            seats: vec![VecDeque::new(); scenario.setup.workers as usize],
            clients: Vec::new(),
            memory: Memory::default(),
            raised: BTreeMap::new(),
            armed: Armed::new(&scenario.faults),
            healed: false,
            history: History::default(),
            trace: Trace::new(traced),
            coverage: Coverage::default(),
            violation: None,
            events: 0,
            load: Load::default(),
            checks: Chance::new(scenario.seed, "checks"),
        };
        world.plan_faults();
        for client in 0..scenario.clients.len() {
            world.start_client(client);
        }
        world.call_host(0);
        world
    }

    /// Plays until the end, or until something is wrong.
    pub(crate) fn run(mut self) -> Outcome {
        self.play();
        self.coverage.note_moments(&self.armed.counts());
        Outcome {
            violation: self.violation,
            recoveries_ns: recoveries_ns(&self.history),
            load: self.load,
            history: self.history,
            trace_hash: self.trace.hash(),
            trace: self.trace.into_lines(),
            coverage: self.coverage,
            events: self.events,
        }
    }

    /// Plays one event; false if none is left.
    fn step(&mut self) -> bool {
        let Some((at_ns, event)) = self.queue.next() else { return false };
        debug_assert!(at_ns >= self.now_ns);
        self.now_ns = at_ns;
        self.events += 1;
        match event {
            Event::Frame { conn, up } => self.frame_arrives(conn, up),
            Event::Packet { conn, up, packet } => self.packet_arrives(conn, up, packet),
            Event::Link(conn) => self.link_is_due(conn),
            Event::Host => self.host_turn(),
            Event::Worker(process) => self.worker_turn(process),
            Event::Client(client) => self.client_turn(client),
            Event::Op(client) => self.client_op(client),
            Event::BodyEnds { process, body } => self.body_ends(process, body),
            Event::Exit(process) => {
                self.host.exits.push(process);
                self.call_host(self.now_ns);
            }
            Event::Gone(conn) => {
                self.host.gone.push(conn);
                self.call_host(self.now_ns);
            }
            Event::Leaves(client) => self.end_client(client),
            Event::News { process, news } => self.news_arrive(process, news),
            Event::Copies { file, parts } => self.memory.copy(file, &parts),
            Event::Written { job, fails } => {
                self.host.written.push((job, fails));
                self.call_host(self.now_ns);
            }
            Event::Fault(number) => self.fault_is_due(number),
            Event::Heal => self.heal(),
        }
        self.strike();
        true
    }

    /// The process that is at work as this worker.
    fn at_work(&self, worker: u32) -> Option<usize> {
        self.seats[worker as usize].front().copied()
    }

    fn plan_in(&mut self, delay_ns: u64, event: Event) {
        self.queue.plan(self.now_ns + delay_ns, event);
    }

    fn record(&mut self, record: Record) {
        let now_ns = self.now_ns;
        self.trace.note(now_ns, || format!("{record:?}"));
        self.history.add(now_ns, record);
    }

    fn fail(&mut self, class: &'static str, text: impl FnOnce() -> String) {
        if self.violation.is_none() {
            let text = text();
            let now_ns = self.now_ns;
            self.trace.note(now_ns, || format!("{class}: {text}"));
            self.violation = Some(Violation { class, text });
        }
    }

    /// Something happens at which something else may break. It breaks when the present step is done: see
    /// [`World::strike`].
    fn moment(&mut self, moment: Moment, who: Who) {
        self.armed.note(moment, who);
    }

    /// Lets everything break that is due.
    fn strike(&mut self) {
        while let Some((act, who)) = self.armed.next_due() {
            self.break_something(act, who);
        }
    }
}

/// The process that a fault concerns, and the fault, once it is due.
type Due = (Act, Who);
