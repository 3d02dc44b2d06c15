//! The broker, with a record of what it was told, so that another one can be told the same: alone, without the rest of the
//! cluster in the processor's caches, as a broker is. That is what the load of a large scenario is measured by.

use crate::large::processor_time;
use headrace_protocol::broker::{Action, Broker, Config, Exit, Frame, PeerId};
use std::ops::Deref;
use std::time::Duration;

pub(crate) struct Recorded {
    broker: Broker,
    /// What it was told, if that is wanted.
    told: Option<Vec<Told>>,
    said: Said,
}

enum Told {
    Frame(PeerId, Frame, u64),
    Exit(u32, u64, Exit, Option<(u32, u32)>, u64),
    ClientExit(PeerId, u64),
    Disconnect(PeerId, u64),
    SpawnFailure(u32, String, u64),
    SignOfLife(u32),
    Stacks(u32),
    Spilled(u64, Result<(), String>, u64),
    Turn(u64),
}

/// What it has asked for, in short.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Said {
    actions: u64,
    bytes: u64,
}

impl Said {
    fn add(&mut self, action: &Action) {
        self.actions += 1;
        if let Action::Send { frame, .. } | Action::Log { frame, .. } = action {
            self.bytes += frame.len() as u64;
        }
    }
}

impl Recorded {
    pub(super) fn new(config: Config, is_recorded: bool) -> Self {
        Recorded { broker: Broker::new(config, 0), told: is_recorded.then(Vec::new), said: Said::default() }
    }

    /// Ends the record, and tells all of it to a new broker. What of a processor that took, or `None` if that broker said
    /// something else (K8).
    pub(super) fn replay(&mut self, config: Config) -> Option<Duration> {
        let told = self.told.take().unwrap_or_default();
        let (mut broker, mut said) = (Broker::new(config, 0), Said::default());
        let begin = processor_time();
        for told in &told {
            told.tell(&mut broker);
            if matches!(told, Told::Turn(_)) {
                std::iter::from_fn(|| broker.poll_action()).for_each(|action| said.add(&action));
            }
        }
        let took = processor_time() - begin;
        std::iter::from_fn(|| broker.poll_action()).for_each(|action| said.add(&action));
        (said == self.said).then_some(took)
    }

    fn tell(&mut self, told: Told) {
        told.tell(&mut self.broker);
        if let Some(all) = &mut self.told {
            all.push(told);
        }
    }

    pub(super) fn handle_frame(&mut self, peer: PeerId, frame: &Frame, now_ns: u64) {
        self.tell(Told::Frame(peer, frame.clone(), now_ns));
    }

    pub(super) fn handle_exit(
        &mut self,
        worker: u32,
        incarnation: u64,
        exit: Exit,
        executing: Option<(u32, u32)>,
        now_ns: u64,
    ) {
        self.tell(Told::Exit(worker, incarnation, exit, executing, now_ns));
    }

    pub(super) fn handle_client_exit(&mut self, peer: PeerId, now_ns: u64) {
        self.tell(Told::ClientExit(peer, now_ns));
    }

    pub(super) fn handle_disconnect(&mut self, peer: PeerId, now_ns: u64) {
        self.tell(Told::Disconnect(peer, now_ns));
    }

    pub(super) fn handle_spawn_failure(&mut self, worker: u32, text: &str, now_ns: u64) {
        self.tell(Told::SpawnFailure(worker, text.to_owned(), now_ns));
    }

    pub(super) fn handle_sign_of_life(&mut self, worker: u32) {
        self.tell(Told::SignOfLife(worker));
    }

    pub(super) fn handle_stacks(&mut self, worker: u32) {
        self.tell(Told::Stacks(worker));
    }

    pub(super) fn handle_spilled(&mut self, job: u64, outcome: Result<(), String>, now_ns: u64) {
        self.tell(Told::Spilled(job, outcome, now_ns));
    }

    /// Lets it do what it does when a turn has told it everything.
    pub(super) fn end_turn(&mut self, now_ns: u64) {
        self.tell(Told::Turn(now_ns));
    }

    pub(super) fn shut_down(&mut self) {
        self.broker.shut_down();
    }

    pub(super) fn poll_action(&mut self) -> Option<Action> {
        let action = self.broker.poll_action()?;
        if self.told.is_some() {
            self.said.add(&action);
        }
        Some(action)
    }
}

impl Told {
    fn tell(&self, broker: &mut Broker) {
        match self {
            Told::Frame(peer, frame, now_ns) => broker.handle_frame(*peer, frame, *now_ns),
            Told::Exit(worker, incarnation, exit, executing, now_ns) => {
                broker.handle_exit(*worker, *incarnation, exit.clone(), *executing, *now_ns);
            }
            Told::ClientExit(peer, now_ns) => broker.handle_client_exit(*peer, *now_ns),
            Told::Disconnect(peer, now_ns) => broker.handle_disconnect(*peer, *now_ns),
            Told::SpawnFailure(worker, text, now_ns) => broker.handle_spawn_failure(*worker, text, *now_ns),
            Told::SignOfLife(worker) => broker.handle_sign_of_life(*worker),
            Told::Stacks(worker) => broker.handle_stacks(*worker, ""),
            Told::Spilled(job, outcome, now_ns) => broker.handle_spilled(*job, outcome.clone(), *now_ns),
            Told::Turn(now_ns) => {
                broker.handle_timeout(*now_ns);
                broker.finish_turn(*now_ns);
            }
        }
    }
}

impl Deref for Recorded {
    type Target = Broker;

    fn deref(&self) -> &Broker {
        &self.broker
    }
}
