//! Sessions: who is connected, and how they come and go.

use super::machines::Machine;
use super::roster::Roster;
use super::runs::Run;
use super::workers::{Life, Successor};
use super::{Action, Broker, PeerId, RunTable, worker_id};
use headrace_kernel::TaskIndex;
use headrace_wire::{Goodbye, GoodbyeReason, Hello, Message, PROTOCOL_VERSION, Role, Welcome};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// What a connected peer is.
#[derive(Debug)]
pub(super) enum Peer {
    /// It submits graphs.
    Client(Session),
    /// It is this worker.
    Worker(u32),
    /// It waits for the place of this worker, and has nothing to say before it is welcomed.
    Successor(u32),
    /// It has workers on another machine.
    Agent(Machine),
    /// It asks how things stand.
    Observer {
        /// When it last said something.
        heard_ns: u64,
    },
    /// It broke the protocol; its frames are dropped undecoded.
    Cut {
        /// When the last of them came.
        heard_ns: u64,
    },
}

/// A client's session, or that of the tasks of a worker.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// Its number among those who share the workers: the lowest that is free.
    pub(super) owner: u32,
    /// Broker-wide numbers of its functions.
    pub(super) functions: FxHashMap<u32, u32>,
    /// Positions of its runs.
    pub(super) runs: RunTable,
    /// Questions since it last said anything, of a client of another process.
    pub(super) unanswered: u32,
}

/// Peers that were cut and are remembered, so that what they go on sending is dropped unread; beyond that, the one that was cut first
/// is a stranger again.
const STRAYS_MAX: usize = 1_024;
/// Observers at a time.
const OBSERVERS_MAX: usize = 256;

impl Peer {
    /// The number of a client among those who share the workers.
    pub(super) fn owner(&self) -> Option<u32> {
        match self {
            Peer::Client(session) => Some(session.owner),
            Peer::Worker(_) | Peer::Successor(_) | Peer::Observer { .. } | Peer::Agent(_) | Peer::Cut { .. } => None,
        }
    }
}

impl Broker {
    pub(super) fn handle_hello(&mut self, peer: PeerId, hello: &Hello<'_>, now_ns: u64) {
        if let Some(text) = self.mismatch(hello) {
            return self.cut(peer, GoodbyeReason::VersionMismatch, &text, now_ns);
        }
        if let Some(text) = self.why_not_as(peer, hello.role) {
            return self.refuse(peer, &text, now_ns);
        }
        match hello.role {
            Role::Client => {
                if let Some(text) = self.why_no_client(peer) {
                    return self.refuse(peer, text, now_ns);
                }
                let owner = self.free_owner();
                self.limits.open_owner(owner);
                self.peers.insert(peer, Peer::Client(Session { owner, ..Session::default() }));
            }
            Role::Worker => {
                let number = hello.worker;
                return match self.workers.get(number as usize) {
                    Some(worker) if worker.life == Life::Starting && worker.incarnation == hello.incarnation => {
                        self.welcome_worker(number, peer, hello.pid, now_ns);
                    }
                    Some(worker) if worker.successor == Successor::Starting(hello.incarnation) => {
                        self.keep_waiting(number, peer, hello.pid);
                    }
                    _ => self.cut(peer, GoodbyeReason::ProtocolError, "no such worker is expected", now_ns),
                };
            }
            Role::Agent => {
                if let Err(text) = self.join_machine(peer, hello, now_ns) {
                    return self.refuse(peer, &text, now_ns);
                }
            }
            Role::Observer if self.count_observers() >= OBSERVERS_MAX => {
                return self.refuse(peer, &format!("{OBSERVERS_MAX} observers are here already"), now_ns);
            }
            Role::Observer => {
                self.peers.insert(peer, Peer::Observer { heard_ns: now_ns });
            }
        }
        self.welcome(peer);
    }

    /// A process takes the place of a worker, which is free.
    pub(super) fn welcome_worker(&mut self, number: u32, peer: PeerId, pid: u32, now_ns: u64) {
        let worker = &mut self.workers[number as usize];
        worker.life = Life::Ready(peer);
        worker.pid = pid;
        worker.unanswered = 0;
        worker.progress_ns = now_ns;
        self.kernel.add_worker(worker_id(number));
        self.peers.insert(peer, Peer::Worker(number));
        self.welcome(peer);
    }

    fn welcome(&mut self, peer: PeerId) {
        let session = self.next_session;
        self.next_session += 1;
        let version = self.config.version.clone();
        let result_bytes_max = self.config.result_bytes_max;
        let welcome = Welcome { protocol: PROTOCOL_VERSION, version: &version, features: 0, session, result_bytes_max };
        self.send(peer, &Message::Welcome(welcome));
    }

