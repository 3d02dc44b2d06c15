//! What peers say to a broker: messages that decode and fit, more or less, and the same with bytes turned.

use super::Siege;
use super::script::Script;
use headrace_protocol::broker::PeerId;
use headrace_wire::{
    ANY_WORKER, BLOCK_ALIGN, BlobsBuf, Cancel, Citation, EXTERNAL, GiveBack, Goodbye, Heartbeat, Hello, Hold, Lack,
    Lease, Message, Overdue, PROTOCOL_VERSION, Policy, Put, Query, Recall, Released, Report, Results, Role,
    SUBMIT_MORE, State, Submit, Waiting, Want, Welcome, Why, Withdraw, write_citations,
};

/// Beyond it a broker does not keep a value without looking at its budget.
const LONG_VALUE_BYTES: usize = 700;

impl Siege {
    /// A frame of `peer`: any message, and more often one that it may send.
    pub(super) fn compose(&mut self, script: &mut Script<'_>, peer: PeerId) -> Vec<u8> {
        let mut frame = Vec::new();
        match script.below(20) {
            0 => hello(self, script).encode(&mut frame),
            1 | 2 => self.compose_submit(script, peer, &mut frame),
            3..=8 if self.is_worker(peer) => self.compose_report(script, peer, &mut frame),
            3..=5 => self.compose_submit(script, peer, &mut frame),
            6..=8 => self.compose_report(script, peer, &mut frame),
            9 => {
                let (add, remove) = (script.numbers(3), script.numbers(3));
                let (run, release_run) = (script.number(), script.one_in(3));
                Message::Hold(Hold { run, add: (&add).into(), remove: (&remove).into(), release_run })
                    .encode(&mut frame);
            }
            10 => {
                let (run, whole, index) = (script.number(), script.one_in(3), script.numbers(3));
                let index = if whole { Vec::new() } else { index };
                Message::Cancel(Cancel { run, whole, index: (&index).into(), spare_leased: run % 2 == 1 })
                    .encode(&mut frame);
            }
            11 if script.one_in(2) => Message::Query(Query { run: script.number(), number: 7 }).encode(&mut frame),
            11 => {
                let (run, index, stacks) = (script.number(), script.number(), script.one_in(2));
                let key = ["", "", "work-0", "-"][script.below(4)];
                Message::Why(Why { number: 7, run, index, key, stacks }).encode(&mut frame);
            }
            12 => {
                let index = script.number();
                let value = self.compose_value(script);
                Message::Put(Put { index, value: &value }).encode(&mut frame);
            }
            13 => {
                let bytes = [1, 5_000, 1 << 20, u64::from(script.number()) << 32][script.below(4)];
                match script.below(8) {
                    0 => Message::Withdraw(Withdraw { bytes }).encode(&mut frame),
                    1 => Message::Lack(Lack { segment: script.number() }).encode(&mut frame),
                    _ => Message::Want(Want { bytes }).encode(&mut frame),
                }
            }
            14 => {
                let (segment, offset): (Vec<u32>, Vec<u32>) =
                    (0..script.below(4)).map(|_| (script.number(), script.number())).unzip();
                Message::Released(Released { segment: (&segment).into(), offset: (&offset).into() }).encode(&mut frame);
            }
            15 => {
                let (segment, pages): (Vec<u32>, Vec<u32>) =
                    (0..script.below(4)).map(|_| (script.number(), script.number())).unzip();
                Message::GiveBack(GiveBack {
                    segment: (&segment).into(),
                    pages: (&pages).into(),
                    ..GiveBack::default()
                })
                .encode(&mut frame);
            }
            16 if script.one_in(2) => {
                Message::Heartbeat(Heartbeat { number: 3, finished: u64::MAX }).encode(&mut frame);
            }
            16 => {
                let lease = self.leases.iter().find(|lease| lease.0 == peer).copied();
                let (_, task, attempt) = lease.unwrap_or((peer, script.number(), script.number()));
                Message::Overdue(Overdue { task, attempt }).encode(&mut frame);
            }
            17 if script.one_in(2) => {
                let lease = self.leases.iter().rev().find(|lease| lease.0 == peer).copied();
                let (_, task, attempt) = lease.unwrap_or((peer, script.number(), script.number()));
                let (waits, run, index) = (script.one_in(2), script.below(4) as u32, script.number());
                let helps = !script.one_in(4);
                Message::Waiting(Waiting { task, attempt, waits, run, index, helps }).encode(&mut frame);
            }
            17 if script.one_in(4) => {
                Message::Goodbye(Goodbye { reason: script.byte() % 6, text: "bye" }).encode(&mut frame)
            }
            // What only a broker says.
            _ => match script.below(6) {
                0 => Message::Lease(Lease::default()).encode(&mut frame),
                1 => Message::Recall(Recall::default()).encode(&mut frame),
                2 => Message::Results(Results::default()).encode(&mut frame),
                3 => Message::State(State::default()).encode(&mut frame),
                // What stands within other frames.
                4 => frame = policy(script),
                _ => {
                    let welcome =
                        Welcome { protocol: 1, version: "0.1.0", features: 0, session: 1, result_bytes_max: 0 };
                    Message::Welcome(welcome).encode(&mut frame);
                }
            },
        }
        frame
    }

