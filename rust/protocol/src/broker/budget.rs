//! The budget of each machine's memory: who is granted a segment, who waits for one, and what is done when there is no room.
//!
//! Results of all kinds count: shared memory that processes own, and inline results in the broker's own. Where room is short,
//! in this order: owners return what they do not use; roots wait for tasks that let results die; cold results move to disk
//! ([`spill`](super::spill)); and who still finds no room is told so, with the largest results by name.

use super::action::SegmentNews;
use super::peers::Peer;
use super::spill::INLINE_BYTES_MIN;
use super::store::{HOME, Segment, Store};
use super::workers::Worker;
use super::{Action, Broker, PeerId};
use headrace_wire::{BLOCK_ALIGN, FILE_SEGMENTS, GiveBack, Message, PAGE_BYTES, WANTED, WANTED_BADLY, cites};
use smallvec::SmallVec;
use std::collections::VecDeque;

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

/// The memory of one machine.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// The agent there; `None` on the broker's own machine, and once it is lost.
    pub(super) agent: Option<PeerId>,
    /// Where its memory is served, and the public key of that.
    pub(super) place: Option<(String, String)>,
    /// Bytes that results may take in memory together.
    pub(super) limit: u64,
    pub(super) granted: u64,
    pub(super) peak: u64,
    /// Bytes of blocks in memory that live results cite.
    pub(super) live_bytes: u64,
    pub(super) wants: VecDeque<Wanted>,
    /// Whether owners were told since the last look at `wants` of bytes that they may use again.
    pub(super) freed: bool,
    /// Who was asked to return what it does not use and has not answered, once for each question.
    pub(super) asked: Vec<PeerId>,
    /// Whether a value or a wish came since the last look of [`Broker::cool_store`], and when memory that is not used goes.
    pub(super) used: bool,
    cool_ns: u64,
    /// The most that `live_bytes` was since the last time of looks for too much warm memory, and when the next one is.
    pub(super) live_peak: u64,
    window_ns: u64,
}

impl Budget {
    pub(super) fn new(limit: u64, agent: Option<PeerId>) -> Self {
        Budget { agent, limit, ..Budget::default() }
    }

    /// The size of an owner's first segment.
    pub(super) fn usual_bytes(&self) -> u64 {
        SEGMENT_BYTES_MIN.min(self.limit / SEGMENTS_A_BUDGET)
    }

    pub(super) fn take(&mut self, bytes: u64) {
        self.granted += bytes;
        self.peak = self.peak.max(self.granted);
    }
}

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
    fn size_for(&self, owner: PeerId, machine: u32, least: u64, room: u64) -> u64 {
        let owned = self.segments.values().filter(|segment| segment.owner == Some(owner)).count() as u32;
        let usual = self.budgets[machine as usize].usual_bytes() << owned.min(DOUBLINGS_MAX);
        least.max(usual.min(room / 2) / PAGE_BYTES * PAGE_BYTES)
    }

    /// Enters a new segment of memory.
    pub(super) fn add_segment(&mut self, segment: Segment) -> u32 {
        self.last_segment += 1;
        debug_assert!(self.last_segment < FILE_SEGMENTS);
        self.budget(segment.machine).take(segment.bytes);
        self.segments.insert(self.last_segment, segment);
        self.last_segment
    }
}

