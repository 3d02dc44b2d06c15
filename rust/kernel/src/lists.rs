//! Queues of tasks, linked through the tasks themselves: a task stands in at most one, and leaves it in O(1).

use crate::ids::{NONE, TaskIndex};
use crate::state::Task;

/// All queues by number.
#[derive(Clone, Default)]
pub(crate) struct Lists {
    lists: Vec<List>,
    free: Vec<u32>,
}

/// One queue. `owner` is for whoever made it: a class's place, or a worker.
#[derive(Clone, Copy)]
pub(crate) struct List {
    pub(crate) head: u32,
    pub(crate) tail: u32,
    pub(crate) len: u32,
    pub(crate) owner: u32,
}

/// An end of a queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Front,
    Back,
}

impl Lists {
    pub(crate) fn make(&mut self, owner: u32) -> u32 {
        let list = List { head: NONE, tail: NONE, len: 0, owner };
        match self.free.pop() {
            Some(id) => {
                self.lists[id as usize] = list;
                id
            }
            None => {
                self.lists.push(list);
                (self.lists.len() - 1) as u32
            }
        }
    }

    pub(crate) fn discard(&mut self, id: u32) {
        debug_assert_eq!(self.lists[id as usize].len, 0);
        self.free.push(id);
    }

    #[inline]
    pub(crate) fn get(&self, id: u32) -> &List {
        &self.lists[id as usize]
    }

    #[inline]
    pub(crate) fn push(&mut self, tasks: &mut [Task], id: u32, task: TaskIndex, end: End) {
        let list = &mut self.lists[id as usize];
        debug_assert_eq!(tasks[task.at()].list, NONE);
        let (prev, next) = match end {
            End::Front => (NONE, list.head),
            End::Back => (list.tail, NONE),
        };
        if prev == NONE {
            list.head = task.0
        } else {
            tasks[prev as usize].next = task.0
        }
        if next == NONE {
            list.tail = task.0
        } else {
            tasks[next as usize].prev = task.0
        }
        list.len += 1;
        let entry = &mut tasks[task.at()];
        (entry.list, entry.prev, entry.next) = (id, prev, next);
    }

    /// Takes a task out of its queue and returns the queue.
    #[inline]
    pub(crate) fn remove(&mut self, tasks: &mut [Task], task: TaskIndex) -> u32 {
        let entry = &mut tasks[task.at()];
        let (id, prev, next) = (entry.list, entry.prev, entry.next);
        (entry.list, entry.prev, entry.next) = (NONE, NONE, NONE);
        let list = &mut self.lists[id as usize];
        if prev == NONE {
            list.head = next
        } else {
            tasks[prev as usize].next = next
        }
        if next == NONE {
            list.tail = prev
        } else {
            tasks[next as usize].prev = prev
        }
        list.len -= 1;
        id
    }

    /// The tasks of a queue from its front.
    pub(crate) fn iter<'a>(&'a self, tasks: &'a [Task], id: u32) -> impl Iterator<Item = TaskIndex> + 'a {
        let mut at = self.lists[id as usize].head;
        std::iter::from_fn(move || {
            let task = (at != NONE).then_some(TaskIndex(at))?;
            at = tasks[task.at()].next;
            Some(task)
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.lists.capacity() * size_of::<List>() + self.free.capacity() * size_of::<u32>()
    }
}
