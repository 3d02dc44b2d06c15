//! Second attempts of tasks that take long, where their options allow it (`speculative`): the backup tasks of MapReduce
//! (Dean and Ghemawat, OSDI 2004, 3.6), which Spark calls speculation.
//!
//! A worker that is idle, and finds nothing that it may take, is leased the task which another worker has been executing for
//! longer than [`ESTIMATES`] times what its function takes, and than [`Config::straggler_ns`](super::Config::straggler_ns).
//! The first of the two that ends well is the task's end; the other is stopped as a cancelled attempt is. Where one fails,
//! runs out of time or dies, the other goes on, alone, and nothing is counted.
//!
//! The kernel knows of one lease. The rival has a number of its own (K4), and is remembered here until the lease is over;
//! where the attempt that has the lease ends badly, the rival takes it over. A rival that ends well does so in its name.
//!
//! **What stands behind the task** on the worker that took it first is asked back when the rival starts, so that nobody goes
//! on with a value which is not the task's in the end. A worker that has not answered by then is stopped, or worse: it is
//! killed once the rival has won, and heard no more. Neither worker is given anything to queue behind.
//!
//! **Of nested work there is one.** A task that has submitted tasks, or waits, is not tried a second time; of two attempts,
//! the first that does either goes on alone.

use super::output::Author;
use super::payload::Part;
use super::workers::Worker;
use super::{Broker, worker_id};
use headrace_kernel::{Leased, TaskIndex, seeded};
use headrace_wire::Verdict;
use std::collections::BTreeMap;

/// How many times what its function takes a task may run before somebody else tries it. The estimate follows the latest calls,
/// so it may be half of what is usual, and most tasks of a function that varies by as much should be left alone.
const ESTIMATES: u64 = 3;
/// Looks at all workers, one after the other, for each [`Config::straggler_ns`](super::Config::straggler_ns): often enough for
/// that time, and few for brokers with very many workers and turns.
const LOOKS: u64 = 64;
/// What [`Config::straggler_ns`](super::Config::straggler_ns) should be: more than the first call of a function takes to import
/// what it needs, mostly, and a tenth of the time after which a silent worker is lost.
pub const STRAGGLER_NS: u64 = 500_000_000;

/// The rivals of leases, by task.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    by_task: BTreeMap<u32, Rival>,
    /// Attempts that are to be stopped in this turn, with their workers.
    losers: Vec<(u32, Author)>,
    /// When the next task will have run for too long, by the last look.
    next_ns: Option<u64>,
    /// When the next look may be, whatever changes meanwhile.
    look_ns: u64,
    /// When one is to be, if somebody is idle.
    due_ns: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Rival {
    worker: u32,
    attempt: u32,
    frame: u32,
    /// The worker with the lease.
    elder: u32,
    /// Whether it goes on beside the lease. Once it does not there is no other one before the next lease: of two attempts
    /// that end badly, the second counts.
    lives: bool,
}

impl Rivals {
    #[inline]
    pub(super) fn are_any(&self) -> bool {
        !self.by_task.is_empty()
    }

    pub(super) fn due_ns(&self) -> Option<u64> {
        self.due_ns
    }

    /// Whether this attempt is a rival.
    pub(super) fn is_one(&self, worker: u32, task: u32, attempt: u32) -> bool {
        self.live(task).is_some_and(|rival| (rival.worker, rival.attempt) == (worker, attempt))
    }

    /// The worker that tries the task a second time.
    pub(super) fn second_worker(&self, task: u32) -> Option<u32> {
        self.live(task).map(|rival| rival.worker)
    }

    /// The task that the worker tries a second time.
    pub(super) fn task_of(&self, worker: u32) -> Option<u32> {
        self.by_task.iter().find(|(_, rival)| rival.lives && rival.worker == worker).map(|(task, _)| *task)
    }

    /// All of them that have not ended: task and worker.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.by_task.iter().filter(|(_, rival)| rival.lives).map(|(task, rival)| (*task, rival.worker))
    }

    fn live(&self, task: u32) -> Option<Rival> {
        self.by_task.get(&task).copied().filter(|rival| rival.lives)
    }
}

/// How they begin.
impl Broker {
    /// Has idle workers try what others have been executing for too long.
    pub(super) fn try_stragglers(&mut self, now_ns: u64) {
        self.rivals.due_ns = None;
        if !self.policies.any_speculative() || self.is_overfull() {
            return;
        }
        let idle = self.workers.idle();
        if idle.is_empty() {
            return;
        }
        let Rivals { next_ns, look_ns, .. } = self.rivals;
        if now_ns < look_ns.min(next_ns.unwrap_or(u64::MAX)) {
            self.rivals.due_ns = Some(look_ns.min(next_ns.unwrap_or(u64::MAX)));
            return;
        }
        let next_ns = self.look_for_stragglers(idle, now_ns);
        (self.rivals.next_ns, self.rivals.due_ns) = (next_ns, next_ns);
        self.rivals.look_ns = now_ns + self.config.straggler_ns / LOOKS;
    }

