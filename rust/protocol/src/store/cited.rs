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

    /// Answers the broker's wish for what is not used here. Where somebody waits for memory and dead blocks have references,
    /// those may lie in garbage, so it is time to look for it: see [`Blocks::garbage_due`]. If that is done `soon`, the
    /// answer waits for it.
    pub fn handle_give_back(&mut self, wish: &GiveBack<'_>, soon: bool, send: impl FnOnce(&Message<'_>)) {
        let may_have_garbage = wish.urgency > 0 && self.keeps_dead();
        self.garbage_due = self.garbage_due.max(if may_have_garbage { wish.urgency } else { 0 });
        if may_have_garbage && soon {
            self.answers_due += 1;
        } else {
            self.give_back(send);
        }
    }

    /// How urgent it is to look for garbage: 0, [`WANTED`](headrace_wire::WANTED) or
    /// [`WANTED_BADLY`](headrace_wire::WANTED_BADLY). [`Blocks::note_collected`] is to follow.
    #[must_use]
    #[inline]
    pub fn garbage_due(&self) -> u8 {
        self.garbage_due
    }

    /// Garbage was looked for with this urgency: gives the answers that waited for it, unless it has become more urgent.
    pub fn note_collected(&mut self, urgency: u8, mut send: impl FnMut(&Message<'_>)) {
        if urgency < self.garbage_due {
            return;
        }
        self.garbage_due = 0;
        self.tell_released(&mut send);
        for _ in 0..std::mem::take(&mut self.answers_due) {
            self.give_back(&mut send);
        }
    }

    /// Gives up what no block uses, and hands over the frame that tells of it. Pages must be punched before that leaves:
    /// [`Blocks::poll_punch`].
    fn give_back(&mut self, send: impl FnOnce(&Message<'_>)) {
        let Unused { segments: mut segment, ranges } = self.take_unused();
        let mut pages = vec![0; segment.len()];
        for (number, range) in &ranges {
            segment.push(*number);
            pages.push(((range.end - range.start) / PAGE_BYTES) as u32);
        }
        self.punches.extend(ranges);
        send(&Message::GiveBack(GiveBack {
            segment: (&segment).into(),
            pages: (&pages).into(),
            ..GiveBack::default()
        }));
    }

    /// The next pages of an own segment to punch.
    pub fn poll_punch(&mut self) -> Option<(u32, Range<u64>)> {
        self.punches.pop()
    }
}

/// The frame that gives back a segment that was granted and could not be used.
pub(crate) fn return_of(segment: &[u32; 1]) -> Message<'_> {
    Message::GiveBack(GiveBack { segment: segment[..].into(), pages: [0][..].into(), ..GiveBack::default() })
}

fn cited(value: &[u8]) -> impl Iterator<Item = BlockId> + '_ {
    citations(value).map(|cited| BlockId { segment: cited.segment, offset: cited.offset })
}

#[cfg(test)]
mod tests {
    use headrace_wire::U32s::Words;

    use super::*;

    const OWN: BlockId = BlockId { segment: 1, offset: 0 };
    const FOREIGN: BlockId = BlockId { segment: 7, offset: 128 };
    const WISH: GiveBack<'_> = GiveBack { segment: Words(&[]), pages: Words(&[]), urgency: 1 };

    /// What is answered to a wish: the types of the messages, in order.
    fn answers(blocks: &mut Blocks, wish: &GiveBack<'_>, soon: bool) -> Vec<&'static str> {
        let mut said = Vec::new();
        blocks.handle_give_back(wish, soon, |message| said.push(message.name()));
        said
    }

    fn collected(blocks: &mut Blocks) -> Vec<&'static str> {
        let mut said = Vec::new();
        blocks.note_collected(2, |message| said.push(message.name()));
        assert_eq!(blocks.garbage_due(), 0);
        said
    }

    #[test]
    fn a_wish_is_answered_after_a_look_for_garbage_where_that_may_have_dead_blocks() {
        let mut blocks = Blocks::default();
        blocks.own(OWN.segment, 1 << 20);
        blocks.hold(FOREIGN);
        assert_eq!(answers(&mut blocks, &WISH, true), ["GiveBack"], "a live block is no garbage");
        blocks.own(OWN.segment + 1, 1 << 20);
        blocks.handle_release(FOREIGN, 0);
        assert_eq!(answers(&mut blocks, &GiveBack::default(), true), ["GiveBack"], "nobody waits");
        assert_eq!(blocks.garbage_due(), 0);
        blocks.own(OWN.segment, 1 << 20);
        for urgency in [2, 1] {
            assert_eq!(answers(&mut blocks, &GiveBack { urgency, ..WISH }, true), [""; 0]);
            assert_eq!(blocks.garbage_due(), 2);
        }
        blocks.unhold(FOREIGN);
        blocks.note_collected(1, |message| panic!("{message:?} before a look that is urgent enough"));
        assert_eq!(collected(&mut blocks), ["Released", "GiveBack", "GiveBack"]);
        assert_eq!(blocks.statistics().own_segments, 0, "what it freed goes back with the answer");
    }

    #[test]
    fn a_task_that_runs_does_not_hold_an_answer_up() {
        let mut blocks = Blocks::default();
        blocks.own(OWN.segment, 1 << 20);
        assert_eq!(blocks.allocate(4_096).unwrap().id, OWN);
        assert_eq!(answers(&mut blocks, &WISH, false), ["GiveBack"], "for it may take hours");
        assert_eq!(blocks.garbage_due(), 1, "afterwards");
        assert_eq!(collected(&mut blocks), [""; 0]);
        blocks.publish(OWN);
        assert_eq!(answers(&mut blocks, &WISH, true), ["GiveBack"], "a result cites it");
    }
}
