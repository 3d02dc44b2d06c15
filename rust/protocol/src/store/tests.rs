//! The table alone, and three of them with a broker that is played by the rules of the module's text.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

/// The same cases every time, unless `PROPTEST_RNG_SEED` asks for others; `PROPTEST_CASES` asks for more.
pub(super) fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    let rng_seed = if asked.rng_seed == RngSeed::Random { RngSeed::Fixed(0) } else { asked.rng_seed };
    ProptestConfig { rng_seed, failure_persistence: None, ..asked }
}

const SEGMENT_BYTES: u64 = 8192;

fn owner() -> Blocks {
    let mut blocks = Blocks::default();
    blocks.own(1, SEGMENT_BYTES);
    blocks
}

fn id(segment: u32, offset: u64) -> BlockId {
    BlockId { segment, offset }
}

#[test]
fn a_block_that_no_citation_left_of_is_free_without_references() {
    let mut blocks = owner();
    let block = blocks.allocate(100).unwrap();
    assert_eq!(block, Allocated { id: id(1, 0), bytes: 128, commit: 0..4096 });
    let expected = BlocksStatistics {
        own_segments: 1,
        own_bytes: SEGMENT_BYTES,
        blocks: 1,
        allocated_bytes: 128,
        referenced_blocks: 1,
        foreign_blocks: 0,
    };
    assert_eq!(blocks.statistics(), expected);
    assert_eq!(blocks.take_unused().segments, []);
    blocks.hold(block.id);
    blocks.unhold(block.id);
    assert_eq!(blocks.allocate(64).unwrap().id, id(1, 128));
    blocks.unhold(block.id);
    blocks.unhold(id(1, 128));
    assert_eq!(blocks.take_unused().segments, [1]);
    assert_eq!(blocks.statistics(), BlocksStatistics::default());
    assert!(!blocks.has_released());
}

#[test]
fn a_published_block_waits_for_the_broker_and_for_its_references() {
    let mut blocks = owner();
    let first = blocks.allocate(64).unwrap().id;
    let second = blocks.allocate(64).unwrap().id;
    blocks.publish(first);
    blocks.publish(second);
    blocks.unhold(first);
    blocks.handle_release(second, 1);
    assert_eq!((blocks.statistics().blocks, blocks.statistics().referenced_blocks), (2, 1));
    blocks.handle_release(first, 1);
    assert_eq!(blocks.statistics().blocks, 1);
    blocks.unhold(second);
    assert_eq!(blocks.statistics().blocks, 0);
    assert!(!blocks.has_released(), "an owner does not answer");
}

#[test]
fn a_release_that_crosses_a_citation_is_void() {
    let mut blocks = owner();
    let block = blocks.allocate(64).unwrap().id;
    blocks.publish(block);
    blocks.publish(block);
    blocks.unhold(block);
    blocks.handle_release(block, 1);
    assert_eq!(blocks.statistics().blocks, 1, "the broker has yet to see the second citation");
    blocks.handle_release(block, 1);
    assert_eq!(blocks.statistics().blocks, 0);

    // Cited again after the RELEASE came, from a reference that was left.
    let block = blocks.allocate(64).unwrap().id;
    blocks.publish(block);
    blocks.handle_release(block, 1);
    blocks.publish(block);
    blocks.unhold(block);
    assert_eq!(blocks.statistics().blocks, 1);
    blocks.handle_release(block, 1);
    assert_eq!(blocks.take_unused().segments, [1]);
}

