//! What a submit brings, and the proof that it is a graph.

use crate::error::GraphError;
use crate::ids::{ClassId, NONE, TaskIndex};

/// One submit: tasks numbered 0..n inside the chunk, and their predecessors as columns.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Per task: how many predecessors it has.
    pub dep_counts: &'a [u32],
    /// Predecessors task after task, each once per task: a number inside the chunk, or [`EXTERNAL`] `| p` for position p of
    /// `external`.
    pub deps: &'a [u32],
    /// Predecessors that are in the kernel already: not ended yet, or done with a result that is alive, or ended badly (the
    /// new task then ends at once).
    pub external: &'a [TaskIndex],
    /// The class of each task.
    pub class: Classes<'a>,
    /// The priority of each task; higher runs first.
    pub priority: Priorities<'a>,
    /// Numbers of the tasks whose results the run keeps: one hold each.
    pub keep: &'a [u32],
}

/// The classes of a chunk's tasks.
#[derive(Clone, Copy, Debug)]
pub enum Classes<'a> {
    /// All the same.
    One(ClassId),
    /// One per task.
    Each(&'a [ClassId]),
}

/// The priorities of a chunk's tasks.
#[derive(Clone, Copy, Debug)]
pub enum Priorities<'a> {
    /// All the same.
    One(i32),
    /// One per task.
    Each(&'a [i32]),
}

/// Bit of [`Chunk::deps`] that marks an external predecessor.
pub const EXTERNAL: u32 = 1 << 31;

/// Per task of a chunk, while it is checked and its rows are laid out.
#[derive(Clone, Copy)]
pub(crate) struct Tally {
    /// Consumers inside the chunk.
    pub(crate) consumers: u32,
    /// The last task that named this one.
    named_by: u32,
}

impl Chunk<'_> {
    /// Checks everything that does not need the kernel. Costs one pass over the columns where each task names only earlier
    /// ones, and one more over the edges otherwise.
    pub(crate) fn validate(&self) -> Result<Vec<Tally>, GraphError> {
        let tasks = self.dep_counts.len();
        if tasks >= EXTERNAL as usize
            || self.deps.len() >= EXTERNAL as usize
            || self.external.len() >= EXTERNAL as usize
        {
            return Err(GraphError::TooLarge);
        }
        if matches!(self.class, Classes::Each(classes) if classes.len() != tasks) {
            return Err(GraphError::Columns("as many classes as tasks"));
        }
        if matches!(self.priority, Priorities::Each(priorities) if priorities.len() != tasks) {
            return Err(GraphError::Columns("as many priorities as tasks"));
        }
        if let Some(&number) = self.keep.iter().find(|&&number| number as usize >= tasks) {
            return Err(GraphError::UnknownKeep { number });
        }
        let mut tally = vec![Tally { consumers: 0, named_by: NONE }; tasks];
        let mut external = ExternalTally::new(self.external);
        let mut ordered = true;
        let mut rest = self.deps;
        for (task, &count) in self.dep_counts.iter().enumerate() {
            let Some((deps, tail)) = rest.split_at_checked(count as usize) else {
                return Err(GraphError::Columns("as many predecessors as their counts say"));
            };
            rest = tail;
            let task = task as u32;
            for &dependency in deps {
                if let Some(producer) = tally.get_mut(dependency as usize) {
                    if producer.named_by == task {
                        return Err(GraphError::DuplicateDependency { task, dependency });
                    }
                    producer.named_by = task;
                    producer.consumers += 1;
                    if dependency >= task {
                        ordered = false;
                        if dependency == task {
                            return Err(GraphError::SelfDependency { task });
                        }
                    }
                } else {
                    external.name(task, dependency)?;
                }
            }
        }
        if !rest.is_empty() {
            return Err(GraphError::Columns("as many predecessors as their counts say"));
        }
        if !ordered && let Some(tasks) = find_cycle(self.dep_counts, self.deps, &tally) {
            return Err(GraphError::Cycle { tasks });
        }
        Ok(tally)
    }
}

/// The same bookkeeping for external predecessors, of which two positions may name one task.
struct ExternalTally {
    /// Per position: the first position that names the same task.
    first: Vec<u32>,
    named_by: Vec<u32>,
}

impl ExternalTally {
    fn new(external: &[TaskIndex]) -> Self {
        let mut first: Vec<u32> = (0..external.len() as u32).collect();
        if external.len() > 1 {
            let mut order = first.clone();
            order.sort_unstable_by_key(|&position| (external[position as usize], position));
            for pair in order.windows(2) {
                let [before, after] = [pair[0] as usize, pair[1] as usize];
                if external[before] == external[after] {
                    first[after] = first[before];
                }
            }
        }
        ExternalTally { named_by: vec![NONE; external.len()], first }
    }

    fn name(&mut self, task: u32, dependency: u32) -> Result<(), GraphError> {
        let position = (dependency & !EXTERNAL) as usize;
        if dependency & EXTERNAL == 0 || position >= self.first.len() {
            return Err(GraphError::UnknownDependency { task, dependency });
        }
        let named_by = &mut self.named_by[self.first[position] as usize];
        if *named_by == task {
            return Err(GraphError::DuplicateDependency { task, dependency });
        }
        *named_by = task;
        Ok(())
    }
}

/// Kahn's algorithm over the edges inside the chunk; what it cannot remove contains a cycle.
fn find_cycle(dep_counts: &[u32], deps: &[u32], tally: &[Tally]) -> Option<Vec<u32>> {
    let tasks = dep_counts.len();
    let mut next_at = Vec::with_capacity(tasks);
    let mut total = 0;
    for entry in tally {
        next_at.push(total);
        total += entry.consumers;
    }
    let mut missing = vec![0_u32; tasks];
    let mut consumers = vec![0_u32; total as usize];
    let mut starts = Vec::with_capacity(tasks);
    let mut start = 0;
    for (task, &count) in dep_counts.iter().enumerate() {
        starts.push(start);
        for &dependency in &deps[start..start + count as usize] {
            if dependency & EXTERNAL == 0 {
                let place = &mut next_at[dependency as usize];
                consumers[*place as usize] = task as u32;
                *place += 1;
                missing[task] += 1;
            }
        }
        start += count as usize;
    }
    let mut order: Vec<u32> = (0..tasks as u32).filter(|&task| missing[task as usize] == 0).collect();
    let mut removed = 0;
    while let Some(&task) = order.get(removed) {
        removed += 1;
        let end = next_at[task as usize] as usize;
        for &consumer in &consumers[end - tally[task as usize].consumers as usize..end] {
            missing[consumer as usize] -= 1;
            if missing[consumer as usize] == 0 {
                order.push(consumer);
            }
        }
    }
    if removed == tasks {
        return None;
    }
    // Every task that is left has a predecessor that is left: walking back must meet itself.
    let mut steps = vec![NONE; tasks];
    let mut walk: Vec<u32> = Vec::new();
    let mut task = missing.iter().position(|&count| count > 0)?;
    while steps[task] == NONE {
        steps[task] = walk.len() as u32;
        walk.push(task as u32);
        let row = &deps[starts[task]..starts[task] + dep_counts[task] as usize];
        task = *row.iter().find(|&&dep| dep & EXTERNAL == 0 && missing[dep as usize] > 0)? as usize;
    }
    let mut cycle = walk.split_off(steps[task] as usize);
    cycle.reverse();
    let smallest = (0..cycle.len()).min_by_key(|&place| cycle[place])?;
    cycle.rotate_left(smallest);
    Some(cycle)
}
