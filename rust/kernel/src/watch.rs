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

    /// Whether tasks may wait that need nothing but what some worker has in its queue (K2).
    #[must_use]
    pub fn may_be_followed(&self) -> bool {
        self.board.followed.any()
    }

    /// Those `among` these workers, a bit set, for which tasks wait that need nothing but what they have in their queues (K2);
    /// ascending.
    ///
    /// # Cost
    /// O(workers / 64), those that are found, and what has changed since the last call.
    pub fn followed(&mut self, among: &[usize]) -> Vec<WorkerId> {
        let Board { workers, lists, followed, .. } = &mut self.board;
        let mut found = followed.among(among);
        found.retain(|number| {
            let worker = workers.get(number.at()).and_then(Option::as_ref);
            let is_followed =
                worker.is_some_and(|worker| worker.followers.iter().any(|&(_, list)| lists.get(list).len > 0));
            if !is_followed {
                followed.remove(*number);
            }
            is_followed
        });
        found
    }

    /// How many tasks are ready.
    #[inline]
    #[must_use]
    pub fn ready(&self) -> u64 {
        self.board.count(TaskState::Ready)
    }
}
