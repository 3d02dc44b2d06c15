//! Other machines: each has an agent, which lends places for workers, and starts and ends the processes in them.
//!
//! A broker that listens to the network has a number of free places. An agent that joins is given as many of them as it has
//! slots; from then on a worker there is one as any other, whose orders go to the agent instead of this process's own
//! children. When the agent leaves or is lost, so are its workers: what they were leased is leased again, and their places are
//! free. An attempt that runs on there, unseen, is fenced like any late one (K4).

use super::peers::Peer;
use super::store::NOWHERE;
use super::workers::{Life, Successor};
use super::{Action, Broker, Exit, PeerId, SegmentNews, Shortage};
use headrace_wire::{
    Estate, EstateKind, Event, EventKind, GoodbyeReason, Hello, Log, Message, NO_WORKER, Order, OrderKind,
};
use rustc_hash::FxHashSet;

/// Questions, a second apart, that an agent may leave unanswered, as a worker may.
const AGENT_UNANSWERED_MAX: u32 = super::workers::UNANSWERED_MAX;

/// A machine with its agent.
#[derive(Debug, Default)]
pub(super) struct Machine {
    /// What people call it.
    name: String,
    /// Its number, once it has said what memory it has.
    pub(super) memory: Option<u32>,
    /// Its number among the machines; the broker's own is 0.
    number: usize,
    /// Questions since it last said anything.
    pub(super) unanswered: u32,
    /// It is to leave once its workers have ended what they run.
    pub(super) leaves: bool,
}

impl Broker {
    /// An agent joins with so many slots.
    pub(super) fn join_machine(&mut self, peer: PeerId, hello: &Hello<'_>, now_ns: u64) -> Result<(), String> {
        let slots = hello.worker as usize;
        let free: Vec<usize> =
            (0..self.workers.len()).filter(|number| self.workers[*number].life == Life::Vacant).take(slots).collect();
        if slots == 0 || free.len() < slots {
            return Err(format!(
                "it has {slots} slots, and there are {} free places for workers of other machines: start the broker with more \
                 (--places)",
                free.len()
            ));
        }
        if self.drains || self.shutting_down {
            return Err("the broker is about to end, and takes no more machines".to_owned());
        }
        let number = self.free_machine();
        self.limits.place(free.iter().map(|worker| *worker as u32), number);
        for worker in free {
            let worker = &mut self.workers[worker];
            worker.host = Some(peer);
            worker.machine = NOWHERE;
            worker.start_failures = 0;
            worker.life = Life::Down { respawn_ns: now_ns };
        }
        self.peers.insert(peer, Peer::Agent(Machine { number, ..Machine::default() }));
        self.count_places();
        Ok(())
    }

    /// An agent is gone, and with it all its processes.
    pub(super) fn lose_machine(&mut self, peer: PeerId, known: &Machine, why: &str, now_ns: u64) {
        let lost: Vec<u32> = self.workers_on(peer).collect();
        self.leaving -= u32::from(known.leaves);
        self.tell_home(&format!("headrace: {} is gone ({why}): {}\n", machine(&known.name), places(&lost)));
        for number in lost {
            let worker = &mut self.workers[number as usize];
            (worker.host, worker.leaves) = (None, false);
            if let Successor::Starting(incarnation) | Successor::Waiting { incarnation, .. } = worker.successor {
                self.lose_successor(number, incarnation, Exit::Unknown);
            }
            let worker = &mut self.workers[number as usize];
            worker.successor = Successor::None;
            if !matches!(worker.life, Life::Down { .. } | Life::Retired) {
                worker.given_up = true;
                let incarnation = worker.incarnation;
                self.handle_exit(number, incarnation, Exit::Unknown, None, now_ns);
            }
            let worker = &mut self.workers[number as usize];
            worker.start_failures = 0;
            worker.life = if self.shutting_down { Life::Retired } else { Life::Vacant };
            worker.machine = NOWHERE;
            self.limits.place([number], 0);
        }
        if let Some(memory) = known.memory {
            self.lose_memory(memory, now_ns);
        }
        self.limits.drop_machine(known.number);
        self.count_places();
    }

    /// The lowest number that no machine has.
    fn free_machine(&self) -> usize {
        let numbers = self.peers.values().filter_map(|peer| match peer {
            Peer::Agent(machine) => Some(machine.number),
            _ => None,
        });
        let taken: FxHashSet<usize> = numbers.collect();
        (1..).find(|number| !taken.contains(number)).expect("there are more numbers than machines")
    }

