//! Free slots, lowest first, so that a graph that follows a finished one lies in memory in order.

/// A set of slots as a tree of bits: a bit of level k+1 says that a word of level k is not empty.
#[derive(Clone, Default)]
pub(crate) struct FreeSlots {
    levels: [Vec<u64>; LEVELS],
    len: usize,
}

impl FreeSlots {
    #[inline]
    pub(crate) fn insert(&mut self, slot: u32) {
        debug_assert!(!self.contains(slot));
        self.len += 1;
        match self.levels[0].get_mut(slot as usize / WORD) {
            Some(word) if *word != 0 => *word |= 1 << (slot as usize % WORD),
            _ => self.insert_in_empty_word(slot as usize),
        }
    }

    fn insert_in_empty_word(&mut self, mut bit: usize) {
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

    /// Takes the lowest slots, at most `count`, in order.
    pub(crate) fn take(&mut self, count: usize, mut f: impl FnMut(u32)) {
        let mut left = count.min(self.len);
        self.len -= left;
        while left > 0 {
            // The top level is searched from its start: 256 words for 2³² slots.
            let top = &self.levels[LEVELS - 1];
            let Some(mut place) = top.iter().position(|&word| word != 0) else { return };
            for level in self.levels[1..].iter().rev() {
                place = place * WORD + level[place].trailing_zeros() as usize;
            }
            let word = &mut self.levels[0][place];
            while left > 0 && *word != 0 {
                f((place * WORD) as u32 + word.trailing_zeros());
                *word &= *word - 1;
                left -= 1;
            }
            let mut emptied = *word == 0;
            for level in &mut self.levels[1..] {
                if !emptied {
                    break;
                }
                level[place / WORD] &= !(1 << (place % WORD));
                place /= WORD;
                emptied = level[place] == 0;
            }
        }
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
        let mut order = Vec::new();
        free.take(4, |slot| order.push(slot));
        assert_eq!(order, [5, 63, 64, 4_096]);
        free.insert(7);
        free.take(9, |slot| order.push(slot));
        assert_eq!(order[4..], [7, 70_000, 20_000_000]);
        free.take(1, |_| unreachable!());
    }
}
