//! The engine: what happens to tasks, one call an event.

use std::collections::BTreeMap;

use crate::error::Stale;
use crate::graph::Graph;
use crate::ids::{Attempt, ClassId, Handle, TaskIndex, WorkerId};
use crate::lifetime::Lifetime;
use crate::lists::End;
use crate::ready::{Board, Worker};
use crate::state::TaskState;

/// Resolves graphs: which task is ready, which result is alive, which is dead. It knows no clock, no socket and no chance:
/// equal calls give equal answers (K8), and no call looks at tasks that it does not concern (K7).
///
/// Events go in by methods. What they cause beyond the task that they name comes out by `drain_ended`, `drain_returned`,
/// `drain_dead` and `drain_freed`; drain all of them, in this order, before the next turn.
#[derive(Clone, Default)]
pub struct Kernel {
    pub(crate) graph: Graph,
    pub(crate) board: Board,
    pub(crate) life: Lifetime,
    pub(crate) ended: Vec<Ended>,
    /// How many entries of `ended` have had their consumers visited.
    pub(crate) ended_visited: usize,
    pub(crate) returned: Vec<Returned>,
    pub(crate) stale_reports: u64,
    pub(crate) operations: u64,
    /// The number of the lease of each task whose last number is that of a rival.
    pub(crate) elders: BTreeMap<TaskIndex, Attempt>,
    /// Consumers of one task, while they are visited.
    pub(crate) scratch: Vec<TaskIndex>,
}

/// A task that ended without running, because of another or because it was cancelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended {
    /// The task.
    pub task: TaskIndex,
    /// Why.
    pub how: HowEnded,
    /// The lease that it had; the worker should drop it.
    pub leased_to: Option<(WorkerId, Attempt)>,
}

/// Why a task ended without running.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HowEnded {
    /// An ancestor failed.
    Skipped {
        /// That ancestor; a skipped one stands in for it where it was freed before a late consumer arrived.
        root: TaskIndex,
    },
    /// It was cancelled, or an ancestor was.
    Cancelled,
}

/// A lease that was taken back because one that it stood behind was, or because an input was lost (K2). The worker should
/// drop it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Returned {
    /// The task.
    pub task: TaskIndex,
    /// The worker that had it.
    pub worker: WorkerId,
    /// The attempt that ended.
    pub attempt: Attempt,
}

/// Counts, kept up to date: asking costs O(classes + workers).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Tasks that wait for predecessors.
    pub waiting: u64,
    /// Tasks that could start.
    pub ready: u64,
    /// Tasks that a worker has.
    pub leased: u64,
    /// Tasks that returned and are not freed.
    pub done: u64,
    /// Tasks that failed and are not freed.
    pub failed: u64,
    /// Tasks that were skipped and are not freed.
    pub skipped: u64,
    /// Tasks that were cancelled and are not freed.
    pub cancelled: u64,
    /// Slots, used and free.
    pub slots: u64,
    /// Edges in packed rows.
    pub edges: u64,
    /// Memory of the kernel in bytes.
    pub bytes: u64,
    /// Reports that matched no lease (K4).
    pub stale_reports: u64,
    /// Tasks and edges looked at since the start (K7).
    pub operations: u64,
}

impl Kernel {
    /// A kernel without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a worker known; until then it gets no lease.
    ///
    /// # Panics
    /// If the number is [`WorkerId::LIMIT`] or more.
    pub fn add_worker(&mut self, worker: WorkerId) {
        assert!(worker.0 < WorkerId::LIMIT, "worker numbers stay below {}", WorkerId::LIMIT);
        if worker.at() >= self.board.workers.len() {
            self.board.workers.resize_with(worker.at() + 1, || None);
        }
        if self.board.workers[worker.at()].is_none() {
            let leases = self.board.lists.make(worker.0);
            self.board.workers[worker.at()] = Some(Worker { leases, followers: Vec::new() });
        }
    }

