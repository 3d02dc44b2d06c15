//! Attempts by number (K4), and *rivals*: second attempts of leased tasks, beside the first ones.
//!
//! Every lease gets a number that is one higher than the last of its task. A rival takes a number as well, and nothing else:
//! the lease stays where it is, under its own number, which stands in a table as long as it is not the last. So a rival costs
//! those tasks nothing that have none but a look at a flag. The caller knows where it runs, and may have it take over the
//! lease.

use crate::error::Stale;
use crate::ids::{Attempt, TaskIndex, WorkerId};
use crate::kernel::Kernel;
use crate::lists::End;
use crate::state::{Flag, TaskState};

impl Kernel {
    /// The attempt of the current lease, or the last number of an attempt.
    pub fn attempt(&self, task: TaskIndex) -> Attempt {
        let Some(entry) = self.board.tasks.get(task.at()) else { return Attempt(0) };
        if entry.has(Flag::Rivalled) { self.elders[&task] } else { entry.attempt }
    }

    /// The leases of a worker in the order in which it will run them.
    pub fn leases_of(&self, worker: WorkerId) -> impl Iterator<Item = (TaskIndex, Attempt)> + '_ {
        let leases = self.board.leases(worker).map(|list| self.board.lists.iter(&self.board.tasks, list));
        leases.into_iter().flatten().map(|task| (task, self.attempt(task)))
    }

    /// Numbers a rival of the lease that a task has; `None` if it has none, or waits for others in the queue of its worker.
    /// Only the number of the latest rival counts.
    pub fn add_rival(&mut self, task: TaskIndex) -> Option<Attempt> {
        if self.state(task) != TaskState::Leased || self.missing(task) > 0 {
            return None;
        }
        let lease = self.attempt(task);
        self.elders.insert(task, lease);
        let entry = &mut self.board.tasks[task.at()];
        entry.set(Flag::Rivalled);
        if !crate::seeded!("number of a rival used again") {
            entry.attempt.0 += 1;
        }
        Some(entry.attempt)
    }

    /// The latest rival takes over the lease, behind what its worker has; `false` if there is none. What stood behind the
    /// task on the worker that had it comes back, and is listed by `drain_returned` (K2).
    ///
    /// # Cost
    /// O(leases that come back + their edges).
    pub fn take_over(&mut self, task: TaskIndex, worker: WorkerId) -> bool {
        let (Some(before), Some(leases)) = (self.worker_of(task), self.board.leases(worker)) else { return false };
        if !self.board.tasks[task.at()].has(Flag::Rivalled) {
            return false;
        }
        let first = self.returned.len();
        self.take_back(before, task);
        self.returned.remove(first);
        self.place_returned(first);
        let Kernel { graph, board, .. } = self;
        board.tasks[task.at()].clear_counts();
        board.set_state(task, TaskState::Leased);
        board.lists.push(&mut board.tasks, leases, task, End::Back);
        let mut followers = Vec::new();
        graph.each_consumer_back(&mut board.tasks, task, |entry, consumer| {
            if entry.state == TaskState::Waiting {
                entry.count_lease(u64::from(worker.0));
                if entry.follows(u64::from(worker.0)) {
                    followers.push(consumer);
                }
            }
        });
        followers.into_iter().for_each(|task| board.follow(task, worker.at(), End::Front));
        true
    }

    /// The lease queue in which the task stands, if the report matches the lease (K4).
    #[inline]
    pub(crate) fn fence(&mut self, worker: WorkerId, task: TaskIndex, attempt: Attempt) -> Result<u32, Stale> {
        if let Some(entry) = self.board.tasks.get(task.at())
            && entry.state == TaskState::Leased
            && (self.is_of_lease(task, attempt) || crate::seeded!("skipped fence"))
            && (self.board.leases(worker) == Some(entry.list) || crate::seeded!("skipped fence"))
        {
            return Ok(entry.list);
        }
        self.stale_reports += 1;
        Err(Stale)
    }

    #[inline]
    fn is_of_lease(&self, task: TaskIndex, attempt: Attempt) -> bool {
        let entry = &self.board.tasks[task.at()];
        match entry.has(Flag::Rivalled) {
            false => entry.attempt == attempt,
            true => self.elders[&task] == attempt,
        }
    }

    /// A task has no lease any more, and so no rival.
    #[inline]
    pub(crate) fn end_rival(&mut self, task: TaskIndex) {
        if self.board.tasks[task.at()].has(Flag::Rivalled) {
            self.board.tasks[task.at()].clear(Flag::Rivalled);
            self.elders.remove(&task);
        }
    }
}
