//! What breaks, and when.

use super::worker::Fate;
use super::{Due, Event, Who, World};
use crate::coverage::{FaultKind, State};
use crate::scenario::{Act, Fault, Moment, When, Whose};
use std::collections::VecDeque;

/// Faults that wait for their moment.
#[derive(Debug)]
pub(crate) struct Armed {
    waiting: Vec<(Moment, u32, Act)>,
    /// Moments for which some wait, as bits.
    moments: u32,
    counts: [u32; Moment::ALL.len()],
    due: VecDeque<Due>,
}

impl Armed {
    pub(crate) fn new(faults: &[Fault]) -> Self {
        let on = |fault: &Fault| match fault.when {
            When::On(moment, nth) => Some((moment, nth, fault.act)),
            When::At(_) => None,
        };
        let waiting: Vec<_> = faults.iter().filter_map(on).collect();
        let moments = waiting.iter().fold(0, |bits, (moment, ..)| bits | 1 << *moment as u32);
        Armed { waiting, moments, counts: [0; Moment::ALL.len()], due: VecDeque::new() }
    }

    pub(crate) fn note(&mut self, moment: Moment, who: Who) {
        let count = &mut self.counts[moment as usize];
        *count += 1;
        if self.moments & 1 << moment as u32 == 0 {
            return;
        }
        let now = |(wanted, nth, _): &&(Moment, u32, Act)| *wanted == moment && *nth == *count;
        self.due.extend(self.waiting.iter().filter(now).map(|(.., act)| (*act, who)));
    }

    /// How often each moment has come.
    pub(crate) fn counts(&self) -> [u32; Moment::ALL.len()] {
        self.counts
    }

    pub(crate) fn next_due(&mut self) -> Option<Due> {
        self.due.pop_front()
    }
}

impl World<'_> {
    pub(super) fn plan_faults(&mut self) {
        for (number, fault) in self.scenario.faults.iter().enumerate() {
            if let When::At(at_ns) = fault.when {
                self.queue.plan(at_ns, Event::Fault(number));
            }
        }
        self.queue.plan(self.scenario.heal_ns, Event::Heal);
    }

    pub(super) fn fault_is_due(&mut self, number: usize) {
        self.break_something(self.scenario.faults[number].act, Who::Broker);
    }

    pub(super) fn heal(&mut self) {
        let now_ns = self.now_ns;
        self.trace.note(now_ns, || "the faults stop".to_owned());
        self.healed = true;
    }

    pub(super) fn break_something(&mut self, act: Act, concerned: Who) {
        if self.healed {
            return;
        }
        let now_ns = self.now_ns;
        let until_ns = |ns: u64| (now_ns + ns).min(self.scenario.heal_ns);
        let target = match act {
            Act::Kill(whose) | Act::Exhaust(whose) | Act::Hang(whose, _) | Act::Cut(whose, ..) => {
                self.target(whose, concerned)
            }
            Act::Pause(_) | Act::FailSpawns(_) | Act::FailDisk(_) => Some(Who::Broker),
        };
        let Some(target) = target else { return };
        match act {
            Act::Kill(_) => {
                self.cover([FaultKind::KillWorker, FaultKind::KillClient], target);
                match target {
                    Who::Worker(process) => self.end_process(process, Fate::Killed),
                    Who::Client(client) => self.end_client(client),
                    Who::Broker => {}
                }
            }
            Act::Exhaust(_) => {
                let Who::Worker(process) = target else { return };
                self.cover([FaultKind::ExhaustWorker; 2], target);
                self.end_process(process, Fate::Exhausted);
            }
            Act::Hang(_, ns) => {
                let until_ns = until_ns(ns);
                self.cover([FaultKind::HangWorker, FaultKind::HangClient], target);
                match target {
                    Who::Worker(process) => self.workers[process].stopped_until_ns = until_ns,
                    Who::Client(client) => self.clients[client].stopped_until_ns = until_ns,
                    Who::Broker => {}
                }
            }
            Act::Cut(_, ways, ns) => {
                let conn = match target {
                    Who::Worker(process) => self.workers[process].conn,
                    Who::Client(client) => self.clients[client].conn,
                    Who::Broker => return,
                };
                if !self.cut(conn, ways, until_ns(ns)) {
                    return;
                }
                self.cover([FaultKind::CutWorker, FaultKind::CutClient], target);
            }
            Act::Pause(ns) => {
                self.host.stopped_until_ns = until_ns(ns);
                self.cover([FaultKind::Pause; 2], target);
            }
            Act::FailSpawns(count) => self.host.failing_spawns = count,
            Act::FailDisk(ns) => {
                self.host.disk_fails_until_ns = until_ns(ns);
                self.cover([FaultKind::FailDisk; 2], target);
            }
        }
        self.trace.number(now_ns ^ 0xfa01);
        self.trace.note(now_ns, || format!("{act:?} of {target:?}"));
    }

    /// The live process that a fault is meant for.
    fn target(&self, whose: Whose, concerned: Who) -> Option<Who> {
        let seated = |worker: u32| {
            let process = self.seats.get(worker as usize)?.back().copied()?;
            self.workers[process].alive.then_some(Who::Worker(process))
        };
        match (whose, concerned) {
            (Whose::Concerned, Who::Worker(process)) => self.workers[process].alive.then_some(concerned),
            (Whose::Concerned, Who::Client(client)) => self.clients[client].alive.then_some(concerned),
            (Whose::Concerned, Who::Broker) => seated(0),
            (Whose::Worker(worker), _) => seated(worker),
            (Whose::Client(client), _) => {
                let client = usize::from(client);
                self.clients.get(client).is_some_and(|client| client.alive).then_some(Who::Client(client))
            }
        }
    }

    /// Notes what is going on while something breaks: of a worker's process, or of others.
    pub(super) fn cover(&mut self, [of_worker, of_others]: [FaultKind; 2], target: Who) {
        let counts = self.broker.kernel_statistics();
        let kind = if matches!(target, Who::Worker(_)) { of_worker } else { of_others };
        let mut meet = |state, is_so: bool| {
            if is_so {
                self.coverage.meet(kind, state);
            }
        };
        meet(State::Waiting, counts.waiting > 0);
        meet(State::Ready, counts.ready > 0);
        meet(State::Done, counts.done > 0);
        meet(State::Failed, counts.failed > 0);
        meet(State::Skipped, counts.skipped > 0);
        meet(State::Cancelled, counts.cancelled > 0);
        meet(State::Spilling, self.host.is_spilling);
        let workers: Vec<usize> = match target {
            Who::Worker(process) => vec![process],
            _ => self.seats.iter().flatten().copied().collect(),
        };
        for process in workers {
            let conn = self.workers[process].conn;
            let (up, down) = self.is_under_way(conn);
            let occupation = self.workers[process].occupation();
            let mut meet = |state, is_so: bool| {
                if is_so {
                    self.coverage.meet(kind, state);
                }
            };
            meet(State::FrameUp, up);
            meet(State::FrameDown, down);
            meet(State::Queued, occupation.has_queued);
            meet(State::Running, occupation.runs);
            meet(State::Stopping, occupation.stops);
            meet(State::Wanting, occupation.wants);
        }
    }
}
