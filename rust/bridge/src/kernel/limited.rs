//! The engine of tasks in the client's own process, together with the limits that it keeps to.
use std::ops::{Deref, DerefMut};

use headrace_kernel::{ClassId, Kernel as Engine, LeaseRequest, Leased, Oracle, Preference, TaskIndex, WorkerId};
use headrace_protocol::limits::{Asker, Demand, Group, Limits};
use headrace_wire::ANY_WORKER;
use rustc_hash::FxHashMap;

use crate::offer::Offer;

/// Class of a task that ends at once.
const ENDING_CLASS: ClassId = ClassId(u32::MAX - 1);

pub(super) struct Limited {
    engine: Engine,
    limits: Limits,
    offer: Offer,
    /// What tasks may be pinned to.
    workers: u32,
    runners: u32,
    /// Whether whoever runs tasks stands in for all workers: then pins mean nothing.
    has_stand_ins: bool,
    /// Classes of tasks that are not of the plain ones, by slot.
    classes: FxHashMap<u32, ClassId>,
    group: Group,
}

impl Limited {
    pub(super) fn new(workers: u32, stand_ins: Option<u32>, spares: u32, offer: Offer) -> Self {
        let mut engine = Engine::new();
        let firm = stand_ins.unwrap_or(workers);
        let runners = firm + spares;
        (0..runners).for_each(|worker| engine.add_worker(WorkerId(worker)));
        Self {
            engine,
            limits: Limits::with_spares(firm, spares, (*offer).clone()),
            offer,
            workers,
            runners,
            has_stand_ins: stand_ins.is_some(),
            classes: FxHashMap::default(),
            group: Group::default(),
        }
    }

    /// What a task with these options comes to: its pin, and what it takes; an error if nobody can ever run it.
    pub(super) fn asks(&self, pin: u32, policy: &[u8]) -> Result<(u32, Demand), String> {
        let demand = self.offer.demand_of(self.workers, pin, policy)?;
        Ok((if self.has_stand_ins { ANY_WORKER } else { pin }, demand))
    }

    /// The class of a task that comes to this, submitted by a task that is so deep itself; 0 for what no task submits.
    pub(super) fn enter_class(&mut self, (pin, demand): &(u32, Demand), depth: u32) -> ClassId {
        self.limits.enter_class(Asker { nest: depth, ..Asker::FIRST }, *pin, demand.clone())
    }

    /// The task of this class did not come to be.
    pub(super) fn leave_class(&mut self, class: ClassId) {
        self.limits.leave_class(class);
    }

    /// Takes note of the class of a new task.
    pub(super) fn note_class(&mut self, slot: u32, class: ClassId) {
        if self.limits.is_counted(class) {
            self.classes.insert(slot, class);
        }
    }

    /// The task has gone.
    pub(super) fn forget(&mut self, slot: u32) {
        if let Some(class) = self.classes.remove(&slot) {
            self.limits.leave_class(class);
        }
    }

    /// The class of a task, also while nobody may run it.
    pub(super) fn class(&self, task: TaskIndex) -> ClassId {
        self.classes.get(&task.0).copied().unwrap_or_else(|| self.engine.class_of(task))
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whoever runs tasks: workers, or those who stand in for them.
    pub(super) fn runners(&self) -> u32 {
        self.runners
    }

    /// Those of them that are there from the start.
    pub(super) fn workers(&self) -> u32 {
        self.workers
    }

    pub(super) fn has_stand_ins(&self) -> bool {
        self.has_stand_ins
    }

    /// Leases one task to a worker, if it may run one.
    pub(super) fn lease(&mut self, worker: u32) -> Option<Leased> {
        let mut leased = Vec::new();
        let mut group = std::mem::take(&mut self.group);
        self.limits.choose(&self.engine, worker, &mut group);
        while leased.is_empty() && self.limits.next_group(&self.engine, worker, &mut group) {
            self.lease_from(worker, &group.classes, &mut leased);
        }
        self.group = group;
        let lease = leased.pop()?;
        let class = self.classes.get(&lease.task.0).copied();
        self.limits.note_batch(worker, class.into_iter());
        Some(lease)
    }

    /// Leases one task to a worker that was submitted so deep or deeper, the deepest first.
    pub(super) fn lease_deep(&mut self, worker: u32, depth: u32) -> Option<Leased> {
        let nest = |class: ClassId| self.limits.class(class).map_or(0, |class| class.nest);
        let classes = self.engine.ready_priorities().map(|(class, priority)| (nest(class), priority, class));
        let deep = classes.filter(|&(nest, _, class)| nest >= depth && self.limits.may_take(worker, class));
        let (.., class) = deep.max()?;
        let mut leased = Vec::new();
        self.lease_from(worker, &[class], &mut leased);
        let lease = leased.pop()?;
        self.limits.note_lease(worker, class);
        Some(lease)
    }

    /// A parked task ends well without a worker.
    pub(super) fn end_parked(&mut self, task: TaskIndex) {
        let nobody = WorkerId(self.runners);
        self.engine.add_worker(nobody);
        self.engine.set_class(task, ENDING_CLASS);
        let mut leased = Vec::new();
        let classes = &[ENDING_CLASS];
        let request =
            LeaseRequest { classes, tasks_max: 1, seeds_max: 1, budget: 1, only_preferred: false, roots: true };
        self.engine.lease(nobody, &request, &mut Indifferent, &mut leased);
        if let Some(lease) = leased.pop() {
            // It was leased just now.
            let _ = self.engine.complete(nobody, lease.task, lease.attempt, true);
        }
    }

    /// The worker has ended what it ran, and holds nothing any more.
    pub(super) fn release(&mut self, worker: u32) {
        self.limits.lose_worker(worker);
    }

    fn lease_from(&mut self, worker: u32, classes: &[ClassId], leased: &mut Vec<Leased>) {
        let request =
            LeaseRequest { classes, tasks_max: 1, seeds_max: 1, budget: 1, only_preferred: false, roots: true };
        self.engine.lease(WorkerId(worker), &request, &mut Indifferent, leased);
    }
}

impl Deref for Limited {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl DerefMut for Limited {
    fn deref_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }
}

/// Every task is like the other: leases are given one by one.
struct Indifferent;

impl Oracle for Indifferent {
    fn cost(&mut self, _task: TaskIndex) -> u64 {
        1
    }

    fn preference(&mut self, _predecessors: &[TaskIndex], _task: TaskIndex) -> Preference {
        Preference::Nobody
    }
}
