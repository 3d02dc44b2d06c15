//! How long things live (K5). Three lives end one after the other: the result's, when nobody will read it; that of the
//! arguments and edges, when nobody can make the task run again; the slot's, when nobody can ask for the task.
//!
//! A result that the caller has (*secured*) cannot be lost, so its ancestors are not needed for it. They are kept all the
//! same while a consumer may still run: the result dies before that consumer's own is secured, and then only running the
//! task again could bring it back. In an endless row of chunks, each hanging on the one before, that would keep everything.
//! So every [`CHECKPOINT_DEPTH`] chunks the results are *checkpoints*: once secured, their ancestors go at once, and in turn
//! they live until no consumer may run again. A secured result whose ancestors went before a late consumer arrived lives on
//! in the same way.
//!
//! Letting ancestors go is left to [`Kernel::drain_freed`], so that the completion that ends a run of a million tasks does
//! not wait for the funeral.

use std::collections::VecDeque;

use crate::ids::TaskIndex;
use crate::kernel::Kernel;
use crate::lists::End;
use crate::slots::FreeSlots;
use crate::state::{Flag, Task, TaskState};

/// Who died without the caller's knowledge, and who may be freed.
#[derive(Clone, Default)]
pub(crate) struct Lifetime {
    /// Results that died and were not drained.
    dead: Vec<TaskIndex>,
    /// Tasks to look at: their inputs or slots may have become needless. May name a task twice, or one that lives on. First
    /// in, first out, so that a finished graph is let go row by row, as it lies in memory.
    pub(crate) loose: VecDeque<TaskIndex>,
    pub(crate) free: FreeSlots,
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
        if self.state(task) == TaskState::Free || self.board.tasks[task.at()].holds == 0 {
            return;
        }
        let entry = &mut self.board.tasks[task.at()];
        entry.holds -= 1;
        if !entry.held() {
            self.life.unheld(entry, task);
        }
    }

    /// The result of a task cannot be made again, because its caller has made it by itself. To be said before it is done: once
    /// secured it lives until no consumer may run again, as that of a checkpoint does.
    pub fn keep_for_consumers(&mut self, task: TaskIndex) {
        if self.state(task).is_pending() {
            self.board.tasks[task.at()].set(Flag::Checkpoint);
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
            self.life.loose.push_back(task);
        }
    }

    /// The result of a task is lost. If it is alive, the task waits or is ready again, and with it every ancestor whose
    /// result it needs and that is dead; leases that need it come back (`drain_returned`). Nothing happens for a result that
    /// is dead or secured.
    ///
    /// Drain the dead first: a dead result that is needed again is not listed any more.
    ///
    /// # Cost
    /// O(tasks that run again + their edges).
    pub fn lose_result(&mut self, task: TaskIndex) {
        if self.state(task) != TaskState::Done {
            return;
        }
        let entry = &self.board.tasks[task.at()];
        if entry.has(Flag::Dead) || (entry.has(Flag::Secured) && !crate::seeded!("retry of a done task")) {
            return;
        }
        let first_returned = self.returned.len();
        let mut revived = Vec::new();
        let mut lost = vec![task];
        while let Some(task) = lost.pop() {
            if self.state(task) == TaskState::Done {
                self.revive(task, &mut lost);
                revived.push(task);
            }
        }
        self.life.dead.retain(|task| self.board.tasks[task.at()].has(Flag::Dead));
        self.place_returned(first_returned);
        for &task in revived.iter().rev() {
            if let Some(how) = self.doom(task) {
                self.end(task, how);
                self.end_descendants();
            } else if self.state(task) == TaskState::Waiting {
                self.board.place(task, End::Front);
            }
        }
    }

    /// Lists every result that died, once (K5). The result of a task that ran again can die again.
    pub fn drain_dead(&mut self, f: impl FnMut(TaskIndex)) {
        self.life.dead.drain(..).for_each(f);
    }

    /// Lists every slot that is free from now on. It may be taken by the next submit.
    ///
    /// Nothing is freed before the ended and the dead are drained. At most some ten thousand tasks are looked at in a call,
    /// which keeps a turn short. Returns whether there is more to do: then drain the dead and the freed again, when it suits.
    pub fn drain_freed(&mut self, mut f: impl FnMut(TaskIndex)) -> bool {
        let mut left = SETTLED_MAX;
        while left > 0 && self.ended.is_empty() && self.life.dead.is_empty() {
            let Some(task) = self.life.loose.pop_front() else { break };
            if self.settle(task) {
                f(task);
            }
            left -= 1;
        }
        !self.life.loose.is_empty() || !self.life.dead.is_empty()
    }

    /// A task that just became done has a result: lets go of its inputs, and finds out whether anybody wants it.
    #[inline]
    pub(crate) fn result_made(&mut self, task: TaskIndex, secured: bool) {
        let Kernel { graph, board, life, .. } = self;
        let tasks = &mut board.tasks[..];
        for &producer in graph.predecessors(&tasks[task.at()]) {
            let entry = &mut tasks[producer.at()];
            entry.pending -= 1;
            if !entry.held() {
                life.result_unheld(entry, producer);
            }
        }
        let entry = &mut tasks[task.at()];
        if secured {
            entry.set(Flag::Secured);
        }
        if !entry.held() {
            life.result_unheld(entry, task);
        } else if secured && entry.needs_no_inputs() {
            life.loose.push_back(task);
        }
    }

    /// A task ended without a result: it does not hold its inputs any more.
    pub(crate) fn let_go_of_inputs(&mut self, task: TaskIndex) {
        let Kernel { graph, board, life, operations, .. } = self;
        let tasks = &mut board.tasks[..];
        for &producer in graph.predecessors(&tasks[task.at()]) {
            *operations += 1;
            let entry = &mut tasks[producer.at()];
            entry.pending -= 1;
            if !entry.held() {
                life.unheld(entry, producer);
            }
        }
    }

    /// Takes a done task back to waiting. Its own inputs that are dead go to `lost`; they are missing once their turn has
    /// come.
    fn revive(&mut self, task: TaskIndex, lost: &mut Vec<TaskIndex>) {
        let Kernel { graph, board, operations, .. } = self;
        *operations += 1 + board.tasks[task.at()].span.degree();
        board.set_not_ended(task, TaskState::Waiting);
        board.tasks[task.at()].clear_end();
        for &producer in graph.predecessors(&board.tasks[task.at()]) {
            let entry = &mut board.tasks[producer.at()];
            entry.pending += 1;
            if entry.has(Flag::Dead) {
                lost.push(producer);
            }
        }
        let (mut behind, mut queued) = (Vec::new(), Vec::new());
        graph.each_consumer_back(&mut board.tasks, task, |entry, consumer| match entry.state {
            TaskState::Leased => behind.push(consumer),
            TaskState::Waiting | TaskState::Ready => {
                entry.missing += 1;
                queued.push(consumer);
            }
            _ => {}
        });
        for consumer in queued {
            board.leave(consumer);
            if board.tasks[consumer.at()].state == TaskState::Ready {
                board.set_state(consumer, TaskState::Waiting);
            }
        }
        self.recount(task);
        for &consumer in behind.iter().rev() {
            if let Some(worker) = self.board.worker_of(consumer) {
                self.take_back(worker, consumer);
            }
        }
    }

    /// Lets go of what a task that has ended does not need any more: what its producers keep for it, then its slot. True if the slot
    /// is free.
    #[inline]
    fn settle(&mut self, task: TaskIndex) -> bool {
        let Kernel { graph, board, life, operations, .. } = self;
        *operations += 1;
        let tasks = &mut board.tasks[..];
        let entry = &mut tasks[task.at()];
        if !entry.state.is_terminal() {
            return false;
        }
        if !entry.has(Flag::Released) {
            if !entry.needs_no_inputs() {
                return false;
            }
            entry.set(Flag::Released);
            *operations += u64::from(entry.span.preds_len);
            for &producer in graph.predecessors(&tasks[task.at()]) {
                let lineage = &mut tasks[producer.at()].lineage;
                *lineage -= 1;
                if *lineage == 0 {
                    life.loose.push_back(producer);
                }
            }
            graph.release(tasks, task);
        }
        let entry = &mut tasks[task.at()];
        if entry.held() || entry.lineage > 0 {
            return false;
        }
        if entry.state == TaskState::Done && !entry.has(Flag::Dead) {
            life.result_unheld(entry, task); // The end of a checkpoint.
            return false;
        }
        graph.free(entry.chunk);
        entry.vacate();
        if entry.attempt.0 < ATTEMPT_LAST {
            life.free.insert(task.0);
        }
        board.set_not_ended(task, TaskState::Free);
        true
    }

    pub(crate) fn bytes(&self) -> usize {
        self.graph.bytes()
            + self.board.bytes()
            + self.ended.capacity() * size_of::<crate::kernel::Ended>()
            + self.returned.capacity() * size_of::<crate::kernel::Returned>()
            + (self.life.dead.capacity() + self.life.loose.capacity()) * size_of::<TaskIndex>()
            + self.life.free.bytes()
    }
}

