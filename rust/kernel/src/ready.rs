//! Who could start: one ready queue per class and priority (K3), and per worker the followers, tasks that wait for nothing
//! but what that worker has in its queue (K2).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::ids::{ClassId, NONE, TaskIndex, WorkerId};
use crate::lists::{End, Lists};
use crate::state::{Flag, Rank, Task, TaskState};
use crate::worker_set::WorkerSet;

/// All tasks with their places: each non-terminal task stands in exactly the queue that its counts call for.
#[derive(Clone, Default)]
pub(crate) struct Board {
    pub(crate) tasks: Vec<Task>,
    pub(crate) lists: Lists,
    pub(crate) ready: Ready,
    pub(crate) workers: Vec<Option<Worker>>,
    /// The workers with followers, and some that have none any more.
    pub(crate) followed: WorkerSet,
    /// The priority of the first task of all, and whether any had another.
    pub(crate) first_priority: Option<i32>,
    pub(crate) has_levels: bool,
    /// Watched tasks that have become ready.
    pub(crate) became_ready: Vec<TaskIndex>,
    /// Tasks per state; those that have not ended all count as waiting.
    pub(crate) counts: [u64; TaskState::ALL.len()],
}

/// The queues of one worker.
#[derive(Clone)]
pub(crate) struct Worker {
    /// Its leases in the order in which it will run them.
    pub(crate) leases: u32,
    /// Followers by class, because a worker need not be allowed to run the successors of what it runs.
    pub(crate) followers: Vec<(ClassId, u32)>,
}

/// The ready queues.
#[derive(Clone, Default)]
pub(crate) struct Ready {
    classes: BTreeMap<ClassId, u32>,
    places: Vec<ClassQueues>,
    free_places: Vec<u32>,
    /// The queue used last: nearly always the next one too.
    last: Option<(Rank, u32)>,
}

/// The queues of one class, one per priority.
#[derive(Clone)]
struct ClassQueues {
    len: u32,
    levels: BTreeMap<Reverse<i32>, u32>,
}

impl Board {
    #[inline]
    pub(crate) fn set_state(&mut self, task: TaskIndex, state: TaskState) {
        let entry = &mut self.tasks[task.at()];
        debug_assert!(entry.state.may_become(state), "K1: {:?} -> {state:?}", entry.state);
        entry.state = state;
    }

    /// A task that had not ended ends.
    #[inline]
    pub(crate) fn set_ended(&mut self, task: TaskIndex, state: TaskState) {
        self.counts[TaskState::Waiting as usize] -= 1;
        self.counts[state as usize] += 1;
        self.set_state(task, state);
    }

    /// A task that had ended is needed again, or is freed.
    #[inline]
    pub(crate) fn set_not_ended(&mut self, task: TaskIndex, state: TaskState) {
        self.counts[self.tasks[task.at()].state as usize] -= 1;
        self.counts[state as usize] += 1;
        self.set_state(task, state);
    }

    /// The number of tasks in a state. Costs O(classes + workers) for those of tasks that have not ended.
    pub(crate) fn count(&self, state: TaskState) -> u64 {
        let leased = || self.workers.iter().flatten().map(|worker| u64::from(self.lists.get(worker.leases).len)).sum();
        match state {
            TaskState::Ready => self.ready.total(),
            TaskState::Leased => leased(),
            TaskState::Waiting => self.counts[TaskState::Waiting as usize] - self.ready.total() - leased(),
            _ => self.counts[state as usize],
        }
    }

    /// Puts a task that is in no queue where its counts call for: ready, follower of a worker, or nowhere.
    pub(crate) fn place(&mut self, task: TaskIndex, end: End) {
        let entry = &self.tasks[task.at()];
        if entry.missing == 0 {
            self.set_state(task, TaskState::Ready);
            self.enqueue(task, end);
            if self.tasks[task.at()].has(Flag::Watched) {
                self.became_ready.push(task);
            }
        } else {
            if entry.state != TaskState::Waiting {
                self.set_state(task, TaskState::Waiting);
            }
            if let Some(worker) = self.tasks[task.at()].leader() {
                self.follow(task, worker as usize, end);
            }
        }
    }