    /// A look at every worker. When the next task will have run for too long, if nothing changes.
    fn look_for_stragglers(&mut self, mut idle: Vec<u32>, now_ns: u64) -> Option<u64> {
        let mut next_ns: Option<u64> = None;
        for number in 0..self.workers.len() {
            let Some((task, due_ns)) = self.straggler(&self.workers[number]) else { continue };
            if due_ns > now_ns {
                next_ns = Some(next_ns.map_or(due_ns, |known_ns| known_ns.min(due_ns)));
            } else if let Some(place) = idle.iter().position(|taker| self.may_try(*taker, task)) {
                self.start_rival(idle.remove(place), task, now_ns);
            }
        }
        next_ns
    }

    /// The task that the worker executes, if it may be tried by another one, and from when on.
    fn straggler(&self, worker: &Worker) -> Option<(TaskIndex, u64)> {
        let is_free = worker.peer().is_some()
            && worker.frames_open() > 0
            && !worker.waits()
            && worker.overdue.is_none()
            && worker.interrupted.is_empty()
            && !self.waits_for_room(worker.number);
        let (task, _) = self.kernel.leases_of(worker_id(worker.number)).next().filter(|_| is_free)?;
        let slot = self.ledger.slot(task.0);
        let is_speculative = self.policies.get(slot.policy).speculative || seeded!("any task is tried twice");
        let has_rival = self.rivals.by_task.contains_key(&task.0) && !seeded!("third attempt");
        let may_have_rival =
            is_speculative && !has_rival && self.nests.number_of(task.0) == 0 && self.kernel.missing(task) == 0;
        let usual_ns = self.functions.estimate_ns(slot.function).unwrap_or(0);
        let patience_ns = self.config.straggler_ns.max(usual_ns.saturating_mul(ESTIMATES));
        may_have_rival.then(|| (task, worker.progress_ns.saturating_add(patience_ns)))
    }

    /// Whether the worker could try the task now. Inputs that it cannot have yet are asked for.
    fn may_try(&mut self, taker: u32, task: TaskIndex) -> bool {
        let class = self.policies.get(self.ledger.slot(task.0).policy).class;
        // An earlier attempt may be stopping still.
        let stops = |worker: &Worker| worker.interrupted.iter().any(|asked| asked.task == task.0);
        if !self.limits.may_take(taker, class)
            || self.limits.is_wanted(&self.kernel, class)
            || self.workers.maybe_timed().any(stops)
            || self.lacks_inputs(taker, task)
        {
            return false;
        }
        let inputs = self.kernel.predecessors(task).iter().map(|input| input.0);
        let missing: Vec<u32> = inputs.filter(|input| self.ledger.is_out_of_reach(*input, taker)).collect();
        self.fetch(&missing);
        missing.is_empty()
    }

    fn start_rival(&mut self, number: u32, task: TaskIndex, now_ns: u64) {
        let elder = self.kernel.worker_of(task).expect("it is leased").0;
        let attempt = self.kernel.add_rival(task).expect("it runs");
        let of_lease = *self.ledger.slot(task.0);
        self.leased.clear();
        // Whoever needs the value may be anywhere then.
        self.leased.push(Leased { task, attempt, report: true, hold: false });
        self.send_leases(number, now_ns);
        // What the ledger says of a lease is for that of the other attempt.
        let frame = self.ledger.slot(task.0).frame;
        self.uncount_lease(task.0);
        *self.ledger.slot_mut(task.0) = of_lease;
        if !seeded!("second attempt takes nothing") {
            self.limits.note_lease(number, self.policies.get(of_lease.policy).class);
        }
        self.rivals.by_task.insert(task.0, Rival { worker: number, attempt: attempt.0, frame, elder, lives: true });
        self.set_racing([number, elder], true);
        self.statistics.second_attempts += 1;
        let behind = self.kernel.leases_of(worker_id(elder)).skip(1).map(|(task, attempt)| (task.0, attempt.0));
        let behind: Vec<(u32, u32)> = behind.filter(|(task, _)| !self.ledger.slot(*task).recalled).collect();
        if !behind.is_empty() {
            self.send_recall(elder, &behind);
        }
    }
}

/// How they end.
impl Broker {
    /// A rival has ended, and says how.
    pub(super) fn end_rival(&mut self, task: u32, verdict: Verdict, value: Part<'_>, now_ns: u64) {
        let rival = self.rivals.live(task).expect("it was seen to be one");
        let is_value = verdict == Verdict::Done && self.refuse_inline(value.bytes(), now_ns).is_none();
        if !is_value {
            self.workers[rival.worker as usize].tasks_left += u64::from(verdict == Verdict::Returned);
            return self.leave_race(task);
        }
        let index = TaskIndex(task);
        let (elder, attempt) = (rival.elder, self.kernel.attempt(index));
        let loser = self.author_of(task, attempt.0);
        let has_heirs = self.has_heirs(index);
        self.leave_race(task);
        self.rivals.by_task.remove(&task);
        let slot = self.ledger.slot_mut(task);
        (slot.reported, slot.held_by_worker) = (true, false);
        self.kernel
            .complete(worker_id(elder), index, attempt, self.is_safe(value.bytes()))
            .expect("the lease is the kernel's, and nothing is missing");
        self.unlease(elder, task);
        self.apply_done(rival.worker, task, verdict, value, now_ns);
        match self.workers[elder as usize].peer().filter(|_| has_heirs) {
            Some(peer) => self.refuse(peer, "a task was done elsewhere, and what needs it did not come back", now_ns),
            None => self.rivals.losers.push((elder, loser)),
        }
    }

