//! The budget of memory: who is granted a segment, who waits for one, and what is done when there is no room.
//!
//! Results of all kinds count: shared memory that processes own, and inline results in the broker's own. Where room is short,
//! in this order: owners return what they do not use; roots wait for tasks that let results die; cold results move to disk
//! ([`spill`](super::spill)); and who still finds no room is told so, with the largest results by name.

use super::action::SegmentNews;
use super::ledger::NONE;
use super::peers::Peer;
use super::runs::Run;
use super::spill::INLINE_BYTES_MIN;
use super::store::{Segment, Store};
use super::workers::Worker;
use super::{Action, Broker, PeerId};
use headrace_wire::{
    BLOCK_ALIGN, FILE_SEGMENTS, GiveBack, Message, PAGE_BYTES, WANTED, WANTED_BADLY, citations, cites,
};
use smallvec::SmallVec;

/// The least that is granted at a time, if the budget allows it; and the part of the budget that it should not exceed.
const SEGMENT_BYTES_MIN: u64 = 32 << 20;
const SEGMENTS_A_BUDGET: u64 = 16;
/// Less than this part of the least is granted only where nothing makes more room: segments of a few pages would be many.
const SMALLEST_A_SEGMENT: u64 = 4;
/// Offsets travel as 32-bit multiples of [`BLOCK_ALIGN`].
pub(super) const SEGMENT_BYTES_MAX: u64 = BLOCK_ALIGN << 32;
/// How often the segments of one owner double.
const DOUBLINGS_MAX: u32 = 5;
/// How long somebody waits for room, after the last thing that made some: before results move to disk, while others have not
/// let go of what is dead or have not answered, and while others run tasks whose end may let something die.
const PROMPT_NS: u64 = 50_000_000;
const DYING_PATIENCE_NS: u64 = 1_000_000_000;
const BUSY_PATIENCE_NS: u64 = 5_000_000_000;
const LOOK_NS: u64 = 50_000_000;
/// Inline results may exceed the budget by this part of it before some move to disk; and the pause after a look in vain.
const INLINE_SLACKS_A_BUDGET: u64 = 16;
const INLINE_PAUSE_NS: u64 = 50_000_000;
/// Wishes for memory that a peer may have open: one for each thread that waits.
const WANTS_MAX: usize = 1_024;
/// How long unused memory stays warm, in steps of a heartbeat; and how much of it stays so longer, while some is in use.
const WARM_NS: u64 = 5_000_000_000;
const WARM_BYTES_MAX: u64 = 1 << 30;
const WARMS_A_BUDGET: u64 = 10;
/// How many results an error and the statistics name.
const LARGEST_NAMED: usize = 3;

/// Somebody who waits for room.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) peer: PeerId,
    bytes: u64,
    /// Whether the owners of segments were asked for its sake; and when others were pressed to look for garbage.
    asked: bool,
    pressed_ns: Option<u64>,
    /// When the owners were asked last.
    asked_ns: u64,
    /// When it came, or something last made room.
    since_ns: u64,
    /// When to look again even if nothing happens.
    due_ns: u64,
}

impl Store {
    /// How many bytes are granted to an owner who needs `least`, where there is `room` for that. Never more than half of the
    /// room if less will do: two who take turns would take all of it from each other each time, and use little.
    fn size_for(&self, owner: PeerId, least: u64, room: u64) -> u64 {
        let owned = self.segments.values().filter(|segment| segment.owner == Some(owner)).count() as u32;
        let usual = self.usual_bytes() << owned.min(DOUBLINGS_MAX);
        least.max(usual.min(room / 2) / PAGE_BYTES * PAGE_BYTES)
    }

    /// The size of an owner's first segment.
    fn usual_bytes(&self) -> u64 {
        SEGMENT_BYTES_MIN.min(self.limit / SEGMENTS_A_BUDGET)
    }
}

