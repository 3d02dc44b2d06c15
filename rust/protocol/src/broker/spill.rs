//! Moving cold results to disk where memory is short.
//!
//! A file is a segment like any other, but nobody owns it: the broker places blocks in it, everybody maps it read-only, and
//! holders answer for its blocks as for those in memory (S1). So a result that has moved is just encoded anew: its citations
//! name the file, an inline one has become a citation, and nothing has to be read back before it is used.
//!
//! 1. [`Broker::spill`] picks results that no leased task takes: those that only a client keeps first, then those that were
//!    not used for longest. [`Action::Spill`] has them copied, one job at a time. Nothing has changed yet: if the job fails,
//!    nothing is lost.
//! 2. [`Broker::handle_spilled`] gives the results their new encodings, and tells clients (MOVED). Workers forget their
//!    copies of the old ones, unless a lease needs them. A block that died meanwhile stays where it is.
//! 3. The blocks in memory are dead then, and go as dead blocks do. A view keeps the bytes it sees; so a result may for some
//!    time be in both places.

use super::{Action, Broker, Payload, worker_id};
use crate::broker::budget::SEGMENT_BYTES_MAX;
use crate::broker::store::{HOME, Segment};
use crate::store::Arena;
use headrace_kernel::{TaskIndex, seeded};
use headrace_wire::{
    BLOCK_ALIGN, BlobsBuf, Citation, FILE_SEGMENTS, Message, Moved, PAGE_BYTES, citations, cite_elsewhere,
    write_wrapped,
};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// Usual size of a file, if the limit allows it. It takes no more of the disk than what was written to it.
const FILE_BYTES: u64 = 1 << 30;
const FILES_A_LIMIT: u64 = 8;
/// Bytes and parts of a job, so that room comes soon; and the least, as a part of the budget, so that it is worth the while.
const JOB_BYTES_MAX: u64 = 256 << 20;
const JOB_PARTS_MAX: usize = 16_384;
const JOBS_A_BUDGET: u64 = 8;
/// Inline results up to this size are not worth a block.
pub(super) const INLINE_BYTES_MIN: usize = 512;
/// Pause after a job that failed.
const PAUSE_NS: u64 = 5_000_000_000;

/// What the broker knows of the disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// Bytes of files that may be together, and are.
    limit: u64,
    pub(super) granted: u64,
    last_file: u32,
    last_job: u64,
    job: Option<Job>,
    /// Results that have moved, and workers that keep the encodings of before for their leases.
    old_copies: Vec<(u32, u32)>,
    /// Why the last job failed, and when the next one may start.
    failure: Option<(String, u64)>,
}

impl Disk {
    pub(super) fn new(limit: u64) -> Self {
        Disk { limit, ..Disk::default() }
    }
}

/// What is being written.
#[derive(Debug)]
struct Job {
    number: u64,
    file: u32,
    blocks: Vec<MovingBlock>,
    values: Vec<MovingValue>,
}

#[derive(Debug)]
struct MovingBlock {
    id: (u32, u64),
    /// Tells it from one that lies there later.
    born: u64,
    bytes: u64,
    to: u64,
}

#[derive(Debug)]
struct MovingValue {
    slot: u32,
    value: Payload,
    to: u64,
}

/// One thing to write to a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpillPart {
    /// What.
    pub from: SpillFrom,
    /// Where in the file.
    pub to: u64,
}

/// Where the bytes are that are to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SpillFrom {
    /// In shared memory.
    Block {
        /// Its segment.
        segment: u32,
        /// Where it begins there.
        offset: u64,
        /// How long it is.
        bytes: u64,
    },
    /// Here.
    Value(Payload),
}

/// Something that may move, and how soon somebody will want it.
struct Cold {
    /// Whether a task will take it.
    awaited: bool,
    used: u64,
    bytes: u64,
    what: Movable,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Movable {
    Block((u32, u64)),
    Value(u32),
}

impl Broker {
    /// Whether results are on their way to disk.
    pub(super) fn is_spilling(&self) -> bool {
        self.store.disk.job.is_some()
    }

    /// Whether some may be.
    pub(super) fn can_spill(&self, now_ns: u64) -> bool {
        let Disk { limit, granted, ref failure, .. } = self.store.disk;
        let has_room = granted < limit || self.store.segments.range(FILE_SEGMENTS..).next().is_some();
        has_room && failure.as_ref().is_none_or(|(_, until_ns)| now_ns >= *until_ns)
    }

