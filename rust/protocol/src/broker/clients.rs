//! Clients of other processes: whether they are taken, whether they live, and the broker's end where it has many.
//!
//! The client in whose process the broker runs is at home: it is there as long as the broker is, and may tell it to end. All
//! others come and go. One that is gone is found by a question that cannot be delivered, within a second; one that is stopped,
//! or behind a network that is cut, by questions without an answer.

use super::peers::{Peer, Session};
use super::runs::{CALLS, Run};
use super::{Broker, PeerId};
use headrace_wire::{Heartbeat, Message, Role};

/// Questions, a second apart, that a client may leave unanswered. Its process answers by a native thread, so it has been stopped
/// or cut off for as long; somebody may look at it in a debugger, and its tasks harm nobody.
pub(super) const CLIENT_UNANSWERED_MAX: u32 = 60;

impl Broker {
    /// This client runs in the process of the broker. Others are taken only if the broker is open to them.
    pub fn live_with(&mut self, home: PeerId, is_open: bool) {
        (self.home, self.is_open) = (Some(home), is_open);
    }

    /// A stranger was let in at the gate under these roles, separated by commas. To be said before its first frame.
    pub fn let_in(&mut self, peer: PeerId, roles: &str) {
        self.admitted.insert(peer, roles.into());
    }

    /// Why a peer may not have a role, if so. Who comes from this machine may have any.
    pub(super) fn why_not_as(&mut self, peer: PeerId, role: Role) -> Option<String> {
        let roles = self.admitted.remove(&peer)?;
        let name = match role {
            Role::Client => "client",
            Role::Worker | Role::Agent => "worker",
            Role::Observer => "observer",
        };
        let may = roles.split(',').any(|role| role == name);
        (!may).then(|| format!("the key of this peer is for a {roles}, and it says that it is a {name}"))
    }

    /// Why a peer is not taken for a client, if so.
    pub(super) fn why_no_client(&self, peer: PeerId) -> Option<&'static str> {
        match self.home {
            None => None,
            Some(home) if home == peer => None,
            _ if !self.is_open => Some("this broker serves the process that it runs in, and no other client"),
            _ if self.drains => Some("the broker is about to end, and takes no more clients"),
            _ => None,
        }
    }

    /// Whether somebody elsewhere has not said goodbye. Who is told that the broker ends answers so; before that, its connection
    /// had better stay, for what is on its way when it ends may be lost.
    pub fn has_guests(&self) -> bool {
        let is_guest = |(peer, known): (&PeerId, &Peer)| match known {
            Peer::Client(_) => self.home != Some(*peer),
            Peer::Agent(_) => true,
            Peer::Worker(_) | Peer::Successor(_) | Peer::Observer { .. } | Peer::Cut { .. } => false,
        };
        self.is_open && self.peers.iter().any(is_guest)
    }

    /// Asks the clients of other processes for a sign of life; those that gave none for long are cut.
    pub(super) fn ask_clients(&mut self, now_ns: u64) {
        let Some(home) = self.home.filter(|_| self.is_open) else { return };
        let mut asked = Vec::new();
        for (&peer, known) in &mut self.peers {
            if let Peer::Client(session) = known
                && peer != home
            {
                session.unanswered += 1;
                asked.push((peer, session.unanswered > CLIENT_UNANSWERED_MAX));
            }
        }
        for (peer, is_silent) in asked {
            if is_silent {
                let text = format!("it has not answered {CLIENT_UNANSWERED_MAX} questions in a row");
                self.refuse(peer, &text, now_ns);
            } else {
                self.ask(peer);
            }
        }
    }

    /// Asks for a sign of life.
    pub(super) fn ask(&mut self, peer: PeerId) {
        self.send(peer, &Message::Heartbeat(Heartbeat { number: self.heartbeat_number, finished: 0 }));
    }

    /// A client is gone, and with it all that only its tasks needed.
    pub(super) fn end_client(&mut self, peer: PeerId, session: Session, now_ns: u64) {
        let functions: Vec<u32> = session.functions.values().copied().collect();
        self.end_session(peer, session, now_ns);
        functions.into_iter().for_each(|function| self.functions.retire(function));
    }

    /// A frame for a peer finds no connection. A worker's process may live on; its end, or its silence, is seen elsewhere.
    pub fn handle_unreachable(&mut self, peer: PeerId, now_ns: u64) {
        match self.peers.get(&peer) {
            Some(Peer::Client(_)) => self.handle_client_exit(peer, now_ns),
            Some(Peer::Agent(_)) => self.handle_disconnect(peer, now_ns),
            Some(Peer::Observer { .. } | Peer::Cut { .. }) => self.forget_peer(peer),
            Some(Peer::Worker(_) | Peer::Successor(_)) | None => {}
        }
    }

    /// Ends the broker that is to end, once nothing is left to run.
    pub(super) fn end_if_drained(&mut self) {
        if !self.drains || self.given_up || !self.rest.is_empty() {
            return;
        }
        let tasks = self.kernel.statistics();
        let is_in = |run: &Run| !run.open || run.number == CALLS;
        self.given_up = tasks.waiting + tasks.ready + tasks.leased == 0
            && self.debts.is_empty()
            && self.runs.iter().flatten().all(is_in);
    }
}
