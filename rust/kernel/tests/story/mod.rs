//! A kernel with two workers, and short words for what happens to it. Every step ends with `check()`.
#![allow(dead_code, missing_docs, unreachable_pub)]

use headrace_kernel::{
    Attempt, Chunk, ClassId, Classes, Ended, GraphError, Kernel, LeaseRequest, Leased, Oracle, Preference, Priorities,
    Returned, TaskIndex, TaskState, WorkerId,
};

pub const ANNA: WorkerId = WorkerId(1);
pub const BERT: WorkerId = WorkerId(2);

/// A kernel with two workers, and short words for what happens to it.
pub struct Story {
    pub kernel: Kernel,
    attempts: Vec<Attempt>,
}

impl Story {
    pub fn new() -> Self {
        let mut kernel = Kernel::new();
        kernel.add_worker(ANNA);
        kernel.add_worker(BERT);
        Story { kernel, attempts: Vec::new() }
    }

    /// Tasks of class 0, each with its predecessors; the results of `keep` are held.
    pub fn submit(&mut self, rows: &[&[u32]], keep: &[u32]) -> Vec<TaskIndex> {
        self.submit_on(&[], rows, keep)
    }

    pub fn submit_on(&mut self, external: &[TaskIndex], rows: &[&[u32]], keep: &[u32]) -> Vec<TaskIndex> {
        let chunk = (Classes::One(ClassId(0)), Priorities::One(0));
        self.try_submit(external, rows, keep, chunk).expect("a valid chunk")
    }

    pub fn try_submit(
        &mut self,
        external: &[TaskIndex],
        rows: &[&[u32]],
        keep: &[u32],
        (class, priority): (Classes<'_>, Priorities<'_>),
    ) -> Result<Vec<TaskIndex>, GraphError> {
        let dep_counts: Vec<u32> = rows.iter().map(|row| row.len() as u32).collect();
        let deps = rows.concat();
        let chunk = Chunk { dep_counts: &dep_counts, deps: &deps, external, class, priority, keep };
        let mut slots = Vec::new();
        self.kernel.submit(&chunk, &mut slots)?;
        self.check();
        Ok(slots)
    }

    pub fn refused(&mut self, rows: &[&[u32]]) -> GraphError {
        let before = self.kernel.statistics();
        let chunk = (Classes::One(ClassId(0)), Priorities::One(0));
        let error = self.try_submit(&[], rows, &[], chunk).expect_err("a bad chunk");
        assert_eq!(self.kernel.statistics(), before, "a refused chunk changes nothing");
        error
    }

    /// Leases at most so many tasks of class 0.
    pub fn lease(&mut self, worker: WorkerId, tasks_max: u32) -> Vec<TaskIndex> {
        self.batch(worker, tasks_max).iter().map(|lease| lease.task).collect()
    }

    pub fn batch(&mut self, worker: WorkerId, tasks_max: u32) -> Vec<Leased> {
        self.batch_of(worker, LeaseRequest { tasks_max, ..everything(&[ClassId(0)]) })
    }

    pub fn batch_of(&mut self, worker: WorkerId, request: LeaseRequest<'_>) -> Vec<Leased> {
        let mut batch = Vec::new();
        self.kernel.lease(worker, &request, &mut Cheap, &mut batch);
        for lease in &batch {
            let slot = lease.task.0 as usize;
            if slot >= self.attempts.len() {
                self.attempts.resize(slot + 1, Attempt(0));
            }
            assert!(lease.attempt > self.attempts[slot], "K4: every lease has a new number");
            self.attempts[slot] = lease.attempt;
        }
        self.check();
        batch
    }

    /// Completes tasks whose results only the worker has.
    pub fn complete(&mut self, worker: WorkerId, tasks: &[TaskIndex]) {
        self.completes(worker, tasks, false);
    }

    pub fn completes(&mut self, worker: WorkerId, tasks: &[TaskIndex], secured: bool) {
        for &task in tasks {
            let attempt = self.kernel.attempt(task);
            self.kernel.complete(worker, task, attempt, secured).expect("not stale");
            self.check();
        }
    }

    pub fn fail(&mut self, worker: WorkerId, task: TaskIndex) {
        self.kernel.fail(worker, task, self.kernel.attempt(task)).expect("not stale");
        self.check();
    }

    pub fn give_back(&mut self, worker: WorkerId, task: TaskIndex) {
        self.kernel.give_back(worker, task, self.kernel.attempt(task)).expect("not stale");
        self.check();
    }

    pub fn ended(&mut self) -> Vec<Ended> {
        let mut ended = Vec::new();
        self.kernel.drain_ended(|entry| ended.push(entry));
        self.check();
        ended
    }

    pub fn returned(&mut self) -> Vec<Returned> {
        let mut returned = Vec::new();
        self.kernel.drain_returned(|lease| returned.push(lease));
        returned
    }

    pub fn dead(&mut self) -> Vec<TaskIndex> {
        let mut dead = Vec::new();
        self.kernel.drain_dead(|task| dead.push(task));
        dead
    }

    /// Drains all, and returns what was freed, ascending.
    pub fn freed(&mut self) -> Vec<TaskIndex> {
        let mut freed = Vec::new();
        self.kernel.drain_ended(|_| {});
        self.kernel.drain_returned(|_| {});
        self.kernel.drain_dead(|_| {});
        while self.kernel.drain_freed(|task| freed.push(task)) {
            self.kernel.drain_dead(|_| {});
        }
        freed.sort();
        self.check();
        freed
    }

    pub fn states(&self, tasks: &[TaskIndex]) -> Vec<TaskState> {
        tasks.iter().map(|&task| self.kernel.state(task)).collect()
    }

    pub fn check(&self) {
        self.kernel.check().unwrap_or_else(|error| panic!("{error}"));
    }
}

pub fn everything(classes: &[ClassId]) -> LeaseRequest<'_> {
    LeaseRequest {
        classes,
        tasks_max: u32::MAX,
        seeds_max: u32::MAX,
        budget: u64::MAX,
        only_preferred: false,
        roots: true,
    }
}

/// Every task costs one; nobody is preferred.
pub struct Cheap;

impl Oracle for Cheap {
    fn cost(&mut self, _: TaskIndex) -> u64 {
        1
    }

    fn preference(&mut self, predecessors: &[TaskIndex], _: TaskIndex) -> Preference {
        assert!(!predecessors.is_empty(), "nobody is asked about tasks without predecessors");
        Preference::Nobody
    }
}

/// All that are named belong to others.
pub struct Elsewhere<'a>(pub &'a [TaskIndex]);

impl Oracle for Elsewhere<'_> {
    fn cost(&mut self, _: TaskIndex) -> u64 {
        1
    }

    fn preference(&mut self, _: &[TaskIndex], task: TaskIndex) -> Preference {
        if self.0.contains(&task) { Preference::Other } else { Preference::Mine }
    }
}

pub const CHAIN: &[&[u32]] = &[&[], &[0], &[1]];
pub const DIAMOND: &[&[u32]] = &[&[], &[0], &[0], &[1, 2]];
