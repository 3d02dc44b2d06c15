//! A broker under siege. A script says which peer sends what, which process dies and how time goes; whatever it says, the
//! broker does not panic, speaks its own protocol, and says nothing more to whom it has cut. Then the siege ends: honest
//! workers come, every task ends, a new graph has the right results, and once the clients are gone nothing is left.

mod script;
mod speech;

use headrace_protocol::broker::{Action, Broker, Config, Exit, Frame, PeerId, SegmentNews, Shortage};
use headrace_protocol::limits::Offer;
use headrace_protocol::worker::{Ending, Identity, Start, Worker};
use headrace_wire::{Blobs, BlobsBuf, Hello, Message, Outcome, PROTOCOL_VERSION, Query, Role, Submit};
use script::Script;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

const VERSION: &str = "0.1.0";
const PYTHON: &str = "3.11.7";
const WORKERS: u32 = 2;
/// Workers that may stand in for others.
const SPARES: u32 = 2;
/// All places of workers.
const PLACES: u32 = WORKERS + SPARES;
/// Those who speak. The first is the client at the start; the others come as they like.
const SEATS: usize = 7;
const SECOND_NS: u64 = 1_000_000_000;
/// The longest pause that a policy can ask for: 2³² ms.
const PAUSE_NS: u64 = 1_000_000 << 32;
/// What the honest graph returns.
const RIGHT: &[u8] = b"right";

/// The broker and those around it.
pub(crate) struct Siege {
    broker: Broker,
    now_ns: u64,
    /// Who sits where; another peer once that one has been cut.
    seats: [PeerId; SEATS],
    next_peer: u64,
    cut: BTreeSet<PeerId>,
    /// Incarnations of the processes for each worker's place, the one that has it first; and those that have said HELLO.
    processes: Vec<Vec<u64>>,
    greeted: BTreeSet<(usize, u64)>,
    /// Those that the broker wants dead.
    dying: Vec<u32>,
    /// Leases that peers were sent: peer, task, attempt.
    leases: Vec<(PeerId, u32, u32)>,
    /// Tasks of each run that clients have submitted.
    submitted: BTreeMap<(PeerId, u32), u32>,
    segments: Vec<u32>,
    /// Whether the next one cannot be made.
    fail_segment: bool,
    jobs: VecDeque<u64>,
    /// Whether a client was told of any segment.
    client_saw: bool,
    /// Workers that mean well, once the siege is over.
    honest: BTreeMap<PeerId, Worker>,
    /// The honest graph's results: the outcome and value of each task.
    endings: BTreeMap<u32, (u8, Vec<u8>)>,
    /// Tasks that are waiting, ready or leased, by the latest STATE.
    unfinished: u64,
    /// Whether to print what is said and done.
    trace: bool,
}

/// What tasks may ask for: some of it is scarce, and some that policies name is not there.
fn offer() -> Offer {
    let shared = [("a".into(), 2)];
    let tags = [("a".into(), 1), ("b".into(), 2)];
    Offer::new(shared, tags, [("b".into(), vec![1; WORKERS as usize])])
}

/// Plays a script to its end.
pub(crate) fn besiege(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut siege = Siege::new(&mut script);
    while !script.is_over() && !siege.broker.has_given_up() {
        siege.step(&mut script);
    }
    siege.turn();
    siege.heal();
}

