//! Free slots, lowest first, so that a graph that follows a finished one lies in memory in order.

/// A set of slots as a tree of bits: a bit of level k+1 says that a word of level k is not empty.
#[derive(Default)]
pub(crate) struct FreeSlots {
    levels: [Vec<u64>; LEVELS],
    len: usize,
}

impl FreeSlots {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn insert(&mut self, slot: u32) {
        debug_assert!(!self.contains(slot));
        self.len += 1;
        let mut bit = slot as usize;
        for level in &mut self.levels {
            let word = bit / WORD;
            if word >= level.len() {
                level.resize(word + 1, 0);
            }
            let was_empty = level[word] == 0;
            level[word] |= 1 << (bit % WORD);
            if !was_empty {
                return;
            }
            bit = word;
        }
    }

    /// Takes the lowest slot. The top level is searched word by word: 256 words for 2³² slots of 64⁴ a word.
    pub(crate) fn pop(&mut self) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let mut bit = self.levels[LEVELS - 1].iter().position(|&word| word != 0)?;
        for level in self.levels.iter().rev() {
            bit = bit * WORD + level[bit].trailing_zeros() as usize;
        }
        self.len -= 1;
        let mut place = bit;
        for level in &mut self.levels {
            let word = place / WORD;
            level[word] &= !(1 << (place % WORD));
            if level[word] != 0 {
                break;
            }
            place = word;
        }
        u32::try_from(bit).ok()
    }

    pub(crate) fn contains(&self, slot: u32) -> bool {
        let slot = slot as usize;
        self.levels[0].get(slot / WORD).is_some_and(|word| word >> (slot % WORD) & 1 == 1)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.levels.iter().map(|level| level.capacity() * size_of::<u64>()).sum()
    }
}

const WORD: usize = u64::BITS as usize;
const LEVELS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_first() {
        let mut free = FreeSlots::default();
        for slot in [70_000, 5, 4_096, 64, 63, 20_000_000] {
            free.insert(slot);
        }
        let order: Vec<u32> = std::iter::from_fn(|| free.pop()).collect();
        assert_eq!(order, [5, 63, 64, 4_096, 70_000, 20_000_000]);
        free.insert(7);
        assert_eq!((free.pop(), free.pop(), free.len()), (Some(7), None, 0));
    }
}