impl Broker {
    pub(super) fn handle_want(&mut self, peer: PeerId, bytes: u64, now_ns: u64) {
        if self.is_open {
            return self.refuse(peer, "a broker with several clients shares no memory", now_ns);
        }
        if self.store.wants.iter().filter(|wanted| wanted.peer == peer).count() >= WANTS_MAX {
            return self.refuse(peer, &format!("more than {WANTS_MAX} open wishes for memory"), now_ns);
        }
        self.store.used = true;
        self.store.wants.push_back(Wanted {
            peer,
            bytes,
            asked: false,
            asked_ns: 0,
            pressed_ns: None,
            since_ns: now_ns,
            due_ns: now_ns,
        });
        self.serve_wants(now_ns);
    }

    /// A peer does not wait any more for what it wished for last. If that is granted already, the answer is on its way.
    pub(super) fn handle_withdraw(&mut self, peer: PeerId, bytes: u64, now_ns: u64) {
        let is_it = |wanted: &Wanted| wanted.peer == peer && wanted.bytes == bytes;
        if let Some(place) = self.store.wants.iter().rposition(is_it) {
            self.store.wants.remove(place);
            self.tell_of_segment(peer, SegmentNews::Refused { text: "it was taken back".to_owned() });
            self.serve_wants(now_ns);
        }
    }

    /// When it is time to see again whether somebody who waits for room has waited long enough.
    pub(super) fn wants_due_ns(&self) -> Option<u64> {
        self.store.wants.front().map(|wanted| wanted.due_ns)
    }

    /// Gives room to those who wait for it, first come, first served, and sees to it that there is some; if that fails, the
    /// answer is no.
    pub(super) fn serve_wants(&mut self, now_ns: u64) {
        if std::mem::take(&mut self.store.freed)
            && let Some(wanted) = self.store.wants.front_mut()
        {
            (wanted.asked, wanted.since_ns) = (false, now_ns);
        }
        if !self.store.wants.is_empty() {
            self.forget_old_copies();
        }
        while let Some(&Wanted { peer, bytes, asked, since_ns, .. }) = self.store.wants.front() {
            // What is granted are pages: room for a part of one is none.
            let least = bytes.max(1).checked_next_multiple_of(PAGE_BYTES).unwrap_or(u64::MAX);
            let is_possible = least <= self.store.limit.min(SEGMENT_BYTES_MAX);
            let room = self.room();
            let fits = is_possible && least <= room;
            let wished = least.max(self.store.usual_bytes() / SMALLEST_A_SEGMENT);
            if is_possible && wished > room {
                if !asked || self.has_dead_to_tell() {
                    let wanted = &mut self.store.wants[0];
                    (wanted.asked, wanted.since_ns) = (true, if asked { now_ns } else { since_ns });
                    wanted.asked_ns = now_ns;
                    self.ask_for_segments(WANTED);
                    continue;
                }
                if self.makes_room(wished, since_ns, now_ns) || (!fits && self.waits_on(least, since_ns, now_ns)) {
                    self.store.wants[0].due_ns = now_ns + LOOK_NS;
                    return;
                }
            }
            if fits {
                self.store.wants.pop_front();
                self.grant(peer, self.store.size_for(peer, least, room), now_ns);
                continue;
            }
            if is_possible && self.asks_for_garbage(now_ns) {
                self.store.wants[0].due_ns = now_ns + LOOK_NS;
                return;
            }
            self.store.wants.pop_front();
            let text = self.full(bytes, now_ns);
            self.tell_of_segment(peer, SegmentNews::Refused { text });
        }
    }

    /// Bytes of the budget that nobody has.
    fn room(&self) -> u64 {
        self.store.limit.saturating_sub(self.store.granted + self.ledger.results_bytes())
    }

    /// Whether there will be room for so many bytes in a moment: others answer, dead blocks go, or results move to disk,
    /// which begins here if the rest is not enough.
    fn makes_room(&mut self, bytes: u64, since_ns: u64, now_ns: u64) -> bool {
        if !self.store.asked.is_empty() && now_ns < since_ns + PROMPT_NS {
            return true;
        }
        let missing = bytes.saturating_sub(self.room());
        let dying = self.store.dying_bytes((now_ns + 1).saturating_sub(PROMPT_NS));
        missing <= dying || self.spill(missing - dying, now_ns)
    }

