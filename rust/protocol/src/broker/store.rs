//! Shared memory as the broker sees it: who owns which segment, which blocks live results cite, who may still see them.
//!
//! A block is dead when no live result cites it (K5 decides that, through the ledger). Its holders are told then; when the
//! last of them has answered, its owner may use the bytes again (S1). The broker maps nothing.

use super::action::SegmentNews;
use super::peers::Peer;
use super::{Action, Broker, PeerId};
use headrace_wire::{BLOCK_ALIGN, Citation, GiveBack, Message, PAGE_BYTES, Release, Released, citations, cites};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::collections::{BTreeMap, VecDeque};

/// The least that is granted at a time, if the budget allows it; and the part of the budget that it should not exceed.
const SEGMENT_BYTES_MIN: u64 = 32 << 20;
const SEGMENTS_A_BUDGET: u64 = 16;
/// Offsets travel as 32-bit multiples of [`BLOCK_ALIGN`].
const SEGMENT_BYTES_MAX: u64 = BLOCK_ALIGN << 32;
/// How often the segments of one owner double.
const DOUBLINGS_MAX: u32 = 5;
/// How long somebody waits for room while others may still let go of something.
const PATIENCE_NS: u64 = 1_000_000_000;
/// How long unused segments stay warm, in steps of a heartbeat.
const WARM_NS: u64 = 5_000_000_000;
/// How many holders an error names.
const HOLDERS_NAMED: usize = 3;

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// Bytes that may be granted together.
    limit: u64,
    granted: u64,
    peak: u64,
    segments: BTreeMap<u32, Segment>,
    last_segment: u32,
    blocks: FxHashMap<(u32, u64), Block>,
    /// Blocks whose last citation may have gone in this turn.
    loose: Vec<(u32, u64)>,
    wants: VecDeque<Wanted>,
    /// Who was asked to return what it does not use and has not answered.
    asked: Vec<PeerId>,
    /// Whether a value or a wish came since the last look of [`Broker::cool_store`], and when unused segments go.
    used: bool,
    cool_ns: u64,
}

/// Somebody who waits for room.
#[derive(Debug)]
struct Wanted {
    peer: PeerId,
    bytes: u64,
    /// Whether the owners of segments were asked for its sake.
    asked: bool,
    /// How long it waits for those who still see what is dead.
    until_ns: u64,
}

#[derive(Debug)]
struct Segment {
    /// `None` once it is gone.
    owner: Option<PeerId>,
    /// Its size, and how much of that counts: its owner may have punched some.
    bytes: u64,
    charged: u64,
    /// Who has a map of it, beside the owner.
    shared_with: SmallVec<[PeerId; 4]>,
    /// Blocks of it in the table.
    blocks: u32,
}

#[derive(Debug)]
struct Block {
    bytes: u64,
    /// Live results that cite it.
    live: u32,
    /// Citations received from its owner.
    from_owner: u32,
    /// Others than the owner that were sent a citation and have not let go.
    holders: SmallVec<[Holder; 4]>,
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    peer: PeerId,
    /// It was sent RELEASE and has not answered.
    asked: bool,
    /// It was sent a citation since, of which its answer does not speak.
    sent_since: bool,
}

/// Bytes now and at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoreStatistics {
    /// The budget.
    pub limit: u64,
    /// Bytes of all segments.
    pub granted: u64,
    /// The most that `granted` was.
    pub peak: u64,
    /// Bytes of blocks that live results cite.
    pub cited: u64,
    /// Segments.
    pub segments: u64,
    /// Blocks known.
    pub blocks: u64,
}

impl Store {
    pub(super) fn new(limit: u64) -> Self {
        Store { limit, ..Store::default() }
    }

    pub(super) fn statistics(&self) -> StoreStatistics {
        StoreStatistics {
            limit: self.limit,
            granted: self.granted,
            peak: self.peak,
            cited: self.blocks.values().filter(|block| block.live > 0).map(|block| block.bytes).sum(),
            segments: self.segments.len() as u64,
            blocks: self.blocks.len() as u64,
        }
    }

