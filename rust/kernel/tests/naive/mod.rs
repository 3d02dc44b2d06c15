//! A naive kernel: every answer is worked out from the states and the edges by looking at everything, and compared with what
//! the kernel says. A [`World`] holds both and applies each operation to both.
#![allow(dead_code, missing_docs, unreachable_pub)]

mod compare;
mod drains;
mod lease;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use headrace_kernel::{
    Attempt, Chunk, ClassId, Classes, EXTERNAL, Kernel, Priorities, Stale, TaskIndex, TaskState, WorkerId,
};

use TaskState::{Cancelled, Done, Failed, Leased as LeasedState, Ready, Skipped, Waiting};

/// One task of the model, by the number of its submission. Numbers are never used again.
#[derive(Clone, Debug)]
pub struct Naive {
    pub preds: Vec<usize>,
    pub class: u32,
    pub priority: i32,
    pub state: TaskState,
    pub holds: u32,
    pub dead: bool,
    pub secured: bool,
    pub released: bool,
    pub root: Option<usize>,
    pub watched: bool,
    /// `None` once freed.
    pub slot: Option<u32>,
}

/// What can happen. Tasks are named by the number of their submission.
#[derive(Clone, Debug)]
pub enum Op {
    Submit {
        deps: Vec<Vec<Dep>>,
        classes: Vec<u32>,
        priorities: Vec<i32>,
        keep: Vec<u32>,
    },
    AddWorker(u32),
    Lease {
        worker: u32,
        classes: Vec<u32>,
        tasks_max: u32,
        seeds_max: u32,
        budget: u64,
        only_preferred: bool,
        roots: bool,
        salt: u32,
    },
    Complete {
        task: usize,
        secured: bool,
    },
    /// A report that matches no lease.
    Stale {
        task: usize,
        worker: u32,
        attempt_off: i64,
    },
    Fail(usize),
    FailUnleased(usize),
    GiveBack(usize),
    Rival(usize),
    TakeOver {
        task: usize,
        worker: u32,
    },
    SetClass(usize, u32),
    Watch(usize),
    LoseWorker(u32),
    LoseResult(usize),
    Secure(usize),
    Cancel(Vec<usize>),
    Hold(usize),
    Unhold(usize),
    DrainFreed,
}

/// A predecessor of a task to be submitted.
#[derive(Clone, Copy, Debug)]
pub enum Dep {
    Local(u32),
    External(usize),
}

/// Worker and attempt.
type Lease = (u32, u32);

/// The kernel and the model, side by side.
#[derive(Clone, Default)]
pub struct World {
    pub kernel: Kernel,
    pub tasks: Vec<Naive>,
    /// The last number of each slot.
    pub attempts: Vec<u32>,
    /// The number of the lease of each task that has a rival.
    pub elders: BTreeMap<usize, u32>,
    /// The lease queue of each worker.
    pub workers: BTreeMap<u32, Vec<usize>>,
    pub ready: BTreeMap<u32, BTreeMap<Reverse<i32>, Vec<usize>>>,
    free_slots: BTreeSet<u32>,
    /// Who ended, because of whom, and what lease it had.
    ended: Vec<(usize, Option<usize>, Option<Lease>)>,
    returned: Vec<(usize, u32, u32)>,
    became_ready: Vec<usize>,
    dead: BTreeSet<usize>,
    stale: u64,
}

impl World {
    pub fn slot(&self, task: usize) -> TaskIndex {
        TaskIndex(self.tasks[task].slot.expect("the task is not freed"))
    }

    pub fn attempt(&self, task: usize) -> Attempt {
        Attempt(self.elders.get(&task).copied().unwrap_or(self.attempts[self.slot(task).0 as usize]))
    }

    pub fn worker_of(&self, task: usize) -> Option<u32> {
        self.workers.iter().find(|(_, queue)| queue.contains(&task)).map(|(&worker, _)| worker)
    }

