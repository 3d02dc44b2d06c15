//! Tasks of which the caller wants to hear when they become ready, because they may not wait for ever.

use crate::ids::TaskIndex;
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
}
