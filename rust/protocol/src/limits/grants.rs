//! Grants: what each worker holds of what all share.
//!
//! A worker runs one task at a time, so it holds what a class takes **once**, however many leases of the class it has, and of
//! each thing the most that any of its classes takes. A grant begins with the first lease of a class and ends in the turn
//! in which the last one is over; only where an attempt was cancelled that may still run, it ends when that has stopped.

use super::classes::Classes;
use super::offer::{Demand, Thing};
use headrace_kernel::ClassId;
use smallvec::{SmallVec, smallvec};

/// What all workers hold.
#[derive(Clone, Debug)]
pub(super) struct Grants {
    /// Of each thing, what the workers hold together of each pool.
    used: Vec<Pools>,
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
    /// The machine that it is on.
    machine: usize,
    is_loose: bool,
}

/// What is held of one thing: of the one pool that is there for all, or of each machine's.
type Pools = SmallVec<[u64; 1]>;

impl Grants {
    pub(super) fn new(workers: u32, things: usize) -> Self {
        let held = SmallVec::from_elem(0, things);
        let nothing = Holding { leases: SmallVec::new(), held, machine: 0, is_loose: false };
        Grants { used: vec![smallvec![0]; things], workers: vec![nothing; workers as usize], loose: Vec::new() }
    }

    /// There is one thing more.
    pub(super) fn add_thing(&mut self) {
        self.used.push(smallvec![0]);
        self.workers.iter_mut().for_each(|worker| worker.held.push(0));
    }

    /// A worker, which holds nothing, is on this machine from now on.
    pub(super) fn place(&mut self, worker: u32, machine: usize) {
        self.workers[worker as usize].machine = machine;
        for pools in &mut self.used {
            pools.resize(pools.len().max(machine + 1), 0);
        }
    }

    /// The machine that a worker is on.
    pub(super) fn machine(&self, worker: u32) -> usize {
        self.workers[worker as usize].machine
    }

    /// What the workers hold of a thing together, wherever they are.
    pub(super) fn used(&self, thing: u32) -> u64 {
        self.used[thing as usize].iter().sum()
    }

    /// What is left of a thing for a worker, beside what it holds itself.
    fn free_for(&self, things: &[Thing], worker: u32, thing: usize) -> u64 {
        let Holding { held, machine, .. } = &self.workers[worker as usize];
        let pool = things[thing].pool(*machine);
        (things[thing].total_of(pool) + held[thing]).saturating_sub(self.used[thing][pool])
    }

    /// The most that is left of a thing in one pool.
    pub(super) fn most_left(&self, things: &[Thing], thing: u32) -> u64 {
        let (pools, thing) = (&self.used[thing as usize], &things[thing as usize]);
        (0..).zip(pools).map(|(pool, used)| thing.total_of(pool).saturating_sub(*used)).max().unwrap_or(0)
    }

    /// What is left of a thing for a worker that wants more.
    pub(super) fn left_for(&self, things: &[Thing], worker: u32, thing: u32) -> u64 {
        self.free_for(things, worker, thing as usize).saturating_sub(self.held(worker)[thing as usize])
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
        demand.iter().all(|&(thing, amount)| {
            let thing = thing as usize;
            things[thing].is_owned() || planned[thing].max(amount) <= self.free_for(things, worker, thing)
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
            let is_same = things[at].pool(giver.machine) == things[at].pool(taker.machine);
            let given = if is_same { giver.held[at] - kept } else { 0 };
            things[at].is_owned() || amount.max(taker.held[at]) <= self.free_for(things, worker, at) + given
        })
    }

    /// So many leases more.
    pub(super) fn lease(&mut self, things: &[Thing], worker: u32, class: ClassId, demand: &Demand, more: u32) {
        let holding = &mut self.workers[worker as usize];
        match holding.leases.iter_mut().find(|(known, leases)| *known == class && *leases > 0) {
            Some((_, leases)) => *leases += more,
            None => {
                holding.leases.push((class, more));
                for &(thing, amount) in demand {
                    let held = &mut holding.held[thing as usize];
                    let more = amount.saturating_sub(*held);
                    *held += more;
                    self.used[thing as usize][things[thing as usize].pool(holding.machine)] += more;
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
    pub(super) fn settle(&mut self, classes: &Classes, things: &[Thing], mut may_end: impl FnMut(u32) -> bool) {
        let mut loose = std::mem::take(&mut self.loose);
        loose.retain(|worker| {
            let is_over = may_end(*worker);
            if is_over {
                self.recount(classes, things, *worker);
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
    pub(super) fn clear(&mut self, classes: &Classes, things: &[Thing], worker: u32) {
        self.workers[worker as usize].leases.clear();
        self.recount(classes, things, worker);
        self.loose.retain(|loose| *loose != worker);
    }

    fn recount(&mut self, classes: &Classes, things: &[Thing], worker: u32) {
        let holding = &mut self.workers[worker as usize];
        holding.is_loose = false;
        holding.leases.retain(|(_, leases)| *leases > 0);
        let machine = holding.machine;
        for ((used, held), thing) in self.used.iter_mut().zip(&mut holding.held).zip(things) {
            used[thing.pool(machine)] -= std::mem::take(held);
        }
        for (class, _) in &holding.leases {
            for &(thing, amount) in &classes.get(*class).expect("a leased task's class is in the table").demand {
                let held = &mut holding.held[thing as usize];
                let more = amount.saturating_sub(*held);
                *held += more;
                self.used[thing as usize][things[thing as usize].pool(machine)] += more;
            }
        }
    }
}
