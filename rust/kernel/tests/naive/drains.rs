//! What must come out: who ended, who came back, who died, and which slots are free.

use TaskState::Done;
use headrace_kernel::{Ended, HowEnded, TaskIndex, TaskState};

use super::{Naive, World};

impl World {
    /// The dead of the model.
    fn bury(&mut self) {
        for task in self.live().collect::<Vec<_>>() {
            let naive = &self.tasks[task];
            let wanted = naive.holds > 0
                || self.consumers(task).iter().any(|&consumer| self.pending(consumer))
                || (naive.released && self.lineage(task) > 0);
            if naive.state == Done && !naive.dead && !wanted {
                self.tasks[task].dead = true;
                self.dead.insert(task);
            }
        }
    }

    pub(super) fn drain(&mut self) {
        let mut ended = Vec::new();
        self.kernel.drain_ended(|Ended { task, how, leased_to }| {
            let root = match how {
                HowEnded::Skipped { root } => Some(root),
                HowEnded::Cancelled => None,
            };
            ended.push((task, root, leased_to.map(|(worker, attempt)| (worker.0, attempt.0))));
        });
        let expected: Vec<_> = std::mem::take(&mut self.ended)
            .into_iter()
            .map(|(task, root, lease)| (self.slot(task), root.map(|root| self.slot(root)), lease))
            .collect();
        assert_eq!(sorted(ended), sorted(expected), "K6: who ended");
        let mut returned = Vec::new();
        self.kernel.drain_returned(|lease| returned.push((lease.task, lease.worker.0, lease.attempt.0)));
        let expected: Vec<_> = std::mem::take(&mut self.returned)
            .into_iter()
            .map(|(task, worker, attempt)| (self.slot(task), worker, attempt))
            .collect();
        assert_eq!(sorted(returned), sorted(expected), "K2: which leases came back");
        let mut ready = Vec::new();
        self.kernel.drain_ready(|task| ready.push(task));
        // What ended in the same step is of no interest.
        ready.retain(|task| self.kernel.state(*task) == TaskState::Ready);
        let expected = std::mem::take(&mut self.became_ready).into_iter();
        let expected = expected.filter(|&task| self.tasks[task].state == TaskState::Ready).map(|task| self.slot(task));
        assert_eq!(sorted(ready), sorted(expected.collect()), "which watched tasks became ready");
        self.drain_dead();
    }

    fn drain_dead(&mut self) {
        self.bury();
        let mut dead = Vec::new();
        self.kernel.drain_dead(|task| dead.push(self.tasks.iter().position(|n| n.slot == Some(task.0)).expect("live")));
        dead.sort_unstable();
        let expected: Vec<usize> = std::mem::take(&mut self.dead).into_iter().collect();
        assert_eq!(dead, expected, "K5: who died");
    }

    pub(super) fn drain_freed(&mut self) {
        let mut freed = Vec::new();
        let mut dead = Vec::new();
        while self.kernel.drain_freed(|slot| freed.push(slot)) {
            self.kernel.drain_dead(|slot| dead.push(slot));
        }
        // Release, and let die what only lived for it, until nothing changes.
        loop {
            let releasable = |&task: &usize| {
                let Naive { state, dead, secured, released, .. } = self.tasks[task];
                let ended = state == Done && (dead || secured) && self.lineage(task) == 0;
                !released && (ended || state > Done)
            };
            let found = self.live().find(releasable);
            match found {
                Some(task) => self.tasks[task].released = true,
                None => {
                    let before = self.dead.len();
                    self.bury();
                    if self.dead.len() == before {
                        break;
                    }
                }
            }
        }
        let expected: Vec<TaskIndex> = std::mem::take(&mut self.dead).into_iter().map(|task| self.slot(task)).collect();
        assert_eq!(sorted(dead), sorted(expected), "K5: who died with the last that might have run again");
        let needless = |&task: &usize| {
            let naive = &self.tasks[task];
            naive.released && naive.holds == 0 && self.lineage(task) == 0 && (naive.state != Done || naive.dead)
        };
        let gone: Vec<usize> = self.live().filter(needless).collect();
        let expected: Vec<TaskIndex> = gone.iter().map(|&task| self.slot(task)).collect();
        for task in gone {
            self.free_slots.extend(self.tasks[task].slot.take());
        }
        assert_eq!(sorted(freed), sorted(expected), "which slots are free");
    }
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort();
    list
}
