//! Shared memory as the broker sees it: who owns which segment, which blocks live results cite, who may still see them.
//!
//! A segment lies on one machine, and only the processes there can map it. The broker's own is [`HOME`]; others have agents.
//!
//! A block is dead when no live result cites it (K5 decides that, through the ledger). Its holders are told then; when the
//! last of them has answered, its owner may use the bytes again (S1). The broker maps nothing.

use super::action::SegmentNews;
use super::budget::Budget;
use super::copies::Copies;
use super::spill::Disk;
use super::{Action, Broker, PeerId};
use crate::store::Arena;
use headrace_kernel::seeded;
use headrace_wire::{BLOCK_ALIGN, Citation, FILE_SEGMENTS, Message, Release, Released, citations, cites};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::collections::{BTreeMap, VecDeque};

/// The machine of the broker, and what stands for none.
pub(super) const HOME: u32 = 0;
pub(super) const NOWHERE: u32 = u32::MAX;

/// All of it.
#[derive(Debug)]
pub(super) struct Store {
    /// By machine. The broker's own is the first.
    pub(super) budgets: Vec<Budget>,
    pub(super) segments: BTreeMap<u32, Segment>,
    pub(super) last_segment: u32,
    pub(super) blocks: FxHashMap<(u32, u64), Block>,
    /// Blocks whose last citation may have gone in this turn.
    pub(super) loose: Vec<(u32, u64)>,
    /// When it is worth while to look for inline results that can move.
    pub(super) inline_due_ns: u64,
    /// Counts uses of blocks, in place of a clock.
    uses: u64,
    pub(super) disk: Disk,
    pub(super) copies: Copies,
}

#[derive(Debug)]
pub(super) struct Segment {
    /// Where it lies.
    pub(super) machine: u32,
    /// `None` once it is gone, and where the broker places the blocks.
    pub(super) owner: Option<PeerId>,
    /// Its size, and how much of that counts: its owner may have punched some.
    pub(super) bytes: u64,
    pub(super) charged: u64,
    /// When it was granted.
    pub(super) granted_ns: u64,
    /// What is free in it, where it is a file or for copies; else its owner knows.
    pub(super) arena: Option<Arena>,
    /// Who has a map of it, beside the owner.
    pub(super) shared_with: SmallVec<[PeerId; 4]>,
    /// Blocks of it in the table.
    pub(super) blocks: u32,
}

#[derive(Debug)]
pub(super) struct Block {
    pub(super) machine: u32,
    pub(super) bytes: u64,
    /// Live results that cite it.
    pub(super) live: u32,
    /// Citations received from its owner.
    from_owner: u32,
    /// Others than the owner that were sent a citation and have not let go.
    holders: SmallVec<[Holder; 4]>,
    /// When it was entered: another block may lie there later. And when it was last used. Both in uses.
    pub(super) born: u64,
    pub(super) used: u64,
    /// When its holders were last asked to let go of it.
    asked_ns: u64,
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    peer: PeerId,
    /// It was sent RELEASE and has not answered.
    asked: bool,
    /// It was sent a citation since, of which its answer does not speak.
    sent_since: bool,
}

/// What is said to a peer whose values cite nothing.
pub(super) const CITES_NOTHING: &str = "a value cites shared memory that does not exist";

/// Bytes now and at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoreStatistics {
    /// The budget.
    pub limit: u64,
    /// Bytes of all segments of memory.
    pub granted: u64,
    /// The most that `granted` was.
    pub peak: u64,
    /// Bytes of blocks in memory that live results cite.
    pub cited: u64,
    /// Bytes of blocks in files.
    pub spilled: u64,
    /// Bytes of segments of memory that processes have mapped which do not own them, once for each.
    pub mapped: u64,
    /// Segments, files among them.
    pub segments: u64,
    /// Blocks known.
    pub blocks: u64,
}

