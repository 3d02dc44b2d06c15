//! Marks in what a worker process writes: they say which attempt has written the bytes that follow.
//!
//! A mark stands directly before its text and says how long that is. Both leave in one write of at most [`PIECE_BYTES_MAX`]
//! bytes, which a pipe takes whole or not at all, and never in the middle of another's. So there is nothing to end, a process
//! that dies leaves no half of a mark, and forked children may write to the same pipe. What stands between such pieces is of
//! native code or of other programs. A text may look like marks in any way: it is not looked at.
//!
//! Layout: [`MAGIC`], then little-endian length of the text (`u16`), task, attempt, and the number of the write within its
//! process (`u32` each).

/// What a mark begins with: no text in UTF-8 contains it, and hardly any other.
const MAGIC: [u8; 6] = [0xff, b'h', b'r', 0x00, 0xfe, 0x01];

/// Bytes of a mark.
pub const MARK_BYTES: usize = MAGIC.len() + 2 + 3 * 4;

/// Longest piece with its mark: what Linux puts into a pipe in one go.
pub const PIECE_BYTES_MAX: usize = 4_096;

/// Longest text behind a mark.
pub const MARKED_BYTES_MAX: usize = PIECE_BYTES_MAX - MARK_BYTES;

/// Who wrote a piece of text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Slot of the task.
    pub task: u32,
    /// The attempt.
    pub attempt: u32,
    /// The write's number within its process, for the order of what went to different pipes. Numbers go round.
    pub number: u32,
}

impl Mark {
    /// The mark before a text of so many bytes.
    pub fn write(self, text_bytes: u16) -> [u8; MARK_BYTES] {
        let mut mark = [0; MARK_BYTES];
        mark[..6].copy_from_slice(&MAGIC);
        mark[6..8].copy_from_slice(&text_bytes.to_le_bytes());
        mark[8..12].copy_from_slice(&self.task.to_le_bytes());
        mark[12..16].copy_from_slice(&self.attempt.to_le_bytes());
        mark[16..].copy_from_slice(&self.number.to_le_bytes());
        mark
    }

    /// The mark, and the length of its text; nothing if these bytes only begin like one.
    fn read(mark: &[u8; MARK_BYTES]) -> Option<(Self, usize)> {
        let word = |at: usize| u32::from_le_bytes([mark[at], mark[at + 1], mark[at + 2], mark[at + 3]]);
        let text_bytes = usize::from(u16::from_le_bytes([mark[6], mark[7]]));
        let mark = Self { task: word(8), attempt: word(12), number: word(16) };
        ((1..=MARKED_BYTES_MAX).contains(&text_bytes) && mark.attempt > 0).then_some((mark, text_bytes))
    }
}

/// Takes the marks out of what one pipe delivers, however it is cut.
#[derive(Debug, Default)]
pub struct MarkReader {
    mark: Option<Mark>,
    /// Bytes of the marked text that are still to come.
    left: usize,
    /// What may be the beginning of a mark.
    held: Vec<u8>,
}

impl MarkReader {
    /// Takes a piece and gives its texts, each with the mark that stands before it.
    pub fn push(&mut self, piece: &[u8], mut give: impl FnMut(Option<Mark>, &[u8])) {
        let mut joined = std::mem::take(&mut self.held);
        let mut rest = piece;
        if !joined.is_empty() {
            joined.extend_from_slice(piece);
            rest = &joined;
        }
        while !rest.is_empty() {
            if self.left > 0 {
                let (text, behind) = rest.split_at(self.left.min(rest.len()));
                self.left -= text.len();
                give(self.mark, text);
                rest = behind;
                continue;
            }
            let (text, behind) = rest.split_at(mark_in(rest));
            if !text.is_empty() {
                give(None, text);
            }
            let Some((mark, behind_mark)) = behind.split_first_chunk() else {
                self.held = behind.to_vec();
                return;
            };
            rest = match Mark::read(mark) {
                Some((mark, text_bytes)) => {
                    (self.mark, self.left) = (Some(mark), text_bytes);
                    behind_mark
                }
                None => {
                    give(None, &behind[..1]);
                    &behind[1..]
                }
            };
        }
    }

