//! A worker's process: its main thread runs bodies, its warden looks at the socket meanwhile.

use super::body::Running;
use super::memory::View;
use super::{Event, Who, World};
use crate::chance::Chance;
use crate::encode;
use crate::history::Record;
use crate::scenario::Moment;
use headrace_protocol::broker::{Exit, SegmentNews, Shortage};
use headrace_protocol::worker::Worker;
use std::collections::VecDeque;

pub(crate) struct WorkerProcess {
    pub(super) machine: Worker,
    pub(crate) worker: u32,
    incarnation: u64,
    pub(crate) conn: usize,
    pub(crate) alive: bool,
    pub(crate) stopped_until_ns: u64,
    inbox: VecDeque<Vec<u8>>,
    /// Whether it has received anything since the broker's host looked.
    heard: bool,
    pub(super) running: Option<Running>,
    /// Whether it only waits until what it has said has arrived.
    leaves: bool,
    fate: Fate,
    /// Whether its body is what kills it.
    pub(super) dies_of_itself: bool,
    /// What the status page said at its end.
    executing_at_end: Option<(u32, u32)>,
    /// The attempt that is to stop.
    pub(super) cancelled: Option<(u32, u32)>,
    /// Whether it waits for a segment, and whether it was told that there is none.
    pub(super) wants: bool,
    pub(super) refused: bool,
    pub(super) views: Vec<View>,
    due_ns: u64,
    news_last_ns: u64,
    pub(super) bodies: u64,
    /// Whether the warden has looked since the body began.
    pub(super) has_looked: bool,
    pub(super) chance: Chance,
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

/// How a process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// Somebody kills it, or its body does.
    Killed,
    /// The kernel's OOM killer does.
    Exhausted,
    /// It leaves, having said everything.
    Left,
}

impl WorkerProcess {
    /// What the broker's host learns of its end.
    pub(crate) fn epitaph(&self) -> (u32, u64, Exit, Option<(u32, u32)>) {
        let exit = match self.fate {
            Fate::Killed => Exit::Signal(9),
            Fate::Exhausted => Exit::OutOfMemory(Shortage::default()),
            Fate::Left => Exit::Code(0),
        };
        (self.worker, self.incarnation, exit, self.executing_at_end)
    }

    /// Whether it lives and speaks.
    pub(crate) fn means_well(&self) -> bool {
        self.alive && !self.leaves && self.machine.closed().is_none()
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
        let attempt = self.running.as_ref().map(Running::attempt);
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
            leaves: false,
            fate: Fate::Killed,
            dies_of_itself: false,
            executing_at_end: None,
            cancelled: None,
            wants: false,
            refused: false,
            views: Vec::new(),
            due_ns: NEVER_NS,
            news_last_ns: 0,
            bodies: 0,
            has_looked: false,
            chance: Chance::numbered(self.scenario.seed, "worker", process as u64),
        });
        self.seats[worker as usize].push_back(process);
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
        if self.workers[process].running.is_some() {
            self.warden_looks(process);
        }
        if self.worker_receives(process) {
            self.run_bodies(process);
        }
        if let Some(running) = &self.workers[process].running {
            let left_ns = running.ends_ns.saturating_sub(self.now_ns);
            self.plan_warden(process, left_ns);
        }
    }

    /// The warden sends what has ended, and stops what has run for too long.
    fn warden_looks(&mut self, process: usize) {
        let now_ns = self.now_ns;
        let worker = &mut self.workers[process];
        let executing = worker.running.as_ref().map(Running::attempt);
        let overdue = worker.machine.handle_timeout(executing, now_ns);
        worker.machine.flush(now_ns);
        self.worker_sends(process);
        if let Some(attempt) = overdue.filter(|_| self.workers[process].alive) {
            self.interrupt(process, attempt);
        }
    }

    /// Has the warden look once a body of this length has run for a moment, and when its time is over.
    pub(super) fn plan_warden(&mut self, process: usize, run_ns: u64) {
        let worker = &mut self.workers[process];
        let look_ns = WARDEN_NS / 2 + worker.chance.below(WARDEN_NS / 2);
        let due_ns = worker.machine.next_timeout_ns().map(|due_ns| due_ns.saturating_sub(self.now_ns).max(1));
        if run_ns > look_ns && worker.due_ns == NEVER_NS && !worker.has_looked {
            worker.has_looked = true;
            self.call_worker(process, look_ns);
        }
        if let Some(due_ns) = due_ns {
            self.call_worker(process, due_ns);
        }
    }

    /// Handles what has arrived; false if that was the end.
    pub(super) fn worker_receives(&mut self, process: usize) -> bool {
        let conn = self.workers[process].conn;
        while let Some(bytes) = self.workers[process].inbox.pop_front() {
            self.workers[process].heard = true;
            for frame in self.unpack(conn, bytes) {
                if self.workers[process].leaves {
                    continue;
                }
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
            // It cannot reach its broker any more, or has nothing to say to it.
            let fate = if self.workers[process].leaves { Fate::Left } else { Fate::Killed };
            self.end_process(process, fate);
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

    /// A process ends once everything that it has said has arrived.
    pub(super) fn leave(&mut self, process: usize) {
        let conn = self.workers[process].conn;
        if self.close_link(conn) {
            self.workers[process].leaves = true;
        } else {
            self.end_process(process, Fate::Left);
        }
    }

    /// A process ends, in the middle of what it does.
    pub(super) fn end_process(&mut self, process: usize, fate: Fate) {
        let worker = &mut self.workers[process];
        if !worker.alive {
            return;
        }
        (worker.alive, worker.fate) = (false, fate);
        worker.inbox.clear();
        worker.views.clear();
        let executing = worker.running.take();
        worker.executing_at_end = executing.as_ref().map(Running::attempt);
        let (conn, of_itself) = (worker.conn, worker.dies_of_itself);
        self.record(Record::Died { process, executing: executing.map(|running| running.name), of_itself });
        if fate == Fate::Left && !self.host.is_ending {
            self.moment(Moment::Left, Who::Worker(process));
        }
        let last_ns = self.lose_tail(conn, fate != Fate::Left);
        let worker = &mut self.workers[process];
        let notice_ns = self.now_ns + worker.chance.below(self.scenario.pace.notice_ns + 1);
        let at_ns = if fate == Fate::Left { notice_ns.max(last_ns.unwrap_or(0)) } else { notice_ns };
        self.queue.plan(at_ns, Event::Exit(process));
    }
}