    /// Whether there may be room for so many bytes later, though nothing makes some now.
    fn waits_on(&mut self, bytes: u64, since_ns: u64, now_ns: u64) -> bool {
        let in_time = |patience_ns: u64| now_ns < since_ns + patience_ns;
        let dying = self.store.dying_bytes((now_ns + 1).saturating_sub(DYING_PATIENCE_NS));
        // What waiting workers have not started keeps its inputs in memory.
        if self.room() + dying < bytes && self.can_spill(now_ns) {
            if self.recall_from_waiting() {
                self.store.wants[0].since_ns = now_ns;
                return true;
            }
            if self.awaits_leases() && in_time(DYING_PATIENCE_NS) {
                return true;
            }
        }
        if !self.store.asked.is_empty() && in_time(DYING_PATIENCE_NS) {
            return true;
        }
        // Who else was granted memory a moment ago may not need it any more, and have said that it has none to return because
        // it had not seen that yet.
        let waiting = self.store.wants.front().map(|wanted| wanted.peer);
        let is_fresh = |segment: &Segment| {
            segment.blocks == 0 && segment.owner != waiting && now_ns < segment.granted_ns + DYING_PATIENCE_NS
        };
        if in_time(DYING_PATIENCE_NS)
            && self.store.segments.range(..FILE_SEGMENTS).any(|(_, segment)| is_fresh(segment))
        {
            let wanted = &mut self.store.wants[0];
            // Not with every answer: it may be the same for a second.
            wanted.asked &= now_ns < wanted.asked_ns + LOOK_NS;
            return true;
        }
        dying > 0 || (self.others_work() && in_time(BUSY_PATIENCE_NS))
    }

    /// Whether it is to be seen still that no garbage keeps dead blocks: their holders look for it before somebody is told that
    /// there is no room.
    fn asks_for_garbage(&mut self, now_ns: u64) -> bool {
        let pressed_ns = match self.store.wants[0].pressed_ns {
            Some(pressed_ns) => pressed_ns,
            None if self.store.holders_of_dead().next().is_none() => return false,
            None => {
                self.ask_for_segments(WANTED_BADLY);
                now_ns
            }
        };
        self.store.wants[0].pressed_ns = Some(pressed_ns);
        !self.store.asked.is_empty() && now_ns < pressed_ns + DYING_PATIENCE_NS
    }

    /// Whether workers hold results that are dead, because nobody has told them.
    fn has_dead_to_tell(&self) -> bool {
        self.workers.iter().any(|worker| worker.peer().is_some() && !worker.dead.is_empty())
    }

    /// Whether a worker waits for room.
    pub(super) fn waits_for_room(&self, worker: u32) -> bool {
        let peer = self.workers[worker as usize].peer();
        self.store.wants.iter().any(|wanted| Some(wanted.peer) == peer)
    }

    /// Whether somebody who does not wait for room runs tasks.
    fn others_work(&self) -> bool {
        let runs_tasks = |worker: &&Worker| worker.frames_open() > 0 && worker.peer().is_some();
        self.workers.iter().filter(runs_tasks).any(|worker| !self.waits_for_room(worker.number))
    }

    /// Something has made room, or lets others make some.
    pub(super) fn note_room(&mut self, now_ns: u64) {
        if let Some(wanted) = self.store.wants.front_mut() {
            (wanted.asked, wanted.since_ns) = (false, now_ns);
            self.serve_wants(now_ns);
        }
    }

    /// Whether results take so much of the budget that no task should start which only adds to them, while others run that
    /// may let some die.
    pub(super) fn holds_roots_back(&self) -> bool {
        let results = self.store.live_bytes + self.ledger.results_bytes();
        self.consuming > 0 && results > self.store.limit / 5 * 4
    }

