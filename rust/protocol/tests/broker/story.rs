//! A broker under test: its surroundings played by hand, on a clock that only the test moves.

use headrace_protocol::broker::{Action, Broker, Config, Exit, Frame, PeerId, SegmentNews, SpillPart};
use headrace_protocol::limits::Offer;
use headrace_wire::{
    ANY_WORKER, BLOCK_ALIGN, Blobs, BlobsBuf, Cancel, Estate, EstateKind, Goodbye, GoodbyeReason, Hello, Hold, Log,
    Message, Order, OrderKind, Outcome, Overdue, PROTOCOL_VERSION, Policy, Report, Results, Role, Submit, U32s,
    Verdict,
};
use std::collections::VecDeque;
use std::sync::Arc;

pub(crate) const CLIENT: PeerId = PeerId(0);

/// One lease as a worker sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Got {
    pub(crate) task: u32,
    pub(crate) attempt: u32,
    pub(crate) index: u32,
    pub(crate) function: u32,
    pub(crate) flags: u8,
    pub(crate) timeout_ms: u32,
    pub(crate) failures: u32,
}

/// From, to and length of a block that is copied.
pub(crate) type CopiedBlock = ((u32, u64), (u32, u64), u64);

/// What the broker did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    Spawn {
        worker: u32,
        incarnation: u64,
    },
    Lease {
        worker: u32,
        leases: Vec<Got>,
        values: Vec<Vec<u8>>,
        deps: Vec<u32>,
        dead: Vec<u32>,
    },
    Recall {
        worker: u32,
        tasks: Vec<u32>,
        fetch: Vec<u32>,
    },
    Revoke {
        worker: u32,
        tasks: Vec<u32>,
    },
    Forget {
        worker: u32,
        dead: Vec<u32>,
    },
    Ended {
        run: u32,
        finished: bool,
        endings: Vec<(u32, Outcome, Vec<u8>)>,
    },
    Goodbye {
        peer: PeerId,
        reason: u8,
        text: String,
    },
    Interrupt {
        worker: u32,
        task: u32,
        attempt: u32,
    },
    Kill {
        worker: u32,
    },
    DumpStacks {
        worker: u32,
    },
    Standstill {
        worker: u32,
        text: String,
    },
    Because {
        number: u64,
        place: u8,
        text: String,
        stacks: String,
    },
    Cut {
        peer: PeerId,
    },
    Gone {
        peer: PeerId,
    },
    Log {
        text: Vec<u8>,
    },
    TaskLog {
        peer: PeerId,
        run: u32,
        index: u32,
        attempt: u32,
        before: u64,
        text: Vec<u8>,
    },
    Segment {
        worker: Option<u32>,
        news: SegmentNews,
    },
    Spill {
        job: u64,
        file: u32,
        create: Option<u64>,
        parts: Vec<SpillPart>,
    },
    CloseSegment {
        segment: u32,
        discard: u64,
    },
    Make {
        agent: Option<PeerId>,
        segment: u32,
        bytes: u64,
    },
    /// From, to and length of each block.
    Copy {
        agent: Option<PeerId>,
        job: u64,
        endpoint: String,
        parts: Vec<CopiedBlock>,
    },
    Gather {
        job: u64,
        head: Vec<u8>,
        parts: Vec<(u32, u64, u64)>,
    },
    /// Kind, worker, segment and bytes of what an agent is told of its memory.
    Estate {
        agent: PeerId,
        kind: EstateKind,
        worker: u32,
        segment: u32,
        bytes: u64,
    },
    /// Segment, offset and citations of each block.
    Release {
        peer: PeerId,
        blocks: Vec<(u32, u32, u32)>,
    },
    /// The question for unused memory: where somebody waits for it, will be told that there is none, or after a rest.
    GiveBack {
        peer: PeerId,
    },
    Press {
        peer: PeerId,
    },
    Cool {
        peer: PeerId,
    },
    /// Index and new encoding of each result.
    Moved {
        run: u32,
        values: Vec<(u32, Vec<u8>)>,
    },
    Other,
}

pub(crate) struct Story {
    pub(crate) broker: Broker,
    pub(crate) now_ns: u64,
    incarnations: Vec<u64>,
    peers: Vec<PeerId>,
    next_peer: u64,
    said: VecDeque<Said>,
    state: Option<Counts>,
    /// What agents were told to do.
    orders: Vec<Order>,
    /// Longest frame that a worker was sent, and the longest blob in any.
    pub(crate) longest: (usize, usize),
}

