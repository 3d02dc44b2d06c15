//! The trace: a hash of all that happened, and the words for it where somebody wants to read them.

/// What happened.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(with_words: bool) -> Self {
        Trace { hash: 0, lines: with_words.then(Vec::new) }
    }

    /// A number goes into the hash.
    pub(crate) fn number(&mut self, number: u64) {
        self.hash = (self.hash.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    /// Bytes go into the hash.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.number(u64::from_le_bytes(*word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.number(u64::from_le_bytes(last) ^ (bytes.len() as u64) << 56);
    }

    /// Words, for people.
    pub(crate) fn note(&mut self, now_ns: u64, words: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>13.6} ms  {}", now_ns as f64 / 1e6, words()));
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
