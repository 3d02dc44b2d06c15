//! Why a task does not run, in words: the same ones for people who ask, for the watchdog, and in every mode.

use crate::limits::{Amount, Limits, Thing};
use headrace_kernel::{ClassId, Kernel, TaskIndex, TaskState, WorkerId};
use headrace_wire::{ANY_WORKER, TaskPlace};
use std::fmt;

/// How many tasks or workers are named where there are more.
const NAMED_MAX: usize = 5;

/// What whoever runs tasks knows of them, beside which is where.
pub trait Facts {
    /// The key of a task.
    fn name(&self, task: TaskIndex) -> String;

    /// Its class, also while nobody may run it.
    fn class(&self, task: TaskIndex) -> ClassId;

    /// For how long a worker has been running the first of its leases, in milliseconds.
    fn running_ms(&self, worker: u32) -> u64;

    /// What people call a worker.
    fn worker(&self, worker: u32) -> String {
        format!("worker {worker}")
    }

    /// What names the process of a worker beside that.
    fn process(&self, _worker: u32) -> String {
        String::new()
    }

    /// How many attempts of a task have failed.
    fn failures(&self, _task: TaskIndex) -> u32 {
        0
    }

    /// For how long a task pauses before its next attempt, if it does, in milliseconds.
    fn pause_ms(&self, _task: TaskIndex) -> Option<u64> {
        None
    }

    /// What keeps a ready task from running that could have what it takes, other than that all workers are busy.
    fn obstacle(&self, _task: TaskIndex) -> Option<String> {
        None
    }

    /// What is worth saying of a task wherever it is.
    fn remark(&self, _task: TaskIndex) -> Option<String> {
        None
    }

    /// What the task at a position in a worker's queue waits for while it runs.
    fn worker_wait(&self, _worker: u32, _position: usize) -> Option<String> {
        None
    }

    /// The task that a worker tries while another one does.
    fn second_attempt(&self, _worker: u32) -> Option<TaskIndex> {
        None
    }

    /// How many tasks a worker has started that wait, with the one that runs on top of them.
    fn waiting(&self, _worker: u32) -> usize {
        0
    }
}

/// Tasks as people look at them.
pub struct View<'a, F> {
    /// Which task is where.
    pub kernel: &'a Kernel,
    /// Who holds what.
    pub limits: &'a Limits,
    /// Workers, or stand-ins for them.
    pub workers: u32,
    /// The rest.
    pub facts: F,
}

/// Where one task is.
#[derive(Clone, Debug)]
pub struct Place {
    /// In which state.
    pub state: TaskPlace,
    /// The worker that has it.
    pub worker: Option<u32>,
    /// The number of its attempt.
    pub attempt: u32,
    /// For how long it has been running, in milliseconds.
    pub since_ms: u64,
    /// All of that, and what the task waits for.
    pub text: String,
}

