//! The table of single calls, which shrinks again: its size is the number of calls not yet forgotten.

use std::collections::VecDeque;

use headrace_wire::{EXTERNAL, Moved, Outcome, Results, cites};
use rustc_hash::FxHashMap;

use super::SharedFrame;
use super::ending::{Ending, offset_in};
use super::run::Progress;

/// The table of calls.
#[derive(Debug, Default)]
pub(super) struct Calls {
    rows: FxHashMap<u32, Row>,
    /// Ended calls that nobody was told of yet; some may be forgotten meanwhile.
    arrivals: VecDeque<u32>,
    progress: Progress,
    /// Bytes of values that this client has put and that lie in frames.
    put_bytes: usize,
}

/// One call.
#[derive(Debug)]
enum Row {
    Pending,
    Ended(Ending),
    /// A value that this client has put and that lies in a frame.
    Put(Ending),
    Taken {
        bytes: usize,
    },
}

impl Calls {
    /// Opens a row; indices count up and are not used again.
    pub(super) fn open(&mut self) -> Option<u32> {
        let index = u32::try_from(self.progress.tasks).ok().filter(|index| index & EXTERNAL == 0)?;
        self.progress.tasks += 1;
        self.rows.insert(index, Row::Pending);
        Some(index)
    }

    /// Enters the value of a call that was opened for it.
    pub(super) fn put(&mut self, index: u32, value: &[u8]) {
        if let Some(row @ Row::Pending) = self.rows.get_mut(&index) {
            let frame = SharedFrame::new(value.to_vec());
            let ending = Ending::new(Outcome::Done, &frame, 0..value.len());
            if cites(value) {
                *row = Row::Ended(ending);
            } else {
                *row = Row::Put(ending);
                self.put_bytes += value.len();
            }
            self.progress.note_ending(Outcome::Done);
        }
    }

    /// Enters what a frame tells; returns how many of its endings nobody waits for.
    pub(super) fn handle_results(&mut self, frame: &SharedFrame, results: &Results<'_>) -> usize {
        self.progress.note_frame(results);
        self.progress.finished = false;
        let mut late = 0;
        let mut start = offset_in(frame, results.values.bytes);
        for ((index, len), &outcome) in results.index.iter().zip(results.values.lens.iter()).zip(results.outcome) {
            let end = start + len as usize;
            match self.rows.get_mut(&index) {
                Some(row @ Row::Pending) => {
                    let outcome = outcome.try_into().expect("the decoder lets only known outcomes through");
                    *row = Row::Ended(Ending::new(outcome, frame, start..end).compact());
                    self.progress.note_ending(outcome);
                    self.arrivals.push_back(index);
                }
                _ => late += 1,
            }
            start = end;
        }
        self.trim_arrivals();
        late
    }

