//! What is there to be leased; and tasks of which the caller wants to hear when they become ready, because they may not wait
//! for ever.

use crate::ids::{TaskIndex, WorkerId};
use crate::kernel::Kernel;
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

    /// Whether tasks wait for nothing but what this worker has in its queue (K2).
    #[inline]
    #[must_use]
    pub fn has_followers(&self, worker: WorkerId) -> bool {
        let worker = self.board.workers.get(worker.at()).and_then(Option::as_ref);
        worker.is_some_and(|worker| worker.followers.iter().any(|&(_, list)| self.board.lists.get(list).len > 0))
    }

    /// How many tasks are ready.
    #[inline]
    #[must_use]
    pub fn ready(&self) -> u64 {
        self.board.count(TaskState::Ready)
    }
}
