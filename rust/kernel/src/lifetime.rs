//! How long things live (K5). Three lives end one after the other: the result's, when nobody will read it; that of the
//! arguments and edges, when nobody can make the task run again; the slot's, when nobody can ask for the task.
//!
//! A result that the caller has (*secured*) cannot be lost, so its ancestors are not needed for it. They are kept all the
//! same while a consumer may still run: the result dies before that consumer's own is secured, and then only running the
//! task again could bring it back. In an endless row of secured tasks that would keep everything, so from a depth of
//! [`DEPTH_MAX`] on a secured result becomes a *checkpoint*: its ancestors go at once, and in turn it lives until no consumer
//! may run again.
//!
//! Letting ancestors go is postponed to [`Kernel::drain_freed`], so that the completion that ends a run of a million tasks
//! does not have to wait for the funeral.

use crate::ids::{Attempt, TaskIndex};
use crate::kernel::Kernel;
use crate::lists::End;
use crate::slots::FreeSlots;
use crate::state::{Flag, TaskState};

/// Who died and has not been told to the caller, and who may be freed.
#[derive(Default)]
pub(crate) struct Lifetime {
    /// Results that died and the attempts that made them.
    dead: Vec<(TaskIndex, Attempt)>,
    /// Tasks to look at again: their arguments or slots may be needless. May name a task twice, or one that lives on.
    pub(crate) loose: Vec<TaskIndex>,
    /// Freed slots that the caller does not know of yet.
    freed: Vec<TaskIndex>,
    pub(crate) free: FreeSlots,
}

impl Lifetime {
    /// A result died.
    pub(crate) fn bury(&mut self, task: TaskIndex, attempt: Attempt) {
        self.dead.push((task, attempt));
    }
}

impl Kernel {
    /// Adds one hold on a result: a keep set, a ref, a future. It does not bring a dead result back.
    pub fn hold(&mut self, task: TaskIndex) {
        if self.state(task) != TaskState::Free {
            self.board.tasks[task.at()].holds += 1;
        }
    }

    /// Takes one hold away. Nothing happens if there is none.
    pub fn unhold(&mut self, task: TaskIndex) {
        if self.state(task) == TaskState::Free {
            return;
        }
        let entry = &mut self.board.tasks[task.at()];
        if entry.holds > 0 {
            entry.holds -= 1;
            if entry.holds == 0 {
                self.holder_left(task);
            }
        }
    }

    /// Whether the result of a task can be read, now or once the task is done.
    pub fn result_alive(&self, task: TaskIndex) -> bool {
        match self.state(task) {
            TaskState::Done => !self.board.tasks[task.at()].has(Flag::Dead),
            state => state.is_pending(),
        }
    }

    /// The result of a task has reached the caller and cannot be lost any more.
    pub fn secure(&mut self, task: TaskIndex) {
        if self.state(task) == TaskState::Done {
            self.board.tasks[task.at()].set(Flag::Secured);
            self.life.loose.push(task);
        }
    }

    /// The result of a task is lost. If it is alive, the task waits or is ready again, and with it every ancestor whose
    /// result it needs and that is dead; leases that need it come back (`drain_returned`). Nothing happens for a result that
    /// is dead or secured.
    ///
    /// Drain the dead first: a result whose death is not drained counts as gone.
    ///
    /// # Cost
    /// O(tasks that run again + their edges).
    pub fn lose_result(&mut self, task: TaskIndex) {
        if self.state(task) != TaskState::Done {
            return;
        }
        let entry = &self.board.tasks[task.at()];
        if entry.has(Flag::Dead) || entry.has(Flag::Secured) {
            return;
        }
        let first_returned = self.returned.len();
        let mut revived = Vec::new();
        let mut lost = vec![task];
        while let Some(task) = lost.pop() {
            if self.board.tasks[task.at()].state == TaskState::Done {
                self.revive(task, &mut lost);
                revived.push(task);
            }
        }
        self.place_returned(first_returned);
        for &task in revived.iter().rev() {
            if let Some(how) = self.doom(task) {
                self.end(task, how);
                self.end_descendants();
            } else if self.board.tasks[task.at()].state == TaskState::Waiting {
                self.board.place(task, End::Front);
            }
        }
    }

    /// Lists every result that died, once (K5). A task that runs again can die again.
    pub fn drain_dead(&mut self, mut f: impl FnMut(TaskIndex)) {
        for (task, attempt) in self.life.dead.drain(..) {
            let entry = &mut self.board.tasks[task.at()];
            if entry.attempt != attempt {
                continue;
            }
            if entry.state == TaskState::Done {
                entry.set(Flag::Told);
                self.life.loose.push(task);
            }
            f(task);
        }
    }

    /// Lists every slot that is free from now on. It may be taken by the next submit.
    ///
    /// Frees at most some ten thousand tasks a call, which keeps a turn short, and returns whether there are more.
    pub fn drain_freed(&mut self, mut f: impl FnMut(TaskIndex)) -> bool {
        for _ in 0..SETTLED_MAX {
            let Some(task) = self.life.loose.pop() else { break };
            self.settle(task);
        }
        for task in self.life.freed.drain(..) {
            if self.board.tasks[task.at()].attempt < ATTEMPT_LAST {
                self.life.free.insert(task.0);
            }
            f(task);
        }
        !self.life.loose.is_empty()
    }