    /// A machine has so much of a resource.
    fn equip_machine(&mut self, peer: PeerId, name: &[u8], amount: u64, now_ns: u64) {
        let Some(Peer::Agent(machine)) = self.peers.get(&peer) else { return };
        let number = machine.number;
        let equipped = match std::str::from_utf8(name) {
            Ok(name) => self.limits.put_on_machine(number, name, amount),
            Err(_) => Err("the name of a resource is no text".to_owned()),
        };
        if let Err(text) = equipped {
            self.cut(peer, GoodbyeReason::WorkersFailed, &text, now_ns);
        }
    }

    /// A process of another machine has failed to become a worker, for the last time: the machine is of no use.
    pub(super) fn give_up_machine(&mut self, peer: PeerId, text: &str, now_ns: u64) {
        self.tell_home(&format!("headrace: {text}\n"));
        self.cut(peer, GoodbyeReason::WorkersFailed, text, now_ns);
    }

    pub(super) fn handle_event(&mut self, peer: PeerId, event: &Event<'_>, now_ns: u64) {
        let kind = EventKind::try_from(event.kind).ok();
        if kind == Some(EventKind::Named) {
            let lent: Vec<u32> = self.workers_on(peer).collect();
            let Some(Peer::Agent(known)) = self.peers.get_mut(&peer) else { return };
            // It goes into lines that people read.
            known.name = String::from_utf8_lossy(event.text).escape_debug().take(100).collect();
            let text = format!("headrace: {} has joined: {}\n", machine(&known.name), places(&lent));
            return self.tell_home(&text);
        }
        let text = || String::from_utf8_lossy(event.text).into_owned();
        match kind {
            Some(EventKind::Stores) => return self.note_memory(peer, event.incarnation, &text()),
            Some(EventKind::NoSegment) => {
                if self.store.is_on(event.number, peer) {
                    self.handle_segment_failure(event.number);
                }
                return;
            }
            Some(EventKind::Copied) => {
                let outcome = if event.text.is_empty() { Ok(()) } else { Err(text()) };
                return self.handle_copied(event.incarnation, outcome, now_ns);
            }
            Some(EventKind::Leaving) => return self.drain_machine(peer),
            Some(EventKind::Has) => return self.equip_machine(peer, event.text, event.incarnation, now_ns),
            _ => {}
        }
        let worker = event.worker;
        if self.workers.get(worker as usize).is_none_or(|worker| worker.host != Some(peer)) {
            return; // it was another machine's before it was lost
        }
        let by = (event.attempt > 0).then_some((event.task, event.attempt));
        let exit = match kind {
            Some(EventKind::Exited) => Exit::Code(event.number as i32),
            Some(EventKind::Killed) => Exit::Signal(event.number),
            Some(EventKind::OutOfMemory) => Exit::OutOfMemory(Shortage::default()),
            Some(EventKind::Ended) => Exit::Unknown,
            Some(EventKind::NotStarted) => {
                return self.handle_spawn_failure(worker, &String::from_utf8_lossy(event.text), now_ns);
            }
            Some(EventKind::Heard) => return self.handle_sign_of_life(worker),
            Some(EventKind::Wrote) => {
                return self.handle_output(worker, event.number.clamp(1, 2) as u8, event.text, by);
            }
            Some(EventKind::Stacks) => return self.handle_stacks(worker, &String::from_utf8_lossy(event.text)),
            Some(
                EventKind::Named
                | EventKind::Stores
                | EventKind::NoSegment
                | EventKind::Copied
                | EventKind::Leaving
                | EventKind::Has,
            )
            | None => return,
        };
        self.handle_exit(worker, event.incarnation, exit, by, now_ns);
    }

    /// A machine says what memory it has, and where it serves it.
    fn note_memory(&mut self, peer: PeerId, limit: u64, place: &str) {
        let (endpoint, key) = place.split_once(' ').unwrap_or((place, ""));
        let is_new = matches!(self.peers.get(&peer), Some(Peer::Agent(known)) if known.memory.is_none());
        if !is_new {
            return;
        }
        let memory = self.open_memory(peer, limit, (endpoint.to_owned(), key.to_owned()));
        if let Some(Peer::Agent(known)) = self.peers.get_mut(&peer) {
            known.memory = Some(memory);
        }
        let lent: Vec<u32> = self.workers_on(peer).collect();
        lent.into_iter().for_each(|worker| self.workers[worker as usize].machine = memory);
    }