    /// The task returned. `secured` says that the result cannot be lost any more, because the caller has it or nobody needs
    /// it; otherwise only the worker has it.
    ///
    /// # Errors
    /// [`Stale`] if worker and attempt do not match the lease, or a predecessor has not been reported yet (K4).
    ///
    /// # Cost
    /// O(edges of the task).
    pub fn complete(
        &mut self,
        worker: WorkerId,
        task: TaskIndex,
        attempt: Attempt,
        secured: bool,
    ) -> Result<(), Stale> {
        let leases = self.fence(worker, task, attempt)?;
        // Whatever is missing stands before the task in the same queue (K2).
        if self.board.lists.get(leases).head != task.0 && self.missing(task) > 0 {
            self.stale_reports += 1;
            return Err(Stale);
        }
        self.end_rival(task);
        self.board.lists.remove(&mut self.board.tasks, task);
        self.board.set_ended(task, TaskState::Done);
        self.operations += 1 + self.board.tasks[task.at()].span.degree();
        let (number, advanced) = (u64::from(worker.0), &mut self.scratch);
        self.graph.each_consumer_back(&mut self.board.tasks, task, |entry, consumer| {
            if entry.state == TaskState::Waiting {
                entry.missing -= 1;
                if crate::seeded!("double decrement") && entry.missing > 0 {
                    entry.missing -= 1;
                }
                entry.uncount_lease(number);
                if entry.missing == entry.leased {
                    advanced.push(consumer);
                }
            }
        });
        if !advanced.is_empty() {
            if crate::seeded!("lost wake-up") && advanced.len() > 1 {
                advanced.pop();
            }
            for consumer in advanced.drain(..) {
                self.board.advance(consumer);
            }
        }
        self.result_made(task, secured);
        Ok(())
    }

    /// The task failed, for good: all its descendants are skipped with it as their root (K6). It is not itself listed by
    /// `drain_ended`.
    ///
    /// # Errors
    /// [`Stale`] if worker and attempt do not match the lease (K4).
    ///
    /// # Cost
    /// O(tasks that end + their edges).
    pub fn fail(&mut self, worker: WorkerId, task: TaskIndex, attempt: Attempt) -> Result<(), Stale> {
        self.fence(worker, task, attempt)?;
        self.fail_unleased(task);
        Ok(())
    }

    /// The task is refused before a worker could try it; like [`Kernel::fail`]. Nothing happens if it has ended.
    pub fn fail_unleased(&mut self, task: TaskIndex) {
        if !self.state(task).is_pending() {
            return;
        }
        self.end_rival(task);
        self.board.leave(task);
        self.board.set_ended(task, TaskState::Failed);
        self.let_go_of_inputs(task);
        self.end_consumers(task, HowEnded::Skipped { root: task });
        self.end_descendants();
        self.life.loose.push_back(task);
    }

    /// Cancels each of these tasks that has not ended, and all its descendants (K6).
    ///
    /// # Cost
    /// O(tasks that end + their edges).
    pub fn cancel(&mut self, tasks: &[TaskIndex]) {
        for &task in tasks {
            if self.state(task).is_pending() {
                self.end(task, HowEnded::Cancelled);
                self.end_descendants();
            }
        }
    }

    /// The worker gave the task back unstarted: it was recalled, or returned. It goes to the front of its queue. What the
    /// worker had queued behind it comes back with it and is listed by `drain_returned` (K2).
    ///
    /// Give several back in the reverse of their order to find them in order.
    ///
    /// # Errors
    /// [`Stale`] if worker and attempt do not match the lease (K4).
    pub fn give_back(&mut self, worker: WorkerId, task: TaskIndex, attempt: Attempt) -> Result<(), Stale> {
        self.fence(worker, task, attempt)?;
        let first = self.returned.len();
        self.take_back(worker, task);
        if !crate::seeded!("lost recall") {
            self.place_returned(first);
        }
        // The caller knows about the first of them.
        self.returned.remove(first);
        Ok(())
    }

    /// Gives a task another class: from now on it stands at the front of that one's queue, or will, whoever may lease from
    /// it. A lease that it has stays. The answer is the class that it had.
    pub fn set_class(&mut self, task: TaskIndex, class: ClassId) -> ClassId {
        let before = self.board.tasks[task.at()].rank.class;
        if before != class {
            self.board.set_class(task, class);
        }
        before
    }

    /// The worker is gone: its leases, appended to `out` in the order of its queue, go back to the front of theirs. Results
    /// that only it had are the caller's to report with [`Kernel::lose_result`].
    ///
    /// # Cost
    /// O(its leases + their edges).
    pub fn lose_worker(&mut self, worker: WorkerId, out: &mut Vec<(TaskIndex, Attempt)>) {
        if self.board.leases(worker).is_none() {
            return;
        }
        let first = out.len();
        out.extend(self.leases_of(worker));
        let first_returned = self.returned.len();
        for &(task, _) in &out[first..] {
            if self.board.tasks[task.at()].state == TaskState::Leased {
                self.take_back(worker, task);
            }
        }
        self.returned.truncate(first_returned);
        let kept = usize::from(crate::seeded!("death keeps a lease"));
        for &(task, _) in out[first..].iter().rev().skip(kept) {
            self.recount(task);
            self.board.place(task, End::Front);
        }
        if let Some(gone) = self.board.workers[worker.at()].take() {
            self.board.lists.discard(gone.leases);
            gone.followers.iter().for_each(|&(_, list)| self.board.lists.discard(list));
        }
    }

