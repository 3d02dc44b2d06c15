//! Policies: how tasks are to be run, each distinct one once.

use crate::limits::{ANY_CLASS, Asker, Limits};
use headrace_kernel::{ClassId, seeded};
use headrace_wire::{ANY_WORKER, Message, POLICY_RETRY_ON, POLICY_SPECULATIVE};
use rustc_hash::FxHashMap;

/// The policy of tasks of the first owner without options.
pub(crate) const DEFAULT_POLICY: u32 = 0;

/// What the options of a task ask for, beyond its priority. The times are those of `headrace_wire::Policy`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Policy {
    /// The worker that must run it, or [`ANY_WORKER`].
    pub(crate) pin: u32,
    /// The class of its tasks.
    pub(crate) class: ClassId,
    pub(crate) retries: u32,
    /// The worker says of each exception whether it is worth a retry.
    pub(crate) retry_on: bool,
    /// Whether a second worker may try it while the first one does.
    pub(crate) speculative: bool,
    pub(crate) backoff_ms: u32,
    pub(crate) backoff_max_ms: u32,
    pub(crate) timeout_ms: u32,
    pub(crate) queue_timeout_ms: u32,
    /// Names and amounts, ascending by name.
    pub(crate) resources: Vec<(Box<str>, u64)>,
    /// Ascending.
    pub(crate) tags: Vec<Box<str>>,
}

/// Why tasks cannot be run as their options say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum PolicyError {
    /// The options cannot be read.
    Malformed(&'static str),
    /// No worker can ever run such a task: what it asks for, and the best offer.
    NoSuitableWorker(String),
}

impl Policy {
    fn of_pin(pin: u32) -> Self {
        Policy {
            pin,
            class: ANY_CLASS,
            retries: 0,
            retry_on: false,
            speculative: false,
            backoff_ms: 0,
            backoff_max_ms: 0,
            timeout_ms: 0,
            queue_timeout_ms: 0,
            resources: Vec::new(),
            tags: Vec::new(),
        }
    }

    fn decode(pin: u32, blob: &[u8]) -> Result<Self, &'static str> {
        if blob.is_empty() {
            return Ok(Policy::of_pin(pin));
        }
        let Ok(Message::Policy(policy)) = Message::decode(blob) else {
            return Err("the options of a task cannot be decoded");
        };
        let name = |bytes: &[u8]| match std::str::from_utf8(bytes) {
            Ok(name) => Ok(name.into()),
            Err(_) => Err("a name among the options of a task is not UTF-8"),
        };
        let amounts = policy.amounts.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
        let resources = policy.resources.iter().zip(amounts).map(|(bytes, amount)| Ok((name(bytes)?, amount)));
        Ok(Policy {
            pin,
            class: ANY_CLASS,
            retries: policy.retries,
            retry_on: policy.flags & POLICY_RETRY_ON != 0,
            speculative: policy.flags & POLICY_SPECULATIVE != 0,
            backoff_ms: policy.backoff_ms,
            backoff_max_ms: policy.backoff_max_ms,
            timeout_ms: policy.timeout_ms,
            queue_timeout_ms: policy.queue_timeout_ms,
            resources: resources.collect::<Result<_, &str>>()?,
            tags: policy.tags.iter().map(name).collect::<Result<_, &str>>()?,
        })
    }
}

/// Who asks, pin, and the options as they travelled.
type Key = (Asker, u32, Box<[u8]>);

struct Entry {
    policy: Policy,
    key: Key,
    /// Live tasks that have it.
    tasks: u64,
}

/// The policies of all live tasks.
pub(crate) struct Policies {
    entries: Vec<Option<Entry>>,
    numbers: FxHashMap<Key, u32>,
    free: Vec<u32>,
    /// How many of them allow second attempts.
    speculative: usize,
}

impl Default for Policies {
    fn default() -> Self {
        let key = (Asker::FIRST, ANY_WORKER, Box::default());
        let default = Entry { policy: Policy::of_pin(ANY_WORKER), key: key.clone(), tasks: 1 };
        Policies {
            entries: vec![Some(default)],
            numbers: FxHashMap::from_iter([(key, DEFAULT_POLICY)]),
            free: Vec::new(),
            speculative: 0,
        }
    }
}

