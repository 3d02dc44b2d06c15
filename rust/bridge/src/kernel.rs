//! The kernel for the modes that run tasks in the client's own process: slots as plain numbers, one call an event.
use std::sync::{Mutex, MutexGuard, PoisonError};

use headrace_kernel::{
    Attempt, Chunk, ClassId, Classes, HowEnded, Kernel as Engine, LeaseRequest, Leased, Oracle, Preference, Priorities,
    TaskIndex, TaskState, WorkerId,
};
use headrace_wire::ANY_WORKER;
use pyo3::prelude::*;

use crate::codec::ExternalId;
use crate::errors::graph_error;
use crate::graph::Graph;

/// Class of tasks that any worker may run; class `1 + w` belongs to worker `w`.
const ANY_CLASS: ClassId = ClassId(0);

/// Class of tasks that nobody may run yet.
const PARKED_CLASS: ClassId = ClassId(u32::MAX);

/// Which tasks are ready, and which results are alive. A result can never be lost here: worker and client share it.
#[pyclass(frozen, module = "headrace._core")]
pub(crate) struct Kernel {
    engine: Mutex<Engine>,
    /// Per worker, or for all of them: the classes that it may run.
    classes: Vec<Vec<ClassId>>,
}

/// What the kernel decided by itself: tasks that ended without running as (slot, slot of the failed task or `None` if
/// cancelled), results that died, slots that are free from now on.
type Consequences = (Vec<(u32, Option<u32>)>, Vec<u32>, Vec<u32>);

#[pymethods]
impl Kernel {
    /// A kernel for this many workers; or for so many stand-ins, each of which runs the tasks of all of them.
    #[new]
    #[pyo3(signature = (workers, *, stand_ins = None))]
    fn new(workers: u32, stand_ins: Option<u32>) -> Self {
        let mut engine = Engine::new();
        let classes: Vec<Vec<ClassId>> = match stand_ins {
            Some(_) => vec![(0..=workers).map(ClassId).collect()],
            None => (0..workers).map(|worker| vec![ANY_CLASS, ClassId(1 + worker)]).collect(),
        };
        (0..stand_ins.unwrap_or(workers)).for_each(|worker| engine.add_worker(WorkerId(worker)));
        Self { engine: Mutex::new(engine), classes }
    }

    /// (run, index) of the results that a graph cites from outside, in its order.
    fn externals(&self, graph: &Graph) -> Vec<(u32, u32)> {
        let place = |external: &ExternalId| match *external {
            ExternalId::Result { run, index, .. } => Some((run, index)),
            ExternalId::Large(_) => None,
        };
        graph.lock().externals.iter().filter_map(place).collect()
    }

    /// Adds the first `count` tasks of a graph and holds the kept ones. `externals` are the slots of the results that it
    /// cites from outside, in its order; the answer has the slots of its tasks.
    fn submit(
        &self,
        py: Python<'_>,
        graph: &Graph,
        count: usize,
        externals: Vec<u32>,
        keep: Vec<u32>,
    ) -> PyResult<Vec<u32>> {
        let external = tasks(&externals);
        let mut slots = Vec::new();
        let data = graph.lock();
        let columns = &data.columns;
        let (class, priority): (Vec<ClassId>, Vec<i32>) = match columns.task_options.is_empty() {
            true => Default::default(),
            false => (0..count as u32)
                .map(|index| columns.options_of(index))
                .map(|options| options.map_or((ANY_CLASS, 0), |options| (class_of(options.worker), options.priority)))
                .unzip(),
        };
        let (dep_counts, deps) = data.edges(count);
        let chunk = Chunk {
            dep_counts: &dep_counts,
            deps: &deps,
            external: &external,
            class: if class.is_empty() { Classes::One(ANY_CLASS) } else { Classes::Each(&class) },
            priority: if priority.is_empty() { Priorities::One(0) } else { Priorities::Each(&priority) },
            keep: &keep,
        };
        let submitted = self.lock().submit(&chunk, &mut slots);
        drop(data);
        submitted.map_err(|why| graph_error(py, &why.to_string()))?;
        Ok(slots.into_iter().map(|task| task.0).collect())
    }

    /// Adds one task, held once, behind the tasks in `externals`, each named once; the answer is its slot.
    #[pyo3(signature = (externals, worker = None, priority = 0))]
    fn submit_one(&self, py: Python<'_>, externals: Vec<u32>, worker: Option<u32>, priority: i32) -> PyResult<u32> {
        let deps: Vec<u32> = (0..externals.len() as u32).map(|position| headrace_kernel::EXTERNAL | position).collect();
        let chunk = Chunk {
            dep_counts: &[externals.len() as u32],
            deps: &deps,
            external: &tasks(&externals),
            class: Classes::One(worker.map_or(ANY_CLASS, class_of)),
            priority: Priorities::One(priority),
            keep: &[0],
        };
        let mut slots = Vec::new();
        self.lock().submit(&chunk, &mut slots).map_err(|why| graph_error(py, &why.to_string()))?;
        Ok(slots[0].0)
    }

