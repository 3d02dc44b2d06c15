//! Where the edges live: packed rows for what one chunk brought, linked ones for what a later chunk hung on an older task.

use crate::ids::{NONE, TaskIndex};
use crate::state::{Flag, Task};

/// All edges. An edge inside a chunk costs eight bytes: a slot in the row of its consumer and one in that of its producer.
#[derive(Clone, Default)]
pub(crate) struct Graph {
    chunks: Vec<Rows>,
    free_chunks: Vec<u32>,
    links: Vec<Link>,
    free_links: Vec<u32>,
    edges: u64,
    row_bytes: usize,
}

/// Where the edges of one task are: its predecessors, then its consumers, in the rows of its chunk, and the ends of its
/// links.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) at: u32,
    pub(crate) preds_len: u32,
    pub(crate) succs_len: u32,
    /// First of its linked consumers.
    late: u32,
    /// First of its links to older producers.
    bonds: u32,
}

/// The rows of one chunk. A producer's row may name slots that were freed and reused since: whoever walks it compares the
/// chunk of the task with its own.
#[derive(Clone, Default)]
pub(crate) struct Rows {
    /// Task after task: its predecessors, then its consumers out of the same chunk.
    pub(crate) ends: Vec<TaskIndex>,
    /// Edges, each of which may have two ends here.
    pub(crate) edges: u32,
    /// Tasks that are not freed.
    pub(crate) alive: u32,
    /// Tasks that may still need their edges; the rows are dropped when none does.
    pub(crate) unreleased: u32,
    /// Length of the longest row of chunks, each hanging on the one before, that ends here.
    pub(crate) depth: u32,
}

/// An edge to a producer in an older chunk. It stands in a ring of the producer's consumers in order of submission, and in a
/// row of the consumer's links, and goes when the consumer is released.
#[derive(Clone, Copy)]
struct Link {
    producer: TaskIndex,
    consumer: TaskIndex,
    next: u32,
    prev: u32,
    sibling: u32,
}

impl Span {
    pub(crate) fn new(at: u32, preds_len: u32, succs_len: u32) -> Self {
        Span { at, preds_len, succs_len, late: NONE, bonds: NONE }
    }

    /// The number of edges, links to later consumers apart.
    #[inline]
    pub(crate) fn degree(&self) -> u64 {
        u64::from(self.preds_len) + u64::from(self.succs_len)
    }
}

impl Graph {
    /// The number of the next chunk, which must then be added.
    pub(crate) fn next_chunk(&mut self) -> u32 {
        self.free_chunks.pop().unwrap_or(self.chunks.len() as u32)
    }

    /// Stores the rows of a chunk.
    pub(crate) fn add_rows(&mut self, chunk: u32, rows: Rows) {
        self.edges += u64::from(rows.edges);
        self.row_bytes += rows.bytes();
        match self.chunks.get_mut(chunk as usize) {
            Some(free) => *free = rows,
            None => self.chunks.push(rows),
        }
    }

    /// Hangs a task on a producer in an older chunk.
    pub(crate) fn link(&mut self, tasks: &mut [Task], producer: TaskIndex, consumer: TaskIndex) {
        let id = self.free_links.pop().unwrap_or(self.links.len() as u32);
        let head = tasks[producer.at()].span.late;
        let sibling = tasks[consumer.at()].span.bonds;
        let (next, prev) = if head == NONE { (id, id) } else { (head, self.links[head as usize].prev) };
        let link = Link { producer, consumer, next, prev, sibling };
        if id as usize == self.links.len() {
            self.links.push(link);
        } else {
            self.links[id as usize] = link;
        }
        self.links[prev as usize].next = id;
        self.links[next as usize].prev = id;
        if head == NONE {
            tasks[producer.at()].span.late = id;
        }
        tasks[consumer.at()].span.bonds = id;
    }

    /// The predecessors of a task, in the order of its chunk's column.
    #[inline]
    pub(crate) fn predecessors(&self, task: &Task) -> &[TaskIndex] {
        if task.span.preds_len == 0 {
            return &[];
        }
        let at = task.span.at as usize;
        &self.chunks[task.chunk as usize].ends[at..at + task.span.preds_len as usize]
    }

    /// The consumers that came with a task's own chunk. Some may be gone, and their slots taken by others.
    #[inline]
    fn row(&self, task: &Task) -> &[TaskIndex] {
        if task.span.succs_len == 0 {
            return &[];
        }
        let at = task.span.at as usize + task.span.preds_len as usize;
        // The rows of a chunk go before its last held result does.
        self.chunks[task.chunk as usize].ends.get(at..at + task.span.succs_len as usize).unwrap_or_default()
    }

