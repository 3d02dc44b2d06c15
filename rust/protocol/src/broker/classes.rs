//! Who shares the workers, and which classes of tasks each of them is leased where there is something to choose: several
//! clients, or tasks that take what there is little of.

use super::peers::Peer;
use super::policy::DEFAULT_POLICY;
use super::{Broker, PeerId, worker_id};
use headrace_kernel::{ClassId, Leased, TaskIndex};
use rustc_hash::FxHashMap;

/// How many of a worker's leases of a class may go to another worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HandOver {
    None,
    Some,
    All,
}

impl Broker {
    /// The lowest number that no client has.
    ///
    /// The client at home submits nothing where there are others; so one of these alone has no choice to pay for.
    pub(super) fn free_owner(&self) -> u32 {
        let shares = |peer: &PeerId| !self.is_open || self.home != Some(*peer);
        let owners: Vec<u32> =
            self.peers.iter().filter(|(peer, _)| shares(peer)).filter_map(|(_, peer)| peer.owner()).collect();
        (0..).find(|owner| !owners.contains(owner)).expect("there are more numbers than clients")
    }

    /// The number of a client among those who share the workers.
    pub(super) fn owner_of(&self, peer: PeerId) -> u32 {
        self.peers.get(&peer).and_then(Peer::owner).expect("only clients own tasks")
    }

    /// Notes for how long each worker has been running tasks of whom, if there are several clients.
    pub(super) fn note_running(&mut self, now_ns: u64) {
        if self.limits.are_plain() {
            return self.limits.note_no_choice();
        }
        self.limits.clear_running();
        for worker in self.workers.iter() {
            if let Some((task, _)) = self.kernel.leases_of(worker_id(worker.number)).next() {
                let class = self.policies.get(self.ledger.slot(task.0).policy).class;
                let owner = self.limits.class(class).expect("a task's class is in the table").owner;
                self.limits.note_running(owner, now_ns.saturating_sub(worker.progress_ns));
            }
        }
    }

    /// Notes what the worker takes for the batch that it is leased.
    #[inline]
    pub(super) fn note_grants(&mut self, number: u32) {
        if !self.limits.are_plain() {
            let class = |lease: &Leased| self.policies.get(self.ledger.slot(lease.task.0).policy).class;
            self.limits.note_batch(number, self.leased.iter().map(class));
        }
    }

    /// What of each class the donor may hand over, so that one of the takers can have it; `None` if only pins matter.
    ///
    /// Where there is not enough for both, a class goes whole or not at all: what a donor holds for it is free only once it
    /// has no lease of it left. Of the class that it runs now it always has one.
    pub(super) fn hand_overs(&self, donor: u32, takers: &[u32]) -> Option<FxHashMap<ClassId, HandOver>> {
        if self.limits.are_plain() {
            return None;
        }
        let class = |task: TaskIndex| self.policies.get(self.ledger.slot(task.0).policy).class;
        let running = self.kernel.leases_of(worker_id(donor)).next().map(|(task, _)| class(task));
        let mut found = FxHashMap::default();
        for (task, _) in self.kernel.leases_of(worker_id(donor)).skip(1) {
            let class = class(task);
            let hand_over = found.entry(class).or_insert_with(|| {
                if takers.iter().any(|taker| self.limits.may_take(*taker, class)) {
                    return HandOver::Some;
                }
                let frees = |taker: &u32| self.limits.may_take_over(*taker, class, donor);
                let can_go = Some(class) != running && takers.iter().any(frees);
                if can_go { HandOver::All } else { HandOver::None }
            });
            // What hangs on another lease comes back with it, or not at all.
            if *hand_over == HandOver::All && (self.kernel.missing(task) > 0 || self.ledger.slot(task.0).recalled) {
                *hand_over = HandOver::None;
            }
        }
        Some(found)
    }

    /// A lease of a task with this policy is over.
    #[inline]
    pub(super) fn end_grant(&mut self, worker: u32, policy: u32) {
        if policy != DEFAULT_POLICY {
            self.end_grant_of(worker, policy);
        }
    }

    #[inline(never)]
    fn end_grant_of(&mut self, worker: u32, policy: u32) {
        self.limits.note_end(worker, self.policies.get(policy).class);
    }

    /// Ends the grants of workers that have no leases for them any more. A cancelled attempt may still run: its worker keeps
    /// what it holds until that is over.
    pub(super) fn settle_grants(&mut self) {
        let workers = &self.workers;
        self.limits.settle(|worker| workers[worker as usize].interrupted.is_empty());
    }
}
