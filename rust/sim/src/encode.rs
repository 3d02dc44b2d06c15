//! The one place where the simulator builds what the machines are set up with, and what clients submit.

use crate::scenario::{Net, Setup};
use crate::workload::{LICENSES, Name, TAGGED, Task, Workload};
use headrace_protocol::broker::Config;
use headrace_protocol::limits::Offer;
use headrace_protocol::link::Limits;
use headrace_protocol::worker::Identity;
use headrace_wire::{
    ANY_WORKER, BlobsBuf, EXTERNAL, Hello, Message, POLICY_SPECULATIVE, PROTOCOL_VERSION, Policy, Role, SUBMIT_MORE,
    SUBMIT_STOP_ON_ERROR, Submit,
};

const VERSION: &str = "0.1.0";
const PYTHON: &str = "3.11.7";
/// What there is little of.
const LICENSE: &[u8] = b"license";
const TAG: &[u8] = b"tag";
/// Functions of each client.
const FUNCTIONS: u32 = 3;

pub(crate) fn config(setup: &Setup) -> Config {
    let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into();
    Config {
        places: 0,
        spares: 0,
        workers: setup.workers,
        offer: Offer::new([(name(LICENSE), LICENSES)], [(name(TAG), TAGGED)], []),
        crash_limit: setup.crash_limit,
        oom_limit: setup.oom_limit,
        tasks_max: setup.tasks_max,
        result_bytes_max: 1 << 20,
        store_limit: setup.store_limit,
        spill_limit: setup.spill_limit,
        version: VERSION.into(),
        python: PYTHON.into(),
        grace_ns: setup.grace_ns,
        straggler_ns: setup.straggler_ns,
        seed: 0,
    }
}

pub(crate) fn limits(net: &Net) -> Limits {
    Limits {
        window_bytes: net.window_bytes,
        resend_ns: net.resend_ns,
        resend_ns_max: 16 * net.resend_ns,
        ..Limits::default()
    }
}

pub(crate) fn client_hello() -> Hello<'static> {
    Hello {
        protocol: PROTOCOL_VERSION,
        role: Role::Client,
        version: VERSION,
        python: PYTHON,
        features: 0,
        worker: 0,
        incarnation: 0,
        pid: 1,
    }
}

pub(crate) fn identity(worker: u32, incarnation: u64, process: usize) -> Identity {
    Identity { version: VERSION.into(), python: PYTHON.into(), worker, incarnation, pid: 100 + process as u32 }
}

/// Where a client has what it wants to cite: the run and index of an older task.
pub(crate) type Place = (u32, u32);

/// One or more SUBMITs that are a graph, or a single call.
pub(crate) struct Submission<'a> {
    /// The client's run.
    pub(crate) run: u32,
    /// Index of the first task; 0 except for calls.
    pub(crate) first: u32,
    /// Names and tasks, in order.
    pub(crate) tasks: &'a [(Name, &'a Task)],
    /// Numbers of those that are kept.
    pub(crate) keep: &'a [u32],
    /// Where it is cut into two.
    pub(crate) cut: usize,
    /// Whether the functions are new to the broker.
    pub(crate) is_first: bool,
    /// Whether a failure cancels the rest, when everything is cancelled, and what is added to all priorities.
    pub(crate) stops_on_error: bool,
    pub(crate) deadline_ms: u64,
    pub(crate) priority: i32,
}

impl<'a> Submission<'a> {
    pub(crate) fn graph(run: u8, workload: &'a Workload, tasks: &'a [(Name, &'a Task)], keep: &'a [u32]) -> Self {
        let Workload { stops_on_error, deadline_ms, priority, .. } = *workload;
        let (run, cut) = (run.into(), workload.cut.into());
        Submission { run, first: 0, tasks, keep, cut, is_first: false, stops_on_error, deadline_ms, priority }
    }

    /// A single call.
    pub(crate) fn call(index: u32, task: &'a [(Name, &'a Task)], keep: &'a [u32]) -> Self {
        let (stops_on_error, deadline_ms, priority) = (false, 0, 0);
        Submission {
            run: 0,
            first: index,
            tasks: task,
            keep,
            cut: 0,
            is_first: false,
            stops_on_error,
            deadline_ms,
            priority,
        }
    }