impl Siege {
    fn new(script: &mut Script<'_>) -> Self {
        let config = Config {
            offer: offer(),
            workers: WORKERS,
            places: 0,
            spares: SPARES,
            crash_limit: 1 + script.byte() % 3,
            oom_limit: 1,
            tasks_max: [u64::MAX, 1, 5][script.below(3)],
            result_bytes_max: 1 << 20,
            store_limit: [1 << 14, 1 << 20, 1 << 30][script.below(3)],
            spill_limit: [0, 1 << 15, 1 << 30][script.below(3)],
            version: VERSION.into(),
            python: PYTHON.into(),
            grace_ns: SECOND_NS,
            straggler_ns: [1, SECOND_NS / 2][script.below(2)],
            seed: 1,
        };
        let mut siege = Siege {
            broker: Broker::new(config, 0),
            now_ns: 0,
            seats: std::array::from_fn(|seat| PeerId(seat as u64)),
            next_peer: SEATS as u64,
            cut: BTreeSet::new(),
            processes: vec![Vec::new(); PLACES as usize],
            greeted: BTreeSet::new(),
            dying: Vec::new(),
            leases: Vec::new(),
            submitted: BTreeMap::new(),
            segments: Vec::new(),
            fail_segment: false,
            jobs: VecDeque::new(),
            client_saw: false,
            honest: BTreeMap::new(),
            endings: BTreeMap::new(),
            unfinished: 0,
            trace: std::env::var_os("HEADRACE_FUZZ_TRACE").is_some(),
        };
        siege.turn();
        siege.say_hello(siege.seats[0], Role::Client, 0, 0);
        (0..WORKERS as usize).for_each(|worker| siege.greet(worker));
        siege
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let seat = script.below(SEATS);
        let peer = self.seats[seat];
        match script.below(16) {
            0 => {
                self.now_ns += [1_000, 1_000_000, SECOND_NS, 61 * SECOND_NS][script.below(4)];
                self.broker.handle_timeout(self.now_ns);
                self.turn();
            }
            1 => {
                self.step_world(script);
                self.turn();
            }
            2 => {
                let raw = script.take(60).to_vec();
                self.send(peer, raw);
            }
            3..=5 => {
                let mut frame = self.compose(script, peer);
                speech::mutate(script, &mut frame);
                self.send(peer, frame);
            }
            6 | 7 => self.turn(),
            8 => {
                if self.cut.contains(&peer) {
                    self.seats[seat] = self.new_peer();
                }
                self.greet(seat % PLACES as usize);
            }
            _ => {
                let frame = self.compose(script, peer);
                self.send(peer, frame);
            }
        }
    }

    /// A process for a worker's place says HELLO, if there is one that has not.
    fn greet(&mut self, worker: usize) {
        let new = self.processes[worker].iter().find(|incarnation| !self.greeted.contains(&(worker, **incarnation)));
        if let Some(&incarnation) = new {
            self.greeted.insert((worker, incarnation));
            self.seats[1 + worker] = self.new_peer();
            self.say_hello(self.seats[1 + worker], Role::Worker, worker as u32, incarnation);
        }
    }

    fn new_peer(&mut self) -> PeerId {
        self.next_peer += 1;
        PeerId(self.next_peer)
    }

    /// What happens besides frames.
    fn step_world(&mut self, script: &mut Script<'_>) {
        let worker = script.below(PLACES as usize) as u32;
        match script.below(6) {
            0 | 1 => {
                let executing = self.any_attempt(script);
                self.end_process(worker, script.below(2), executing);
            }
            2 => {
                if let Some(job) = self.jobs.pop_front() {
                    let outcome = if script.one_in(3) { Err("no disk".into()) } else { Ok(()) };
                    self.broker.handle_spilled(job, outcome, self.now_ns);
                }
            }
            3 => {
                let stream = 1 + script.byte() % 2;
                let by = self.any_attempt(script);
                self.broker.handle_output(worker, stream, script.take(20), by);
            }
            4 => self.fail_segment = true,
            _ => self.broker.handle_sign_of_life(worker),
        }
    }

    /// No attempt, one that may not be, or one that is leased.
    fn any_attempt(&self, script: &mut Script<'_>) -> Option<(u32, u32)> {
        match script.below(3) {
            0 => None,
            1 => Some((script.number(), script.number())),
            _ => self.leases.first().map(|(_, task, attempt)| (*task, *attempt)),
        }
    }