    /// Moves results to disk when inline ones, for which nobody asks beforehand, exceed the budget noticeably.
    pub(super) fn keep_budget(&mut self, now_ns: u64) {
        let taken = self.store.granted + self.ledger.results_bytes();
        let slack = self.store.limit / INLINE_SLACKS_A_BUDGET;
        if taken > self.store.limit + slack && self.ledger.results_bytes() > slack && now_ns >= self.store.inline_due_ns
        {
            // A look at all results, so not in every turn if it finds nothing.
            self.store.inline_due_ns =
                if self.spill(taken - self.store.limit, now_ns) { 0 } else { now_ns + INLINE_PAUSE_NS };
        }
    }

    /// Whether inline results exceed the budget by so much that no further ones should come before some are on disk.
    pub(super) fn is_overfull(&self) -> bool {
        self.is_spilling() && self.ledger.results_bytes() > self.store.limit / 4 * 5
    }

    /// Why a result cannot be kept, if it is inline and there is no room for it anywhere.
    pub(super) fn refuse_inline(&mut self, value: &[u8], now_ns: u64) -> Option<String> {
        if value.len() < INLINE_BYTES_MIN || cites(value) {
            return None;
        }
        let bytes = value.len() as u64;
        let is_full = self.ledger.results_bytes() + bytes > self.store.limit;
        let can_move = self.is_spilling() || (self.can_spill(now_ns) && self.has_place(bytes));
        (is_full && !can_move).then(|| format!("StoreFull: {}", self.full(bytes, now_ns)))
    }

    fn grant(&mut self, owner: PeerId, bytes: u64, now_ns: u64) {
        let store = &mut self.store;
        store.last_segment += 1;
        let segment = store.last_segment;
        debug_assert!(segment < FILE_SEGMENTS);
        let shared_with = SmallVec::new();
        let entry = Segment {
            owner: Some(owner),
            bytes,
            charged: bytes,
            granted_ns: now_ns,
            file: None,
            shared_with,
            blocks: 0,
        };
        store.segments.insert(segment, entry);
        store.granted += bytes;
        store.peak = store.peak.max(store.granted);
        self.tell_of_segment(owner, SegmentNews::Granted { segment, bytes });
    }

    /// Asks every owner for the segments that it does not use. Where somebody waits for memory, whoever has not let go of dead
    /// blocks is asked as well: garbage may keep them.
    fn ask_for_segments(&mut self, urgency: u8) {
        let mut asked: Vec<PeerId> = self.store.segments.values().filter_map(|segment| segment.owner).collect();
        if urgency > 0 {
            asked.extend(self.store.holders_of_dead());
        }
        // Who has left does not answer.
        asked.retain(|peer| self.peers.contains_key(peer) && !self.is_cut(*peer));
        asked.sort_unstable();
        asked.dedup();
        // Dead results that a worker holds still may be what fills its segments.
        (0..self.workers.len() as u32).for_each(|worker| self.forget_dead(worker));
        for &peer in &asked {
            self.send(peer, &Message::GiveBack(GiveBack { urgency, ..GiveBack::default() }));
        }
        self.store.asked.extend(asked);
    }

    pub(super) fn handle_give_back(&mut self, peer: PeerId, given: &GiveBack<'_>, now_ns: u64) {
        for (number, pages) in given.segment.iter().zip(given.pages.iter()) {
            let Some(segment) = self.store.segments.get_mut(&number).filter(|segment| segment.owner == Some(peer))
            else {
                continue;
            };
            if pages == 0 {
                self.drop_segment(number);
            } else {
                let bytes = segment.charged.min(u64::from(pages) * PAGE_BYTES);
                segment.charged -= bytes;
                self.store.granted -= bytes;
            }
        }
        // The answer to the first question: whoever was asked again meanwhile may have more to return since.
        if let Some(place) = self.store.asked.iter().position(|asked| *asked == peer) {
            self.store.asked.remove(place);
        }
        self.serve_wants(now_ns);
    }

