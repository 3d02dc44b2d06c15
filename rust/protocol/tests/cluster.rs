//! The three machines together: one broker, its workers and a client, on one thread and one seed.
//!
//! Frames of a link arrive in order, links in any order. Workers stop at any task and die at any step,
//! and in a third of the runs each leaves after a few tasks. Whatever happens,
//! every task ends, every kept value is what a sequential evaluation gives, and nothing is left once it is released.
//!
//! In half of the runs tasks take what there is little of, and a look at what all workers run says whether that is kept to.
//!
//! In half of the runs some values lie in shared memory, which is a table here: whoever writes to a block overwrites what
//! was there, so a block that is used again too early (S1) gives a wrong value somewhere. Where it is scarce, values move to
//! files, which are part of the same table; that takes its time, and fails now and then.

use headrace_protocol::broker::{Action, Broker, Config, Exit, Frame, PeerId, SegmentNews, SpillFrom, SpillPart};
use headrace_protocol::client::Client;
use headrace_protocol::limits::Offer;
use headrace_protocol::store::BlockId;
use headrace_protocol::worker::{Ending, Identity, Start, Worker};
use headrace_wire::{
    ANY_WORKER, BlobsBuf, Citation, Hello, Message, Outcome, PROTOCOL_VERSION, Policy, Role, Submit, citations,
    write_citations,
};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

const CLIENT: PeerId = PeerId(0);
/// How often a task raises that does so for ever.
const FOR_EVER: u8 = u8::MAX;
/// Retries of tasks that have some.
const RETRIES: u8 = 3;
/// How many licenses there are, and the limit of the tag.
const LICENSES: u64 = 3;
const TAGGED: u64 = 1;

/// Deterministic chance (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }
}

struct Process {
    machine: Worker,
    incarnation: u64,
    peer: PeerId,
    to_worker: VecDeque<Vec<u8>>,
    to_broker: VecDeque<Vec<u8>>,
    running: Option<Start>,
    cancelled: Option<(u32, u32)>,
    /// Whether it waits for a segment; and whether it was told that there is none.
    wants: bool,
    refused: bool,
    views: Vec<View>,
}

/// A value that Python sees, and what it must be.
struct View {
    value: Vec<u8>,
    word: u64,
}

/// Contents of blocks, by segment and offset.
type Memory = HashMap<(u32, u64), u64>;

struct Cluster {
    chance: Chance,
    now_ns: u64,
    broker: Broker,
    client: Client,
    to_client: VecDeque<Vec<u8>>,
    /// The processes of each worker: the one that works, and perhaps its successor.
    workers: Vec<VecDeque<Process>>,
    next_peer: u64,
    kills_left: u32,
    /// The longest time from one step to the next.
    step_ns: u64,
    /// Whether workers leave after some tasks.
    retires: bool,
    memory: Memory,
    /// Whether some values are large.
    large: bool,
    client_views: Vec<View>,
    /// What is to be written to a file, the job's number first; then what was.
    to_write: VecDeque<(u64, Vec<SpillPart>, u32)>,
    written: VecDeque<u64>,
    /// Whether some inline values are worth the move; then no job fails, because there would be no place for them.
    padded: bool,
    /// How slow the disk is.
    disk_odds: u64,
    /// Results that have moved, over all.
    moves: u64,
    /// How often each task has raised, by run and index.
    raised: HashMap<(u8, u64), u8>,
    killed: bool,
}

/// A graph and what comes out of it.
struct Workload {
    deps: Vec<Vec<u32>>,
    /// How often each task raises before it succeeds.
    raises: Vec<u8>,
    /// Whether failed attempts are tried again.
    retried: bool,
    /// Whether attempts have a time limit, which some pass; then they are tried again until one does not.
    limited: bool,
    keep: Vec<u32>,
    /// Licenses that each task takes, and whether it is tagged.
    takes: Vec<(u8, bool)>,
}