    /// Ends the turn, and does what the broker wants done.
    fn turn(&mut self) {
        self.broker.finish_turn(self.now_ns);
        while let Some(action) = self.broker.poll_action() {
            if self.trace {
                match &action {
                    Action::Send { peer, frame, .. } => eprintln!("to {peer:?}: {:?}", Message::decode(frame)),
                    action => eprintln!("{action:?}"),
                }
            }
            match action {
                Action::Send { peer, frame, .. } | Action::Log { peer, frame } => self.hear(peer, &frame),
                Action::Spawn { worker, incarnation } => {
                    let place = &mut self.processes[worker as usize];
                    place.push(incarnation);
                    assert!(place.is_sorted(), "every process has a number of its own: {place:?}");
                }
                Action::Kill { worker } => self.dying.push(worker),
                Action::Segment { worker, news: SegmentNews::Granted { segment, .. } } => {
                    self.client_saw |= worker.is_none();
                    match std::mem::take(&mut self.fail_segment) {
                        true => self.broker.handle_segment_failure(segment),
                        false => self.segments.push(segment),
                    }
                }
                Action::CloseSegment { segment, .. } => self.segments.retain(|known| *known != segment),
                Action::Spill { job, .. } => self.jobs.push_back(job),
                Action::Gather { job, head, .. } => self.broker.handle_gathered(job, Ok(head), self.now_ns),
                Action::MakeSegment { .. } | Action::Copy { .. } | Action::Neighbour { .. } => {}
                Action::Cut { peer } => {
                    self.cut.insert(peer);
                }
                Action::Forget { peer } => {
                    self.cut.remove(&peer);
                    // Whoever is forgotten and speaks again gets another number.
                    if let Some(seat) = self.seats.iter().position(|seated| *seated == peer) {
                        self.seats[seat] = self.new_peer();
                    }
                }
                Action::DumpStacks { worker } => self.broker.handle_stacks(worker, ""),
                Action::Segment { worker, news: SegmentNews::Shared { .. } } => self.client_saw |= worker.is_none(),
                Action::Interrupt { .. } | Action::Look { .. } | Action::Segment { .. } => {}
            }
        }
        for worker in std::mem::take(&mut self.dying) {
            self.end_process(worker, 0, None);
        }
    }

    fn hear(&mut self, peer: PeerId, frame: &[u8]) {
        let message = Message::decode(frame).expect("the broker speaks its own protocol");
        assert!(!self.cut.contains(&peer), "{peer:?} is told something after it was cut: {message:?}");
        if let Some(worker) = self.honest.get_mut(&peer) {
            worker.handle_frame(frame);
        }
        match message {
            Message::Lease(lease) => {
                self.leases.extend(lease.task.iter().zip(lease.attempt.iter()).map(|(task, at)| (peer, task, at)));
            }
            Message::State(state) => self.unfinished = state.waiting + state.ready + state.leased,
            Message::Results(results) if results.run == HONEST_RUN => {
                let rows = results.index.iter().zip(results.outcome).zip(results.values.iter());
                self.endings.extend(rows.map(|((index, outcome), value)| (index, (*outcome, value.to_vec()))));
            }
            _ => {}
        }
    }

    fn send(&mut self, peer: PeerId, bytes: Vec<u8>) {
        if self.trace {
            eprintln!("by {peer:?}: {:?}", Message::decode(&bytes));
        }
        let frame: Frame = Arc::new(bytes);
        self.broker.handle_frame(peer, &frame, self.now_ns);
    }

    fn say(&mut self, peer: PeerId, message: &Message<'_>) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.send(peer, bytes);
    }

    fn say_hello(&mut self, peer: PeerId, role: Role, worker: u32, incarnation: u64) {
        let (version, python) = (VERSION, PYTHON);
        let hello =
            Hello { protocol: PROTOCOL_VERSION, role, version, python, features: 0, worker, incarnation, pid: 1 };
        self.say(peer, &Message::Hello(hello));
    }

    /// Ends a process for a worker's place: the one that has it, or its successor.
    fn end_process(&mut self, worker: u32, which: usize, executing: Option<(u32, u32)>) {
        let place = &mut self.processes[worker as usize];
        if which < place.len() {
            let incarnation = place.remove(which);
            if self.trace {
                eprintln!("process {incarnation} of worker {worker} ends in {executing:?}");
            }
            let exit = if incarnation % 3 == 2 { Exit::OutOfMemory(Shortage::default()) } else { Exit::Signal(9) };
            self.broker.handle_exit(worker, incarnation, exit, executing, self.now_ns);
        }
    }

    fn end_processes(&mut self) {
        for worker in 0..PLACES {
            while !self.processes[worker as usize].is_empty() {
                self.end_process(worker, 0, None);
            }
        }
    }

    /// Whether a peer was sent leases.
    fn is_worker(&self, peer: PeerId) -> bool {
        self.leases.iter().any(|lease| lease.0 == peer)
    }
}

/// The run of the honest graph: no script chooses it.
const HONEST_RUN: u32 = 77;