    /// The agents to ask for a sign of life, and those that have given none for long.
    pub(super) fn ask_machines(&mut self, now_ns: u64) {
        let mut asked = Vec::new();
        for (&peer, known) in &mut self.peers {
            if let Peer::Agent(machine) = known {
                machine.unanswered += 1;
                asked.push((peer, machine.unanswered > AGENT_UNANSWERED_MAX));
            }
        }
        for (peer, is_silent) in asked {
            match is_silent {
                true => {
                    let text = format!("it has not answered {AGENT_UNANSWERED_MAX} questions in a row");
                    self.refuse(peer, &text, now_ns);
                }
                false => self.ask(peer),
            }
        }
    }

    /// What is to be done next. What concerns a process of another machine goes to its agent.
    pub(super) fn forward(&self, action: Action) -> Option<Action> {
        let (worker, order) = match action {
            Action::Spawn { worker, incarnation } => {
                (worker, Order { kind: OrderKind::Start as u8, incarnation, ..Order::default() })
            }
            Action::Interrupt { worker, task, attempt } => {
                (worker, Order { kind: OrderKind::Interrupt as u8, task, attempt, ..Order::default() })
            }
            Action::Kill { worker } => (worker, Order { kind: OrderKind::Kill as u8, ..Order::default() }),
            Action::Look { worker } => (worker, Order { kind: OrderKind::Look as u8, ..Order::default() }),
            Action::DumpStacks { worker } => (worker, Order { kind: OrderKind::Stacks as u8, ..Order::default() }),
            Action::Segment { worker: Some(worker), ref news } if self.is_place(worker) => {
                return self.forward_segment(worker, news);
            }
            _ => return Some(action),
        };
        if !self.is_place(worker) {
            return Some(action);
        }
        // Without a machine there is no process left.
        let peer = self.workers[worker as usize].host?;
        let mut frame = Vec::new();
        Message::Order(Order { worker, ..order }).encode(&mut frame);
        Some(Action::Send { peer, frame, wake: None })
    }

    /// What a worker there is to hear of shared memory.
    fn forward_segment(&self, worker: u32, news: &SegmentNews) -> Option<Action> {
        let peer = self.workers[worker as usize].host?;
        let estate = match news {
            SegmentNews::Granted { segment, bytes } => {
                Estate { kind: EstateKind::Granted as u8, segment: *segment, bytes: *bytes, ..Estate::default() }
            }
            SegmentNews::Shared { segment, bytes } => {
                Estate { kind: EstateKind::Shared as u8, segment: *segment, bytes: *bytes, ..Estate::default() }
            }
            SegmentNews::Refused { text } => Estate { kind: EstateKind::Refused as u8, text, ..Estate::default() },
            SegmentNews::Dropped { segment } => {
                Estate { kind: EstateKind::Dropped as u8, segment: *segment, ..Estate::default() }
            }
        };
        let mut frame = Vec::new();
        Message::Estate(Estate { worker, ..estate }).encode(&mut frame);
        Some(Action::Send { peer, frame, wake: None })
    }

    /// Whether a worker is, or may be, on another machine.
    pub(super) fn is_place(&self, worker: u32) -> bool {
        let local = self.config.workers - self.config.places;
        (local..self.config.workers).contains(&worker)
    }

    pub(super) fn workers_on(&self, peer: PeerId) -> impl Iterator<Item = u32> + '_ {
        self.workers.iter().filter(move |worker| worker.host == Some(peer)).map(|worker| worker.number)
    }

    /// Workers that there are now share what is ready.
    fn count_places(&mut self) {
        let vacant = self.workers.iter().filter(|worker| worker.life == Life::Vacant).count() as u32;
        self.limits.set_present(self.config.workers - vacant);
    }

    /// Tells whoever runs the broker.
    pub(super) fn tell_home(&mut self, text: &str) {
        let Some(peer) = self.home else { return };
        let mut frame = Vec::new();
        let log = Log { worker: NO_WORKER, stream: 2, text: text.as_bytes(), ..Log::default() };
        Message::Log(log).encode(&mut frame);
        self.actions.push_back(Action::Log { peer, frame });
    }
}

fn machine(name: &str) -> String {
    if name.is_empty() { "a machine".to_owned() } else { format!("machine '{name}'") }
}

fn places(workers: &[u32]) -> String {
    let named: Vec<String> = workers.iter().map(u32::to_string).collect();
    format!("{} {}", if named.len() == 1 { "worker" } else { "workers" }, named.join(", "))
}
