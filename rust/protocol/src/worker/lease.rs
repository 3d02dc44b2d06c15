//! The queue of leases, frame after frame, and what is handed out of it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use headrace_kernel::seeded;
use headrace_wire as wire;
use rustc_hash::FxHashSet;

use super::value::Value;

/// A lease that has not ended. Positions count in the columns of its frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) task: u32,
    pub(super) attempt: u32,
    pub(super) function: u32,
    /// Index of the task within its run, for people.
    pub(super) index: u32,
    pub(super) flags: u8,
    position: u32,
    args_at: u32,
    args_len: u32,
    deps_at: u32,
    deps_len: u32,
}

impl Lease {
    fn deps(&self) -> Range<usize> {
        self.deps_at as usize..(self.deps_at + self.deps_len) as usize
    }
}

/// What the leases of one frame share.
#[derive(Default)]
pub(super) struct Columns {
    deps: Vec<u32>,
    args: Box<[u8]>,
    /// Keys of their own, ascending by position.
    keys: Vec<(u32, Box<str>)>,
    /// Milliseconds that each attempt may run, or 0, by position; empty where none has a limit.
    timeout_ms: Box<[u32]>,
    /// Attempts that failed before, by position; empty where none did.
    failures: Box<[u32]>,
}

/// The leases of one frame that have not started.
struct Batch {
    leases: VecDeque<Lease>,
    columns: Arc<Columns>,
}

/// A lease that starts: what to call, and with what. Reused from task to task; it shares what it names with the machine.
#[derive(Default)]
pub struct Start {
    /// Slot of the task.
    pub task: u32,
    /// Attempt number.
    pub attempt: u32,
    /// Number of the function.
    pub function: u32,
    /// Values of the predecessors, in the order in which the arguments cite them.
    pub inputs: Vec<Value>,
    /// The largest encoded result that may be reported.
    pub result_bytes_max: u64,
    columns: Arc<Columns>,
    args: Range<usize>,
}

impl Start {
    /// The encoded arguments.
    #[inline]
    #[must_use]
    pub fn args(&self) -> &[u8] {
        &self.columns.args[self.args.clone()]
    }

    /// Lets go of what it shares.
    pub fn clear(&mut self) {
        *self = Start { inputs: std::mem::take(&mut self.inputs), ..Start::default() };
        self.inputs.clear();
    }
}

fn is_nested(batch: &Batch) -> bool {
    batch.leases.front().is_some_and(|lease| lease.flags & wire::LEASE_NESTED != 0)
}

/// Leases in the order in which they run.
#[derive(Default)]
pub(super) struct Queue {
    /// None of them is empty.
    batches: VecDeque<Batch>,
    running: Option<Lease>,
    /// Columns of the running lease, or of the one that ran last.
    columns: Arc<Columns>,
}

impl Queue {
    /// Appends the leases of a frame.
    pub(super) fn push(&mut self, frame: &wire::Lease<'_>) {
        let (mut args_at, mut deps_at) = (0, 0);
        let leases: VecDeque<Lease> = (0..frame.task.len())
            .map(|position| {
                let lease = Lease {
                    task: frame.task.at(position),
                    attempt: frame.attempt.at(position),
                    function: frame.function.at(position),
                    index: frame.index.at(position),
                    flags: frame.flags[position],
                    position: position as u32,
                    args_at,
                    args_len: frame.args.lens.at(position),
                    deps_at,
                    deps_len: frame.dep_counts.at(position),
                };
                args_at += lease.args_len;
                deps_at += lease.deps_len;
                lease
            })
            .collect();
        if leases.is_empty() {
            return;
        }
        let text = |key| String::from_utf8_lossy(key).into();
        let columns = Columns {
            deps: frame.deps.to_vec(),
            args: frame.args.bytes.into(),
            keys: frame.key_position.iter().zip(frame.keys.iter().map(text)).collect(),
            timeout_ms: frame.timeout_ms.iter().collect(),
            failures: frame.failures.iter().collect(),
        };
        self.batches.push_back(Batch { leases, columns: Arc::new(columns) });
    }

    /// Moves the first lease out of the queue: it runs now.
    #[inline]
    pub(super) fn pop(&mut self, start: &mut Start) -> Option<Lease> {
        let batch = self.batches.front_mut()?;
        let lease = batch.leases.pop_front()?;
        if !Arc::ptr_eq(&self.columns, &batch.columns) {
            self.columns = Arc::clone(&batch.columns);
        }
        if !Arc::ptr_eq(&start.columns, &batch.columns) {
            start.columns = Arc::clone(&batch.columns);
        }
        if batch.leases.is_empty() {
            self.batches.pop_front();
        }
        (start.task, start.attempt, start.function) = (lease.task, lease.attempt, lease.function);
        start.args = lease.args_at as usize..(lease.args_at + lease.args_len) as usize;
        self.running = Some(lease);
        Some(lease)
    }