    /// Puts a ready task into the queue of its rank.
    #[inline]
    fn enqueue(&mut self, task: TaskIndex, end: End) {
        let rank = self.tasks[task.at()].rank;
        let queue = self.ready.queue(&mut self.lists, rank);
        self.lists.push(&mut self.tasks, queue, task, end);
        let place = self.lists.get(queue).owner;
        self.ready.places[place as usize].len += 1;
    }

    /// Gives a task another class, and the place that goes with it. A lease stays what it is.
    pub(crate) fn set_class(&mut self, task: TaskIndex, class: ClassId) {
        let state = self.tasks[task.at()].state;
        if state == TaskState::Leased {
            self.tasks[task.at()].rank.class = class;
            return;
        }
        self.leave(task);
        self.tasks[task.at()].rank.class = class;
        match state {
            TaskState::Ready => self.enqueue(task, End::Front),
            TaskState::Waiting => self.place(task, End::Front),
            _ => {}
        }
    }

    /// Takes a task out of the queue in which it stands, if any.
    #[inline]
    pub(crate) fn leave(&mut self, task: TaskIndex) {
        if self.tasks[task.at()].list == NONE {
            return;
        }
        let list = self.lists.remove(&mut self.tasks, task);
        if self.tasks[task.at()].state == TaskState::Ready {
            self.ready.left(&mut self.lists, self.tasks[task.at()].rank, list);
        }
    }

    /// A predecessor of a waiting task is done, and as many are leased now as are missing.
    #[inline]
    pub(crate) fn advance(&mut self, task: TaskIndex) {
        if self.tasks[task.at()].missing == 0 {
            self.leave(task);
            self.place(task, End::Front);
        } else if self.tasks[task.at()].list == NONE {
            self.place(task, End::Front);
        }
    }

    /// The lease queue of a worker.
    #[inline]
    pub(crate) fn leases(&self, worker: WorkerId) -> Option<u32> {
        self.workers.get(worker.at())?.as_ref().map(|worker| worker.leases)
    }

    /// The worker that has the task in its queue.
    #[inline]
    pub(crate) fn worker_of(&self, task: TaskIndex) -> Option<WorkerId> {
        if self.tasks[task.at()].state != TaskState::Leased {
            return None;
        }
        Some(WorkerId(self.lists.get(self.tasks[task.at()].list).owner))
    }

    /// The first follower of a worker in a class.
    #[inline]
    pub(crate) fn first_follower(&self, worker: WorkerId, class: ClassId) -> Option<TaskIndex> {
        let worker = self.workers.get(worker.at())?.as_ref()?;
        let list = worker.followers.iter().find(|entry| entry.0 == class)?.1;
        let head = self.lists.get(list).head;
        (head != NONE).then_some(TaskIndex(head))
    }

    /// The followers of a worker in a class, in order.
    pub(crate) fn followers(&self, worker: WorkerId, class: ClassId) -> impl Iterator<Item = TaskIndex> + '_ {
        let worker = self.workers.get(worker.at()).and_then(Option::as_ref);
        let list = worker.and_then(|worker| worker.followers.iter().find(|entry| entry.0 == class));
        list.into_iter().flat_map(|entry| self.lists.iter(&self.tasks, entry.1))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.tasks.capacity() * size_of::<Task>() + self.lists.bytes() + self.ready.bytes()
    }

    /// Makes a waiting task a follower of a worker.
    pub(crate) fn follow(&mut self, task: TaskIndex, worker: usize, end: End) {
        let Some(Worker { followers, .. }) = self.workers[worker].as_mut() else { return };
        self.followed.insert(WorkerId(worker as u32));
        let class = self.tasks[task.at()].rank.class;
        let list = match followers.iter().find(|entry| entry.0 == class) {
            Some(&(_, list)) => list,
            None => {
                if followers.len() >= FOLLOWER_CLASSES_KEPT {
                    followers.retain(|&(_, list)| {
                        let used = self.lists.get(list).len > 0;
                        if !used {
                            self.lists.discard(list);
                        }
                        used
                    });
                }
                let list = self.lists.make(worker as u32);
                followers.push((class, list));
                list
            }
        };
        self.lists.push(&mut self.tasks, list, task, end);
    }
}

impl Ready {
    /// The number of ready tasks in a class.
    pub(crate) fn len(&self, class: ClassId) -> usize {
        self.classes.get(&class).map_or(0, |&place| self.places[place as usize].len as usize)
    }