impl Store {
    pub(super) fn new(limit: u64, spill_limit: u64) -> Self {
        Store {
            budgets: vec![Budget::new(limit, None)],
            segments: BTreeMap::new(),
            last_segment: 0,
            blocks: FxHashMap::default(),
            loose: Vec::new(),
            inline_due_ns: 0,
            uses: 0,
            disk: Disk::new(spill_limit),
            copies: Copies::default(),
        }
    }

    /// The budget of the broker's own machine.
    #[inline]
    pub(super) fn home(&self) -> &Budget {
        &self.budgets[HOME as usize]
    }

    /// The budget of a machine.
    pub(super) fn budget(&mut self, machine: u32) -> &mut Budget {
        &mut self.budgets[machine as usize]
    }

    pub(super) fn statistics(&self) -> StoreStatistics {
        let sum = |field: fn(&Budget) -> u64| self.budgets.iter().map(field).sum();
        StoreStatistics {
            limit: sum(|budget| budget.limit),
            granted: sum(|budget| budget.granted),
            peak: sum(|budget| budget.peak),
            cited: sum(|budget| budget.live_bytes),
            spilled: {
                let files = self.segments.range(FILE_SEGMENTS..).filter_map(|(_, file)| file.arena.as_ref());
                files.map(Arena::allocated_bytes).sum()
            },
            mapped: {
                let memory = self.segments.range(..FILE_SEGMENTS).map(|(_, segment)| segment);
                memory.map(|segment| segment.bytes * segment.shared_with.len() as u64).sum()
            },
            segments: self.segments.len() as u64,
            blocks: self.blocks.len() as u64,
        }
    }

    /// The machine where a value can be read; `None` if it is as good on any.
    pub(super) fn machine_of(&self, value: &[u8]) -> Option<u32> {
        let first = citations(value).next()?;
        Some(self.segments.get(&first.segment).map_or(NOWHERE, |segment| segment.machine))
    }

    /// The number of a use, later than those before.
    fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    /// A value has arrived from a peer; until [`Store::uncite`] it counts as live. False, and nothing is counted, if it cites
    /// bytes that are in no segment: whoever says so is broken.
    #[inline]
    #[must_use]
    pub(super) fn arrive(&mut self, from: PeerId, machine: u32, value: &[u8]) -> bool {
        let is_there = |Citation { segment, offset, bytes }| {
            let end = offset.checked_add(bytes);
            let found = self.segments.get(&segment).filter(|segment| segment.machine == machine);
            found.zip(end).is_some_and(|(segment, end)| end <= segment.bytes)
        };
        if !citations(value).all(is_there) {
            return false;
        }
        if cites(value)
            && let Some(budget) = self.budgets.get_mut(machine as usize)
        {
            budget.used = true;
        }
        for Citation { segment, offset, bytes } in citations(value) {
            let Some(owned) = self.segments.get(&segment) else { continue };
            let is_owner = owned.owner == Some(from);
            if owned.arena.is_none() {
                self.enter((segment, offset), bytes);
            }
            self.add_live((segment, offset));
            if let (true, Some(block)) = (is_owner, self.blocks.get_mut(&(segment, offset))) {
                block.from_owner += 1;
            }
        }
        true
    }

    /// Enters a block that is not known, with no citation.
    pub(super) fn enter(&mut self, id: (u32, u64), bytes: u64) {
        if self.blocks.contains_key(&id) {
            return;
        }
        let born = self.next_use();
        if let Some(segment) = self.segments.get_mut(&id.0) {
            segment.blocks += 1;
            let holders = SmallVec::new();
            let machine = segment.machine;
            let counts = Block { machine, bytes, live: 0, from_owner: 0, holders, born, used: born, asked_ns: 0 };
            self.blocks.insert(id, counts);
        }
    }

    /// A live result more has this value.
    #[inline]
    pub(super) fn cite(&mut self, value: &[u8]) {
        citations(value).for_each(|cited| self.add_live((cited.segment, cited.offset)));
    }