    /// A value has arrived from a peer; until [`Store::uncite`] it counts as live. Citations of segments that do not exist
    /// count for nothing.
    #[inline]
    pub(super) fn arrive(&mut self, from: PeerId, value: &[u8]) {
        self.used |= cites(value);
        for Citation { segment, offset, bytes } in citations(value) {
            let Some(owned) = self.segments.get_mut(&segment) else { continue };
            let block = self.blocks.entry((segment, offset)).or_insert_with(|| {
                owned.blocks += 1;
                Block { bytes, live: 0, from_owner: 0, holders: SmallVec::new() }
            });
            block.live += 1;
            block.from_owner += u32::from(owned.owner == Some(from));
        }
    }

    /// A live result more has this value.
    #[inline]
    pub(super) fn cite(&mut self, value: &[u8]) {
        for cited in citations(value) {
            if let Some(block) = self.blocks.get_mut(&(cited.segment, cited.offset)) {
                block.live += 1;
            }
        }
    }

    /// One less.
    #[inline]
    pub(super) fn uncite(&mut self, value: &[u8]) {
        for cited in citations(value) {
            let id = (cited.segment, cited.offset);
            if let Some(block) = self.blocks.get_mut(&id) {
                block.live = block.live.saturating_sub(1);
                if block.live == 0 {
                    self.loose.push(id);
                }
            }
        }
    }

    /// A value is about to be sent to a peer, which holds its blocks from now on. Segments that it has not got go ahead.
    #[inline]
    pub(super) fn hand_over(&mut self, to: PeerId, worker: Option<u32>, value: &[u8], actions: &mut VecDeque<Action>) {
        for cited in citations(value) {
            let (Some(segment), Some(block)) =
                (self.segments.get_mut(&cited.segment), self.blocks.get_mut(&(cited.segment, cited.offset)))
            else {
                continue;
            };
            if segment.owner == Some(to) {
                continue;
            }
            if !segment.shared_with.contains(&to) {
                segment.shared_with.push(to);
                let news = SegmentNews::Shared { segment: cited.segment, bytes: segment.bytes };
                actions.push_back(Action::Segment { worker, news });
            }
            match block.holders.iter_mut().find(|holder| holder.peer == to) {
                Some(holder) => holder.sent_since = holder.asked,
                None => block.holders.push(Holder { peer: to, asked: false, sent_since: false }),
            }
        }
    }

    /// Removes a block that nobody sees but perhaps its owner; the owner, and what it must be told.
    fn forget(&mut self, id: (u32, u64)) -> Option<(PeerId, u32)> {
        let block = self.blocks.remove(&id)?;
        let segment = self.segments.get_mut(&id.0)?;
        segment.blocks -= 1;
        segment.owner.map(|owner| (owner, block.from_owner))
    }

    /// Whether blocks are dead that somebody has not let go of yet.
    fn has_dying(&self) -> bool {
        self.blocks.values().any(|block| block.live == 0)
    }

    /// How many bytes are granted for a block of so many, if there is room.
    fn size_for(&self, owner: PeerId, bytes: u64) -> Option<u64> {
        let room = self.limit.saturating_sub(self.granted);
        let least =
            bytes.max(1).checked_next_multiple_of(PAGE_BYTES).filter(|least| *least <= room.min(SEGMENT_BYTES_MAX))?;
        let owned = self.segments.values().filter(|segment| segment.owner == Some(owner)).count() as u32;
        let usual = SEGMENT_BYTES_MIN.min(self.limit / SEGMENTS_A_BUDGET) << owned.min(DOUBLINGS_MAX);
        Some(least.max(usual.min(room) / PAGE_BYTES * PAGE_BYTES))
    }

    fn remove_segment(&mut self, number: u32) -> Option<Segment> {
        let segment = self.segments.remove(&number)?;
        self.granted -= segment.charged;
        Some(segment)
    }
}