    /// Tasks in the kernel.
    pub fn live(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.tasks.len()).filter(|&task| self.tasks[task].slot.is_some())
    }

    pub fn pending(&self, task: usize) -> bool {
        matches!(self.tasks[task].state, Waiting | Ready | LeasedState)
    }

    fn done(&self, task: usize) -> bool {
        self.tasks[task].state == Done
    }

    pub fn consumers(&self, task: usize) -> Vec<usize> {
        self.live().filter(|&consumer| self.tasks[consumer].preds.contains(&task)).collect()
    }

    fn lineage(&self, task: usize) -> usize {
        self.consumers(task).iter().filter(|&&consumer| !self.tasks[consumer].released).count()
    }

    fn missing(&self, task: usize) -> Vec<usize> {
        self.tasks[task].preds.iter().copied().filter(|&pred| !self.done(pred)).collect()
    }

    /// Whether a waiting task may be leased behind what the worker has.
    fn may_follow(&self, task: usize, worker: u32) -> bool {
        let missing = self.missing(task);
        self.tasks[task].state == Waiting
            && !missing.is_empty()
            && missing.iter().all(|&pred| self.workers[&worker].contains(&pred))
    }

    fn task_at(&self, slot: TaskIndex) -> usize {
        self.live().find(|&task| self.tasks[task].slot == Some(slot.0)).expect("the slot holds a task")
    }

    /// Applies the operation to both, drains everything but freed slots, and compares.
    pub fn apply(&mut self, op: &Op) {
        self.step(op);
        self.compare();
    }

    /// The same without comparing more than what the kernel says by itself.
    pub fn step(&mut self, op: &Op) {
        match op {
            Op::Submit { deps, classes, priorities, keep } => self.submit(deps, classes, priorities, keep),
            &Op::AddWorker(worker) => {
                self.kernel.add_worker(WorkerId(worker));
                self.workers.entry(worker).or_default();
            }
            Op::Lease { .. } => self.lease(op),
            &Op::Complete { task, secured } => self.complete(task, secured),
            &Op::Stale { task, worker, attempt_off } => {
                let attempt = Attempt((i64::from(self.attempt(task).0) + attempt_off) as u32);
                let (worker, slot) = (WorkerId(worker), self.slot(task));
                assert_eq!(self.kernel.complete(worker, slot, attempt, true), Err(Stale));
                assert_eq!(self.kernel.fail(worker, slot, attempt), Err(Stale));
                assert_eq!(self.kernel.give_back(worker, slot, attempt), Err(Stale));
                self.stale += 3;
            }
            &Op::Fail(task) => {
                let worker = WorkerId(self.worker_of(task).expect("leased"));
                self.kernel.fail(worker, self.slot(task), self.attempt(task)).expect("not stale");
                self.failed(task);
            }
            &Op::FailUnleased(task) => {
                self.kernel.fail_unleased(self.slot(task));
                if self.pending(task) {
                    self.failed(task);
                }
            }
            &Op::GiveBack(task) => self.give_back(task),
            &Op::Rival(task) => self.add_rival(task),
            &Op::TakeOver { task, worker } => self.take_over(task, worker),
            &Op::SetClass(task, class) => self.set_class(task, class),
            &Op::Watch(task) => {
                self.kernel.watch(self.slot(task));
                self.tasks[task].watched = true;
                self.note_ready(task);
            }
            &Op::LoseWorker(worker) => self.lose_worker(worker),
            &Op::LoseResult(task) => self.lose_result(task),
            &Op::Secure(task) => {
                self.kernel.secure(self.slot(task));
                if self.done(task) {
                    self.tasks[task].secured = true;
                }
            }
            Op::Cancel(tasks) => {
                let slots: Vec<TaskIndex> = tasks.iter().map(|&task| self.slot(task)).collect();
                self.kernel.cancel(&slots);
                for &task in tasks {
                    if self.pending(task) {
                        self.end(task, None);
                    }
                }
            }
            &Op::Hold(task) => {
                self.kernel.hold(self.slot(task));
                self.tasks[task].holds += 1;
            }
            &Op::Unhold(task) => {
                self.kernel.unhold(self.slot(task));
                self.tasks[task].holds = self.tasks[task].holds.saturating_sub(1);
            }
            Op::DrainFreed => self.drain_freed(),
        }
        self.drain();
    }

    fn submit(&mut self, deps: &[Vec<Dep>], classes: &[u32], priorities: &[i32], keep: &[u32]) {
        let first = self.tasks.len();
        let mut external = Vec::new();
        let mut column = Vec::new();
        for (local, row) in deps.iter().enumerate() {
            let mut preds = Vec::new();
            for &dep in row {
                match dep {
                    Dep::Local(number) => {
                        column.push(number);
                        preds.push(first + number as usize);
                    }
                    Dep::External(task) => {
                        // Now and then one task is named by two positions.
                        let slot = self.slot(task);
                        let known = external.iter().position(|&other| other == slot).filter(|_| local % 2 == 0);
                        let position = known.unwrap_or_else(|| {
                            external.push(slot);
                            external.len() - 1
                        });
                        column.push(EXTERNAL | position as u32);
                        preds.push(task);
                    }
                }
            }
            self.tasks.push(Naive {
                preds,
                class: classes[local],
                priority: priorities[local],
                state: Waiting,
                holds: keep.iter().filter(|&&kept| kept as usize == local).count() as u32,
                dead: false,
                secured: false,
                released: false,
                root: None,
                watched: false,
                slot: None,
            });
        }
        let counts: Vec<u32> = deps.iter().map(|row| row.len() as u32).collect();
        let class_ids: Vec<ClassId> = classes.iter().map(|&class| ClassId(class)).collect();
        let chunk = Chunk {
            dep_counts: &counts,
            deps: &column,
            external: &external,
            class: Classes::Each(&class_ids),
            priority: Priorities::Each(priorities),
            keep,
        };
        let mut slots = Vec::new();
        self.kernel.submit(&chunk, &mut slots).expect("a valid chunk");
        assert_eq!(slots.len(), deps.len());
        for (local, slot) in slots.iter().enumerate() {
            let expected = self.free_slots.pop_first().unwrap_or(self.attempts.len() as u32);
            assert_eq!(slot.0, expected, "the lowest free slot is taken first");
            if expected as usize == self.attempts.len() {
                self.attempts.push(0);
            }
            self.tasks[first + local].slot = Some(expected);
        }
        for task in first..self.tasks.len() {
            if self.missing(task).is_empty() {
                self.make_ready(task, false);
            }
        }
        for task in first..self.tasks.len() {
            self.doom(task);
        }
    }

    /// Ends a pending task that has a predecessor which ended badly.
    fn doom(&mut self, task: usize) -> bool {
        if !self.pending(task) {
            return true;
        }
        let bad = self.tasks[task].preds.iter().find(|&&pred| self.tasks[pred].state > Done);
        let Some(&bad) = bad else { return false };
        let root = match self.tasks[bad].state {
            Failed => Some(bad),
            Skipped => self.tasks[bad].root.filter(|&root| self.tasks[root].slot.is_some()).or(Some(bad)),
            _ => None,
        };
        self.end(task, root);
        true
    }

    /// Skips (with a root) or cancels a task and its descendants.
    fn end(&mut self, task: usize, root: Option<usize>) {
        let mut queue = vec![task];
        while let Some(task) = queue.pop() {
            if self.pending(task) {
                let lease = self.worker_of(task).map(|worker| (worker, self.attempt(task).0));
                self.leave(task);
                self.tasks[task].state = if root.is_some() { Skipped } else { Cancelled };
                self.tasks[task].root = root;
                self.ended.push((task, root, lease));
                queue.extend(self.consumers(task));
            }
        }
    }

    fn failed(&mut self, task: usize) {
        self.leave(task);
        self.tasks[task].state = Failed;
        for consumer in self.consumers(task) {
            self.end(consumer, Some(task));
        }
    }

    fn leave(&mut self, task: usize) {
        self.elders.remove(&task);
        self.workers.values_mut().for_each(|queue| queue.retain(|&other| other != task));
        for levels in self.ready.values_mut() {
            levels.values_mut().for_each(|queue| queue.retain(|&other| other != task));
        }
    }

    fn make_ready(&mut self, task: usize, front: bool) {
        self.tasks[task].state = Ready;
        self.enqueue(task, front);
        self.note_ready(task);
    }

    fn note_ready(&mut self, task: usize) {
        if self.tasks[task].watched && self.tasks[task].state == Ready {
            self.became_ready.push(task);
        }
    }

    fn enqueue(&mut self, task: usize, front: bool) {
        let Naive { class, priority, .. } = self.tasks[task];
        let queue = self.ready.entry(class).or_default().entry(Reverse(priority)).or_default();
        queue.insert(if front { 0 } else { queue.len() }, task);
    }

    fn complete(&mut self, task: usize, secured: bool) {
        let worker = self.worker_of(task).expect("leased");
        let result = self.kernel.complete(WorkerId(worker), self.slot(task), self.attempt(task), secured);
        if !self.missing(task).is_empty() {
            assert_eq!(result, Err(Stale), "a task cannot be done before its predecessors");
            self.stale += 1;
            return;
        }
        result.expect("not stale");
        self.leave(task);
        self.tasks[task].state = Done;
        self.tasks[task].secured = secured;
        for consumer in self.consumers(task).into_iter().rev() {
            if self.tasks[consumer].state == Waiting && self.missing(consumer).is_empty() {
                self.make_ready(consumer, true);
            }
        }
    }

    fn give_back(&mut self, task: usize) {
        let worker = self.worker_of(task).expect("leased");
        self.kernel.give_back(WorkerId(worker), self.slot(task), self.attempt(task)).expect("not stale");
        self.leave(task);
        self.tasks[task].state = Waiting;
        self.return_illegal();
        if self.missing(task).is_empty() {
            self.make_ready(task, true);
        }
    }

    fn add_rival(&mut self, task: usize) {
        let number = self.kernel.add_rival(self.slot(task));
        if self.tasks[task].state != LeasedState || !self.missing(task).is_empty() {
            assert_eq!(number, None, "a rival beside no lease that runs");
            return;
        }
        self.elders.insert(task, self.attempt(task).0);
        let last = &mut self.attempts[self.tasks[task].slot.expect("it is leased") as usize];
        *last += 1;
        assert_eq!(number, Some(Attempt(*last)), "K4: every rival has a new number");
    }

    fn take_over(&mut self, task: usize, worker: u32) {
        let may = self.elders.contains_key(&task) && self.workers.contains_key(&worker);
        assert_eq!(self.kernel.take_over(self.slot(task), WorkerId(worker)), may);
        if may {
            self.leave(task);
            self.return_illegal();
            self.workers.get_mut(&worker).expect("known").push(task);
        }
    }

    fn set_class(&mut self, task: usize, class: u32) {
        let before = std::mem::replace(&mut self.tasks[task].class, class);
        assert_eq!(self.kernel.set_class(self.slot(task), ClassId(class)), ClassId(before));
        if before != class && self.tasks[task].state == Ready {
            self.leave(task);
            self.enqueue(task, true);
        }
    }

    /// Takes back every lease that does not stand behind all that it misses (K2).
    fn return_illegal(&mut self) {
        loop {
            let illegal = |(&worker, queue): (&u32, &Vec<usize>)| {
                let position = queue.iter().enumerate().position(|(position, &task)| {
                    self.missing(task).iter().any(|pred| !queue[..position].contains(pred))
                })?;
                Some((worker, queue[position]))
            };
            let Some((worker, task)) = self.workers.iter().find_map(illegal) else { return };
            self.returned.push((task, worker, self.attempt(task).0));
            self.leave(task);
            self.tasks[task].state = Waiting;
        }
    }

    fn lose_worker(&mut self, worker: u32) {
        let mut out = Vec::new();
        self.kernel.lose_worker(WorkerId(worker), &mut out);
        let queue = self.workers.remove(&worker).unwrap_or_default();
        let expected: Vec<_> = queue.iter().map(|&task| (self.slot(task), self.attempt(task))).collect();
        assert_eq!(out, expected, "the leases of a lost worker, in order");
        for &task in queue.iter().rev() {
            self.leave(task);
            self.tasks[task].state = Waiting;
            if self.missing(task).is_empty() {
                self.make_ready(task, true);
            }
        }
    }

    fn lose_result(&mut self, task: usize) {
        self.kernel.lose_result(self.slot(task));
        if !self.done(task) || self.tasks[task].dead || self.tasks[task].secured {
            return;
        }
        let (mut lost, mut revived) = (vec![task], Vec::new());
        while let Some(task) = lost.pop() {
            if self.done(task) {
                (self.tasks[task].state, self.tasks[task].dead, self.tasks[task].secured) = (Waiting, false, false);
                lost.extend(self.tasks[task].preds.iter().filter(|&&pred| self.tasks[pred].dead));
                revived.push(task);
            }
        }
        for task in self.live().collect::<Vec<_>>() {
            if self.tasks[task].state == Ready && !self.missing(task).is_empty() {
                self.leave(task);
                self.tasks[task].state = Waiting;
            }
        }
        self.return_illegal();
        for &task in revived.iter().rev() {
            if !self.doom(task) && self.missing(task).is_empty() {
                self.make_ready(task, true);
            }
        }
    }
}
