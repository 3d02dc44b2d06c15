//! Large graphs enter in two parts, so that the first tasks run while the rest is still being taken in.
//!
//! Taking in a million tasks means touching some two hundred megabytes for the first time. The first part is small
//! enough to be through in a few milliseconds; the second follows in the next turn, before anything else that its client
//! says. Results of the first part that the second part reads are held until it is in (K5).

use super::{Broker, Frame, PeerId};
use headrace_kernel::TaskIndex;
use headrace_wire::{EXTERNAL, Message, Submit, U32s};

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
        if submit.dep_counts.len() < LARGE || !is_ordered(submit) {
            return self.admit(peer, position, frame, submit).map(|()| false);
        }
        let (mut keep_head, mut keep_tail) = (Vec::new(), Vec::new());
        let (head, tail) = split(submit, &mut keep_head, &mut keep_tail);
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
            let (_, tail) = split(&submit, &mut keep_head, &mut keep_tail);
            let admitted = self.admit(rest.peer, rest.position, &rest.frame, &tail);
            self.close_chunk(rest.position, &tail, admitted, now_ns);
            for task in rest.held {
                self.kernel.unhold(task);
            }
        }
    }
}

/// Whether every task comes after its predecessors, as in every graph that was built task by task.
fn is_ordered(submit: &Submit<'_>) -> bool {
    let mut deps = submit.deps.iter();
    (submit.first..)
        .zip(submit.dep_counts.iter())
        .all(|(index, count)| deps.by_ref().take(count as usize).all(|dep| dep & EXTERNAL != 0 || dep < index))
}

/// The two parts of a chunk, each a chunk of its own.
fn split<'a>(
    submit: &Submit<'a>,
    keep_head: &'a mut Vec<u32>,
    keep_tail: &'a mut Vec<u32>,
) -> (Submit<'a>, Submit<'a>) {
    let boundary = submit.first + FIRST_PART as u32;
    for index in submit.keep.iter() {
        if index < boundary { keep_head.push(index) } else { keep_tail.push(index) }
    }
    let per_task = |column: U32s<'a>| if column.is_empty() { (column, column) } else { column.split_at(FIRST_PART) };
    let (count_head, count_tail) = submit.dep_counts.split_at(FIRST_PART);
    let (deps_head, deps_tail) = submit.deps.split_at(count_head.iter().map(|count| count as usize).sum());
    let (function_head, function_tail) = per_task(submit.task_function);
    let (options_head, options_tail) = per_task(submit.task_options);
    let (args_head, args_tail) = submit.args.split_at(FIRST_PART);
    let keys_before = submit.key_index.iter().take_while(|index| *index < boundary).count();
    let (key_head, key_tail) = submit.key_index.split_at(keys_before);
    let (keys_head, keys_tail) = submit.keys.split_at(keys_before);
    let head = Submit {
        task_function: function_head,
        dep_counts: count_head,
        deps: deps_head,
        args: args_head,
        task_options: options_head,
        key_index: key_head,
        keys: keys_head,
        keep: U32s::Words(keep_head),
        ..submit.clone()
    };
    let tail = Submit {
        first: boundary,
        function_ids: U32s::default(),
        function_names: Default::default(),
        functions: Default::default(),
        task_function: function_tail,
        dep_counts: count_tail,
        deps: deps_tail,
        args: args_tail,
        task_options: options_tail,
        key_index: key_tail,
        keys: keys_tail,
        keep: U32s::Words(keep_tail),
        ..submit.clone()
    };
    (head, tail)
}
