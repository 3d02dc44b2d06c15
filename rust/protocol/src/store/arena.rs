//! Where in a segment a block has room.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use headrace_wire::BLOCK_ALIGN;
use rustc_hash::FxHashMap;

/// Pages are committed whole.
const PAGE_BYTES: u64 = 4096;
/// From this size on a block has its pages for itself, so that they can be mapped apart and given back.
const LARGE_BYTES: u64 = 1 << 20;

/// A block, just allocated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Allocation {
    /// Offset of its first byte.
    pub(crate) offset: u64,
    /// Its size, rounded up.
    pub(crate) bytes: u64,
    /// What must be committed before the block is used; often nothing.
    pub(crate) commit: Range<u64>,
}

/// The extents of a segment.
///
/// The smallest free extent that is large enough is taken, of several the first: that takes logarithmic time however
/// many holes there are, and prefers holes to the end that was never used, so that few pages are committed.
#[derive(Debug)]
pub(crate) struct Arena {
    bytes: u64,
    /// Everything below was committed.
    committed: u64,
    allocated_bytes: u64,
    /// Sizes of the blocks by offset.
    blocks: FxHashMap<u64, u64>,
    /// Sizes of the free extents by offset; no two of them touch.
    free: BTreeMap<u64, u64>,
    /// The same as (size, offset).
    free_by_size: BTreeSet<(u64, u64)>,
}

impl Arena {
    pub(crate) fn new(bytes: u64) -> Self {
        let mut arena = Self {
            bytes: bytes / BLOCK_ALIGN * BLOCK_ALIGN,
            committed: 0,
            allocated_bytes: 0,
            blocks: FxHashMap::default(),
            free: BTreeMap::new(),
            free_by_size: BTreeSet::new(),
        };
        arena.insert_free(0..arena.bytes);
        arena
    }

    /// Finds room for a block. A block of no bytes gets some, so that it has an offset of its own.
    pub(crate) fn allocate(&mut self, bytes: u64) -> Option<Allocation> {
        let align = if bytes < LARGE_BYTES { BLOCK_ALIGN } else { PAGE_BYTES };
        let bytes = bytes.max(1).checked_next_multiple_of(align)?;
        let (extent, offset) = self.free_by_size.range((bytes, 0)..).find_map(|&(size, start)| {
            let offset = start.next_multiple_of(align);
            (offset - start + bytes <= size).then_some((start..start + size, offset))
        })?;
        let end = offset + bytes;
        self.remove_free(&extent);
        self.insert_free(extent.start..offset);
        self.insert_free(end..extent.end);
        self.blocks.insert(offset, bytes);
        self.allocated_bytes += bytes;

        let before = self.committed;
        self.committed = before.max(end.next_multiple_of(PAGE_BYTES).min(self.bytes));
        Some(Allocation { offset, bytes, commit: before..self.committed })
    }

    /// Takes back a block.
    ///
    /// # Panics
    /// If there is none at `offset`.
    pub(crate) fn free(&mut self, offset: u64) {
        let bytes = self.blocks.remove(&offset).expect("only a block is freed, and once");
        self.allocated_bytes -= bytes;
        let mut extent = offset..offset + bytes;
        if let Some((&start, &size)) = self.free.range(..offset).next_back()
            && start + size == offset
        {
            self.remove_free(&(start..offset));
            extent.start = start;
        }
        if let Some(&size) = self.free.get(&extent.end) {
            let next = extent.end..extent.end + size;
            self.remove_free(&next);
            extent.end = next.end;
        }
        self.insert_free(extent);
    }

    /// Gives up all free pages for good: they are no part of the arena any more, and can be punched.
    pub(crate) fn retire_free(&mut self) -> Vec<Range<u64>> {
        let mut retired = Vec::new();
        for (start, bytes) in self.free.clone() {
            let pages = start.next_multiple_of(PAGE_BYTES)..(start + bytes) / PAGE_BYTES * PAGE_BYTES;
            if !pages.is_empty() {
                self.remove_free(&(start..start + bytes));
                self.insert_free(start..pages.start);
                self.insert_free(pages.end..start + bytes);
                retired.push(pages);
            }
        }
        retired
    }

