//! Copies of results on other machines than those that have made them.
//!
//! A result that lies in the memory of one machine can be read there alone. Who needs it elsewhere waits until a copy is there,
//! with an encoding of its own that cites it: whoever could run but for that is barred meanwhile, as if nobody had been asked for
//! the value yet. The broker places a copy as it places blocks in files, in segments that nobody owns; the machine's agent fetches
//! the bytes from another agent, directly.
//!
//! A copy is a source from its first byte on: the server of a machine answers for bytes that are on their way once they are there.
//! So of all sources the one with the fewest readers is asked, and many readers form a chain.
//!
//! What a machine had alone that is lost is made again; so nothing that lies on another machine is secured (K5).

use super::budget::{Budget, SEGMENT_BYTES_MAX};
use super::store::{HOME, NOWHERE, Segment};
use super::{Action, Broker, Payload, PeerId};
use crate::store::Arena;
use headrace_kernel::{Attempt, Handle, TaskIndex};
use headrace_wire::{
    BLOCK_ALIGN, Citation, Estate, EstateKind, FILE_SEGMENTS, Message, Neighbour, Outcome, PAGE_BYTES, Transfer,
    citations, cite_elsewhere,
};
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// A copy from this size on has a segment of its own, which goes with it.
const ALONE_BYTES: u64 = 1 << 20;
/// How often the bytes are sought elsewhere before a copy is given up, and the pause then.
const TRIES_MAX: u32 = 4;
const PAUSE_NS: u64 = 200_000_000;
/// For how long a way between two machines is not tried again.
const BAD_NS: u64 = 60_000_000_000;
/// Bytes a second at first, and those for which a measurement counts.
const RATE: u64 = 200_000_000;
const MEASURED_BYTES: u64 = 4 << 20;

/// Copies on their way, and what else is known of other machines' memory.
#[derive(Debug)]
pub(super) struct Copies {
    jobs: BTreeMap<u64, Job>,
    last_job: u64,
    /// No copy is begun before that.
    pub(super) rest_ns: u64,
    /// When to look again whether a copy is worth it, or has found room.
    pub(super) due_ns: Option<u64>,
    /// Bytes a second of late.
    pub(super) rate: u64,
    /// Machines (source and reader) between which a copy has failed, and until when that counts.
    bad: BTreeMap<(u32, u32), u64>,
    /// When the first copy found no room that still waits for it.
    pub(super) stuck_ns: Option<u64>,
}

impl Default for Copies {
    fn default() -> Self {
        Copies {
            jobs: BTreeMap::new(),
            last_job: 0,
            rest_ns: 0,
            due_ns: None,
            rate: RATE,
            bad: BTreeMap::new(),
            stuck_ns: None,
        }
    }
}

/// A copy on its way.
#[derive(Debug)]
struct Job {
    task: Handle,
    attempt: Attempt,
    machine: u32,
    /// Its encoding there. The job counts as a live result, so that nothing else is placed there.
    payload: Payload,
    /// Where the bytes come from; another one.
    source: u32,
    source_payload: Payload,
    bytes: u64,
    begun_ns: u64,
    tries: u32,
    /// It was told to end.
    ends: bool,
}

/// One block to copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CopyPart {
    /// The block.
    pub from: (u32, u64),
    /// Where it goes.
    pub to: (u32, u64),
    /// Its length.
    pub bytes: u64,
}

/// How things stand with a result on a machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Nearness {
    There,
    OnItsWay,
    Away,
}

impl Broker {
    /// The machine of a peer.
    pub(super) fn machine_of_peer(&self, peer: PeerId) -> u32 {
        use super::peers::Peer;
        match self.peers.get(&peer) {
            Some(&Peer::Worker(worker)) => self.workers[worker as usize].machine,
            Some(Peer::Client(_)) if !self.is_open || self.home == Some(peer) => HOME,
            _ => NOWHERE,
        }
    }

    /// Whether a result outlives every machine but the broker's.
    #[inline]
    pub(super) fn is_safe(&self, value: &[u8]) -> bool {
        self.store.machine_of(value).is_none_or(|machine| machine == HOME)
    }

    /// Whether a task has an input that lies on other machines than the worker's.
    pub(super) fn lacks_inputs(&self, worker: u32, task: TaskIndex) -> bool {
        let machine = self.workers[worker as usize].machine;
        self.store.is_split()
            && self.kernel.predecessors(task).iter().any(|input| self.nearness(input.0, machine) != Nearness::There)
    }