    /// A task that just became done has a result: lets go of its inputs, and finds out whether anybody wants it.
    pub(crate) fn result_made(&mut self, task: TaskIndex, secured: bool) {
        let mut depth = 0;
        self.operations += self.graph.predecessors(task).len() as u64;
        for &producer in self.graph.predecessors(task) {
            let entry = &mut self.board.tasks[producer.at()];
            if !entry.has(Flag::Released) {
                depth = depth.max(entry.depth.saturating_add(1));
            }
        }
        self.let_go_of_inputs(task);
        let entry = &mut self.board.tasks[task.at()];
        entry.depth = depth;
        if secured {
            entry.set(Flag::Secured);
        }
        if entry.holds == 0 && entry.pending == 0 {
            self.holder_left(task);
        } else if entry.needs_no_inputs() {
            self.life.loose.push(task);
        }
    }

    /// A task ended: it does not hold its inputs any more.
    pub(crate) fn let_go_of_inputs(&mut self, task: TaskIndex) {
        let Kernel { graph, board, life, .. } = self;
        for &producer in graph.predecessors(task) {
            let entry = &mut board.tasks[producer.at()];
            entry.pending -= 1;
            if entry.pending == 0 && entry.holds == 0 {
                entry.lost_holder(producer, life);
            }
        }
    }

    fn holder_left(&mut self, task: TaskIndex) {
        self.board.tasks[task.at()].lost_holder(task, &mut self.life);
    }

    /// Takes a done task back to waiting. Its own inputs that are dead go to `lost`; they count as missing when their turn
    /// comes.
    fn revive(&mut self, task: TaskIndex, lost: &mut Vec<TaskIndex>) {
        self.board.set_state(task, TaskState::Waiting);
        self.board.tasks[task.at()].clear_flags();
        let Kernel { graph, board, operations, .. } = self;
        let (mut missing, mut leased, mut sum, mut squares) = (0, 0, 0, 0);
        for &producer in graph.predecessors(task) {
            *operations += 1;
            if let Some(worker) = board.worker_of(producer) {
                let worker = u64::from(worker.0);
                leased += 1;
                sum += worker;
                squares += worker * worker;
            }
            let entry = &mut board.tasks[producer.at()];
            entry.pending += 1;
            if entry.state != TaskState::Done {
                missing += 1;
            } else if entry.has(Flag::Dead) {
                lost.push(producer);
            }
        }
        let entry = &mut board.tasks[task.at()];
        (entry.missing, entry.leased, entry.workers_sum, entry.workers_squares) = (missing, leased, sum, squares);
        let mut behind = Vec::new();
        graph.each_consumer_back(board, task, |board, consumer| {
            *operations += 1;
            let entry = &mut board.tasks[consumer.at()];
            match entry.state {
                TaskState::Waiting | TaskState::Ready => {
                    entry.missing += 1;
                    board.leave(consumer);
                    if board.tasks[consumer.at()].state == TaskState::Ready {
                        board.set_state(consumer, TaskState::Waiting);
                    }
                }
                TaskState::Leased => {
                    entry.missing += 1;
                    behind.push(consumer);
                }
                _ => {}
            }
        });
        for &consumer in behind.iter().rev() {
            if let Some(worker) = self.board.worker_of(consumer) {
                self.take_back(worker, consumer);
            }
        }
    }

    /// Lets go of what a task that has ended does not need any more: its producers' arguments, then its slot.
    fn settle(&mut self, task: TaskIndex) {
        self.operations += 1;
        let entry = &mut self.board.tasks[task.at()];
        if !entry.state.is_terminal() {
            return;
        }
        if !entry.has(Flag::Released) && entry.needs_no_inputs() {
            entry.set(Flag::Released);
            let Kernel { graph, board, life, operations, .. } = self;
            for &producer in graph.predecessors(task) {
                *operations += 1;
                let entry = &mut board.tasks[producer.at()];
                entry.lineage -= 1;
                if entry.lineage == 0 {
                    if entry.has(Flag::Released) && entry.pending == 0 && entry.holds == 0 {
                        entry.lost_holder(producer, life);
                    }
                    life.loose.push(producer);
                }
            }
            graph.release(task);
        }
        let entry = &mut self.board.tasks[task.at()];
        if entry.is_needless() {
            entry.chunk = crate::ids::NONE;
            entry.generation = entry.generation.wrapping_add(1);
            entry.clear_flags();
            self.graph.free(task);
            self.board.set_state(task, TaskState::Free);
            self.life.freed.push(task);
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let board = &self.board;
        self.graph.bytes()
            + board.tasks.capacity() * size_of::<crate::state::Task>()
            + board.ranks.capacity() * size_of::<crate::ready::Rank>()
            + board.lists.bytes()
            + board.ready.bytes()
            + self.ended.capacity() * size_of::<crate::kernel::Ended>()
            + self.returned.capacity() * size_of::<crate::kernel::Returned>()
            + self.life.dead.capacity() * size_of::<(TaskIndex, Attempt)>()
            + (self.life.loose.capacity() + self.life.freed.capacity()) * size_of::<TaskIndex>()
            + self.life.free.bytes()
    }
}

/// From this depth on a secured result becomes a checkpoint: enough that checkpoints are rare, few enough that what an
/// endless row keeps is small.
pub(crate) const DEPTH_MAX: u16 = 1_024;

/// Tasks settled by one call of [`Kernel::drain_freed`]: about two milliseconds.
const SETTLED_MAX: usize = 1 << 15;

/// A slot whose attempts come near the end of their numbers is not used again (K4).
const ATTEMPT_LAST: Attempt = Attempt(u32::MAX - (1 << 24));
