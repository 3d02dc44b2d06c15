//! What a worker says and hears of shared memory beside its tasks.

use std::ops::Range;

use headrace_wire::{Lack, Message, Want, Withdraw};

use super::{Worker, encoded};
use crate::store::{Blocks, return_of};

impl Worker {
    /// Blocks of shared memory as this process sees them. After references were dropped there, ask [`Worker::flush_due`].
    pub fn with_blocks<T>(&mut self, look: impl FnOnce(&mut Blocks) -> T) -> T {
        let answer = look(&mut self.blocks);
        self.flush_due |= self.blocks.has_released();
        answer
    }

    /// How urgent it is to look for garbage that keeps shared memory: see [`Blocks::garbage_due`].
    #[must_use]
    #[inline]
    pub fn garbage_due(&self) -> u8 {
        self.blocks.garbage_due()
    }

    /// Garbage was looked for with this urgency, after [`Worker::garbage_due`].
    pub fn note_collected(&mut self, urgency: u8) {
        let outbox = &mut self.outbox;
        self.blocks.note_collected(urgency, |message| outbox.push_back(encoded(message)));
    }

    /// Gives back a segment that was granted and could not be used.
    pub fn return_segment(&mut self, segment: u32) {
        self.post(&return_of(&[segment]));
    }

    /// Asks for a segment with room for a block of so many bytes. What has ended is told first: it may make room.
    pub fn want(&mut self, bytes: u64, now_ns: u64) {
        self.flush(now_ns);
        self.post(&Message::Want(Want { bytes }));
    }

    /// Says that a segment of others has not come.
    pub fn lack(&mut self, segment: u32) {
        self.post(&Message::Lack(Lack { segment }));
    }

    /// Takes back the last wish, for so many bytes. The answer comes all the same.
    pub fn withdraw(&mut self, bytes: u64) {
        self.post(&Message::Withdraw(Withdraw { bytes }));
    }

    /// The next pages of an own segment to punch, before the frames that follow are sent.
    pub fn poll_punch(&mut self) -> Option<(u32, Range<u64>)> {
        self.blocks.poll_punch()
    }
}