    /// The attempt that has the lease ends in this way. Whether that is no end of the task, because its rival goes on.
    pub(super) fn gives_way(&mut self, number: u32, task: u32, attempt: u32, verdict: Verdict) -> bool {
        let ends_badly = match verdict {
            Verdict::Failed | Verdict::FailedForGood | Verdict::TimedOut => !seeded!("one of two failures counted"),
            Verdict::Returned | Verdict::Cancelled => true,
            Verdict::Done | Verdict::DoneHeld | Verdict::Became | Verdict::Value | Verdict::Lost => false,
        };
        if !ends_badly || self.rivals.live(task).is_none() || !self.is_leased(number, task, attempt) {
            return false;
        }
        self.workers[number as usize].tasks_left += u64::from(verdict == Verdict::Returned);
        self.take_over(task);
        true
    }

    /// A lease is over, and with it the race.
    pub(super) fn end_race(&mut self, task: u32) {
        self.stop_rival(task);
        self.rivals.by_task.remove(&task);
    }

    /// A process is gone. Of the tasks that it shared with another one nothing is lost.
    pub(super) fn leave_races(&mut self, number: u32) {
        self.rivals.losers.retain(|(worker, _)| *worker != number);
        if !self.rivals.are_any() {
            return;
        }
        let races: Vec<(u32, Rival)> = self.rivals.by_task.iter().map(|(task, rival)| (*task, *rival)).collect();
        for (task, rival) in races {
            if rival.lives && rival.worker == number {
                self.leave_race(task);
            } else if rival.lives && rival.elder == number {
                self.take_over(task);
            } else if rival.elder == number {
                self.rivals.by_task.remove(&task);
            }
        }
    }

    /// An attempt submits tasks, or waits for some. If it is one of two it goes on alone.
    pub(super) fn win_race(&mut self, number: u32, task: u32, attempt: u32) {
        let index = TaskIndex(task);
        let Some(rival) = self.rivals.live(task).filter(|_| self.may_run(number, task, attempt)) else { return };
        if rival.worker != number || self.has_heirs(index) {
            return self.stop_rival(task);
        }
        let loser = self.author_of(task, self.kernel.attempt(index).0);
        self.take_over(task);
        self.rivals.losers.push((rival.elder, loser));
    }

    /// Stops the attempts that lost in this turn.
    pub(super) fn stop_losers(&mut self, now_ns: u64) {
        for (worker, author) in std::mem::take(&mut self.rivals.losers) {
            self.stop_author(worker, author, now_ns);
        }
    }

    /// The rival gets the lease; the attempt that had it is over, or will be stopped.
    fn take_over(&mut self, task: u32) {
        let rival = self.rivals.live(task).expect("there is one");
        let alone = Rival { elder: rival.worker, lives: false, ..rival };
        self.rivals.by_task.insert(task, alone);
        let taken_over = self.kernel.take_over(TaskIndex(task), worker_id(rival.worker));
        debug_assert!(taken_over);
        self.leave_frame(rival.elder, task, self.ledger.slot(task).frame);
        self.set_racing([rival.worker, rival.elder], false);
        let slot = self.ledger.slot_mut(task);
        (slot.frame, slot.reported, slot.held_by_worker) = (rival.frame, true, false);
        (slot.recalled, slot.wanted) = (false, false);
        self.waits.forget(task);
        self.settle_returned();
    }

    /// A rival is not wanted any more.
    fn stop_rival(&mut self, task: u32) {
        if let Some(rival) = self.rivals.live(task) {
            let loser = self.author_of(task, rival.attempt);
            self.leave_race(task);
            self.rivals.losers.push((rival.worker, loser));
        }
    }

    /// A rival is over.
    fn leave_race(&mut self, task: u32) {
        let rival = self.rivals.by_task.get_mut(&task).expect("there is one");
        rival.lives = false;
        let Rival { worker, frame, elder, .. } = *rival;
        self.leave_frame(worker, task, frame);
        self.set_racing([worker, elder], false);
    }

    fn set_racing(&mut self, workers: [u32; 2], is_racing: bool) {
        workers.into_iter().for_each(|worker| self.workers[worker as usize].is_racing = is_racing);
    }

    /// Whether leases stand behind the task that need it.
    fn has_heirs(&self, task: TaskIndex) -> bool {
        let worker = self.kernel.worker_of(task);
        self.kernel.successors(task).any(|heir| self.kernel.worker_of(heir) == worker)
    }
}
