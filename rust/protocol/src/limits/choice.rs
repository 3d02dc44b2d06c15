//! The choice: which classes of ready tasks a worker may be given next.
//!
//! Owners take turns by what they have had ([`super::fair`]). Among classes of one owner the order is
//!
//! 1. the priority of the task in front,
//! 2. a class that has been overtaken [`PASSED_MAX`] times,
//! 3. a class of which the worker holds what nobody else could have now: it goes on with it, instead of holding it idle
//!    while it runs something else,
//! 4. a class that is pinned to the worker,
//! 5. the class that was not served for longest.
//!
//! **Nobody starves.** A class is overtaken when a batch of another one of no higher priority goes out that the same worker
//! could have run, or that takes something for which it waits (of another owner, whatever the priority). After
//! [`PASSED_MAX`] times the class has what it takes reserved: nobody else is granted any, so it is given once enough has
//! come back.

use super::{ANY_CLASS, Class, Limits};
use headrace_kernel::{ClassId, Kernel, WorkerId};
use headrace_wire::ANY_WORKER;
use smallvec::SmallVec;
use std::cmp::Reverse;

/// How often a class may be overtaken. Small, because each time may be as long as a task; above a few, because what comes
/// back stays idle while it is reserved.
pub(super) const PASSED_MAX: u32 = 8;

/// Classes in one batch at most: the kernel looks at all of them for each task that it takes. Others have their turn in the
/// next batch.
const BATCH_CLASSES_MAX: usize = 16;

/// A class with tasks that a worker may run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Candidate {
    class: ClassId,
    owner: u32,
    /// Priority of its first task; the highest where all stand behind leases of this worker (K2).
    priority: i32,
    /// The worker cannot have now what it takes.
    is_blocked: bool,
}

/// Classes of one owner of which a worker may have a batch.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// The classes, best first.
    pub classes: Vec<ClassId>,
    /// Ready tasks that are the worker's fair part of them, where others may run them as well.
    pub seeds: usize,
    /// Where the next group begins.
    next: usize,
}

impl Limits {
    /// Looks for classes with tasks for the worker; [`Limits::next_group`] gives them, best first.
    #[inline]
    pub fn choose(&mut self, kernel: &Kernel, worker: u32, group: &mut Group) {
        group.next = 0;
        if !self.are_plain() {
            self.find_candidates(kernel, worker);
        }
    }

    /// Fills in the classes of the next owner of which the worker can have what they take, all at once. False if there is
    /// none.
    #[inline]
    pub fn next_group(&self, kernel: &Kernel, worker: u32, group: &mut Group) -> bool {
        if !self.are_plain() {
            return self.next_owner(kernel, worker, group);
        }
        // Nothing is looked at but what is always there.
        let (mine, any) = (ClassId(1 + worker), ANY_CLASS);
        group.classes.clear();
        group.classes.extend([mine, any]);
        group.seeds = kernel.ready_len(any).div_ceil(self.present as usize) + kernel.ready_len(mine);
        std::mem::replace(&mut group.next, 1) == 0
    }

    fn find_candidates(&mut self, kernel: &Kernel, worker: u32) {
        self.reserve(kernel);
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        let find = |class: ClassId, priority: i32| {
            let entry = self.classes.get(class).filter(|entry| self.suits(worker, entry))?;
            let is_blocked = !self.is_free_for(worker, class, entry);
            Some(Candidate { class, owner: entry.owner, priority, is_blocked })
        };
        found.extend(kernel.follower_classes(WorkerId(worker)).filter_map(|class| find(class, i32::MAX)));
        let followers = found.len();
        for (class, priority) in kernel.ready_priorities() {
            if !found[..followers].iter().any(|candidate| candidate.class == class) {
                found.extend(find(class, priority));
            }
        }
        found.iter().for_each(|candidate| self.shares.note_present(candidate.owner));
        found.sort_by_cached_key(|candidate| self.rank(worker, candidate));
        self.found = found;
    }

    fn next_owner(&self, kernel: &Kernel, worker: u32, group: &mut Group) -> bool {
        group.classes.clear();
        group.seeds = 0;
        let things = self.offer.things();
        while group.classes.is_empty() {
            let Some(&Candidate { owner, .. }) = self.found.get(group.next) else { return false };
            let mut planned = self.grants.held(worker).to_vec();
            while let Some(candidate) = self.found.get(group.next).filter(|candidate| candidate.owner == owner) {
                group.next += 1;
                if group.classes.len() >= BATCH_CLASSES_MAX {
                    continue;
                }
                let Some(class) = self.classes.get(candidate.class).filter(|_| !candidate.is_blocked) else { continue };
                if !self.grants.fits_beside(things, worker, &planned, &class.demand) {
                    continue;
                }
                for &(thing, amount) in &class.demand {
                    let planned = &mut planned[thing as usize];
                    *planned = amount.max(*planned);
                }
                group.classes.push(candidate.class);
                group.seeds += kernel.ready_len(candidate.class).div_ceil(self.runners(class));
            }
        }
        true
    }