    fn add_live(&mut self, id: (u32, u64)) {
        let Some(block) = self.blocks.get_mut(&id) else { return };
        block.live += 1;
        if block.live == 1 && id.0 < FILE_SEGMENTS {
            let budget = &mut self.budgets[block.machine as usize];
            budget.live_bytes += block.bytes;
            budget.live_peak = budget.live_peak.max(budget.live_bytes);
        }
    }

    /// One less.
    #[inline]
    pub(super) fn uncite(&mut self, value: &[u8]) {
        for cited in citations(value) {
            let id = (cited.segment, cited.offset);
            if let Some(block) = self.blocks.get_mut(&id).filter(|block| block.live > 0) {
                block.live -= if seeded!("freed while cited") { block.live.min(2) } else { 1 };
                if block.live == 0 {
                    self.loose.push(id);
                    if id.0 < FILE_SEGMENTS {
                        self.budgets[block.machine as usize].live_bytes -= block.bytes;
                    }
                }
            }
        }
    }

    /// A value is about to be sent to a peer, which holds its blocks from now on. Segments that it has not got go ahead.
    #[inline]
    pub(super) fn hand_over(&mut self, to: PeerId, worker: Option<u32>, value: &[u8], actions: &mut VecDeque<Action>) {
        for cited in citations(value) {
            let now = self.next_use();
            let (Some(segment), Some(block)) =
                (self.segments.get_mut(&cited.segment), self.blocks.get_mut(&(cited.segment, cited.offset)))
            else {
                continue;
            };
            block.used = now;
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
        if let Some(arena) = &mut segment.arena {
            arena.free(id.1);
        }
        segment.owner.map(|owner| (owner, block.from_owner))
    }

    /// Blocks in the memory of a machine that are dead, and that some process has not let go of.
    fn dead(&self, machine: u32) -> impl Iterator<Item = &Block> + '_ {
        let in_memory = self.blocks.iter().filter(|((segment, _), _)| *segment < FILE_SEGMENTS);
        in_memory.map(|(_, block)| block).filter(move |block| block.live == 0 && block.machine == machine)
    }

    /// Those who have not, some of them more than once.
    pub(super) fn holders_of_dead(&self, machine: u32) -> impl Iterator<Item = PeerId> + '_ {
        self.dead(machine).flat_map(|block| block.holders.iter().map(|holder| holder.peer))
    }

    /// Their bytes.
    pub(super) fn dead_bytes(&self, machine: u32) -> u64 {
        self.dead(machine).map(|block| block.bytes).sum()
    }

    /// Bytes of those of them that somebody will soon let go of. Who has a view may keep it for ever, so only those count of
    /// which holders have heard since a time; and who waits for room keeps what its task takes.
    pub(super) fn dying_bytes(&self, machine: u32, since_ns: u64) -> u64 {
        let wants = &self.budgets[machine as usize].wants;
        let waits = |holder: &Holder| wants.iter().any(|wanted| wanted.peer == holder.peer);
        let dying = self.dead(machine).filter(|block| block.asked_ns >= since_ns && !block.holders.iter().all(waits));
        dying.map(|block| block.bytes).sum()
    }

    /// Whether a segment lies on the machine of an agent.
    pub(super) fn is_on(&self, segment: u32, agent: PeerId) -> bool {
        self.segments.get(&segment).is_some_and(|known| self.budgets[known.machine as usize].agent == Some(agent))
    }

    pub(super) fn remove_segment(&mut self, number: u32) -> Option<Segment> {
        let segment = self.segments.remove(&number)?;
        match number >= FILE_SEGMENTS {
            true => self.disk.granted -= segment.charged,
            false => self.budgets[segment.machine as usize].granted -= segment.charged,
        }
        Some(segment)
    }
}

