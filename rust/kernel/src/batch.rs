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
    /// Whether ready tasks without predecessors may be taken, which only make results and let none die.
    pub roots: bool,
}

/// What the caller knows about tasks and the kernel does not.
pub trait Oracle {
    /// The cost of a task, in the unit of [`LeaseRequest::budget`].
    fn cost(&mut self, task: TaskIndex) -> u64;

    /// Who should run a ready task with these predecessors. It is not asked about tasks without any.
    fn preference(&mut self, predecessors: &[TaskIndex], task: TaskIndex) -> Preference;

    /// Whether there are tasks that could start and that the worker must not get, because it cannot have their inputs yet.
    fn guards(&self) -> bool {
        false
    }

    /// Whether a task with these predecessors is such a task.
    fn bars(&mut self, _predecessors: &[TaskIndex]) -> bool {
        false
    }
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
    /// tasks by priority. A ready task of higher priority goes before a follower. Among the first 8 of a queue one that is not [`Preference::Other`] goes first. The first task
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
        let is_guarded = oracle.guards();
        let mut seeds = Seeds::new(self, request, is_guarded);
        let mut seeds_left = request.seeds_max;
        let mut cost = 0_u64;
        // Tasks that became followers by this batch, the next one last: a stack, hence depth first.
        let mut fresh = std::mem::take(&mut self.scratch);
        for _ in 0..request.tasks_max {
            let follower = match is_guarded {
                false => self.next_follower(worker, request.classes, &mut fresh),
                true => self.next_unbarred_follower(worker, request.classes, &mut fresh, oracle),
            };
            let task = match follower {
                Some(task)
                    if self.board.has_levels && seeds_left > 0 && seeds.top(self) > Some(self.priority_of(task)) =>
                {
                    match seeds.next(self, oracle) {
                        Some(seed) => {
                            seeds_left -= 1;
                            fresh.push(task);
                            seed
                        }
                        None => task,
                    }
                }
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
            out.push(self.grant(worker, leases, task, &mut fresh));
            cost = cost.saturating_add(oracle.cost(task));
            if cost >= request.budget {
                break;
            }
        }
        for task in fresh.drain(..) {
            self.board.follow(task, worker.at(), End::Front);
        }
        self.scratch = fresh;
        for lease in &mut out[first..] {
            let task = &self.board.tasks[lease.task.at()];
            lease.hold = task.pending > 0;
            lease.report = task.holds > 0 || task.leased != task.pending;
        }
    }

    #[inline]
    fn next_follower(
        &mut self,
        worker: WorkerId,
        classes: &[ClassId],
        fresh: &mut Vec<TaskIndex>,
    ) -> Option<TaskIndex> {
        while let Some(task) = fresh.pop() {
            if classes.contains(&self.board.tasks[task.at()].rank.class) {
                return Some(task);
            }
            self.board.follow(task, worker.at(), End::Front);
        }
        let task = classes.iter().find_map(|&class| self.board.first_follower(worker, class))?;
        self.board.leave(task);
        Some(task)
    }

    #[cold]
    fn next_unbarred_follower(
        &mut self,
        worker: WorkerId,
        classes: &[ClassId],
        fresh: &mut Vec<TaskIndex>,
        oracle: &mut impl Oracle,
    ) -> Option<TaskIndex> {
        // What was fresh stands at the front of its queue then.
        fresh.drain(..).for_each(|task| self.board.follow(task, worker.at(), End::Front));
        let Kernel { graph, board, .. } = self;
        let mut may_run = |task: &TaskIndex| !oracle.bars(graph.predecessors(&board.tasks[task.at()]));
        let followers = |class: &ClassId| board.followers(worker, *class).take(LOOK_AHEAD);
        let task = classes.iter().flat_map(followers).find(|task| may_run(task))?;
        board.leave(task);
        Some(task)
    }

    /// Leases a task that is in no queue any more.
    #[inline]
    pub(crate) fn grant(
        &mut self,
        worker: WorkerId,
        leases: u32,
        task: TaskIndex,
        fresh: &mut Vec<TaskIndex>,
    ) -> Leased {
        let Kernel { graph, board, operations, .. } = self;
        board.set_state(task, TaskState::Leased);
        board.lists.push(&mut board.tasks, leases, task, End::Back);
        let tasks = &mut board.tasks[..];
        let entry = &mut tasks[task.at()];
        entry.leased = 0;
        if !crate::seeded!("attempt used again") || entry.attempt.0 == 0 {
            entry.attempt.0 += 1;
        }
        let attempt = entry.attempt;
        *operations += 1 + entry.span.degree();
        for &producer in graph.predecessors(&tasks[task.at()]) {
            // Means nothing where the producer is done.
            tasks[producer.at()].leased = tasks[producer.at()].leased.wrapping_add(1);
        }
        let number = u64::from(worker.0);
        graph.each_consumer_back(tasks, task, |entry, consumer| {
            if entry.state == TaskState::Waiting {
                entry.count_lease(number);
                if entry.follows(number) {
                    fresh.push(consumer);
                }
            }
        });
        Leased { task, attempt, report: false, hold: false }
    }
}

