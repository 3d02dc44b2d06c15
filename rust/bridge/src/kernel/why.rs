//! Where a task is and what it waits for, where tasks run in the client's own process.
use headrace_kernel::{ClassId, TaskIndex};
use headrace_protocol::why::{Facts, Place, View};

use super::limited::Limited;

/// What Python has told, and what it fills in: keys of tasks stand as their slots between [`MARK`]s.
struct Told<'a> {
    engine: &'a Limited,
    /// For how long each runner has been running its task.
    running_ms: &'a [u64],
    /// Of the task that is asked for: its failed attempts, and how long it pauses.
    failures: u32,
    pause_ms: Option<u64>,
    slot: u32,
}

/// No key that anybody reads has one.
const MARK: char = '\0';

impl Facts for Told<'_> {
    fn name(&self, task: TaskIndex) -> String {
        format!("{MARK}{}{MARK}", task.0)
    }

    fn class(&self, task: TaskIndex) -> ClassId {
        self.engine.class(task)
    }

    fn running_ms(&self, worker: u32) -> u64 {
        self.running_ms.get(worker as usize).copied().unwrap_or(0)
    }

    fn failures(&self, task: TaskIndex) -> u32 {
        if task.0 == self.slot { self.failures } else { 0 }
    }

    fn pause_ms(&self, task: TaskIndex) -> Option<u64> {
        self.pause_ms.filter(|_| task.0 == self.slot)
    }

    fn worker(&self, worker: u32) -> String {
        match worker {
            _ if self.engine.has_stand_ins() => "a calling thread".to_owned(),
            spare if spare >= self.engine.workers() => "a thread that waits".to_owned(),
            worker => format!("worker {worker}"),
        }
    }
}

/// Where a task is, and what it waits for.
pub(super) fn explain(engine: &Limited, slot: u32, running_ms: &[u64], failures: u32, pause_ms: Option<u64>) -> Place {
    let facts = Told { engine, running_ms, failures, pause_ms, slot };
    View { kernel: engine, limits: engine.limits(), workers: engine.runners(), facts }.explain(TaskIndex(slot))
}
