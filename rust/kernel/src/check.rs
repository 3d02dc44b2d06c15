//! Re-derives the invariants from scratch, for tests.

use crate::ids::{NONE, TaskIndex, WorkerId};
use crate::kernel::Kernel;
use crate::state::{Flag, TaskState};

impl Kernel {
    /// Derives everything that K1 to K6 say from the states and the edges alone, and compares. For tests: it looks at
    /// everything.
    ///
    /// # Errors
    /// What is wrong, with the number of the invariant.
    pub fn check(&self) -> Result<(), String> {
        let places = self.places()?;
        for task in self.live() {
            self.check_inputs(task, &places)?;
            self.check_place(task, &places)?;
            self.check_end(task)?;
            self.check_rival(task)?;
        }
        let rivalled = self.live().filter(|task| self.board.tasks[task.at()].has(Flag::Rivalled)).count();
        ensure(self.elders.len() == rivalled, || format!("K4: {rivalled} tasks with rivals, not {:?}", self.elders))?;
        self.check_uses()?;
        self.check_counts()
    }

    fn live(&self) -> impl Iterator<Item = TaskIndex> + '_ {
        (0..self.board.tasks.len() as u32).map(TaskIndex).filter(|&task| self.state(task) != TaskState::Free)
    }

    /// Walks every queue: where each task stands.
    fn places(&self) -> Result<Vec<Place>, String> {
        let mut places = vec![Place::Nowhere; self.board.tasks.len()];
        let mut enter = |list: u32, place: &dyn Fn(u32) -> Place| {
            let mut len = 0;
            for task in self.board.lists.iter(&self.board.tasks, list) {
                ensure(places[task.at()] == Place::Nowhere, || format!("K3: {task:?} stands in two queues"))?;
                ensure(self.board.tasks[task.at()].list == list, || format!("K3: {task:?} does not know its queue"))?;
                places[task.at()] = place(len);
                len += 1;
            }
            ensure(self.board.lists.get(list).len == len, || format!("K3: a queue miscounts its {len} tasks"))
        };
        for class in self.board.ready.all_classes() {
            let Some(home) = self.board.ready.place(class) else { continue };
            let mut len = 0;
            for (priority, list) in self.board.ready.levels(home) {
                enter(list, &|_| Place::Ready(class.0, priority))?;
                len += self.board.lists.get(list).len as usize;
            }
            ensure(self.ready_len(class) == len, || format!("K3: {class:?} miscounts its {len} tasks"))?;
        }
        for (number, worker) in self.board.workers.iter().enumerate() {
            let Some(worker) = worker else { continue };
            let number = WorkerId(number as u32);
            enter(worker.leases, &|position| Place::Leased(number, position))?;
            for &(class, list) in &worker.followers {
                enter(list, &|_| Place::Follower(number, class.0))?;
            }
        }
        Ok(places)
    }

    /// K2, and K6 for what is still to run.
    fn check_inputs(&self, task: TaskIndex, places: &[Place]) -> Result<(), String> {
        let state = self.state(task);
        if !state.is_pending() {
            return Ok(());
        }
        let mut missing = Vec::new();
        for &producer in self.predecessors(task) {
            match self.state(producer) {
                TaskState::Done => ensure(self.result_alive(producer), || {
                    format!("K5: {task:?} needs the result of {producer:?}, which is dead")
                })?,
                TaskState::Waiting | TaskState::Ready | TaskState::Leased => missing.push(producer),
                bad => return Err(format!("K6: {task:?} is {state:?} though its predecessor {producer:?} is {bad:?}")),
            }
        }
        let entry = &self.board.tasks[task.at()];
        let workers: Vec<u64> =
            missing.iter().filter_map(|&producer| self.worker_of(producer)).map(|w| u64::from(w.0)).collect();
        ensure(self.missing(task) as usize == missing.len(), || format!("K2: {task:?} misses {missing:?}"))?;
        match state {
            TaskState::Leased => {
                let Place::Leased(worker, position) = places[task.at()] else {
                    return Err(format!("K2: {task:?} is leased and in no lease queue"));
                };
                let before =
                    |producer| matches!(places[producer], Place::Leased(w, at) if w == worker && at < position);
                ensure(missing.iter().all(|producer| before(producer.at())), || {
                    format!("K2: {task:?} is leased to {worker:?} before all of {missing:?}")
                })
            }
            _ => {
                let sums = (workers.iter().sum(), workers.iter().map(|w| w * w).sum());
                let (leased, kept) = (workers.len() as u32, (entry.leased, entry.sums()));
                ensure((leased, sums) == kept, || format!("K2: {task:?} counts leases {kept:?}, not {workers:?}"))?;
                ensure((state == TaskState::Ready) == missing.is_empty(), || {
                    format!("K2: {task:?} is {state:?} and misses {missing:?}")
                })
            }
        }
    }

    /// K3: the queue that the state calls for.
    fn check_place(&self, task: TaskIndex, places: &[Place]) -> Result<(), String> {
        let rank = self.board.tasks[task.at()].rank;
        let place = places[task.at()];
        let right = match self.state(task) {
            TaskState::Ready => place == Place::Ready(rank.class.0, rank.priority),
            TaskState::Leased => matches!(place, Place::Leased(..)),
            TaskState::Waiting => {
                let mut workers = self
                    .predecessors(task)
                    .iter()
                    .filter(|&&producer| self.state(producer) != TaskState::Done)
                    .map(|&producer| self.worker_of(producer));
                let first = workers.next().flatten();
                match first.filter(|&first| workers.all(|worker| worker == Some(first))) {
                    Some(worker) => place == Place::Follower(worker, rank.class.0),
                    None => place == Place::Nowhere,
                }
            }
            _ => place == Place::Nowhere,
        };
        ensure(right, || format!("K3: {task:?} is {:?} and stands at {place:?}", self.state(task)))
    }

    /// K5: what a task that has ended still needs.
    fn check_end(&self, task: TaskIndex) -> Result<(), String> {
        let state = self.state(task);
        let entry = &self.board.tasks[task.at()];
        let (dead, secured, released) = (entry.has(Flag::Dead), entry.has(Flag::Secured), entry.has(Flag::Released));
        if state.is_pending() {
            return ensure(!dead && !secured && !released, || format!("K5: {task:?} is {state:?} and has ended"));
        }
        let loose = || self.life.loose.contains(&task) || self.ended.iter().any(|ended| ended.task == task);
        if state == TaskState::Done {
            // The result of a checkpoint dies when it is looked at after its last consumer.
            let wanted = entry.held() || (released && (entry.lineage > 0 || loose()));
            ensure(dead || wanted, || format!("K5: the result of {task:?} lives for nobody"))?;
            ensure(!dead || entry.pending == 0, || format!("K5: the result of {task:?} died before its consumers"))?;
            ensure(!released || secured || dead, || {
                format!("K5: {task:?} cannot run again, but its result can be lost")
            })?;
        } else {
            ensure(!dead && !secured, || format!("K5: {task:?} is {state:?} and has a result"))?;
        }
        let needless = match state {
            TaskState::Done => (dead || secured) && entry.lineage == 0,
            _ => true,
        };
        ensure(released || !needless || loose(), || format!("K5: nobody will release {task:?}"))?;
        let freeable = released && !entry.held() && entry.lineage == 0;
        ensure(!freeable || loose(), || format!("K5: nobody will free {task:?}"))
    }

    /// K4: a rival stands beside a lease, and has a later number.
    fn check_rival(&self, task: TaskIndex) -> Result<(), String> {
        let entry = &self.board.tasks[task.at()];
        if !entry.has(Flag::Rivalled) {
            return Ok(());
        }
        let (elder, last) = (self.elders.get(&task), entry.attempt);
        ensure(self.state(task) == TaskState::Leased && elder.is_some_and(|elder| *elder < last), || {
            format!("K4: {task:?} is {:?} as attempt {elder:?}, with a rival {last:?}", self.state(task))
        })
    }

    /// The two sides of every edge, and who counts them.
    fn check_uses(&self) -> Result<(), String> {
        let mut uses = vec![(0_u32, 0_u32); self.board.tasks.len()];
        for consumer in self.live() {
            let released = self.board.tasks[consumer.at()].has(Flag::Released);
            ensure(!released || self.predecessors(consumer).is_empty(), || format!("K5: {consumer:?} has edges left"))?;
            for &producer in self.predecessors(consumer) {
                ensure(self.state(producer) != TaskState::Free, || {
                    format!("K1: {producer:?} went before {consumer:?}")
                })?;
                let known = self.successors(producer).filter(|&successor| successor == consumer).count();
                ensure(known == 1, || format!("K2: {producer:?} knows its consumer {consumer:?} {known} times"))?;
                let (pending, lineage) = &mut uses[producer.at()];
                *pending += u32::from(self.state(consumer).is_pending());
                *lineage += 1;
            }
        }
        for task in self.live() {
            let entry = &self.board.tasks[task.at()];
            let kept = (entry.pending, entry.lineage);
            let found = uses[task.at()];
            ensure(kept == found, || format!("K5: {task:?} counts (pending, lineage) {kept:?}, not {found:?}"))?;
            let successors = self.successors(task).count();
            ensure(successors == found.1 as usize, || format!("K2: {task:?} lists {successors} consumers"))?;
        }
        Ok(())
    }

    fn check_counts(&self) -> Result<(), String> {
        for state in TaskState::ALL {
            let found = (0..self.board.tasks.len() as u32).filter(|&task| self.state(TaskIndex(task)) == state).count();
            let kept = self.board.count(state);
            ensure(kept == found as u64, || format!("K1: {kept} tasks counted as {state:?}, {found} found"))?;
        }
        let mut chunks = std::collections::BTreeMap::<u32, (u32, u32)>::new();
        for task in self.live() {
            let (alive, unreleased) = chunks.entry(self.board.tasks[task.at()].chunk).or_default();
            *alive += 1;
            *unreleased += u32::from(!self.board.tasks[task.at()].has(Flag::Released));
        }
        for (&chunk, &found) in &chunks {
            let kept = self.graph.chunk_counts(chunk);
            ensure(kept == found, || format!("K5: chunk {chunk} counts (alive, unreleased) {kept:?}, not {found:?}"))?;
        }
        for slot in
            (0..self.board.tasks.len() as u32).map(TaskIndex).filter(|&slot| self.state(slot) == TaskState::Free)
        {
            let entry = &self.board.tasks[slot.at()];
            ensure(entry.chunk == NONE && entry.list == NONE, || format!("K1: free {slot:?} is still somewhere"))?;
            ensure(self.life.free.contains(slot.0), || format!("K1: free {slot:?} is lost"))?;
        }
        Ok(())
    }
}

/// Where a task stands.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Place {
    Nowhere,
    /// In the ready queue of a class and priority.
    Ready(u32, i32),
    /// Among the followers of a worker, by class.
    Follower(WorkerId, u32),
    /// In the queue of a worker, by position.
    Leased(WorkerId, u32),
}

fn ensure(right: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if right { Ok(()) } else { Err(message()) }
}