impl Lifetime {
    /// The last hold and the last pending consumer of a task are gone: its result dies, if it has one.
    fn unheld(&mut self, entry: &mut Task, task: TaskIndex) {
        match entry.state {
            TaskState::Done if !entry.has(Flag::Dead) => self.result_unheld(entry, task),
            state if state.is_terminal() && entry.lineage == 0 => self.loose.push_back(task),
            _ => {}
        }
    }

    /// The same for a task that is done with a result that is alive.
    #[inline]
    fn result_unheld(&mut self, entry: &mut Task, task: TaskIndex) {
        if entry.lineage == 0 {
            self.loose.push_back(task);
        } else if entry.has(Flag::Released) {
            return; // A checkpoint: consumers that may run again could not get this result in any other way.
        }
        entry.set(Flag::Dead);
        self.dead.push(task);
    }
}

impl Task {
    /// Whether a task that has ended will not run again, so that its inputs need not be made again for it.
    #[inline]
    fn needs_no_inputs(&self) -> bool {
        let (dead, secured) = (self.has(Flag::Dead), self.has(Flag::Secured));
        let safe = (dead || secured) && (self.lineage == 0 || (!dead && self.has(Flag::Checkpoint)));
        safe || self.state != TaskState::Done
    }
}

/// Chunks from one checkpoint to the next: enough that checkpoints are rare, few enough that what an endless row keeps is
/// small.
pub(crate) const CHECKPOINT_DEPTH: u32 = 1_024;

/// Tasks looked at by one call of [`Kernel::drain_freed`]: about two milliseconds.
const SETTLED_MAX: usize = 1 << 15;

/// A slot whose attempts reach this number is not used again (K4).
const ATTEMPT_LAST: u32 = u32::MAX - (1 << 24);