    /// Hands the SUBMITs over. `place` finds results of other runs.
    pub(crate) fn encode(&self, place: impl Fn(u8, u16) -> Place, mut submit: impl FnMut(&Submit<'_>)) {
        let flags = if self.stops_on_error { SUBMIT_STOP_ON_ERROR } else { 0 };
        if self.cut == 0 || self.cut >= self.tasks.len() {
            return self.chunk(0..self.tasks.len(), self.is_first, flags, &place, &mut submit);
        }
        self.chunk(0..self.cut, self.is_first, flags | SUBMIT_MORE, &place, &mut submit);
        self.chunk(self.cut..self.tasks.len(), false, flags, &place, &mut submit);
    }

    fn chunk(
        &self,
        rows: std::ops::Range<usize>,
        with_functions: bool,
        flags: u32,
        place: &impl Fn(u8, u16) -> Place,
        submit: &mut impl FnMut(&Submit<'_>),
    ) {
        let first = self.first + rows.start as u32;
        let tasks = &self.tasks[rows.clone()];
        let ids: Vec<u32> = (0..FUNCTIONS).map(|function| 7 + function).collect();
        let (mut names, mut args) = (BlobsBuf::default(), BlobsBuf::default());
        ids.iter().for_each(|id| names.push(&[b'f', *id as u8]));
        let (mut dep_counts, mut deps, mut functions) = (Vec::new(), Vec::new(), Vec::new());
        let (mut external_run, mut external_index) = (Vec::new(), Vec::new());
        let (mut options, mut priority, mut worker) = (Vec::new(), Vec::new(), Vec::new());
        let mut policies = BlobsBuf::default();
        for (row, (name, task)) in tasks.iter().enumerate() {
            dep_counts.push(task.deps.len() as u32);
            for dep in &task.deps {
                if u32::from(dep.run) == self.run && dep.run != 0 {
                    deps.push(dep.number.into());
                } else {
                    let (run, index) = place(dep.run, dep.number);
                    deps.push(EXTERNAL | external_run.len() as u32);
                    external_run.push(run);
                    external_index.push(index);
                }
            }
            functions.push(u32::from(task.function) % FUNCTIONS);
            args.push(&name.packed().to_le_bytes());
            policies.push(&policy(task));
            options.push(row as u32);
            priority.push(task.priority as u32);
            worker.push(task.pin.unwrap_or(ANY_WORKER));
        }
        let keep: Vec<u32> =
            self.keep.iter().copied().filter(|index| (first..first + tasks.len() as u32).contains(index)).collect();
        let has_policies = !policies.bytes.is_empty();
        let is_plain = |task: &Task| task.pin.is_none() && task.priority == 0;
        if !has_policies && tasks.iter().all(|(_, task)| is_plain(task)) {
            options.clear();
            priority.clear();
            worker.clear();
        }
        submit(&Submit {
            run: self.run,
            first,
            flags,
            function_ids: if with_functions { ids[..].into() } else { Default::default() },
            function_names: if with_functions { names.as_blobs() } else { Default::default() },
            functions: if with_functions { names.as_blobs() } else { Default::default() },
            function_map: ids[..].into(),
            task_function: (&functions).into(),
            dep_counts: (&dep_counts).into(),
            deps: (&deps).into(),
            external_run: (&external_run).into(),
            external_index: (&external_index).into(),
            args: args.as_blobs(),
            task_options: (&options).into(),
            priority: (&priority).into(),
            worker: (&worker).into(),
            policies: if has_policies { policies.as_blobs() } else { Default::default() },
            deadline_ms: self.deadline_ms,
            run_priority: self.priority,
            keep: (&keep).into(),
            ..Submit::default()
        });
    }
}

/// What a task asks for beyond priority and worker; nothing for most.
fn policy(task: &Task) -> Vec<u8> {
    let (mut resources, mut tags) = (BlobsBuf::default(), BlobsBuf::default());
    if task.licenses > 0 {
        resources.push(LICENSE);
    }
    if task.tagged {
        tags.push(TAG);
    }
    let amounts = u64::from(task.licenses).to_le_bytes();
    let policy = Policy {
        retries: task.retries,
        flags: if task.speculative { POLICY_SPECULATIVE } else { 0 },
        backoff_ms: if task.retries > 0 { task.backoff_ms } else { 0 },
        backoff_max_ms: if task.retries > 0 { 4 * task.backoff_ms } else { 0 },
        timeout_ms: task.timeout_ms,
        queue_timeout_ms: task.queue_timeout_ms,
        resources: resources.as_blobs(),
        amounts: if task.licenses > 0 { &amounts } else { &[] },
        tags: tags.as_blobs(),
    };
    let mut blob = Vec::new();
    if policy != Policy::default() {
        Message::Policy(policy).encode(&mut blob);
    }
    blob
}

/// A SUBMIT that stands by itself, because a client's machine is needed while it is made.
pub(crate) fn owned(submit: &Submit<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    Message::Submit(submit.clone()).encode(&mut frame);
    frame
}

/// The SUBMIT in a frame.
pub(crate) fn borrowed(frame: &[u8]) -> Submit<'_> {
    match Message::decode(frame) {
        Ok(Message::Submit(submit)) => submit,
        _ => unreachable!("it was encoded just now"),
    }
}
