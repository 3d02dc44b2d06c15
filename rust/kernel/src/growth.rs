//! How tasks enter: a chunk is checked as a whole, and then takes its slots, its rows and its places.

use crate::chunk::{Chunk, Classes, EXTERNAL, Priorities, Tally};
use crate::error::GraphError;
use crate::graph::{Rows, Span};
use crate::ids::{Attempt, Handle, NONE, TaskIndex};
use crate::kernel::{HowEnded, Kernel};
use crate::lifetime::CHECKPOINT_DEPTH;
use crate::lists::End;
use crate::state::{Flag, Rank, Task, TaskState};

impl Kernel {
    /// Adds the tasks of a chunk and appends their slots, in order, to `out`.
    ///
    /// A task with a predecessor that ended badly ends at once, with its descendants (see [`Kernel::drain_ended`]): skipped
    /// with the same root where the predecessor failed or was skipped, cancelled where it was cancelled.
    ///
    /// # Errors
    /// [`GraphError`] says what is wrong with the chunk; nothing was changed then.
    ///
    /// # Cost
    /// O(tasks + edges of the chunk).
    pub fn submit(&mut self, chunk: &Chunk<'_>, out: &mut Vec<TaskIndex>) -> Result<(), GraphError> {
        let tally = chunk.validate()?;
        self.check_external(chunk)?;
        let tasks = chunk.dep_counts.len();
        if self.board.tasks.len() + tasks >= NONE as usize {
            return Err(GraphError::TooLarge);
        }
        if tasks == 0 {
            return Ok(());
        }
        let first = out.len();
        self.take_slots(tasks, out);
        let slots = &out[first..];
        self.enter(chunk, tally, slots);
        if !chunk.external.is_empty() {
            self.link_external(chunk, slots);
        }
        for &number in chunk.keep {
            self.board.tasks[slots[number as usize].at()].holds += 1;
        }
        for (&slot, &count) in slots.iter().zip(chunk.dep_counts) {
            // Nothing inside the chunk is done or leased yet.
            if count == 0 || !chunk.external.is_empty() {
                let task = &self.board.tasks[slot.at()];
                if task.missing == task.leased {
                    self.board.place(slot, End::Back);
                }
            }
        }
        self.operations += (tasks + chunk.deps.len()) as u64;
        if !chunk.external.is_empty() {
            self.end_doomed(chunk, slots);
        }
        Ok(())
    }

    fn check_external(&self, chunk: &Chunk<'_>) -> Result<(), GraphError> {
        let usable =
            |&task: &TaskIndex| self.state(task) != TaskState::Free && !self.board.tasks[task.at()].has(Flag::Dead);
        match chunk.external.iter().position(|task| !usable(task)) {
            Some(position) => Err(GraphError::ResultReleased { position: position as u32 }),
            None => Ok(()),
        }
    }

    fn take_slots(&mut self, tasks: usize, out: &mut Vec<TaskIndex>) {
        let before = out.len();
        out.reserve(tasks);
        self.life.free.take(tasks, |slot| out.push(TaskIndex(slot)));
        let fresh = self.board.tasks.len();
        let wanted = tasks - (out.len() - before);
        out.extend((fresh..fresh + wanted).map(|slot| TaskIndex(slot as u32)));
        self.board.tasks.reserve(wanted);
    }

    /// Lays out the rows of the chunk and makes its tasks.
    fn enter(&mut self, chunk: &Chunk<'_>, mut tally: Vec<Tally>, slots: &[TaskIndex]) {
        self.note_priorities(chunk.priority);
        let number = self.graph.next_chunk();
        let board = &mut self.board;
        let mut at = 0;
        for (local, (&slot, entry)) in slots.iter().zip(&mut tally).enumerate() {
            let (preds_len, succs_len) = (chunk.dep_counts[local], entry.consumers);
            let class = match chunk.class {
                Classes::One(class) => class,
                Classes::Each(classes) => classes[local],
            };
            let priority = match chunk.priority {
                Priorities::One(priority) => priority,
                Priorities::Each(priorities) => priorities[local],
            };
            let (span, rank) = (Span::new(at, preds_len, succs_len), Rank { class, priority });
            if let Some(old) = board.tasks.get_mut(slot.at()) {
                *old = Task::new(number, span, rank, (old.attempt, old.generation));
                board.counts[TaskState::Free as usize] -= 1;
            } else {
                board.tasks.push(Task::new(number, span, rank, (Attempt(0), 0)));
            }
            // From here on the place of the task's next consumer.
            entry.consumers = at + preds_len;
            at += preds_len + succs_len;
        }
        board.counts[TaskState::Waiting as usize] += slots.len() as u64;
        let mut ends = vec![TaskIndex(NONE); at as usize];
        let mut rest = chunk.deps;
        for &slot in slots {
            let span = board.tasks[slot.at()].span;
            let (deps, tail) = rest.split_at(span.preds_len as usize);
            rest = tail;
            for (at, &dependency) in (span.at..).zip(deps) {
                ends[at as usize] = if let Some(&producer) = slots.get(dependency as usize) {
                    let place = &mut tally[dependency as usize].consumers;
                    ends[*place as usize] = slot;
                    *place += 1;
                    producer
                } else {
                    chunk.external[(dependency & !EXTERNAL) as usize]
                };
            }
        }
        let (alive, edges) = (slots.len() as u32, chunk.deps.len() as u32);
        self.graph.add_rows(number, Rows { ends, edges, alive, unreleased: alive, depth: 0 });
    }