    fn compose_submit(&mut self, script: &mut Script<'_>, peer: PeerId, frame: &mut Vec<u8>) {
        let run = script.below(4) as u32;
        let known = self.submitted.entry((peer, run)).or_insert(0);
        let first = if script.one_in(12) { script.number() & 0xffff } else { *known };
        let tasks = script.below(6);
        *known = first + tasks as u32;
        let (mut counts, mut deps) = (Vec::new(), Vec::new());
        let (external_run, external_index): (Vec<u32>, Vec<u32>) =
            (0..script.below(3)).map(|_| (script.below(4) as u32, script.below(8) as u32)).unzip();
        for local in 0..tasks as u32 {
            let mut row: Vec<u32> = (0..script.below(4))
                .filter_map(|_| match script.below(8) {
                    0 if !external_run.is_empty() => Some(EXTERNAL | script.below(external_run.len()) as u32),
                    1 => Some(script.below(tasks) as u32 + first),
                    _ => (first + local).checked_sub(1 + script.below(4) as u32),
                })
                .collect();
            if !script.one_in(10) {
                row.sort_unstable();
                row.dedup();
            }
            counts.push(row.len() as u32);
            deps.extend(row);
        }
        let (mut names, mut args, mut keys) = (BlobsBuf::default(), BlobsBuf::default(), BlobsBuf::default());
        let new = if script.one_in(8) { 0 } else { 1 };
        (0..new).for_each(|_| names.push(b"f"));
        (0..tasks).for_each(|_| args.push(script.take(9)));
        let number = [script.below(2) as u32];
        let functions = vec![0; tasks];
        let options = if script.one_in(4) { script.below(3) } else { 0 };
        let rows: Vec<u32> = (0..if options > 0 { tasks } else { 0 }).map(|_| script.below(options) as u32).collect();
        let priority: Vec<u32> = (0..options).map(|_| script.number()).collect();
        let pins: Vec<u32> =
            (0..options).map(|_| if script.one_in(3) { ANY_WORKER } else { script.below(3) as u32 }).collect();
        let mut keep: Vec<u32> = (0..tasks as u32).filter(|_| script.one_in(3)).map(|local| first + local).collect();
        if script.one_in(20) {
            keep.extend(keep.first().copied());
        }
        let mut policies = BlobsBuf::default();
        if options > 0 && script.one_in(3) {
            (0..options).for_each(|_| policies.push(&policy(script)));
        }
        let key_index: Vec<u32> = (0..tasks.min(script.below(3)) as u32).map(|local| first + local).collect();
        key_index.iter().for_each(|_| keys.push(b"key"));
        let mut policies = BlobsBuf::default();
        if script.one_in(2) {
            (0..options).for_each(|_| policies.push(&compose_policy(script)));
        }
        let own = self.leases.iter().find(|lease| lease.0 == peer).filter(|_| !script.one_in(8)).copied();
        let (_, parent, parent_attempt) = own.unwrap_or((peer, script.number(), script.below(3) as u32));
        let submit = Submit {
            run,
            first,
            flags: if script.one_in(5) { SUBMIT_MORE } else { script.number() & !SUBMIT_MORE },
            function_ids: number[..new].into(),
            function_names: names.as_blobs(),
            functions: names.as_blobs(),
            function_map: number[..].into(),
            task_function: (&functions).into(),
            dep_counts: (&counts).into(),
            deps: (&deps).into(),
            external_run: (&external_run).into(),
            external_index: (&external_index).into(),
            args: args.as_blobs(),
            task_options: (&rows).into(),
            priority: (&priority).into(),
            worker: (&pins).into(),
            key_index: (&key_index).into(),
            keys: keys.as_blobs(),
            keep: (&keep).into(),
            policies: policies.as_blobs(),
            deadline_ms: if script.one_in(8) { u64::from(script.number()) } else { 0 },
            run_priority: script.number() as i32,
            parent,
            parent_attempt,
        };
        Message::Submit(submit).encode(frame);
    }

