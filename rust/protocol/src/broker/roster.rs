//! All workers, and which of them a turn has to look at.
//!
//! A turn must not cost a look at each of 10,000 workers. Whoever is handed out to be changed is noted, and only those are
//! looked at before the next question: who has room, who is idle, who has something to give away, whose time matters.

use super::dispatch::FORGET_BATCH;
use super::workers::{FRAMES_MAX, Life, Worker};
use fixedbitset::FixedBitSet;
use std::ops::{Deref, Index, IndexMut};

/// The workers, by number; as a slice to read.
#[derive(Debug)]
pub(super) struct Roster {
    workers: Vec<Worker>,
    /// Those that may have changed since the sets below were.
    changed: FixedBitSet,
    any_changed: bool,
    sets: Sets,
}

/// Workers by what a turn may have to do with them.
#[derive(Debug)]
struct Sets {
    room: FixedBitSet,
    idle: FixedBitSet,
    donors: FixedBitSet,
    timed: FixedBitSet,
    uninformed: FixedBitSet,
}

/// In which of them a worker belongs.
struct Places {
    room: bool,
    idle: bool,
    donors: bool,
    timed: bool,
    uninformed: bool,
}

impl Places {
    fn of(worker: &Worker) -> Self {
        let (takes_work, open) = (worker.takes_work(), worker.frames_open());
        let is_pressed = matches!(worker.life, Life::Down { .. }) || !worker.interrupted.is_empty();
        Places {
            room: takes_work && open < FRAMES_MAX,
            idle: takes_work && open == 0,
            donors: worker.peer().is_some() && !worker.waits() && worker.unsettled() > 1,
            timed: is_pressed || worker.leave_ns.is_some(),
            uninformed: worker.dead.len() >= FORGET_BATCH,
        }
    }
}

impl Roster {
    pub(super) fn new(workers: Vec<Worker>) -> Self {
        let none = || FixedBitSet::with_capacity(workers.len());
        let sets = Sets { room: none(), idle: none(), donors: none(), timed: none(), uninformed: none() };
        let mut changed = none();
        changed.insert_range(..);
        Roster { workers, changed, any_changed: true, sets }
    }

    /// Those that may be given a frame and have fewer than so many open.
    pub(super) fn with_fewer(&mut self, frames: usize) -> &FixedBitSet {
        const { assert!(FRAMES_MAX == 2) };
        let sets = self.up_to_date();
        if frames < FRAMES_MAX { &sets.idle } else { &sets.room }
    }

    /// Whether somebody has nothing to do, and somebody else more than what it runs.
    pub(super) fn is_uneven(&mut self) -> bool {
        let sets = self.up_to_date();
        !sets.idle.is_clear() && !sets.donors.is_clear()
    }

    /// Those that have nothing to do.
    pub(super) fn idle(&mut self) -> Vec<u32> {
        numbers(self.up_to_date().idle.ones())
    }

    /// Those that have more than what they run.
    pub(super) fn donors(&mut self) -> Vec<u32> {
        numbers(self.up_to_date().donors.ones())
    }

    /// Those with something that a clock ends; mostly there are none.
    pub(super) fn timed(&mut self) -> Vec<u32> {
        numbers(self.up_to_date().timed.ones())
    }

    /// Those that hold many dead results and do not know it.
    pub(super) fn uninformed(&mut self) -> Vec<u32> {
        numbers(self.up_to_date().uninformed.ones())
    }

    /// The same as [`Roster::timed`], and perhaps some more.
    pub(super) fn maybe_timed(&self) -> impl Iterator<Item = &Worker> {
        self.sets.timed.union(&self.changed).map(|number| &self.workers[number])
    }

    /// For tests: a worker that is in another set than it belongs in, and is not noted as changed.
    pub(super) fn find_stale(&self) -> Option<usize> {
        (0..self.workers.len()).filter(|number| !self.changed.contains(*number)).find(|number| {
            let Places { room, idle, donors, timed, uninformed } = Places::of(&self.workers[*number]);
            let sets = &self.sets;
            [
                (room, &sets.room),
                (idle, &sets.idle),
                (donors, &sets.donors),
                (timed, &sets.timed),
                (uninformed, &sets.uninformed),
            ]
            .iter()
            .any(|(belongs, set)| set.contains(*number) != *belongs)
        })
    }

    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut Worker> {
        (number < self.workers.len()).then(|| &mut self[number])
    }

    /// All of them, to change.
    pub(super) fn all_mut(&mut self) -> &mut [Worker] {
        self.changed.insert_range(..);
        self.any_changed = true;
        &mut self.workers
    }

    #[inline]
    fn up_to_date(&mut self) -> &Sets {
        if self.any_changed {
            self.look_at_changed();
        }
        &self.sets
    }

    fn look_at_changed(&mut self) {
        let Roster { workers, changed, sets, .. } = self;
        for number in changed.ones() {
            let Places { room, idle, donors, timed, uninformed } = Places::of(&workers[number]);
            sets.room.set(number, room);
            sets.idle.set(number, idle);
            sets.donors.set(number, donors);
            sets.timed.set(number, timed);
            sets.uninformed.set(number, uninformed);
        }
        changed.clear();
        self.any_changed = false;
    }
}

impl Deref for Roster {
    type Target = [Worker];

    fn deref(&self) -> &[Worker] {
        &self.workers
    }
}

impl Index<usize> for Roster {
    type Output = Worker;

    #[inline]
    fn index(&self, number: usize) -> &Worker {
        &self.workers[number]
    }
}

impl IndexMut<usize> for Roster {
    #[inline]
    fn index_mut(&mut self, number: usize) -> &mut Worker {
        self.changed.insert(number);
        self.any_changed = true;
        &mut self.workers[number]
    }
}

pub(super) fn numbers(of: impl Iterator<Item = usize>) -> Vec<u32> {
    of.map(|number| number as u32).collect()
}