    /// Starts to move results of so many bytes, if there are any to move and a place for them. True as well if some are on
    /// their way already.
    pub(super) fn spill(&mut self, bytes: u64, now_ns: u64) -> bool {
        if self.is_spilling() {
            return true;
        }
        if !self.can_spill(now_ns) {
            return false;
        }
        self.store.disk.failure = None;
        let cold = self.cold_results();
        let wanted = bytes.max(self.store.home().limit / JOBS_A_BUDGET).min(JOB_BYTES_MAX);
        let Some(first) = cold.first() else { return false };
        let Some((file, create)) = self.choose_file(first.bytes) else { return false };
        let mut job = Job { number: self.store.disk.last_job + 1, file, blocks: Vec::new(), values: Vec::new() };
        let mut parts = Vec::new();
        let mut moving = 0;
        for Cold { bytes, what, .. } in cold {
            if moving >= wanted || parts.len() >= JOB_PARTS_MAX {
                break;
            }
            let Some(to) = self.place_in(file, bytes) else { continue };
            moving += bytes;
            let from = match what {
                Movable::Block(id) => {
                    job.blocks.push(MovingBlock { id, born: self.store.blocks[&id].born, bytes, to });
                    SpillFrom::Block { segment: id.0, offset: id.1, bytes }
                }
                Movable::Value(slot) => {
                    let value = self.ledger.value(slot).and_then(|value| value.payload.clone());
                    let value = value.expect("a cold result has an encoding");
                    job.values.push(MovingValue { slot, value: value.clone(), to });
                    SpillFrom::Value(value)
                }
            };
            parts.push(SpillPart { from, to });
        }
        self.actions.push_back(Action::Spill { job: job.number, file, create, parts });
        self.store.disk.last_job = job.number;
        self.store.disk.job = Some(job);
        true
    }

    /// What may move, in the order in which it should.
    fn cold_results(&self) -> Vec<Cold> {
        let needed = self.inputs_of_leases();
        let is_needed = |slot: u32| needed.contains_key(&slot);
        let memory = |value: &Payload| -> SmallVec<[Citation; 4]> {
            citations(value.bytes()).filter(|cited| cited.segment < FILE_SEGMENTS).collect()
        };
        let hot: FxHashSet<(u32, u64)> = needed
            .keys()
            .filter_map(|slot| self.ledger.value(*slot)?.payload.as_ref())
            .flat_map(|value| memory(value).into_iter().map(|cited| (cited.segment, cited.offset)))
            .collect();
        let with_inline = self.ledger.results_bytes() > self.store.home().limit / JOBS_A_BUDGET;
        let mut cold: BTreeMap<Movable, Cold> = BTreeMap::new();
        for (slot, value) in self.ledger.values().filter(|(slot, _)| !is_needed(*slot)) {
            let awaited = || {
                let mut readers = self.kernel.successors(TaskIndex(slot));
                readers.any(|reader| !self.kernel.state(reader).is_terminal())
            };
            if value.cites() {
                for cited in memory(value) {
                    let id = (cited.segment, cited.offset);
                    let block = self.store.blocks.get(&id).filter(|block| block.machine == HOME && !hot.contains(&id));
                    if let Some(block) = block {
                        let what = Movable::Block(id);
                        let entry = Cold { awaited: false, used: block.used, bytes: block.bytes, what };
                        cold.entry(what).or_insert(entry).awaited |= awaited();
                    }
                }
            } else if with_inline && value.len() >= INLINE_BYTES_MIN {
                let what = Movable::Value(slot);
                cold.insert(what, Cold { awaited: awaited(), used: 0, bytes: value.len() as u64, what });
            }
        }
        let mut cold: Vec<Cold> = cold.into_values().collect();
        cold.sort_by_key(|cold| (cold.awaited, cold.used, cold.what));
        cold
    }

    /// The results that leases need, with the workers that run them.
    fn inputs_of_leases(&self) -> FxHashMap<u32, SmallVec<[u32; 4]>> {
        let mut needed: FxHashMap<u32, SmallVec<[u32; 4]>> = FxHashMap::default();
        for worker in 0..self.workers.len() as u32 {
            for (task, _) in self.kernel.leases_of(worker_id(worker)) {
                for input in self.kernel.predecessors(task) {
                    needed.entry(input.0).or_default().push(worker);
                }
            }
        }
        needed
    }