impl Workload {
    fn random(chance: &mut Chance) -> Self {
        let bits = 1 + chance.below(7);
        let tasks = 1 + chance.below(1 << bits);
        let failing = chance.one_in(3);
        let mut deps = Vec::new();
        for task in 0..tasks {
            let mut row: Vec<u32> = (0..chance.below(4).min(task)).map(|_| chance.below(task) as u32).collect();
            row.sort_unstable();
            row.dedup();
            deps.push(row);
        }
        let retried = chance.one_in(3);
        let raise = |_| match failing && chance.one_in(15) {
            true => FOR_EVER,
            false if retried && chance.one_in(5) => 1 + chance.below(RETRIES.into()) as u8,
            false => 0,
        };
        let raises = (0..tasks).map(raise).collect();
        let keep = (0..tasks as u32).filter(|_| chance.one_in(3)).collect();
        let limited = !failing && !retried && chance.one_in(2);
        let takes_some = chance.one_in(2);
        let take = |chance: &mut Chance| (chance.below(LICENSES + 1) as u8, chance.one_in(3));
        let takes =
            (0..tasks).map(|_| if takes_some && chance.one_in(2) { take(chance) } else { (0, false) }).collect();
        Workload { deps, raises, retried, limited, keep, takes }
    }

    /// The value of each task, `None` if it failed or was skipped.
    fn evaluate(&self) -> Vec<Option<u64>> {
        let mut values: Vec<Option<u64>> = Vec::new();
        for (task, deps) in self.deps.iter().enumerate() {
            let inputs: Option<Vec<u64>> = deps.iter().map(|dep| values[*dep as usize]).collect();
            values.push(inputs.filter(|_| self.raises[task] != FOR_EVER).map(|inputs| compute(task as u64, &inputs)));
        }
        values
    }
}

/// Whether a task returns its first input, or a large value.
fn echoes(task: u64) -> bool {
    task % 5 == 4
}

fn is_large(task: u64) -> bool {
    !task.is_multiple_of(3)
}

fn compute(task: u64, inputs: &[u64]) -> u64 {
    match inputs.first() {
        Some(&first) if echoes(task) => first,
        _ => mix(task, inputs),
    }
}