#[test]
fn each_release_of_a_foreign_block_is_answered_once() {
    let mut blocks = owner();
    let (seen, unknown) = (id(9, 0), id(9, 64));
    blocks.hold(seen);
    blocks.hold(seen);
    blocks.handle_release(seen, 0);
    blocks.handle_release(unknown, 0);
    assert_eq!(blocks.take_released(), [unknown]);
    blocks.publish(seen);
    blocks.unhold(seen);
    assert!(!blocks.has_released());
    blocks.unhold(seen);
    assert_eq!(blocks.take_released(), [seen]);
    assert_eq!(blocks.take_released(), []);

    blocks.hold(seen);
    blocks.unhold(seen);
    assert!(!blocks.has_released(), "nobody asked");
    blocks.handle_release(seen, 1);
    assert_eq!(blocks.take_released(), [seen]);
    assert_eq!(blocks.statistics().foreign_blocks, 0);
}

#[test]
fn what_a_child_may_see_is_never_answered_nor_freed() {
    let mut blocks = owner();
    let (own, foreign) = (blocks.allocate(64).unwrap().id, id(9, 0));
    let cited_only = blocks.allocate(64).unwrap().id;
    blocks.publish(cited_only);
    blocks.unhold(cited_only);
    blocks.hold(foreign);
    blocks.note_fork();
    let later = id(9, 64);
    blocks.hold(later);
    for block in [own, foreign, later] {
        blocks.unhold(block);
    }
    for block in [foreign, later] {
        blocks.handle_release(block, 0);
    }
    blocks.handle_release(cited_only, 1);
    assert_eq!(blocks.take_released(), [later]);
    assert_eq!(blocks.statistics().blocks, 1, "of the cited one the child has no view");
    assert_eq!(blocks.take_unused().segments, []);
}

#[test]
fn low_segments_fill_first() {
    let mut blocks = Blocks::default();
    assert_eq!(blocks.allocate(1), None);
    blocks.own(7, SEGMENT_BYTES);
    blocks.own(3, SEGMENT_BYTES);
    assert_eq!(blocks.allocate(8000).unwrap().id, id(3, 0));
    assert_eq!(blocks.allocate(8000).unwrap().id, id(7, 0));
    assert_eq!(blocks.allocate(100).unwrap().id, id(3, 8000));
    assert_eq!(blocks.allocate(8000), None);
}

#[test]
fn what_could_not_be_committed_is_undone() {
    let mut blocks = owner();
    let block = blocks.allocate(5000).unwrap();
    blocks.undo_allocate(&block);
    assert_eq!(blocks.allocate(64).unwrap().commit, 0..4096);
}

#[test]
#[should_panic(expected = "S1: BlockId { segment: 1, offset: 64 } is used but not allocated")]
fn own_blocks_cannot_be_held_after_their_end() {
    owner().hold(id(1, 64));
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn s1_no_byte_is_used_again_while_someone_may_see_it(
        steps in proptest::collection::vec((0..100_u32, any::<(u32, u32)>()), 1..400),
    ) {
        let mut world = World::default();
        for (kind, (a, b)) in steps {
            world.step(kind, a as usize, b as usize);
        }
        world.finish();
    }
}

/// Segments with an even number belong to process 0, those with an odd one to process 1; process 2 only reads.
const PROCESSES: usize = 3;

fn owner_of(segment: u32) -> usize {
    segment as usize % 2
}

#[derive(Debug)]
enum Up {
    Citation(BlockId),
    Released(BlockId),
    GiveBack(u32),
}

#[derive(Debug)]
enum Down {
    Citation(BlockId),
    Release(BlockId, u32),
}

#[derive(Default)]
struct Process {
    blocks: Blocks,
    references: BTreeMap<BlockId, u32>,
    seen_by_children: BTreeSet<BlockId>,
    to_broker: VecDeque<Up>,
    from_broker: VecDeque<Down>,
}

