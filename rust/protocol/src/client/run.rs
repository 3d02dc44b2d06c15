//! The table of one run: dense columns over its tasks, and the frames that they point into.

use headrace_kernel::seeded;
use headrace_wire::{BlobsBuf, Message, Moved, Outcome, Results};

use super::ending::{Ending, offset_in};
use super::{ProtocolError, SharedFrame};

/// How far a run is, as told so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Tasks of the run.
    pub tasks: u64,
    /// Tasks that have ended, however.
    pub ended: u64,
    /// Endings that have arrived: of kept tasks, and of all that did not end well.
    pub arrived: u64,
    /// Tasks among them that failed, killed their worker, or were refused.
    pub failed: u64,
    /// Tasks among them that were skipped.
    pub skipped: u64,
    /// Tasks among them that were cancelled.
    pub cancelled: u64,
    /// Whether all tasks have ended and no frame of this run will follow. Never for calls.
    pub finished: bool,
}

impl Progress {
    /// Takes over what a frame says of the whole run.
    pub(super) fn note_frame(&mut self, results: &Results<'_>) {
        self.ended = self.ended.max(results.ended);
        self.finished |= results.finished;
    }

    /// Counts one ending.
    pub(super) fn note_ending(&mut self, outcome: Outcome) {
        self.arrived += 1;
        match outcome {
            Outcome::Done => {}
            Outcome::Failed | Outcome::Died | Outcome::Refused | Outcome::TimedOut => self.failed += 1,
            Outcome::Skipped => self.skipped += 1,
            Outcome::Cancelled => self.cancelled += 1,
        }
    }
}

/// Entry of `Run::frame_of` for a task that has not ended as far as we know. Zero, so that untouched pages of the
/// column are never backed by memory.
const PENDING: u32 = 0;
/// Entry of `Run::frame_of` for a task whose ending was taken.
const TAKEN: u32 = u32::MAX;

/// The table of one run.
#[derive(Debug)]
pub(super) struct Run {
    /// Per task: [`PENDING`], [`TAKEN`], or one more than the position in `frames`.
    frame_of: Vec<u32>,
    /// Per task: where its bytes begin in that frame.
    offset: Vec<u32>,
    /// Per task: how many there are.
    len: Vec<u32>,
    /// Per task: the [`Outcome`].
    outcome: Vec<u8>,
    frames: Vec<HeldFrame>,
    /// Tasks in the order in which they arrived.
    arrivals: Vec<u32>,
    progress: Progress,
}

/// A frame, as long as some task's ending lies in it.
#[derive(Debug)]
struct HeldFrame {
    frame: Option<SharedFrame>,
    endings: u32,
    /// Bytes of these endings.
    bytes: u32,
}

/// What a frame may keep alive beyond four times what its endings need: the fields of one with nothing else in it.
const SPARE_BYTES_MAX: usize = 256;
/// Bytes of the columns for each ending in a frame.
const COLUMN_BYTES: usize = 8;

impl Run {
    pub(super) fn new(tasks: u32) -> Self {
        let len = tasks as usize;
        Self {
            frame_of: vec![PENDING; len],
            offset: vec![0; len],
            len: vec![0; len],
            outcome: vec![0; len],
            frames: Vec::new(),
            arrivals: Vec::new(),
            progress: Progress { tasks: tasks.into(), ..Progress::default() },
        }
    }

    /// Enters what a frame tells; returns how many of its endings were known already. The first word stands.
    pub(super) fn handle_results(
        &mut self,
        frame: &SharedFrame,
        results: &Results<'_>,
    ) -> Result<usize, ProtocolError> {
        let tasks = self.frame_of.len();
        if !results.index.all(|index| (index as usize) < tasks) {
            return Err(ProtocolError::NoSuchTask { run: results.run, tasks });
        }
        self.progress.note_frame(results);
        let known = self.arrivals.len();
        let name = self.frames.len() as u32 + 1;
        let mut offset = offset_in(frame, results.values.bytes) as u32;
        let mut bytes = 0;
        self.arrivals.reserve(results.index.len());
        for ((index, len), &outcome) in results.index.iter().zip(results.values.lens.iter()).zip(results.outcome) {
            let task = index as usize;
            if self.frame_of[task] == PENDING {
                (self.frame_of[task], self.offset[task], self.len[task]) = (name, offset, len);
                self.outcome[task] = outcome;
                bytes += len;
                self.arrivals.push(index);
                self.progress.note_ending(known_outcome(outcome));
            }
            offset += len;
        }
        let endings = self.arrivals.len() - known;
        if endings > 0 {
            self.frames.push(HeldFrame { frame: Some(SharedFrame::clone(frame)), endings: endings as u32, bytes });
        }
        Ok(results.index.len() - endings)
    }