    fn compose_report(&mut self, script: &mut Script<'_>, peer: PeerId, frame: &mut Vec<u8>) {
        let (mut task, mut attempt, mut verdict) = (Vec::new(), Vec::new(), Vec::new());
        let mut values = BlobsBuf::default();
        for _ in 0..script.below(5) {
            let own: Vec<(u32, u32)> =
                self.leases.iter().filter(|lease| lease.0 == peer).map(|lease| (lease.1, lease.2)).collect();
            let (of, stamp) = match script.below(8) {
                0 => (script.number(), script.number()),
                1 if !self.leases.is_empty() => {
                    let lease = self.leases[script.below(256) % self.leases.len()];
                    (lease.1, lease.2)
                }
                // Mostly in order, as a worker that means well.
                _ if own.is_empty() => (script.number(), 0),
                2 | 3 => own[script.below(256) % own.len()],
                _ => own[0],
            };
            let said = script.below(12).saturating_sub(2) as u8;
            if !matches!(said, 5 | 6) && !script.one_in(6) {
                self.leases.retain(|lease| *lease != (peer, of, stamp));
            }
            task.push(of);
            attempt.push(stamp);
            verdict.push(said);
            values.push(&self.compose_value(script));
        }
        let (function, calls): (Vec<u32>, Vec<u32>) =
            (0..script.below(3)).map(|_| (script.number(), script.number())).unzip();
        let ns: Vec<u32> = function.iter().map(|_| script.number()).collect();
        let report = Report {
            task: (&task).into(),
            attempt: (&attempt).into(),
            verdict: &verdict,
            values: values.as_blobs(),
            timed_function: (&function).into(),
            timed_calls: (&calls).into(),
            timed_ns: (&ns).into(),
        };
        Message::Report(report).encode(frame);
    }

    /// An encoded value, as far as a broker looks: the blocks that it cites, and its length.
    fn compose_value(&mut self, script: &mut Script<'_>) -> Vec<u8> {
        match script.below(6) {
            0 => vec![0; LONG_VALUE_BYTES],
            1 | 2 => {
                let cited: Vec<Citation> = (0..script.below(4))
                    .map(|_| Citation {
                        segment: match script.below(4) {
                            0 => script.number(),
                            _ if self.segments.is_empty() => 1,
                            _ => self.segments[script.below(256) % self.segments.len()],
                        },
                        offset: u64::from(script.number()) * if script.one_in(9) { 7 } else { BLOCK_ALIGN },
                        bytes: u64::from(script.number()) << (8 * script.below(8)).min(63),
                    })
                    .collect();
                let mut value = Vec::new();
                write_citations(&cited, &mut value);
                value.extend_from_slice(script.take(4));
                value
            }
            _ => script.take(12).to_vec(),
        }
    }
}

