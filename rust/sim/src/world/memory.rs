//! Memory and disk: a table of what lies in which block. Who writes to a block overwrites what was there, so a block that is
//! used again too early (S1) shows as a wrong value somewhere.

use headrace_protocol::broker::{SpillFrom, SpillPart};
use headrace_wire::citations;
use std::collections::BTreeMap;

/// What a result of memory and disk is read from.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    words: BTreeMap<(u32, u64), u64>,
}

/// A value that somebody looks at, and what it must be.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) value: Vec<u8>,
    pub(crate) word: u64,
}

/// Bytes of an inline value: a mark that is not that of a citation, and the word.
const INLINE_MARK: u8 = 0;
/// Bytes of an inline value that is worth a move to disk.
const PADDED_BYTES: usize = 700;

impl Memory {
    pub(crate) fn write(&mut self, segment: u32, offset: u64, word: u64) {
        self.words.insert((segment, offset), word);
    }

    /// What a value says; 0, which nobody writes, where nothing was ever written.
    pub(crate) fn read(&self, value: &[u8]) -> u64 {
        match citations(value).next() {
            Some(cited) => self.words.get(&(cited.segment, cited.offset)).copied().unwrap_or(0),
            None => inline_word(value),
        }
    }

    /// Copies to a file. What was there may be gone meanwhile, or something else may lie there.
    pub(crate) fn copy(&mut self, file: u32, parts: &[SpillPart]) {
        for SpillPart { from, to } in parts {
            let word = match from {
                SpillFrom::Block { segment, offset, .. } => self.words.get(&(*segment, *offset)).copied().unwrap_or(0),
                SpillFrom::Value(value) => inline_word(value.bytes()),
            };
            self.write(file, *to, word);
        }
    }
}

/// An inline value.
pub(crate) fn inline(word: u64, padded: bool) -> Vec<u8> {
    let mut value = vec![INLINE_MARK];
    value.extend_from_slice(&word.to_le_bytes());
    if padded {
        value.resize(PADDED_BYTES, 0);
    }
    value
}

fn inline_word(value: &[u8]) -> u64 {
    value.get(1..9).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}
