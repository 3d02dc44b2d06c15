//! Names of things: plain numbers, each with a type of its own.

/// Slot of a task in the kernel. It is reused once the task is freed; [`Handle`] outlives that.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TaskIndex(pub u32);

/// A worker; below [`WorkerId::LIMIT`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WorkerId(pub u32);

/// A class of tasks with a ready queue of its own (K3): an opaque number for run, pin, resources, tags.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClassId(pub u32);

/// One try of a task. Numbers grow for as long as the slot exists, over all tasks that it holds, so (slot, attempt) fences
/// reports on an earlier task of the same slot as well (K4). 0 means "never leased".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Attempt(pub u32);

/// A task by slot and generation: what may be kept after the task is freed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Handle {
    /// The slot.
    pub index: TaskIndex,
    /// How many tasks the slot held before this one.
    pub generation: u32,
}

impl TaskIndex {
    #[inline]
    pub(crate) fn at(self) -> usize {
        self.0 as usize
    }
}

impl WorkerId {
    /// Numbers of workers stay below this, so that the sum of their squares over 2³¹ predecessors fits 64 bits (K2).
    pub const LIMIT: u32 = 1 << 16;

    #[inline]
    pub(crate) fn at(self) -> usize {
        self.0 as usize
    }
}

/// "None" in columns of slots, lists and links.
pub(crate) const NONE: u32 = u32::MAX;