    pub(super) fn nearness(&self, slot: u32, machine: u32) -> Nearness {
        let Some(value) = self.ledger.value(slot).filter(|value| value.payload.is_some()) else {
            return Nearness::There;
        };
        if value.on(machine, &self.store).is_some() {
            return Nearness::There;
        }
        let is_it = |job: &Job| job.machine == machine && !job.ends && self.copies_of(job) == Some(slot);
        if self.store.copies.jobs.values().any(is_it) { Nearness::OnItsWay } else { Nearness::Away }
    }

    /// The result that a job copies, if it is still the one that it was.
    fn copies_of(&self, job: &Job) -> Option<u32> {
        let task = self.kernel.resolve(job.task).filter(|task| self.kernel.attempt(*task) == job.attempt)?;
        self.ledger.value(task.0)?.payload.is_some().then_some(task.0)
    }

    /// Begins to copy a result to a machine, perhaps by way of the broker's. False if there is no room, or no source.
    pub(super) fn order_copy(&mut self, slot: u32, machine: u32, now_ns: u64) -> bool {
        let Some((source, source_payload)) = self.choose_source(slot, machine, now_ns) else {
            // Who cannot reach a source can reach the broker's machine, which all others can.
            let is_away = machine != HOME && self.nearness(slot, HOME) == Nearness::Away;
            return machine != HOME && (!is_away || self.order_copy(slot, HOME, now_ns));
        };
        let mut places: SmallVec<[((u32, u64), Citation); 4]> = SmallVec::new();
        for cited in citations(source_payload.bytes()) {
            let Some(to) = self.place_copy(machine, cited.bytes, now_ns) else {
                places.iter().for_each(|(_, to)| self.free_in(to.segment, to.offset));
                self.drop_orphans();
                return false;
            };
            places.push(((cited.segment, cited.offset), to));
        }
        let find = |cited: Citation| {
            let place = places.iter().find(|(from, _)| *from == (cited.segment, cited.offset));
            place.map(|(_, to)| *to)
        };
        let Some(encoded) = cite_elsewhere(source_payload.bytes(), find) else { return false };
        let payload = Payload::owned(encoded);
        places.iter().for_each(|(_, to)| self.store.enter((to.segment, to.offset), to.bytes));
        self.store.cite(payload.bytes());
        self.store.cite(source_payload.bytes());
        let task = TaskIndex(slot);
        let job = Job {
            task: self.kernel.handle(task),
            attempt: self.kernel.attempt(task),
            machine,
            bytes: places.iter().map(|(_, to)| to.bytes).sum(),
            payload,
            source,
            source_payload,
            begun_ns: now_ns,
            tries: 0,
            ends: false,
        };
        self.store.copies.last_job += 1;
        let number = self.store.copies.last_job;
        self.store.copies.jobs.insert(number, job);
        self.send_copy(number);
        true
    }

    /// Where a result is, or will be, that somebody there can hand on: of these the machine with the fewest readers.
    fn choose_source(&self, slot: u32, machine: u32, now_ns: u64) -> Option<(u32, Payload)> {
        let value = self.ledger.value(slot)?;
        let payload = value.payload.as_ref()?;
        let first = (self.store.machine_of(payload.bytes())?, payload);
        let jobs = self.store.copies.jobs.values().filter(|job| !job.ends && self.copies_of(job) == Some(slot));
        let readers = |machine: u32| jobs.clone().filter(|job| job.source == machine).count();
        let on_their_way = jobs.clone().map(|job| (job.machine, &job.payload));
        let copies = value.copies.iter().map(|(machine, payload)| (*machine, payload));
        let is_good = |(source, _): &(u32, &Payload)| {
            let is_bad = self.store.copies.bad.get(&(*source, machine)).is_some_and(|until_ns| now_ns < *until_ns);
            *source != machine
                && !is_bad
                && self.store.budgets.get(*source as usize).is_some_and(|budget| budget.place.is_some())
        };
        let sources = [first].into_iter().chain(copies).chain(on_their_way).filter(is_good);
        sources.min_by_key(|(source, _)| readers(*source)).map(|(source, payload)| (source, payload.clone()))
    }