impl Broker {
    pub(super) fn handle_want(&mut self, peer: PeerId, bytes: u64, now_ns: u64) {
        self.store.used = true;
        self.store.wants.push_back(Wanted { peer, bytes, asked: false, until_ns: now_ns + PATIENCE_NS });
        self.serve_wants(now_ns);
    }

    /// When somebody who waits for room has waited long enough.
    pub(super) fn wants_due_ns(&self) -> Option<u64> {
        self.store.wants.front().map(|wanted| wanted.until_ns)
    }

    /// Gives room to those who wait for it, first come, first served. Where there is none, everybody is asked to return what
    /// it does not use; if that is not enough, the answer is no.
    pub(super) fn serve_wants(&mut self, now_ns: u64) {
        while let Some(&Wanted { peer, bytes, asked, until_ns }) = self.store.wants.front() {
            if let Some(size) = self.store.size_for(peer, bytes) {
                self.store.wants.pop_front();
                self.grant(peer, size);
            } else if !asked {
                self.store.wants[0].asked = true;
                self.ask_for_segments();
            } else if now_ns >= until_ns || (self.store.asked.is_empty() && !self.store.has_dying()) {
                self.store.wants.pop_front();
                self.store.asked.clear();
                let text = self.full(bytes);
                self.tell_of_segment(peer, SegmentNews::Refused { text });
            } else {
                return;
            }
        }
    }

    fn grant(&mut self, owner: PeerId, bytes: u64) {
        let store = &mut self.store;
        store.last_segment += 1;
        let segment = store.last_segment;
        let shared_with = SmallVec::new();
        store.segments.insert(segment, Segment { owner: Some(owner), bytes, charged: bytes, shared_with, blocks: 0 });
        store.granted += bytes;
        store.peak = store.peak.max(store.granted);
        self.tell_of_segment(owner, SegmentNews::Granted { segment, bytes });
    }

    /// Asks every owner for the segments that it does not use.
    fn ask_for_segments(&mut self) {
        let mut owners: Vec<PeerId> = self.store.segments.values().filter_map(|segment| segment.owner).collect();
        owners.sort_unstable();
        owners.dedup();
        // Dead results that a worker holds still may be what fills its segments.
        (0..self.workers.len() as u32).for_each(|worker| self.forget_dead(worker));
        for &owner in &owners {
            self.send(owner, &Message::GiveBack(GiveBack::default()));
        }
        self.store.asked = owners;
    }

    /// Has unused segments returned once shared memory has rested for a while; warm ones are for those who come soon.
    pub(super) fn cool_store(&mut self, now_ns: u64) {
        if self.store.used {
            self.store.used = false;
            self.store.cool_ns = now_ns + WARM_NS;
        } else if self.store.granted > 0 && now_ns >= self.store.cool_ns && self.store.asked.is_empty() {
            self.store.cool_ns = u64::MAX;
            self.ask_for_segments();
        }
    }

    fn tell_of_segment(&mut self, peer: PeerId, news: SegmentNews) {
        let worker = match self.peers.get(&peer) {
            Some(&Peer::Worker(worker)) => Some(worker),
            Some(Peer::Client(_)) => None,
            Some(Peer::Cut) | None => return,
        };
        self.actions.push_back(Action::Segment { worker, news });
    }

    /// Why there is no room.
    fn full(&self, bytes: u64) -> String {
        let store = &self.store;
        let mut largest: Vec<(&(u32, u64), &Block)> = store.blocks.iter().filter(|(_, block)| block.live > 0).collect();
        largest.sort_unstable_by_key(|(id, block)| (std::cmp::Reverse(block.bytes), **id));
        let named: Vec<String> =
            largest.iter().take(HOLDERS_NAMED).map(|(_, block)| format!("{} bytes", block.bytes)).collect();
        format!(
            "a result needs {bytes} bytes of shared memory; {} of {} are taken (largest results: {})",
            store.granted,
            store.limit,
            if named.is_empty() { "none".to_owned() } else { named.join(", ") }
        )
    }