    #[inline]
    pub(super) fn running(&self) -> Option<&Lease> {
        self.running.as_ref()
    }

    /// Whether a lease waits that a waiting task may run.
    #[inline]
    pub(super) fn has_nested(&self) -> bool {
        self.batches.iter().any(is_nested)
    }

    /// Makes such a lease the next one.
    pub(super) fn bring_nested(&mut self) {
        if let Some(batch) = self.batches.iter().position(is_nested).and_then(|position| self.batches.remove(position))
        {
            self.batches.push_front(batch);
        }
    }

    /// Sets the running lease aside, with its columns.
    pub(super) fn suspend(&mut self) -> Option<(Lease, Arc<Columns>)> {
        Some((self.running.take()?, Arc::clone(&self.columns)))
    }

    /// Has it run again.
    pub(super) fn resume(&mut self, lease: Lease, columns: Arc<Columns>) {
        (self.running, self.columns) = (Some(lease), columns);
    }

    #[inline]
    pub(super) fn end_running(&mut self) -> Option<Lease> {
        self.running.take()
    }

    /// Whether no lease of the frame of the one that ran last is left.
    #[inline]
    pub(super) fn at_frame_end(&self) -> bool {
        self.batches.front().is_none_or(|batch| !Arc::ptr_eq(&batch.columns, &self.columns))
    }

    /// Lets go of the columns of the lease that ran last, unless they are needed.
    pub(super) fn release_columns(&mut self) {
        if self.running.is_none() && self.batches.is_empty() {
            self.columns = Arc::default();
        }
    }

    #[inline]
    pub(super) fn deps_of_running(&self) -> &[u32] {
        self.running.as_ref().map_or(&[], |lease| &self.columns.deps[lease.deps()])
    }

    /// The key of its own that the running lease has.
    pub(super) fn key_of_running(&self) -> Option<&str> {
        let position = self.running.as_ref()?.position;
        let keys = &self.columns.keys;
        keys.binary_search_by_key(&position, |(position, _)| *position).ok().map(|at| &*keys[at].1)
    }

    /// Milliseconds that the running lease's attempt may take.
    #[inline]
    pub(super) fn limit_of_running(&self) -> Option<u64> {
        if self.columns.timeout_ms.is_empty() {
            return None;
        }
        let limit_ms = self.columns.timeout_ms[self.running.as_ref()?.position as usize];
        (limit_ms > 0).then_some(limit_ms.into())
    }

    /// How many attempts of the running lease's task failed before.
    pub(super) fn failures_of_running(&self) -> u32 {
        let position = self.running.as_ref().map_or(0, |lease| lease.position as usize);
        self.columns.failures.get(position).copied().unwrap_or(0)
    }

    /// Removes those of `wanted` (task, attempt) that have not started, and every lease behind them that depends on one
    /// that is removed; lists all of them in queue order.
    pub(super) fn take_back(&mut self, wanted: &FxHashSet<(u32, u32)>) -> Vec<(u32, u32)> {
        let mut gone = FxHashSet::default();
        self.remove_if(|lease, columns| {
            let goes = wanted.contains(&(lease.task, lease.attempt))
                || columns.deps[lease.deps()].iter().any(|dep| gone.contains(dep));
            if goes {
                gone.insert(lease.task);
            } else {
                // A later attempt of a task that was taken back brings the result after all.
                gone.remove(&lease.task);
            }
            goes
        })
    }

    /// Removes those of `unwanted` (task, attempt) that have not started and lists them in queue order.
    pub(super) fn drop_leases(&mut self, unwanted: &FxHashSet<(u32, u32)>) -> Vec<(u32, u32)> {
        self.remove_if(|lease, _| unwanted.contains(&(lease.task, lease.attempt)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.batches.iter().map(|batch| batch.leases.len()).sum()
    }

    fn remove_if(&mut self, mut goes: impl FnMut(&Lease, &Columns) -> bool) -> Vec<(u32, u32)> {
        let mut removed = Vec::new();
        for Batch { leases, columns } in &mut self.batches {
            leases.retain(|lease| {
                let goes = goes(lease, columns);
                if goes {
                    removed.push((lease.task, lease.attempt));
                }
                !goes || seeded!("returned and started")
            });
        }
        self.batches.retain(|batch| !batch.leases.is_empty());
        removed
    }
}
