//! What there is: resources by amount, tags by limit, and what belongs to single workers or machines.

use headrace_wire::{ANY_WORKER, Message};
use smallvec::SmallVec;
use std::fmt;

/// How much of what a task needs while it runs: numbers of things, ascending, with amounts above 0. A tag is a thing of
/// which a task needs one.
pub type Demand = SmallVec<[(u32, u64); 2]>;

/// One thing that tasks may ask for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Thing {
    /// What it is called.
    pub name: Box<str>,
    /// Whether it is a tag: its total is the limit of how many workers may run such tasks at once.
    pub is_tag: bool,
    /// How much of it there is for all.
    pub total: u64,
    /// How much of it each worker has for itself, by number; empty where all share it. Nobody else uses a worker's own, so
    /// there is nothing to count.
    pub owned: Vec<u64>,
    /// How much of it each machine has for its workers, by the machine's number; empty where it is no machine's.
    pub machines: Vec<u64>,
}

impl Thing {
    /// Whether each worker has its own of it, so that nothing is counted.
    pub fn is_owned(&self) -> bool {
        !self.owned.is_empty()
    }

    /// Whose pool a worker of this machine takes it from: the machine's own, or the one of all.
    pub(super) fn pool(&self, machine: usize) -> usize {
        if self.machines.is_empty() { 0 } else { machine }
    }

    /// How much there is in a pool.
    pub(super) fn total_of(&self, pool: usize) -> u64 {
        if self.machines.is_empty() { self.total } else { self.machines.get(pool).copied().unwrap_or(0) }
    }

    /// How much there is of it, wherever it is.
    pub fn sum(&self) -> u64 {
        if self.machines.is_empty() { self.total } else { self.machines.iter().sum() }
    }
}

/// Everything that tasks may ask for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Offer {
    things: Vec<Thing>,
    /// Machines may come that have what nobody has now: who asks for it waits.
    pub grows: bool,
}

impl Offer {
    /// Resources with their amounts, tags with their limits, and names of resources of which each worker has its own amount.
    pub fn new(
        resources: impl IntoIterator<Item = (Box<str>, u64)>,
        tags: impl IntoIterator<Item = (Box<str>, u64)>,
        owned: impl IntoIterator<Item = (Box<str>, Vec<u64>)>,
    ) -> Self {
        let shared =
            |is_tag| move |(name, total)| Thing { name, is_tag, total, owned: Vec::new(), machines: Vec::new() };
        let mut things: Vec<Thing> = resources.into_iter().map(shared(false)).collect();
        things.extend(tags.into_iter().map(shared(true)));
        things.extend(owned.into_iter().map(|(name, owned)| {
            let total = owned.iter().copied().max().unwrap_or(0);
            Thing { name, is_tag: false, total, owned, machines: Vec::new() }
        }));
        things.sort_by(|one, other| (one.is_tag, &one.name).cmp(&(other.is_tag, &other.name)));
        Offer { things, grows: false }
    }

    /// Every thing, by number.
    pub fn things(&self) -> &[Thing] {
        &self.things
    }

    /// What a task comes to that is pinned to one of so many workers, or to none, and asks for these resources and tags. Tags
    /// without a limit cost nothing.
    ///
    /// # Errors
    /// No worker can ever run it: what it asks for, and the best offer.
    pub fn demand<'a>(
        &self,
        workers: u32,
        pin: u32,
        resources: impl IntoIterator<Item = (&'a str, u64)>,
        tags: impl IntoIterator<Item = &'a str>,
    ) -> Result<Demand, String> {
        if pin != ANY_WORKER && pin >= workers {
            let last = workers.saturating_sub(1);
            return Err(format!("is pinned to worker {pin}; workers are 0 to {last}"));
        }
        let mut demand = Demand::new();
        for (name, amount) in resources.into_iter().filter(|(_, amount)| *amount > 0) {
            let Some(number) = self.find(name, false) else {
                return Err(format!(
                    "asks for {}; this client has no resource '{name}': say how much there is by Client(resources={{'{name}': \
                     …}})",
                    Amount(name, amount)
                ));
            };
            self.check(number, amount, pin)?;
            demand.push((number, amount));
        }
        demand.extend(tags.into_iter().filter_map(|name| Some((self.find(name, true)?, 1))));
        demand.sort_unstable();
        Ok(demand)
    }