    /// Enters other encodings of results that nobody has taken yet.
    pub(super) fn handle_moved(&mut self, frame: &SharedFrame, moved: &Moved<'_>) {
        let mut start = offset_in(frame, moved.values.bytes);
        for (index, len) in moved.index.iter().zip(moved.values.lens.iter()) {
            let end = start + len as usize;
            if let Some(row @ (Row::Ended(_) | Row::Put(_))) = self.rows.get_mut(&index)
                && row.ending().is_some_and(|ending| ending.outcome() == Outcome::Done)
            {
                let moved = Row::Ended(Ending::new(Outcome::Done, frame, start..end).compact());
                self.put_bytes -= std::mem::replace(row, moved).put_bytes();
            }
            start = end;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    pub(super) fn has_ended(&self, index: u32) -> bool {
        self.rows.get(&index).is_some_and(|row| !matches!(row, Row::Pending))
    }

    pub(super) fn is_open(&self, index: u32) -> bool {
        self.rows.contains_key(&index)
    }

    pub(super) fn peek(&self, index: u32) -> Option<Ending> {
        self.rows.get(&index)?.ending().cloned()
    }

    pub(super) fn take(&mut self, index: u32) -> Option<Ending> {
        let row = self.rows.get_mut(&index)?;
        let ending = row.ending()?.clone();
        let taken = Row::Taken { bytes: super::weight(ending.bytes()) };
        self.put_bytes -= std::mem::replace(row, taken).put_bytes();
        Some(ending)
    }

    /// Removes a row. `None` if there was none; else how many bytes it has left at the broker, if that is known.
    pub(super) fn forget(&mut self, index: u32) -> Option<Option<usize>> {
        let row = self.rows.remove(&index)?;
        self.put_bytes -= row.put_bytes();
        Some(match row {
            Row::Pending => None,
            Row::Ended(ending) | Row::Put(ending) => Some(super::weight(ending.bytes())),
            Row::Taken { bytes } => Some(bytes),
        })
    }

    /// Bytes of values that were put and that lie in frames.
    pub(super) fn put_bytes(&self) -> usize {
        self.put_bytes
    }

    pub(super) fn pop_arrival(&mut self) -> Option<u32> {
        loop {
            let index = self.arrivals.pop_front()?;
            if self.rows.contains_key(&index) {
                return Some(index);
            }
        }
    }

    /// Keeps the queue in proportion to the table where nobody reads it; at a constant cost a call.
    fn trim_arrivals(&mut self) {
        /// Below this the queue is not worth a look.
        const LEN_MIN: usize = 64;
        if self.arrivals.len() > LEN_MIN.max(2 * self.rows.len()) {
            self.arrivals.retain(|index| self.rows.contains_key(index));
        }
    }
}

impl Row {
    fn ending(&self) -> Option<&Ending> {
        match self {
            Row::Ended(ending) | Row::Put(ending) => Some(ending),
            Row::Pending | Row::Taken { .. } => None,
        }
    }

    fn put_bytes(&self) -> usize {
        match self {
            Row::Put(ending) => ending.bytes().len(),
            Row::Pending | Row::Ended(_) | Row::Taken { .. } => 0,
        }
    }
}

#[cfg(test)]
impl Calls {
    /// Entries for which memory is reserved.
    pub(super) fn capacity(&self) -> usize {
        self.rows.capacity() + self.arrivals.capacity()
    }
}

#[cfg(test)]
mod tests {
    use headrace_wire::{BlobsBuf, Citation, Message, write_citations};

    use super::*;

    fn note_move(calls: &mut Calls, index: u32, value: &[u8]) {
        let (mut frame, mut values) = (Vec::new(), BlobsBuf::default());
        values.push(value);
        Message::Moved(Moved { run: 0, index: [index][..].into(), values: values.as_blobs() }).encode(&mut frame);
        let frame = SharedFrame::new(frame);
        let Ok(Message::Moved(moved)) = Message::decode(&frame) else { unreachable!("it was just written") };
        calls.handle_moved(&frame, &moved);
    }

    #[test]
    fn bytes_that_were_put_count_while_they_are_held_and_lie_in_frames() {
        let mut calls = Calls::default();
        let mut citing = Vec::new();
        write_citations(&[Citation { segment: 3, offset: 0, bytes: 64 }], &mut citing);
        let puts = [&b"12"[..], b"345", b"6789", b"abcde", &citing].map(|value| {
            let index = calls.open().unwrap();
            calls.put(index, value);
            index
        });
        assert_eq!(calls.put_bytes(), 14);
        calls.forget(puts[0]);
        assert_eq!(calls.put_bytes(), 12);
        for _ in 0..2 {
            note_move(&mut calls, puts[1], &citing);
            assert_eq!(calls.put_bytes(), 9);
        }
        assert_eq!(calls.take(puts[2]).unwrap().bytes(), b"6789");
        assert_eq!(calls.put_bytes(), 5);
        for index in puts {
            calls.forget(index);
        }
        assert_eq!((calls.put_bytes(), calls.len()), (0, 0));
    }
}
