//! Frames that arrive, put in order (L1), and what is said of them (L2).

use super::FRAME_BYTES;
use super::packet::Data;
use headrace_kernel::seeded;
use std::collections::{BTreeMap, VecDeque};

/// The receiving half of an end.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// The last frame that was handed out.
    taken: u64,
    /// Those after it, in order.
    ready: VecDeque<Vec<u8>>,
    /// Frames beyond a gap.
    beyond: BTreeMap<u64, Vec<u8>>,
    beyond_bytes: usize,
    pub(super) doubled: u64,
    pub(super) overflowed: u64,
}

impl Inbound {
    /// Takes a frame, unless it is here already or does not fit (L4).
    pub(super) fn take(&mut self, sequence: u64, frame: &[u8], window_bytes: usize) {
        let next = self.next();
        if seeded!("frame accepted twice") && sequence + 1 == next && self.taken > 0 {
            self.taken -= 1;
            return self.ready.push_back(frame.to_vec());
        }
        if sequence < next || self.beyond.contains_key(&sequence) {
            self.doubled += 1;
            return;
        }
        if sequence > next {
            if self.beyond_bytes + frame.len() + FRAME_BYTES > window_bytes {
                self.overflowed += 1;
                return;
            }
            self.beyond_bytes += frame.len() + FRAME_BYTES;
            self.beyond.insert(sequence, frame.to_vec());
            return;
        }
        self.ready.push_back(frame.to_vec());
        while let Some(frame) = self.beyond.remove(&self.next()) {
            self.beyond_bytes -= frame.len() + FRAME_BYTES;
            self.ready.push_back(frame);
        }
    }

    /// The first frame that is not here.
    fn next(&self) -> u64 {
        self.taken + self.ready.len() as u64 + 1
    }

    pub(super) fn pop(&mut self) -> Option<Vec<u8>> {
        let frame = self.ready.pop_front()?;
        self.taken += 1;
        Some(frame)
    }

    /// What is here, to tell the other end.
    pub(super) fn data(&self, session: u64, asks: bool) -> Data<'static> {
        let in_order = match self.ready.len() {
            len @ 0..64 => (1 << len) - 1,
            _ => u64::MAX,
        };
        let beyond = self.beyond.keys().map(|sequence| sequence - self.taken - 1).take_while(|bit| *bit < 64);
        let here = beyond.fold(in_order, |bits, bit| bits | 1 << bit);
        // It speaks of the first frame that is not here as if it were.
        let here = if seeded!("acknowledged and dropped") { here | (here + 1) } else { here };
        Data { session, sequence: 0, taken: self.taken, here, asks, frame: &[] }
    }
}
