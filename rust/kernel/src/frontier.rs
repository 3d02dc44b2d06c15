//! Everything that is ready, at once: for a caller that is its own only worker.

use crate::ids::{Attempt, ClassId, TaskIndex, WorkerId};
use crate::kernel::Kernel;
use crate::lists::End;

impl Kernel {
    /// The priority of a task.
    pub fn priority_of(&self, task: TaskIndex) -> i32 {
        self.board.tasks[task.at()].rank.priority
    }

    /// Leases every ready task of a class to a worker and appends them to `out`: by priority, then in the order of their
    /// queue (K3). Unlike [`Kernel::lease`] it takes nothing that only follows, so it shows what is ready and no more.
    ///
    /// # Cost
    /// O(tasks leased + their edges).
    pub fn lease_ready(&mut self, worker: WorkerId, class: ClassId, out: &mut Vec<(TaskIndex, Attempt)>) {
        let Some(leases) = self.board.leases(worker) else { return };
        let mut followers = Vec::new();
        while let Some(task) = self.first_ready(class) {
            self.board.leave(task);
            let lease = self.grant(worker, leases, task, &mut followers);
            out.push((lease.task, lease.attempt));
        }
        for task in followers {
            self.board.follow(task, worker.at(), End::Back);
        }
    }

    fn first_ready(&self, class: ClassId) -> Option<TaskIndex> {
        let place = self.board.ready.place(class)?;
        let (_, queue) = self.board.ready.levels(place).next()?;
        self.board.lists.iter(&self.board.tasks, queue).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{Chunk, Classes, Priorities};

    const CLASS: ClassId = ClassId(0);
    const WORKER: WorkerId = WorkerId(0);

    fn ready(kernel: &mut Kernel) -> Vec<u32> {
        let mut leased = Vec::new();
        kernel.lease_ready(WORKER, CLASS, &mut leased);
        kernel.check().unwrap();
        leased.into_iter().map(|(task, _)| task.0).collect()
    }

    fn done(kernel: &mut Kernel, task: u32) {
        let attempt = kernel.attempt(TaskIndex(task));
        kernel.complete(WORKER, TaskIndex(task), attempt, true).unwrap();
        kernel.check().unwrap();
    }

    #[test]
    fn it_shows_what_is_ready_and_not_what_follows() {
        let mut kernel = Kernel::new();
        kernel.add_worker(WORKER);
        // 0 and 1 before 2; 2 before 3.
        let chunk = Chunk {
            dep_counts: &[0, 0, 2, 1],
            deps: &[0, 1, 2],
            external: &[],
            class: Classes::One(CLASS),
            priority: Priorities::One(0),
            keep: &[],
        };
        kernel.submit(&chunk, &mut Vec::new()).unwrap();
        assert_eq!(ready(&mut kernel), [0, 1]);
        assert_eq!(ready(&mut kernel), [] as [u32; 0]);
        done(&mut kernel, 1);
        assert_eq!(ready(&mut kernel), [] as [u32; 0]);
        done(&mut kernel, 0);
        assert_eq!(ready(&mut kernel), [2]);
        done(&mut kernel, 2);
        assert_eq!(ready(&mut kernel), [3]);
        done(&mut kernel, 3);
        assert_eq!(ready(&mut kernel), [] as [u32; 0]);
    }

    #[test]
    fn priority_goes_first() {
        let mut kernel = Kernel::new();
        kernel.add_worker(WORKER);
        let chunk = Chunk {
            dep_counts: &[0, 0, 0],
            deps: &[],
            external: &[],
            class: Classes::One(CLASS),
            priority: Priorities::Each(&[0, 2, 1]),
            keep: &[],
        };
        kernel.submit(&chunk, &mut Vec::new()).unwrap();
        assert_eq!(ready(&mut kernel), [1, 2, 0]);
    }
}
