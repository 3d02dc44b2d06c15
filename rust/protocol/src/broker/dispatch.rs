//! Dispatch: who gets which ready tasks, and the frames that carry them.
//!
//! Workers are served in rounds: first everybody up to one frame, then everybody up to two (B1), so that a small supply
//! is spread before anybody queues. In each round a worker first takes what it holds the largest input of (or what
//! nobody does), then anything.

use super::functions::Functions;
use super::ledger::Ledger;
use super::policy::DEFAULT_POLICY;
use super::retry::is_parked;
use super::roster::numbers;
use super::store::Store;
use super::workers::{FRAME_BUDGET_NS, FRAMES_MAX, Worker};
use super::{Action, Broker, worker_id};
use headrace_kernel::{LeaseRequest, Oracle, Preference, TaskIndex, seeded};
use headrace_wire::{BlobsBuf, Forget, Heartbeat, LEASE_HOLD, LEASE_NESTED, LEASE_REPORT, Lease, Message};
use std::collections::VecDeque;

/// Bytes of functions, results and arguments in one frame to a worker; one that is longer by itself travels alone. Far
/// below what a socket takes, and enough for any bandwidth.
pub const LEASE_BYTES_MAX: usize = 32 << 20;
/// Workers with room from which on, if there are fewer ready tasks, their inputs tell who is to have them, and not each worker
/// is asked.
const MANY_TAKERS: usize = 16;
/// Dead results that a worker without new work may still hold before it is told.
pub(super) const FORGET_BATCH: usize = 1_024;

/// Reused memory for the columns of a lease frame.
#[derive(Default)]
pub(super) struct LeaseColumns {
    function_ids: Vec<u32>,
    function_names: BlobsBuf,
    functions: BlobsBuf,
    value_task: Vec<u32>,
    values: BlobsBuf,
    task: Vec<u32>,
    attempt: Vec<u32>,
    function: Vec<u32>,
    flags: Vec<u8>,
    index: Vec<u32>,
    dep_counts: Vec<u32>,
    deps: Vec<u32>,
    args: BlobsBuf,
    key_position: Vec<u32>,
    keys: BlobsBuf,
    /// Shorter where the rest is 0.
    timeout_ms: Vec<u32>,
    failures: Vec<u32>,
}

impl LeaseColumns {
    fn clear(&mut self) {
        self.function_ids.clear();
        self.function_names.clear();
        self.functions.clear();
        self.value_task.clear();
        self.values.clear();
        self.task.clear();
        self.attempt.clear();
        self.function.clear();
        self.flags.clear();
        self.index.clear();
        self.dep_counts.clear();
        self.deps.clear();
        self.args.clear();
        self.key_position.clear();
        self.keys.clear();
        self.timeout_ms.clear();
        self.failures.clear();
    }

    /// Enters what is said of few leases: of the next one.
    fn push_rare(&mut self, timeout_ms: u32, failures: u32) {
        for (column, number) in [(&mut self.timeout_ms, timeout_ms), (&mut self.failures, failures)] {
            if number > 0 {
                column.resize(self.task.len(), 0);
                column.push(number);
            }
        }
    }

    /// Makes these columns as long as the others, unless they are empty.
    fn fill_rare(&mut self) {
        for column in [&mut self.timeout_ms, &mut self.failures] {
            if !column.is_empty() {
                column.resize(self.task.len(), 0);
            }
        }
    }

    /// Whether something of this length has to go into another frame than the functions and results so far.
    fn overflows(&self, len: usize) -> bool {
        let luggage = self.functions.bytes.len() + self.values.bytes.len();
        luggage > 0 && luggage + self.args.bytes.len() + len > LEASE_BYTES_MAX
    }

    /// The functions and results so far as a frame of their own, which goes ahead of the leases that need them.
    fn take_luggage(&mut self, frame: u32, dead: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        Message::Lease(self.luggage(frame, dead)).encode(&mut bytes);
        self.function_ids.clear();
        self.function_names.clear();
        self.functions.clear();
        self.value_task.clear();
        self.values.clear();
        bytes
    }

    fn luggage<'a>(&'a self, frame: u32, dead: &'a [u32]) -> Lease<'a> {
        Lease {
            frame,
            dead: dead.into(),
            function_ids: (&self.function_ids).into(),
            function_names: self.function_names.as_blobs(),
            functions: self.functions.as_blobs(),
            value_task: (&self.value_task).into(),
            values: self.values.as_blobs(),
            ..Lease::default()
        }
    }

