//! The table of a process: its own blocks and those of others that it sees. The module's text says why it is right.

use std::collections::BTreeMap;
use std::ops::Range;

use headrace_kernel::seeded;
use rustc_hash::FxHashMap;

use super::arena::{Allocation, Arena};

/// A block, by the name that all processes know.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BlockId {
    /// Number of its segment.
    pub segment: u32,
    /// Offset of its first byte within the segment.
    pub offset: u64,
}

/// A new block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Allocated {
    /// The block.
    pub id: BlockId,
    /// Its size in bytes: what was asked for, rounded up.
    pub bytes: u64,
    /// The range of the segment that has no pages yet and must have them before the block is used; often empty.
    pub commit: Range<u64>,
}

/// Memory that a process gives up.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Unused {
    /// Whole segments.
    pub segments: Vec<u32>,
    /// Pages of other segments, to be punched.
    pub ranges: Vec<(u32, Range<u64>)>,
}

/// What a [`Blocks`] holds, for diagnosis.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BlocksStatistics {
    /// Segments that this process owns.
    pub own_segments: usize,
    /// Their bytes.
    pub own_bytes: u64,
    /// Blocks in them.
    pub blocks: usize,
    /// The bytes of these blocks.
    pub allocated_bytes: u64,
    /// Those of them with a reference; the others wait for the broker's RELEASE.
    pub referenced_blocks: usize,
    /// Blocks of others with a reference.
    pub foreign_blocks: usize,
}

/// The table. See [the module](super).
#[derive(Debug, Default)]
pub struct Blocks {
    segments: BTreeMap<u32, Segment>,
    /// Those with references: of the others there is nothing to know.
    foreign: FxHashMap<BlockId, Foreign>,
    released: Vec<BlockId>,
    /// Pages that were given back and are to be punched.
    pub(super) punches: Vec<(u32, Range<u64>)>,
    /// How urgent it is to look for garbage, and the answers that wait for that.
    pub(super) garbage_due: u8,
    pub(super) answers_due: u32,
}

#[derive(Debug)]
struct Segment {
    arena: Arena,
    blocks: FxHashMap<u64, Own>,
}

/// Its bytes are free when both are 0.
#[derive(Debug)]
struct Own {
    references: u32,
    /// Citations that have left and that no RELEASE has counted yet.
    citations: u32,
}

#[derive(Debug, Default)]
struct Foreign {
    references: u32,
    /// Whether a RELEASE waits for its answer.
    release_came: bool,
}

impl Blocks {
    /// Enters a segment that the broker granted to this process.
    ///
    /// # Panics
    /// If it has that segment already.
    pub fn own(&mut self, segment: u32, bytes: u64) {
        let entry = Segment { arena: Arena::new(bytes), blocks: FxHashMap::default() };
        let before = self.segments.insert(segment, entry);
        assert!(before.is_none(), "segment {segment} was granted twice");
    }

    /// A block with one reference; `None` if no own segment has room. Segments with low numbers fill first, so that those
    /// with high numbers can go back.
    ///
    /// What [`Allocated::commit`] says must be done before anything else is allocated.
    #[must_use]
    pub fn allocate(&mut self, bytes: u64) -> Option<Allocated> {
        self.segments.iter_mut().find_map(|(&segment, Segment { arena, blocks })| {
            let Allocation { offset, bytes, commit } = arena.allocate(bytes)?;
            blocks.insert(offset, Own { references: 1, citations: 0 });
            Some(Allocated { id: BlockId { segment, offset }, bytes, commit })
        })
    }

    /// Takes back a block whose range could not be committed, with its reference.
    pub fn undo_allocate(&mut self, block: &Allocated) {
        if let Some(segment) = self.segments.get_mut(&block.id.segment) {
            segment.arena.uncommit(block.commit.start);
        }
        self.unhold(block.id);
    }

    /// One more reference.
    ///
    /// # Panics
    /// If it is a block of an own segment that is not allocated.
    pub fn hold(&mut self, id: BlockId) {
        match self.segments.get_mut(&id.segment) {
            Some(segment) => segment.block(id).references += 1,
            None => self.foreign.entry(id).or_default().references += 1,
        }
    }