    /// Room for one block of a copy.
    fn place_copy(&mut self, machine: u32, bytes: u64, now_ns: u64) -> Option<Citation> {
        let is_for_copies = |segment: &Segment| segment.machine == machine && segment.arena.is_some();
        let known = self.store.segments.range_mut(..FILE_SEGMENTS).filter(|(_, segment)| is_for_copies(segment));
        for (number, segment) in known {
            let place = segment.arena.as_mut().and_then(|arena| arena.allocate(bytes));
            if let Some(place) = place {
                return Some(Citation { segment: *number, offset: place.offset, bytes: place.bytes });
            }
        }
        let least = bytes.max(1).checked_next_multiple_of(PAGE_BYTES)?;
        let room = self.room(machine);
        if least > room.min(SEGMENT_BYTES_MAX) {
            return None;
        }
        let usual = self.store.budgets[machine as usize].usual_bytes().min(room / 2) / PAGE_BYTES * PAGE_BYTES;
        let bytes_of_all = if bytes >= ALONE_BYTES { least } else { least.max(usual) };
        let mut arena = Arena::new(bytes_of_all);
        let place = arena.allocate(bytes)?;
        let segment = self.store.add_segment(Segment {
            machine,
            owner: None,
            bytes: bytes_of_all,
            charged: bytes_of_all,
            granted_ns: now_ns,
            arena: Some(arena),
            shared_with: SmallVec::new(),
            blocks: 0,
        });
        match machine {
            HOME => self.actions.push_back(Action::MakeSegment { segment, bytes: bytes_of_all }),
            _ => {
                let kind = EstateKind::Made as u8;
                self.tell_machine(
                    machine,
                    &Message::Estate(Estate { kind, segment, bytes: bytes_of_all, ..Estate::default() }),
                );
            }
        }
        Some(Citation { segment, offset: place.offset, bytes: place.bytes })
    }

    /// Tells the machine of a job where the bytes are.
    fn send_copy(&mut self, number: u64) {
        let job = &self.store.copies.jobs[&number];
        let machine = job.machine;
        let (endpoint, key) = self.store.budgets[job.source as usize].place.clone().unwrap_or_default();
        let pairs = citations(job.source_payload.bytes()).zip(citations(job.payload.bytes()));
        let parts: Vec<CopyPart> = pairs
            .map(|(from, to)| CopyPart {
                from: (from.segment, from.offset),
                to: (to.segment, to.offset),
                bytes: from.bytes,
            })
            .collect();
        self.tell_of_copy(machine, number, endpoint, key, parts);
    }

    fn tell_of_copy(&mut self, machine: u32, job: u64, endpoint: String, key: String, parts: Vec<CopyPart>) {
        if machine == HOME {
            return self.actions.push_back(Action::Copy { job, endpoint, key, parts });
        }
        let units = |bytes: u64| bytes.div_ceil(BLOCK_ALIGN) as u32;
        let column = |field: &dyn Fn(&CopyPart) -> u32| parts.iter().map(field).collect::<Vec<u32>>();
        let (from_segment, to_segment) = (column(&|part| part.from.0), column(&|part| part.to.0));
        let (from_offset, to_offset) = (column(&|part| units(part.from.1)), column(&|part| units(part.to.1)));
        let length = column(&|part| units(part.bytes));
        let transfer = Transfer {
            job,
            endpoint: &endpoint,
            key: &key,
            from_segment: (&from_segment).into(),
            from_offset: (&from_offset).into(),
            to_segment: (&to_segment).into(),
            to_offset: (&to_offset).into(),
            length: (&length).into(),
        };
        self.tell_machine(machine, &Message::Transfer(transfer));
    }

