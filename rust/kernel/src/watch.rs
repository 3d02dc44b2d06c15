//! What is there to be leased; and tasks of which the caller wants to hear when they become ready, because they may not wait
//! for ever.

use crate::ids::{TaskIndex, WorkerId};
use crate::kernel::Kernel;
use crate::ready::Board;
use crate::state::{Flag, TaskState};

impl Kernel {
    /// From now on [`Kernel::drain_ready`] lists the task whenever it becomes ready; also now, if it is.
    pub fn watch(&mut self, task: TaskIndex) {
        let state = self.state(task);
        if state != TaskState::Free {
            self.board.tasks[task.at()].set(Flag::Watched);
        }
        if state == TaskState::Ready {
            self.board.became_ready.push(task);
        }
    }

    /// Lists every watched task that has become ready since the last call, as often as it has. It may be something else by
    /// now, even another task: drain before freed slots.
    pub fn drain_ready(&mut self, f: impl FnMut(TaskIndex)) {
        self.board.became_ready.drain(..).for_each(f);
    }

    /// Whether tasks wait that need nothing but what this worker has in its queue (K2).
    #[must_use]
    pub fn is_followed(&self, worker: WorkerId) -> bool {
        let Board { workers, lists, .. } = &self.board;
        let worker = workers.get(worker.at()).and_then(Option::as_ref);
        worker.is_some_and(|worker| worker.followers.iter().any(|&(_, list)| lists.get(list).len > 0))
    }

    /// How many workers [`Kernel::followed`] would have to look at.
    #[must_use]
    pub fn followed_max(&self) -> usize {
        self.board.followed.len()
    }

    /// The workers for which tasks wait that need nothing but what those have in their queues (K2), ascending.
    ///
    /// # Cost
    /// O(workers with such tasks), and what has changed since the last call.
    pub fn followed(&mut self) -> &[WorkerId] {
        let Board { workers, lists, followed, .. } = &mut self.board;
        followed.retain(|number| {
            let Some(worker) = workers.get_mut(number.at()).and_then(Option::as_mut) else { return false };
            worker.is_listed = worker.followers.iter().any(|&(_, list)| lists.get(list).len > 0);
            worker.is_listed
        });
        followed.sort_unstable();
        followed.dedup();
        followed
    }

    /// How many tasks are ready.
    #[inline]
    #[must_use]
    pub fn ready(&self) -> u64 {
        self.board.count(TaskState::Ready)
    }
}
