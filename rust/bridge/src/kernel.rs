//! The kernel for the modes that run tasks in the client's own process: slots as plain numbers, one call an event.
mod limited;
mod why;

use std::sync::{Mutex, MutexGuard, PoisonError};

use headrace_kernel::{Attempt, Chunk, ClassId, Classes, HowEnded, Priorities, TaskIndex, TaskState, WorkerId};
use headrace_protocol::limits::{ANY_CLASS, Demand};
use headrace_wire::ANY_WORKER;
use pyo3::prelude::*;

use crate::codec::ExternalId;
use crate::errors::{graph_error, no_suitable_worker};
use crate::graph::{Graph, Options, PolicyParts, encoded_policy};
use crate::offer::Offer;
use limited::Limited;

/// Class of tasks that nobody may run yet.
const PARKED_CLASS: ClassId = ClassId(u32::MAX);

/// Which tasks are ready, and which results are alive. A result can never be lost here: worker and client share it.
#[pyclass(frozen, module = "headrace._core")]
pub(crate) struct Kernel {
    engine: Mutex<Limited>,
}

/// What the kernel decided by itself: tasks that ended without running as (slot, slot of the failed task or `None` if
/// cancelled), results that died, slots that are free from now on.
type Consequences = (Vec<(u32, Option<u32>)>, Vec<u32>, Vec<u32>);