    /// The state of a task; [`TaskState::Free`] for a slot without one.
    #[inline]
    pub fn state(&self, task: TaskIndex) -> TaskState {
        self.board.tasks.get(task.at()).map_or(TaskState::Free, |task| task.state)
    }

    /// Predecessors of a task that are not done (K2). Costs O(them) for a leased task.
    pub fn missing(&self, task: TaskIndex) -> u32 {
        match self.state(task) {
            TaskState::Waiting => self.board.tasks[task.at()].missing,
            TaskState::Leased => {
                let done = |producer: &&TaskIndex| self.state(**producer) == TaskState::Done;
                let predecessors = self.graph.predecessors(&self.board.tasks[task.at()]);
                (predecessors.len() - predecessors.iter().filter(done).count()) as u32
            }
            _ => 0,
        }
    }

    /// The class of a task.
    pub fn class_of(&self, task: TaskIndex) -> ClassId {
        self.board.tasks[task.at()].rank.class
    }

    /// The predecessors of a task in the order in which its chunk named them; empty once it cannot run again.
    #[inline]
    pub fn predecessors(&self, task: TaskIndex) -> &[TaskIndex] {
        if self.state(task) == TaskState::Free { &[] } else { self.graph.predecessors(&self.board.tasks[task.at()]) }
    }