    /// A copy has ended, well or not.
    pub fn handle_copied(&mut self, number: u64, outcome: Result<(), String>, now_ns: u64) {
        let Some(job) = self.store.copies.jobs.get(&number) else { return };
        let wanted = self.copies_of(job).filter(|_| !job.ends);
        let (source, machine, may_try) = (job.source, job.machine, job.tries < TRIES_MAX);
        if outcome.is_err() && wanted.is_some() {
            self.store.copies.bad.insert((source, machine), now_ns + BAD_NS);
        }
        match (outcome, wanted) {
            (Ok(()), Some(slot)) => {
                let job = self.end_job(number, false);
                let took_ns = (now_ns - job.begun_ns).max(1);
                if job.bytes >= MEASURED_BYTES {
                    let rate =
                        u64::try_from(u128::from(job.bytes) * 1_000_000_000 / u128::from(took_ns)).unwrap_or(RATE);
                    self.store.copies.rate = u64::midpoint(self.store.copies.rate, rate.max(1));
                }
                self.ledger.add_copy(slot, job.machine, job.payload);
            }
            (Err(_), Some(_)) if may_try && self.seek_elsewhere(number, now_ns) => {}
            (Err(text), Some(_)) => {
                self.store.copies.rest_ns = now_ns + PAUSE_NS;
                self.tell_home(&format!("headrace: a result could not be copied to another machine: {text}\n"));
                self.tell_of_copy(machine, number, String::new(), String::new(), Vec::new());
                drop(self.end_job(number, true));
            }
            (_, None) => drop(self.end_job(number, true)),
        }
        self.settle_store(now_ns);
    }

    /// A job is over. What it read is let go of, and if nothing came of it, where it wrote.
    fn end_job(&mut self, number: u64, in_vain: bool) -> Job {
        let job = self.store.copies.jobs.remove(&number).expect("it was seen just now");
        self.store.uncite(job.source_payload.bytes());
        if in_vain {
            self.store.uncite(job.payload.bytes());
        }
        job
    }

    /// Has a job go on with what is missing, from wherever the bytes are now. False if that is nowhere.
    fn seek_elsewhere(&mut self, number: u64, now_ns: u64) -> bool {
        let job = &self.store.copies.jobs[&number];
        let (machine, old) = (job.machine, job.source_payload.clone());
        let Some(slot) = self.copies_of(job) else { return false };
        let Some((source, payload)) = self.choose_source(slot, machine, now_ns) else { return false };
        self.store.cite(payload.bytes());
        self.store.uncite(old.bytes());
        let job = self.store.copies.jobs.get_mut(&number).expect("it was seen just now");
        (job.source, job.source_payload, job.begun_ns) = (source, payload, now_ns);
        job.tries += 1;
        self.send_copy(number);
        true
    }

    /// Copies to the broker's machine what lies on this one alone, which is about to leave. Whether some of it is still to come;
    /// what finds no room, or cannot be had, is not.
    pub(super) fn bring_home(&mut self, machine: u32, now_ns: u64) -> bool {
        let is_alone = |slot: &u32| {
            let value = self.ledger.value(*slot).expect("it has a value");
            value.copies.is_empty()
                && value.payload.as_ref().and_then(|it| self.store.machine_of(it.bytes())) == Some(machine)
        };
        let alone: Vec<u32> = self.ledger.values().map(|(slot, _)| slot).filter(is_alone).collect();
        let mut is_coming = false;
        for slot in alone {
            is_coming |= match self.nearness(slot, HOME) {
                Nearness::There => false,
                Nearness::OnItsWay => true,
                Nearness::Away => now_ns >= self.store.copies.rest_ns && self.order_copy(slot, HOME, now_ns),
            };
        }
        is_coming
    }

    /// Ends jobs whose result nobody needs any more. Where they write is free once the machine has answered.
    pub(super) fn stop_needless_copies(&mut self) {
        let is_needless = |(_, job): &(&u64, &Job)| !job.ends && self.copies_of(job).is_none();
        let needless: Vec<(u64, u32)> =
            self.store.copies.jobs.iter().filter(is_needless).map(|(number, job)| (*number, job.machine)).collect();
        for (number, machine) in needless {
            self.store.copies.jobs.get_mut(&number).expect("it was seen just now").ends = true;
            self.tell_of_copy(machine, number, String::new(), String::new(), Vec::new());
        }
    }

    /// Says something to the agent of a machine.
    pub(super) fn tell_machine(&mut self, machine: u32, message: &Message<'_>) {
        if let Some(peer) = self.store.budgets[machine as usize].agent {
            self.send(peer, message);
        }
    }

    /// Has the last descriptor of a segment closed.
    pub(super) fn close_segment(&mut self, machine: u32, segment: u32, discard: u64) {
        match machine {
            HOME => self.actions.push_back(Action::CloseSegment { segment, discard }),
            _ => {
                let kind = EstateKind::Closed as u8;
                self.tell_machine(
                    machine,
                    &Message::Estate(Estate { kind, segment, bytes: discard, ..Estate::default() }),
                );
            }
        }
    }