#[pymethods]
impl Kernel {
    /// A kernel for this many workers, or for so many stand-ins, each of which runs the tasks of all of them; and what
    /// these offer. So many spare ones run tasks within others that wait.
    #[new]
    #[pyo3(signature = (workers, offer, *, stand_ins = None, spares = 0))]
    fn new(workers: u32, offer: Offer, stand_ins: Option<u32>, spares: u32) -> Self {
        Self { engine: Mutex::new(Limited::new(workers, stand_ins, spares, offer)) }
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
    #[pyo3(signature = (graph, count, externals, keep, priority = 0, depth = 0))]
    #[expect(clippy::too_many_arguments, reason = "they are the parts of one graph's submission")]
    fn submit(
        &self,
        py: Python<'_>,
        graph: &Graph,
        count: usize,
        externals: Vec<u32>,
        keep: Vec<u32>,
        priority: i32,
        depth: u32,
    ) -> PyResult<Vec<u32>> {
        let external = tasks(&externals);
        let mut slots = Vec::new();
        let data = graph.lock();
        let mut engine = self.lock();
        // What tasks submit goes before what they might wait behind.
        let run_priority = priority.saturating_add(depth as i32);
        let (mut class, mut priority): (Vec<ClassId>, Vec<i32>) = Default::default();
        if depth > 0 || !data.columns.task_options.is_empty() {
            let asks = |options: &Options| engine.asks(options.worker, &options.policy);
            // The client has checked that each can be run.
            let asks: Vec<_> = data.columns.options.iter().map(|options| asks(options).unwrap_or_default()).collect();
            let plain = (ANY_WORKER, Demand::new());
            for index in 0..count {
                let row = data.columns.task_options.get(index).copied().unwrap_or(0) as usize;
                class.push(engine.enter_class(asks.get(row).unwrap_or(&plain), depth));
                let own = data.columns.options.get(row).map_or(0, |options| options.priority);
                priority.push(own.saturating_add(run_priority));
            }
        }
        let (dep_counts, deps) = data.edges(count);
        let chunk = Chunk {
            dep_counts: &dep_counts,
            deps: &deps,
            external: &external,
            class: if class.is_empty() { Classes::One(ANY_CLASS) } else { Classes::Each(&class) },
            priority: if priority.is_empty() { Priorities::One(run_priority) } else { Priorities::Each(&priority) },
            keep: &keep,
        };
        let submitted = engine.submit(&chunk, &mut slots);
        drop(data);
        if let Err(why) = submitted {
            class.into_iter().for_each(|class| engine.leave_class(class));
            return Err(graph_error(py, &why.to_string()));
        }
        for (slot, class) in slots.iter().zip(class) {
            engine.note_class(slot.0, class);
        }
        Ok(slots.into_iter().map(|task| task.0).collect())
    }

    /// Adds one task, held once, behind the tasks in `externals`, each named once; the answer is its slot. `name` is for the
    /// error if nobody can run it.
    #[pyo3(signature = (externals, name, worker = None, priority = 0, policy = None, depth = 0))]
    #[expect(clippy::too_many_arguments, reason = "they are the parts of one call")]
    fn submit_one(
        &self,
        py: Python<'_>,
        externals: Vec<u32>,
        name: &str,
        worker: Option<u32>,
        priority: i32,
        policy: Option<PolicyParts>,
        depth: u32,
    ) -> PyResult<u32> {
        let policy = policy.map_or_else(Vec::new, encoded_policy);
        let mut engine = self.lock();
        let asks = engine.asks(worker.unwrap_or(ANY_WORKER), &policy);
        let class = engine.enter_class(&asks.map_err(|text| no_suitable_worker(py, name, &text))?, depth);
        let deps: Vec<u32> = (0..externals.len() as u32).map(|position| headrace_kernel::EXTERNAL | position).collect();
        let chunk = Chunk {
            dep_counts: &[externals.len() as u32],
            deps: &deps,
            external: &tasks(&externals),
            class: Classes::One(class),
            priority: Priorities::One(priority.saturating_add(depth as i32)),
            keep: &[0],
        };
        let mut slots = Vec::new();
        if let Err(why) = engine.submit(&chunk, &mut slots) {
            engine.leave_class(class);
            return Err(graph_error(py, &why.to_string()));
        }
        engine.note_class(slots[0].0, class);
        Ok(slots[0].0)
    }

    /// Leases one task to a worker: (slot, attempt), or None if none is ready for it.
    fn lease(&self, worker: u32) -> Option<(u32, u32)> {
        self.lock().lease(worker).map(|lease| (lease.task.0, lease.attempt.0))
    }

    /// Leases one task to a worker that tasks have submitted which are at least so deep: (slot, attempt), or None.
    fn lease_deep(&self, worker: u32, depth: u32) -> Option<(u32, u32)> {
        self.lock().lease_deep(worker, depth).map(|lease| (lease.task.0, lease.attempt.0))
    }

    /// A parked task returned what its result is known to be.
    fn end_parked(&self, slot: u32) {
        self.lock().end_parked(TaskIndex(slot));
    }

    /// The worker has ended what it ran: it holds nothing any more.
    fn release(&self, worker: u32) {
        self.lock().release(worker);
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
        freed.iter().for_each(|slot| engine.forget(*slot));
        (ended, dead, freed)
    }

    /// Where a task is and what it waits for: its place as the number on the wire, worker, attempt, milliseconds since it
    /// runs, and a text with slots between NULs in the places of keys. `running_ms` says for how long each worker has been
    /// running its task; then come the task's failures, and for how long it pauses.
    #[pyo3(signature = (slot, running_ms, failures, pause_ms))]
    fn why(
        &self,
        slot: u32,
        running_ms: Vec<u64>,
        failures: u32,
        pause_ms: Option<u64>,
    ) -> (u8, Option<u32>, u32, u64, String) {
        let place = why::explain(&self.lock(), slot, &running_ms, failures, pause_ms);
        (place.state as u8, place.worker, place.attempt, place.since_ms, place.text)
    }

    /// How many of these tasks are ready.
    fn count_ready(&self, slots: Vec<u32>) -> usize {
        let engine = self.lock();
        let is_ready =
            |task: &TaskIndex| engine.state(*task) == TaskState::Ready && engine.class_of(*task) != PARKED_CLASS;
        tasks(&slots).iter().filter(|&task| is_ready(task)).count()
    }

    /// What all tasks share: (name, is_tag, used, total) of each.
    fn shared(&self) -> Vec<(String, bool, u64, u64)> {
        let engine = self.lock();
        let shared = engine.limits().shared();
        shared.map(|(name, is_tag, used, total)| (name.to_owned(), is_tag, used, total)).collect()
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
    fn lock(&self) -> MutexGuard<'_, Limited> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tasks(slots: &[u32]) -> Vec<TaskIndex> {
    slots.iter().map(|&slot| TaskIndex(slot)).collect()
}