/// Counts of a STATE message.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    pub(crate) number: u64,
    pub(crate) waiting: u64,
    pub(crate) ready: u64,
    pub(crate) leased: u64,
    pub(crate) done: u64,
    pub(crate) worker_finished: Vec<u32>,
}

impl Story {
    /// A broker with a connected client and connected workers.
    pub(crate) fn new(workers: u32) -> Self {
        Self::with_store(workers, 1 << 30)
    }

    /// The same, with a budget of memory.
    pub(crate) fn with_store(workers: u32, store_limit: u64) -> Self {
        Self::with_disk(workers, store_limit, 0)
    }

    /// The same, with a budget of disk.
    pub(crate) fn with_disk(workers: u32, store_limit: u64, spill_limit: u64) -> Self {
        Self::with(workers, |config| (config.store_limit, config.spill_limit) = (store_limit, spill_limit))
    }

    /// A broker with a connected client, and with what its workers offer.
    pub(crate) fn with_offer(workers: u32, offer: Offer) -> Self {
        Self::with(workers, |config| config.offer = offer)
    }

    /// The same, set up otherwise.
    pub(crate) fn with(workers: u32, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            workers,
            offer: Offer::default(),
            places: 0,
            spares: 0,
            crash_limit: 3,
            oom_limit: 1,
            tasks_max: u64::MAX,
            result_bytes_max: 1 << 20,
            store_limit: 1 << 30,
            spill_limit: 0,
            version: "0.1.0".into(),
            python: "3.11.7".into(),
            grace_ns: 1_000_000_000,
            straggler_ns: 500_000_000,
            seed: 7,
        };
        change(&mut config);
        let places = (workers + config.places + config.spares) as usize;
        let mut story = Story {
            broker: Broker::new(config, 0),
            now_ns: 0,
            incarnations: vec![0; places],
            peers: vec![PeerId(u64::MAX); places],
            next_peer: 1,
            said: VecDeque::new(),
            state: None,
            orders: Vec::new(),
            longest: (0, 0),
        };
        story.hello(CLIENT, Role::Client, 0, 0);
        story.collect();
        for worker in 0..workers {
            story.connect_worker(worker);
        }
        story.said.clear();
        story
    }

    pub(crate) fn hello(&mut self, peer: PeerId, role: Role, worker: u32, incarnation: u64) {
        let hello = Hello {
            protocol: PROTOCOL_VERSION,
            role,
            version: "0.1.0",
            python: "3.11.9",
            features: 0,
            worker,
            incarnation,
            pid: 4_000 + worker,
        };
        self.send(peer, &Message::Hello(hello));
    }

    /// The worker's latest process says HELLO.
    pub(crate) fn connect_worker(&mut self, worker: u32) {
        let peer = PeerId(self.next_peer);
        self.next_peer += 1;
        self.peers[worker as usize] = peer;
        self.hello(peer, Role::Worker, worker, self.incarnations[worker as usize]);
        self.collect();
    }

    /// The process that was started last says HELLO, and waits for the worker's place.
    pub(crate) fn connect_successor(&mut self, worker: u32) -> PeerId {
        let before = self.peer(worker);
        self.connect_worker(worker);
        std::mem::replace(&mut self.peers[worker as usize], before)
    }

    /// From here on the worker is this peer.
    pub(crate) fn become_peer(&mut self, worker: u32, peer: PeerId) {
        self.peers[worker as usize] = peer;
    }

    pub(crate) fn peer(&self, worker: u32) -> PeerId {
        self.peers[worker as usize]
    }

    /// The client asks the broker to end once nothing is left to run.
    pub(crate) fn drain(&mut self, peer: PeerId) {
        let reason = GoodbyeReason::Shutdown as u8;
        self.send(peer, &Message::Goodbye(Goodbye { reason, text: "" }));
    }

    /// Lets the broker see a frame of `peer`, encoded by the real codec.
    pub(crate) fn send(&mut self, peer: PeerId, message: &Message<'_>) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.send_bytes(peer, bytes);
    }

    pub(crate) fn send_bytes(&mut self, peer: PeerId, bytes: Vec<u8>) {
        let frame: Frame = Arc::new(bytes);
        self.broker.handle_frame(peer, &frame, self.now_ns);
    }

    /// Submits a graph: `deps[i]` are the predecessors of task i, all of one function.
    pub(crate) fn submit(&mut self, run: u32, deps: &[&[u32]], keep: &[u32]) {
        self.submit_with(run, deps, keep, &[], &[]);
    }

    /// The same, with predecessors in other runs (cited as EXTERNAL | p) and pins (worker by task).
    pub(crate) fn submit_with(
        &mut self,
        run: u32,
        deps: &[&[u32]],
        keep: &[u32],
        external: &[(u32, u32)],
        pins: &[u32],
    ) {
        let counts: Vec<u32> = deps.iter().map(|list| list.len() as u32).collect();
        let flat: Vec<u32> = deps.iter().flat_map(|list| list.iter().copied()).collect();
        let functions = vec![0; deps.len()];
        let rows: Vec<u32> = (0..pins.len() as u32).collect();
        let priority = vec![0; pins.len()];
        let (external_run, external_index): (Vec<u32>, Vec<u32>) = external.iter().copied().unzip();
        let mut args = BlobsBuf::default();
        for index in 0..deps.len() {
            args.push(format!("a{index}").as_bytes());
        }
        let (mut names, mut pickles) = (BlobsBuf::default(), BlobsBuf::default());
        names.push(b"work");
        pickles.push(b"pickle");
        let number = [run];
        let submit = Submit {
            run,
            function_ids: number[..].into(),
            function_names: names.as_blobs(),
            functions: pickles.as_blobs(),
            function_map: number[..].into(),
            task_function: (&functions).into(),
            dep_counts: (&counts).into(),
            deps: (&flat).into(),
            external_run: (&external_run).into(),
            external_index: (&external_index).into(),
            args: args.as_blobs(),
            task_options: (&rows).into(),
            priority: (&priority).into(),
            worker: pins.into(),
            keep: keep.into(),
            ..Submit::default()
        };
        self.send(CLIENT, &Message::Submit(submit));
    }

    /// Submits a graph whose tasks all call the function that run `first` brought.
    pub(crate) fn submit_as(&mut self, run: u32, first: u32, deps: &[&[u32]], keep: &[u32]) {
        self.submit_from(run, first, deps, keep, &[]);
    }

    /// The same, with predecessors in other runs.
    pub(crate) fn submit_from(&mut self, run: u32, first: u32, deps: &[&[u32]], keep: &[u32], external: &[(u32, u32)]) {
        let (external_run, external_index): (Vec<u32>, Vec<u32>) = external.iter().copied().unzip();
        let counts: Vec<u32> = deps.iter().map(|list| list.len() as u32).collect();
        let flat: Vec<u32> = deps.iter().flat_map(|list| list.iter().copied()).collect();
        let (functions, lens) = (vec![0; deps.len()], vec![0; deps.len()]);
        let number = [first];
        let submit = Submit {
            run,
            function_map: number[..].into(),
            task_function: (&functions).into(),
            dep_counts: (&counts).into(),
            deps: (&flat).into(),
            external_run: (&external_run).into(),
            external_index: (&external_index).into(),
            args: Blobs { lens: (&lens).into(), bytes: &[] },
            keep: keep.into(),
            ..Submit::default()
        };
        self.send(CLIENT, &Message::Submit(submit));
    }

    /// Submits a graph whose tasks call the function that run `first` brought, or a new one, each with this policy.
    pub(crate) fn submit_policy(&mut self, run: u32, first: u32, deps: &[&[u32]], keep: &[u32], policy: &Policy<'_>) {
        let counts: Vec<u32> = deps.iter().map(|list| list.len() as u32).collect();
        let flat: Vec<u32> = deps.iter().flat_map(|list| list.iter().copied()).collect();
        let (zeros, number) = (vec![0; deps.len()], [first]);
        let (mut pickles, mut policies) = (BlobsBuf::default(), BlobsBuf::default());
        let is_new = run == first;
        if is_new {
            pickles.push(b"work");
        }
        let mut blob = Vec::new();
        Message::Policy(policy.clone()).encode(&mut blob);
        policies.push(&blob);
        let submit = Submit {
            run,
            function_ids: number[..usize::from(is_new)].into(),
            function_names: pickles.as_blobs(),
            functions: pickles.as_blobs(),
            function_map: number[..].into(),
            task_function: (&zeros).into(),
            dep_counts: (&counts).into(),
            deps: (&flat).into(),
            args: Blobs { lens: (&zeros).into(), bytes: &[] },
            task_options: (&zeros).into(),
            priority: [0][..].into(),
            worker: [ANY_WORKER][..].into(),
            policies: policies.as_blobs(),
            keep: keep.into(),
            ..Submit::default()
        };
        self.send(CLIENT, &Message::Submit(submit));
    }

    /// Submits a graph of a run that ends early, all of whose tasks call the function that run `first` brought.
    pub(crate) fn submit_ending(&mut self, run: u32, first: u32, deps: &[&[u32]], (deadline_ms, flags): (u64, u32)) {
        let counts: Vec<u32> = deps.iter().map(|list| list.len() as u32).collect();
        let flat: Vec<u32> = deps.iter().flat_map(|list| list.iter().copied()).collect();
        let (zeros, number) = (vec![0; deps.len()], [first]);
        let keep: Vec<u32> = (0..deps.len() as u32).collect();
        let submit = Submit {
            run,
            flags,
            function_map: number[..].into(),
            task_function: (&zeros).into(),
            dep_counts: (&counts).into(),
            deps: (&flat).into(),
            args: Blobs { lens: (&zeros).into(), bytes: &[] },
            keep: (&keep).into(),
            deadline_ms,
            ..Submit::default()
        };
        self.send(CLIENT, &Message::Submit(submit));
    }

    /// Submits tasks whose arguments have these lengths, all of the function that run `first` brought.
    pub(crate) fn submit_lens(&mut self, run: u32, first: u32, lens: &[u32]) {
        let (zeros, number) = (vec![0; lens.len()], [first]);
        let bytes = vec![7; lens.iter().map(|len| *len as usize).sum()];
        let submit = Submit {
            run,
            function_map: number[..].into(),
            task_function: (&zeros).into(),
            dep_counts: (&zeros).into(),
            args: Blobs { lens: lens.into(), bytes: &bytes },
            ..Submit::default()
        };
        self.send(CLIENT, &Message::Submit(submit));
    }

    /// One call in the run of calls, held by its future.
    pub(crate) fn submit_call(&mut self, index: u32) {
        let (one, kept) = ([0], [index]);
        let mut pickles = BlobsBuf::default();
        pickles.push(b"call");
        let submit = Submit {
            first: index,
            function_ids: (&one[..usize::from(index == 0)]).into(),
            function_names: if index == 0 { pickles.as_blobs() } else { Blobs::default() },
            functions: if index == 0 { pickles.as_blobs() } else { Blobs::default() },
            function_map: (&one[..]).into(),
            task_function: (&one[..]).into(),
            dep_counts: (&one[..]).into(),
            args: pickles.as_blobs(),
            keep: kept[..].into(),
            ..Submit::default()
        };
        self.send(CLIENT, &Message::Submit(submit));
    }

    /// The counts in the latest STATE.
    pub(crate) fn last_state(&mut self) -> Counts {
        self.collect();
        self.state.clone().expect("a query was answered")
    }

    /// Reports endings of leases: (lease, verdict, blob).
    pub(crate) fn report(&mut self, worker: u32, entries: &[(Got, Verdict, &[u8])]) {
        let calls = entries.len() as u32;
        let function = entries.first().map_or(0, |(got, ..)| got.function);
        self.report_timed(worker, entries, &[(function, calls, calls * 1_000)]);
    }

    pub(crate) fn report_timed(&mut self, worker: u32, entries: &[(Got, Verdict, &[u8])], timed: &[(u32, u32, u32)]) {
        let task: Vec<u32> = entries.iter().map(|(got, ..)| got.task).collect();
        let attempt: Vec<u32> = entries.iter().map(|(got, ..)| got.attempt).collect();
        let verdict: Vec<u8> = entries.iter().map(|(_, verdict, _)| *verdict as u8).collect();
        let mut values = BlobsBuf::default();
        for (.., blob) in entries {
            values.push(blob);
        }
        let functions: Vec<u32> = timed.iter().map(|row| row.0).collect();
        let calls: Vec<u32> = timed.iter().map(|row| row.1).collect();
        let ns: Vec<u32> = timed.iter().map(|row| row.2).collect();
        let report = Report {
            task: (&task).into(),
            attempt: (&attempt).into(),
            verdict: &verdict,
            values: values.as_blobs(),
            timed_function: (&functions).into(),
            timed_calls: (&calls).into(),
            timed_ns: (&ns).into(),
        };
        self.send(self.peer(worker), &Message::Report(report));
    }

    /// The worker says that the attempt runs for longer than it may.
    pub(crate) fn overdue(&mut self, worker: u32, got: Got) {
        self.send(self.peer(worker), &Message::Overdue(Overdue { task: got.task, attempt: got.attempt }));
    }

    pub(crate) fn cancel(&mut self, run: u32, index: &[u32]) {
        let (whole, index) = (index.is_empty(), index.into());
        self.send(CLIENT, &Message::Cancel(Cancel { run, whole, index, spare_leased: false }));
    }

    pub(crate) fn hold(&mut self, run: u32, add: &[u32], remove: &[u32], release_run: bool) {
        self.send(CLIENT, &Message::Hold(Hold { run, add: add.into(), remove: remove.into(), release_run }));
    }

    pub(crate) fn exit(&mut self, worker: u32, exit: Exit, executing: Option<(u32, u32)>) {
        self.exit_of(worker, self.incarnations[worker as usize], exit, executing);
    }

    /// The same for a process by its incarnation.
    pub(crate) fn exit_of(&mut self, worker: u32, incarnation: u64, exit: Exit, executing: Option<(u32, u32)>) {
        self.broker.handle_exit(worker, incarnation, exit, executing, self.now_ns);
    }

    /// Lets time pass and the broker act on it.
    pub(crate) fn pass_ns(&mut self, ns: u64) {
        self.now_ns += ns;
        self.broker.handle_timeout(self.now_ns);
    }

    /// Ends the turn and returns everything that was said since the last one.
    pub(crate) fn turn(&mut self) -> Vec<Said> {
        self.broker.finish_turn(self.now_ns);
        self.collect();
        self.said.drain(..).filter(|said| *said != Said::Other).collect()
    }

    /// Ends the turn; the leases that each worker got.
    pub(crate) fn leases(&mut self) -> Vec<(u32, Vec<Got>)> {
        let lease = |said| match said {
            Said::Lease { worker, leases, .. } => Some((worker, leases)),
            _ => None,
        };
        self.turn().into_iter().filter_map(lease).collect()
    }

    fn collect(&mut self) {
        while let Some(action) = self.broker.poll_action() {
            let said = match action {
                Action::Send { peer, frame, .. } | Action::Log { peer, frame } => self.read(peer, &frame),
                Action::Spawn { worker, incarnation } => {
                    self.incarnations[worker as usize] = incarnation;
                    Said::Spawn { worker, incarnation }
                }
                Action::Interrupt { worker, task, attempt } => Said::Interrupt { worker, task, attempt },
                Action::Kill { worker } => Said::Kill { worker },
                Action::Cut { peer } => Said::Cut { peer },
                Action::Forget { peer } => Said::Gone { peer },
                Action::Look { .. } => Said::Other,
                Action::DumpStacks { worker } => Said::DumpStacks { worker },
                Action::Segment { worker, news } => Said::Segment { worker, news },
                Action::CloseSegment { segment, discard } => Said::CloseSegment { segment, discard },
                Action::Spill { job, file, create, parts } => Said::Spill { job, file, create, parts },
                Action::MakeSegment { segment, bytes } => Said::Make { agent: None, segment, bytes },
                Action::Copy { job, endpoint, parts, .. } => {
                    let parts = parts.into_iter().map(|part| (part.from, part.to, part.bytes)).collect();
                    Said::Copy { agent: None, job, endpoint, parts }
                }
                Action::Neighbour { .. } => Said::Other,
                Action::Gather { job, head, parts } => Said::Gather { job, head, parts },
            };
            self.said.push_back(said);
        }
    }

    fn read(&mut self, peer: PeerId, frame: &[u8]) -> Said {
        let worker = self.peers.iter().position(|known| *known == peer).unwrap_or(99) as u32;
        match Message::decode(frame).expect("the broker speaks its own protocol") {
            Message::Lease(lease) => {
                let blobs = lease.functions.iter().chain(lease.values.iter()).chain(lease.args.iter());
                let blob = blobs.map(<[u8]>::len).max().unwrap_or(0);
                self.longest = (self.longest.0.max(frame.len()), self.longest.1.max(blob));
                let got = |at: usize| Got {
                    task: lease.task.at(at),
                    attempt: lease.attempt.at(at),
                    index: lease.index.at(at),
                    function: lease.function.at(at),
                    flags: lease.flags[at],
                    timeout_ms: lease.timeout_ms.iter().nth(at).unwrap_or(0),
                    failures: lease.failures.iter().nth(at).unwrap_or(0),
                };
                Said::Lease {
                    worker,
                    leases: (0..lease.task.len()).map(got).collect(),
                    values: lease.values.iter().map(<[u8]>::to_vec).collect(),
                    deps: lease.deps.to_vec(),
                    dead: lease.dead.to_vec(),
                }
            }
            Message::Recall(recall) => {
                Said::Recall { worker, tasks: recall.task.to_vec(), fetch: recall.fetch.to_vec() }
            }
            Message::Estate(estate) => match EstateKind::try_from(estate.kind).unwrap() {
                EstateKind::Made => Said::Make { agent: Some(peer), segment: estate.segment, bytes: estate.bytes },
                kind => {
                    let Estate { worker, segment, bytes, .. } = estate;
                    Said::Estate { agent: peer, kind, worker, segment, bytes }
                }
            },
            Message::Transfer(transfer) => {
                let blocks = |segments: U32s<'_>, offsets: U32s<'_>| {
                    let offsets = offsets.iter().map(|units| u64::from(units) * BLOCK_ALIGN);
                    segments.iter().zip(offsets).collect::<Vec<(u32, u64)>>()
                };
                let from = blocks(transfer.from_segment, transfer.from_offset);
                let to = blocks(transfer.to_segment, transfer.to_offset);
                let length = transfer.length.iter().map(|units| u64::from(units) * BLOCK_ALIGN);
                let parts = from.into_iter().zip(to).zip(length).map(|((from, to), bytes)| (from, to, bytes));
                let endpoint = transfer.endpoint.to_owned();
                Said::Copy { agent: Some(peer), job: transfer.job, endpoint, parts: parts.collect() }
            }
            Message::Neighbour(_) => Said::Other,
            Message::Standstill(standstill) => Said::Standstill { worker, text: standstill.text.to_owned() },
            Message::Revoke(revoke) => Said::Revoke { worker, tasks: revoke.task.to_vec() },
            Message::Forget(forget) => Said::Forget { worker, dead: forget.dead.to_vec() },
            Message::Results(results) => ended(&results),
            Message::Release(release) => {
                let numbers = release.offset.iter().zip(release.citations.iter());
                let blocks =
                    release.segment.iter().zip(numbers).map(|(segment, (offset, count))| (segment, offset, count));
                Said::Release { peer, blocks: blocks.collect() }
            }
            Message::GiveBack(wish) => match wish.urgency {
                0 => Said::Cool { peer },
                1 => Said::GiveBack { peer },
                _ => Said::Press { peer },
            },
            Message::Moved(moved) => {
                let values = moved.index.iter().zip(moved.values.iter().map(<[u8]>::to_vec)).collect();
                Said::Moved { run: moved.run, values }
            }
            Message::Goodbye(goodbye) => Said::Goodbye { peer, reason: goodbye.reason, text: goodbye.text.into() },
            Message::Because(because) => Said::Because {
                number: because.number,
                place: because.state,
                text: because.text.into(),
                stacks: because.stacks.into(),
            },
            Message::Log(Log { attempt: 0, text, .. }) => Said::Log { text: text.to_vec() },
            Message::Log(Log { run, index, attempt, before, text, .. }) => {
                Said::TaskLog { peer, run, index, attempt, before, text: text.to_vec() }
            }
            Message::State(state) => {
                self.state = Some(Counts {
                    number: state.number,
                    waiting: state.waiting,
                    ready: state.ready,
                    leased: state.leased,
                    done: state.done,
                    worker_finished: state.worker_finished.to_vec(),
                });
                Said::Other
            }
            Message::Order(order) => {
                self.orders.push(order);
                Said::Other
            }
            _ => Said::Other,
        }
    }

    /// What agents were told to do since the last time, but for looks.
    pub(crate) fn take_orders(&mut self) -> Vec<Order> {
        self.collect();
        self.orders.drain(..).filter(|order| order.kind != OrderKind::Look as u8).collect()
    }

    /// An agent has started a process.
    pub(crate) fn note_incarnation(&mut self, worker: u32, incarnation: u64) {
        self.incarnations[worker as usize] = incarnation;
    }
}

fn ended(results: &Results<'_>) -> Said {
    let outcome = |number: &u8| Outcome::try_from(*number).expect("a known outcome");
    let endings = results
        .index
        .iter()
        .zip(results.outcome.iter().map(outcome))
        .zip(results.values.iter())
        .map(|((index, outcome), blob)| (index, outcome, blob.to_vec()))
        .collect();
    Said::Ended { run: results.run, finished: results.finished, endings }
}