    /// The consumers of a task that came with later chunks and may still run.
    fn linked(&self, task: &Task) -> impl Iterator<Item = TaskIndex> + '_ {
        let head = task.span.late;
        let mut id = head;
        std::iter::from_fn(move || {
            if id == NONE {
                return None;
            }
            let link = &self.links[id as usize];
            id = if link.next == head { NONE } else { link.next };
            Some(link.consumer)
        })
    }

    /// Calls `visit` for every consumer, the last submitted first: whoever pushes each to the front of a queue leaves them
    /// there in order of submission (K3).
    #[inline]
    pub(crate) fn each_consumer_back(
        &self,
        tasks: &mut [Task],
        task: TaskIndex,
        mut visit: impl FnMut(&mut Task, TaskIndex),
    ) {
        let Task { chunk, span, .. } = tasks[task.at()];
        if span.late != NONE {
            self.each_linked_back(tasks, span.late, &mut visit);
        }
        for &consumer in self.row(&tasks[task.at()]).iter().rev() {
            let entry = &mut tasks[consumer.at()];
            if entry.chunk == chunk {
                visit(entry, consumer);
            }
        }
    }

    #[cold]
    fn each_linked_back(&self, tasks: &mut [Task], head: u32, visit: &mut impl FnMut(&mut Task, TaskIndex)) {
        let mut id = head;
        loop {
            id = self.links[id as usize].prev;
            let consumer = self.links[id as usize].consumer;
            visit(&mut tasks[consumer.at()], consumer);
            if id == head {
                return;
            }
        }
    }

    /// How long a row of chunks ends in this one.
    pub(crate) fn depth_mut(&mut self, chunk: u32) -> &mut u32 {
        &mut self.chunks[chunk as usize].depth
    }

    /// Consumers that may still run, again or for the first time, in order of submission.
    pub(crate) fn consumers<'a>(&'a self, tasks: &'a [Task], task: TaskIndex) -> impl Iterator<Item = TaskIndex> + 'a {
        let task = &tasks[task.at()];
        let own = move |consumer: &TaskIndex| {
            let entry = &tasks[consumer.at()];
            entry.chunk == task.chunk && !entry.has(Flag::Released)
        };
        self.row(task).iter().copied().filter(own).chain(self.linked(task))
    }

    /// Lets the producers of a task go: unlinks it from those in older chunks, and drops the rows of its chunk once nobody
    /// in the chunk needs them.
    #[inline]
    pub(crate) fn release(&mut self, tasks: &mut [Task], task: TaskIndex) {
        let Task { chunk, ref mut span, .. } = tasks[task.at()];
        (span.at, span.preds_len) = (span.at + span.preds_len, 0);
        if span.bonds != NONE {
            let bonds = std::mem::replace(&mut span.bonds, NONE);
            self.unlink(tasks, bonds);
        }
        let rows = &mut self.chunks[chunk as usize];
        rows.unreleased -= 1;
        if rows.unreleased == 0 {
            self.drop_rows(chunk);
        }
    }

    /// Takes a task out of the rings of its producers in older chunks.
    fn unlink(&mut self, tasks: &mut [Task], bonds: u32) {
        let mut id = bonds;
        while id != NONE {
            let Link { producer, next, prev, sibling, .. } = self.links[id as usize];
            self.links[prev as usize].next = next;
            self.links[next as usize].prev = prev;
            let late = &mut tasks[producer.at()].span.late;
            if *late == id {
                *late = if next == id { NONE } else { next };
            }
            self.free_links.push(id);
            id = sibling;
        }
    }

    fn drop_rows(&mut self, chunk: u32) {
        let rows = &mut self.chunks[chunk as usize];
        self.edges -= u64::from(rows.edges);
        self.row_bytes -= rows.bytes();
        rows.ends = Vec::new();
    }

    /// Forgets a freed task of a chunk; the chunk goes with its last one.
    #[inline]
    pub(crate) fn free(&mut self, chunk: u32) {
        let rows = &mut self.chunks[chunk as usize];
        rows.alive -= 1;
        if rows.alive == 0 {
            self.free_chunks.push(chunk);
        }
    }

    pub(crate) fn edges(&self) -> u64 {
        self.edges
    }

    pub(crate) fn bytes(&self) -> usize {
        self.chunks.capacity() * size_of::<Rows>()
            + self.links.capacity() * size_of::<Link>()
            + (self.free_chunks.capacity() + self.free_links.capacity()) * size_of::<u32>()
            + self.row_bytes
    }

    /// Tasks of a chunk that are not freed, and those that may still need their edges.
    pub(crate) fn chunk_counts(&self, chunk: u32) -> (u32, u32) {
        let rows = &self.chunks[chunk as usize];
        (rows.alive, rows.unreleased)
    }
}

impl Rows {
    fn bytes(&self) -> usize {
        self.ends.capacity() * size_of::<TaskIndex>()
    }
}