    /// The same for an encoded policy, as SUBMIT carries it.
    ///
    /// # Errors
    /// As [`Offer::demand`]; or the policy cannot be read, which whoever acts on it will say.
    pub fn demand_of(&self, workers: u32, pin: u32, policy: &[u8]) -> Result<Demand, String> {
        let Ok(Message::Policy(policy)) = Message::decode(policy) else { return self.demand(workers, pin, [], []) };
        let amounts = policy.amounts.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")));
        let text = |bytes| std::str::from_utf8(bytes).ok();
        let resources = policy.resources.iter().zip(amounts).filter_map(|(name, amount)| Some((text(name)?, amount)));
        self.demand(workers, pin, resources, policy.tags.iter().filter_map(text))
    }

    /// Whether the worker has for itself, or its machine has, what the demand asks of it.
    pub fn suits(&self, worker: u32, machine: usize, demand: &Demand) -> bool {
        demand.iter().all(|&(number, amount)| {
            let thing = &self.things[number as usize];
            match thing.is_owned() {
                true => thing.owned.get(worker as usize).is_some_and(|has| *has >= amount),
                false => thing.machines.is_empty() || thing.total_of(machine) >= amount,
            }
        })
    }

    /// The broker's own machine has so much of these resources for its workers; other machines may have some, too.
    #[must_use]
    pub fn with_own(mut self, resources: impl IntoIterator<Item = (Box<str>, u64)>) -> Self {
        for (name, amount) in resources {
            self.put_on_machine(0, &name, amount).expect("nobody else counts what a machine has");
        }
        self
    }

    /// A machine has so much of a resource for its workers. Whether that is a thing that nobody had before.
    ///
    /// # Errors
    /// It is counted otherwise already.
    pub(super) fn put_on_machine(&mut self, machine: usize, name: &str, amount: u64) -> Result<bool, String> {
        let known = self.find(name, false);
        let thing = match known {
            Some(number) => &mut self.things[number as usize],
            None => {
                let name: Box<str> = name.into();
                self.things.push(Thing { name, is_tag: false, total: 0, owned: Vec::new(), machines: Vec::new() });
                self.things.last_mut().expect("it was just pushed")
            }
        };
        if known.is_some() && thing.machines.is_empty() {
            return Err(format!("the broker counts the resource '{name}' for all machines together"));
        }
        thing.machines.resize(thing.machines.len().max(machine + 1), 0);
        thing.machines[machine] = amount;
        thing.total = thing.machines.iter().copied().max().unwrap_or(0);
        Ok(known.is_none())
    }

    /// A machine is gone, with all that it had.
    pub(super) fn drop_machine(&mut self, machine: usize) {
        for thing in &mut self.things {
            if let Some(amount) = thing.machines.get_mut(machine) {
                *amount = 0;
                thing.total = thing.machines.iter().copied().max().unwrap_or(0);
            }
        }
    }

    /// Whether there is a limit for this tag.
    pub fn has_tag(&self, name: &str) -> bool {
        self.find(name, true).is_some()
    }

    /// Whether there is such a resource.
    pub(super) fn has_resource(&self, name: &str) -> bool {
        self.find(name, false).is_some()
    }

    fn find(&self, name: &str, is_tag: bool) -> Option<u32> {
        self.things.iter().position(|thing| (thing.is_tag, &*thing.name) == (is_tag, name)).map(|number| number as u32)
    }

    fn check(&self, number: u32, amount: u64, pin: u32) -> Result<(), String> {
        let Thing { name, total, owned, machines, .. } = &self.things[number as usize];
        let asks = Amount(name, amount);
        if self.grows && !machines.is_empty() {
            return Ok(());
        }
        if amount > *total && !machines.is_empty() {
            return Err(format!("asks for {asks}; the most that one machine here has is {}", Amount(name, *total)));
        }
        if amount > *total {
            let Some(best) = owned.iter().position(|has| has == total) else {
                return Err(format!("asks for {asks}; there is {} in all", Amount(name, *total)));
            };
            return Err(format!(
                "asks for {asks}; the most that one worker has is {} (worker {best})",
                Amount(name, *total)
            ));
        }
        match owned.get(pin as usize) {
            Some(has) if *has < amount => {
                Err(format!("asks for {asks} and is pinned to worker {pin}, which has {}", Amount(name, *has)))
            }
            _ => Ok(()),
        }
    }
}