    /// Where the memory of this machine is served, and by whom. To be said once a neighbour is there.
    pub fn set_place(&mut self, endpoint: &str, key: &str) {
        self.store.budget(HOME).place = Some((endpoint.to_owned(), key.to_owned()));
        for machine in 1..self.store.budgets.len() as u32 {
            self.introduce(machine, key, false);
        }
    }

    /// A machine has memory: so many bytes, served at a place.
    pub(super) fn open_memory(&mut self, peer: PeerId, limit: u64, place: (String, String)) -> u32 {
        let budgets = &self.store.budgets;
        let free = (1..budgets.len()).find(|at| budgets[*at].place.is_none() && budgets[*at].agent.is_none());
        let machine = free.unwrap_or(budgets.len()) as u32;
        let key = place.1.clone();
        let mut budget = Budget::new(limit, Some(peer));
        budget.place = Some(place);
        match free {
            Some(at) => self.store.budgets[at] = budget,
            None => self.store.budgets.push(budget),
        }
        for other in (0..self.store.budgets.len() as u32).filter(|other| *other != machine) {
            if let Some((_, other_key)) = self.store.budgets[other as usize].place.clone() {
                self.introduce(machine, &other_key, false);
            }
            self.introduce(other, &key, false);
        }
        machine
    }

    fn introduce(&mut self, machine: u32, key: &str, left: bool) {
        match machine {
            HOME => self.actions.push_back(Action::Neighbour { key: key.to_owned(), left }),
            _ => self.tell_machine(machine, &Message::Neighbour(Neighbour { key, left })),
        }
    }

    /// A machine is lost, and all that lay there. What lies elsewhere as well lives on; the rest is made again, or whoever needs
    /// it fails.
    pub(super) fn lose_memory(&mut self, machine: u32, now_ns: u64) {
        let jobs = &self.store.copies.jobs;
        let ended: Vec<u64> =
            jobs.iter().filter(|(_, job)| job.machine == machine).map(|(number, _)| *number).collect();
        ended.into_iter().for_each(|number| drop(self.end_job(number, true)));
        let lost = self.ledger.lose_machine(machine, &self.store);
        for slot in &lost {
            self.lose_result(*slot);
        }
        for slot in &lost {
            self.regain_inputs(*slot);
            self.fail_readers(*slot, now_ns);
        }
        self.settle_returned();
        let cut_off: Vec<(u64, u32)> = {
            let jobs = self.store.copies.jobs.iter().filter(|(_, job)| job.source == machine && !job.ends);
            jobs.map(|(number, job)| (*number, job.machine)).collect()
        };
        let left = self.store.budgets[machine as usize].place.take();
        for (number, at) in cut_off {
            if !self.seek_elsewhere(number, now_ns) {
                self.store.copies.jobs.get_mut(&number).expect("it was seen just now").ends = true;
                self.tell_of_copy(at, number, String::new(), String::new(), Vec::new());
            }
        }
        let store = &mut self.store;
        store.copies.bad.retain(|(source, reader), _| *source != machine && *reader != machine);
        store.blocks.retain(|_, block| block.machine != machine);
        store.segments.retain(|_, segment| segment.machine != machine);
        store.budgets[machine as usize] = Budget::default();
        if let Some((_, key)) = left {
            for other in 0..self.store.budgets.len() as u32 {
                self.introduce(other, &key, true);
            }
        }
        self.settle_store(now_ns);
    }

    /// A result is lost that cannot be made again: a client's own. What would need it fails.
    fn fail_readers(&mut self, slot: u32, now_ns: u64) {
        let task = TaskIndex(slot);
        if !self.kernel.result_alive(task) || self.kernel.state(task).is_pending() {
            return;
        }
        let readers: Vec<TaskIndex> = self.kernel.successors(task).collect();
        for reader in readers {
            if self.kernel.state(reader).is_pending() && self.kernel.worker_of(reader).is_none() {
                self.fail_ready(reader, "ResultLost: the machine is lost that had a value which was put there", now_ns);
            }
        }
    }

    /// A task fails that nobody has.
    pub(super) fn fail_ready(&mut self, task: TaskIndex, text: &str, now_ns: u64) {
        self.nests.end(task.0);
        self.kernel.fail_unleased(task);
        self.note_failed(task.0, Outcome::Refused, text.as_bytes(), now_ns);
        self.settle_cascades(now_ns);
    }
}