    /// A file with room for so many bytes, and its size if it is new.
    fn choose_file(&mut self, bytes: u64) -> Option<(u32, Option<u64>)> {
        if let Some(file) = self.file_with_room(bytes) {
            return Some((file, None));
        }
        let size = self.new_file_size(bytes)?;
        let disk = &mut self.store.disk;
        disk.granted += size;
        disk.last_file += 1;
        let file = FILE_SEGMENTS + disk.last_file;
        let shared_with = SmallVec::new();
        let arena = Some(Arena::new(size));
        let entry = Segment {
            machine: HOME,
            owner: None,
            bytes: size,
            charged: size,
            granted_ns: 0,
            arena,
            shared_with,
            blocks: 0,
        };
        self.store.segments.insert(file, entry);
        Some((file, Some(size)))
    }

    /// Whether there is room on disk for so many bytes.
    pub(super) fn has_place(&mut self, bytes: u64) -> bool {
        self.file_with_room(bytes).is_some() || self.new_file_size(bytes).is_some()
    }

    fn file_with_room(&mut self, bytes: u64) -> Option<u32> {
        let files: Vec<u32> = self.store.segments.range(FILE_SEGMENTS..).map(|(file, _)| *file).collect();
        files.into_iter().find(|&file| {
            let place = self.place_in(file, bytes);
            place.inspect(|&to| self.free_in(file, to)).is_some()
        })
    }

    /// How large a new file for so many bytes is, if there is room for it.
    fn new_file_size(&self, bytes: u64) -> Option<u64> {
        let Disk { limit, granted, .. } = self.store.disk;
        let room = limit - granted;
        let least = bytes.next_multiple_of(PAGE_BYTES).max(BLOCK_ALIGN);
        let size = FILE_BYTES.min(limit / FILES_A_LIMIT).next_multiple_of(PAGE_BYTES).min(room).max(least);
        (size <= room.min(SEGMENT_BYTES_MAX)).then_some(size)
    }

    fn place_in(&mut self, file: u32, bytes: u64) -> Option<u64> {
        let arena = self.store.segments.get_mut(&file)?.arena.as_mut()?;
        arena.allocate(bytes).map(|place| place.offset)
    }

    pub(super) fn free_in(&mut self, file: u32, offset: u64) {
        if let Some(arena) = self.store.segments.get_mut(&file).and_then(|segment| segment.arena.as_mut()) {
            arena.free(offset);
        }
    }

    /// Why nothing (more) goes to disk.
    pub(super) fn why_not_spilled(&self, now_ns: u64) -> String {
        let Disk { limit, granted, ref failure, .. } = self.store.disk;
        match failure {
            Some((text, until_ns)) if now_ns < *until_ns => format!("moving results to disk failed: {text}"),
            _ if limit == 0 => "none may move to disk: spill_limit is 0, or no spill_dir lies on a disk".to_owned(),
            _ => {
                let spilled = self.store.statistics().spilled;
                format!("no further ones can move to disk, where {spilled} bytes lie in files of {granted} of {limit}")
            }
        }
    }

    /// A job has ended, well or not.
    pub fn handle_spilled(&mut self, number: u64, outcome: Result<(), String>, now_ns: u64) {
        let Some(job) = self.store.disk.job.take_if(|job| job.number == number) else { return };
        match outcome {
            Ok(()) => self.move_results(&job, now_ns),
            Err(text) => {
                let places = job.blocks.iter().map(|block| block.to).chain(job.values.iter().map(|value| value.to));
                places.for_each(|to| self.free_in(job.file, to));
                self.store.disk.failure = Some((text, now_ns + PAUSE_NS));
                self.drop_orphans();
            }
        }
        self.note_room(now_ns);
    }

