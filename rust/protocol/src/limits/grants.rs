//! Grants: what each worker holds of what all share.
//!
//! A worker runs one task at a time, so it holds what a class takes **once**, however many leases of the class it has, and of
//! each thing the most that any of its classes takes. A grant begins with the first lease of a class and ends in the turn
//! in which the last one is over; only where an attempt was cancelled that may still run, it ends when that has stopped.

use super::classes::Classes;
use super::offer::{Demand, Thing};
use headrace_kernel::ClassId;
use smallvec::SmallVec;

/// What all workers hold.
#[derive(Clone, Debug)]
pub(super) struct Grants {
    /// Of each thing, what the workers hold together.
    used: Vec<u64>,
    workers: Vec<Holding>,
    /// Workers that may hold less than is noted.
    loose: Vec<u32>,
}

/// What one worker holds.
#[derive(Clone, Debug)]
struct Holding {
    /// Its unsettled leases by class, of those that take something.
    leases: SmallVec<[(ClassId, u32); 2]>,
    /// Of each thing, how much.
    held: SmallVec<[u64; 4]>,
    is_loose: bool,
}

impl Grants {
    pub(super) fn new(workers: u32, things: usize) -> Self {
        let nothing = Holding { leases: SmallVec::new(), held: SmallVec::from_elem(0, things), is_loose: false };
        Grants { used: vec![0; things], workers: vec![nothing; workers as usize], loose: Vec::new() }
    }

    /// What the workers hold of a thing together.
    pub(super) fn used(&self, thing: u32) -> u64 {
        self.used[thing as usize]
    }

    /// What a worker holds of each thing.
    pub(super) fn held(&self, worker: u32) -> &[u64] {
        &self.workers[worker as usize].held
    }

    /// Whether the worker has leases of the class.
    pub(super) fn has(&self, worker: u32, class: ClassId) -> bool {
        self.workers[worker as usize].leases.iter().any(|(known, leases)| *known == class && *leases > 0)
    }

    /// Whether the worker can have what `demand` takes, beside what it holds.
    pub(super) fn fits(&self, things: &[Thing], worker: u32, demand: &Demand) -> bool {
        self.fits_beside(things, worker, self.held(worker), demand)
    }

    /// The same, beside what it would hold by then.
    pub(super) fn fits_beside(&self, things: &[Thing], worker: u32, planned: &[u64], demand: &Demand) -> bool {
        let held = self.held(worker);
        demand.iter().all(|&(thing, amount)| {
            let thing = thing as usize;
            let others = self.used[thing] - held[thing];
            !things[thing].owned.is_empty() || others + planned[thing].max(amount) <= things[thing].total
        })
    }

    /// Whether the worker can have what the class takes once another one has no lease of it any more.
    pub(super) fn would_fit(
        &self,
        classes: &Classes,
        things: &[Thing],
        worker: u32,
        class: ClassId,
        from: u32,
    ) -> bool {
        let taken_by = |class: ClassId, thing: u32| {
            let demand = classes.get(class).map_or(&[][..], |class| &class.demand);
            demand.iter().find(|part| part.0 == thing).map_or(0, |part| part.1)
        };
        let (giver, taker) = (&self.workers[from as usize], &self.workers[worker as usize]);
        let Some(entry) = classes.get(class) else { return false };
        entry.demand.iter().all(|&(thing, amount)| {
            let others = giver.leases.iter().filter(|(other, leases)| *other != class && *leases > 0);
            let kept = others.map(|(other, _)| taken_by(*other, thing)).max().unwrap_or(0);
            let at = thing as usize;
            let used = self.used[at] - giver.held[at] + kept - taker.held[at];
            !things[at].owned.is_empty() || used + amount.max(taker.held[at]) <= things[at].total
        })
    }

    /// So many leases more.
    pub(super) fn lease(&mut self, worker: u32, class: ClassId, demand: &Demand, more: u32) {
        let holding = &mut self.workers[worker as usize];
        match holding.leases.iter_mut().find(|(known, leases)| *known == class && *leases > 0) {
            Some((_, leases)) => *leases += more,
            None => {
                holding.leases.push((class, more));
                for &(thing, amount) in demand {
                    let held = &mut holding.held[thing as usize];
                    let more = amount.saturating_sub(*held);
                    *held += more;
                    self.used[thing as usize] += more;
                }
            }
        }
    }

    /// A lease less.
    pub(super) fn unlease(&mut self, worker: u32, class: ClassId) {
        let holding = &mut self.workers[worker as usize];
        let Some((_, leases)) = holding.leases.iter_mut().find(|(known, leases)| *known == class && *leases > 0) else {
            return;
        };
        *leases -= 1;
        if *leases == 0 && !std::mem::replace(&mut holding.is_loose, true) {
            self.loose.push(worker);
        }
    }

    /// Ends the grants of workers without leases for them, unless they have to stay.
    pub(super) fn settle(&mut self, classes: &Classes, mut may_end: impl FnMut(u32) -> bool) {
        let mut loose = std::mem::take(&mut self.loose);
        loose.retain(|worker| {
            let is_over = may_end(*worker);
            if is_over {
                self.recount(classes, *worker);
            }
            !is_over
        });
        self.loose = loose;
    }

    /// Whether somebody may hold less than is noted.
    #[inline]
    pub(super) fn are_loose(&self) -> bool {
        !self.loose.is_empty()
    }

    /// The worker's process is gone.
    pub(super) fn clear(&mut self, classes: &Classes, worker: u32) {
        self.workers[worker as usize].leases.clear();
        self.recount(classes, worker);
        self.loose.retain(|loose| *loose != worker);
    }

    fn recount(&mut self, classes: &Classes, worker: u32) {
        let holding = &mut self.workers[worker as usize];
        holding.is_loose = false;
        holding.leases.retain(|(_, leases)| *leases > 0);
        for (used, held) in self.used.iter_mut().zip(&mut holding.held) {
            *used -= std::mem::take(held);
        }
        for (class, _) in &holding.leases {
            for &(thing, amount) in &classes.get(*class).expect("a leased task's class is in the table").demand {
                let held = &mut holding.held[thing as usize];
                let more = amount.saturating_sub(*held);
                *held += more;
                self.used[thing as usize] += more;
            }
        }
    }
}