    /// Has memory returned that nobody uses: what is warm is for those who come soon. While some is in use, only what is beyond
    /// a limit goes, and was not needed for a while at any moment; after a rest everything does, whenever it was freed.
    pub(super) fn cool_store(&mut self, now_ns: u64) {
        let store = &mut self.store;
        if std::mem::take(&mut store.used) {
            store.cool_ns = now_ns + WARM_NS;
        }
        let (mut unneeded, mut kept_warm) = (0, WARM_BYTES_MAX.min(store.limit / WARMS_A_BUDGET));
        if now_ns >= store.window_ns {
            // The first one has only begun.
            unneeded = if store.window_ns > 0 { store.granted.saturating_sub(store.live_peak) } else { 0 };
            (store.window_ns, store.live_peak) = (now_ns + WARM_NS, store.live_bytes);
        }
        if now_ns >= store.cool_ns {
            (unneeded, kept_warm) = (store.granted.saturating_sub(store.live_bytes), 0);
        }
        // What somebody sees that is dead cannot go, however often its owner is asked.
        let may_ask = store.asked.is_empty() && store.wants.is_empty();
        if may_ask && unneeded > kept_warm && unneeded > kept_warm + store.dead_bytes() {
            store.cool_ns = now_ns + WARM_NS;
            self.ask_for_segments(0);
        }
    }

    pub(super) fn tell_of_segment(&mut self, peer: PeerId, news: SegmentNews) {
        let worker = match self.peers.get(&peer) {
            Some(&Peer::Worker(worker)) => Some(worker),
            Some(Peer::Client(_)) => None,
            Some(Peer::Successor(_) | Peer::Observer { .. } | Peer::Agent(_) | Peer::Cut { .. }) | None => return,
        };
        self.actions.push_back(Action::Segment { worker, news });
    }

    /// Why there is no room.
    fn full(&self, bytes: u64, now_ns: u64) -> String {
        let (granted, limit) = (self.store.granted, self.store.limit);
        let named: Vec<String> =
            self.largest_results().into_iter().map(|(name, bytes)| format!("{name}: {bytes} bytes")).collect();
        let viewed = match self.store.dead_bytes() {
            0 => String::new(),
            bytes => format!("; views keep {bytes} bytes of results that have gone or moved"),
        };
        format!(
            "a result needs {bytes} bytes of memory; {} of {limit} are taken, {granted} of them shared (largest results: \
             {}{viewed}), and {}",
            granted + self.ledger.results_bytes(),
            if named.is_empty() { "none".to_owned() } else { named.join(", ") },
            self.why_not_spilled(now_ns)
        )
    }

    /// The results that take most memory, largest first, by name.
    pub(super) fn largest_results(&self) -> Vec<(String, u64)> {
        let mut largest: Vec<(u64, u32)> = Vec::with_capacity(LARGEST_NAMED + 1);
        for (slot, value) in self.ledger.values() {
            let shared = citations(value.bytes()).filter(|cited| cited.segment < FILE_SEGMENTS);
            let bytes = shared.map(|cited| cited.bytes).sum::<u64>() + value.len() as u64;
            let place = largest.partition_point(|other| other.0 >= bytes);
            if place < LARGEST_NAMED {
                largest.insert(place, (bytes, slot));
                largest.truncate(LARGEST_NAMED);
            }
        }
        largest.into_iter().map(|(bytes, slot)| (self.name_of(slot), bytes)).collect()
    }

    /// The key of a task, as far as the broker knows it.
    pub(super) fn name_of(&self, slot: u32) -> String {
        let slot = self.ledger.slot(slot);
        let run: &Run = self.run(slot.run);
        match (run.keys.get(&slot.index), slot.function) {
            (Some(key), _) => String::from_utf8_lossy(key).into_owned(),
            (None, NONE) => format!("put-{}", slot.index),
            (None, function) => {
                format!("{}-{}", String::from_utf8_lossy(self.functions.get(function).name.bytes()), slot.index)
            }
        }
    }
}