    fn note_priorities(&mut self, priorities: Priorities<'_>) {
        let first = match priorities {
            Priorities::One(priority) => priority,
            Priorities::Each(priorities) => priorities[0],
        };
        let first = *self.board.first_priority.get_or_insert(first);
        self.board.has_levels |= match priorities {
            Priorities::One(priority) => priority != first,
            Priorities::Each(priorities) => priorities.iter().any(|&priority| priority != first),
        };
    }

    /// Hangs the tasks on their external predecessors. They become checkpoints where the depth, counted in chunks, passes a
    /// multiple of [`CHECKPOINT_DEPTH`] between such a predecessor and them.
    fn link_external(&mut self, chunk: &Chunk<'_>, slots: &[TaskIndex]) {
        let (mut shallowest, mut depth) = (u32::MAX, 0);
        let mut rest = chunk.deps;
        for (&slot, &count) in slots.iter().zip(chunk.dep_counts) {
            let (deps, tail) = rest.split_at(count as usize);
            rest = tail;
            for &dependency in deps.iter().filter(|&&dependency| dependency & EXTERNAL != 0) {
                let producer = chunk.external[(dependency & !EXTERNAL) as usize];
                self.graph.link(&mut self.board.tasks, producer, slot);
                let worker = self.board.worker_of(producer);
                let entry = &mut self.board.tasks[producer.at()];
                entry.pending += 1;
                entry.lineage += 1;
                if !entry.has(Flag::Released) {
                    let above = *self.graph.depth_mut(entry.chunk);
                    (shallowest, depth) = (shallowest.min(above), depth.max(above.saturating_add(1)));
                }
                let done = entry.state == TaskState::Done;
                let entry = &mut self.board.tasks[slot.at()];
                entry.missing -= u32::from(done);
                if let Some(worker) = worker {
                    entry.count_lease(u64::from(worker.0));
                }
            }
        }
        *self.graph.depth_mut(self.board.tasks[slots[0].at()].chunk) = depth;
        if depth / CHECKPOINT_DEPTH > shallowest / CHECKPOINT_DEPTH {
            slots.iter().for_each(|slot| self.board.tasks[slot.at()].set(Flag::Checkpoint));
        }
    }

    /// Ends the tasks of a new chunk whose predecessors ended badly before (K6).
    fn end_doomed(&mut self, chunk: &Chunk<'_>, slots: &[TaskIndex]) {
        let bad = |task: &TaskIndex| self.board.tasks[task.at()].state > TaskState::Done;
        if !chunk.external.iter().any(bad) {
            return;
        }
        for &slot in slots {
            if let Some(how) = self.doom(slot) {
                self.end(slot, how);
                self.end_descendants();
            }
        }
    }

    /// How a task must end because a predecessor ended badly.
    pub(crate) fn doom(&self, task: TaskIndex) -> Option<HowEnded> {
        if !self.board.tasks[task.at()].state.is_pending() {
            return None;
        }
        self.graph.predecessors(&self.board.tasks[task.at()]).iter().find_map(|&producer| {
            match self.board.tasks[producer.at()].state {
                TaskState::Failed => Some(HowEnded::Skipped { root: producer }),
                TaskState::Skipped => Some(HowEnded::Skipped { root: self.root(producer) }),
                TaskState::Cancelled => Some(HowEnded::Cancelled),
                _ => None,
            }
        })
    }

    /// The failed task because of which a task was skipped; the skipped task itself if the root is gone.
    fn root(&self, skipped: TaskIndex) -> TaskIndex {
        let entry = &self.board.tasks[skipped.at()];
        let root = Handle { index: TaskIndex(entry.next), generation: entry.prev };
        self.resolve(root).unwrap_or(skipped)
    }
}
