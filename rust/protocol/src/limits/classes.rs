//! Classes of tasks: a number for whoever submits, the worker that must run them, and what they take (K3).
//!
//! Class 0 is what any worker may take, class `1 + w` what worker `w` must, both of the first owner and without a demand.
//! These are always there, and are all that one client without demands ever has. Any other class has a number from the
//! first time that somebody uses it until nobody does.

use super::choice::PASSED_MAX;
use super::offer::Demand;
use headrace_kernel::ClassId;
use headrace_wire::ANY_WORKER;
use rustc_hash::FxHashMap;

/// Class of tasks of the first owner that any worker may take.
pub const ANY_CLASS: ClassId = ClassId(0);
/// Whoever submits first.
pub const FIRST_OWNER: u32 = 0;

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Asker {
    /// The client for whom the work is done.
    pub owner: u32,
    /// The attempt that has submitted it, where that was no client: a number other than 0 that no other attempt has.
    pub nest: u32,
}

impl Asker {
    /// Whoever submits first.
    pub const FIRST: Asker = Asker { owner: FIRST_OWNER, nest: 0 };
}

/// One class.
#[derive(Clone, Debug)]
pub struct Class {
    /// The client for whom its tasks are run.
    pub owner: u32,
    /// The attempt that has submitted them, or 0.
    pub nest: u32,
    /// The worker that must run them, or [`ANY_WORKER`].
    pub pin: u32,
    /// What each of them takes while it runs.
    pub demand: Demand,
    users: u32,
    /// Batches that have overtaken it since it was last leased.
    pub(super) passed: u32,
    /// When it was last leased, counted in batches.
    pub(super) served: u64,
}

/// All classes by number.
#[derive(Clone, Debug)]
pub(super) struct Classes {
    entries: Vec<Option<Class>>,
    numbers: FxHashMap<(Asker, u32, Demand), ClassId>,
    free: Vec<ClassId>,
    /// How many are always there, and how many there are beside them.
    plain: u32,
    others: u32,
}

impl Class {
    fn new(Asker { owner, nest }: Asker, pin: u32, demand: Demand) -> Self {
        Class { owner, nest, pin, demand, users: 0, passed: 0, served: 0 }
    }

    /// Whether it was overtaken as often as may be.
    pub(super) fn is_starved(&self) -> bool {
        self.passed >= PASSED_MAX
    }
}

impl Classes {
    /// With the classes that are always there, of so many workers and those that may stand in for them.
    pub(super) fn new(workers: u32) -> Self {
        let pins = std::iter::once(ANY_WORKER).chain(0..workers);
        Classes {
            entries: pins.map(|pin| Some(Class::new(Asker::FIRST, pin, Demand::new()))).collect(),
            numbers: FxHashMap::default(),
            free: Vec::new(),
            plain: 1 + workers,
            others: 0,
        }
    }

    /// Whether there are none but those that are always there.
    #[inline]
    pub(super) fn are_plain(&self) -> bool {
        self.others == 0
    }

    /// Whether it is none of those.
    pub(super) fn is_counted(&self, class: ClassId) -> bool {
        class.0 >= self.plain
    }

    pub(super) fn get(&self, class: ClassId) -> Option<&Class> {
        self.entries.get(class.0 as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, class: ClassId) -> Option<&mut Class> {
        self.entries.get_mut(class.0 as usize)?.as_mut()
    }

    /// The class of such tasks, with a user more.
    pub(super) fn enter(&mut self, asker: Asker, pin: u32, demand: Demand) -> ClassId {
        if asker == Asker::FIRST && demand.is_empty() {
            return ClassId(pin.wrapping_add(1)); // ANY_WORKER is the highest number
        }
        let key = (asker, pin, demand);
        let class = match self.numbers.get(&key) {
            Some(class) => *class,
            None => self.add(key),
        };
        self.entries[class.0 as usize].as_mut().expect("a numbered class is in the table").users += 1;
        class
    }

    /// A user less.
    pub(super) fn leave(&mut self, class: ClassId) {
        if !self.is_counted(class) {
            return;
        }
        let slot = &mut self.entries[class.0 as usize];
        let entry = slot.as_mut().expect("a class with users is in the table");
        entry.users -= 1;
        if let Some(gone) = slot.take_if(|entry| entry.users == 0) {
            let asker = Asker { owner: gone.owner, nest: gone.nest };
            self.numbers.remove(&(asker, gone.pin, gone.demand));
            self.free.push(class);
            self.others -= 1;
        }
    }

    fn add(&mut self, key: (Asker, u32, Demand)) -> ClassId {
        let entry = Some(Class::new(key.0, key.1, key.2.clone()));
        let class = match self.free.pop() {
            Some(class) => {
                self.entries[class.0 as usize] = entry;
                class
            }
            None => {
                self.entries.push(entry);
                ClassId((self.entries.len() - 1) as u32)
            }
        };
        self.numbers.insert(key, class);
        self.others += 1;
        class
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_without_demands_has_the_classes_that_are_always_there() {
        let mut classes = Classes::new(3);
        assert_eq!(classes.enter(Asker::FIRST, ANY_WORKER, Demand::new()), ANY_CLASS);
        assert_eq!(classes.enter(Asker::FIRST, 2, Demand::new()), ClassId(3));
        assert!(classes.are_plain());
        classes.leave(ANY_CLASS);
        classes.leave(ClassId(3));
        assert_eq!(classes.get(ClassId(3)).map(|class| class.pin), Some(2));
    }

    #[test]
    fn a_class_lives_as_long_as_it_is_used_and_its_number_is_used_again() {
        let mut classes = Classes::new(1);
        let demand = |amount| Demand::from_slice(&[(0, amount)]);
        let first = classes.enter(Asker::FIRST, ANY_WORKER, demand(1));
        assert_eq!(classes.enter(Asker::FIRST, ANY_WORKER, demand(1)), first);
        assert_ne!(classes.enter(Asker { owner: 1, nest: 0 }, ANY_WORKER, demand(1)), first);
        assert_ne!(classes.enter(Asker { owner: FIRST_OWNER, nest: 1 }, ANY_WORKER, demand(1)), first);
        classes.leave(first);
        assert!(classes.get(first).is_some());
        classes.leave(first);
        assert!(classes.get(first).is_none());
        assert!(!classes.are_plain());
        for amount in 2..10_000 {
            let class = classes.enter(Asker::FIRST, ANY_WORKER, demand(amount));
            assert_eq!(class, first);
            classes.leave(class);
        }
        assert_eq!(classes.entries.len(), 5);
    }
}
