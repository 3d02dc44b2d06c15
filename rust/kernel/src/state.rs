//! The states of a task (K1) and what the kernel knows of one task.

use crate::ids::{Attempt, NONE, TaskIndex};
use crate::lifetime::{DEPTH_MAX, Lifetime};

/// Where a task stands (K1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum TaskState {
    /// The slot holds no task.
    Free = 0,
    /// Some predecessor is not done.
    Waiting = 1,
    /// All predecessors are done; the task stands in the ready queue of its class.
    Ready = 2,
    /// A worker has it in its queue, or runs it.
    Leased = 3,
    /// It returned.
    Done = 4,
    /// It raised, or was refused.
    Failed = 5,
    /// It will not run because an ancestor failed.
    Skipped = 6,
    /// It was cancelled, or an ancestor was.
    Cancelled = 7,
}

use TaskState::{Cancelled, Done, Failed, Free, Leased, Ready, Skipped, Waiting};

/// Every edge between states that may happen (K1), with its cause. The kernel asserts it in debug builds.
pub const TRANSITIONS: [(TaskState, TaskState, &str); 22] = [
    (Free, Waiting, "submitted"),
    (Waiting, Ready, "last predecessor done, or none"),
    (Waiting, Leased, "leased behind its predecessors (K2)"),
    (Ready, Leased, "leased"),
    (Ready, Waiting, "the result of a predecessor was lost"),
    (Leased, Ready, "recalled, returned, worker lost, retried"),
    (Leased, Waiting, "the same, behind predecessors that are not done"),
    (Leased, Done, "completed"),
    (Leased, Failed, "failed"),
    (Waiting, Failed, "refused before a lease"),
    (Ready, Failed, "refused before a lease"),
    (Waiting, Skipped, "an ancestor failed"),
    (Ready, Skipped, "an ancestor failed"),
    (Leased, Skipped, "an ancestor failed"),
    (Waiting, Cancelled, "cancelled"),
    (Ready, Cancelled, "cancelled"),
    (Leased, Cancelled, "cancelled"),
    (Done, Waiting, "its result was lost and is needed"),
    (Done, Free, "nobody can need it again"),
    (Failed, Free, "nobody can need it again"),
    (Skipped, Free, "nobody can need it again"),
    (Cancelled, Free, "nobody can need it again"),
];

impl TaskState {
    /// All states in the order of their numbers.
    pub const ALL: [TaskState; 8] = [Free, Waiting, Ready, Leased, Done, Failed, Skipped, Cancelled];

    /// Whether the task has ended; only a lost result takes it back.
    #[inline]
    pub const fn is_terminal(self) -> bool {
        self as u8 >= Done as u8
    }

    /// Whether the task still has to run.
    #[inline]
    pub const fn is_pending(self) -> bool {
        matches!(self, Waiting | Ready | Leased)
    }

    /// Whether [`TRANSITIONS`] has the edge.
    pub fn may_become(self, next: TaskState) -> bool {
        TRANSITIONS.iter().any(|&(from, to, _)| from == self && to == next)
    }
}

/// One task: exactly one cache line, because nearly every step of the kernel touches a neighbour somewhere else.
#[derive(Clone)]
#[repr(align(64))]
pub(crate) struct Task {
    /// Σ worker number over the predecessors that are leased (K2).
    pub(crate) workers_sum: u64,
    /// Σ (worker number)² over them; with the sum it tells in O(1) whether all are with one worker.
    pub(crate) workers_squares: u64,
    /// Predecessors that are not done (K2).
    pub(crate) missing: u32,
    /// Those of them that are leased.
    pub(crate) leased: u32,
    /// Consumers that have not ended: each holds the result (K5).
    pub(crate) pending: u32,
    /// Holds by keep sets, refs and futures (K5).
    pub(crate) holds: u32,
    /// Consumers that may still run, again or for the first time: each needs arguments and edges here.
    pub(crate) lineage: u32,
    /// The chunk with the edges; tells a consumer from a later task in its slot.
    pub(crate) chunk: u32,
    /// The list in which it stands: ready queue, followers or lease queue.
    pub(crate) list: u32,
    /// Neighbour in that list; once skipped, the generation of the root.
    pub(crate) prev: u32,
    /// Neighbour in that list; once skipped, the slot of the root.
    pub(crate) next: u32,
    pub(crate) attempt: Attempt,
    pub(crate) generation: u32,
    pub(crate) state: TaskState,
    pub(crate) flags: u8,
    /// Once done: length of the longest row of ancestors that would run again with it, saturating.
    pub(crate) depth: u16,
}