fn mix(task: u64, inputs: &[u64]) -> u64 {
    inputs.iter().fold(task + 1, |word, input| (word.rotate_left(7) ^ input).wrapping_mul(0x0100_0000_01b3))
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let workers = 1 + chance.below(3) as u32;
        let scarce = chance.one_in(3);
        let spill_limit = [0, 1 << 15, 1 << 30][chance.below(3) as usize];
        let disk_odds = [2, 10, 100][chance.below(3) as usize];
        let padded = spill_limit == 1 << 30 && chance.one_in(2);
        let tasks_max = if chance.one_in(3) { 1 + chance.below(12) } else { u64::MAX };
        let config = Config {
            offer: Offer::new([("license".into(), LICENSES)], [("tag".into(), TAGGED)], []),
            workers,
            spares: 0,
            crash_limit: 200,
            oom_limit: 1,
            tasks_max,
            result_bytes_max: 1 << 20,
            store_limit: if scarce { 1 << 14 } else { 1 << 30 },
            spill_limit,
            version: "0.1.0".into(),
            python: "3.11.7".into(),
            grace_ns: 20_000_000,
            seed: 7,
        };
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            role: Role::Client,
            version: "0.1.0",
            python: "3.11.7",
            features: 0,
            worker: 0,
            incarnation: 0,
            pid: 1,
        };
        let large = chance.one_in(2);
        let kills_left = if chance.one_in(2) { chance.below(6) as u32 } else { 0 };
        Cluster {
            chance,
            now_ns: 0,
            broker: Broker::new(config, 0),
            client: Client::new(&hello),
            to_client: VecDeque::new(),
            workers: (0..workers).map(|_| VecDeque::new()).collect(),
            next_peer: 1,
            kills_left,
            // Whoever finds no memory waits a second for others.
            retires: tasks_max < u64::MAX,
            step_ns: if scarce { 2_000_000 } else { 40_000 },
            memory: Memory::new(),
            large,
            client_views: Vec::new(),
            to_write: VecDeque::new(),
            written: VecDeque::new(),
            padded,
            disk_odds,
            moves: 0,
            raised: HashMap::new(),
            killed: false,
        }
    }

    fn submit(&mut self, run: u32, workload: &Workload) {
        let tasks = workload.deps.len();
        let counts: Vec<u32> = workload.deps.iter().map(|row| row.len() as u32).collect();
        let deps: Vec<u32> = workload.deps.concat();
        let functions: Vec<u32> = (0..tasks).map(|_| self.chance.below(2) as u32).collect();
        let (mut names, mut args) = (BlobsBuf::default(), BlobsBuf::default());
        names.push(b"one");
        names.push(b"two");
        let backoff_ms = self.chance.below(2) as u32;
        let (retries, timeout_ms) = match (workload.limited, workload.retried) {
            // Where each attempt costs the start of a process, most of them should end.
            (true, _) => (1_000_000, if self.retires { 2_000 } else { 1 }),
            (false, true) => (RETRIES.into(), 0),
            (false, false) => (0, 0),
        };
        let mut policies = BlobsBuf::default();
        for (task, (raises, takes)) in workload.raises.iter().zip(&workload.takes).enumerate() {
            let words = [takes.0, u8::from(takes.1), run as u8, *raises];
            args.push(&[&(task as u64).to_le_bytes()[..], &words].concat());
            let rest = Policy { retries, backoff_ms, backoff_max_ms: 2, timeout_ms, ..Policy::default() };
            policies.push(&policy(*takes, rest));
        }
        let rows: Vec<u32> = (0..tasks as u32).collect();
        let (priority, any) = (vec![0; tasks], vec![ANY_WORKER; tasks]);
        let first = run == 1;
        let ids = [7, 8];
        self.client.open_run(run, tasks as u32);
        self.client.submit(&Submit {
            run,
            function_ids: ids[..if first { 2 } else { 0 }].into(),
            function_names: if first { names.as_blobs() } else { Default::default() },
            functions: if first { names.as_blobs() } else { Default::default() },
            function_map: ids[..].into(),
            task_function: (&functions).into(),
            dep_counts: (&counts).into(),
            deps: (&deps).into(),
            args: args.as_blobs(),
            task_options: (&rows).into(),
            priority: (&priority).into(),
            worker: (&any).into(),
            policies: policies.as_blobs(),
            keep: (&workload.keep).into(),
            ..Submit::default()
        });
    }

    /// One step of one part, chosen by chance.
    fn step(&mut self) {
        self.now_ns += self.chance.below(self.step_ns);
        match self.chance.below(8) {
            0 => self.step_client(),
            1..=3 => self.step_broker(),
            4 if self.kills_left > 0 && self.chance.one_in(40) => {
                self.kills_left -= 1;
                let worker = self.chance.below(self.workers.len() as u64) as usize;
                // Three that die before they took work make the broker give up.
                let has_worked = |process: &Process| process.machine.statistics().finished > 0;
                if self.kills_left % 2 == 1 || self.workers[worker].front().is_some_and(has_worked) {
                    self.kill(worker);
                }
            }
            _ => {
                let worker = self.chance.below(self.workers.len() as u64) as usize;
                self.step_worker(worker);
            }
        }
    }

    fn step_client(&mut self) {
        while let Some(frame) = self.to_client.pop_front() {
            self.client.handle_frame(frame).expect("the broker keeps the protocol");
        }
        if self.client.garbage_due() > 0 && self.chance.one_in(2) {
            self.client.note_collected(2);
        }
        self.client.flush_holds();
    }

    fn step_disk(&mut self) {
        if let Some((job, parts, file)) = self.to_write.pop_front() {
            for SpillPart { from, to } in parts {
                let bytes = match from {
                    // What was there may be gone, or something else may lie there.
                    SpillFrom::Block { segment, offset, .. } => {
                        self.memory.get(&(segment, offset)).copied().unwrap_or(0)
                    }
                    SpillFrom::Value(value) => word(value.bytes()),
                };
                self.memory.insert((file, to), bytes);
                self.moves += 1;
            }
            self.written.push_back(job);
        } else if let Some(job) = self.written.pop_front() {
            let fails = !self.padded && self.chance.one_in(8);
            let outcome = if fails { Err("the disk is full".to_owned()) } else { Ok(()) };
            self.broker.handle_spilled(job, outcome, self.now_ns);
        }
    }

    fn step_broker(&mut self) {
        while let Some(frame) = self.client.poll_frame() {
            let frame: Frame = Arc::new(frame);
            self.broker.handle_frame(CLIENT, &frame, self.now_ns);
        }
        for worker in 0..self.workers.len() {
            for process in &mut self.workers[worker] {
                let arrived = self.chance.below(process.to_broker.len() as u64 + 1) as usize;
                for frame in process.to_broker.drain(..arrived) {
                    let frame: Frame = Arc::new(frame);
                    self.broker.handle_frame(process.peer, &frame, self.now_ns);
                }
            }
            self.bury(worker);
        }
        if self.chance.one_in(self.disk_odds) {
            self.step_disk();
        }
        self.broker.handle_timeout(self.now_ns);
        self.broker.finish_turn(self.now_ns);
        while let Some(action) = self.broker.poll_action() {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Send { peer: CLIENT, frame, .. } | Action::Log { frame, .. } => self.to_client.push_back(frame),
            Action::Send { peer, frame, .. } => {
                if let Some(process) = self.workers.iter_mut().flatten().find(|process| process.peer == peer) {
                    process.to_worker.push_back(frame);
                }
            }
            Action::Spawn { worker, incarnation } => {
                let identity = Identity {
                    version: "0.1.0".into(),
                    python: "3.11.7".into(),
                    worker,
                    incarnation,
                    pid: 100 + worker,
                };
                let peer = PeerId(self.next_peer);
                self.next_peer += 1;
                self.workers[worker as usize].push_back(Process {
                    machine: Worker::new(&identity),
                    incarnation,
                    peer,
                    to_worker: VecDeque::new(),
                    to_broker: VecDeque::new(),
                    running: None,
                    cancelled: None,
                    wants: false,
                    refused: false,
                    views: Vec::new(),
                });
            }
            Action::Interrupt { worker, task, attempt } => {
                if let Some(process) = self.workers[worker as usize].front_mut() {
                    process.cancelled = Some((task, attempt));
                }
            }
            Action::Kill { worker } => self.kill(worker as usize),
            Action::Cut { peer } => panic!("{peer:?} means well, and was cut"),
            Action::Forget { .. } | Action::Look { .. } | Action::DumpStacks { .. } | Action::CloseSegment { .. } => {}
            Action::Segment { worker: Some(worker), news } => {
                let Some(process) = self.workers[worker as usize].front_mut() else { return };
                match news {
                    SegmentNews::Granted { segment, bytes } => {
                        process.machine.with_blocks(|blocks| blocks.own(segment, bytes));
                        process.wants = false;
                    }
                    SegmentNews::Refused { .. } => (process.wants, process.refused) = (false, true),
                    SegmentNews::Shared { .. } | SegmentNews::Dropped { .. } => {}
                }
            }
            Action::Segment { worker: None, .. } => {}
            Action::Spill { job, parts, file, .. } => self.to_write.push_back((job, parts, file)),
        }
    }

    /// The process that works ends if it was told to, and everything that it had to say has arrived.
    fn bury(&mut self, worker: usize) {
        let has_left = |process: &Process| {
            process.machine.closed().is_some() && process.to_broker.is_empty() && !process.machine.flush_due()
        };
        if self.workers[worker].front().is_some_and(has_left) {
            let process = self.workers[worker].pop_front().expect("it was just seen");
            self.broker.handle_exit(worker as u32, process.incarnation, Exit::Code(0), None, self.now_ns);
        }
    }

    fn kill(&mut self, worker: usize) {
        let last = self.workers[worker].len().saturating_sub(1);
        let place = if self.chance.one_in(4) { last } else { 0 };
        let Some(process) = self.workers[worker].remove(place) else { return };
        self.killed = true;
        // What had left the process before its end arrives, sometimes.
        for frame in process.to_broker {
            if self.chance.one_in(2) {
                break;
            }
            let frame: Frame = Arc::new(frame);
            self.broker.handle_frame(process.peer, &frame, self.now_ns);
        }
        let executing = process.running.as_ref().map(|start| (start.task, start.attempt));
        self.broker.handle_exit(worker as u32, process.incarnation, Exit::Signal(9), executing, self.now_ns);
    }

    fn step_worker(&mut self, worker: usize) {
        let now_ns = self.now_ns;
        let place = if self.chance.one_in(8) { self.workers[worker].len().saturating_sub(1) } else { 0 };
        let Some(process) = self.workers[worker].get_mut(place) else { return };
        let arrived = self.chance.below(process.to_worker.len() as u64 + 1) as usize;
        for frame in process.to_worker.drain(..arrived) {
            process.machine.handle_frame(&frame);
        }
        if let Some(start) = &process.running {
            let executing = Some((start.task, start.attempt));
            if let Some(overdue) = process.machine.handle_timeout(executing, now_ns) {
                // Or it does not let the interrupt through.
                process.cancelled = Some(overdue).filter(|_| !self.chance.one_in(4));
            }
        }
        for _ in 0..self.chance.below(20) {
            match process.running.take() {
                None => {
                    let mut start = Start::default();
                    if process.machine.start_next(&mut start, || now_ns) {
                        process.running = Some(start);
                    }
                }
                // A long task: the warden speaks meanwhile.
                Some(start) if self.chance.one_in(12) => {
                    process.running = Some(start);
                    break;
                }
                Some(start) if process.wants => {
                    process.running = Some(start);
                    break;
                }
                Some(start) => {
                    let inputs: Vec<u64> = start.inputs.iter().map(|input| read(&self.memory, input.bytes())).collect();
                    for (input, &word) in start.inputs.iter().zip(&inputs) {
                        if self.chance.one_in(4) && citations(input.bytes()).len() > 0 {
                            process.machine.with_blocks(|blocks| blocks.hold_cited(input.bytes()));
                            process.views.push(View { value: input.bytes().to_vec(), word });
                        }
                    }
                    let [.., run, times] = *start.args() else { unreachable!("every task has these two") };
                    let raised = self.raised.entry((run, word(start.args()))).or_default();
                    let raises = *raised < times;
                    *raised += u8::from(raises);
                    let interrupted = process.cancelled == Some((start.task, start.attempt));
                    if raises || interrupted {
                        process.machine.finish(if interrupted {
                            Ending::Interrupted
                        } else {
                            Ending::Raised(b"raised")
                        });
                        continue;
                    }
                    let task = word(start.args());
                    let result = compute(task, &inputs);
                    let mut value = result.to_le_bytes().to_vec();
                    if self.padded && task.is_multiple_of(2) {
                        value.resize(700, 0);
                    }
                    if echoes(task) && !inputs.is_empty() {
                        value = start.inputs[0].bytes().to_vec();
                        process.machine.with_blocks(|blocks| blocks.hold_cited(&value));
                    } else if self.large && is_large(task) && !std::mem::take(&mut process.refused) {
                        match process.machine.with_blocks(|blocks| blocks.allocate(3_000)) {
                            Some(block) => {
                                self.memory.insert((block.id.segment, block.id.offset), result);
                                value.clear();
                                let BlockId { segment, offset } = block.id;
                                write_citations(&[Citation { segment, offset, bytes: block.bytes }], &mut value);
                            }
                            None => {
                                process.machine.want(3_000, self.now_ns);
                                process.wants = true;
                                process.running = Some(start);
                                break;
                            }
                        }
                    }
                    process.machine.finish(Ending::Value(&value));
                }
            }
            if self.chance.one_in(3) && !process.views.is_empty() {
                let view = process.views.swap_remove(self.chance.below(process.views.len() as u64) as usize);
                assert_eq!(read(&self.memory, &view.value), view.word, "a view has changed");
                process.machine.with_blocks(|blocks| blocks.unhold_cited(&view.value));
            }
        }
        if process.machine.flush_due() || self.chance.one_in(3) {
            process.machine.flush(now_ns);
        }
        if process.machine.garbage_due() > 0 && process.running.is_none() {
            process.machine.note_collected(2);
        }
        while let Some(frame) = process.machine.poll_frame() {
            process.to_broker.push_back(frame);
        }
        self.check_limits();
    }

    /// No more runs than limits say, cancelled attempts included.
    fn check_limits(&self) {
        let running = self.workers.iter().flatten().filter_map(|process| process.running.as_ref());
        let taken = running.map(|start| (u64::from(start.args()[8]), u64::from(start.args()[9])));
        let (licenses, tagged) = taken.fold((0, 0), |sum, taken| (sum.0 + taken.0, sum.1 + taken.1));
        assert!(licenses <= LICENSES && tagged <= TAGGED, "{licenses} licenses, {tagged} tagged");
    }

    /// Drops every view, of workers and client, after a look at it.
    fn drop_views(&mut self) {
        for view in self.client_views.drain(..) {
            assert_eq!(read(&self.memory, &view.value), view.word, "a view of the client has changed");
            self.client.with_blocks(|blocks| blocks.unhold_cited(&view.value));
        }
        for process in self.workers.iter_mut().flatten() {
            for view in process.views.drain(..) {
                assert_eq!(read(&self.memory, &view.value), view.word, "a view has changed");
                process.machine.with_blocks(|blocks| blocks.unhold_cited(&view.value));
            }
        }
    }

    /// Steps until the run has ended for the client.
    fn finish(&mut self, run: u32) {
        for _ in 0..200_000 {
            if self.client.progress(run).is_some_and(|progress| progress.finished) {
                return;
            }
            self.step();
        }
        panic!("run {run} does not end");
    }
}