/// The ready queues of one request. They only shrink while a batch is made, so the best one stays the best until it is empty.
struct Seeds {
    sources: Vec<Source>,
    only_preferred: bool,
    rules: Rules,
    /// The queue that gave the last seed, if it has more.
    best: Option<u32>,
}

/// Which ready tasks are left where they are.
#[derive(Clone, Copy)]
struct Rules {
    /// Whether those without predecessors may be taken.
    roots: bool,
    /// Whether the oracle bars some.
    is_guarded: bool,
}

/// The queues of one class, during one search.
struct Source {
    place: u32,
    /// Entries that may still be looked at.
    left: usize,
    /// Only queues of lower priority are left.
    below: Option<i32>,
}

impl Seeds {
    fn new(kernel: &Kernel, request: &LeaseRequest<'_>, is_guarded: bool) -> Self {
        let places = request.classes.iter().filter_map(|&class| kernel.board.ready.place(class));
        let sources = places.map(|place| Source { place, left: LOOK_AHEAD, below: None }).collect();
        Seeds {
            sources,
            only_preferred: request.only_preferred,
            rules: Rules { roots: request.roots, is_guarded },
            best: None,
        }
    }

    /// The highest priority of a ready task.
    fn top(&self, kernel: &Kernel) -> Option<i32> {
        self.sources.iter().filter_map(|source| Some(kernel.board.ready.levels(source.place).next()?.0)).max()
    }

    /// Takes the next ready task out of its queue.
    fn next(&mut self, kernel: &mut Kernel, oracle: &mut impl Oracle) -> Option<TaskIndex> {
        let task = match self.best {
            Some(queue) => Self::look(kernel, oracle, queue, &mut LOOK_AHEAD.clone(), self.rules).1,
            None => self.find(kernel, oracle),
        }?;
        let queue = kernel.board.tasks[task.at()].list;
        kernel.board.leave(task);
        let may_have_more = !self.only_preferred && self.rules.roots && !self.rules.is_guarded;
        let more = may_have_more && kernel.board.lists.get(queue).len > 0;
        self.best = more.then_some(queue);
        Some(task)
    }

    fn find(&mut self, kernel: &Kernel, oracle: &mut impl Oracle) -> Option<TaskIndex> {
        for source in &mut self.sources {
            (source.left, source.below) = (LOOK_AHEAD, None);
        }
        loop {
            let mut best: Option<(i32, u32, &mut Source)> = None;
            for source in self.sources.iter_mut().filter(|source| source.left > 0) {
                if let Some((priority, queue)) = source.top(kernel)
                    && best.as_ref().is_none_or(|best| priority > best.0)
                {
                    best = Some((priority, queue, source));
                }
            }
            let Some((priority, queue, source)) = best else {
                self.sources.clear(); // Nothing was taken, so nothing more will be found.
                return None;
            };
            match Self::look(kernel, oracle, queue, &mut source.left, self.rules) {
                (Some(task), _) => return Some(task),
                (None, Some(first)) if !self.only_preferred => return Some(first),
                _ => source.below = Some(priority),
            }
        }
    }

    /// Asks the first entries of one queue: the first that another worker should not run, and the one to take, which is the
    /// very first if there is none. Preference does not go before priority.
    fn look(
        kernel: &Kernel,
        oracle: &mut impl Oracle,
        queue: u32,
        left: &mut usize,
        rules: Rules,
    ) -> (Option<TaskIndex>, Option<TaskIndex>) {
        let mut first = None;
        for task in kernel.board.lists.iter(&kernel.board.tasks, queue) {
            if *left == 0 {
                break;
            }
            *left -= 1;
            let predecessors = kernel.graph.predecessors(&kernel.board.tasks[task.at()]);
            let is_left = match predecessors.is_empty() {
                true => !rules.roots,
                false => rules.is_guarded && oracle.bars(predecessors),
            };
            if is_left {
                continue;
            }
            if predecessors.is_empty() || oracle.preference(predecessors, task) != Preference::Other {
                return (Some(task), Some(task));
            }
            first = first.or(Some(task));
        }
        (None, first)
    }
}

impl Source {
    fn top(&self, kernel: &Kernel) -> Option<(i32, u32)> {
        kernel.board.ready.levels(self.place).find(|&(priority, _)| self.below.is_none_or(|below| priority < below))
    }
}

/// How many entries of a queue are asked for a preference before the first one goes anyway.
const LOOK_AHEAD: usize = 8;