impl Task {
    /// A slot before its first task.
    pub(crate) const FREE: Task = Task {
        workers_sum: 0,
        workers_squares: 0,
        missing: 0,
        leased: 0,
        pending: 0,
        holds: 0,
        lineage: 0,
        chunk: NONE,
        list: NONE,
        prev: NONE,
        next: NONE,
        attempt: Attempt(0),
        generation: 0,
        state: Free,
        flags: 0,
        depth: 0,
    };

    #[inline]
    pub(crate) fn has(&self, flag: Flag) -> bool {
        self.flags & flag as u8 != 0
    }

    #[inline]
    pub(crate) fn set(&mut self, flag: Flag) {
        self.flags |= flag as u8;
    }

    #[inline]
    pub(crate) fn clear_flags(&mut self) {
        self.flags = 0;
    }

    /// Whether a task that has ended cannot run again, so that nobody needs its inputs for it (lifetime.rs has the rule).
    pub(crate) fn needs_no_inputs(&self) -> bool {
        if self.state != Done {
            return true;
        }
        let (dead, secured) = (self.has(Flag::Dead), self.has(Flag::Secured));
        let checkpoint = secured && !dead && self.depth >= DEPTH_MAX;
        (dead || secured) && (self.lineage == 0 || checkpoint)
    }

    /// Whether nobody can ask for a task that has ended.
    pub(crate) fn is_needless(&self) -> bool {
        let unheld = self.holds == 0 && self.pending == 0 && self.lineage == 0;
        unheld && self.has(Flag::Released) && self.has(Flag::Told)
    }

    /// The last of the holders and pending consumers is gone.
    pub(crate) fn lost_holder(&mut self, task: TaskIndex, life: &mut Lifetime) {
        if self.state == Done && !self.has(Flag::Dead) {
            // A checkpoint lives on while a consumer may run again.
            if !self.has(Flag::Released) || self.lineage == 0 {
                self.set(Flag::Dead);
                life.bury(task, self.attempt);
            }
        } else if self.state.is_terminal() {
            life.loose.push(task);
        }
    }

    /// One predecessor was leased to the worker.
    #[inline]
    pub(crate) fn count_lease(&mut self, worker: u64) {
        self.leased += 1;
        self.workers_sum += worker;
        self.workers_squares += worker * worker;
    }

    /// One predecessor is no longer leased to the worker.
    #[inline]
    pub(crate) fn uncount_lease(&mut self, worker: u64) {
        self.leased -= 1;
        self.workers_sum -= worker;
        self.workers_squares -= worker * worker;
    }

    /// Whether every missing predecessor is leased to this worker. With n leased ones the sum of squares is least, n·w²,
    /// only where all numbers are equal (Cauchy-Schwarz), so two equations decide it.
    #[inline]
    pub(crate) fn follows(&self, worker: u64) -> bool {
        let leased = u64::from(self.leased);
        self.missing == self.leased
            && self.workers_sum == leased * worker
            && self.workers_squares == leased * worker * worker
    }

    /// The one worker to which every missing predecessor is leased.
    #[inline]
    pub(crate) fn leader(&self) -> Option<u64> {
        if self.missing != self.leased || self.leased == 0 {
            return None;
        }
        let worker = self.workers_sum / u64::from(self.leased);
        self.follows(worker).then_some(worker)
    }
}

/// One bit of a task; all are clear in a task that has not ended.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Flag {
    /// The result cannot be lost any more.
    Secured = 1,
    /// The result is dead (K5).
    Dead = 2,
    /// The caller has drained the death, or the end of a task without a result.
    Told = 4,
    /// Its predecessors were let go: it will never run again.
    Released = 8,
}

const _: () = assert!(size_of::<Task>() == 64);
