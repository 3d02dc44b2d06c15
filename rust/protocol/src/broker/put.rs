//! PUT: results that clients make themselves. To the kernel each is a task that ended as soon as it came, so it lives, is
//! cited and dies as any other result does.

use super::ledger::{NONE, Slot};
use super::payload::Part;
use super::runs::{CALLS, Slots};
use super::store::CITES_NOTHING;
use super::{Broker, Frame, PeerId, worker_id};
use headrace_kernel::{
    Chunk, ClassId, Classes, LeaseRequest, Leased, Oracle, Preference, Priorities, TaskIndex, seeded,
};
use headrace_wire::Put;

/// Class of results that clients make.
const PUT_CLASS: ClassId = ClassId(u32::MAX);

struct Free;

impl Oracle for Free {
    fn cost(&mut self, _: TaskIndex) -> u64 {
        0
    }

    fn preference(&mut self, _: &[TaskIndex], _: TaskIndex) -> Preference {
        Preference::Nobody
    }
}

impl Broker {
    pub(super) fn handle_put(&mut self, peer: PeerId, frame: &Frame, put: &Put<'_>, now_ns: u64) {
        let position = self.find_run(peer, CALLS).unwrap_or_else(|| self.open_run(peer, CALLS, now_ns));
        if self.run(position).slots.get(put.index).is_some() {
            return self.refuse(peer, "a result was put where another one lies", now_ns);
        }
        let machine = self.machine_of_peer(peer);
        if !self.store.arrive(peer, machine, put.value) {
            return self.refuse(peer, CITES_NOTHING, now_ns);
        }
        let task = self.make_ended_task();
        let slot = Slot {
            run: position,
            index: put.index,
            function: NONE,
            chunk: NONE,
            kept: true,
            done: true,
            ..Slot::default()
        };
        self.ledger.open(task.0, slot);
        self.ledger.set_value(task.0, Some(Part::of(frame, put.value)), None);
        let run = self.run_mut(position);
        run.counts.total += 1;
        run.counts.done += 1;
        run.live += 1;
        if let Slots::Sparse(slots) = &mut run.slots {
            slots.insert(put.index, task.0);
        }
    }

    /// A task of the kernel that is done, with a result that one holder keeps.
    fn make_ended_task(&mut self) -> TaskIndex {
        let chunk = Chunk {
            dep_counts: &[0],
            deps: &[],
            external: &[],
            class: Classes::One(PUT_CLASS),
            priority: Priorities::One(0),
            keep: &[0],
        };
        let mut slots = Vec::with_capacity(1);
        self.kernel.submit(&chunk, &mut slots).expect("a lone task is a graph");
        if !seeded!("what was put is made again") {
            self.kernel.keep_for_consumers(slots[0]);
        }
        self.end_at_once(slots[0], true);
        slots[0]
    }

    /// Has a ready task end well, with a result that is here.
    pub(super) fn end_at_once(&mut self, task: TaskIndex, secured: bool) {
        // Nobody else leases this class, and no worker process has this number.
        let nobody = worker_id(self.workers.len() as u32);
        self.kernel.add_worker(nobody);
        self.kernel.set_class(task, PUT_CLASS);
        let request = LeaseRequest {
            classes: &[PUT_CLASS],
            tasks_max: 1,
            seeds_max: 1,
            budget: 1,
            only_preferred: false,
            roots: true,
        };
        let mut leased: Vec<Leased> = Vec::with_capacity(1);
        self.kernel.lease(nobody, &request, &mut Free, &mut leased);
        self.kernel.complete(nobody, leased[0].task, leased[0].attempt, secured).expect("it was leased just now");
    }
}