    /// Forgets that anything from `offset` on was committed.
    pub(crate) fn uncommit(&mut self, offset: u64) {
        self.committed = self.committed.min(offset);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn allocated_bytes(&self) -> u64 {
        self.allocated_bytes
    }

    fn insert_free(&mut self, extent: Range<u64>) {
        if !extent.is_empty() {
            self.free.insert(extent.start, extent.end - extent.start);
            self.free_by_size.insert((extent.end - extent.start, extent.start));
        }
    }

    fn remove_free(&mut self, extent: &Range<u64>) {
        self.free.remove(&extent.start);
        self.free_by_size.remove(&(extent.end - extent.start, extent.start));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::config;
    use super::*;

    const BYTES: u64 = 6 << 20;

    #[test]
    fn sizes_are_rounded_and_large_blocks_have_their_pages_alone() {
        let mut arena = Arena::new(BYTES);
        assert_eq!(arena.allocate(0), Some(Allocation { offset: 0, bytes: 64, commit: 0..4096 }));
        assert_eq!(arena.allocate(65), Some(Allocation { offset: 64, bytes: 128, commit: 4096..4096 }));
        let large = Allocation { offset: 4096, bytes: (1 << 20) + 4096, commit: 4096..(1 << 20) + 8192 };
        assert_eq!(arena.allocate((1 << 20) + 1), Some(large));
        assert_eq!(arena.allocate(3000).unwrap().offset, 192, "in the gap before the large block");
        assert_eq!(arena.allocate(BYTES), None);
        assert_eq!(arena.allocate(u64::MAX), None);
    }

    #[test]
    fn what_could_not_be_committed_is_due_again() {
        let mut arena = Arena::new(BYTES);
        arena.allocate(4096).unwrap();
        let failed = arena.allocate(8192).unwrap();
        assert_eq!(arena.allocate(4096).unwrap().commit, 12288..16384);
        arena.free(failed.offset);
        arena.uncommit(failed.commit.start);
        assert_eq!(arena.allocate(64), Some(Allocation { offset: 4096, bytes: 64, commit: 4096..8192 }));
        assert_eq!(arena.allocate(8192), Some(Allocation { offset: 16384, bytes: 8192, commit: 8192..24576 }));
    }

    #[test]
    fn free_pages_can_be_given_up_and_are_not_used_again() {
        let mut arena = Arena::new(BYTES);
        let blocks: Vec<u64> = (0..3).map(|_| arena.allocate(10_000).unwrap().offset).collect();
        arena.free(blocks[1]);
        let middle = blocks[1].next_multiple_of(PAGE_BYTES)..blocks[2] / PAGE_BYTES * PAGE_BYTES;
        let tail = (blocks[2] + 10_048).next_multiple_of(PAGE_BYTES)..BYTES;
        assert_eq!(arena.retire_free(), [middle.clone(), tail]);
        assert_eq!(arena.retire_free(), []);
        assert_eq!(arena.allocate(PAGE_BYTES), None);
        let small = arena.allocate(64).unwrap().offset;
        assert!(!middle.contains(&small));
        for offset in [blocks[0], blocks[2], small] {
            arena.free(offset);
        }
        assert!(arena.is_empty());
    }

    #[test]
    #[should_panic(expected = "only a block is freed, and once")]
    fn a_block_is_freed_once() {
        let mut arena = Arena::new(BYTES);
        let block = arena.allocate(100).unwrap();
        arena.free(block.offset);
        arena.free(block.offset);
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn blocks_lie_as_a_naive_search_would_lay_them(
            steps in proptest::collection::vec((0..10_u32, size(), any::<prop::sample::Index>()), 1..200),
        ) {
            let mut arena = Arena::new(BYTES);
            let mut naive = Naive { blocks: BTreeMap::new(), pages: vec![false; (BYTES / PAGE_BYTES) as usize] };
            for (kind, bytes, index) in steps {
                if kind < 6 {
                    naive.check(bytes, arena.allocate(bytes))?;
                } else if kind < 9 && !naive.blocks.is_empty() {
                    let offset = *index.get(&naive.blocks.keys().copied().collect::<Vec<_>>());
                    naive.blocks.remove(&offset);
                    arena.free(offset);
                } else {
                    let from = index.index(naive.pages.len());
                    naive.pages[from..].fill(false);
                    arena.uncommit(from as u64 * PAGE_BYTES);
                }
                prop_assert_eq!(arena.allocated_bytes(), naive.blocks.values().sum::<u64>());
                prop_assert_eq!(arena.is_empty(), naive.blocks.is_empty());
            }
            naive.blocks.keys().for_each(|&offset| arena.free(offset));
            prop_assert_eq!(arena.free, BTreeMap::from([(0, BYTES)]));
            prop_assert_eq!(arena.free_by_size, BTreeSet::from([(BYTES, 0)]));
        }
    }

    fn size() -> impl Strategy<Value = u64> {
        prop_oneof![3 => 0..10_000_u64, 1 => 0..600_000_u64, 1 => 1_000_000..2_200_000_u64]
    }

    struct Naive {
        blocks: BTreeMap<u64, u64>,
        /// Which are committed.
        pages: Vec<bool>,
    }

    impl Naive {
        /// The free extents as (size, offset).
        fn gaps(&self) -> Vec<(u64, u64)> {
            let starts = std::iter::once(0).chain(self.blocks.iter().map(|(offset, bytes)| offset + bytes));
            let ends = self.blocks.keys().copied().chain([BYTES]);
            starts.zip(ends).map(|(start, end)| (end - start, start)).filter(|gap| gap.0 > 0).collect()
        }

        fn check(&mut self, asked: u64, given: Option<Allocation>) -> Result<(), TestCaseError> {
            let align = if asked >= 1 << 20 { 4096 } else { 64 };
            let bytes = asked.max(1).div_ceil(align) * align;
            let fits = |&(size, start): &(u64, u64)| start.div_ceil(align) * align + bytes <= start + size;
            let best = self.gaps().into_iter().filter(fits).min();
            prop_assert_eq!(best.map(|gap| gap.1.div_ceil(align) * align), given.as_ref().map(|block| block.offset));
            if let Some(Allocation { offset, bytes: rounded, commit }) = given {
                prop_assert_eq!(rounded, bytes);
                self.blocks.insert(offset, bytes);
                let pages = |range: Range<u64>| (range.start / 4096) as usize..range.end.div_ceil(4096) as usize;
                self.pages[pages(commit)].fill(true);
                prop_assert!(self.pages[pages(offset..offset + bytes)].iter().all(|committed| *committed));
            }
            Ok(())
        }
    }
}