    pub(super) fn handle_released(&mut self, peer: PeerId, released: &Released<'_>, now_ns: u64) {
        for (segment, offset) in released.segment.iter().zip(released.offset.iter()) {
            let id = (segment, u64::from(offset) * BLOCK_ALIGN);
            if let Some(block) = self.store.blocks.get_mut(&id) {
                block.holders.retain(|holder| holder.peer != peer || std::mem::take(&mut holder.sent_since));
                block.holders.iter_mut().filter(|holder| holder.peer == peer).for_each(|holder| holder.asked = false);
                self.store.loose.push(id);
            }
        }
        self.settle_store();
        // Bytes of the owner are free now: it may have segments or pages to return.
        if let Some(wanted) = self.store.wants.front_mut() {
            wanted.asked = false;
            self.serve_wants(now_ns);
        }
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
        self.store.asked.retain(|asked| *asked != peer);
        self.serve_wants(now_ns);
    }

    /// A segment that was granted could not be made.
    pub fn handle_segment_failure(&mut self, segment: u32) {
        self.store.remove_segment(segment);
    }

    fn drop_segment(&mut self, number: u32) {
        let Some(segment) = self.store.remove_segment(number) else { return };
        let discard = if segment.owner.is_some() { segment.bytes } else { 0 };
        for peer in segment.owner.into_iter().chain(segment.shared_with) {
            self.tell_of_segment(peer, SegmentNews::Dropped { segment: number });
        }
        self.actions.push_back(Action::CloseSegment { segment: number, discard });
    }

    /// Tells those concerned of blocks that died in this turn, or that their holders have let go of.
    pub(super) fn settle_store(&mut self) {
        for value in self.ledger.take_dropped() {
            self.store.uncite(value.bytes());
        }
        if self.store.loose.is_empty() {
            return;
        }
        let mut told: BTreeMap<PeerId, Vec<(u32, u64, u32)>> = BTreeMap::new();
        for id in std::mem::take(&mut self.store.loose) {
            let Some(block) = self.store.blocks.get_mut(&id) else { continue };
            if block.live > 0 {
                continue;
            }
            for holder in block.holders.iter_mut().filter(|holder| !holder.asked) {
                holder.asked = true;
                told.entry(holder.peer).or_default().push((id.0, id.1, 0));
            }
            if block.holders.is_empty()
                && let Some((owner, seen)) = self.store.forget(id)
            {
                told.entry(owner).or_default().push((id.0, id.1, seen));
            }
        }
        for (peer, blocks) in told {
            let segment: Vec<u32> = blocks.iter().map(|block| block.0).collect();
            let offset: Vec<u32> = blocks.iter().map(|block| (block.1 / BLOCK_ALIGN) as u32).collect();
            let citations: Vec<u32> = blocks.iter().map(|block| block.2).collect();
            let release =
                Release { segment: (&segment).into(), offset: (&offset).into(), citations: (&citations).into() };
            self.send(peer, &Message::Release(release));
        }
        self.drop_orphans();
    }

    /// A process is gone, and with it what it saw.
    pub(super) fn lose_store_peer(&mut self, peer: PeerId, now_ns: u64) {
        let store = &mut self.store;
        store.wants.retain(|wanted| wanted.peer != peer);
        store.asked.retain(|asked| *asked != peer);
        for segment in store.segments.values_mut() {
            if segment.owner == Some(peer) {
                segment.owner = None;
            }
            segment.shared_with.retain(|reader| *reader != peer);
        }
        for (id, block) in &mut store.blocks {
            let before = block.holders.len();
            block.holders.retain(|holder| holder.peer != peer);
            if block.holders.len() < before {
                store.loose.push(*id);
            }
        }
        store.loose.sort_unstable();
        self.settle_store();
        self.drop_orphans();
        self.serve_wants(now_ns);
    }

    /// Drops the segments whose owner is gone and of which nothing is left.
    fn drop_orphans(&mut self) {
        let orphans: Vec<u32> = self
            .store
            .segments
            .iter()
            .filter(|(_, segment)| segment.owner.is_none() && segment.blocks == 0)
            .map(|(number, _)| *number)
            .collect();
        for number in orphans {
            self.drop_segment(number);
        }
    }
}