impl<F: Facts> View<'_, F> {
    /// Where a task is, and what it waits for.
    pub fn explain(&self, task: TaskIndex) -> Place {
        let (mut worker, mut since_ms) = (None, 0);
        let pause_ms = self.facts.pause_ms(task);
        let (state, words) = match self.kernel.state(task) {
            TaskState::Waiting | TaskState::Ready if pause_ms.is_some() => {
                let left = Span(pause_ms.unwrap_or(0));
                (TaskPlace::Pausing, format!("pauses for another {left} before its next attempt"))
            }
            TaskState::Waiting => (TaskPlace::Waiting, format!("waits for {}", self.dependencies(task))),
            TaskState::Ready => (TaskPlace::Ready, format!("is ready and waits for {}", self.wanted(task))),
            TaskState::Leased => {
                let (number, before) = self.place(task).expect("a leased task is in a worker's queue");
                worker = Some(number);
                if before <= self.facts.waiting(number) {
                    since_ms = self.facts.running_ms(number);
                }
                self.leased(task, number, before)
            }
            TaskState::Done => (TaskPlace::Done, "is done".into()),
            TaskState::Failed => (TaskPlace::Failed, "has failed".into()),
            TaskState::Skipped => (TaskPlace::Skipped, "never ran, because a task that it needs failed".into()),
            TaskState::Cancelled => (TaskPlace::Cancelled, "was cancelled".into()),
            TaskState::Free => (TaskPlace::Unknown, "has ended".into()),
        };
        let after = match self.facts.failures(task) {
            0 => String::new(),
            1 => ", after 1 failure".to_owned(),
            failures => format!(", after {failures} failures"),
        };
        let remark = self.facts.remark(task).map_or_else(String::new, |remark| format!(" ({remark})"));
        let text = format!("'{}' {words}{after}{remark}", self.facts.name(task));
        Place { state, worker, attempt: self.kernel.attempt(task).0, since_ms, text }
    }

    fn leased(&self, task: TaskIndex, worker: u32, before: usize) -> (TaskPlace, String) {
        let (name, process) = (self.facts.worker(worker), self.facts.process(worker));
        let below = self.facts.waiting(worker);
        let position = if before <= below { before } else { 0 };
        let wait =
            self.facts.worker_wait(worker, position).map_or_else(String::new, |wait| format!(", and waits for {wait}"));
        let span = Span(self.facts.running_ms(worker));
        let Some(first) = self.first_of(worker).filter(|_| before > below) else {
            let attempt = self.kernel.attempt(task).0;
            let words = format!("runs in {name}{process}, attempt {attempt}, for {span}{wait}");
            return (TaskPlace::Running, words);
        };
        let first = self.facts.name(first);
        let others = match before {
            1 => String::new(),
            2 => " and 1 other".to_owned(),
            before => format!(" and {} others", before - 1),
        };
        let words =
            format!("is with {name}{process}, behind '{first}', which has been running for {span}{wait}{others}");
        (TaskPlace::Queued, words)
    }

    /// What a ready task waits for.
    pub fn wanted(&self, task: TaskIndex) -> String {
        let things = self.things(task);
        if !things.is_empty() {
            return Listed(things).to_string();
        }
        self.facts.obstacle(task).unwrap_or_else(|| self.slots(task))
    }

    /// Where a task is, in a word or two.
    fn state(&self, task: TaskIndex) -> String {
        match self.kernel.state(task) {
            TaskState::Free => "gone".into(),
            TaskState::Waiting => "waits".into(),
            TaskState::Ready => "ready".into(),
            TaskState::Leased => match self.place(task) {
                Some((worker, before)) if before <= self.facts.waiting(worker) => {
                    format!("runs in {}", self.facts.worker(worker))
                }
                Some((worker, _)) => format!("with {}", self.facts.worker(worker)),
                None => "leased".into(),
            },
            TaskState::Done => "done".into(),
            TaskState::Failed => "failed".into(),
            TaskState::Skipped => "skipped".into(),
            TaskState::Cancelled => "cancelled".into(),
        }
    }

    /// The worker that has the task, and how many leases it has before it.
    fn place(&self, task: TaskIndex) -> Option<(u32, usize)> {
        let worker = self.kernel.worker_of(task)?;
        Some((worker.0, self.kernel.leases_of(worker).position(|lease| lease.0 == task)?))
    }

    /// The task that a worker runs, or is about to.
    fn first_of(&self, worker: u32) -> Option<TaskIndex> {
        self.kernel.leases_of(WorkerId(worker)).next().map(|lease| lease.0)
    }

    /// The tasks that a waiting one needs and that are not done.
    fn dependencies(&self, task: TaskIndex) -> String {
        let all = self.kernel.predecessors(task);
        let missing: Vec<TaskIndex> =
            all.iter().copied().filter(|input| self.kernel.state(*input) != TaskState::Done).collect();
        let named = missing.iter().map(|input| format!("'{}' ({})", self.facts.name(*input), self.state(*input)));
        format!("{} of {} tasks that it needs: {}", missing.len(), all.len(), Listed(named.collect()))
    }

    /// What a ready task takes and nobody can have now, each with who holds it.
    fn things(&self, task: TaskIndex) -> Vec<String> {
        let class = self.facts.class(task);
        let Some(entry) = self.limits.class(class) else { return Vec::new() };
        let mut words = Vec::new();
        for &(number, amount) in &entry.demand {
            let thing = &self.limits.offer().things()[number as usize];
            let first = self.limits.reserved_for(number).filter(|first| *first != class);
            let is_short = !thing.is_owned() && self.limits.most_left(number) < amount;
            if is_short || first.is_some() {
                words.push(format!("{}{}", self.held(number, amount), self.reserved(first)));
            }
        }
        words
    }

    /// A thing that is asked for, and who holds it.
    pub fn held(&self, number: u32, amount: u64) -> String {
        let thing = &self.limits.offer().things()[number as usize];
        let (Thing { name, is_tag, .. }, total) = (thing, thing.sum());
        let what = match is_tag {
            true => format!("tag '{name}' (limit {total})"),
            false => {
                let free = total - self.limits.used(number);
                format!(
                    "{} ({} of {} free)",
                    Amount(name, amount),
                    Amount(name, free).number(),
                    Amount(name, total).number()
                )
            }
        };
        let holders: Vec<String> = (0..self.workers).filter_map(|worker| self.holder(worker, number)).collect();
        if holders.is_empty() { what } else { format!("{what}, held by {}", Listed(holders)) }
    }

    /// Why a ready task that could have what it takes has no worker yet.
    fn slots(&self, task: TaskIndex) -> String {
        let class = self.facts.class(task);
        let pin = self.limits.class(class).map_or(ANY_WORKER, |class| class.pin);
        let before = self.kernel.ready_tasks(class).position(|other| other == task).unwrap_or(0);
        let busy = (0..self.workers).filter(|worker| pin == ANY_WORKER || pin == *worker);
        let busy = busy.filter_map(|worker| {
            let key = self.facts.name(self.first_of(worker)?);
            Some(format!("{} ('{key}' for {})", self.facts.worker(worker), Span(self.facts.running_ms(worker))))
        });
        let busy: Vec<String> = busy.collect();
        let whose = if pin == ANY_WORKER {
            "a worker".to_owned()
        } else {
            format!("{}, to which it is pinned", self.facts.worker(pin))
        };
        let order = match before {
            0 => "is the next of its kind".to_owned(),
            1 => "has 1 task before it".to_owned(),
            tasks => format!("has {tasks} tasks before it"),
        };
        match busy.is_empty() {
            true => format!("{whose}; it {order}"),
            false => format!("{whose}; it {order}, and busy are {}", Listed(busy)),
        }
    }

    fn holder(&self, worker: u32, number: u32) -> Option<String> {
        if self.limits.held(worker)[number as usize] == 0 {
            return None;
        }
        let takes = |task: TaskIndex| {
            let class = self.limits.class(self.facts.class(task));
            class.is_some_and(|class| class.demand.iter().any(|part| part.0 == number))
        };
        let leased = self.kernel.leases_of(WorkerId(worker)).map(|lease| lease.0);
        let task = leased.chain(self.facts.second_attempt(worker)).find(|task| takes(*task));
        Some(match task {
            Some(task) => format!("'{}' in {}", self.facts.name(task), self.facts.worker(worker)),
            // It was cancelled, and its worker has not said that it has stopped.
            None => format!("{}, whose task is being cancelled", self.facts.worker(worker)),
        })
    }

    fn reserved(&self, first: Option<ClassId>) -> String {
        match first.and_then(|class| self.kernel.ready_tasks(class).next()) {
            Some(task) => format!(", and kept for '{}', which was overtaken too often", self.facts.name(task)),
            None => String::new(),
        }
    }
}

/// A list that is not too long.
pub struct Listed(pub Vec<String>);

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0[..self.0.len().min(NAMED_MAX)].join(", "))?;
        match self.0.len().saturating_sub(NAMED_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Milliseconds, for people.
pub struct Span(pub u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms @ ..1_000 => write!(f, "{ms} ms"),
            ms @ ..60_000 => write!(f, "{}.{} s", ms / 1_000, ms % 1_000 / 100),
            ms @ ..3_600_000 => write!(f, "{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
            ms => write!(f, "{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
        }
    }
}