    fn mismatch(&self, hello: &Hello<'_>) -> Option<String> {
        if hello.protocol != PROTOCOL_VERSION || hello.version != self.config.version {
            return Some(format!(
                "the broker is headrace {} (protocol {PROTOCOL_VERSION}), the peer is headrace {} (protocol {}): \
                 install the same version on both sides",
                self.config.version, hello.version, hello.protocol
            ));
        }
        if hello.role != Role::Observer && minor(hello.python) != minor(&self.config.python) {
            return Some(format!(
                "the broker's side runs Python {}, the peer runs Python {}: functions travel as byte code, so the \
                 first two numbers must agree",
                self.config.python, hello.python
            ));
        }
        None
    }

    pub(super) fn handle_goodbye(&mut self, peer: PeerId, goodbye: &Goodbye<'_>, now_ns: u64) {
        match self.peers.get(&peer) {
            Some(Peer::Client(_)) if self.home == Some(peer) && goodbye.reason == GoodbyeReason::Shutdown as u8 => {
                self.drains = true;
            }
            Some(Peer::Client(_) | Peer::Agent(_)) => self.handle_disconnect(peer, now_ns),
            Some(&Peer::Worker(worker)) => {
                // Its process ends by itself; what it said belongs to the post-mortem.
                let process = &mut self.workers[worker as usize];
                goodbye.text.clone_into(&mut process.farewell);
                // It is connected, but could not become what the client is: a setup that raises, say.
                process.refused = goodbye.reason == GoodbyeReason::WorkersFailed as u8;
            }
            Some(Peer::Observer { .. }) => self.forget_peer(peer),
            // Its end is seen elsewhere.
            Some(Peer::Successor(_) | Peer::Cut { .. }) | None => {}
        }
    }

    /// A peer is gone, or cannot be reached any more. Nobody will read a client's results, so its tasks are cancelled and
    /// nothing of it is kept. A worker's death brings its tasks back.
    pub fn handle_disconnect(&mut self, peer: PeerId, now_ns: u64) {
        self.admit_rest(now_ns);
        match self.peers.get(&peer) {
            Some(&Peer::Worker(worker)) => {
                self.workers[worker as usize].given_up = true;
                self.actions.push_back(Action::Kill { worker });
            }
            Some(_) => {
                match self.peers.remove(&peer) {
                    Some(Peer::Client(session)) => self.end_client(peer, session, now_ns),
                    Some(Peer::Agent(machine)) => {
                        self.lose_machine(peer, &machine, "it has left, or its connection broke", now_ns)
                    }
                    _ => {}
                }
                self.actions.push_back(Action::Forget { peer });
            }
            None => {}
        }
    }

    /// The process of a client is gone, whether it had left before or not, and with it what it saw of shared memory.
    pub fn handle_client_exit(&mut self, peer: PeerId, now_ns: u64) {
        self.handle_disconnect(peer, now_ns);
        self.lose_store_peer(peer, now_ns);
    }

    pub(super) fn end_session(&mut self, peer: PeerId, session: Session, now_ns: u64) {
        let mut positions: Vec<u32> = session.runs.into_values().collect();
        positions.sort_unstable();
        for position in positions {
            let tasks = self.live_slots(position);
            self.kernel.cancel(&tasks);
            self.settle_cascades(now_ns);
            let held = self.runs[position as usize].as_mut().map(|run| std::mem::take(&mut run.held));
            held.into_iter().flatten().for_each(|task| self.kernel.unhold(task));
            for task in tasks {
                let slot = self.ledger.slot_mut(task.0);
                let holds = std::mem::take(&mut slot.refs) + u32::from(std::mem::take(&mut slot.kept));
                (0..holds).for_each(|_| self.kernel.unhold(task));
            }
            if let Some(run) = self.runs[position as usize].as_mut() {
                run.open = false;
                run.finish_told = true;
                run.released = true;
            }
            self.settle_cascades(now_ns);
            self.drop_run_if_over(position);
        }
        self.part_from_store_peer(peer);
    }

    /// Says why to a peer that broke the protocol, and listens to it no more.
    pub(super) fn refuse(&mut self, peer: PeerId, text: &str, now_ns: u64) {
        self.cut(peer, GoodbyeReason::ProtocolError, text, now_ns);
    }

    pub(super) fn cut(&mut self, peer: PeerId, reason: GoodbyeReason, text: &str, now_ns: u64) {
        self.send(peer, &Message::Goodbye(Goodbye { reason: reason as u8, text }));
        match self.peers.insert(peer, Peer::Cut { heard_ns: now_ns }) {
            // A worker that talks nonsense is of no use; its death brings its tasks back.
            Some(Peer::Worker(worker)) => {
                self.workers[worker as usize].life = Life::Condemned(peer);
                self.actions.push_back(Action::Kill { worker });
                self.end_worker_session(worker, peer, now_ns);
            }
            // It leaves when it hears of it; its place will be filled without it.
            Some(Peer::Successor(worker)) => self.workers[worker as usize].successor = Successor::Lost,
            Some(Peer::Client(session)) => self.end_client(peer, session, now_ns),
            Some(Peer::Agent(machine)) => self.lose_machine(peer, &machine, text, now_ns),
            Some(Peer::Observer { .. } | Peer::Cut { .. }) | None => {}
        }
        self.admitted.remove(&peer);
        self.drop_questions(peer);
        self.actions.push_back(Action::Cut { peer });
        self.strays.push_back(peer);
        if self.strays.len() > STRAYS_MAX
            && let Some(oldest) = self.strays.pop_front().filter(|oldest| self.is_cut(*oldest))
        {
            self.forget_peer(oldest);
        }
    }

