//! Workers that have run their share of tasks ([`Config::tasks_max`](super::Config::tasks_max)): each leaves, and a fresh
//! process takes its place.
//!
//! A worker is never given more leases than its share, so its last batch ends its work. With that batch its successor is
//! started, which says HELLO and is kept waiting for WELCOME. Once the last lease is settled the worker is told goodbye, and
//! before that, in the same order on the same link, asked for what only it has: results, and memory that it does not use.
//! Its blocks are cited by whoever needs them and outlive it. When its process has ended, the successor is welcomed.

use super::peers::Peer;
use super::workers::{Successor, Worker};
use super::{Action, Broker, Exit, PeerId};
use headrace_wire::{GiveBack, Goodbye, GoodbyeReason, Message};

impl Broker {
    /// Sees to the workers that have run their share.
    pub(super) fn retire_workers(&mut self, now_ns: u64) {
        if self.config.tasks_max == u64::MAX {
            return;
        }
        for number in 0..self.workers.len() as u32 {
            let worker = &mut self.workers[number as usize];
            let (Some(peer), 0, None) = (worker.peer(), worker.tasks_left, worker.leave_ns) else { continue };
            if worker.successor == Successor::None {
                let incarnation = worker.next_incarnation();
                worker.successor = Successor::Starting(incarnation);
                self.actions.push_back(Action::Spawn { worker: number, incarnation });
            }
            if is_through(worker) {
                worker.leave_ns = Some(now_ns + self.config.grace_ns);
                let text = format!("worker {number} has run its {} tasks", self.config.tasks_max);
                self.dismiss(number, peer, &text);
            }
        }
    }

    /// Has a worker without work leave, after all that only it has.
    pub(super) fn dismiss(&mut self, number: u32, peer: PeerId, text: &str) {
        let fetch = self.ledger.only_with(number);
        self.fetch(&fetch);
        self.send(peer, &Message::GiveBack(GiveBack::default()));
        self.send(peer, &Message::Goodbye(Goodbye { reason: GoodbyeReason::Closed as u8, text }));
    }

    /// A process says HELLO while the one before it has its place still.
    pub(super) fn keep_waiting(&mut self, number: u32, peer: PeerId, pid: u32) {
        let worker = &mut self.workers[number as usize];
        let incarnation = worker.successor.incarnation().expect("only a successor is kept waiting");
        worker.successor = Successor::Waiting { incarnation, peer, pid };
        self.peers.insert(peer, Peer::Successor(number));
    }

    /// The place of a worker is free. Whether a successor takes it.
    pub(super) fn hand_over_place(&mut self, number: u32, now_ns: u64) -> bool {
        let worker = &mut self.workers[number as usize];
        let successor = std::mem::replace(&mut worker.successor, Successor::None);
        let Some(incarnation) = successor.incarnation() else { return false };
        worker.take_over(incarnation);
        // What was still to be done with the process that is gone would be done with this one.
        self.actions.retain(|action| !concerns(action, number));
        if let Successor::Waiting { peer, pid, .. } = successor {
            self.welcome_worker(number, peer, pid, now_ns);
        }
        true
    }

    /// A process that is not in a worker's place has ended.
    pub(super) fn lose_successor(&mut self, number: u32, incarnation: u64, exit: Exit) {
        let Some(worker) = self.workers.get_mut(number as usize) else { return };
        if worker.successor.incarnation() != Some(incarnation) {
            return;
        }
        let successor = std::mem::replace(&mut worker.successor, Successor::Lost);
        worker.start_failures += 1;
        self.count_death(exit);
        if let Successor::Waiting { peer, .. } = successor {
            self.forget_peer(peer);
        }
    }

    /// A process that could not be started was a successor. Whether that is so.
    pub(super) fn never_had_successor(&mut self, number: u32) -> bool {
        let worker = &mut self.workers[number as usize];
        let is_one = matches!(worker.successor, Successor::Starting(_));
        if is_one {
            worker.successor = Successor::Lost;
            worker.start_failures += 1;
        }
        is_one
    }
}

/// Whether an action is about whatever process has a worker's place.
fn concerns(action: &Action, number: u32) -> bool {
    match action {
        Action::Interrupt { worker, .. }
        | Action::Kill { worker }
        | Action::Look { worker }
        | Action::DumpStacks { worker } => *worker == number,
        Action::Segment { worker, .. } => *worker == Some(number),
        _ => false,
    }
}

/// Whether nothing that a worker was given is open.
pub(super) fn is_through(worker: &Worker) -> bool {
    worker.frames_open() == 0 && worker.interrupted.is_empty()
}
