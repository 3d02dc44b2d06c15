//! Observers: peers that ask how all runs stand. Nothing waits for them, and nothing of them is kept.

use super::peers::Peer;
use super::runs::Counts;
use super::{Action, Broker, PeerId};

/// How long an observer, or a peer that was cut, may say nothing before it is forgotten: nobody tells when such a peer
/// goes away. Should it speak again, it has to begin with HELLO.
const SILENCE_NS: u64 = 60_000_000_000;

impl Broker {
    /// The tasks of all runs since the start.
    pub(super) fn count_all(&self) -> Counts {
        self.runs.iter().flatten().fold(self.past, |counts, run| counts.and(run.counts))
    }

    pub(super) fn count_observers(&self) -> usize {
        self.peers.values().filter(|peer| matches!(peer, Peer::Observer { .. })).count()
    }

    /// Forgets a peer of which nothing else hangs on its connection.
    pub(super) fn forget_peer(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
        self.actions.push_back(Action::Forget { peer });
    }

    pub(super) fn forget_silent_peers(&mut self, now_ns: u64) {
        let is_silent = |peer: &Peer| match peer {
            Peer::Observer { heard_ns } | Peer::Cut { heard_ns } => now_ns.saturating_sub(*heard_ns) >= SILENCE_NS,
            Peer::Client(_) | Peer::Worker(_) | Peer::Successor(_) | Peer::Agent(_) => false,
        };
        let silent: Vec<PeerId> =
            self.peers.iter().filter(|(_, peer)| is_silent(peer)).map(|(number, _)| *number).collect();
        silent.into_iter().for_each(|peer| self.forget_peer(peer));
    }
}
