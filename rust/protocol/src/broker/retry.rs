//! Retries: a failed attempt of a task that may be tried again goes back to the kernel instead of ending the task.
//!
//! Failures are counted here, and nothing else is: a crash, a recall or a lost worker costs no retry (K4).
//!
//! A task that must not be leased before its pause has ended is *parked*: it has [`PARKED_CLASS`], which no worker may take.

use super::nested::BECAME_CLASS;
use super::policy::{DEFAULT_POLICY, Policy};
use super::timers::{Name, Timer};
use super::{Broker, worker_id};
use headrace_kernel::{Attempt, ClassId, Kernel, TaskIndex};
use rustc_hash::FxHashMap;

/// Class of parked tasks.
pub(crate) const PARKED_CLASS: ClassId = ClassId(u32::MAX - 1);

/// Whether tasks of a class are ready and must not be leased: they pause, or have become graphs.
pub(crate) fn is_parked(class: ClassId) -> bool {
    class == PARKED_CLASS || class == BECAME_CLASS
}

/// Who failed, and who may go on.
#[derive(Debug)]
pub(crate) struct Retries {
    seed: u64,
    /// Failures of live tasks, by slot.
    failures: FxHashMap<u32, u32>,
    /// Parked tasks whose pause has ended.
    rested: Vec<Parked>,
}

/// A task that nobody may lease yet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Parked {
    pub(crate) task: Name,
    /// The class that it had.
    class: u32,
}

impl Parked {
    /// Whether it is this task.
    pub(crate) fn is_of(&self, task: TaskIndex, kernel: &Kernel) -> bool {
        self.task.find(kernel) == Some(task)
    }
}

impl Retries {
    pub(crate) fn new(seed: u64) -> Self {
        Retries { seed, failures: FxHashMap::default(), rested: Vec::new() }
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
        self.rested.push(parked);
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
        if pause_ns > 0 {
            self.park(task, now_ns + pause_ns);
        }
        let given_back = self.kernel.give_back(worker_id(number), TaskIndex(task), Attempt(attempt));
        given_back.expect("it was seen to be leased");
        self.unlease(number, task);
        self.regain_inputs(task);
        self.settle_returned();
        true
    }

    /// The same of an attempt whose worker has died, before its leases are taken back.
    pub(super) fn retry_after_death(&mut self, task: u32, now_ns: u64) -> bool {
        let Some(pause_ns) = self.count_failure(task) else { return false };
        if pause_ns > 0 {
            self.park(task, now_ns + pause_ns);
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

    fn park(&mut self, task: u32, until_ns: u64) {
        let class = self.kernel.set_class(TaskIndex(task), PARKED_CLASS).0;
        self.set_timer(until_ns, Timer::Pause(Parked { task: Name::of(task, &self.kernel), class }));
    }

    /// Lets those tasks go that have no pause any more.
    pub(super) fn unpark(&mut self, now_ns: u64) {
        // The first comes to the very front.
        for Parked { task, class } in std::mem::take(&mut self.retries.rested).into_iter().rev() {
            if let Some(task) = task.find(&self.kernel) {
                self.kernel.set_class(task, ClassId(class));
                self.begin_wait(task, now_ns);
            }
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