    fn message<'a>(&'a self, frame: u32, dead: &'a [u32]) -> Message<'a> {
        Message::Lease(Lease {
            task: (&self.task).into(),
            attempt: (&self.attempt).into(),
            function: (&self.function).into(),
            flags: &self.flags,
            index: (&self.index).into(),
            dep_counts: (&self.dep_counts).into(),
            deps: (&self.deps).into(),
            args: self.args.as_blobs(),
            key_position: (&self.key_position).into(),
            keys: self.keys.as_blobs(),
            timeout_ms: (&self.timeout_ms).into(),
            failures: (&self.failures).into(),
            ..self.luggage(frame, dead)
        })
    }
}

/// What the kernel asks the broker while it forms a batch.
struct Ask<'a> {
    ledger: &'a Ledger,
    functions: &'a Functions,
    store: &'a Store,
    worker: u32,
    machine: u32,
    /// Bytes of the arguments so far.
    bytes: usize,
}

impl Oracle for Ask<'_> {
    fn cost(&mut self, task: TaskIndex) -> u64 {
        let slot = self.ledger.slot(task.0);
        self.bytes += slot.args_len as usize;
        if self.bytes >= LEASE_BYTES_MAX {
            return u64::MAX; // the frame is full
        }
        // A function that was never measured fills a whole frame, so that nobody queues behind the unknown.
        self.functions.estimate_ns(slot.function).unwrap_or(FRAME_BUDGET_NS)
    }

    fn preference(&mut self, predecessors: &[TaskIndex], _task: TaskIndex) -> Preference {
        let size = |task: &TaskIndex| {
            self.ledger.value(task.0).map(|value| {
                let bytes = value.payload.as_ref().map_or(0, super::Payload::len);
                (bytes, value)
            })
        };
        match predecessors.iter().filter_map(size).max_by_key(|(bytes, _)| *bytes) {
            Some((_, value)) if value.holders.contains(&self.worker) => Preference::Mine,
            Some((_, value)) if !value.holders.is_empty() => Preference::Other,
            _ => Preference::Nobody,
        }
    }

    fn guards(&self) -> bool {
        self.ledger.awaits_values() || self.store.is_split()
    }

    fn bars(&mut self, predecessors: &[TaskIndex]) -> bool {
        let is_elsewhere = |input: &TaskIndex| {
            let value = self.ledger.value(input.0).filter(|value| value.payload.is_some());
            value.is_some_and(|value| value.on(self.machine, self.store).is_none())
        };
        predecessors.iter().any(|input| self.ledger.is_out_of_reach(input.0, self.worker) || is_elsewhere(input))
    }
}

impl Broker {
    pub(super) fn dispatch(&mut self, now_ns: u64) {
        if self.is_overfull() {
            return;
        }
        self.give_out(now_ns);
        self.workers.uninformed().into_iter().for_each(|worker| self.forget_dead(worker));
    }

    /// Serves whoever has room and there is something for.
    fn give_out(&mut self, now_ns: u64) {
        let parked = self.count_parked();
        if (self.kernel.ready() == parked && !self.kernel.may_be_followed())
            || self.workers.with_fewer(FRAMES_MAX).is_clear()
        {
            return;
        }
        self.note_running(now_ns);
        for frames in 1..=FRAMES_MAX {
            for only_preferred in [true, false] {
                if self.kernel.ready() > parked {
                    let candidates = self.takers_of_ready(frames, parked, only_preferred);
                    self.serve(&candidates, frames, only_preferred, Some(parked), now_ns);
                }
            }
            if self.kernel.may_be_followed() {
                // Whom that has not reached goes on with what follows on its own queue.
                let candidates = self.takers_of_followers(frames);
                self.serve(&candidates, frames, false, None, now_ns);
            }
        }
    }

    /// Those with room and with tasks that follow on their own queues.
    fn takers_of_followers(&mut self, frames: usize) -> Vec<u32> {
        let Broker { kernel, workers, .. } = self;
        kernel.followed(workers.with_fewer(frames).as_slice()).iter().map(|worker| worker.0).collect()
    }

