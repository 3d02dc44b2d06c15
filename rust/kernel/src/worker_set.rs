//! A set of workers: a bit each.

use crate::ids::WorkerId;

#[derive(Clone, Default)]
pub(crate) struct WorkerSet {
    words: Vec<usize>,
    len: usize,
}

const BITS: usize = usize::BITS as usize;

impl WorkerSet {
    pub(crate) fn any(&self) -> bool {
        self.len > 0
    }

    #[inline]
    pub(crate) fn insert(&mut self, worker: WorkerId) {
        let (word, bit) = (worker.at() / BITS, 1 << (worker.at() % BITS));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.len += usize::from(self.words[word] & bit == 0);
        self.words[word] |= bit;
    }

    pub(crate) fn remove(&mut self, worker: WorkerId) {
        let (word, bit) = (worker.at() / BITS, 1 << (worker.at() % BITS));
        self.len -= usize::from(self.words[word] & bit != 0);
        self.words[word] &= !bit;
    }

    /// Those that are in another set as well, ascending.
    pub(crate) fn among(&self, others: &[usize]) -> Vec<WorkerId> {
        let mut both = Vec::new();
        for (place, (mine, others)) in self.words.iter().zip(others).enumerate() {
            let mut rest = mine & others;
            while rest != 0 {
                both.push(WorkerId((place * BITS) as u32 + rest.trailing_zeros()));
                rest &= rest - 1;
            }
        }
        both
    }
}
