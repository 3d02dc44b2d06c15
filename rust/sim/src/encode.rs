//! The one place where the simulator builds what the machines are set up with, and what clients submit.

use crate::scenario::{Net, Setup};
use crate::workload::{Body, Name, Size, Task, Workload};
use headrace_protocol::broker::Config;
use headrace_protocol::limits::Offer;
use headrace_protocol::link::Limits;
use headrace_protocol::worker::Identity;
use headrace_wire::{ANY_WORKER, BlobsBuf, EXTERNAL, Hello, Message, PROTOCOL_VERSION, Role, SUBMIT_MORE, Submit};

const VERSION: &str = "0.1.0";
const PYTHON: &str = "3.11.7";
/// Functions of each client.
const FUNCTIONS: u32 = 3;

pub(crate) fn config(setup: &Setup) -> Config {
    Config {
        workers: setup.workers,
        offer: Offer::default(),
        crash_limit: setup.crash_limit,
        oom_limit: 1,
        tasks_max: u64::MAX,
        result_bytes_max: 1 << 20,
        store_limit: setup.store_limit,
        spill_limit: setup.spill_limit,
        version: VERSION.into(),
        python: PYTHON.into(),
        grace_ns: setup.grace_ns,
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

/// What a body must know, out of its arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Args {
    pub(crate) name: Name,
    pub(crate) body: Body,
    pub(crate) size: Size,
    pub(crate) deaf: bool,
    pub(crate) run_ns: u64,
}

const BODIES: [Body; 5] = [Body::Value, Body::Echo, Body::Raise, Body::Poison, Body::Put];
const SIZES: [Size; 3] = [Size::Small, Size::Padded, Size::Block];

impl Args {
    pub(crate) fn of(name: Name, task: &Task) -> Self {
        Args { name, body: task.body, size: task.size, deaf: task.deaf, run_ns: task.run_ns }
    }

    fn encode(&self) -> [u8; 15] {
        let place = |found: Option<usize>| found.expect("all are listed") as u8;
        let mut bytes = [0; 15];
        bytes[..4].copy_from_slice(&self.name.packed().to_le_bytes());
        bytes[4] = place(BODIES.iter().position(|body| *body == self.body));
        bytes[5] = place(SIZES.iter().position(|size| *size == self.size));
        bytes[6] = self.deaf.into();
        bytes[7..].copy_from_slice(&self.run_ns.to_le_bytes());
        bytes
    }

    /// Reads them.
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let (name, rest) = bytes.split_at(4);
        Args {
            name: Name::unpack(u32::from_le_bytes(name.try_into().expect("four bytes"))),
            body: BODIES[usize::from(rest[0])],
            size: SIZES[usize::from(rest[1])],
            deaf: rest[2] == 1,
            run_ns: u64::from_le_bytes(rest[3..].try_into().expect("eight bytes")),
        }
    }
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
}

impl<'a> Submission<'a> {
    pub(crate) fn graph(run: u8, workload: &'a Workload, tasks: &'a [(Name, &'a Task)], keep: &'a [u32]) -> Self {
        let cut = workload.cut.into();
        Submission { run: run.into(), first: 0, tasks, keep, cut, is_first: false }
    }

    /// Hands the SUBMITs over. `place` finds results of other runs.
    pub(crate) fn encode(&self, place: impl Fn(u8, u16) -> Place, mut submit: impl FnMut(&Submit<'_>)) {
        if self.cut == 0 || self.cut >= self.tasks.len() {
            return self.chunk(0..self.tasks.len(), self.is_first, 0, &place, &mut submit);
        }
        self.chunk(0..self.cut, self.is_first, SUBMIT_MORE, &place, &mut submit);
        self.chunk(self.cut..self.tasks.len(), false, 0, &place, &mut submit);
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
            args.push(&Args::of(*name, task).encode());
            options.push(row as u32);
            priority.push(task.priority as u32);
            worker.push(task.pin.unwrap_or(ANY_WORKER));
        }
        let keep: Vec<u32> =
            self.keep.iter().copied().filter(|index| (first..first + tasks.len() as u32).contains(index)).collect();
        let has_options = tasks.iter().any(|(_, task)| task.pin.is_some() || task.priority != 0);
        let options =
            if has_options { (&options, &priority, &worker) } else { (&Vec::new(), &Vec::new(), &Vec::new()) };
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
            task_options: options.0.into(),
            priority: options.1.into(),
            worker: options.2.into(),
            keep: (&keep).into(),
            ..Submit::default()
        });
    }
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