    fn move_results(&mut self, job: &Job, now_ns: u64) {
        // What clients are still to be told has the old encodings, and must not come after RELEASE.
        self.tell_news(now_ns);
        let mut places: FxHashMap<(u32, u64), Citation> = FxHashMap::default();
        for &MovingBlock { id, born, bytes, to } in &job.blocks {
            match self.store.blocks.get(&id) {
                Some(block) if (block.born == born || seeded!("another block moved")) && block.live > 0 => {
                    places.insert(id, Citation { segment: job.file, offset: to, bytes });
                    self.enter_in_file((job.file, to), bytes);
                }
                _ => self.free_in(job.file, to),
            }
        }
        let find = |cited: Citation| places.get(&(cited.segment, cited.offset)).copied();
        let blocks = self.ledger.values().filter(|(_, value)| value.cites());
        let mut moved: Vec<(u32, Vec<u8>)> =
            blocks.filter_map(|(slot, value)| Some((slot, cite_elsewhere(value.bytes(), find)?))).collect();
        for MovingValue { slot, value, to } in &job.values {
            let held = self.ledger.value(*slot).and_then(|held| held.payload.as_ref());
            if !held.is_some_and(|held| held.is(value)) {
                self.free_in(job.file, *to);
                continue;
            }
            let bytes = value.len() as u64;
            let mut encoded = Vec::new();
            write_wrapped(Citation { segment: job.file, offset: *to, bytes }, bytes, &mut encoded);
            self.enter_in_file((job.file, *to), bytes);
            moved.push((*slot, encoded));
        }
        moved.sort_unstable_by_key(|(slot, _)| *slot);
        for (slot, value) in &moved {
            self.store.cite(value);
            self.ledger.replace_payload(*slot, Payload::owned(value.clone()));
        }
        self.tell_moved(&moved);
        self.forget_copies(&moved);
        // Blocks that are cited in no other way than by what has moved; and places of which nothing came.
        self.settle_store(now_ns);
        self.drop_orphans();
    }

    /// A block in a file, cited by nobody so far.
    fn enter_in_file(&mut self, id: (u32, u64), bytes: u64) {
        self.store.enter(id, bytes);
        self.store.loose.push(id);
    }

    /// Tells clients of the new encodings of results that they hold.
    fn tell_moved(&mut self, moved: &[(u32, Vec<u8>)]) {
        let mut told: BTreeMap<u32, (Vec<u32>, BlobsBuf)> = BTreeMap::new();
        for (slot, value) in moved {
            let slot = self.ledger.slot(*slot);
            let run = self.run(slot.run);
            // Who is elsewhere has an encoding of its own.
            let is_told = run.replaces.is_none() && self.machine_of_peer(run.peer) == HOME;
            if (slot.kept || slot.refs > 0) && is_told {
                let (peer, seat) = (run.peer, run.seat);
                let (index, values) = told.entry(slot.run).or_default();
                index.push(slot.index);
                values.push(value);
                self.store.hand_over(peer, seat, value, &mut self.actions);
            }
        }
        for (position, (index, values)) in told {
            let run = self.run(position);
            let (peer, run) = (run.peer, run.number);
            self.send(peer, &Message::Moved(Moved { run, index: (&index).into(), values: values.as_blobs() }));
        }
    }

    /// Makes workers forget the old encodings of results, unless a lease needs them.
    fn forget_copies(&mut self, moved: &[(u32, Vec<u8>)]) {
        let needed = self.inputs_of_leases();
        for &(slot, _) in moved {
            let readers = needed.get(&slot).map_or(&[][..], |workers| workers.as_slice());
            let Some(value) = self.ledger.value_mut(slot) else { continue };
            let (kept, gone): (SmallVec<[u32; 4]>, SmallVec<[u32; 4]>) =
                value.holders.iter().copied().partition(|holder| readers.contains(holder));
            self.store.disk.old_copies.extend(kept.iter().map(|holder| (slot, *holder)));
            value.holders = kept;
            gone.into_iter().for_each(|holder| self.workers[holder as usize].dead.push(slot));
        }
        (0..self.workers.len() as u32).for_each(|worker| self.forget_dead(worker));
    }

    /// Makes workers forget encodings of before a move, which leases needed then and need no more.
    pub(super) fn forget_old_copies(&mut self) {
        if self.store.disk.old_copies.is_empty() {
            return;
        }
        let needed = self.inputs_of_leases();
        let is_needed = |slot, worker| needed.get(&slot).is_some_and(|readers| readers.contains(&worker));
        let copies = std::mem::take(&mut self.store.disk.old_copies);
        let (kept, gone) = copies.into_iter().partition(|&(slot, worker)| is_needed(slot, worker));
        self.store.disk.old_copies = kept;
        for (slot, worker) in gone {
            // The slot may have another result meanwhile, which is sent once more then; but what only workers have stays.
            let Some(value) = self.ledger.value_mut(slot).filter(|value| value.payload.is_some()) else { continue };
            if let Some(position) = value.holders.iter().position(|holder| *holder == worker) {
                value.holders.swap_remove(position);
                self.workers[worker as usize].dead.push(slot);
            }
        }
    }
}