/// What the broker knows of a block.
#[derive(Default)]
struct Known {
    results: u32,
    /// Received from the owner.
    citations: u32,
    holders: BTreeMap<usize, Holder>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Holder {
    asked: bool,
    /// Whether a citation was sent to it since it was asked.
    sent_since: bool,
}

#[derive(Default)]
struct World {
    processes: [Process; PROCESSES],
    known: BTreeMap<BlockId, Known>,
    /// The sizes of all blocks that were ever allocated and not overwritten.
    sizes: BTreeMap<BlockId, u64>,
    segments_granted: u32,
}

impl World {
    fn step(&mut self, kind: u32, a: usize, b: usize) {
        let number = a % PROCESSES;
        let referenced: Vec<BlockId> = self.processes[number].references.keys().copied().collect();
        let any = referenced.get(b % referenced.len().max(1)).copied();
        match (kind, any) {
            (0..12, _) => self.allocate(a % 2, 1 + b as u64 % 3000),
            (12..16, Some(block)) => self.hold(number, block),
            (16..28, Some(block)) => self.unhold(number, block),
            (28..42, Some(block)) => self.publish(number, block),
            (42..46, _) => self.answer(number),
            (46..62, _) => self.broker_handles(number),
            (62..78, _) => self.process_handles(number),
            (78..86, _) => self.end_result(b),
            (86..96, _) => self.send_result(number, b),
            (96..99, _) => self.give_back(number),
            // Rarely: what a child sees stays for good.
            (99, _) if b.is_multiple_of(8) => self.fork(number),
            _ => {}
        }
    }

    fn allocate(&mut self, number: usize, bytes: u64) {
        let blocks = &mut self.processes[number].blocks;
        let Some(Allocated { id, bytes, .. }) = blocks.allocate(bytes) else {
            self.segments_granted += 1;
            return blocks.own(self.segments_granted * 2 + number as u32, SEGMENT_BYTES);
        };
        let end = id.offset + bytes;
        let below = self.sizes.range(BlockId { offset: 0, ..id }..BlockId { offset: end, ..id });
        let overlapping: Vec<BlockId> =
            below.filter(|(old, size)| old.offset + **size > id.offset).map(|(old, _)| *old).collect();
        for old in overlapping {
            assert!(!self.is_in_use(old), "S1: {id:?} is allocated over {old:?}");
            self.sizes.remove(&old);
        }
        self.sizes.insert(id, bytes);
        self.processes[number].references.insert(id, 1);
    }

    fn is_in_use(&self, block: BlockId) -> bool {
        self.known.get(&block).is_some_and(|known| known.results > 0)
            || self.processes.iter().any(|process| {
                process.references.contains_key(&block)
                    || process.seen_by_children.contains(&block)
                    || process.to_broker.iter().any(|up| matches!(up, Up::Citation(id) if *id == block))
                    || process.from_broker.iter().any(|down| matches!(down, Down::Citation(id) if *id == block))
            })
    }

    fn hold(&mut self, number: usize, block: BlockId) {
        self.processes[number].blocks.hold(block);
        *self.processes[number].references.entry(block).or_default() += 1;
    }

    fn unhold(&mut self, number: usize, block: BlockId) {
        let Process { blocks, references, .. } = &mut self.processes[number];
        blocks.unhold(block);
        let count = references.get_mut(&block).unwrap();
        *count -= 1;
        if *count == 0 {
            references.remove(&block);
        }
    }

    fn publish(&mut self, number: usize, block: BlockId) {
        self.processes[number].blocks.publish(block);
        self.processes[number].to_broker.push_back(Up::Citation(block));
    }

    fn answer(&mut self, number: usize) {
        let Process { blocks, to_broker, .. } = &mut self.processes[number];
        to_broker.extend(blocks.take_released().into_iter().map(Up::Released));
        assert!(!blocks.has_released());
    }

    fn give_back(&mut self, number: usize) {
        let Process { blocks, to_broker, .. } = &mut self.processes[number];
        to_broker.extend(blocks.take_unused().segments.into_iter().map(Up::GiveBack));
    }

    fn fork(&mut self, number: usize) {
        let process = &mut self.processes[number];
        process.blocks.note_fork();
        process.seen_by_children.extend(process.references.keys());
    }