    /// Those that may be given what is ready: with room, and where there are many more of them than tasks, only those that have
    /// an input if that is what counts.
    fn takers_of_ready(&mut self, frames: usize, parked: u64, only_preferred: bool) -> Vec<u32> {
        let room: Vec<u32> = numbers(self.workers.with_fewer(frames).ones());
        let ready = self.kernel.ready() - parked;
        if !only_preferred || room.len() < MANY_TAKERS || ready > room.len() as u64 {
            return room;
        }
        let mut takers: Vec<u32> = Vec::new();
        let mut anywhere = 0;
        for class in self.kernel.ready_classes().filter(|class| !is_parked(*class)) {
            for task in self.kernel.ready_tasks(class) {
                let inputs = self.kernel.predecessors(task).iter().filter_map(|input| self.ledger.value(input.0));
                let before = takers.len();
                takers.extend(inputs.flat_map(|value| value.holders.iter().copied()));
                anywhere += usize::from(takers.len() == before);
            }
        }
        takers.extend(room.iter().take(anywhere));
        takers.sort_unstable();
        takers.dedup();
        takers
    }

    /// Gives each of them work up to so many frames; no longer than something is ready, if that is asked for.
    fn serve(&mut self, workers: &[u32], frames: usize, only_preferred: bool, parked: Option<u64>, now_ns: u64) {
        for &worker in workers {
            // Who waits for memory runs a task, and what it got now would have to be taken back.
            while self.workers[worker as usize].takes_work()
                && !self.waits_for_room(worker)
                && self.workers[worker as usize].frames_open() < frames
                && self.lease_frame(worker, only_preferred, now_ns)
            {}
            if parked == Some(self.kernel.ready()) {
                return;
            }
        }
    }

    /// Sends one lease frame to a worker; false if there is nothing for it.
    fn lease_frame(&mut self, number: u32, only_preferred: bool, now_ns: u64) -> bool {
        self.leased.clear();
        self.limits.choose(&self.kernel, number, &mut self.group);
        // Once, but where the best that there is to choose from is of no use for now.
        while self.leased.is_empty() && self.limits.next_group(&self.kernel, number, &mut self.group) {
            self.lease_group(number, only_preferred);
        }
        if self.leased.is_empty() {
            return false;
        }
        self.note_grants(number);
        self.send_leases(number, now_ns);
        true
    }

    /// Has the kernel lease a batch of the classes that were chosen.
    fn lease_group(&mut self, number: u32, only_preferred: bool) {
        let worker = &self.workers[number as usize];
        let request = LeaseRequest {
            classes: &self.group.classes,
            tasks_max: worker.tasks_left.min(worker.frame_tasks_max.into()) as u32,
            seeds_max: u32::try_from(self.group.seeds).unwrap_or(u32::MAX),
            budget: FRAME_BUDGET_NS,
            only_preferred,
            roots: !self.holds_roots_back(worker.machine),
        };
        let machine = worker.machine;
        let Broker { kernel, ledger, functions, store, leased, .. } = self;
        let mut ask = Ask { ledger, functions, store, worker: number, machine, bytes: 0 };
        kernel.lease(worker_id(number), &request, &mut ask, leased);
    }

    /// Has the kernel lease what is asked for, and nothing else.
    pub(super) fn lease_one(&mut self, number: u32, request: &LeaseRequest<'_>) {
        self.leased.clear();
        let machine = self.workers[number as usize].machine;
        let Broker { kernel, ledger, functions, store, leased, .. } = self;
        let mut ask = Ask { ledger, functions, store, worker: number, machine, bytes: 0 };
        kernel.lease(worker_id(number), request, &mut ask, leased);
    }