    /// Notes that a worker was leased a batch of these classes, one entry a task.
    pub fn note_batch(&mut self, worker: u32, classes: impl Iterator<Item = ClassId>) {
        let mut counted: SmallVec<[(ClassId, u32); 4]> = SmallVec::new();
        for class in classes {
            match counted.iter_mut().find(|count| count.0 == class) {
                Some(count) => count.1 += 1,
                None => counted.push((class, 1)),
            }
        }
        counted.iter().for_each(|&(class, leases)| self.note_leases(worker, class, leases));
        let leased: SmallVec<[ClassId; 4]> = counted.iter().map(|count| count.0).collect();
        self.batches += 1;
        for class in &leased {
            if let Some(class) = self.classes.get_mut(*class) {
                (class.passed, class.served) = (0, self.batches);
            }
        }
        let of_batch = |candidate: &&Candidate| leased.contains(&candidate.class);
        let Some(owner) = self.found.iter().find(of_batch).map(|candidate| candidate.owner) else { return };
        let priority = self.found.iter().filter(of_batch).map(|candidate| candidate.priority).max();
        let found = std::mem::take(&mut self.found);
        for candidate in found.iter().filter(|candidate| !leased.contains(&candidate.class)) {
            let is_lower = candidate.owner == owner && Some(candidate.priority) < priority;
            let is_overtaken = match candidate.is_blocked {
                true => leased.iter().any(|class| self.compete(candidate.class, *class)),
                false => candidate.owner == owner,
            };
            if is_overtaken
                && !is_lower
                && let Some(class) = self.classes.get_mut(candidate.class)
            {
                class.passed = class.passed.saturating_add(1);
            }
        }
        self.found = found;
        self.shares.note_served(owner);
    }

    /// Reserves what classes take that were overtaken too often, for the one that was so most often.
    fn reserve(&mut self, kernel: &Kernel) {
        self.reserved.fill(None);
        for class in kernel.ready_classes() {
            let Some(entry) = self.classes.get(class).filter(|entry| entry.is_starved()) else { continue };
            for &(thing, _) in &entry.demand {
                let reserved = &mut self.reserved[thing as usize];
                if reserved.is_none_or(|(passed, _)| passed < entry.passed) {
                    *reserved = Some((entry.passed, class));
                }
            }
        }
    }

    /// Whether the worker can have what the class takes, and nobody else has reserved any of it.
    fn is_free_for(&self, worker: u32, class: ClassId, entry: &Class) -> bool {
        let is_mine = |&(thing, _): &(u32, u64)| {
            self.offer.things()[thing as usize].is_owned()
                || self.reserved[thing as usize].is_none_or(|(_, first)| first == class)
        };
        self.grants.fits(self.offer.things(), worker, &entry.demand) && entry.demand.iter().all(is_mine)
    }

    fn rank(&self, worker: u32, candidate: &Candidate) -> impl Ord + use<> {
        let class = self.classes.get(candidate.class).expect("a candidate's class is in the table");
        let goes_on = self.grants.has(worker, candidate.class) && self.is_scarce(worker, class);
        let is_pinned = class.pin != ANY_WORKER;
        let taken_ns = self.shares.taken_ns(candidate.owner);
        let order = (Reverse(candidate.priority), !class.is_starved(), !goes_on, !is_pinned, class.served);
        (taken_ns, candidate.owner, order, candidate.class)
    }

    /// Whether what it takes is held to the point that no other worker there can have it.
    fn is_scarce(&self, worker: u32, class: &Class) -> bool {
        let things = self.offer.things();
        let is_short = |&(thing, amount): &(u32, u64)| {
            !things[thing as usize].is_owned() && self.grants.left_for(things, worker, thing) < amount
        };
        class.demand.iter().any(is_short)
    }

    /// How many workers may run tasks of the class at once.
    fn runners(&self, class: &Class) -> usize {
        if class.pin != ANY_WORKER {
            return 1;
        }
        let most = |&(thing, amount): &(u32, u64)| {
            let thing = &self.offer.things()[thing as usize];
            match thing.is_owned() {
                true => thing.owned.iter().filter(|has| **has >= amount).count(),
                false if thing.machines.is_empty() => (thing.total / amount) as usize,
                false => thing.machines.iter().map(|has| (has / amount) as usize).sum(),
            }
        };
        let workers = self.present as usize;
        class.demand.iter().map(most).fold(workers, usize::min).max(1)
    }

    /// Whether ready tasks wait for some of what the class takes and all share.
    pub fn is_wanted(&self, kernel: &Kernel, class: ClassId) -> bool {
        kernel.ready_classes().any(|other| self.compete(class, other))
    }

    /// Whether both classes take some of the same thing that all share.
    fn compete(&self, one: ClassId, other: ClassId) -> bool {
        let (Some(one), Some(other)) = (self.classes.get(one), self.classes.get(other)) else { return false };
        let is_shared = |thing: u32| !self.offer.things()[thing as usize].is_owned();
        one.demand.iter().any(|&(thing, _)| is_shared(thing) && other.demand.iter().any(|of| of.0 == thing))
    }
}
