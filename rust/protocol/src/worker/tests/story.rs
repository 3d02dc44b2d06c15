//! A worker under test, and the frames that it hears.

use std::cell::Cell;

use headrace_wire::{BlobsBuf, Message, Recall};

use super::super::*;

pub(super) const F: u32 = 40;
pub(super) const G: u32 = 41;

/// Builds one LEASE frame, lease by lease.
#[derive(Default)]
pub(super) struct Batch {
    dead: Vec<u32>,
    functions: Vec<u32>,
    value_task: Vec<u32>,
    values: BlobsBuf,
    task: Vec<u32>,
    pub(super) attempt: Vec<u32>,
    function: Vec<u32>,
    flags: Vec<u8>,
    dep_counts: Vec<u32>,
    deps: Vec<u32>,
    args: BlobsBuf,
    key_position: Vec<u32>,
    keys: BlobsBuf,
    timeout_ms: Vec<u32>,
    failures: Vec<u32>,
}

impl Batch {
    pub(super) fn knowing(functions: &[u32]) -> Self {
        Batch { functions: functions.to_vec(), ..Batch::default() }
    }

    pub(super) fn value(mut self, task: u32, value: &[u8]) -> Self {
        self.value_task.push(task);
        self.values.push(value);
        self
    }

    pub(super) fn dead(mut self, task: u32) -> Self {
        self.dead.push(task);
        self
    }

    pub(super) fn lease(mut self, task: u32, function: u32, flags: u8, deps: &[u32]) -> Self {
        self.task.push(task);
        self.attempt.push(task + 100);
        self.function.push(function);
        self.flags.push(flags);
        self.dep_counts.push(deps.len() as u32);
        self.deps.extend(deps);
        self.args.push(format!("args of {task}").as_bytes());
        self
    }

    pub(super) fn keyed(mut self, key: &str) -> Self {
        self.key_position.push(self.task.len() as u32 - 1);
        self.keys.push(key.as_bytes());
        self
    }

    /// The last lease is of a task that failed so often.
    pub(super) fn failed(mut self, times: u32) -> Self {
        self.failures.resize(self.task.len() - 1, 0);
        self.failures.push(times);
        self
    }

    /// The last lease is of a task that may run for so long.
    pub(super) fn limited(mut self, limit_ms: u32) -> Self {
        self.timeout_ms.resize(self.task.len() - 1, 0);
        self.timeout_ms.push(limit_ms);
        self
    }

    /// A column that is empty, or as long as the others.
    fn filled(&self, column: &[u32]) -> Vec<u32> {
        let mut column = column.to_vec();
        if !column.is_empty() {
            column.resize(self.task.len(), 0);
        }
        column
    }

    pub(super) fn frame(&self) -> Vec<u8> {
        let (mut names, mut pickles) = (BlobsBuf::default(), BlobsBuf::default());
        for function in &self.functions {
            names.push(format!("f{function}").as_bytes());
            pickles.push(format!("pickle of {function}").as_bytes());
        }
        let index: Vec<u32> = self.task.iter().map(|task| task + 1000).collect();
        encoded(&Message::Lease(Lease {
            frame: 1,
            dead: (&self.dead).into(),
            function_ids: (&self.functions).into(),
            function_names: names.as_blobs(),
            functions: pickles.as_blobs(),
            value_task: (&self.value_task).into(),
            values: self.values.as_blobs(),
            task: (&self.task).into(),
            attempt: (&self.attempt).into(),
            function: (&self.function).into(),
            flags: &self.flags,
            index: (&index).into(),
            dep_counts: (&self.dep_counts).into(),
            deps: (&self.deps).into(),
            args: self.args.as_blobs(),
            key_position: (&self.key_position).into(),
            keys: self.keys.as_blobs(),
            timeout_ms: (&self.filled(&self.timeout_ms)).into(),
            failures: (&self.filled(&self.failures)).into(),
        }))
    }
}

/// A report, owned.
#[derive(Default, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) entries: Vec<(Verdict, u32, u32, Vec<u8>)>,
    pub(super) timed: Vec<(u32, u32, u32)>,
}

/// A worker past its HELLO and the clock it is given.
pub(super) struct Story {
    pub(super) worker: Worker,
    pub(super) start: Start,
    pub(super) now_ns: Cell<u64>,
    pub(super) clock_reads: Cell<u32>,
}

impl Story {
    pub(super) fn new() -> Self {
        let mut worker = Worker::new(&identity());
        assert!(matches!(Message::decode(&worker.poll_frame().unwrap()), Ok(Message::Hello(_))));
        Story { worker, start: Start::default(), now_ns: Cell::new(0), clock_reads: Cell::new(0) }
    }

    pub(super) fn hear(&mut self, frame: &[u8]) -> &mut Self {
        self.worker.handle_frame(frame);
        self
    }

    pub(super) fn recall(&mut self, tasks: &[u32], fetch: &[u32]) -> &mut Self {
        let attempts: Vec<u32> = tasks.iter().map(|task| task + 100).collect();
        self.hear(&encoded(&Message::Recall(Recall {
            task: tasks.into(),
            attempt: (&attempts).into(),
            fetch: fetch.into(),
        })))
    }

    /// Slot of the task that starts now.
    pub(super) fn starts(&mut self) -> Option<u32> {
        let clock = || {
            self.clock_reads.set(self.clock_reads.get() + 1);
            self.now_ns.get()
        };
        self.worker.start_next(&mut self.start, clock).then_some(self.start.task)
    }

    pub(super) fn returns(&mut self, value: &[u8], after_ns: u64) -> &mut Self {
        self.now_ns.set(self.now_ns.get() + after_ns);
        self.worker.finish(Ending::Value(value));
        self
    }

    pub(super) fn flush(&mut self) -> &mut Self {
        self.worker.flush(self.now_ns.get());
        self
    }

    pub(super) fn says(&mut self) -> Said {
        let frame = self.worker.poll_frame().expect("a report was due");
        match Message::decode(&frame).unwrap() {
            Message::Report(report) => Said {
                entries: (0..report.task.len())
                    .zip(report.values.iter())
                    .map(|(at, blob)| {
                        let verdict = Verdict::try_from(report.verdict[at]).unwrap();
                        (verdict, report.task.at(at), report.attempt.at(at), blob.to_vec())
                    })
                    .collect(),
                timed: (0..report.timed_function.len())
                    .map(|at| (report.timed_function.at(at), report.timed_calls.at(at), report.timed_ns.at(at)))
                    .collect(),
            },
            other => panic!("not a report: {other:?}"),
        }
    }

    pub(super) fn says_nothing_else(&mut self) {
        assert_eq!(self.worker.poll_frame(), None);
    }
}

pub(super) fn identity() -> Identity {
    Identity { version: "0.1.0".into(), python: "3.11.7".into(), worker: 3, incarnation: 9, pid: 77 }
}

pub(super) fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    message.encode(&mut frame);
    frame
}
