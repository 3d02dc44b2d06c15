//! Everything that can be asked of the kernel, asked.

use std::collections::BTreeMap;

use TaskState::{Cancelled, Done, Failed, Leased, Ready, Skipped, Waiting};
use headrace_kernel::{ClassId, TaskIndex, TaskState, WorkerId};

use super::World;

impl World {
    /// Everything that can be asked is answered as the model answers it.
    pub fn compare(&self) {
        self.kernel.check().unwrap_or_else(|error| panic!("{error}"));
        let mut counts: BTreeMap<TaskState, u64> = BTreeMap::new();
        for task in self.live() {
            let (naive, slot) = (&self.tasks[task], self.slot(task));
            *counts.entry(naive.state).or_default() += 1;
            assert_eq!(self.kernel.state(slot), naive.state, "K1: state of {task}");
            let alive = self.pending(task) || (naive.state == Done && !naive.dead);
            assert_eq!(self.kernel.result_alive(slot), alive, "K5: result of {task}");
            assert_eq!(self.kernel.attempt(slot), self.attempt(task), "K4: attempt of {task}");
            if self.pending(task) {
                assert_eq!(self.kernel.missing(slot) as usize, self.missing(task).len(), "K2: missing of {task}");
            }
            if !naive.released {
                let preds: Vec<TaskIndex> = naive.preds.iter().map(|&pred| self.slot(pred)).collect();
                assert_eq!(self.kernel.predecessors(slot), preds, "predecessors of {task}");
            }
            let unreleased = |consumer: &usize| !self.tasks[*consumer].released;
            let consumers: Vec<TaskIndex> =
                self.consumers(task).into_iter().filter(unreleased).map(|c| self.slot(c)).collect();
            assert_eq!(self.kernel.successors(slot).collect::<Vec<_>>(), consumers, "successors of {task}");
            assert_eq!(self.kernel.worker_of(slot).map(|worker| worker.0), self.worker_of(task), "worker of {task}");
            assert_eq!(self.kernel.resolve(self.kernel.handle(slot)), Some(slot), "handle of {task}");
        }
        for (&worker, queue) in &self.workers {
            let expected: Vec<_> = queue.iter().map(|&task| (self.slot(task), self.attempt(task))).collect();
            assert_eq!(self.kernel.leases_of(WorkerId(worker)).collect::<Vec<_>>(), expected, "leases of {worker}");
        }
        let len = |levels: &BTreeMap<_, Vec<usize>>| levels.values().map(Vec::len).sum::<usize>();
        for (&class, levels) in &self.ready {
            assert_eq!(self.kernel.ready_len(ClassId(class)), len(levels), "K3: ready in class {class}");
        }
        let classes: Vec<u32> =
            self.ready.iter().filter(|(_, levels)| len(levels) > 0).map(|(&class, _)| class).collect();
        assert_eq!(self.kernel.ready_classes().map(|class| class.0).collect::<Vec<_>>(), classes);
        let statistics = self.kernel.statistics();
        let count = |state| counts.get(&state).copied().unwrap_or(0);
        assert_eq!(
            [statistics.waiting, statistics.ready, statistics.leased, statistics.done],
            [count(Waiting), count(Ready), count(Leased), count(Done)],
        );
        assert_eq!(
            [statistics.failed, statistics.skipped, statistics.cancelled, statistics.stale_reports],
            [count(Failed), count(Skipped), count(Cancelled), self.stale],
        );
    }
}