/// The options of a task that takes so many licenses, and maybe the tag.
fn policy((licenses, is_tagged): (u8, bool), policy: Policy<'_>) -> Vec<u8> {
    let (mut resources, mut tags) = (BlobsBuf::default(), BlobsBuf::default());
    resources.push(b"license");
    if is_tagged {
        tags.push(b"tag");
    }
    let mut blob = Vec::new();
    if licenses > 0 || is_tagged || policy.retries > 0 {
        let amounts = u64::from(licenses).to_le_bytes();
        let (resources, tags) = (resources.as_blobs(), tags.as_blobs());
        Message::Policy(Policy { resources, amounts: &amounts, tags, ..policy }).encode(&mut blob);
    }
    blob
}

fn read(memory: &Memory, value: &[u8]) -> u64 {
    match citations(value).next() {
        Some(cited) => memory[&(cited.segment, cited.offset)],
        None => word(value),
    }
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("values have eight bytes and more"))
}

/// Results that moved to files, attempts that took too long, and workers that were retired.
fn check_seed(seed: u64) -> (u64, u64, u64) {
    let mut cluster = Cluster::new(seed);
    let workloads: Vec<Workload> =
        (0..1 + cluster.chance.below(3)).map(|_| Workload::random(&mut cluster.chance)).collect();
    for (run, workload) in (1..).zip(&workloads) {
        cluster.submit(run, workload);
        for _ in 0..cluster.chance.below(200) {
            cluster.step();
        }
    }
    let cancelled = cluster.chance.one_in(4).then_some(1);
    if let Some(run) = cancelled {
        let tasks = workloads[0].deps.len() as u64;
        let index = cluster.chance.below(tasks) as u32;
        cluster.client.cancel(run, &[index], false);
    }
    for (run, workload) in (1..).zip(&workloads) {
        cluster.finish(run);
        let expected = workload.evaluate();
        for index in &workload.keep {
            let ending = cluster.client.peek(run, *index).expect("a kept task of an ended run has an ending");
            match (ending.outcome(), expected[*index as usize]) {
                (Outcome::Done, Some(value)) => {
                    assert_eq!(read(&cluster.memory, ending.bytes()), value, "run {run} task {index}");
                    if cluster.chance.one_in(2) {
                        cluster.client.with_blocks(|blocks| blocks.hold_cited(ending.bytes()));
                        cluster.client_views.push(View { value: ending.bytes().to_vec(), word: value });
                    }
                }
                (Outcome::Failed | Outcome::Skipped, None) => {}
                (Outcome::Cancelled | Outcome::Skipped, _) if cancelled == Some(run) => {}
                (outcome, value) => panic!("run {run} task {index}: {outcome:?}, expected {value:?}"),
            }
        }
        if !cluster.killed && cancelled != Some(run) {
            for (index, deps) in workload.deps.iter().enumerate() {
                // A value that has to be made again costs its task another attempt, so there may be more than these.
                let least = match workload.raises[index] {
                    FOR_EVER => 1 + if workload.retried { RETRIES } else { 0 },
                    times => times,
                };
                let raised = cluster.raised.get(&(run as u8, index as u64)).copied().unwrap_or(0);
                let is_skipped = deps.iter().any(|dep| expected[*dep as usize].is_none());
                assert!(raised >= least || is_skipped, "run {run} task {index} raised {raised} times, not {least}");
            }
        }
        cluster.client.release(run);
    }
    for _ in 0..2_000 {
        cluster.step();
    }
    cluster.drop_views();
    for _ in 0..3 {
        // Past a heartbeat, with which idle workers hear of results that are dead.
        cluster.now_ns += 2_000_000_000;
        for _ in 0..300 {
            cluster.step();
        }
    }
    cluster.client.flush_holds();
    cluster.step_broker();
    cluster.step_broker();
    let left = cluster.broker.statistics();
    assert_eq!((left.tasks_held, left.bytes_held), (0, 0), "nothing is left");
    assert_eq!(cluster.broker.store_statistics().blocks, 0, "no block is left");
    for process in cluster.workers.iter_mut().flatten() {
        let left = process.machine.with_blocks(|blocks| blocks.statistics());
        assert_eq!(process.machine.statistics().values, 0, "no value is left in a worker");
        assert_eq!((left.blocks, left.foreign_blocks), (0, 0), "no block is left in a worker");
    }
    (cluster.moves, left.timeouts, left.workers_retired)
}

#[test]
fn whatever_happens_every_value_is_right_and_nothing_is_left() {
    let number =
        |name| std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")));
    let (first, seeds) = match number("HEADRACE_SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("HEADRACE_SEEDS").unwrap_or(600)),
    };
    let (mut moves, mut timeouts, mut retired) = (0, 0, 0);
    for seed in first..first + seeds {
        match std::panic::catch_unwind(|| check_seed(seed)) {
            Ok(counts) => (moves, timeouts, retired) = (moves + counts.0, timeouts + counts.1, retired + counts.2),
            Err(panic) => {
                eprintln!("HEADRACE_SEED={seed} repeats this");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(timeouts > seeds / 10 || seeds == 1, "{timeouts} attempts timed out: too few to learn anything");
    assert!(retired > seeds || seeds == 1, "{retired} workers were retired: too few to learn anything");
    assert!(moves > seeds / 10 || seeds == 1, "{moves} results moved to disk: too few to learn anything");
}
