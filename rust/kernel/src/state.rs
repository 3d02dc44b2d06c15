//! The states of a task (K1) and what the kernel knows about one task.

use crate::graph::Span;
use crate::ids::{Attempt, ClassId, NONE};

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

/// One task, in three parts of half a cache line each, by who touches it.
#[derive(Clone)]
#[repr(C, align(32))]
pub(crate) struct Task {
    // What stands before the task: touched when a predecessor is leased or completed. The counts are kept while the task
    // waits, and are made anew when it waits again.
    /// Σ worker number over the predecessors that are leased (K2).
    workers_sum: u64,
    /// Σ (worker number)² over them; with the sum it tells in O(1) whether all are with one worker.
    workers_squares: u64,
    /// Predecessors that are not done (K2).
    pub(crate) missing: u32,
    /// Those of them that are leased. While the task is leased itself: consumers that were leased in the same batch.
    pub(crate) leased: u32,
    /// The chunk with the edges; tells a consumer from a later task in its slot.
    pub(crate) chunk: u32,
    pub(crate) state: TaskState,
    flags: u8,

    // What hangs on the task: touched when a consumer ends.
    /// Consumers that have not ended: each holds the result (K5).
    pub(crate) pending: u32,
    /// Holds by keep sets, refs and futures (K5).
    pub(crate) holds: u32,
    /// Consumers that may still run, again or for the first time: each needs arguments and edges here.
    pub(crate) lineage: u32,
    /// The list in which the task stands: ready queue, followers or lease queue.
    pub(crate) list: u32,
    /// Neighbour in that list; once skipped, the generation of the root.
    pub(crate) prev: u32,
    /// Neighbour in that list; once skipped, the slot of the root.
    pub(crate) next: u32,
    /// The last number that was given out (K4). Goes on where the slot's last task left it.
    pub(crate) attempt: Attempt,
    /// How many tasks the slot held before.
    pub(crate) generation: u32,

    // What only the task's own events need.
    pub(crate) span: Span,
    pub(crate) rank: Rank,
}

/// What places a task among the ready ones.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rank {
    pub(crate) class: ClassId,
    pub(crate) priority: i32,
}

impl Task {
    /// A new task in a slot that had so many attempts and generations before.
    #[inline]
    pub(crate) fn new(chunk: u32, span: Span, rank: Rank, (attempt, generation): (Attempt, u32)) -> Self {
        Task {
            workers_sum: 0,
            workers_squares: 0,
            missing: span.preds_len,
            leased: 0,
            chunk,
            state: TaskState::Waiting,
            flags: 0,
            pending: span.succs_len,
            holds: 0,
            lineage: span.succs_len,
            list: NONE,
            prev: NONE,
            next: NONE,
            attempt,
            generation,
            span,
            rank,
        }
    }

    /// Forgets all counts, to make them anew.
    pub(crate) fn clear_counts(&mut self) {
        (self.missing, self.leased, self.workers_sum, self.workers_squares) = (0, 0, 0, 0);
    }

    /// One predecessor was leased to the worker.
    #[inline]
    pub(crate) fn count_lease(&mut self, worker: u64) {
        self.leased += 1;
        self.workers_sum += worker;
        self.workers_squares += worker * worker;
    }

    /// One predecessor is no longer leased to the worker. It wraps because a task that is on its way back from a worker has
    /// no counts yet.
    #[inline]
    pub(crate) fn uncount_lease(&mut self, worker: u64) {
        self.leased = self.leased.wrapping_sub(1);
        self.workers_sum = self.workers_sum.wrapping_sub(worker);
        self.workers_squares = self.workers_squares.wrapping_sub(worker * worker);
    }

    /// The two sums, for the checker.
    pub(crate) fn sums(&self) -> (u64, u64) {
        (self.workers_sum, self.workers_squares)
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

    #[inline]
    pub(crate) fn has(&self, flag: Flag) -> bool {
        self.flags & flag as u8 != 0
    }

    #[inline]
    pub(crate) fn set(&mut self, flag: Flag) {
        self.flags |= flag as u8;
    }

    pub(crate) fn clear(&mut self, flag: Flag) {
        self.flags &= !(flag as u8);
    }

    /// The task runs again.
    pub(crate) fn clear_end(&mut self) {
        self.flags &= Flag::Checkpoint as u8 | Flag::Watched as u8;
    }

    /// The slot is free.
    #[inline]
    pub(crate) fn vacate(&mut self) {
        self.flags = 0;
        self.chunk = NONE;
        self.generation = self.generation.wrapping_add(1);
    }

    /// Whether somebody holds the result (K5).
    #[inline]
    pub(crate) fn held(&self) -> bool {
        self.pending > 0 || self.holds > 0
    }
}

/// One bit of a task; all but the last three are clear in a task that has not ended.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Flag {
    /// The result cannot be lost any more.
    Secured = 1,
    /// The result is dead (K5).
    Dead = 2,
    /// Its predecessors were let go: it will never run again.
    Released = 4,
    /// Once secured, its result is kept in place of its ancestors (lifetime.rs has the reason).
    Checkpoint = 8,
    /// The caller wants to hear when it becomes ready.
    Watched = 16,
    /// It is leased, and has a rival.
    Rivalled = 32,
}

const _: () = assert!(size_of::<Task>() == 96);