impl Broker {
    pub(super) fn handle_released(&mut self, peer: PeerId, released: &Released<'_>, now_ns: u64) {
        for (segment, offset) in released.segment.iter().zip(released.offset.iter()) {
            let id = (segment, u64::from(offset) * BLOCK_ALIGN);
            if let Some(block) = self.store.blocks.get_mut(&id) {
                block.holders.retain(|holder| holder.peer != peer || std::mem::take(&mut holder.sent_since));
                block.holders.iter_mut().filter(|holder| holder.peer == peer).for_each(|holder| holder.asked = false);
                self.store.loose.push(id);
            }
        }
        self.settle_store(now_ns);
        // Bytes of the owner are free now: it may have segments or pages to return.
        self.note_room(now_ns);
    }

    /// A reader has not got a segment that it was sent.
    pub(super) fn handle_lack(&mut self, peer: PeerId, number: u32) {
        if let Some(segment) = self.store.segments.get(&number).filter(|segment| segment.shared_with.contains(&peer)) {
            let news = SegmentNews::Shared { segment: number, bytes: segment.bytes };
            self.tell_of_segment(peer, news);
        }
    }

    /// A segment that was granted could not be made.
    pub fn handle_segment_failure(&mut self, segment: u32) {
        self.store.remove_segment(segment);
    }

    pub(super) fn drop_segment(&mut self, number: u32) {
        let Some(segment) = self.store.remove_segment(number) else { return };
        let discard = if segment.owner.is_some() { segment.bytes } else { 0 };
        for peer in segment.owner.into_iter().chain(segment.shared_with) {
            self.tell_of_segment(peer, SegmentNews::Dropped { segment: number });
        }
        self.close_segment(segment.machine, number, discard);
    }

    /// Tells those concerned of blocks that died in this turn, or that their holders have let go of.
    pub(super) fn settle_store(&mut self, now_ns: u64) {
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
                block.asked_ns = now_ns;
                told.entry(holder.peer).or_default().push((id.0, id.1, 0));
            }
            let machine = block.machine;
            if (block.holders.is_empty() || seeded!("freed while seen"))
                && let Some((owner, seen)) = self.store.forget(id)
            {
                told.entry(owner).or_default().push((id.0, id.1, seen));
                self.store.budget(machine).freed = true;
            }
        }
        // Who has been cut is about to die, and lets go of everything then.
        for (peer, blocks) in told {
            if self.is_cut(peer) {
                continue;
            }
            let segment: Vec<u32> = blocks.iter().map(|block| block.0).collect();
            let offset: Vec<u32> = blocks.iter().map(|block| (block.1 / BLOCK_ALIGN) as u32).collect();
            let citations: Vec<u32> = blocks.iter().map(|block| block.2).collect();
            let release =
                Release { segment: (&segment).into(), offset: (&offset).into(), citations: (&citations).into() };
            self.send(peer, &Message::Release(release));
        }
        self.drop_orphans();
    }

    /// A client has left. Its process may go on showing what it sees, so it stays a holder, and what lies there is not used
    /// again before somebody hears of the process's end (S1).
    pub(super) fn part_from_store_peer(&mut self, peer: PeerId) {
        for budget in &mut self.store.budgets {
            budget.wants.retain(|wanted| wanted.peer != peer);
            budget.asked.retain(|asked| *asked != peer);
        }
    }

    /// A process is gone, and with it what it saw.
    pub(super) fn lose_store_peer(&mut self, peer: PeerId, now_ns: u64) {
        self.part_from_store_peer(peer);
        let store = &mut self.store;
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
        self.settle_store(now_ns);
        self.drop_orphans();
        self.serve_wants(now_ns);
    }

    /// Drops the segments whose owner is gone and of which nothing is left.
    pub(super) fn drop_orphans(&mut self) {
        let orphans: Vec<u32> = self
            .store
            .segments
            .iter()
            .filter(|(_, segment)| segment.owner.is_none() && segment.blocks == 0)
            .filter(|(_, segment)| segment.arena.as_ref().is_none_or(Arena::is_empty))
            .map(|(number, _)| *number)
            .collect();
        for number in orphans {
            self.drop_segment(number);
        }
    }
}
