//! Frames that leave: kept until they are acknowledged (L2), sent again where that takes too long (L3), within a window (L4).

use super::{FRAME_BYTES, Limits};
use headrace_kernel::seeded;
use std::collections::VecDeque;

/// The sending half of an end.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    /// The last frame that was acknowledged.
    acknowledged: u64,
    /// Those after it: first those that were sent, then those that wait for the window.
    frames: VecDeque<Kept>,
    /// How many of them were sent, and their bytes.
    under_way: usize,
    under_way_bytes: usize,
    waiting_bytes: usize,
    /// Sequence numbers of frames that are due again, and when to look for further ones; too early does no harm.
    again: VecDeque<u64>,
    wake_ns: Option<u64>,
    pub(super) sent: u64,
    pub(super) resent: u64,
}

#[derive(Debug)]
struct Kept {
    frame: Vec<u8>,
    sent_ns: u64,
    tries: u32,
    /// The other end has it, but not all before it.
    is_there: bool,
}

impl Kept {
    fn cost(&self) -> usize {
        self.frame.len() + FRAME_BYTES
    }

    fn due_ns(&self, limits: &Limits) -> u64 {
        let doublings = self.tries.saturating_sub(1).min(20);
        self.sent_ns + (limits.resend_ns << doublings).min(limits.resend_ns_max)
    }
}

impl Outbound {
    pub(super) fn push(&mut self, frame: Vec<u8>) {
        let kept = Kept { frame, sent_ns: 0, tries: 0, is_there: false };
        self.waiting_bytes += kept.cost();
        self.frames.push_back(kept);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.under_way_bytes + self.waiting_bytes - FRAME_BYTES * self.frames.len()
    }

    /// The other end has handed out every frame up to `taken`, and has those that the bits of `here` name.
    pub(super) fn acknowledge(&mut self, taken: u64, here: u64) {
        if taken > self.acknowledged + self.under_way as u64 {
            return; // It speaks of frames that were never sent.
        }
        let sent = self.acknowledged + self.under_way as u64;
        let taken = if seeded!("forgotten too early") { sent.min(taken + 1) } else { taken };
        while self.acknowledged < taken {
            let kept = self.frames.pop_front().expect("as many were sent");
            self.acknowledged += 1;
            self.under_way -= 1;
            self.under_way_bytes -= kept.cost();
        }
        if self.under_way == 0 {
            self.wake_ns = None;
        }
        if taken == self.acknowledged {
            let sent = self.frames.iter_mut().take(self.under_way.min(64)).enumerate();
            sent.for_each(|(bit, kept)| kept.is_there |= here >> bit & 1 == 1);
        }
    }

    pub(super) fn handle_timeout(&mut self, limits: &Limits, now_ns: u64) {
        if self.wake_ns.is_none_or(|wake_ns| now_ns < wake_ns) {
            return;
        }
        self.again.clear();
        self.wake_ns = None;
        for (position, kept) in self.frames.iter().take(self.under_way).enumerate().filter(|(_, kept)| !kept.is_there) {
            match kept.due_ns(limits) {
                _ if seeded!("sent again once") && kept.tries > 1 => {}
                due_ns if due_ns <= now_ns => self.again.push_back(self.acknowledged + 1 + position as u64),
                due_ns => self.wake_ns = Some(self.wake_ns.map_or(due_ns, |wake_ns| wake_ns.min(due_ns))),
            }
        }
    }

    /// The next frame to send, and its number.
    pub(super) fn next(&mut self, limits: &Limits, now_ns: u64) -> Option<(u64, &[u8])> {
        while let Some(sequence) = self.again.pop_front() {
            let position = sequence.checked_sub(self.acknowledged + 1);
            let Some(position) = position.filter(|&at| !self.frames[at as usize].is_there) else { continue };
            self.resent += 1;
            return Some(self.send(position as usize, limits, now_ns));
        }
        let position = self.under_way;
        let bytes = self.frames.get(position)?.cost();
        if position > 0 && self.under_way_bytes + bytes > limits.window_bytes {
            return None;
        }
        self.under_way += 1;
        self.under_way_bytes += bytes;
        self.waiting_bytes -= bytes;
        Some(self.send(position, limits, now_ns))
    }

    fn send(&mut self, position: usize, limits: &Limits, now_ns: u64) -> (u64, &[u8]) {
        self.sent += 1;
        let sequence = self.acknowledged + 1 + position as u64;
        let kept = &mut self.frames[position];
        (kept.sent_ns, kept.tries) = (now_ns, kept.tries + 1);
        let due_ns = kept.due_ns(limits);
        self.wake_ns = Some(self.wake_ns.map_or(due_ns, |wake_ns| wake_ns.min(due_ns)));
        (sequence, &kept.frame)
    }

    /// When to look for frames that are due again.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.wake_ns
    }
}
