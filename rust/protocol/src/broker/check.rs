//! For tests: what must hold between kernel, ledger and workers, derived from scratch.

use super::{Broker, worker_id};
use headrace_kernel::{TaskIndex, TaskState};

impl Broker {
    /// Checks the kernel's invariants and the broker's own counts. It looks at everything.
    ///
    /// # Errors
    /// What is wrong, with the number of the invariant.
    pub fn check(&self) -> Result<(), String> {
        self.kernel.check()?;
        self.check_leases()?;
        self.check_races()?;
        self.check_values()
    }

    /// The kernel's counts.
    pub fn kernel_statistics(&self) -> headrace_kernel::Statistics {
        self.kernel.statistics()
    }

    /// What keeps tasks from being leased, for people who look at a run that does not end.
    pub fn dump(&self) -> String {
        let mut words = format!(
            "overfull {}, roots held back {}, values awaited {}, wishes for memory {}",
            self.is_overfull(),
            self.holds_roots_back(super::store::HOME),
            self.ledger.awaits_values(),
            self.store.budgets.iter().map(|budget| budget.wants.len()).sum::<usize>()
        );
        for worker in self.workers.iter() {
            words += &format!(
                "; worker {} {:?}, {} frames open, interrupted {:?}",
                worker.number,
                worker.life,
                worker.frames_open(),
                worker.interrupted
            );
        }
        let slots = (0..self.kernel.statistics().slots as u32).map(TaskIndex);
        for task in slots.filter(|task| self.kernel.state(*task).is_pending()) {
            let (slot, state) = (self.ledger.slot(task.0), self.kernel.state(task));
            let inputs: Vec<_> =
                self.kernel.predecessors(task).iter().map(|input| (input.0, self.kernel.state(*input))).collect();
            words += &format!("; task {} (index {}) {state:?}, inputs {inputs:?}", task.0, slot.index);
        }
        words
    }

    fn check_leases(&self) -> Result<(), String> {
        for (position, run) in self.runs.iter().enumerate() {
            let Some(run) = run else { continue };
            let counts = run.counts;
            if counts.ended() + counts.leased > counts.total {
                return Err(format!("run {position} counts more tasks than it has: {counts:?}"));
            }
        }
        if let Some(number) = self.workers.find_stale() {
            return Err(format!("worker {number} was changed and nobody has noted it"));
        }
        let (mut leased, mut consuming) = (0, 0);
        for worker in self.workers.iter() {
            let leases: Vec<TaskIndex> =
                self.kernel.leases_of(worker_id(worker.number)).map(|(task, _)| task).collect();
            let seconds = u64::from(self.rivals.task_of(worker.number).is_some());
            if worker.unsettled() != leases.len() as u64 + seconds {
                let (number, open) = (worker.number, worker.unsettled());
                return Err(format!("B1: worker {number} has {} leases and {open} unsettled ones", leases.len()));
            }
            leased += leases.len() as u64;
            consuming += leases.iter().filter(|task| self.ledger.slot(task.0).consumes).count() as u64;
        }
        let counted: u64 = self.runs.iter().flatten().map(|run| run.counts.leased).sum();
        if (leased, consuming) != (counted, self.consuming) {
            let counted = (counted, self.consuming);
            return Err(format!("(leases, those with inputs) are {:?}, counted as {counted:?}", (leased, consuming)));
        }
        Ok(())
    }

    /// The two attempts of a task run in two workers, which know it.
    fn check_races(&self) -> Result<(), String> {
        let mut racing: Vec<u32> = Vec::new();
        for (task, second) in self.rivals.all() {
            match self.kernel.worker_of(TaskIndex(task)) {
                Some(first) if first.0 != second => racing.extend([first.0, second]),
                first => return Err(format!("task {task} is tried by worker {second} beside {first:?}")),
            }
        }
        racing.sort_unstable();
        let marked = self.workers.iter().filter(|worker| worker.is_racing).map(|worker| worker.number);
        let marked: Vec<u32> = marked.collect();
        if marked != racing {
            return Err(format!("the workers {racing:?} share tasks, and {marked:?} are said to"));
        }
        Ok(())
    }

    /// Whoever could run but for an input that only one worker has, waits for that worker's answer.
    fn check_values(&self) -> Result<(), String> {
        for task in (0..self.kernel.statistics().slots as u32).map(TaskIndex) {
            if self.kernel.state(task) != TaskState::Ready {
                continue;
            }
            for input in self.kernel.predecessors(task) {
                match self.ledger.value(input.0) {
                    None => return Err(format!("{task:?} is ready, and the value of {input:?} is nowhere")),
                    Some(value) if value.payload.is_some() || value.is_asked_for() => {}
                    Some(_) => return Err(format!("{task:?} waits for {input:?}, which nobody was asked for")),
                }
            }
        }
        Ok(())
    }
}
