//! A worker's process: its main thread runs bodies, its warden looks at the socket meanwhile.

use super::memory::{View, inline};
use super::{Event, Who, World};
use crate::chance::Chance;
use crate::encode::{self, Args};
use crate::history::Record;
use crate::scenario::Moment;
use crate::workload::{Body, Name, Size, compute};
use headrace_protocol::broker::SegmentNews;
use headrace_protocol::store::BlockId;
use headrace_protocol::worker::{Ending, Start, Worker};
use headrace_wire::{Citation, WANTED_BADLY, citations, write_citations};
use std::collections::VecDeque;

pub(crate) struct WorkerProcess {
    machine: Worker,
    pub(crate) worker: u32,
    incarnation: u64,
    pub(crate) conn: usize,
    pub(crate) alive: bool,
    pub(crate) stopped_until_ns: u64,
    inbox: VecDeque<Vec<u8>>,
    /// Whether it has received anything since the broker's host looked.
    heard: bool,
    running: Option<Running>,
    /// Whether its body is what kills it.
    dies_of_itself: bool,
    /// What the status page said at its end.
    executing_at_end: Option<(u32, u32)>,
    /// The attempt that is to stop.
    cancelled: Option<(u32, u32)>,
    /// Whether it waits for a segment, and whether it was told that there is none.
    wants: bool,
    refused: bool,
    views: Vec<View>,
    due_ns: u64,
    news_last_ns: u64,
    bodies: u64,
    chance: Chance,
}

/// A body that runs.
struct Running {
    start: Start,
    args: Args,
    body: u64,
    inputs: Vec<u64>,
    ends_ns: u64,
}

/// What a process does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Occupation {
    pub(crate) runs: bool,
    /// Its body is to stop.
    pub(crate) stops: bool,
    /// It waits for memory.
    pub(crate) wants: bool,
    /// It has leases that have not begun.
    pub(crate) has_queued: bool,
}

const NEVER_NS: u64 = u64::MAX;
/// How soon the warden serves the socket of a process whose main thread is busy.
const WARDEN_NS: u64 = 2_000_000;
/// Bytes of a block.
const BLOCK_BYTES: u64 = 3_000;
/// One input in so many is looked at for longer than its task.
const VIEW_ODDS: u64 = 4;

/// The task that a lease's arguments name.
pub(crate) fn named(args: &[u8]) -> Name {
    Args::decode(args).name
}

impl WorkerProcess {
    /// What the broker's host learns of its end.
    pub(crate) fn epitaph(&self) -> (u32, u64, Option<(u32, u32)>) {
        (self.worker, self.incarnation, self.executing_at_end)
    }

    pub(crate) fn take_heard(&mut self) -> bool {
        std::mem::take(&mut self.heard)
    }

    /// When news of memory reach it that leave now: in order.
    pub(crate) fn news_due_ns(&mut self, now_ns: u64, delay_ns: u64) -> u64 {
        let at_ns = now_ns + self.chance.below(delay_ns + 1);
        self.news_last_ns = self.news_last_ns.max(at_ns);
        self.news_last_ns
    }

    /// What it does now.
    pub(crate) fn occupation(&self) -> Occupation {
        let attempt = self.running.as_ref().map(|running| (running.start.task, running.start.attempt));
        Occupation {
            runs: attempt.is_some(),
            stops: attempt.is_some() && attempt == self.cancelled,
            wants: self.wants,
            has_queued: self.machine.has_work(),
        }
    }

    /// Values and blocks that it holds.
    pub(crate) fn left(&mut self) -> (usize, usize, usize) {
        let blocks = self.machine.with_blocks(|blocks| blocks.statistics());
        (self.machine.statistics().values, blocks.blocks, blocks.foreign_blocks)
    }
}