    /// Enters other encodings of results that nobody has taken yet.
    pub(super) fn handle_moved(&mut self, frame: &SharedFrame, moved: &Moved<'_>) {
        if seeded!("move not heard") {
            return;
        }
        let name = self.frames.len() as u32 + 1;
        self.frames.push(HeldFrame { frame: Some(SharedFrame::clone(frame)), endings: 0, bytes: 0 });
        let mut offset = offset_in(frame, moved.values.bytes) as u32;
        for (index, len) in moved.index.iter().zip(moved.values.lens.iter()) {
            let task = index as usize;
            let old = self.frame_of.get(task).copied().unwrap_or(PENDING);
            if !matches!(old, PENDING | TAKEN) && self.outcome[task] == Outcome::Done as u8 {
                let old_len = std::mem::replace(&mut self.len[task], len);
                (self.frame_of[task], self.offset[task]) = (name, offset);
                let held = &mut self.frames[name as usize - 1];
                (held.endings, held.bytes) = (held.endings + 1, held.bytes + len);
                let left = &mut self.frames[old as usize - 1];
                (left.endings, left.bytes) = (left.endings - 1, left.bytes - old_len);
                if old != name {
                    self.settle(old);
                }
            }
            offset += len;
        }
        if self.frames[name as usize - 1].endings == 0 {
            self.frames.pop();
        } else {
            self.settle(name);
        }
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    pub(super) fn arrivals(&self) -> &[u32] {
        &self.arrivals
    }

    pub(super) fn has_ended(&self, index: u32) -> bool {
        self.frame_of.get(index as usize).is_some_and(|&frame| frame != PENDING || self.progress.finished)
    }

    pub(super) fn peek(&self, index: u32) -> Option<Ending> {
        let task = index as usize;
        let name = self.frame_of.get(task).copied().filter(|name| !matches!(*name, PENDING | TAKEN))?;
        let frame = self.frames[name as usize - 1].frame.as_ref()?;
        let start = self.offset[task] as usize;
        Some(Ending::new(known_outcome(self.outcome[task]), frame, start..start + self.len[task] as usize))
    }

    pub(super) fn take(&mut self, index: u32) -> Option<Ending> {
        let ending = self.peek(index)?;
        let name = std::mem::replace(&mut self.frame_of[index as usize], TAKEN);
        let held = &mut self.frames[name as usize - 1];
        (held.endings, held.bytes) = (held.endings - 1, held.bytes - self.len[index as usize]);
        self.settle(name);
        Some(ending)
    }

    /// A frame has fewer endings than before. It goes with the last; and before, if the rest is a small part of it: that gets a
    /// frame of its own.
    fn settle(&mut self, name: u32) {
        let held = &mut self.frames[name as usize - 1];
        let needed = held.bytes as usize + COLUMN_BYTES * held.endings as usize;
        match &held.frame {
            _ if held.endings == 0 => held.frame = None,
            Some(frame) if frame.len() > 4 * needed + SPARE_BYTES_MAX => self.compact(name),
            Some(_) | None => {}
        }
    }

    /// Copies the endings that lie in a frame to a new one.
    #[cold]
    fn compact(&mut self, name: u32) {
        let Some(frame) = self.frames[name as usize - 1].frame.clone() else { return };
        let index = match Message::decode(&frame) {
            Ok(Message::Results(results)) => results.index,
            Ok(Message::Moved(moved)) => moved.index,
            _ => unreachable!("only frames of results are held"),
        };
        // A frame may name a task twice, or one that is none.
        let is_here = |index: &u32| self.frame_of.get(*index as usize) == Some(&name);
        let mut left: Vec<u32> = index.iter().filter(is_here).collect();
        left.sort_unstable();
        left.dedup();
        let mut values = BlobsBuf::default();
        for &index in &left {
            let start = self.offset[index as usize] as usize;
            values.push(&frame[start..start + self.len[index as usize] as usize]);
        }
        let mut compact = Vec::new();
        let moved = Moved { run: 0, index: (&left).into(), values: values.as_blobs() };
        Message::Moved(moved).encode(&mut compact);
        let Ok(Message::Moved(moved)) = Message::decode(&compact) else { unreachable!("it was just written") };
        let mut offset = offset_in(&compact, moved.values.bytes) as u32;
        for &index in &left {
            self.offset[index as usize] = offset;
            offset += self.len[index as usize];
        }
        self.frames[name as usize - 1].frame = Some(SharedFrame::new(compact));
    }
}

fn known_outcome(number: u8) -> Outcome {
    number.try_into().expect("the decoder lets only known outcomes through")
}
