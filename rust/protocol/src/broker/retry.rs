//! Retries: a failed attempt of a task that may be tried again goes back to the kernel instead of ending the task.
//!
//! Failures are counted here, and nothing else is: a crash, a recall or a lost worker costs no retry (K4).
//!
//! A task that must not be leased yet is *parked*: it has [`PARKED_CLASS`], which no worker may take. It is because its pause
//! has not ended, or because an input is with the worker of the failed attempt alone. The worker still has it, and is asked
//! for it; making it again, as for leases that come back for a reason that nobody could foresee, would run tasks twice.

use super::nested::BECAME_CLASS;
use super::policy::{DEFAULT_POLICY, Policy};
use super::timers::{Name, Timer};
use super::{Broker, worker_id};
use headrace_kernel::{Attempt, ClassId, Kernel, Returned, TaskIndex, TaskState};
use rustc_hash::FxHashMap;

/// Class of parked tasks.
pub(crate) const PARKED_CLASS: ClassId = ClassId(u32::MAX - 1);

/// Whether tasks of a class are ready and must not be leased: they pause, or have become graphs.
pub(crate) fn is_parked(class: ClassId) -> bool {
    class == PARKED_CLASS || class == BECAME_CLASS
}

/// Who failed, and who waits for inputs of its next attempt.
#[derive(Debug)]
pub(crate) struct Retries {
    seed: u64,
    /// Failures of live tasks, by slot.
    failures: FxHashMap<u32, u32>,
    /// Parked tasks whose pause has ended, if they had one, and which may not have all inputs here.
    fetching: Vec<Parked>,
}

/// A task that nobody may lease yet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Parked {
    pub(crate) task: Name,
    /// The class that it had.
    class: u32,
    /// Inputs of it, and of tasks behind it, that only a worker had.
    inputs: Vec<Name>,
}

impl Parked {
    /// Whether it is this task.
    pub(crate) fn is_of(&self, task: TaskIndex, kernel: &Kernel) -> bool {
        self.task.find(kernel) == Some(task)
    }
}

impl Retries {
    pub(crate) fn new(seed: u64) -> Self {
        Retries { seed, failures: FxHashMap::default(), fetching: Vec::new() }
    }

    /// How many attempts of a task have failed.
    #[inline]
    pub(crate) fn failures(&self, task: u32) -> u32 {
        if self.failures.is_empty() { 0 } else { self.failures.get(&task).copied().unwrap_or(0) }
    }

    /// Counts one more failure, if the policy allows another attempt then; the pause before that.
    fn count_failure(&mut self, task: u32, policy: &Policy) -> Option<u64> {
        let failures = self.failures(task) + 1;
        (failures <= policy.retries).then(|| {
            self.failures.insert(task, failures);
            self.pause_ns(policy, task, failures)
        })
    }

    /// The slot is free.
    #[inline]
    pub(crate) fn forget(&mut self, task: u32) {
        if !self.failures.is_empty() {
            self.failures.remove(&task);
        }
    }

    pub(crate) fn end_pause(&mut self, parked: Parked) {
        self.fetching.push(parked);
    }

    /// The pause before the next attempt. Up to a quarter is added or taken away, so that what failed together does not come
    /// back together.
    fn pause_ns(&self, policy: &Policy, task: u32, failures: u32) -> u64 {
        let doubled = u64::from(policy.backoff_ms) << (failures - 1).min(31);
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
        if self.ledger.slot(task).policy == DEFAULT_POLICY || !self.is_leased(number, task, attempt) {
            return false;
        }
        let Some(pause_ns) = self.count_failure(task) else { return false };
        let inputs = self.held_inputs(number, &[(task, attempt)]);
        if pause_ns > 0 || !inputs.is_empty() {
            self.park(task, &inputs, now_ns + pause_ns);
        }
        let given_back = self.kernel.give_back(worker_id(number), TaskIndex(task), Attempt(attempt));
        given_back.expect("it was seen to be leased");
        self.unlease(number, task);
        self.fetch(number, &inputs);
        let mut behind: Vec<Returned> = Vec::new();
        self.kernel.drain_returned(|lease| behind.push(lease));
        self.regain_inputs_but(task, &inputs);
        self.take_leases(behind, &inputs);
        self.settle_returned();
        true
    }

    /// The same of an attempt whose worker has died, before its leases are taken back.
    pub(super) fn retry_after_death(&mut self, task: u32, now_ns: u64) -> bool {
        let Some(pause_ns) = self.count_failure(task) else { return false };
        if pause_ns > 0 {
            self.park(task, &[], now_ns + pause_ns);
        }
        true
    }

    fn count_failure(&mut self, task: u32) -> Option<u64> {
        let slot = *self.ledger.slot(task);
        let pause_ns = self.retries.count_failure(task, self.policies.get(slot.policy))?;
        self.statistics.retries += 1;
        self.run_mut(slot.run).counts.retries += 1;
        self.waits.forget(task);
        Some(pause_ns)
    }

    fn park(&mut self, task: u32, inputs: &[u32], until_ns: u64) {
        let class = self.kernel.set_class(TaskIndex(task), PARKED_CLASS).0;
        let inputs = inputs.iter().map(|input| Name::of(*input, &self.kernel)).collect();
        let parked = Parked { task: Name::of(task, &self.kernel), class, inputs };
        self.set_timer(until_ns, Timer::Pause(parked));
    }

    /// Lets those tasks go that have no pause any more, and whose inputs are here or are made again.
    pub(super) fn unpark(&mut self, now_ns: u64) {
        if self.retries.fetching.is_empty() {
            return;
        }
        let Broker { kernel, ledger, retries, .. } = self;
        let is_away = |kernel: &Kernel, input: &Name| {
            input.find(kernel).is_some_and(|input| {
                kernel.state(input) == TaskState::Done
                    && ledger.value(input.0).is_some_and(|value| value.payload.is_none())
            })
        };
        let mut due = Vec::new();
        retries.fetching.retain(|parked| {
            let waits = parked.inputs.iter().any(|input| is_away(kernel, input));
            due.extend(parked.task.find(kernel).filter(|_| !waits).map(|task| (task, parked.class)));
            waits
        });
        // The first comes to the very front.
        for (task, class) in due.into_iter().rev() {
            self.kernel.set_class(task, ClassId(class));
            self.begin_wait(task, now_ns);
        }
    }
}

/// A number that looks like chance (SplitMix64).
fn mix(number: u64) -> u64 {
    let mut word = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