impl Policies {
    /// A policy that a task has.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> &Policy {
        &self.entries[number as usize].as_ref().expect("a policy that a task has is in the table").policy
    }

    /// Whether some live task may be tried by two workers at once.
    #[inline]
    pub(crate) fn any_speculative(&self) -> bool {
        self.speculative > 0 || seeded!("any task is tried twice")
    }

    /// The number of the policy that a SUBMIT describes. It stays if [`Policies::add_task`] follows, and
    /// [`Policies::drop_unused`] ends the look at it.
    ///
    /// # Errors
    /// It cannot be read, or no worker can ever run such a task.
    pub(crate) fn number_of(
        &mut self,
        limits: &mut Limits,
        asker: Asker,
        pin: u32,
        blob: &[u8],
    ) -> Result<u32, PolicyError> {
        if asker == Asker::FIRST && pin == ANY_WORKER && blob.is_empty() {
            return Ok(DEFAULT_POLICY);
        }
        let key = (asker, pin, blob.into());
        if let Some(number) = self.numbers.get(&key) {
            return Ok(*number);
        }
        let mut policy = Policy::decode(pin, blob).map_err(PolicyError::Malformed)?;
        let resources = policy.resources.iter().map(|(name, amount)| (&**name, *amount));
        let demand = limits.demand(pin, resources, policy.tags.iter().map(|tag| &**tag));
        policy.class = limits.enter_class(asker, pin, demand.map_err(PolicyError::NoSuitableWorker)?);
        self.speculative += usize::from(policy.speculative);
        let entry = Some(Entry { policy, key: key.clone(), tasks: 0 });
        let number = match self.free.pop() {
            Some(number) => {
                self.entries[number as usize] = entry;
                number
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.numbers.insert(key, number);
        Ok(number)
    }

    /// One task more has it.
    pub(crate) fn add_task(&mut self, number: u32) {
        self.entries[number as usize].as_mut().expect("its number was just asked for").tasks += 1;
    }

    /// One task less has it.
    #[inline]
    pub(crate) fn remove_task(&mut self, limits: &mut Limits, number: u32) {
        if number != DEFAULT_POLICY {
            self.entries[number as usize].as_mut().expect("a policy that a task has is in the table").tasks -= 1;
            self.drop_unused(limits, number);
        }
    }

    /// Forgets a policy that no task has.
    pub(crate) fn drop_unused(&mut self, limits: &mut Limits, number: u32) {
        if let Some(entry) = self.entries[number as usize].take_if(|entry| entry.tasks == 0) {
            limits.leave_class(entry.policy.class);
            self.speculative -= usize::from(entry.policy.speculative);
            self.numbers.remove(&entry.key);
            self.free.push(number);
        }
    }

    /// How many there are beside the default one.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.iter().flatten().count() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Offer;
    use headrace_wire::{Blobs, Policy as Wire};

    fn blob(retries: u32) -> Vec<u8> {
        let resources = Blobs { lens: [3][..].into(), bytes: b"gpu" };
        let tags = Blobs { lens: [2, 1][..].into(), bytes: b"dbx" };
        let amounts = 2_u64.to_le_bytes();
        let wire = Wire { retries, flags: POLICY_RETRY_ON, resources, amounts: &amounts, tags, ..Wire::default() };
        let mut blob = Vec::new();
        Message::Policy(wire).encode(&mut blob);
        blob
    }

    fn limits() -> Limits {
        Limits::new(4, Offer::new([("gpu".into(), 2)], [("db".into(), 1)], []))
    }

    #[test]
    fn equal_options_are_one_policy_and_it_goes_with_its_last_task() {
        let (mut policies, mut limits) = (Policies::default(), limits());
        assert_eq!(policies.number_of(&mut limits, Asker::FIRST, ANY_WORKER, b"").unwrap(), DEFAULT_POLICY);
        let number = policies.number_of(&mut limits, Asker::FIRST, 3, &blob(2)).unwrap();
        assert_eq!(policies.number_of(&mut limits, Asker::FIRST, 3, &blob(2)).unwrap(), number);
        let other = policies.number_of(&mut limits, Asker::FIRST, 3, &blob(4)).unwrap();
        policies.add_task(number);
        policies.add_task(number);
        policies.drop_unused(&mut limits, number);
        policies.drop_unused(&mut limits, other);
        assert_eq!(policies.len(), 1);
        assert!(!limits.are_plain());
        let policy = policies.get(number);
        assert_eq!((policy.pin, policy.retries, policy.retry_on, policy.speculative), (3, 2, true, false));
        assert_eq!(
            (&policy.resources[..], &policy.tags[..]),
            (&[("gpu".into(), 2)][..], &["db".into(), "x".into()][..])
        );
        policies.remove_task(&mut limits, number);
        policies.remove_task(&mut limits, number);
        assert_eq!(policies.len(), 0);
        assert!(limits.are_plain(), "its class goes with it");
        assert_eq!(policies.number_of(&mut limits, Asker::FIRST, 3, &blob(9)).unwrap(), number, "its number is free");
        policies.remove_task(&mut limits, DEFAULT_POLICY);
        assert_eq!(policies.get(DEFAULT_POLICY), &Policy::of_pin(ANY_WORKER));
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        let (mut policies, mut limits) = (Policies::default(), limits());
        let refused = policies.number_of(&mut limits, Asker::FIRST, 0, b"\x93");
        assert_eq!(refused, Err(PolicyError::Malformed("the options of a task cannot be decoded")));
        let tags = Blobs { lens: [1][..].into(), bytes: b"\xff" };
        let mut blob = Vec::new();
        Message::Policy(Wire { tags, ..Wire::default() }).encode(&mut blob);
        let refused = policies.number_of(&mut limits, Asker::FIRST, 0, &blob);
        assert!(matches!(refused, Err(PolicyError::Malformed(text)) if text.contains("UTF-8")));
        assert_eq!(policies.len(), 0);
    }
}
