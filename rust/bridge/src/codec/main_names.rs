//! Whether a pickle names anything of `__main__`, which does not exist elsewhere.
//!
//! The text alone proves nothing: Python's own filters of warnings have it as data, and scikit-learn sends them with each call.
//! So the pickle is read, operation by operation: what counts is a global whose module it is.
use pyo3::prelude::*;

const MAIN: &[u8] = b"__main__";

/// Whether `pickle`, made by the C pickler with protocol 5, refers to something by its name in `__main__`. What it does not
/// understand it says yes to.
#[pyfunction]
pub(crate) fn names_main(pickle: &[u8]) -> bool {
    Reader { rest: pickle }.finds_main().unwrap_or(true)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// `None` if this is no pickle as expected.
    fn finds_main(&mut self) -> Option<bool> {
        // Numbers in the pickle's memo under which the text can be had again, and how many there are of all things.
        let (mut memo, mut memo_len): (Vec<u32>, u32) = (Vec::new(), 0);
        // Whether each of the last two things on the stack is that text.
        let mut top = [false; 2];
        loop {
            let is_main = match self.byte()? {
                0x80 => {
                    self.take(1)?; // PROTO
                    continue;
                }
                0x95 => {
                    self.take(8)?; // FRAME
                    continue;
                }
                // MEMOIZE
                0x94 => {
                    if top[1] {
                        memo.push(memo_len);
                    }
                    memo_len += 1;
                    continue;
                }
                b'.' => return Some(false),
                // STACK_GLOBAL, under its module and its name
                0x93 if top[0] => return Some(true),
                // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
                0x8c => self.counted(1)? == MAIN,
                b'X' => self.counted(4)? == MAIN,
                0x8d => self.counted(8)? == MAIN,
                // BINGET, LONG_BINGET
                b'h' => memo.contains(&(self.number(1)? as u32)),
                b'j' => memo.contains(&(self.number(4)? as u32)),
                operation => {
                    self.skip_argument(operation)?;
                    false
                }
            };
            top = [top[1], is_main];
        }
    }

    fn skip_argument(&mut self, operation: u8) -> Option<()> {
        match operation {
            // SHORT_BINBYTES, LONG1; BINBYTES, LONG4; BINBYTES8, BYTEARRAY8
            b'C' | 0x8a => drop(self.counted(1)?),
            b'B' | 0x8b => drop(self.counted(4)?),
            0x8e | 0x96 => drop(self.counted(8)?),
            // BININT1, BININT2, BININT, BINFLOAT
            b'K' => drop(self.take(1)?),
            b'M' => drop(self.take(2)?),
            b'J' => drop(self.take(4)?),
            b'G' => drop(self.take(8)?),
            // None, booleans, empty containers, marks, and what only moves things on the stack.
            b'N' | b')' | b']' | b'}' | b'(' | b'0' | b'1' | b'2' | b'R' | b'b' | b'a' | b'e' | b's' | b'u' | b't' => {}
            0x81 | 0x85..=0x89 | 0x8f..=0x93 | 0x97 | 0x98 => {}
            _ => return None,
        }
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn number(&mut self, len: usize) -> Option<u64> {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(self.take(len)?);
        Some(u64::from_le_bytes(bytes))
    }

    /// A length in so many bytes, and what follows.
    fn counted(&mut self, len: usize) -> Option<&'a [u8]> {
        let count = self.number(len)?;
        self.take(usize::try_from(count).ok()?)
    }
}
