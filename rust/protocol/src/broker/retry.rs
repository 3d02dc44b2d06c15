//! Retries: a failed attempt of a task that may be tried again goes back to the kernel instead of ending the task.
//!
//! Failures are counted here, and nothing else is: a crash, a recall or a lost worker costs no retry (K4).
//!
//! A task that must not be leased yet is *parked*: it has [`PARKED_CLASS`], which no worker may take. It is because its pause
//! has not ended, or because an input is with the worker of the failed attempt alone. The worker still has it, and is asked
//! for it; making it again, as for leases that come back for a reason that nobody could foresee, would run tasks twice.

use super::policy::{DEFAULT_POLICY, Policy};
use super::{Broker, worker_id};
use headrace_kernel::{Attempt, ClassId, Handle, Returned, TaskIndex, TaskState};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Class of parked tasks.
pub(crate) const PARKED_CLASS: ClassId = ClassId(u32::MAX - 1);

/// Who failed, and who waits for its next attempt.
#[derive(Debug)]
pub(crate) struct Retries {
    seed: u64,
    /// Failures of live tasks, by slot.
    failures: FxHashMap<u32, u32>,
    /// Parked tasks by the end of their pause; the number makes the order one.
    pausing: BinaryHeap<Reverse<(u64, u64, Parked)>>,
    parked: u64,
    /// Those whose pause has ended, but not all inputs are here.
    fetching: Vec<Parked>,
}

/// A task that nobody may lease yet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Parked {
    task: Name,
    /// The class that it had.
    class: u32,
    /// Inputs of it, and of tasks behind it, that only a worker had.
    inputs: Vec<Name>,
}

/// Slot and generation of a task.
type Name = (u32, u32);

impl Retries {
    pub(crate) fn new(seed: u64) -> Self {
        Retries { seed, failures: FxHashMap::default(), pausing: BinaryHeap::new(), parked: 0, fetching: Vec::new() }
    }

    /// How many attempts of a task have failed.
    #[inline]
    pub(crate) fn failures(&self, task: u32) -> u32 {
        if self.failures.is_empty() { 0 } else { self.failures.get(&task).copied().unwrap_or(0) }
    }

    /// Counts one more failure, if the policy allows another attempt then.
    fn count_failure(&mut self, task: u32, policy: &Policy) -> Option<u32> {
        let failures = self.failures(task);
        (failures < policy.retries).then(|| {
            self.failures.insert(task, failures + 1);
            failures + 1
        })
    }

    /// The slot is free.
    #[inline]
    pub(crate) fn forget(&mut self, task: u32) {
        if !self.failures.is_empty() {
            self.failures.remove(&task);
        }
    }

    fn park(&mut self, parked: Parked, until_ns: u64) {
        self.parked += 1;
        self.pausing.push(Reverse((until_ns, self.parked, parked)));
    }

    /// When the next pause ends.
    pub(crate) fn next_timeout_ns(&self) -> Option<u64> {
        self.pausing.peek().map(|Reverse((until_ns, ..))| *until_ns)
    }

    /// The pause before the next attempt. Up to a quarter is added or taken away, so that what failed together does not come
    /// back together.
    fn pause_ns(&self, policy: &Policy, task: u32, failures: u32) -> u64 {
        let doubled = u64::from(policy.backoff_ms) << (failures - 1).min(32);
        let pause_ns = doubled.min(policy.backoff_max_ms.into()) * 1_000_000;
        let chance = mix(self.seed ^ (u64::from(task) << 32 | u64::from(failures)));
        let quarter_ns = pause_ns / 4;
        pause_ns - quarter_ns + ((u128::from(2 * quarter_ns) * u128::from(chance)) >> 64) as u64
    }
}

impl Broker {
    /// Has a task whose attempt failed tried again, if it may be. Whether it will: then the attempt is over, and what stood
    /// behind it on its worker has come back.
    pub(super) fn retry(&mut self, number: u32, task: u32, attempt: u32, now_ns: u64) -> bool {
        let slot = *self.ledger.slot(task);
        let (worker, index, stamp) = (worker_id(number), TaskIndex(task), Attempt(attempt));
        if slot.policy == DEFAULT_POLICY || !self.is_leased(number, task, attempt) {
            return false;
        }
        let policy = self.policies.get(slot.policy);
        let Some(failures) = self.retries.count_failure(task, policy) else { return false };
        let pause_ns = self.retries.pause_ns(policy, task, failures);
        self.statistics.retries += 1;
        self.run_mut(slot.run).counts.retries += 1;
        let inputs = self.held_inputs(number, &[(task, attempt)]);
        if pause_ns > 0 || !inputs.is_empty() {
            let class = self.kernel.set_class(index, PARKED_CLASS).0;
            let inputs = inputs.iter().map(|input| self.name(*input)).collect();
            self.retries.park(Parked { task: self.name(task), class, inputs }, now_ns + pause_ns);
        }
        self.kernel.give_back(worker, index, stamp).expect("it was seen to be leased");
        self.unlease(number, task);
        self.fetch(number, &inputs);
        let mut behind: Vec<Returned> = Vec::new();
        self.kernel.drain_returned(|lease| behind.push(lease));
        self.regain_inputs_but(task, &inputs);
        self.take_leases(behind, &inputs);
        self.settle_returned();
        true
    }

    /// Lets parked tasks go that may be leased from now on.
    pub(super) fn end_pauses(&mut self, now_ns: u64) {
        while self.retries.next_timeout_ns().is_some_and(|until_ns| until_ns <= now_ns) {
            self.retries.fetching.extend(self.retries.pausing.pop().map(|Reverse((.., parked))| parked));
        }
        if self.retries.fetching.is_empty() {
            return;
        }
        let Broker { kernel, ledger, retries, .. } = self;
        let find = |(index, generation): Name| kernel.resolve(Handle { index: TaskIndex(index), generation });
        let is_away = |input: &Name| {
            find(*input).is_some_and(|input| {
                kernel.state(input) == TaskState::Done
                    && ledger.value(input.0).is_some_and(|value| value.payload.is_none())
            })
        };
        let mut due = Vec::new();
        retries.fetching.retain(|parked| {
            let waits = parked.inputs.iter().any(is_away);
            due.extend(find(parked.task).filter(|_| !waits).map(|task| (task, parked.class)));
            waits
        });
        // The first comes to the very front.
        for (task, class) in due.into_iter().rev() {
            kernel.set_class(task, ClassId(class));
        }
    }

    fn name(&self, task: u32) -> Name {
        (task, self.kernel.handle(TaskIndex(task)).generation)
    }
}

/// A number that looks like chance (SplitMix64).
fn mix(number: u64) -> u64 {
    let mut word = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