    /// A peer does not take what it is sent, and that has become very much.
    pub fn handle_congestion(&mut self, peer: PeerId, now_ns: u64) {
        if self.peers.contains_key(&peer) && !self.is_cut(peer) {
            self.refuse(peer, "it does not read what it is sent", now_ns);
        }
    }

    /// The worker that a peer is.
    #[inline]
    pub fn worker_of(&self, peer: PeerId) -> Option<u32> {
        match self.peers.get(&peer) {
            Some(Peer::Worker(worker)) => Some(*worker),
            _ => None,
        }
    }

    pub(super) fn is_cut(&self, peer: PeerId) -> bool {
        matches!(self.peers.get(&peer), Some(Peer::Cut { .. }))
    }

    /// Ends the broker: clients and workers are told, and no worker is started again.
    pub fn shut_down(&mut self) {
        self.shutting_down = true;
        let peers: Vec<PeerId> =
            self.peers.iter().filter(|(_, peer)| !matches!(peer, Peer::Cut { .. })).map(|(peer, _)| *peer).collect();
        for peer in peers {
            let text = "the broker shuts down";
            self.send(peer, &Message::Goodbye(Goodbye { reason: GoodbyeReason::Shutdown as u8, text }));
        }
        for worker in self.workers.all_mut() {
            match worker.life {
                Life::Down { .. } | Life::Vacant => worker.life = Life::Retired,
                // It has nothing to finish, and nobody would tell it to leave.
                Life::Starting => self.actions.push_back(Action::Kill { worker: worker.number }),
                _ => {}
            }
        }
    }

    /// The slots of a run's tasks that are not freed.
    pub(super) fn live_slots(&self, position: u32) -> Vec<TaskIndex> {
        let Some(run) = self.runs[position as usize].as_ref() else { return Vec::new() };
        match &run.slots {
            super::runs::Slots::Dense(slots) => {
                slots.iter().filter(|slot| **slot != super::ledger::NONE).map(|slot| TaskIndex(*slot)).collect()
            }
            super::runs::Slots::Sparse(slots) => {
                let mut live: Vec<TaskIndex> = slots.values().map(|slot| TaskIndex(*slot)).collect();
                live.sort_unstable();
                live
            }
        }
    }

    /// Removes a run of which nothing is left.
    pub(super) fn drop_run_if_over(&mut self, position: u32) {
        let over = |run: &Run| run.live == 0 && run.finish_told && run.released && !run.has_news;
        if self.runs[position as usize].as_ref().is_some_and(over) {
            let run = self.runs[position as usize].take().expect("the run was just seen");
            if let Some(session) = session_mut(&mut self.peers, &mut self.workers, run.peer) {
                session.runs.remove(&run.number);
            }
            self.past = self.past.and(run.counts);
            if run.owed > 0 {
                self.forget_debts(position);
            }
            self.free_runs.push(position);
        }
    }

    /// The position of a run of this client, or of what tasks of this worker have submitted.
    pub(super) fn find_run(&self, peer: PeerId, number: u32) -> Option<u32> {
        let session = match self.peers.get(&peer)? {
            Peer::Client(session) => session,
            Peer::Worker(worker) => &self.workers[*worker as usize].session,
            Peer::Successor(_) | Peer::Observer { .. } | Peer::Agent(_) | Peer::Cut { .. } => return None,
        };
        session.runs.get(&number).copied()
    }
}

/// The session of whoever submits.
pub(super) fn session_mut<'a>(
    peers: &'a mut BTreeMap<PeerId, Peer>,
    workers: &'a mut Roster,
    peer: PeerId,
) -> Option<&'a mut Session> {
    match peers.get_mut(&peer)? {
        Peer::Client(session) => Some(session),
        Peer::Worker(worker) => Some(&mut workers[*worker as usize].session),
        Peer::Successor(_) | Peer::Observer { .. } | Peer::Agent(_) | Peer::Cut { .. } => None,
    }
}

/// The first two numbers of a version of Python.
fn minor(version: &str) -> (&str, &str) {
    let mut numbers = version.split('.');
    (numbers.next().unwrap_or(""), numbers.next().unwrap_or(""))
}