    /// Leases one task to a worker: (slot, attempt), or None if none is ready for it.
    fn lease(&self, worker: usize) -> Option<(u32, u32)> {
        let request = LeaseRequest {
            classes: &self.classes[worker.min(self.classes.len() - 1)],
            tasks_max: 1,
            seeds_max: 1,
            budget: 1,
            only_preferred: false,
            roots: true,
        };
        let mut leased: Vec<Leased> = Vec::new();
        self.lock().lease(WorkerId(worker as u32), &request, &mut Indifferent, &mut leased);
        leased.first().map(|lease| (lease.task.0, lease.attempt.0))
    }

    /// The predecessors of a task, in the order in which its arguments cite them.
    fn predecessors(&self, slot: u32) -> Vec<u32> {
        self.lock().predecessors(TaskIndex(slot)).iter().map(|task| task.0).collect()
    }

    /// The task returned; false if the lease is no longer good (K4).
    fn complete(&self, worker: u32, slot: u32, attempt: u32) -> bool {
        self.lock().complete(WorkerId(worker), TaskIndex(slot), Attempt(attempt), true).is_ok()
    }

    /// The task failed; false if the lease is no longer good (K4).
    fn fail(&self, worker: u32, slot: u32, attempt: u32) -> bool {
        self.lock().fail(WorkerId(worker), TaskIndex(slot), Attempt(attempt)).is_ok()
    }

    /// The task fails before anybody runs it.
    fn fail_unleased(&self, slot: u32) {
        self.lock().fail_unleased(TaskIndex(slot));
    }

    /// From now on `drain_ready` tells when one of these tasks has become ready, also now.
    fn watch(&self, slots: Vec<u32>) {
        let mut engine = self.lock();
        tasks(&slots).into_iter().for_each(|task| engine.watch(task));
    }

    /// Watched tasks that have become ready since the last call; to be asked for before `drain`.
    fn drain_ready(&self) -> Vec<u32> {
        let mut ready = Vec::new();
        self.lock().drain_ready(|task| ready.push(task.0));
        ready
    }

    /// The task is to run again; false if the lease is no longer good (K4).
    fn give_back(&self, worker: u32, slot: u32, attempt: u32) -> bool {
        self.lock().give_back(WorkerId(worker), TaskIndex(slot), Attempt(attempt)).is_ok()
    }

    /// Keeps a task from being leased; the answer is for `unpark`.
    fn park(&self, slot: u32) -> u32 {
        self.lock().set_class(TaskIndex(slot), PARKED_CLASS).0
    }

    /// Lets a parked task be leased again.
    fn unpark(&self, slot: u32, class: u32) {
        self.lock().set_class(TaskIndex(slot), ClassId(class));
    }

    /// Cancels tasks that have not ended, and all that depends on them.
    fn cancel(&self, slots: Vec<u32>) {
        self.lock().cancel(&tasks(&slots));
    }

    /// Adds a hold on a result.
    fn hold(&self, slot: u32) {
        self.lock().hold(TaskIndex(slot));
    }

    /// Takes a hold away.
    fn unhold(&self, slot: u32) {
        self.lock().unhold(TaskIndex(slot));
    }

    /// What followed from the calls since the last look; to be asked for before the next submit.
    fn drain(&self) -> Consequences {
        let mut engine = self.lock();
        let mut ended = Vec::new();
        engine.drain_ended(|task| {
            let root = match task.how {
                HowEnded::Skipped { root } => Some(root.0),
                HowEnded::Cancelled => None,
            };
            ended.push((task.task.0, root));
        });
        engine.drain_returned(|_| {});
        let (mut dead, mut freed) = (Vec::new(), Vec::new());
        engine.drain_dead(|task| dead.push(task.0));
        while engine.drain_freed(|task| freed.push(task.0)) {
            engine.drain_dead(|task| dead.push(task.0));
        }
        (ended, dead, freed)
    }

    /// How many of these tasks are ready.
    fn count_ready(&self, slots: Vec<u32>) -> usize {
        let engine = self.lock();
        let is_ready =
            |task: &TaskIndex| engine.state(*task) == TaskState::Ready && engine.class_of(*task) != PARKED_CLASS;
        tasks(&slots).iter().filter(|&task| is_ready(task)).count()
    }

    /// (waiting, ready, leased) tasks now, of all runs. Those that are parked wait.
    fn open(&self) -> (u64, u64, u64) {
        let engine = self.lock();
        let (statistics, parked) = (engine.statistics(), engine.ready_len(PARKED_CLASS) as u64);
        (statistics.waiting + parked, statistics.ready - parked, statistics.leased)
    }
}

impl Kernel {
    /// Python does not run while the guard lives.
    fn lock(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
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

fn class_of(worker: u32) -> ClassId {
    if worker == ANY_WORKER { ANY_CLASS } else { ClassId(1 + worker) }
}

fn tasks(slots: &[u32]) -> Vec<TaskIndex> {
    slots.iter().map(|&slot| TaskIndex(slot)).collect()
}