impl World<'_> {
    /// A process is started; it speaks after a while.
    pub(super) fn start_process(&mut self, worker: u32, incarnation: u64, delay_ns: u64) {
        let process = self.workers.len();
        let is_lossy =
            Chance::numbered(self.scenario.seed, "lossy", process as u64).one_in(self.scenario.net.lossy_odds);
        let conn = self.connect(Who::Worker(process), is_lossy);
        self.workers.push(WorkerProcess {
            machine: Worker::new(&encode::identity(worker, incarnation, process)),
            worker,
            incarnation,
            conn,
            alive: true,
            stopped_until_ns: 0,
            inbox: VecDeque::new(),
            heard: false,
            running: None,
            dies_of_itself: false,
            executing_at_end: None,
            cancelled: None,
            wants: false,
            refused: false,
            views: Vec::new(),
            due_ns: NEVER_NS,
            news_last_ns: 0,
            bodies: 0,
            chance: Chance::numbered(self.scenario.seed, "worker", process as u64),
        });
        self.seats[worker as usize] = Some(process);
        self.moment(Moment::Spawned, Who::Worker(process));
        self.call_worker(process, delay_ns);
    }

    /// Has the process look at its input after this time, or before.
    pub(super) fn call_worker(&mut self, process: usize, delay_ns: u64) {
        let worker = &mut self.workers[process];
        let at_ns = (self.now_ns + delay_ns).max(worker.stopped_until_ns);
        if at_ns < worker.due_ns {
            worker.due_ns = at_ns;
            self.queue.plan(at_ns, Event::Worker(process));
        }
    }

    pub(super) fn worker_hears(&mut self, process: usize, frame: Vec<u8>) {
        let worker = &mut self.workers[process];
        if !worker.alive {
            return;
        }
        worker.inbox.push_back(frame);
        let patience_ns = if worker.running.is_some() { WARDEN_NS } else { self.scenario.pace.turn_ns };
        let delay_ns = worker.chance.below(patience_ns + 1);
        self.call_worker(process, delay_ns);
    }

    pub(super) fn news_arrive(&mut self, process: usize, news: SegmentNews) {
        let worker = &mut self.workers[process];
        if !worker.alive {
            return;
        }
        match news {
            SegmentNews::Granted { segment, bytes } => {
                worker.machine.with_blocks(|blocks| blocks.own(segment, bytes));
                worker.wants = false;
            }
            SegmentNews::Refused { .. } => (worker.wants, worker.refused) = (false, true),
            SegmentNews::Shared { .. } | SegmentNews::Dropped { .. } => return,
        }
        if let Some(body) = worker.running.as_ref().map(|running| running.body) {
            self.plan_in(0, Event::BodyEnds { process, body });
        }
    }

    /// A turn of whichever thread has the socket.
    pub(super) fn worker_turn(&mut self, process: usize) {
        let worker = &mut self.workers[process];
        if worker.due_ns != self.now_ns || !worker.alive {
            return;
        }
        worker.due_ns = NEVER_NS;
        if self.now_ns < worker.stopped_until_ns {
            return self.call_worker(process, 0);
        }
        let conn = worker.conn;
        self.tick_link(conn);
        let worker = &mut self.workers[process];
        if worker.running.is_some() {
            // The warden, which sends first what has ended.
            worker.machine.flush(self.now_ns);
            self.worker_sends(process);
        }
        if self.worker_receives(process) {
            self.run_bodies(process);
        }
    }

    /// Handles what has arrived; false if that was the end.
    fn worker_receives(&mut self, process: usize) -> bool {
        let conn = self.workers[process].conn;
        while let Some(bytes) = self.workers[process].inbox.pop_front() {
            self.workers[process].heard = true;
            for frame in self.unpack(conn, bytes) {
                self.workers[process].machine.handle_frame(&frame);
                match super::host::message_type(&frame) {
                    20 => self.moment(Moment::LeaseArrived, Who::Worker(process)),
                    22 => self.moment(Moment::RecallArrived, Who::Worker(process)),
                    _ => {}
                }
                self.strike();
                if !self.workers[process].alive {
                    return false;
                }
                self.worker_sends(process);
            }
        }
        if self.conns[conn].link_ended().is_some() {
            // It cannot reach its broker any more.
            self.end_process(process);
            return false;
        }
        let worker = &mut self.workers[process];
        if worker.machine.flush_due() {
            worker.machine.flush(self.now_ns);
        }
        self.worker_sends(process);
        self.workers[process].alive
    }

    pub(super) fn worker_sends(&mut self, process: usize) {
        let conn = self.workers[process].conn;
        while let Some(frame) = self.workers[process].machine.poll_frame() {
            self.send_up(conn, frame);
        }
        self.pump_link(conn);
        self.strike();
    }

    /// The main thread: looks for garbage if it must, and begins the next body, and those that take no time at all.
    fn run_bodies(&mut self, process: usize) {
        self.collect_garbage(process);
        while self.workers[process].alive && self.workers[process].running.is_none() {
            if !self.begin_body(process) {
                return;
            }
            let worker = &self.workers[process];
            match &worker.running {
                Some(running) if running.ends_ns <= self.now_ns => self.end_body(process),
                _ => return,
            }
        }
    }

    /// Views that nobody uses go when somebody looks for them.
    fn collect_garbage(&mut self, process: usize) {
        let worker = &mut self.workers[process];
        if worker.alive && worker.running.is_none() && worker.machine.garbage_due() > 0 {
            self.drop_worker_views(process);
            self.workers[process].machine.note_collected(WANTED_BADLY);
            self.worker_sends(process);
        }
    }

    fn begin_body(&mut self, process: usize) -> bool {
        let now_ns = self.now_ns;
        let worker = &mut self.workers[process];
        let mut start = Start::default();
        while !worker.machine.start_next(&mut start, || now_ns) {
            // Leases that cannot start are given back, which may be due at once.
            worker.machine.flush(now_ns);
            self.worker_sends(process);
            let worker = &mut self.workers[process];
            if worker.alive && worker.machine.closed().is_some() {
                self.end_process(process);
            }
            let worker = &self.workers[process];
            if !worker.alive || !worker.machine.has_work() {
                return false;
            }
            return self.begin_body(process);
        }
        let args = Args::decode(start.args());
        let inputs: Vec<u64> = start.inputs.iter().map(|input| self.memory.read(input.bytes())).collect();
        worker.bodies += 1;
        let body = worker.bodies;
        let ends_ns = now_ns + args.run_ns;
        let (slot, attempt) = (start.task, start.attempt);
        for (input, &word) in start.inputs.iter().zip(&inputs) {
            if citations(input.bytes()).len() > 0 && worker.chance.one_in(VIEW_ODDS) {
                worker.machine.with_blocks(|blocks| blocks.hold_cited(input.bytes()));
                worker.views.push(View { value: input.bytes().to_vec(), word });
            }
        }
        worker.running = Some(Running { start, args, body, inputs: inputs.clone(), ends_ns });
        let name = args.name;
        self.record(Record::Began { process, name, slot, attempt });
        for (position, value) in inputs.into_iter().enumerate() {
            self.record(Record::Took { name, position, value });
        }
        self.moment(Moment::Began, Who::Worker(process));
        self.strike();
        if args.run_ns > 0 && self.workers[process].alive {
            self.plan_in(args.run_ns, Event::BodyEnds { process, body });
            let worker = &mut self.workers[process];
            let look_ns = WARDEN_NS / 2 + worker.chance.below(WARDEN_NS / 2);
            if args.run_ns > look_ns {
                self.call_worker(process, look_ns);
            }
        }
        true
    }

    pub(super) fn body_ends(&mut self, process: usize, body: u64) {
        let worker = &mut self.workers[process];
        let is_it = worker.running.as_ref().is_some_and(|running| running.body == body);
        if !worker.alive || !is_it {
            return;
        }
        if self.now_ns < worker.stopped_until_ns {
            let at_ns = worker.stopped_until_ns;
            return self.queue.plan(at_ns, Event::BodyEnds { process, body });
        }
        self.end_body(process);
        if !self.workers[process].alive {
            return;
        }
        if self.workers[process].machine.flush_due() {
            if !self.worker_receives(process) {
                return;
            }
        }
        self.run_bodies(process);
    }

    /// The body comes to its end, unless it has to wait for memory.
    fn end_body(&mut self, process: usize) {
        self.moment(Moment::Ends, Who::Worker(process));
        self.strike();
        let worker = &mut self.workers[process];
        if !worker.alive || worker.wants {
            return;
        }
        let Some(running) = worker.running.take() else { return };
        let Args { name, body, .. } = running.args;
        let attempt = (running.start.task, running.start.attempt);
        if worker.cancelled == Some(attempt) && !running.args.deaf {
            worker.machine.finish(Ending::Interrupted);
            self.record(Record::Interrupted { process, name });
        } else if body == Body::Raise {
            worker.machine.finish(Ending::Raised(b"raised"));
            self.record(Record::Threw { process, name });
        } else if body == Body::Poison {
            worker.running = Some(running);
            worker.dies_of_itself = true;
            return self.end_process(process);
        } else {
            let result = compute(name, body, &running.inputs);
            let Some(value) = self.make_value(process, &running, result) else {
                self.workers[process].running = Some(running);
                return self.worker_sends(process);
            };
            self.record(Record::Made { process, name, value: result });
            self.workers[process].machine.finish(Ending::Value(&value));
        }
        self.drop_some_views(process);
        if self.workers[process].machine.flush_due() {
            self.workers[process].machine.flush(self.now_ns);
            self.worker_sends(process);
        }
    }

    /// The encoding of a result, with a reference to what it cites; `None` if it must wait for memory.
    fn make_value(&mut self, process: usize, running: &Running, result: u64) -> Option<Vec<u8>> {
        let worker = &mut self.workers[process];
        let Args { body, size, .. } = running.args;
        if body == Body::Echo
            && let Some(first) = running.start.inputs.first()
        {
            let value = first.bytes().to_vec();
            worker.machine.with_blocks(|blocks| blocks.hold_cited(&value));
            return Some(value);
        }
        if size == Size::Block && !std::mem::take(&mut worker.refused) {
            let Some(block) = worker.machine.with_blocks(|blocks| blocks.allocate(BLOCK_BYTES)) else {
                worker.machine.want(BLOCK_BYTES, self.now_ns);
                worker.wants = true;
                return None;
            };
            let BlockId { segment, offset } = block.id;
            self.memory.write(segment, offset, result);
            let mut value = Vec::new();
            write_citations(&[Citation { segment, offset, bytes: block.bytes }], &mut value);
            return Some(value);
        }
        Some(inline(result, size == Size::Padded))
    }

    fn drop_some_views(&mut self, process: usize) {
        let worker = &mut self.workers[process];
        if !worker.views.is_empty() && worker.chance.one_in(3) {
            let view = worker.views.swap_remove(worker.chance.below(worker.views.len() as u64) as usize);
            self.drop_worker_view(process, &view);
        }
    }

    fn drop_worker_view(&mut self, process: usize, view: &View) {
        let seen = self.memory.read(&view.value);
        if seen != view.word {
            self.fail("unexpected", || format!("a view in process {process} has changed"));
        }
        self.workers[process].machine.with_blocks(|blocks| blocks.unhold_cited(&view.value));
    }

    /// Drops every view of a worker, after a look at it.
    pub(super) fn drop_worker_views(&mut self, process: usize) {
        for view in std::mem::take(&mut self.workers[process].views) {
            self.drop_worker_view(process, &view);
        }
        let worker = &mut self.workers[process];
        if worker.alive && worker.machine.flush_due() {
            worker.machine.flush(self.now_ns);
            self.worker_sends(process);
        }
    }

    /// The signal that stops an attempt, if it is the one that runs.
    pub(super) fn interrupt(&mut self, worker: u32, attempt: (u32, u32)) {
        let Some(process) = self.seats[worker as usize] else { return };
        let worker = &mut self.workers[process];
        worker.cancelled = Some(attempt);
        if let Some(running) = &worker.running
            && (running.start.task, running.start.attempt) == attempt
            && !running.args.deaf
        {
            let body = running.body;
            let delay_ns = worker.chance.below(self.scenario.pace.turn_ns + 1);
            self.plan_in(delay_ns, Event::BodyEnds { process, body });
        }
        self.moment(Moment::InterruptSent, Who::Worker(process));
    }

    /// A process ends, in the middle of what it does.
    pub(super) fn end_process(&mut self, process: usize) {
        let worker = &mut self.workers[process];
        if !worker.alive {
            return;
        }
        worker.alive = false;
        worker.inbox.clear();
        worker.views.clear();
        let executing = worker.running.take();
        worker.executing_at_end = executing.as_ref().map(|running| (running.start.task, running.start.attempt));
        let (number, conn) = (worker.worker as usize, worker.conn);
        if self.seats[number] == Some(process) {
            self.seats[number] = None;
        }
        let of_itself = worker.dies_of_itself;
        self.record(Record::Died { process, executing: executing.map(|running| running.args.name), of_itself });
        self.lose_tail(conn);
        let worker = &mut self.workers[process];
        let delay_ns = worker.chance.below(self.scenario.pace.notice_ns + 1);
        self.plan_in(delay_ns, Event::Exit(process));
    }
}
