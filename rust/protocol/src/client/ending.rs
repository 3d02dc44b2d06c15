//! How a task ended, and what it left.

use std::ops::Range;
use std::sync::Arc;

use headrace_wire::{CancelReason, Death, Message, Outcome, Overrun};

use super::SharedFrame;

/// How a task ended. It shares the frame that told of it, and is cheap to clone.
#[derive(Clone)]
pub struct Ending {
    outcome: Outcome,
    frame: SharedFrame,
    place: Range<usize>,
}

/// An ending with its details.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Detail<'a> {
    /// It returned this encoded value.
    Done(&'a [u8]),
    /// It raised; the worker's record of the exception.
    Failed(&'a [u8]),
    /// It never ran because an ancestor failed.
    Skipped {
        /// Run of that ancestor.
        run: u32,
        /// Its index there.
        root: u32,
    },
    /// It was cancelled.
    Cancelled(CancelReason),
    /// It killed its worker too often.
    Died(Death<'a>),
    /// It could not be run as asked, for this reason.
    Refused(&'a str),
    /// It passed a time limit.
    TimedOut(Overrun<'a>),
}

impl Ending {
    /// Points into `frame`, at a place that the caller has checked.
    pub(super) fn new(outcome: Outcome, frame: &SharedFrame, place: Range<usize>) -> Self {
        debug_assert!(frame.get(place.clone()).is_some());
        Self { outcome, frame: Arc::clone(frame), place }
    }

    /// How it ended.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// What it left: see [`Outcome`].
    pub fn bytes(&self) -> &[u8] {
        &self.frame[self.place.clone()]
    }

    /// Both together, read as the outcome says.
    pub fn detail(&self) -> Detail<'_> {
        const CHECKED: &str = "endings are checked when they arrive";
        let bytes = self.bytes();
        match self.outcome {
            Outcome::Done => Detail::Done(bytes),
            Outcome::Failed => Detail::Failed(bytes),
            Outcome::Skipped => {
                let (run, root) = bytes.split_at(4);
                let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect(CHECKED));
                Detail::Skipped { run: word(run), root: word(root) }
            }
            Outcome::Cancelled => Detail::Cancelled(bytes[0].try_into().expect(CHECKED)),
            Outcome::Died => match Message::decode(bytes) {
                Ok(Message::Death(death)) => Detail::Died(death),
                _ => unreachable!("{CHECKED}"),
            },
            Outcome::TimedOut => match Message::decode(bytes) {
                Ok(Message::Overrun(overrun)) => Detail::TimedOut(overrun),
                _ => unreachable!("{CHECKED}"),
            },
            Outcome::Refused => Detail::Refused(std::str::from_utf8(bytes).expect(CHECKED)),
        }
    }

    /// The frame that it shares.
    #[cfg(test)]
    pub(super) fn frame(&self) -> &SharedFrame {
        &self.frame
    }

    /// The same ending in a frame of its own, if it would keep much more alive than it needs.
    pub(super) fn compact(self) -> Self {
        /// What an ending may keep alive beyond four times its own bytes: the fields of a frame with nothing else in it.
        const SPARE_BYTES_MAX: usize = 256;
        if self.frame.len() <= 4 * self.place.len() + SPARE_BYTES_MAX {
            return self;
        }
        let own = Arc::new(self.bytes().to_vec());
        Self::new(self.outcome, &own, 0..own.len())
    }
}

impl std::fmt::Debug for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} in {} bytes", self.outcome, self.place.len())
    }
}

/// Where `part`, a slice of `frame`, begins in it.
pub(super) fn offset_in(frame: &[u8], part: &[u8]) -> usize {
    let offset = part.as_ptr().addr().wrapping_sub(frame.as_ptr().addr());
    // An empty slice need not lie in the frame.
    if part.is_empty() { 0 } else { offset }
}
