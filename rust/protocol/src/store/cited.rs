//! What [`Blocks`] does for whole values and frames.

use std::ops::Range;

use headrace_wire::{BLOCK_ALIGN, GiveBack, Message, PAGE_BYTES, Release, Released, citations};

use super::{BlockId, Blocks, Unused};

impl Blocks {
    /// One reference more to each block that a value cites.
    #[inline]
    pub fn hold_cited(&mut self, value: &[u8]) {
        cited(value).for_each(|id| self.hold(id));
    }

    /// One reference less to each block that a value cites.
    #[inline]
    pub fn unhold_cited(&mut self, value: &[u8]) {
        cited(value).for_each(|id| self.unhold(id));
    }

    /// Counts the citations of a value that is about to leave this process.
    #[inline]
    pub fn publish_cited(&mut self, value: &[u8]) {
        cited(value).for_each(|id| self.publish(id));
    }

    /// Takes a RELEASE frame.
    pub fn handle_release_frame(&mut self, release: &Release<'_>) {
        let blocks = release.segment.iter().zip(release.offset.iter()).zip(release.citations.iter());
        for ((segment, offset), citations) in blocks {
            self.handle_release(BlockId { segment, offset: u64::from(offset) * BLOCK_ALIGN }, citations);
        }
    }

    /// Hands over the RELEASED frame that is due, if one is.
    #[inline]
    pub fn tell_released(&mut self, send: impl FnOnce(&Message<'_>)) {
        if self.has_released() {
            let blocks = self.take_released();
            let segment: Vec<u32> = blocks.iter().map(|id| id.segment).collect();
            let offset: Vec<u32> = blocks.iter().map(|id| (id.offset / BLOCK_ALIGN) as u32).collect();
            send(&Message::Released(Released { segment: (&segment).into(), offset: (&offset).into() }));
        }
    }

    /// Gives up what no block uses, and hands over the frame that tells of it. Pages must be punched before that leaves:
    /// [`Blocks::poll_punch`].
    pub fn give_back(&mut self, send: impl FnOnce(&Message<'_>)) {
        let Unused { segments: mut segment, ranges } = self.take_unused();
        let mut pages = vec![0; segment.len()];
        for (number, range) in &ranges {
            segment.push(*number);
            pages.push(((range.end - range.start) / PAGE_BYTES) as u32);
        }
        self.punches.extend(ranges);
        send(&Message::GiveBack(GiveBack { segment: (&segment).into(), pages: (&pages).into() }));
    }

    /// The next pages of an own segment to punch.
    pub fn poll_punch(&mut self) -> Option<(u32, Range<u64>)> {
        self.punches.pop()
    }
}

/// The frame that gives back a segment that was granted and could not be used.
pub(crate) fn return_of(segment: &[u32; 1]) -> Message<'_> {
    Message::GiveBack(GiveBack { segment: segment[..].into(), pages: [0][..].into() })
}

fn cited(value: &[u8]) -> impl Iterator<Item = BlockId> + '_ {
    citations(value).map(|cited| BlockId { segment: cited.segment, offset: cited.offset })
}