    /// One reference less. That may free the bytes of an own block, or make an answer due for another.
    ///
    /// # Panics
    /// If it has none.
    pub fn unhold(&mut self, id: BlockId) {
        if let Some(segment) = self.segments.get_mut(&id.segment) {
            let own = segment.block(id);
            own.references = own.references.checked_sub(1).expect("a reference ends once");
            segment.settle(id.offset);
        } else {
            let foreign = self.foreign.get_mut(&id).expect("a reference ends once");
            foreign.references -= 1;
            if foreign.references == 0 {
                if foreign.release_came {
                    self.released.push(id);
                }
                self.foreign.remove(&id);
            }
        }
    }

    /// Counts a citation that is about to leave this process: once for each block that the head of a value cites, each
    /// time that the value is sent. The block keeps a reference until the frame has its place among those that leave.
    ///
    /// # Panics
    /// If it is a block of an own segment that is not allocated.
    pub fn publish(&mut self, id: BlockId) {
        if let Some(segment) = self.segments.get_mut(&id.segment).filter(|_| !seeded!("citation not counted")) {
            segment.block(id).citations += 1;
        }
    }

    /// Takes a RELEASE: no live result cites the block.
    ///
    /// `citations` is of interest for own blocks: how many of this process the broker has received since the RELEASE before.
    /// If more have left, one is on its way, and the block stays until the RELEASE that follows it.
    pub fn handle_release(&mut self, id: BlockId, citations: u32) {
        if let Some(segment) = self.segments.get_mut(&id.segment) {
            if let Some(own) = segment.blocks.get_mut(&id.offset) {
                own.citations = own.citations.saturating_sub(citations);
                segment.settle(id.offset);
            }
        } else if let Some(foreign) = self.foreign.get_mut(&id) {
            foreign.release_came = true;
        } else {
            self.released.push(id);
        }
    }

    /// The blocks that RELEASED is due for, in order; each is given once.
    #[must_use]
    pub fn take_released(&mut self) -> Vec<BlockId> {
        std::mem::take(&mut self.released)
    }

    /// Whether RELEASED is due for any block.
    #[must_use]
    pub fn has_released(&self) -> bool {
        !self.released.is_empty()
    }

    /// This process is about to fork: the child sees what has references now, and nobody will hear when it stops.
    pub fn note_fork(&mut self) {
        let own = self.segments.values_mut().flat_map(|segment| segment.blocks.values_mut());
        let references = own.map(|own| &mut own.references).filter(|references| **references > 0);
        // The child's reference, which never ends.
        references
            .chain(self.foreign.values_mut().map(|foreign| &mut foreign.references))
            .for_each(|count| *count += 1);
    }

    /// Whether references keep dead blocks: views that somebody looks at, or that lie in garbage. Looks at every block.
    pub(super) fn keeps_dead(&self) -> bool {
        let mut own = self.segments.values().flat_map(|segment| segment.blocks.values());
        self.foreign.values().any(|foreign| foreign.release_came)
            || own.any(|own| own.references > 0 && own.citations == 0)
    }

    /// Gives up what no block uses: the own segments without a block, which are forgotten here, and the free pages of the
    /// others. Both must be given back to the broker.
    #[must_use]
    pub fn take_unused(&mut self) -> Unused {
        let mut unused = Unused::default();
        self.segments.retain(|&number, segment| {
            let keep = !segment.arena.is_empty();
            if keep {
                unused.ranges.extend(segment.arena.retire_free().into_iter().map(|range| (number, range)));
            } else {
                unused.segments.push(number);
            }
            keep
        });
        unused
    }

    /// What it holds. Looks at every own block.
    #[must_use]
    pub fn statistics(&self) -> BlocksStatistics {
        let mut statistics = BlocksStatistics {
            own_segments: self.segments.len(),
            foreign_blocks: self.foreign.len(),
            ..BlocksStatistics::default()
        };
        for Segment { arena, blocks } in self.segments.values() {
            statistics.own_bytes += arena.bytes();
            statistics.blocks += blocks.len();
            statistics.allocated_bytes += arena.allocated_bytes();
            statistics.referenced_blocks += blocks.values().filter(|own| own.references > 0).count();
        }
        statistics
    }
}

impl Segment {
    fn block(&mut self, id: BlockId) -> &mut Own {
        match self.blocks.get_mut(&id.offset) {
            Some(own) => own,
            None => panic!("S1: {id:?} is used but not allocated"),
        }
    }

    fn settle(&mut self, offset: u64) {
        if let Some(Own { references: 0, citations: 0 }) = self.blocks.get(&offset) {
            self.blocks.remove(&offset);
            self.arena.free(offset);
        }
    }
}
