//! Large graphs enter in two parts, so that the first tasks run while the rest is still being taken in.
//!
//! Taking in a million tasks means touching some two hundred megabytes for the first time. The first part is small
//! enough to be through in a few milliseconds; the second follows in the next turn, before anything else that its client
//! says. Results of the first part that the second part reads are held until it is in (K5).

use super::{Broker, Frame, PeerId};
use crate::chunks::{is_ordered, split};
use headrace_kernel::TaskIndex;
use headrace_wire::{Message, Submit};

/// Tasks of the first part.
const FIRST_PART: usize = 1 << 14;
/// Graphs of fewer tasks enter at once.
const LARGE: usize = 4 * FIRST_PART;

/// A graph whose second part is still outside.
pub(super) struct Rest {
    peer: PeerId,
    position: u32,
    frame: Frame,
    /// Results of the first part that the second one reads.
    held: Vec<TaskIndex>,
}

impl Broker {
    /// Takes in a chunk, or the first part of it if it is large. Returns whether the rest follows.
    pub(super) fn admit_or_begin(
        &mut self,
        peer: PeerId,
        position: u32,
        frame: &Frame,
        submit: &Submit<'_>,
    ) -> Result<bool, String> {
        if submit.dep_counts.len() < LARGE || !is_ordered(submit.first, submit.dep_counts, submit.deps) {
            return self.admit(peer, position, frame, submit).map(|()| false);
        }
        let (mut keep_head, mut keep_tail) = (Vec::new(), Vec::new());
        let (head, tail) = split(submit, FIRST_PART, &mut keep_head, &mut keep_tail);
        self.admit(peer, position, frame, &head)?;
        let mut read = vec![false; FIRST_PART];
        for dep in tail.deps.iter() {
            if let Some(read) = dep.checked_sub(submit.first).and_then(|local| read.get_mut(local as usize)) {
                *read = true;
            }
        }
        let mut held = Vec::new();
        for (index, _) in (submit.first..).zip(read).filter(|(_, read)| *read) {
            let slot = self.run(position).slots.get(index).expect("the task has just entered");
            self.kernel.hold(TaskIndex(slot));
            held.push(TaskIndex(slot));
        }
        self.rest.push_back(Rest { peer, position, frame: frame.clone(), held });
        Ok(true)
    }

    /// Takes in the rest of every graph that has begun.
    pub(super) fn admit_rest(&mut self, now_ns: u64) {
        while let Some(rest) = self.rest.pop_front() {
            let Ok(Message::Submit(submit)) = Message::decode((*rest.frame).as_ref()) else {
                unreachable!("the frame was decoded when it came");
            };
            let (mut keep_head, mut keep_tail) = (Vec::new(), Vec::new());
            let (_, tail) = split(&submit, FIRST_PART, &mut keep_head, &mut keep_tail);
            let admitted = self.admit(rest.peer, rest.position, &rest.frame, &tail);
            self.close_chunk(rest.position, &tail, admitted, now_ns);
            for task in rest.held {
                self.kernel.unhold(task);
            }
        }
    }
}
