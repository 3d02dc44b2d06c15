//! Machines that leave in order: their agent says so, and their workers end what they run.
//!
//! From then on these are given nothing more, and are asked for what they have not started. One that is through is dismissed as
//! one that has run its share ([`super::retire`]): it gives up what only it has, and ends. When the last process has ended, and what
//! lay in that machine's memory alone has been copied to the broker's, the agent is told goodbye, and its places are free.

use super::peers::Peer;
use super::retire::is_through;
use super::workers::Life;
use super::{Action, Broker, PeerId, worker_id};
use headrace_wire::{Goodbye, GoodbyeReason, Message};

/// What a machine's agent and workers are told.
const TEXT: &str = "the machine leaves";

impl Broker {
    /// An agent wants to leave.
    pub(super) fn drain_machine(&mut self, peer: PeerId) {
        let Some(Peer::Agent(machine)) = self.peers.get_mut(&peer) else { return };
        if std::mem::replace(&mut machine.leaves, true) {
            return;
        }
        self.leaving += 1;
        let workers: Vec<u32> = self.workers_on(peer).collect();
        for number in workers {
            self.workers[number as usize].leaves = true;
            // The first one runs, or is about to.
            let unstarted = self.kernel.leases_of(worker_id(number)).skip(1);
            let unstarted: Vec<(u32, u32)> = unstarted
                .map(|(task, attempt)| (task.0, attempt.0))
                .filter(|(task, _)| !self.ledger.slot(*task).recalled)
                .collect();
            if !unstarted.is_empty() {
                self.send_recall(number, &unstarted);
            }
        }
    }

    /// Sees to the machines that leave.
    pub(super) fn dismiss_machines(&mut self, now_ns: u64) {
        if self.leaving == 0 {
            return;
        }
        let is_leaving = |peer: &Peer| matches!(peer, Peer::Agent(machine) if machine.leaves);
        let leaving: Vec<PeerId> =
            self.peers.iter().filter(|(_, peer)| is_leaving(peer)).map(|(peer, _)| *peer).collect();
        for peer in leaving {
            let workers: Vec<u32> = self.workers_on(peer).collect();
            let left = workers.into_iter().filter(|number| self.dismiss_if_through(*number, now_ns)).count();
            if left == 0 && !self.has_memory_to_save(peer, now_ns) {
                self.send(peer, &Message::Goodbye(Goodbye { reason: GoodbyeReason::Closed as u8, text: TEXT }));
                if let Some(Peer::Agent(machine)) = self.peers.remove(&peer) {
                    self.lose_machine(peer, &machine, "it was told to leave", now_ns);
                }
                self.actions.push_back(Action::Forget { peer });
            }
        }
    }

    /// Whether results are on their way that lie in the memory of a machine alone.
    fn has_memory_to_save(&mut self, peer: PeerId, now_ns: u64) -> bool {
        let Some(Peer::Agent(machine)) = self.peers.get(&peer) else { return false };
        machine.memory.is_some_and(|memory| self.bring_home(memory, now_ns))
    }

    /// Has a worker leave that has nothing more to do. Whether it has a process still.
    fn dismiss_if_through(&mut self, number: u32, now_ns: u64) -> bool {
        let worker = &self.workers[number as usize];
        if worker.leave_ns.is_some() {
            return true;
        }
        match worker.life {
            Life::Ready(peer) => {
                if is_through(worker) && !worker.waits() {
                    self.workers[number as usize].leave_ns = Some(now_ns + self.config.grace_ns);
                    self.dismiss(number, peer, TEXT);
                }
                true
            }
            Life::Starting => {
                self.workers[number as usize].leave_ns = Some(u64::MAX);
                self.actions.push_back(Action::Kill { worker: number });
                true
            }
            Life::Condemned(_) => true,
            Life::Down { .. } | Life::Retired | Life::Spare | Life::Vacant => false,
        }
    }
}