impl Siege {
    /// The siege is over: whoever stood in a worker's place is killed, and workers that mean well come.
    fn heal(&mut self) {
        self.end_processes();
        if self.broker.has_given_up() {
            return; // it ends, and everything with it
        }
        let honest = self.seats[0];
        self.submit_honest_graph(honest);
        self.work_honestly();
        let is_served = !self.endings.is_empty();
        if is_served {
            let right = (Outcome::Done as u8, RIGHT.to_vec());
            assert!(
                self.endings.len() == 4 && self.endings.values().all(|ending| *ending == right),
                "{:?}",
                self.endings
            );
        }
        let observer = self.new_peer();
        self.unfinished = u64::MAX;
        self.say_hello(observer, Role::Observer, 0, 0);
        self.say(observer, &Message::Query(Query::default()));
        self.turn();
        assert_eq!(self.unfinished, 0, "tasks that nobody keeps from it do not end");

        (0..=self.next_peer).for_each(|peer| self.broker.handle_disconnect(PeerId(peer), self.now_ns));
        self.work_honestly();
        self.end_processes();
        self.turn();
        let left = self.broker.statistics();
        assert_eq!((left.tasks_held, left.bytes_held), (0, 0), "something is left");
        let store = self.broker.store_statistics();
        // What a client saw stays for good, because its process may go on showing it.
        if !self.client_saw {
            assert_eq!((store.granted, store.blocks), (0, 0), "memory is left");
        }
    }

    /// A chain of four; nobody answers if the client has been cut.
    fn submit_honest_graph(&mut self, client: PeerId) {
        let (counts, deps) = ([0, 1, 1, 1], [0, 1, 2]);
        let (keep, zeros, number) = ([0, 1, 2, 3], [0; 4], [HONEST_RUN]);
        let mut name = BlobsBuf::default();
        name.push(b"honest");
        let submit = Submit {
            run: HONEST_RUN,
            function_ids: number[..].into(),
            function_names: name.as_blobs(),
            functions: name.as_blobs(),
            function_map: number[..].into(),
            task_function: zeros[..].into(),
            dep_counts: counts[..].into(),
            deps: deps[..].into(),
            args: Blobs { lens: zeros[..].into(), bytes: &[] },
            keep: keep[..].into(),
            ..Submit::default()
        };
        self.say(client, &Message::Submit(submit));
    }

    /// Lets time pass until there is nothing to do for the workers.
    fn work_honestly(&mut self) {
        let mut idle = 0;
        for _ in 0..2_000 {
            // When there is nothing to do, so much that the longest pause before a retry is over.
            self.now_ns += if idle < 4 { SECOND_NS } else { PAUSE_NS };
            self.broker.handle_timeout(self.now_ns);
            while let Some(job) = self.jobs.pop_front() {
                self.broker.handle_spilled(job, Ok(()), self.now_ns);
            }
            self.turn();
            self.start_honest_workers();
            self.turn();
            idle = if self.step_honest_workers() { 0 } else { idle + 1 };
            // Seconds, longer than anything that the broker waits for.
            if idle > 8 {
                return;
            }
        }
        panic!("the work does not end");
    }

    fn start_honest_workers(&mut self) {
        for (worker, place) in (0..PLACES).zip(&self.processes) {
            for &incarnation in place {
                self.honest.entry(honest_peer(worker, incarnation)).or_insert_with(|| {
                    let (version, python) = (VERSION.to_owned(), PYTHON.to_owned());
                    Worker::new(&Identity { version, python, worker, incarnation, pid: 1 })
                });
            }
        }
    }

    /// Whether anybody had a task.
    fn step_honest_workers(&mut self) -> bool {
        let mut worked = false;
        for (worker, place) in (0..PLACES).zip(self.processes.clone()) {
            for incarnation in place {
                let peer = honest_peer(worker, incarnation);
                let Some(machine) = self.honest.get_mut(&peer) else { continue };
                let mut start = Start::default();
                while machine.start_next(&mut start, || self.now_ns) {
                    worked = true;
                    machine.finish(Ending::Value(RIGHT));
                }
                machine.flush(self.now_ns);
                let frames: Vec<Vec<u8>> = std::iter::from_fn(|| machine.poll_frame()).collect();
                let leaves = machine.closed().is_some();
                frames.into_iter().for_each(|frame| self.send(peer, frame));
                if leaves {
                    let which = self.processes[worker as usize].iter().position(|other| *other == incarnation);
                    which.into_iter().for_each(|which| self.end_process(worker, which, None));
                }
            }
        }
        worked
    }
}

/// The peer that a process which means well is.
fn honest_peer(worker: u32, incarnation: u64) -> PeerId {
    PeerId(1 << 40 | incarnation << 8 | u64::from(worker))
}