    pub(super) fn send_leases(&mut self, number: u32, now_ns: u64) {
        let Broker {
            kernel,
            ledger,
            store,
            functions,
            policies,
            retries,
            runs,
            workers,
            columns,
            leased,
            actions,
            statistics,
            heartbeat_number,
            consuming,
            ..
        } = self;
        let worker = &mut workers[number as usize];
        if worker.frames_open() == 0 {
            worker.progress_ns = now_ns;
        }
        let (frame, machine) = (worker.next_frame(), worker.machine);
        let nested = if worker.waits() { LEASE_NESTED } else { 0 };
        let mut void: Vec<(u32, u32)> = Vec::new();
        columns.clear();
        let peer = worker.peer().expect("only connected workers are given work");
        // A question goes along with each frame ahead, so that a worker is not thought dead while it receives very much.
        let question = Message::Heartbeat(Heartbeat { number: *heartbeat_number, finished: 0 });
        let send_ahead = |columns: &mut LeaseColumns, worker: &mut Worker, actions: &mut VecDeque<Action>| {
            let luggage = columns.take_luggage(frame, &worker.dead);
            worker.expect_transit(luggage.len());
            actions.push_back(Action::Send { peer, frame: luggage, wake: None });
            worker.dead.clear();
            let mut bytes = Vec::new();
            question.encode(&mut bytes);
            actions.push_back(Action::Send { peer, frame: bytes, wake: None });
        };
        for lease in leased.iter() {
            let slot = ledger.slot_mut(lease.task.0);
            slot.frame = frame;
            slot.reported = lease.report;
            slot.held_by_worker = lease.hold;
            slot.recalled = false;
            slot.wanted = false;
            let slot = *slot;
            let run = runs[slot.run as usize].as_mut().expect("a live task's run is in the table");
            if slot.done {
                // It runs again, because its result was lost or has died too early; what is left of that is void.
                ledger.slot_mut(lease.task.0).done = false;
                run.counts.done -= 1;
                void.extend(ledger.drop_value(lease.task.0).into_iter().map(|holder| (holder, lease.task.0)));
            }
            run.counts.leased += 1;
            run.first_lease_ns.get_or_insert(now_ns);
            if let Some(key) = run.keys.get(&slot.index) {
                columns.key_position.push(columns.task.len() as u32);
                columns.keys.push(key);
            }
            if worker.learn_function(slot.function) {
                let function = functions.get(slot.function);
                if columns.overflows(function.pickle.len()) {
                    send_ahead(columns, worker, actions);
                }
                columns.function_ids.push(slot.function);
                columns.function_names.push(function.name.bytes());
                columns.functions.push(function.pickle.bytes());
            }
            worker.outstanding_ns += functions.estimate_ns(slot.function).unwrap_or(FRAME_BUDGET_NS);
            let predecessors = kernel.predecessors(lease.task);
            ledger.slot_mut(lease.task.0).consumes = !predecessors.is_empty();
            *consuming += u64::from(!predecessors.is_empty());
            columns.dep_counts.push(predecessors.len() as u32);
            for predecessor in predecessors {
                columns.deps.push(predecessor.0);
                // B2. A predecessor without a value is leased to this worker earlier in its queue (K2).
                if let Some(value) = ledger.value_mut(predecessor.0)
                    && !value.holders.contains(&number)
                    && !(seeded!("input not sent") && predecessor.0 % 8 == 7)
                {
                    let payload =
                        value.on(machine, store).expect("no task is leased while only others can have an input");
                    if columns.overflows(payload.len()) {
                        send_ahead(columns, worker, actions);
                    }
                    store.hand_over(peer, Some(number), payload.bytes(), actions);
                    columns.value_task.push(predecessor.0);
                    columns.values.push(payload.bytes());
                    value.holders.push(number);
                }
            }
            if slot.policy != DEFAULT_POLICY {
                columns.push_rare(policies.get(slot.policy).timeout_ms, retries.failures(lease.task.0));
            }
            columns.task.push(lease.task.0);
            columns.attempt.push(lease.attempt.0);
            columns.function.push(slot.function);
            let report = if lease.report { LEASE_REPORT } else { 0 };
            columns.flags.push(report | (if lease.hold { LEASE_HOLD } else { 0 }) | nested);
            columns.index.push(slot.index);
            let args = ledger.args(lease.task.0);
            if columns.overflows(args.len()) {
                send_ahead(columns, worker, actions);
            }
            columns.args.push(args);
        }
        worker.open_frame(leased.len() as u32);
        for (holder, task) in void {
            workers[holder as usize].dead.push(task);
        }
        let worker = &mut workers[number as usize];
        let mut bytes = Vec::new();
        columns.fill_rare();
        columns.message(frame, &worker.dead).encode(&mut bytes);
        worker.dead.clear();
        worker.expect_transit(bytes.len());
        statistics.lease_frames += 1;
        actions.push_back(Action::Send { peer, frame: bytes, wake: None });
    }

    /// Tells a worker which results are dead.
    pub(super) fn forget_dead(&mut self, number: u32) {
        let worker = &mut self.workers[number as usize];
        let dead = std::mem::take(&mut worker.dead);
        if let (Some(peer), false) = (worker.peer(), dead.is_empty()) {
            self.send(peer, &Message::Forget(Forget { dead: (&dead).into() }));
        }
    }
}