/// A resource with an amount, for people.
#[derive(Clone, Copy, Debug)]
pub struct Amount<'a>(pub &'a str, pub u64);

impl Amount<'_> {
    /// The amount alone, in the unit that suits the resource.
    pub fn number(self) -> String {
        let Amount(name, amount) = self;
        // The one resource whose amounts are bytes, by its name.
        let powers = if name == "memory" && amount > 0 { amount.trailing_zeros() as usize / 10 } else { 0 };
        match powers.min(UNITS.len()).checked_sub(1) {
            Some(unit) => format!("{}{}", amount >> (10 * (unit + 1)), UNITS[unit]),
            None => amount.to_string(),
        }
    }
}

impl fmt::Display for Amount<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.0, self.number())
    }
}

const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> Offer {
        let resources = [("memory".into(), 3 << 29), ("license".into(), 2)];
        Offer::new(resources, [("db".into(), 1), ("license".into(), 7)], [("gpu".into(), vec![0, 2])])
    }

    #[test]
    fn a_demand_names_what_there_is_little_of() {
        let offer = offer();
        let names: Vec<&str> = offer.things().iter().map(|thing| &*thing.name).collect();
        assert_eq!(names, ["gpu", "license", "memory", "db", "license"], "a tag may be called as a resource is");
        let demand = |resources: &[(&str, u64)], tags: &[&str]| {
            offer.demand(2, ANY_WORKER, resources.iter().copied(), tags.iter().copied()).unwrap().to_vec()
        };
        assert_eq!(demand(&[("memory", 5), ("license", 1)], &["db", "mail"]), [(1, 1), (2, 5), (3, 1)]);
        assert_eq!(demand(&[("license", 0), ("unheard-of", 0)], &["mail"]), [], "nothing is no demand");
        assert_eq!(demand(&[], &["license"]), [(4, 1)]);
    }

    #[test]
    fn a_demand_is_refused_where_nobody_can_meet_it() {
        let refused = |pin, name, amount| offer().demand(2, pin, [(name, amount)], []).unwrap_err();
        assert_eq!(refused(2, "license", 1), "is pinned to worker 2; workers are 0 to 1");
        assert_eq!(refused(ANY_WORKER, "license", 3), "asks for license=3; there is license=2 in all");
        assert_eq!(refused(ANY_WORKER, "memory", 2 << 30), "asks for memory=2GiB; there is memory=1536MiB in all");
        assert_eq!(refused(ANY_WORKER, "gpu", 4), "asks for gpu=4; the most that one worker has is gpu=2 (worker 1)");
        assert_eq!(refused(0, "gpu", 1), "asks for gpu=1 and is pinned to worker 0, which has gpu=0");
    }

    #[test]
    fn what_workers_own_decides_whom_a_demand_suits() {
        let offer = offer();
        let two = offer.demand(2, ANY_WORKER, [("gpu", 2)], []).unwrap();
        assert_eq!([0, 1].map(|worker| offer.suits(worker, 0, &two)), [false, true]);
    }

    #[test]
    fn what_a_machine_has_is_its_workers_alone() {
        let mut offer = offer();
        assert_eq!(offer.put_on_machine(2, "fpga", 4), Ok(true));
        assert_eq!(offer.put_on_machine(1, "fpga", 1), Ok(false));
        assert!(offer.put_on_machine(1, "license", 1).unwrap_err().contains("for all machines together"));
        let two = offer.demand(9, ANY_WORKER, [("fpga", 2)], []).unwrap();
        assert_eq!([0, 1, 2, 3].map(|machine| offer.suits(7, machine, &two)), [false, false, true, false]);
        let refused = |offer: &Offer, amount| offer.demand(9, ANY_WORKER, [("fpga", amount)], []).unwrap_err();
        assert_eq!(refused(&offer, 5), "asks for fpga=5; the most that one machine here has is fpga=4");
        offer.drop_machine(2);
        assert_eq!(refused(&offer, 2), "asks for fpga=2; the most that one machine here has is fpga=1");
        assert!(!offer.suits(7, 2, &two));
    }
}
