//! A row of bytes, read as choices: what a fuzzer turns, and what repeats a failure.

/// What is left of it. Beyond its end every choice is 0.
pub(crate) struct Script<'a> {
    bytes: &'a [u8],
}

impl<'a> Script<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Script { bytes }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        *first
    }

    /// A number below `bound`, which is at most 256.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    pub(crate) fn one_in(&mut self, odds: usize) -> bool {
        self.below(odds) == 1
    }

    /// Up to `most` bytes as they stand.
    pub(crate) fn take(&mut self, most: usize) -> &'a [u8] {
        let len = self.below(most + 1).min(self.bytes.len());
        let (taken, rest) = self.bytes.split_at(len);
        self.bytes = rest;
        taken
    }

    /// A number that is small more often than not, and at an end of its range now and then.
    pub(crate) fn number(&mut self) -> u32 {
        match self.byte() {
            small @ 0..=199 => u32::from(small % 8),
            200..=229 => u32::from(self.byte()),
            230..=239 => u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()]),
            240..=247 => u32::MAX - u32::from(self.byte() % 4),
            _ => (1 << 31) + u32::from(self.byte() % 4) - 1,
        }
    }

    /// Up to `most` numbers.
    pub(crate) fn numbers(&mut self, most: usize) -> Vec<u32> {
        (0..self.below(most + 1)).map(|_| self.number()).collect()
    }
}
