//! What a worker's process runs: a body begins with its inputs, takes its time, and ends in one of several ways.

use super::memory::{View, inline};
use super::worker::Fate;
use super::{Event, Who, World};
use crate::chance::Chance;
use crate::history::Record;
use crate::scenario::Moment;
use crate::workload::{Body, FOR_EVER, Name, STRAGGLES, Size, Task, compute};
use headrace_protocol::store::BlockId;
use headrace_protocol::worker::{Ending, Start};
use headrace_wire::{Citation, WANTED_BADLY, citations, write_citations};

/// A body that runs.
pub(crate) struct Running {
    start: Start,
    pub(crate) name: Name,
    errand: Errand,
    pub(crate) body: u64,
    inputs: Vec<u64>,
    /// When it comes to its end if nothing stops it.
    pub(crate) ends_ns: u64,
}

/// What there is to do, as far as it matters once the body runs.
#[derive(Clone, Copy, Debug)]
struct Errand {
    body: Body,
    size: Size,
    deaf: bool,
    raises: u8,
}

/// Bytes of a block.
const BLOCK_BYTES: u64 = 3_000;
/// One input in so many is looked at for longer than its task.
const VIEW_ODDS: u64 = 4;
/// One body in so many could not map what it reads, and asks for the segment once more.
const LACK_ODDS: u64 = 16;
/// One attempt in so many takes too long, where there is a limit.
const SLOW_ODDS: u64 = 3;
/// One attempt in so many straggles, where another worker may try the same task.
const STRAGGLER_ODDS: u64 = 3;

/// The task that a lease's arguments name.
pub(crate) fn named(args: &[u8]) -> Name {
    Name::unpack(u32::from_le_bytes(args.try_into().expect("a name is four bytes")))
}

impl Running {
    pub(crate) fn attempt(&self) -> (u32, u32) {
        (self.start.task, self.start.attempt)
    }
}

impl World<'_> {
    fn task(&self, name: Name) -> &Task {
        &self.scenario.clients[usize::from(name.client)].workload(name.run).tasks[usize::from(name.number)]
    }

    /// The main thread: looks for garbage if it must, and begins the next body, and those that take no time at all.
    pub(super) fn run_bodies(&mut self, process: usize) {
        self.collect_garbage(process);
        while self.workers[process].alive && self.workers[process].running.is_none() {
            if !self.begin_body(process) {
                return;
            }
            match &self.workers[process].running {
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
            self.moment(Moment::Collected, Who::Worker(process));
            self.worker_sends(process);
        }
    }

    fn begin_body(&mut self, process: usize) -> bool {
        let Some(start) = self.next_start(process) else { return false };
        let name = named(start.args());
        let (slot, attempt) = (start.task, start.attempt);
        let run_ns = self.run_ns(name, attempt);
        let Task { body, size, deaf, raises, .. } = *self.task(name);
        let inputs: Vec<u64> = start.inputs.iter().map(|input| self.memory.read(input.bytes())).collect();
        let worker = &mut self.workers[process];
        for (input, &word) in start.inputs.iter().zip(&inputs) {
            let number = (process as u64) << 32 | worker.bodies;
            if let Some(cited) = citations(input.bytes()).next()
                && Chance::numbered(self.scenario.seed, "lack", number).one_in(LACK_ODDS)
            {
                worker.machine.lack(cited.segment);
            }
            if citations(input.bytes()).len() > 0 && worker.chance.one_in(VIEW_ODDS) {
                worker.machine.with_blocks(|blocks| blocks.hold_cited(input.bytes()));
                worker.views.push(View { value: input.bytes().to_vec(), word });
            }
        }
        worker.bodies += 1;
        worker.has_looked = false;
        let body_number = worker.bodies;
        worker.running = Some(Running {
            start,
            name,
            errand: Errand { body, size, deaf, raises },
            body: body_number,
            inputs: inputs.clone(),
            ends_ns: self.now_ns + run_ns,
        });
        self.record(Record::Began { process, name, slot, attempt });
        for (position, value) in inputs.into_iter().enumerate() {
            self.record(Record::Took { name, position, value });
        }
        self.moment(Moment::Began, Who::Worker(process));
        self.strike();
        if run_ns > 0 && self.workers[process].alive {
            self.plan_in(run_ns, Event::BodyEnds { process, body: body_number });
            self.plan_warden(process, run_ns);
        }
        true
    }

    /// What starts next; leases that cannot start are given back, which may be due at once.
    fn next_start(&mut self, process: usize) -> Option<Start> {
        let now_ns = self.now_ns;
        loop {
            let worker = &mut self.workers[process];
            let mut start = Start::default();
            if worker.machine.start_next(&mut start, || now_ns) {
                return Some(start);
            }
            worker.machine.flush(now_ns);
            self.worker_sends(process);
            let worker = &self.workers[process];
            if worker.alive && worker.machine.closed().is_some() {
                self.leave(process);
            }
            let worker = &self.workers[process];
            if !worker.alive || !worker.machine.has_work() {
                return None;
            }
        }
    }

    /// How long an attempt runs.
    fn run_ns(&self, name: Name, attempt: u32) -> u64 {
        let Task { mut run_ns, timeout_ms, speculative, .. } = *self.task(name);
        let limit_ns = u64::from(timeout_ms) * 1_000_000;
        let number = u64::from(name.packed()) << 32 | u64::from(attempt);
        if speculative && Chance::numbered(self.scenario.seed, "straggler", number).one_in(STRAGGLER_ODDS) {
            run_ns *= STRAGGLES;
        }
        match limit_ns {
            0 => run_ns,
            _ if Chance::numbered(self.scenario.seed, "slow", number).one_in(SLOW_ODDS) => 3 * limit_ns,
            _ => run_ns.min(limit_ns / 2),
        }
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
        if !self.workers[process].alive || (self.workers[process].machine.flush_due() && !self.worker_receives(process))
        {
            return;
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
        let (name, Errand { body, deaf, raises, .. }) = (running.name, running.errand);
        let raised = self.raised.get(&name).copied().unwrap_or(0);
        if worker.cancelled == Some(running.attempt()) && !deaf {
            worker.machine.finish(Ending::Interrupted);
            self.record(Record::Interrupted { process, name });
        } else if raised < raises {
            worker.machine.finish(Ending::Raised(b"raised"));
            self.raised.insert(name, (raised + 1).min(FOR_EVER - 1));
            self.record(Record::Threw { process, name });
        } else if body == Body::Poison {
            worker.running = Some(running);
            worker.dies_of_itself = true;
            return self.end_process(process, Fate::Killed);
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
        let Errand { body, size, .. } = running.errand;
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
    pub(super) fn interrupt(&mut self, process: usize, attempt: (u32, u32)) {
        self.moment(Moment::InterruptSent, Who::Worker(process));
        let worker = &mut self.workers[process];
        let Some(running) = worker.running.as_ref().filter(|running| running.attempt() == attempt) else { return };
        worker.cancelled = Some(attempt);
        if !running.errand.deaf {
            let body = running.body;
            if worker.wants {
                // The answer comes all the same, and then the body ends.
                worker.machine.withdraw(BLOCK_BYTES);
                self.worker_sends(process);
            }
            let worker = &mut self.workers[process];
            let delay_ns = worker.chance.below(self.scenario.pace.turn_ns + 1);
            self.plan_in(delay_ns, Event::BodyEnds { process, body });
        }
    }
}
