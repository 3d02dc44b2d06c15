//! What workers write: told to every client, and to the one that owns the task, whose it is. Where that is a worker, which
//! has submitted the task, it is told of that alone. In a broker with clients of other processes each hears its own tasks only,
//! and the client at home what is nobody's.

use super::peers::Peer;
use super::{Action, Broker, PeerId};
use crate::limits::FIRST_OWNER;
use headrace_wire::{Log, Message};

/// An attempt that writes, or may. It is remembered beyond its lease: one that was cancelled has last words too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Author {
    pub(super) task: u32,
    pub(super) attempt: u32,
    peer: PeerId,
    run: u32,
    index: u32,
    /// The number of the client whose tasks have submitted it, however deep.
    owner: u32,
    /// What it has written so far.
    bytes: u64,
}

/// Attempts that ended on another machine and are remembered as authors.
const RECENT_MAX: usize = 1_024;

impl Broker {
    /// What a worker wrote, or nothing once its process has ended within a line; `stream` is 1 or 2, and `by` the (slot, attempt) that wrote it, if one did. Before the report of an
    /// attempt is handled, what the attempt wrote must have been.
    pub fn handle_output(&mut self, worker: u32, stream: u8, text: &[u8], by: Option<(u32, u32)>) {
        if stream == 2 {
            self.workers[worker as usize].keep_stderr(text);
        }
        let author = by.and_then(|(task, attempt)| self.find_author(worker, task, attempt));
        let author = author.map(|author| {
            let before = *author;
            author.bytes += text.len() as u64;
            before
        });
        let hears = |(peer, role): (&PeerId, &Peer)| match role {
            Peer::Client(session) if self.is_open => {
                let is_home = self.home == Some(*peer);
                author.map_or(is_home, |author| !is_home && author.owner == session.owner).then_some(*peer)
            }
            Peer::Client(_) => Some(*peer),
            Peer::Worker(_) if author.is_some_and(|author| author.peer == *peer) => Some(*peer),
            _ => None,
        };
        let peers: Vec<PeerId> = self.peers.iter().filter_map(hears).collect();
        for peer in peers {
            let mut log = Log { worker, stream, text, ..Log::default() };
            if let Some(Author { run, index, attempt, bytes, .. }) = author.filter(|author| author.peer == peer) {
                log = Log { run, index, attempt, before: bytes, ..log };
            }
            let mut frame = Vec::new();
            Message::Log(log).encode(&mut frame);
            self.actions.push_back(Action::Log { peer, frame });
        }
    }

    /// Who an attempt is whose lease is alive.
    pub(super) fn author_of(&self, task: u32, attempt: u32) -> Author {
        let slot = self.ledger.slot(task);
        let run = self.run(slot.run);
        let owner = self.limits.class(self.policies.get(slot.policy).class).map_or(FIRST_OWNER, |class| class.owner);
        Author { task, attempt, peer: run.peer, run: run.number, index: slot.index, owner, bytes: 0 }
    }

    /// An attempt of a worker on another machine is about to end. What it has written may still be on its way.
    pub(super) fn remember_author(&mut self, number: u32, task: u32, attempt: u32) {
        if !self.ledger.knows(task) || !self.may_run(number, task, attempt) {
            return;
        }
        let is_it = |author: &Author| (author.task, author.attempt) == (task, attempt);
        let known = self.workers[number as usize].author.filter(is_it);
        let author = known.unwrap_or_else(|| self.author_of(task, attempt));
        let recent = &mut self.workers[number as usize].recent;
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(author);
    }

    fn find_author(&mut self, number: u32, task: u32, attempt: u32) -> Option<&mut Author> {
        let worker = &self.workers[number as usize];
        let is_it = |author: &Author| (author.task, author.attempt) == (task, attempt);
        if !worker.author.as_ref().is_some_and(is_it) {
            let stopped = worker.interrupted.iter().map(|asked| asked.author).find(is_it);
            let recent = worker.recent.iter().rev().copied().find(is_it);
            let is_leased = || self.ledger.knows(task) && self.may_run(number, task, attempt);
            let author = stopped.or(recent).or_else(|| is_leased().then(|| self.author_of(task, attempt)))?;
            self.workers[number as usize].author = Some(author);
        }
        self.workers[number as usize].author.as_mut()
    }
}