    fn process_handles(&mut self, number: usize) {
        match self.processes[number].from_broker.pop_front() {
            Some(Down::Citation(block)) => self.hold(number, block),
            Some(Down::Release(block, citations)) => self.processes[number].blocks.handle_release(block, citations),
            None => {}
        }
    }

    fn broker_handles(&mut self, number: usize) {
        match self.processes[number].to_broker.pop_front() {
            Some(Up::Citation(block)) => {
                let known = self.known.entry(block).or_default();
                known.results += 1;
                known.citations += u32::from(owner_of(block.segment) == number);
            }
            Some(Up::Released(block)) => {
                let holders = &mut self.known.get_mut(&block).expect("an answer is awaited").holders;
                let holder = holders.remove(&number).expect("a holder answers");
                assert!(holder.asked, "an answer was asked for");
                if holder.sent_since {
                    holders.insert(number, Holder::default());
                }
                self.settle(block);
            }
            Some(Up::GiveBack(segment)) => {
                assert!(self.known.keys().all(|block| block.segment != segment), "S1: a segment in use is returned");
            }
            None => {}
        }
    }

    fn end_result(&mut self, choice: usize) {
        if let Some(block) = self.live(choice) {
            self.known.get_mut(&block).unwrap().results -= 1;
            self.settle(block);
        }
    }

    fn send_result(&mut self, number: usize, choice: usize) {
        if let Some(block) = self.live(choice) {
            if owner_of(block.segment) != number {
                let holder = self.known.get_mut(&block).unwrap().holders.entry(number).or_default();
                holder.sent_since = holder.asked;
            }
            self.processes[number].from_broker.push_back(Down::Citation(block));
        }
    }

    fn live(&self, choice: usize) -> Option<BlockId> {
        let live: Vec<BlockId> =
            self.known.iter().filter(|(_, known)| known.results > 0).map(|(block, _)| *block).collect();
        live.get(choice % live.len().max(1)).copied()
    }

    fn settle(&mut self, block: BlockId) {
        let known = self.known.get_mut(&block).unwrap();
        if known.results > 0 {
            return;
        }
        for (&number, holder) in known.holders.iter_mut().filter(|(_, holder)| !holder.asked) {
            holder.asked = true;
            self.processes[number].from_broker.push_back(Down::Release(block, 0));
        }
        if known.holders.is_empty() {
            let release = Down::Release(block, known.citations);
            self.processes[owner_of(block.segment)].from_broker.push_back(release);
            self.known.remove(&block);
        }
    }

    /// Ends all references and results and delivers everything: what no child sees must be free.
    fn finish(&mut self) {
        for _ in 0..10 {
            while self.live(0).is_some() {
                self.end_result(0);
            }
            for number in 0..PROCESSES {
                while !self.processes[number].from_broker.is_empty() {
                    self.process_handles(number);
                }
                for (block, count) in self.processes[number].references.clone() {
                    (0..count).for_each(|_| self.unhold(number, block));
                }
                self.answer(number);
                while !self.processes[number].to_broker.is_empty() {
                    self.broker_handles(number);
                }
            }
        }
        let pinned: BTreeSet<BlockId> =
            self.processes.iter().flat_map(|process| &process.seen_by_children).copied().collect();
        for (number, process) in self.processes.iter_mut().enumerate() {
            assert!(process.from_broker.is_empty() && process.to_broker.is_empty() && !process.blocks.has_released());
            let own = |block: &&BlockId| owner_of(block.segment) == number;
            let statistics = process.blocks.statistics();
            assert_eq!(statistics.blocks, pinned.iter().filter(own).count());
            assert_eq!(statistics.foreign_blocks, process.seen_by_children.iter().filter(|block| !own(block)).count());
            let segments: BTreeSet<u32> = pinned.iter().filter(own).map(|block| block.segment).collect();
            assert_eq!(process.blocks.take_unused().segments.len(), statistics.own_segments - segments.len());
        }
        assert!(self.known.keys().all(|block| pinned.contains(block)), "the broker has forgotten the rest");
    }
}