    /// The consumers of a task that may still run, again or for the first time, in order of submission.
    pub fn successors(&self, task: TaskIndex) -> impl Iterator<Item = TaskIndex> + '_ {
        let there = self.state(task) != TaskState::Free;
        there.then(|| self.graph.consumers(&self.board.tasks, task)).into_iter().flatten()
    }

    /// The worker that has the task.
    pub fn worker_of(&self, task: TaskIndex) -> Option<WorkerId> {
        if self.state(task) == TaskState::Leased { self.board.worker_of(task) } else { None }
    }

    /// The number of ready tasks in a class.
    pub fn ready_len(&self, class: ClassId) -> usize {
        self.board.ready.len(class)
    }

    /// The classes with ready tasks, ascending.
    pub fn ready_classes(&self) -> impl Iterator<Item = ClassId> + '_ {
        self.board.ready.classes()
    }

    /// The classes with ready tasks, ascending, each with the priority of the task that goes first.
    pub fn ready_priorities(&self) -> impl Iterator<Item = (ClassId, i32)> + '_ {
        self.board.ready.tops(&self.board.lists)
    }

    /// The ready tasks of a class in the order in which they go.
    pub fn ready_tasks(&self, class: ClassId) -> impl Iterator<Item = TaskIndex> + '_ {
        let place = self.board.ready.place(class);
        let queues = place.map(|place| self.board.ready.levels(place)).into_iter().flatten();
        queues.flat_map(|(_, queue)| self.board.lists.iter(&self.board.tasks, queue))
    }

    /// The classes with tasks that wait for nothing but what the worker has in its queue (K2).
    pub fn follower_classes(&self, worker: WorkerId) -> impl Iterator<Item = ClassId> + '_ {
        let worker = self.board.workers.get(worker.at()).and_then(Option::as_ref);
        let lists = worker.map(|worker| worker.followers.iter()).into_iter().flatten();
        lists.filter(|&&(_, list)| self.board.lists.get(list).len > 0).map(|&(class, _)| class)
    }

    /// A name for the task that outlives it.
    pub fn handle(&self, task: TaskIndex) -> Handle {
        Handle { index: task, generation: self.board.tasks.get(task.at()).map_or(0, |task| task.generation) }
    }

    /// The task that a handle names, unless it was freed.
    pub fn resolve(&self, handle: Handle) -> Option<TaskIndex> {
        let there = self.state(handle.index) != TaskState::Free && self.handle(handle.index) == handle;
        there.then_some(handle.index)
    }

    /// Counts of everything.
    pub fn statistics(&self) -> Statistics {
        let count = |state: TaskState| self.board.count(state);
        Statistics {
            waiting: count(TaskState::Waiting),
            ready: count(TaskState::Ready),
            leased: count(TaskState::Leased),
            done: count(TaskState::Done),
            failed: count(TaskState::Failed),
            skipped: count(TaskState::Skipped),
            cancelled: count(TaskState::Cancelled),
            slots: self.board.tasks.len() as u64,
            edges: self.graph.edges(),
            bytes: self.bytes() as u64,
            stale_reports: self.stale_reports,
            operations: self.operations,
        }
    }

    /// Lists every task that ended in a cascade, once, in the order of the cascades.
    pub fn drain_ended(&mut self, mut f: impl FnMut(Ended)) {
        for ended in self.ended.drain(..) {
            self.life.loose.push_back(ended.task);
            f(ended);
        }
        self.ended_visited = 0;
    }

    /// Lists every lease that came back with another, or because its input was lost.
    pub fn drain_returned(&mut self, f: impl FnMut(Returned)) {
        self.returned.drain(..).for_each(f);
    }

    /// Ends a task that has not ended, without its descendants.
    pub(crate) fn end(&mut self, task: TaskIndex, how: HowEnded) {
        let leased_to = self.board.worker_of(task).map(|worker| (worker, self.attempt(task)));
        self.end_rival(task);
        if !(crate::seeded!("cancelled and dispatched") && self.state(task) == TaskState::Ready) {
            self.board.leave(task);
        }
        match how {
            HowEnded::Skipped { root } => {
                self.board.set_ended(task, TaskState::Skipped);
                let generation = self.board.tasks[root.at()].generation;
                let entry = &mut self.board.tasks[task.at()];
                (entry.next, entry.prev) = (root.0, generation);
            }
            HowEnded::Cancelled => self.board.set_ended(task, TaskState::Cancelled),
        }
        self.ended.push(Ended { task, how, leased_to });
        self.let_go_of_inputs(task);
    }

    /// Ends the descendants of all tasks that ended since the last call. The list of the ended is the queue of the walk.
    pub(crate) fn end_descendants(&mut self) {
        while let Some(&Ended { task, how, .. }) = self.ended.get(self.ended_visited) {
            self.ended_visited += 1;
            self.end_consumers(task, how);
        }
    }

    fn end_consumers(&mut self, task: TaskIndex, how: HowEnded) {
        let mut consumers = std::mem::take(&mut self.scratch);
        consumers.extend(self.graph.consumers(&self.board.tasks, task));
        self.operations += 1 + consumers.len() as u64;
        if crate::seeded!("missed descendant") && consumers.len() > 1 {
            consumers.pop();
        }
        for consumer in consumers.drain(..) {
            if self.board.tasks[consumer.at()].state.is_pending() {
                self.end(consumer, how);
            }
        }
        self.scratch = consumers;
    }

    /// Takes a lease back, with all that stand behind it (K2), without placing them; they are appended to `returned`.
    pub(crate) fn take_back(&mut self, worker: WorkerId, task: TaskIndex) {
        let mut visited = self.returned.len();
        let (mut behind, mut waiting) = (Vec::new(), std::mem::take(&mut self.scratch));
        self.unlease(worker, task);
        while let Some(&Returned { task, .. }) = self.returned.get(visited) {
            visited += 1;
            self.operations += self.board.tasks[task.at()].span.degree();
            self.graph.each_consumer_back(&mut self.board.tasks, task, |entry, consumer| match entry.state {
                TaskState::Leased => behind.push(consumer),
                TaskState::Waiting => {
                    entry.uncount_lease(u64::from(worker.0));
                    waiting.push(consumer);
                }
                _ => {}
            });
            for consumer in waiting.drain(..) {
                self.board.leave(consumer);
            }
            for consumer in behind.drain(..).rev() {
                self.unlease(worker, consumer);
            }
        }
        self.scratch = waiting;
    }

    /// Counts the missing and the leased predecessors of a task that waits again.
    pub(crate) fn recount(&mut self, task: TaskIndex) {
        let Kernel { graph, board, operations, .. } = self;
        board.tasks[task.at()].clear_counts();
        for &producer in graph.predecessors(&board.tasks[task.at()]) {
            *operations += 1;
            if board.tasks[producer.at()].state != TaskState::Done {
                board.tasks[task.at()].missing += 1;
                if let Some(worker) = board.worker_of(producer) {
                    board.tasks[task.at()].count_lease(u64::from(worker.0));
                }
            }
        }
    }

    fn unlease(&mut self, worker: WorkerId, task: TaskIndex) {
        self.board.leave(task);
        self.board.set_state(task, TaskState::Waiting);
        let attempt = self.attempt(task);
        self.end_rival(task);
        self.returned.push(Returned { task, worker, attempt });
    }

    /// Places the tasks that [`Kernel::take_back`] left: the first of them at the very front.
    pub(crate) fn place_returned(&mut self, first: usize) {
        for position in (first..self.returned.len()).rev() {
            let task = self.returned[position].task;
            self.recount(task);
            self.board.place(task, End::Front);
        }
    }
}