    /// Nothing more will come: what looked like the beginning of a mark is text.
    pub fn finish(&mut self, mut give: impl FnMut(Option<Mark>, &[u8])) {
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            give(None, &held);
        }
    }
}

/// Where a mark begins, or may begin if more comes; the end if nowhere.
fn mark_in(text: &[u8]) -> usize {
    let may_begin = |at: &usize| {
        let rest = &text[*at..];
        let len = rest.len().min(MAGIC.len());
        rest[..len] == MAGIC[..len]
    };
    (0..text.len()).filter(|at| text[*at] == MAGIC[0]).find(may_begin).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MARK: Mark = Mark { task: 70_000, attempt: 3, number: 9 };

    /// The texts that a reader gives for these pieces, where those of one author that follow each other are one.
    fn read(pieces: &[&[u8]]) -> Vec<(Option<Mark>, Vec<u8>)> {
        let mut texts: Vec<(Option<Mark>, Vec<u8>)> = Vec::new();
        let mut reader = MarkReader::default();
        let mut give = |mark: Option<Mark>, text: &[u8]| match texts.last_mut() {
            Some((last, all)) if *last == mark => all.extend_from_slice(text),
            _ => texts.push((mark, text.to_vec())),
        };
        pieces.iter().for_each(|piece| reader.push(piece, &mut give));
        reader.finish(&mut give);
        texts
    }

    fn marked(mark: Mark, text: &[u8]) -> Vec<u8> {
        [&mark.write(text.len() as u16)[..], text].concat()
    }

    #[test]
    fn a_text_is_its_marks_and_what_follows_is_nobodys() {
        let written = [b"before".to_vec(), marked(MARK, b"mine\n"), b"after".to_vec()].concat();
        let texts = [(None, b"before".to_vec()), (Some(MARK), b"mine\n".to_vec()), (None, b"after".to_vec())];
        assert_eq!(read(&[&written]), texts);
        for cut in 0..written.len() {
            assert_eq!(read(&[&written[..cut], &written[cut..]]), texts, "cut at {cut}");
        }
    }

    #[test]
    fn a_marked_text_may_look_like_a_mark() {
        let text = marked(Mark { task: 1, ..MARK }, b"not yours");
        assert_eq!(read(&[&marked(MARK, &text)]), [(Some(MARK), text)]);
    }

    #[test]
    fn the_beginning_of_a_mark_is_text_if_nothing_follows() {
        let mark = MARK.write(4);
        for len in 1..MARK_BYTES {
            let text = [b"x", &mark[..len]].concat();
            assert_eq!(read(&[&text]), [(None, text.clone())], "{len} bytes");
        }
    }

    #[test]
    fn what_only_begins_like_a_mark_is_text_and_takes_nothing_with_it() {
        let nobody = Mark { attempt: 0, ..MARK }.write(5);
        for no_mark in [MARK.write(0), MARK.write(u16::MAX), nobody] {
            let written = [&no_mark[..], &marked(MARK, b"mine")].concat();
            assert_eq!(read(&[&written]), [(None, no_mark.to_vec()), (Some(MARK), b"mine".to_vec())]);
        }
    }

    proptest! {
        /// Any bytes in any pieces: nothing is lost but marks, and no piece waits for more than the rest of one.
        #[test]
        fn any_bytes_are_read(
            texts in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 1..60)), 0..20),
            noise in prop::collection::vec(prop_oneof![Just(0xff_u8), Just(b'h'), Just(b'r'), Just(0), any::<u8>()], 0..80),
            cuts in prop::collection::vec(1..40_usize, 40),
        ) {
            let mut written = Vec::new();
            for (is_marked, text) in &texts {
                written.extend(if *is_marked { marked(MARK, text) } else { text.clone() });
            }
            let whole = read(&[&written]);
            let mut pieces = Vec::new();
            let mut rest = &written[..];
            for cut in cuts {
                let (piece, behind) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = behind;
            }
            pieces.push(rest);
            prop_assert_eq!(read(&pieces), whole);
            let read: usize = read(&[&noise]).iter().map(|(_, text)| text.len()).sum();
            prop_assert!(read <= noise.len());
        }
    }
}
