//! Which tasks a worker gets next: batches that are closed over their dependencies (K2).

use crate::ids::{Attempt, ClassId, TaskIndex, WorkerId};
use crate::kernel::Kernel;
use crate::lists::End;
use crate::state::TaskState;

/// What a worker may get.
#[derive(Clone, Copy, Debug)]
pub struct LeaseRequest<'a> {
    /// Classes that it may run; of two with equal priority the one named first goes first.
    pub classes: &'a [ClassId],
    /// Most tasks in the batch.
    pub tasks_max: u32,
    /// Most ready tasks taken from the queues; followers are not counted.
    pub seeds_max: u32,
    /// The batch ends with the task whose cost makes the sum reach this.
    pub budget: u64,
    /// Whether ready tasks whose inputs are with another worker are left alone.
    pub only_preferred: bool,
}

/// What the caller knows about tasks and the kernel does not.
pub trait Oracle {
    /// The cost of a task, in the unit of [`LeaseRequest::budget`].
    fn cost(&mut self, task: TaskIndex) -> u64;

    /// Who should run a ready task with these predecessors. It is not asked about tasks without any.
    fn preference(&mut self, predecessors: &[TaskIndex], task: TaskIndex) -> Preference;
}

/// Who should run a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preference {
    /// The worker that asks.
    Mine,
    /// Another one.
    Other,
    /// It makes no difference.
    Nobody,
}

/// One lease of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leased {
    /// The task.
    pub task: TaskIndex,
    /// The number of this try.
    pub attempt: Attempt,
    /// Whether the result must be reported: it is held, or some consumer is not leased to the same worker.
    pub report: bool,
    /// Whether the worker must hold the result: some consumer has not ended.
    pub hold: bool,
}

impl Kernel {
    /// Appends a batch for a worker to `out`, in the order in which it must run them. Every predecessor that is not done is
    /// leased to the same worker before it (K2).
    ///
    /// First come the worker's followers, and with each task the successors that can follow it, depth first; then ready
    /// tasks by priority. Among the first 8 of a queue one that is not [`Preference::Other`] goes first. The first task
    /// is taken whatever it costs.
    ///
    /// # Cost
    /// O(tasks leased + their edges).
    pub fn lease(
        &mut self,
        worker: WorkerId,
        request: &LeaseRequest<'_>,
        oracle: &mut impl Oracle,
        out: &mut Vec<Leased>,
    ) {
        let Some(leases) = self.board.leases(worker) else { return };
        let first = out.len();
        let mut seeds = Seeds::new(self, request);
        let mut seeds_left = request.seeds_max;
        let mut cost = 0_u64;
        for _ in 0..request.tasks_max {
            let follower = request.classes.iter().find_map(|&class| self.board.first_follower(worker, class));
            let task = match follower {
                Some(task) => task,
                None if seeds_left == 0 => break,
                None => {
                    seeds_left -= 1;
                    match seeds.next(self, oracle) {
                        Some(task) => task,
                        None => break,
                    }
                }
            };
            out.push(self.grant(worker, leases, task));
            cost = cost.saturating_add(oracle.cost(task));
            if cost >= request.budget {
                break;
            }
        }
        for lease in &mut out[first..] {
            let entry = &self.board.tasks[lease.task.at()];
            lease.hold = entry.pending > 0;
            lease.report = entry.holds > 0 || (lease.hold && self.has_consumer_elsewhere(leases, lease.task));
        }
    }

    fn grant(&mut self, worker: WorkerId, leases: u32, task: TaskIndex) -> Leased {
        self.board.leave(task);
        self.board.set_state(task, TaskState::Leased);
        self.board.lists.push(&mut self.board.tasks, leases, task, End::Back);
        self.operations += 1;
        let operations = &mut self.operations;
        self.graph.each_consumer_back(&mut self.board, task, |board, consumer| {
            *operations += 1;
            board.input_leased(consumer, worker);
        });
        let entry = &mut self.board.tasks[task.at()];
        entry.attempt.0 += 1;
        Leased { task, attempt: entry.attempt, report: false, hold: false }
    }

    fn has_consumer_elsewhere(&mut self, leases: u32, task: TaskIndex) -> bool {
        let mut looked_at = 0;
        let elsewhere = self.graph.consumers(&self.board, task).any(|consumer| {
            looked_at += 1;
            let consumer = &self.board.tasks[consumer.at()];
            consumer.state.is_pending() && consumer.list != leases
        });
        self.operations += looked_at;
        elsewhere
    }
}

/// The ready queues of one request. They only shrink while a batch is made.
struct Seeds {
    places: Vec<u32>,
    only_preferred: bool,
}

impl Seeds {
    fn new(kernel: &Kernel, request: &LeaseRequest<'_>) -> Self {
        let places = request.classes.iter().filter_map(|&class| kernel.board.ready.place(class)).collect();
        Seeds { places, only_preferred: request.only_preferred }
    }

    /// The next ready task to take. A class in which nothing is preferred is not looked at again.
    fn next(&mut self, kernel: &mut Kernel, oracle: &mut impl Oracle) -> Option<TaskIndex> {
        loop {
            let top = |&place: &u32| kernel.board.ready.levels(place).next().map(|(priority, _)| priority);
            let best = (0..self.places.len())
                .filter_map(|position| top(&self.places[position]).map(|priority| (priority, position)))
                .reduce(|best, other| if other.0 > best.0 { other } else { best });
            let (_, position) = best?;
            match self.look(kernel, oracle, self.places[position]) {
                Some(task) => return Some(task),
                None => {
                    self.places.remove(position);
                }
            }
        }
    }

    /// The best of the first entries of one class: the first that another worker should not run, or else the very first.
    /// Preference does not go before priority.
    fn look(&self, kernel: &mut Kernel, oracle: &mut impl Oracle, place: u32) -> Option<TaskIndex> {
        let mut left = LOOK_AHEAD;
        let mut first = None;
        for (_, queue) in kernel.board.ready.levels(place) {
            for task in kernel.board.lists.iter(&kernel.board.tasks, queue).take(left) {
                left -= 1;
                let predecessors = kernel.graph.predecessors(task);
                if predecessors.is_empty() || oracle.preference(predecessors, task) != Preference::Other {
                    return Some(task);
                }
                first = first.or(Some(task));
            }
            if !self.only_preferred && first.is_some() {
                return first;
            }
            if left == 0 {
                break;
            }
        }
        None
    }
}

/// How many entries of a queue are asked for a preference before the first one goes anyway.
const LOOK_AHEAD: usize = 8;