/// The options of a task, encoded.
fn policy(script: &mut Script<'_>) -> Vec<u8> {
    let (mut names, mut frame) = (BlobsBuf::default(), Vec::new());
    let amounts: Vec<u8> = (0..script.below(3)).flat_map(|_| u64::from(script.number()).to_le_bytes()).collect();
    (0..amounts.len() / 8).for_each(|name| names.push(&[b'a' + name as u8]));
    let policy = Policy {
        retries: script.number(),
        flags: script.number(),
        backoff_ms: script.number(),
        backoff_max_ms: script.number(),
        timeout_ms: script.number(),
        queue_timeout_ms: script.number(),
        resources: names.as_blobs(),
        amounts: &amounts,
        tags: names.as_blobs(),
    };
    Message::Policy(policy).encode(&mut frame);
    frame
}

/// A HELLO: mostly of the right version, and often as a worker that is awaited.
fn hello(siege: &Siege, script: &mut Script<'_>) -> Message<'static> {
    let worker = script.below(3) as u32;
    let awaited = siege.processes.get(worker as usize).and_then(|place| place.last().copied());
    Message::Hello(Hello {
        protocol: if script.one_in(30) { 2 } else { PROTOCOL_VERSION },
        role: [Role::Client, Role::Worker, Role::Worker, Role::Observer][script.below(4)],
        version: if script.one_in(30) { "9" } else { super::VERSION },
        python: if script.one_in(30) { "" } else { super::PYTHON },
        features: u64::MAX,
        worker,
        incarnation: awaited.filter(|_| !script.one_in(9)).unwrap_or(u64::from(script.byte())),
        pid: u32::MAX,
    })
}

/// Turns a few bytes.
pub(super) fn mutate(script: &mut Script<'_>, frame: &mut Vec<u8>) {
    for _ in 0..1 + script.below(3) {
        let at = (script.below(256) | script.below(4) << 8) % frame.len().max(1);
        match script.below(6) {
            _ if frame.is_empty() => frame.push(script.byte()),
            0 => frame[at] ^= 1 << script.below(8),
            1 => frame[at] = script.byte(),
            2 => frame.truncate(at),
            3 => frame.insert(at, script.byte()),
            4 => drop(frame.remove(at)),
            _ => {
                let word = script.number().to_le_bytes();
                let len = word.len().min(frame.len() - at);
                frame[at..at + len].copy_from_slice(&word[..len]);
            }
        }
    }
}

/// What the options of a task may come to: nothing, a policy, or no message at all.
fn compose_policy(script: &mut Script<'_>) -> Vec<u8> {
    let (mut resources, mut amounts, mut tags) = (BlobsBuf::default(), Vec::new(), BlobsBuf::default());
    match script.below(6) {
        0 => return Vec::new(),
        1 => return script.take(5).to_vec(),
        2 => tags.push(script.take(1)),
        3 => {
            resources.push(b"gpu");
            amounts.extend_from_slice(&u64::from(script.number()).to_le_bytes());
        }
        _ => {}
    }
    let mut blob = Vec::new();
    Message::Policy(Policy {
        retries: script.below(4) as u32,
        flags: script.number(),
        backoff_ms: script.number(),
        backoff_max_ms: script.number(),
        timeout_ms: script.below(3) as u32,
        queue_timeout_ms: script.below(3) as u32,
        resources: resources.as_blobs(),
        amounts: &amounts,
        tags: tags.as_blobs(),
    })
    .encode(&mut blob);
    blob
}