    /// The classes with ready tasks, ascending.
    pub(crate) fn classes(&self) -> impl Iterator<Item = ClassId> + '_ {
        self.classes.iter().filter(|&(_, &place)| self.places[place as usize].len > 0).map(|(&class, _)| class)
    }

    /// The classes with ready tasks, ascending, each with its highest priority.
    pub(crate) fn tops<'a>(&'a self, lists: &'a Lists) -> impl Iterator<Item = (ClassId, i32)> + 'a {
        self.classes.iter().filter_map(|(&class, &place)| {
            let queues = &self.places[place as usize];
            let top = || queues.levels.iter().find(|&(_, &queue)| lists.get(queue).len > 0);
            if queues.len == 0 { None } else { top().map(|(&Reverse(priority), _)| (class, priority)) }
        })
    }

    /// The classes with queues, even empty ones, for the checker.
    pub(crate) fn all_classes(&self) -> impl Iterator<Item = ClassId> + '_ {
        self.classes.keys().copied()
    }

    /// The number of ready tasks.
    fn total(&self) -> u64 {
        self.classes.values().map(|&place| u64::from(self.places[place as usize].len)).sum()
    }

    /// Where a class keeps its queues.
    pub(crate) fn place(&self, class: ClassId) -> Option<u32> {
        self.classes.get(&class).copied()
    }

    /// The queues of a place that hold tasks, highest priority first.
    #[inline]
    pub(crate) fn levels(&self, place: u32) -> impl Iterator<Item = (i32, u32)> + '_ {
        let queues = &self.places[place as usize];
        let levels = if queues.len > 0 { Some(&queues.levels) } else { None };
        levels.into_iter().flatten().map(|(&Reverse(priority), &queue)| (priority, queue))
    }

    /// The queue of a rank, made if need be.
    #[inline]
    fn queue(&mut self, lists: &mut Lists, rank: Rank) -> u32 {
        match self.last {
            Some((last, queue)) if last == rank => queue,
            _ => {
                let queue = self.find_queue(lists, rank);
                self.last = Some((rank, queue));
                queue
            }
        }
    }

    fn find_queue(&mut self, lists: &mut Lists, rank: Rank) -> u32 {
        let place = match self.classes.get(&rank.class) {
            Some(&place) => place,
            None => {
                let queues = ClassQueues { len: 0, levels: BTreeMap::new() };
                let place = match self.free_places.pop() {
                    Some(place) => {
                        self.places[place as usize] = queues;
                        place
                    }
                    None => {
                        self.places.push(queues);
                        (self.places.len() - 1) as u32
                    }
                };
                self.classes.insert(rank.class, place);
                place
            }
        };
        let queues = &mut self.places[place as usize];
        if queues.len == 0 && !queues.levels.contains_key(&Reverse(rank.priority)) {
            queues.levels.values().for_each(|&queue| lists.discard(queue));
            queues.levels.clear();
        }
        *queues.levels.entry(Reverse(rank.priority)).or_insert_with(|| lists.make(place))
    }

    /// A task left a ready queue; an empty queue goes unless it is the only one of its class, and then with the class.
    #[inline]
    fn left(&mut self, lists: &mut Lists, rank: Rank, queue: u32) {
        let &crate::lists::List { len, owner: place, .. } = lists.get(queue);
        let queues = &mut self.places[place as usize];
        queues.len -= 1;
        if len > 0 {
            return;
        }
        let class_goes = queues.len == 0 && self.classes.len() > READY_CLASSES_KEPT;
        if queues.levels.len() > 1 || class_goes {
            queues.levels.remove(&Reverse(rank.priority));
            lists.discard(queue);
            self.last = None;
        }
        if class_goes {
            self.classes.remove(&rank.class);
            self.free_places.push(place);
        }
    }

    fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<ClassQueues>()
            + self.classes.len() * size_of::<(ClassId, u32)>()
            + self.places.iter().map(|queues| queues.levels.len() * size_of::<(i32, u32)>()).sum::<usize>()
    }
}

/// Empty queues are kept for this many classes, so that a class whose only task comes and goes costs no allocation.
const READY_CLASSES_KEPT: usize = 16;
/// The same for the followers of one worker.
const FOLLOWER_CLASSES_KEPT: usize = 8;