impl Broker {
    pub(super) fn handle_want(&mut self, peer: PeerId, bytes: u64, now_ns: u64) {
        let machine = self.machine_of_peer(peer);
        let Some(budget) = self.store.budgets.get_mut(machine as usize) else {
            return self.refuse(peer, "it shares no memory with others", now_ns);
        };
        if budget.wants.iter().filter(|wanted| wanted.peer == peer).count() >= WANTS_MAX {
            return self.refuse(peer, &format!("more than {WANTS_MAX} open wishes for memory"), now_ns);
        }
        budget.used = true;
        budget.wants.push_back(Wanted {
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
        let machine = self.machine_of_peer(peer);
        let Some(budget) = self.store.budgets.get_mut(machine as usize) else { return };
        if let Some(place) = budget.wants.iter().rposition(is_it) {
            budget.wants.remove(place);
            self.tell_of_segment(peer, SegmentNews::Refused { text: "it was taken back".to_owned() });
            self.serve_wants(now_ns);
        }
    }

    /// When it is time to see again whether somebody who waits for room has waited long enough.
    pub(super) fn wants_due_ns(&self) -> Option<u64> {
        self.store.budgets.iter().filter_map(|budget| budget.wants.front()).map(|wanted| wanted.due_ns).min()
    }

    /// Gives room to those who wait for it, first come, first served, and sees to it that there is some; if that fails, the
    /// answer is no.
    pub(super) fn serve_wants(&mut self, now_ns: u64) {
        for machine in 0..self.store.budgets.len() as u32 {
            self.serve_wants_on(machine, now_ns);
        }
    }

    fn serve_wants_on(&mut self, machine: u32, now_ns: u64) {
        let budget = self.store.budget(machine);
        if std::mem::take(&mut budget.freed)
            && let Some(wanted) = budget.wants.front_mut()
        {
            (wanted.asked, wanted.since_ns) = (false, now_ns);
        }
        if machine == HOME && !budget.wants.is_empty() {
            self.forget_old_copies();
        }
        while let Some(&Wanted { peer, bytes, asked, since_ns, .. }) =
            self.store.budgets[machine as usize].wants.front()
        {
            // What is granted are pages: room for a part of one is none.
            let least = bytes.max(1).checked_next_multiple_of(PAGE_BYTES).unwrap_or(u64::MAX);
            let budget = &self.store.budgets[machine as usize];
            let is_possible = least <= budget.limit.min(SEGMENT_BYTES_MAX);
            let wished = least.max(budget.usual_bytes() / SMALLEST_A_SEGMENT);
            let room = self.room(machine);
            let fits = is_possible && least <= room;
            if is_possible && wished > room {
                if !asked || self.has_dead_to_tell() {
                    let wanted = &mut self.store.budget(machine).wants[0];
                    (wanted.asked, wanted.since_ns) = (true, if asked { now_ns } else { since_ns });
                    wanted.asked_ns = now_ns;
                    self.ask_for_segments(machine, WANTED);
                    continue;
                }
                if self.makes_room(machine, wished, since_ns, now_ns)
                    || (!fits && self.waits_on(machine, least, since_ns, now_ns))
                {
                    self.store.budget(machine).wants[0].due_ns = now_ns + LOOK_NS;
                    return;
                }
            }
            if fits {
                self.store.budget(machine).wants.pop_front();
                self.grant(peer, machine, self.store.size_for(peer, machine, least, room), now_ns);
                continue;
            }
            if is_possible && self.asks_for_garbage(machine, now_ns) {
                self.store.budget(machine).wants[0].due_ns = now_ns + LOOK_NS;
                return;
            }
            self.store.budget(machine).wants.pop_front();
            let text = self.full(machine, bytes, now_ns);
            self.tell_of_segment(peer, SegmentNews::Refused { text });
        }
    }

    /// Bytes of the budget that nobody has.
    pub(super) fn room(&self, machine: u32) -> u64 {
        let Budget { limit, granted, .. } = self.store.budgets[machine as usize];
        let inline = if machine == HOME { self.ledger.results_bytes() } else { 0 };
        limit.saturating_sub(granted + inline)
    }

    /// Whether there will be room for so many bytes in a moment: others answer, dead blocks go, or results move to disk,
    /// which begins here if the rest is not enough.
    fn makes_room(&mut self, machine: u32, bytes: u64, since_ns: u64, now_ns: u64) -> bool {
        if !self.store.budgets[machine as usize].asked.is_empty() && now_ns < since_ns + PROMPT_NS {
            return true;
        }
        let missing = bytes.saturating_sub(self.room(machine));
        let dying = self.store.dying_bytes(machine, (now_ns + 1).saturating_sub(PROMPT_NS));
        missing <= dying || (machine == HOME && self.spill(missing - dying, now_ns))
    }

    /// Whether there may be room for so many bytes later, though nothing makes some now.
    fn waits_on(&mut self, machine: u32, bytes: u64, since_ns: u64, now_ns: u64) -> bool {
        let in_time = |patience_ns: u64| now_ns < since_ns + patience_ns;
        let dying = self.store.dying_bytes(machine, (now_ns + 1).saturating_sub(DYING_PATIENCE_NS));
        // What waiting workers have not started keeps its inputs in memory.
        if self.room(machine) + dying < bytes && machine == HOME && self.can_spill(now_ns) {
            if self.recall_from_waiting() {
                self.store.budget(machine).wants[0].since_ns = now_ns;
                return true;
            }
            if self.awaits_leases() && in_time(DYING_PATIENCE_NS) {
                return true;
            }
        }
        let budget = &self.store.budgets[machine as usize];
        if !budget.asked.is_empty() && in_time(DYING_PATIENCE_NS) {
            return true;
        }
        // Who else was granted memory a moment ago may not need it any more, and have said that it has none to return because
        // it had not seen that yet.
        let waiting = budget.wants.front().map(|wanted| wanted.peer);
        let is_fresh = |segment: &Segment| {
            segment.machine == machine
                && segment.blocks == 0
                && segment.owner != waiting
                && now_ns < segment.granted_ns + DYING_PATIENCE_NS
        };
        if in_time(DYING_PATIENCE_NS)
            && self.store.segments.range(..FILE_SEGMENTS).any(|(_, segment)| is_fresh(segment))
        {
            let wanted = &mut self.store.budget(machine).wants[0];
            // Not with every answer: it may be the same for a second.
            wanted.asked &= now_ns < wanted.asked_ns + LOOK_NS;
            return true;
        }
        dying > 0 || (self.others_work() && in_time(BUSY_PATIENCE_NS))
    }

    /// Whether it is to be seen still that no garbage keeps dead blocks: their holders look for it before somebody is told that
    /// there is no room.
    fn asks_for_garbage(&mut self, machine: u32, now_ns: u64) -> bool {
        let pressed_ns = match self.store.budgets[machine as usize].wants[0].pressed_ns {
            Some(pressed_ns) => pressed_ns,
            None if self.store.holders_of_dead(machine).next().is_none() => return false,
            None => {
                self.ask_for_segments(machine, WANTED_BADLY);
                now_ns
            }
        };
        let budget = self.store.budget(machine);
        budget.wants[0].pressed_ns = Some(pressed_ns);
        !budget.asked.is_empty() && now_ns < pressed_ns + DYING_PATIENCE_NS
    }

    /// Whether workers hold results that are dead, because nobody has told them.
    fn has_dead_to_tell(&self) -> bool {
        self.workers.iter().any(|worker| worker.peer().is_some() && !worker.dead.is_empty())
    }

    /// Whether a worker waits for room.
    pub(super) fn waits_for_room(&self, worker: u32) -> bool {
        let peer = self.workers[worker as usize].peer();
        self.store.budgets.iter().flat_map(|budget| &budget.wants).any(|wanted| Some(wanted.peer) == peer)
    }

    /// Whether somebody who does not wait for room runs tasks.
    fn others_work(&self) -> bool {
        let runs_tasks = |worker: &&Worker| worker.frames_open() > 0 && worker.peer().is_some();
        self.workers.iter().filter(runs_tasks).any(|worker| !self.waits_for_room(worker.number))
    }

    /// Something has made room, or lets others make some.
    pub(super) fn note_room(&mut self, now_ns: u64) {
        let mut is_any = false;
        for wanted in self.store.budgets.iter_mut().filter_map(|budget| budget.wants.front_mut()) {
            (wanted.asked, wanted.since_ns, is_any) = (false, now_ns, true);
        }
        if is_any {
            self.serve_wants(now_ns);
        }
    }

    /// Whether results take so much of the budget that no task should start on this machine which only adds to them, while
    /// others run that may let some die.
    pub(super) fn holds_roots_back(&self, machine: u32) -> bool {
        let is_full = |budget: &Budget, inline: u64| budget.live_bytes + inline > budget.limit / 5 * 4;
        self.consuming > 0
            && (is_full(self.store.home(), self.ledger.results_bytes())
                || (machine != HOME
                    && self.store.budgets.get(machine as usize).is_some_and(|budget| is_full(budget, 0))))
    }

    /// Moves results to disk when inline ones, for which nobody asks beforehand, exceed the budget noticeably.
    pub(super) fn keep_budget(&mut self, now_ns: u64) {
        let Budget { limit, granted, .. } = *self.store.home();
        let taken = granted + self.ledger.results_bytes();
        let slack = limit / INLINE_SLACKS_A_BUDGET;
        if taken > limit + slack && self.ledger.results_bytes() > slack && now_ns >= self.store.inline_due_ns {
            // A look at all results, so not in every turn if it finds nothing.
            self.store.inline_due_ns = if self.spill(taken - limit, now_ns) { 0 } else { now_ns + INLINE_PAUSE_NS };
        }
    }

    /// Whether inline results exceed the budget by so much that no further ones should come before some are on disk.
    pub(super) fn is_overfull(&self) -> bool {
        self.is_spilling() && self.ledger.results_bytes() > self.store.home().limit / 4 * 5
    }

    /// Why a result cannot be kept, if it is inline and there is no room for it anywhere.
    pub(super) fn refuse_inline(&mut self, value: &[u8], now_ns: u64) -> Option<String> {
        if value.len() < INLINE_BYTES_MIN || cites(value) {
            return None;
        }
        let bytes = value.len() as u64;
        let is_full = self.ledger.results_bytes() + bytes > self.store.home().limit;
        let can_move = self.is_spilling() || (self.can_spill(now_ns) && self.has_place(bytes));
        (is_full && !can_move).then(|| format!("StoreFull: {}", self.full(HOME, bytes, now_ns)))
    }

    fn grant(&mut self, owner: PeerId, machine: u32, bytes: u64, now_ns: u64) {
        let shared_with = SmallVec::new();
        let entry = Segment {
            machine,
            owner: Some(owner),
            bytes,
            charged: bytes,
            granted_ns: now_ns,
            arena: None,
            shared_with,
            blocks: 0,
        };
        let segment = self.store.add_segment(entry);
        self.tell_of_segment(owner, SegmentNews::Granted { segment, bytes });
    }

    /// Asks every owner for the segments that it does not use. Where somebody waits for memory, whoever has not let go of dead
    /// blocks is asked as well: garbage may keep them.
    pub(super) fn ask_for_segments(&mut self, machine: u32, urgency: u8) {
        let there = self.store.segments.values().filter(|segment| segment.machine == machine);
        let mut asked: Vec<PeerId> = there.filter_map(|segment| segment.owner).collect();
        if urgency > 0 {
            asked.extend(self.store.holders_of_dead(machine));
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
        self.store.budget(machine).asked.extend(asked);
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
                let machine = segment.machine;
                self.store.budget(machine).granted -= bytes;
            }
        }
        // The answer to the first question: whoever was asked again meanwhile may have more to return since.
        for budget in &mut self.store.budgets {
            if let Some(place) = budget.asked.iter().position(|asked| *asked == peer) {
                budget.asked.remove(place);
            }
        }
        self.serve_wants(now_ns);
    }

    /// Has memory returned that nobody uses: what is warm is for those who come soon. While some is in use, only what is beyond
    /// a limit goes, and was not needed for a while at any moment; after a rest everything does, whenever it was freed.
    pub(super) fn cool_store(&mut self, now_ns: u64) {
        for machine in 0..self.store.budgets.len() as u32 {
            let budget = self.store.budget(machine);
            if std::mem::take(&mut budget.used) {
                budget.cool_ns = now_ns + WARM_NS;
            }
            let (mut unneeded, mut kept_warm) = (0, WARM_BYTES_MAX.min(budget.limit / WARMS_A_BUDGET));
            if now_ns >= budget.window_ns {
                // The first one has only begun.
                unneeded = if budget.window_ns > 0 { budget.granted.saturating_sub(budget.live_peak) } else { 0 };
                (budget.window_ns, budget.live_peak) = (now_ns + WARM_NS, budget.live_bytes);
            }
            if now_ns >= budget.cool_ns {
                (unneeded, kept_warm) = (budget.granted.saturating_sub(budget.live_bytes), 0);
            }
            // What somebody sees that is dead cannot go, however often its owner is asked.
            let may_ask = budget.asked.is_empty() && budget.wants.is_empty();
            if may_ask && unneeded > kept_warm && unneeded > kept_warm + self.store.dead_bytes(machine) {
                self.store.budget(machine).cool_ns = now_ns + WARM_NS;
                self.ask_for_segments(machine, 0);
            }
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
}
