//! Policies: how tasks are to be run, each distinct one once.

use headrace_wire::{ANY_WORKER, Message, POLICY_RETRY_ON, POLICY_SPECULATIVE};
use rustc_hash::FxHashMap;

/// The policy of tasks without options.
pub(crate) const DEFAULT_POLICY: u32 = 0;

/// What the options of a task ask for, beyond its priority. The times are those of `headrace_wire::Policy`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Policy {
    /// The worker that must run it, or [`ANY_WORKER`].
    pub(crate) pin: u32,
    pub(crate) retries: u32,
    /// The worker says of each exception whether it is worth a retry.
    pub(crate) retry_on: bool,
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

impl Policy {
    fn of_pin(pin: u32) -> Self {
        Policy {
            pin,
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

    fn decode(pin: u32, blob: &[u8]) -> Result<Self, String> {
        if blob.is_empty() {
            return Ok(Policy::of_pin(pin));
        }
        let Ok(Message::Policy(policy)) = Message::decode(blob) else {
            return Err("the options of a task cannot be decoded".to_owned());
        };
        let name = |bytes: &[u8]| match std::str::from_utf8(bytes) {
            Ok(name) => Ok(name.into()),
            Err(_) => Err("a name among the options of a task is not UTF-8".to_owned()),
        };
        let amounts = policy.amounts.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
        let resources = policy.resources.iter().zip(amounts).map(|(bytes, amount)| Ok((name(bytes)?, amount)));
        Ok(Policy {
            pin,
            retries: policy.retries,
            retry_on: policy.flags & POLICY_RETRY_ON != 0,
            speculative: policy.flags & POLICY_SPECULATIVE != 0,
            backoff_ms: policy.backoff_ms,
            backoff_max_ms: policy.backoff_max_ms,
            timeout_ms: policy.timeout_ms,
            queue_timeout_ms: policy.queue_timeout_ms,
            resources: resources.collect::<Result<_, String>>()?,
            tags: policy.tags.iter().map(name).collect::<Result<_, String>>()?,
        })
    }
}

struct Entry {
    policy: Policy,
    key: (u32, Box<[u8]>),
    /// Live tasks that have it.
    tasks: u64,
}

/// The policies of all live tasks.
pub(crate) struct Policies {
    entries: Vec<Option<Entry>>,
    numbers: FxHashMap<(u32, Box<[u8]>), u32>,
    free: Vec<u32>,
}

impl Default for Policies {
    fn default() -> Self {
        let key = (ANY_WORKER, Box::default());
        let default = Entry { policy: Policy::of_pin(ANY_WORKER), key: key.clone(), tasks: 1 };
        Policies {
            entries: vec![Some(default)],
            numbers: FxHashMap::from_iter([(key, DEFAULT_POLICY)]),
            free: Vec::new(),
        }
    }
}

impl Policies {
    /// A policy that a task has.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> &Policy {
        &self.entries[number as usize].as_ref().expect("a policy that a task has is in the table").policy
    }

    /// The number of the policy that a SUBMIT describes. It stays if [`Policies::add_task`] follows, and
    /// [`Policies::drop_unused`] ends the look at it.
    pub(crate) fn number_of(&mut self, pin: u32, blob: &[u8]) -> Result<u32, String> {
        let key = (pin, blob.into());
        if let Some(number) = self.numbers.get(&key) {
            return Ok(*number);
        }
        let entry = Some(Entry { policy: Policy::decode(pin, blob)?, key: key.clone(), tasks: 0 });
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
    pub(crate) fn remove_task(&mut self, number: u32) {
        if number != DEFAULT_POLICY {
            self.entries[number as usize].as_mut().expect("a policy that a task has is in the table").tasks -= 1;
            self.drop_unused(number);
        }
    }

    /// Forgets a policy that no task has.
    pub(crate) fn drop_unused(&mut self, number: u32) {
        if let Some(entry) = self.entries[number as usize].take_if(|entry| entry.tasks == 0) {
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

    #[test]
    fn equal_options_are_one_policy_and_it_goes_with_its_last_task() {
        let mut policies = Policies::default();
        assert_eq!(policies.number_of(ANY_WORKER, b"").unwrap(), DEFAULT_POLICY);
        let number = policies.number_of(3, &blob(2)).unwrap();
        assert_eq!(policies.number_of(3, &blob(2)).unwrap(), number);
        let other = policies.number_of(3, &blob(4)).unwrap();
        policies.add_task(number);
        policies.add_task(number);
        policies.drop_unused(number);
        policies.drop_unused(other);
        assert_eq!(policies.len(), 1);
        let policy = policies.get(number);
        assert_eq!((policy.pin, policy.retries, policy.retry_on, policy.speculative), (3, 2, true, false));
        assert_eq!(
            (&policy.resources[..], &policy.tags[..]),
            (&[("gpu".into(), 2)][..], &["db".into(), "x".into()][..])
        );
        policies.remove_task(number);
        policies.remove_task(number);
        assert_eq!(policies.len(), 0);
        assert_eq!(policies.number_of(3, &blob(9)).unwrap(), number, "its number is free");
        policies.remove_task(DEFAULT_POLICY);
        assert_eq!(policies.get(DEFAULT_POLICY), &Policy::of_pin(ANY_WORKER));
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        let mut policies = Policies::default();
        assert!(policies.number_of(0, b"\x93").unwrap_err().contains("decoded"));
        let tags = Blobs { lens: [1][..].into(), bytes: b"\xff" };
        let mut blob = Vec::new();
        Message::Policy(Wire { tags, ..Wire::default() }).encode(&mut blob);
        assert!(policies.number_of(0, &blob).unwrap_err().contains("UTF-8"));
        assert_eq!(policies.len(), 0);
    }
}
