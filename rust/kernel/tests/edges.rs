//! One test a rule, named by the invariant that it belongs to.
#![allow(missing_docs)]

use headrace_kernel::{
    Attempt, Chunk, ClassId, Classes, EXTERNAL, Ended, GraphError, HowEnded, Kernel, LeaseRequest, Leased, Oracle,
    Preference, Priorities, Returned, Stale, TRANSITIONS, TaskIndex, TaskState, WorkerId,
};

const ANNA: WorkerId = WorkerId(1);
const BERT: WorkerId = WorkerId(2);

/// A kernel with two workers, and short words for what happens to it.
struct Story {
    kernel: Kernel,
    attempts: Vec<Attempt>,
}

impl Story {
    fn new() -> Self {
        let mut kernel = Kernel::new();
        kernel.add_worker(ANNA);
        kernel.add_worker(BERT);
        Story { kernel, attempts: Vec::new() }
    }

    /// Tasks of class 0, each with its predecessors; the results of `keep` are held.
    fn submit(&mut self, rows: &[&[u32]], keep: &[u32]) -> Vec<TaskIndex> {
        self.submit_on(&[], rows, keep)
    }

    fn submit_on(&mut self, external: &[TaskIndex], rows: &[&[u32]], keep: &[u32]) -> Vec<TaskIndex> {
        let chunk = (Classes::One(ClassId(0)), Priorities::One(0));
        self.try_submit(external, rows, keep, chunk).expect("a valid chunk")
    }

    fn try_submit(
        &mut self,
        external: &[TaskIndex],
        rows: &[&[u32]],
        keep: &[u32],
        (class, priority): (Classes<'_>, Priorities<'_>),
    ) -> Result<Vec<TaskIndex>, GraphError> {
        let dep_counts: Vec<u32> = rows.iter().map(|row| row.len() as u32).collect();
        let deps = rows.concat();
        let chunk = Chunk { dep_counts: &dep_counts, deps: &deps, external, class, priority, keep };
        let mut slots = Vec::new();
        self.kernel.submit(&chunk, &mut slots)?;
        self.check();
        Ok(slots)
    }

    fn refused(&mut self, rows: &[&[u32]]) -> GraphError {
        let before = self.kernel.statistics();
        let chunk = (Classes::One(ClassId(0)), Priorities::One(0));
        let error = self.try_submit(&[], rows, &[], chunk).expect_err("a bad chunk");
        assert_eq!(self.kernel.statistics(), before, "a refused chunk changes nothing");
        error
    }

    /// Leases at most so many tasks of class 0.
    fn lease(&mut self, worker: WorkerId, tasks_max: u32) -> Vec<TaskIndex> {
        self.batch(worker, tasks_max).iter().map(|lease| lease.task).collect()
    }

    fn batch(&mut self, worker: WorkerId, tasks_max: u32) -> Vec<Leased> {
        self.batch_of(worker, LeaseRequest { tasks_max, ..everything(&[ClassId(0)]) })
    }

    fn batch_of(&mut self, worker: WorkerId, request: LeaseRequest<'_>) -> Vec<Leased> {
        let mut batch = Vec::new();
        self.kernel.lease(worker, &request, &mut Cheap, &mut batch);
        for lease in &batch {
            let slot = lease.task.0 as usize;
            if slot >= self.attempts.len() {
                self.attempts.resize(slot + 1, Attempt(0));
            }
            assert!(lease.attempt > self.attempts[slot], "K4: every lease has a new number");
            self.attempts[slot] = lease.attempt;
        }
        self.check();
        batch
    }

    /// Completes tasks whose results only the worker has.
    fn complete(&mut self, worker: WorkerId, tasks: &[TaskIndex]) {
        self.completes(worker, tasks, false);
    }

    fn completes(&mut self, worker: WorkerId, tasks: &[TaskIndex], secured: bool) {
        for &task in tasks {
            let attempt = self.kernel.attempt(task);
            self.kernel.complete(worker, task, attempt, secured).expect("not stale");
            self.check();
        }
    }

    fn fail(&mut self, worker: WorkerId, task: TaskIndex) {
        self.kernel.fail(worker, task, self.kernel.attempt(task)).expect("not stale");
        self.check();
    }

    fn give_back(&mut self, worker: WorkerId, task: TaskIndex) {
        self.kernel.give_back(worker, task, self.kernel.attempt(task)).expect("not stale");
        self.check();
    }

    fn ended(&mut self) -> Vec<Ended> {
        let mut ended = Vec::new();
        self.kernel.drain_ended(|entry| ended.push(entry));
        self.check();
        ended
    }

    fn returned(&mut self) -> Vec<Returned> {
        let mut returned = Vec::new();
        self.kernel.drain_returned(|lease| returned.push(lease));
        returned
    }

    fn dead(&mut self) -> Vec<TaskIndex> {
        let mut dead = Vec::new();
        self.kernel.drain_dead(|task| dead.push(task));
        dead
    }

    /// Drains all, and returns what was freed, ascending.
    fn freed(&mut self) -> Vec<TaskIndex> {
        let mut freed = Vec::new();
        self.kernel.drain_ended(|_| {});
        self.kernel.drain_returned(|_| {});
        self.kernel.drain_dead(|_| {});
        while self.kernel.drain_freed(|task| freed.push(task)) {
            self.kernel.drain_dead(|_| {});
        }
        freed.sort();
        self.check();
        freed
    }

    fn states(&self, tasks: &[TaskIndex]) -> Vec<TaskState> {
        tasks.iter().map(|&task| self.kernel.state(task)).collect()
    }

    fn check(&self) {
        self.kernel.check().unwrap_or_else(|error| panic!("{error}"));
    }
}

fn everything(classes: &[ClassId]) -> LeaseRequest<'_> {
    LeaseRequest { classes, tasks_max: u32::MAX, seeds_max: u32::MAX, budget: u64::MAX, only_preferred: false }
}

/// Every task costs one; nobody is preferred.
struct Cheap;

impl Oracle for Cheap {
    fn cost(&mut self, _: TaskIndex) -> u64 {
        1
    }

    fn preference(&mut self, predecessors: &[TaskIndex], _: TaskIndex) -> Preference {
        assert!(!predecessors.is_empty(), "nobody is asked about tasks without predecessors");
        Preference::Nobody
    }
}

/// All that are named belong to others.
struct Elsewhere<'a>(&'a [TaskIndex]);

impl Oracle for Elsewhere<'_> {
    fn cost(&mut self, _: TaskIndex) -> u64 {
        1
    }

    fn preference(&mut self, _: &[TaskIndex], task: TaskIndex) -> Preference {
        if self.0.contains(&task) { Preference::Other } else { Preference::Mine }
    }
}

const CHAIN: &[&[u32]] = &[&[], &[0], &[1]];
const DIAMOND: &[&[u32]] = &[&[], &[0], &[0], &[1, 2]];

// Chunks that are refused.

#[test]
fn a_cycle_is_named_from_its_smallest_number() {
    let error = Story::new().refused(&[&[], &[3, 0], &[1], &[2], &[3]]);
    assert_eq!(error, GraphError::Cycle { tasks: vec![1, 2, 3] });
    assert_eq!(error.to_string(), "cycle of 3 tasks: 1 -> 2 -> 3 -> 1");
}

#[test]
fn a_cycle_of_a_million_tasks_is_found_without_recursion() {
    let tasks = 1_000_000;
    let deps: Vec<u32> = (0..tasks).map(|task| (task + 1) % tasks).collect();
    let chunk = Chunk {
        dep_counts: &vec![1; tasks as usize],
        deps: &deps,
        external: &[],
        class: Classes::One(ClassId(0)),
        priority: Priorities::One(0),
        keep: &[],
    };
    let error = Kernel::new().submit(&chunk, &mut Vec::new()).expect_err("a cycle");
    let text = error.to_string();
    assert!(text.starts_with("cycle of 1000000 tasks: 0 -> 999999 -> 999998"), "{text}");
    assert!(text.ends_with("-> ..."), "{text}");
    let GraphError::Cycle { tasks: cycle } = error else { panic!("{text}") };
    assert_eq!(cycle.len(), tasks as usize);
}

#[test]
fn tasks_may_be_numbered_against_their_order() {
    let mut story = Story::new();
    let tasks = story.submit(&[&[1], &[2], &[]], &[]);
    assert_eq!(story.lease(ANNA, 3), [tasks[2], tasks[1], tasks[0]]);
}

#[test]
fn bad_predecessors_are_refused() {
    let mut story = Story::new();
    assert_eq!(story.refused(&[&[], &[1]]), GraphError::SelfDependency { task: 1 });
    assert_eq!(story.refused(&[&[], &[2]]), GraphError::UnknownDependency { task: 1, dependency: 2 });
    assert_eq!(story.refused(&[&[], &[0, 0]]), GraphError::DuplicateDependency { task: 1, dependency: 0 });
    let dependency = EXTERNAL;
    assert_eq!(story.refused(&[&[EXTERNAL]]), GraphError::UnknownDependency { task: 0, dependency });
}

#[test]
fn columns_must_fit_together() {
    let mut story = Story::new();
    let (class, priority) = (Classes::One(ClassId(0)), Priorities::One(0));
    let chunk = Chunk { dep_counts: &[0, 2], deps: &[0], external: &[], class, priority, keep: &[] };
    let mut refuse = |chunk: Chunk<'_>| story.kernel.submit(&chunk, &mut Vec::new()).expect_err("bad columns");
    assert!(matches!(refuse(chunk), GraphError::Columns(_)));
    assert!(matches!(refuse(Chunk { dep_counts: &[0, 0], ..chunk }), GraphError::Columns(_)));
    let fine = Chunk { dep_counts: &[0, 1], ..chunk };
    assert!(matches!(refuse(Chunk { class: Classes::Each(&[ClassId(0)]), ..fine }), GraphError::Columns(_)));
    assert!(matches!(refuse(Chunk { priority: Priorities::Each(&[0]), ..fine }), GraphError::Columns(_)));
    assert_eq!(refuse(Chunk { keep: &[2], ..fine }), GraphError::UnknownKeep { number: 2 });
    assert_eq!(story.kernel.submit(&fine, &mut Vec::new()), Ok(()));
}

#[test]
fn one_external_task_at_two_positions_is_a_duplicate() {
    let mut story = Story::new();
    let chunk = (Classes::One(ClassId(0)), Priorities::One(0));
    let old = story.submit(&[&[]], &[0])[0];
    let twice = story.try_submit(&[old, old], &[&[EXTERNAL, EXTERNAL | 1]], &[], chunk);
    assert_eq!(twice, Err(GraphError::DuplicateDependency { task: 0, dependency: EXTERNAL | 1 }));
    let apart = story.try_submit(&[old, old], &[&[EXTERNAL], &[EXTERNAL | 1]], &[], chunk);
    assert!(apart.is_ok());
}

#[test]
fn k5_a_dead_result_cannot_be_used_again() {
    let mut story = Story::new();
    let chunk = (Classes::One(ClassId(0)), Priorities::One(0));
    let old = story.submit(&[&[]], &[])[0];
    story.lease(ANNA, 1);
    story.complete(ANNA, &[old]);
    let refused = Err(GraphError::ResultReleased { position: 0 });
    assert_eq!(story.try_submit(&[old], &[&[EXTERNAL]], &[], chunk), refused);
    assert_eq!(story.freed(), [old]);
    assert_eq!(story.try_submit(&[old], &[&[EXTERNAL]], &[], chunk), refused);
}

// K1

#[test]
fn k1_only_the_edges_of_the_table_happen() {
    for from in TaskState::ALL {
        for to in TaskState::ALL {
            let listed = TRANSITIONS.iter().filter(|edge| (edge.0, edge.1) == (from, to)).count();
            assert!(listed <= 1, "{from:?} -> {to:?} is listed twice");
            assert_eq!(from.may_become(to), listed == 1);
        }
    }
    let from_the_end = |edge: &&(TaskState, TaskState, &str)| edge.0.is_terminal() && edge.1 != TaskState::Free;
    let back: Vec<_> = TRANSITIONS.iter().filter(from_the_end).collect();
    assert_eq!(back.len(), 1, "only a lost result takes a task back: {back:?}");
}

#[test]
fn k1_a_free_slot_answers_and_takes_no_orders() {
    let mut story = Story::new();
    let nobody = TaskIndex(77);
    story.kernel.hold(nobody);
    story.kernel.unhold(nobody);
    story.kernel.secure(nobody);
    story.kernel.lose_result(nobody);
    story.kernel.fail_unleased(nobody);
    story.kernel.cancel(&[nobody]);
    assert_eq!(story.kernel.state(nobody), TaskState::Free);
    assert_eq!(story.kernel.complete(ANNA, nobody, Attempt(1), true), Err(Stale));
    assert_eq!(story.kernel.predecessors(nobody), []);
    assert_eq!(story.kernel.successors(nobody).count(), 0);
    assert!(!story.kernel.result_alive(nobody));
}

#[test]
fn k1_a_handle_outlives_its_task() {
    let mut story = Story::new();
    let first = story.submit(&[&[]], &[])[0];
    let handle = story.kernel.handle(first);
    assert_eq!(story.kernel.resolve(handle), Some(first));
    story.lease(ANNA, 1);
    story.complete(ANNA, &[first]);
    assert_eq!(story.freed(), [first]);
    assert_eq!(story.kernel.resolve(handle), None);
    let second = story.submit(&[&[]], &[])[0];
    assert_eq!(second, first, "the slot is used again");
    assert_eq!(story.kernel.resolve(handle), None);
}

// K2

#[test]
fn k2_a_batch_is_closed_over_its_dependencies() {
    let mut story = Story::new();
    let tasks = story.submit(DIAMOND, &[3]);
    let batch = story.batch(ANNA, 10);
    assert_eq!(batch.iter().map(|lease| lease.task).collect::<Vec<_>>(), tasks);
    let flags: Vec<_> = batch.iter().map(|lease| (lease.report, lease.hold)).collect();
    assert_eq!(flags, [(false, true), (false, true), (false, true), (true, false)]);
}

#[test]
fn k2_a_task_whose_inputs_are_with_two_workers_waits() {
    let mut story = Story::new();
    let tasks = story.submit(&[&[], &[], &[0, 1]], &[]);
    assert_eq!(story.lease(ANNA, 1), [tasks[0]]);
    assert_eq!(story.lease(BERT, 5), [tasks[1]]);
    assert_eq!(story.lease(ANNA, 5), []);
    story.complete(BERT, &tasks[1..2]);
    assert_eq!(story.lease(BERT, 5), [], "what is missing now is with Anna");
    assert_eq!(story.lease(ANNA, 5), [tasks[2]], "behind what she has");
    story.complete(ANNA, &[tasks[0], tasks[2]]);
}

#[test]
fn k2_sums_tell_workers_apart_that_average_out() {
    let mut story = Story::new();
    for worker in [0, 3, 4] {
        story.kernel.add_worker(WorkerId(worker));
    }
    let tasks = story.submit(&[&[], &[], &[0, 1]], &[]);
    // Workers 0 and 4 have the mean 2 = Bert, and the sum alone would call the third task his follower.
    assert_eq!(story.lease(WorkerId(0), 1), [tasks[0]]);
    assert_eq!(story.lease(WorkerId(4), 1), [tasks[1]]);
    assert_eq!(story.lease(BERT, 1), []);
}

#[test]
fn k2_followers_go_before_seeds() {
    let mut story = Story::new();
    let tasks = story.submit(&[&[], &[], &[0]], &[]);
    assert_eq!(story.lease(ANNA, 1), [tasks[0]]);
    assert_eq!(story.lease(ANNA, 5), [tasks[2], tasks[1]]);
}

#[test]
fn k2_successors_are_taken_depth_first() {
    let mut story = Story::new();
    //        0        6
    //      1   2
    //     3 4   5
    let tasks = story.submit(&[&[], &[0], &[0], &[1], &[1], &[2], &[]], &[]);
    let order: Vec<u32> = story.lease(ANNA, 10).iter().map(|task| task.0).collect();
    assert_eq!(order, [0, 1, 3, 4, 2, 5, 6]);
    assert_eq!(tasks.len(), order.len());
}

#[test]
fn k2_a_follower_of_another_class_is_not_taken_along() {
    let mut story = Story::new();
    let classes = Classes::Each(&[ClassId(0), ClassId(7), ClassId(0)]);
    let tasks = story.try_submit(&[], CHAIN, &[], (classes, Priorities::One(0))).expect("a valid chunk");
    assert_eq!(story.lease(ANNA, 5), [tasks[0]], "the second task is pinned elsewhere");
    story.complete(ANNA, &tasks[..1]);
    assert_eq!(story.kernel.ready_len(ClassId(7)), 1);
    let batch = story.batch_of(BERT, everything(&[ClassId(7)]));
    assert_eq!(batch.iter().map(|lease| lease.task).collect::<Vec<_>>(), [tasks[1]]);
    assert!(batch[0].report, "its consumer will run elsewhere");
}

#[test]
fn k2_what_stands_behind_a_returned_lease_comes_back_too() {
    let mut story = Story::new();
    let tasks = story.submit(&[&[], &[0], &[1], &[]], &[]);
    assert_eq!(story.lease(ANNA, 5), tasks);
    let attempt = story.kernel.attempt(tasks[2]);
    story.give_back(ANNA, tasks[1]);
    assert_eq!(story.returned(), [Returned { task: tasks[2], worker: ANNA, attempt }]);
    use TaskState::{Leased, Waiting};
    assert_eq!(story.states(&tasks), [Leased, Waiting, Waiting, Leased]);
    assert_eq!(story.lease(BERT, 5), [], "both still hang on what Anna has");
    assert_eq!(story.lease(ANNA, 5), tasks[1..3]);
}

#[test]
fn k2_a_task_is_not_done_before_its_predecessors() {
    let mut story = Story::new();
    let tasks = story.submit(CHAIN, &[]);
    story.lease(ANNA, 5);
    let attempt = story.kernel.attempt(tasks[1]);
    assert_eq!(story.kernel.complete(ANNA, tasks[1], attempt, false), Err(Stale));
    story.complete(ANNA, &tasks);
}

#[test]
fn k2_a_new_task_follows_what_a_worker_has() {
    let mut story = Story::new();
    let old = story.submit(&[&[]], &[])[0];
    story.lease(ANNA, 1);
    let new = story.submit_on(&[old], &[&[EXTERNAL], &[0]], &[]);
    assert_eq!(story.lease(BERT, 5), []);
    assert_eq!(story.lease(ANNA, 5), new);
}

#[test]
fn k2_a_lost_input_takes_a_lease_back() {
    let mut story = Story::new();
    let tasks = story.submit(CHAIN, &[2]);
    story.lease(ANNA, 1);
    story.complete(ANNA, &tasks[..1]);
    assert_eq!(story.lease(BERT, 5), tasks[1..]);
    story.kernel.lose_result(tasks[0]);
    story.check();
    let returned: Vec<TaskIndex> = story.returned().iter().map(|lease| lease.task).collect();
    assert_eq!(returned, tasks[1..]);
    assert_eq!(story.lease(BERT, 5), tasks);
}

// K3

#[test]
fn k3_roots_wait_in_order_of_submission() {
    let mut story = Story::new();
    let first = story.submit(&[&[], &[]], &[]);
    let second = story.submit(&[&[]], &[]);
    assert_eq!(story.lease(ANNA, 5), [first, second].concat());
}

#[test]
fn k3_readied_tasks_go_to_the_front_in_order_of_submission() {
    let mut story = Story::new();
    let tasks = story.submit(&[&[], &[], &[0], &[0]], &[]);
    assert_eq!(story.lease(ANNA, 1), tasks[..1]);
    let late = story.submit_on(&tasks[..1], &[&[EXTERNAL]], &[]);
    story.complete(ANNA, &tasks[..1]);
    assert_eq!(story.lease(BERT, 5), [tasks[2], tasks[3], late[0], tasks[1]]);
}

#[test]
fn k3_a_task_given_back_goes_to_the_front() {
    let mut story = Story::new();
    let tasks = story.submit(&[&[], &[], &[]], &[]);
    story.lease(ANNA, 2);
    story.give_back(ANNA, tasks[1]);
    story.give_back(ANNA, tasks[0]);
    assert_eq!(story.lease(BERT, 5), tasks);
}

#[test]
fn k3_priority_goes_before_everything() {
    let mut story = Story::new();
    let (class, priority) = (Classes::One(ClassId(0)), Priorities::Each(&[0, 5, -1, 5]));
    let tasks = story.try_submit(&[], &[&[], &[], &[], &[]], &[], (class, priority)).expect("a valid chunk");
    assert_eq!(story.lease(ANNA, 1), [tasks[1]]);
    story.give_back(ANNA, tasks[1]);
    assert_eq!(story.lease(ANNA, 9), [tasks[1], tasks[3], tasks[0], tasks[2]]);
}

#[test]
fn k3_classes_are_taken_by_priority_and_then_as_named() {
    let mut story = Story::new();
    let classes = Classes::Each(&[ClassId(4), ClassId(9), ClassId(9), ClassId(5)]);
    let priority = Priorities::Each(&[0, 0, 1, 9]);
    let tasks = story.try_submit(&[], &[&[], &[], &[], &[]], &[], (classes, priority)).expect("a valid chunk");
    assert_eq!(story.kernel.ready_classes().collect::<Vec<_>>(), [ClassId(4), ClassId(5), ClassId(9)]);
    let batch = story.batch_of(ANNA, everything(&[ClassId(4), ClassId(9)]));
    let order: Vec<TaskIndex> = batch.iter().map(|lease| lease.task).collect();
    assert_eq!(order, [tasks[2], tasks[0], tasks[1]]);
}

#[test]
fn k3_many_classes_come_and_go() {
    let mut story = Story::new();
    for class in 0..100 {
        let rank = (Classes::One(ClassId(class)), Priorities::Each(&[1, 2]));
        let tasks = story.try_submit(&[], &[&[], &[]], &[], rank).expect("a valid chunk");
        if class % 3 == 0 {
            story.kernel.cancel(&tasks);
        }
    }
    assert_eq!(story.kernel.ready_classes().count(), 66);
    for class in 0..100 {
        story.batch_of(ANNA, everything(&[ClassId(class)]));
    }
    assert_eq!(story.kernel.ready_classes().count(), 0);
    assert_eq!(story.kernel.leases_of(ANNA).count(), 132);
}

#[test]
fn limits_of_a_batch_are_kept() {
    let mut story = Story::new();
    story.submit(&[&[], &[], &[], &[0], &[3]], &[]);
    let classes = &[ClassId(0)];
    let all = everything(classes);
    let mut sizes = Vec::new();
    for request in [
        LeaseRequest { budget: 2, ..all },
        LeaseRequest { budget: 0, ..all },
        LeaseRequest { seeds_max: 0, ..all },
        LeaseRequest { tasks_max: 0, ..all },
        LeaseRequest { seeds_max: 1, ..all },
    ] {
        sizes.push(story.batch_of(ANNA, request).len());
    }
    assert_eq!(sizes, [2, 1, 0, 0, 1], "two of the chain, its end, no seed, nothing, one seed");
    assert_eq!(story.batch_of(WorkerId(9), all), [], "nothing for a stranger");
}

#[test]
fn a_seed_for_another_worker_waits_its_turn() {
    let mut story = Story::new();
    let root = story.submit(&[&[]], &[0])[0];
    story.lease(ANNA, 1);
    story.complete(ANNA, &[root]);
    let tasks = story.submit_on(&[root], &[&[EXTERNAL][..]; 10], &[]);
    let classes = &[ClassId(0)];
    let mut take = |elsewhere: &[TaskIndex], only_preferred| {
        let request = LeaseRequest { tasks_max: 1, only_preferred, ..everything(classes) };
        let mut batch = Vec::new();
        story.kernel.lease(BERT, &request, &mut Elsewhere(elsewhere), &mut batch);
        batch.first().map(|lease| lease.task)
    };
    assert_eq!(take(&tasks[..3], false), Some(tasks[3]), "the first that is not another's");
    assert_eq!(take(&tasks[..9], true), None, "the ninth is not looked at");
    assert_eq!(take(&tasks[..9], false), Some(tasks[0]), "the first, if the first eight are another's");
    assert_eq!(take(&tasks[..8], true), Some(tasks[8]), "the eighth that is left");
}

#[test]
fn preference_does_not_go_before_priority() {
    let mut story = Story::new();
    let root = story.submit(&[&[]], &[0])[0];
    story.lease(ANNA, 1);
    story.complete(ANNA, &[root]);
    let classes = Classes::Each(&[ClassId(0), ClassId(0), ClassId(1)]);
    let rank = (classes, Priorities::Each(&[9, 1, 5]));
    let tasks = story.try_submit(&[root], &[&[EXTERNAL][..]; 3], &[], rank).expect("a valid chunk");
    let both = [ClassId(0), ClassId(1)];
    let mut take = |only_preferred| {
        let request = LeaseRequest { only_preferred, tasks_max: 1, ..everything(&both) };
        let mut batch = Vec::new();
        story.kernel.lease(BERT, &request, &mut Elsewhere(&tasks[..1]), &mut batch);
        batch[0].task
    };
    assert_eq!(take(true), tasks[2], "priority 5 of class 1 before 1 of class 0");
    assert_eq!(take(false), tasks[0]);
    assert_eq!(take(true), tasks[1]);
}

// K4

#[test]
fn k4_late_report_is_dropped() {
    let mut story = Story::new();
    let task = story.submit(&[&[]], &[0])[0];
    story.lease(ANNA, 1);
    let late = story.kernel.attempt(task);
    story.give_back(ANNA, task);
    assert_eq!(story.kernel.complete(ANNA, task, late, true), Err(Stale), "given back");
    story.lease(ANNA, 1);
    assert_eq!(story.kernel.complete(ANNA, task, late, true), Err(Stale), "an older attempt");
    let attempt = story.kernel.attempt(task);
    assert_eq!(story.kernel.complete(BERT, task, attempt, true), Err(Stale), "another worker");
    assert_eq!(story.kernel.fail(BERT, task, attempt), Err(Stale));
    assert_eq!(story.kernel.give_back(BERT, task, attempt), Err(Stale));
    assert_eq!(story.kernel.state(task), TaskState::Leased);
    story.complete(ANNA, &[task]);
    assert_eq!(story.kernel.complete(ANNA, task, attempt, true), Err(Stale), "twice");
    assert_eq!(story.kernel.statistics().stale_reports, 6);
}

#[test]
fn k4_attempts_go_on_when_a_slot_is_used_again() {
    let mut story = Story::new();
    let first = story.submit(&[&[]], &[])[0];
    story.lease(ANNA, 1);
    let old = story.kernel.attempt(first);
    story.complete(ANNA, &[first]);
    story.freed();
    let second = story.submit(&[&[]], &[])[0];
    assert_eq!(second, first);
    story.lease(ANNA, 1);
    assert!(story.kernel.attempt(second) > old);
    assert_eq!(story.kernel.complete(ANNA, second, old, true), Err(Stale));
}

#[test]
fn k4_a_lost_worker_is_not_heard_again() {
    let mut story = Story::new();
    let tasks = story.submit(&[&[], &[0], &[], &[]], &[]);
    story.lease(ANNA, 3);
    let mut lost = Vec::new();
    let expected: Vec<_> = story.kernel.leases_of(ANNA).collect();
    story.kernel.lose_worker(ANNA, &mut lost);
    story.check();
    assert_eq!(lost, expected);
    assert_eq!(story.kernel.complete(ANNA, tasks[0], lost[0].1, false), Err(Stale));
    story.kernel.add_worker(ANNA);
    assert_eq!(story.kernel.complete(ANNA, tasks[0], lost[0].1, false), Err(Stale), "a new one by the same number");
    assert_eq!(story.lease(BERT, 9), tasks, "its leases come first, in their order");
    assert_eq!(story.returned(), [], "the caller knows them from the call");
}

// K5

#[test]
fn k5_a_result_dies_once_with_its_last_consumer() {
    let mut story = Story::new();
    let tasks = story.submit(&[&[], &[0], &[0]], &[]);
    story.lease(ANNA, 9);
    story.complete(ANNA, &tasks[..2]);
    assert_eq!(story.dead(), tasks[1..2], "nobody wants it; the first still has a consumer");
    assert!(story.kernel.result_alive(tasks[0]));
    story.complete(ANNA, &tasks[2..]);
    assert_eq!(story.dead(), [tasks[0], tasks[2]]);
    assert!(!story.kernel.result_alive(tasks[0]));
    assert_eq!(story.dead(), []);
}

#[test]
fn k5_leased_is_not_read() {
    let mut story = Story::new();
    let tasks = story.submit(&[&[], &[0]], &[]);
    story.lease(ANNA, 1);
    story.complete(ANNA, &tasks[..1]);
    story.lease(BERT, 1);
    assert_eq!(story.dead(), [], "Bert may still come back empty-handed");
    story.give_back(BERT, tasks[1]);
    assert_eq!(story.dead(), []);
}

#[test]
fn k5_holds_are_counted() {
    let mut story = Story::new();
    let task = story.submit(&[&[]], &[0, 0])[0];
    story.kernel.hold(task);
    story.lease(ANNA, 1);
    story.complete(ANNA, &[task]);
    for _ in 0..2 {
        story.kernel.unhold(task);
        assert_eq!(story.dead(), []);
    }
    story.kernel.unhold(task);
    assert_eq!(story.dead(), [task]);
    story.kernel.unhold(task);
    assert_eq!(story.dead(), []);
    assert_eq!(story.freed(), [task]);
}

#[test]
fn k5_a_late_consumer_keeps_a_result() {
    let mut story = Story::new();
    let old = story.submit(&[&[]], &[0])[0];
    story.lease(ANNA, 1);
    story.completes(ANNA, &[old], true);
    assert_eq!(story.freed(), []);
    let new = story.submit_on(&[old], &[&[EXTERNAL]], &[0]);
    story.kernel.unhold(old);
    assert_eq!(story.dead(), []);
    story.lease(ANNA, 1);
    story.complete(ANNA, &new);
    assert_eq!(story.dead(), [], "the new result can be lost, and its input could not be made again");
    story.kernel.lose_result(new[0]);
    assert_eq!(story.lease(ANNA, 1), new);
    story.completes(ANNA, &new, true);
    assert_eq!(story.freed(), [old], "now it cannot be lost any more");
    story.kernel.unhold(new[0]);
    assert_eq!(story.freed(), new);
}

#[test]
fn k5_nothing_is_freed_before_its_end_was_told() {
    let mut story = Story::new();
    let tasks = story.submit(CHAIN, &[]);
    story.lease(ANNA, 9);
    story.complete(ANNA, &tasks);
    assert!(story.kernel.drain_freed(|task| panic!("{task:?} is freed before its death was told")));
    assert_eq!(story.dead().len(), 3);
    assert_eq!(story.freed(), tasks);
    let tasks = story.submit(CHAIN, &[]);
    story.kernel.cancel(&tasks[..1]);
    story.kernel.drain_freed(|task| panic!("{task:?} is freed before its end was told"));
    assert_eq!(story.ended().len(), 3);
    assert_eq!(story.freed(), tasks);
}

#[test]
fn k5_ancestors_stay_while_a_result_can_be_lost() {
    let mut story = Story::new();
    let tasks = story.submit(CHAIN, &[2]);
    story.lease(ANNA, 9);
    story.complete(ANNA, &tasks);
    assert_eq!(story.dead(), tasks[..2]);
    assert_eq!(story.freed(), [], "the last result is with Anna only");
    story.kernel.lose_worker(ANNA, &mut Vec::new());
    story.kernel.lose_result(tasks[2]);
    story.check();
    assert_eq!(story.lease(BERT, 9), tasks, "all three run again");
    story.complete(BERT, &tasks);
    assert_eq!(story.dead(), tasks[..2], "the new results die as the old ones did");
    story.kernel.secure(tasks[2]);
    assert_eq!(story.freed(), tasks[..2]);
    story.kernel.lose_result(tasks[2]);
    assert_eq!(story.kernel.state(tasks[2]), TaskState::Done, "a secured result cannot be lost");
}

#[test]
fn k5_a_dead_result_is_not_made_again() {
    let mut story = Story::new();
    let tasks = story.submit(CHAIN, &[2]);
    story.lease(ANNA, 9);
    story.complete(ANNA, &tasks[..2]);
    story.kernel.lose_result(tasks[0]);
    assert_eq!(story.kernel.state(tasks[0]), TaskState::Done, "its consumer has run");
    story.give_back(ANNA, tasks[2]);
    story.kernel.lose_result(tasks[1]);
    story.check();
    use TaskState::{Ready, Waiting};
    assert_eq!(story.states(&tasks), [Ready, Waiting, Waiting], "now it is needed");
}

#[test]
fn k5_an_input_that_fails_the_second_time_skips_what_had_been_done() {
    let mut story = Story::new();
    let tasks = story.submit(&[&[], &[0], &[0]], &[1, 2]);
    story.lease(ANNA, 9);
    story.complete(ANNA, &tasks);
    assert_eq!(story.dead(), tasks[..1]);
    story.kernel.lose_result(tasks[1]);
    story.lease(BERT, 1);
    story.fail(BERT, tasks[0]);
    use TaskState::{Done, Failed, Skipped};
    assert_eq!(story.states(&tasks), [Failed, Skipped, Done]);
    let root = HowEnded::Skipped { root: tasks[0] };
    assert_eq!(story.ended(), [Ended { task: tasks[1], how: root, leased_to: None }]);
    story.kernel.lose_result(tasks[2]);
    assert_eq!(story.ended(), [Ended { task: tasks[2], how: root, leased_to: None }]);
    tasks[1..].iter().for_each(|&task| story.kernel.unhold(task));
    assert_eq!(story.freed(), tasks);
}

#[test]
fn k5_an_endless_row_of_secured_results_keeps_little() {
    let mut story = Story::new();
    let mut last = None;
    let mut most = 0;
    let (class, priority) = (Classes::One(ClassId(0)), Priorities::One(0));
    for _ in 0..5_000 {
        // The next task hangs on the last one before that has run: a pipeline that never drains.
        let external: Vec<TaskIndex> = last.into_iter().collect();
        let (dep_counts, deps) = ([external.len() as u32], vec![EXTERNAL; external.len()]);
        let chunk = Chunk { dep_counts: &dep_counts, deps: &deps, external: &external, class, priority, keep: &[0] };
        let mut slots = Vec::new();
        story.kernel.submit(&chunk, &mut slots).expect("a valid chunk");
        if let Some(last) = last {
            let mut batch = Vec::new();
            story.kernel.lease(
                ANNA,
                &LeaseRequest { tasks_max: 1, ..everything(&[ClassId(0)]) },
                &mut Cheap,
                &mut batch,
            );
            story.kernel.complete(ANNA, last, batch[0].attempt, true).expect("not stale");
            story.kernel.unhold(last);
            story.kernel.drain_dead(|_| {});
            story.kernel.drain_freed(|_| {});
        }
        last = Some(slots[0]);
        most = most.max(story.kernel.statistics().done);
    }
    story.check();
    assert!((1_000..1_100).contains(&most), "{most} tasks were kept");
    story.kernel.cancel(&[last.expect("five thousand tasks")]);
    story.kernel.unhold(last.expect("five thousand tasks"));
    story.freed();
    assert_eq!(story.kernel.statistics().done, 0);
}

// K6

#[test]
fn k6_failure_reaches_every_descendant_once() {
    let mut story = Story::new();
    let tasks = story.submit(&[&[], &[0], &[0], &[1, 2], &[3], &[]], &[]);
    assert_eq!(story.lease(ANNA, 2), tasks[..2]);
    let attempt = story.kernel.attempt(tasks[1]);
    let late = story.submit_on(&tasks[4..5], &[&[EXTERNAL]], &[]);
    story.fail(ANNA, tasks[0]);
    let how = HowEnded::Skipped { root: tasks[0] };
    let mut ended = story.ended();
    assert_eq!(ended.remove(0), Ended { task: tasks[1], how, leased_to: Some((ANNA, attempt)) });
    let rest = [tasks[2], tasks[3], tasks[4], late[0]].map(|task| Ended { task, how, leased_to: None });
    assert_eq!(ended, rest);
    assert_eq!(story.lease(BERT, 9), tasks[5..], "only what does not descend from it");
    assert_eq!(story.freed(), [&tasks[..5], &late].concat());
}

#[test]
fn k6_cancellation_reaches_every_descendant_once() {
    let mut story = Story::new();
    let tasks = story.submit(DIAMOND, &[]);
    story.lease(ANNA, 1);
    story.complete(ANNA, &tasks[..1]);
    story.kernel.cancel(&[tasks[1], tasks[0], tasks[1], tasks[3]]);
    story.check();
    let ended: Vec<_> = story.ended().iter().map(|ended| (ended.task, ended.how)).collect();
    assert_eq!(ended, [(tasks[1], HowEnded::Cancelled), (tasks[3], HowEnded::Cancelled)]);
    assert_eq!(story.kernel.state(tasks[0]), TaskState::Done, "what has ended stays as it ended");
    assert_eq!(story.lease(ANNA, 9), tasks[2..3]);
}

#[test]
fn k6_a_late_consumer_shares_the_fate_of_its_input() {
    let mut story = Story::new();
    let tasks = story.submit(&[&[], &[0], &[]], &[1, 2]);
    story.kernel.fail_unleased(tasks[0]);
    story.kernel.cancel(&tasks[2..]);
    assert_eq!(story.freed(), tasks[..1], "the failed task itself is gone");
    let late = story.submit_on(&tasks[1..], &[&[], &[EXTERNAL], &[1], &[EXTERNAL | 1], &[3]], &[]);
    let ended: Vec<_> = story.ended().iter().map(|ended| (ended.task, ended.how)).collect();
    let skipped = HowEnded::Skipped { root: tasks[1] };
    let fates = [skipped, skipped, HowEnded::Cancelled, HowEnded::Cancelled];
    assert_eq!(ended, late[1..].iter().copied().zip(fates).collect::<Vec<_>>());
    assert_eq!(story.lease(ANNA, 9), late[..1]);
}

#[test]
fn k6_a_late_consumer_learns_the_root_while_it_is_there() {
    let mut story = Story::new();
    let tasks = story.submit(CHAIN, &[0, 2]);
    story.kernel.fail_unleased(tasks[0]);
    assert_eq!(story.freed(), tasks[1..2]);
    let late = story.submit_on(&tasks[2..], &[&[EXTERNAL]], &[]);
    let how = HowEnded::Skipped { root: tasks[0] };
    assert_eq!(story.ended(), [Ended { task: late[0], how, leased_to: None }]);
}

#[test]
fn k6_a_million_descendants_end_without_recursion() {
    let tasks = 1_000_000_u32;
    let mut dep_counts = vec![1; tasks as usize];
    dep_counts[0] = 0;
    let deps: Vec<u32> = (0..tasks - 1).collect();
    let (class, priority) = (Classes::One(ClassId(0)), Priorities::One(0));
    let chunk = Chunk { dep_counts: &dep_counts, deps: &deps, external: &[], class, priority, keep: &[] };
    let mut kernel = Kernel::new();
    for fail in [false, true] {
        let mut slots = Vec::new();
        kernel.submit(&chunk, &mut slots).expect("a valid chunk");
        if fail {
            kernel.fail_unleased(slots[0]);
        } else {
            kernel.cancel(&slots[..1]);
        }
        let mut ended = 0;
        kernel.drain_ended(|_| ended += 1);
        assert_eq!(ended, tasks - u32::from(fail));
        let mut freed = 0;
        while kernel.drain_freed(|_| freed += 1) {}
        assert_eq!(freed, tasks);
    }
    assert_eq!(kernel.statistics().slots, u64::from(tasks), "the second graph took the slots of the first");
}

// K7

#[test]
fn k7_no_call_looks_at_tasks_that_it_does_not_concern() {
    let cost_of = |bystanders: usize| {
        let mut kernel = Kernel::new();
        kernel.add_worker(ANNA);
        let (class, priority) = (Classes::One(ClassId(1)), Priorities::One(0));
        let rows = vec![0; bystanders];
        let crowd = Chunk { dep_counts: &rows, deps: &[], external: &[], class, priority, keep: &[] };
        kernel.submit(&crowd, &mut Vec::new()).expect("a valid chunk");
        let mut slots = Vec::new();
        let (dep_counts, deps, class) = ([0, 1, 2, 1], [0, 0, 1, 2], Classes::One(ClassId(0)));
        let chunk = Chunk { dep_counts: &dep_counts, deps: &deps, external: &[], class, priority, keep: &[3] };
        let mut costs = Vec::new();
        let mut seen = kernel.statistics().operations;
        let mut note = |kernel: &Kernel| {
            costs.push(kernel.statistics().operations - seen);
            seen = kernel.statistics().operations;
        };
        kernel.submit(&chunk, &mut slots).expect("a valid chunk");
        note(&kernel);
        let mut batch = Vec::new();
        kernel.lease(ANNA, &everything(&[ClassId(0)]), &mut Cheap, &mut batch);
        note(&kernel);
        kernel.give_back(ANNA, slots[1], batch[1].attempt).expect("not stale");
        note(&kernel);
        kernel.complete(ANNA, slots[0], batch[0].attempt, false).expect("not stale");
        note(&kernel);
        kernel.lose_result(slots[0]);
        note(&kernel);
        kernel.cancel(&slots);
        note(&kernel);
        kernel.lose_worker(ANNA, &mut Vec::new());
        note(&kernel);
        kernel.unhold(slots[3]);
        kernel.drain_ended(|_| {});
        kernel.drain_dead(|_| {});
        kernel.drain_freed(|_| {});
        note(&kernel);
        assert_eq!(kernel.statistics().ready, bystanders as u64);
        costs
    };
    let alone = cost_of(0);
    assert_eq!(cost_of(10_000), alone);
    assert!(alone.iter().sum::<u64>() < 100, "{alone:?}");
}

#[test]
fn k7_a_completion_costs_its_edges() {
    // A fan of 1,000 and a chain of 1,000: all completions together look at each edge a fixed number of times.
    let rows: Vec<Vec<u32>> = (0..2_001)
        .map(|task| if task == 0 { vec![] } else { vec![if task <= 1_000 { 0 } else { task - 1 }] })
        .collect();
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    let mut story = Story::new();
    let tasks = story.submit(&rows, &[]);
    let batch = story.batch(ANNA, u32::MAX);
    assert_eq!(batch.len(), tasks.len());
    let before = story.kernel.statistics().operations;
    for lease in &batch {
        story.kernel.complete(ANNA, lease.task, lease.attempt, false).expect("not stale");
    }
    let cost = story.kernel.statistics().operations - before;
    assert!(cost <= 2_001 + 2 * 2_000, "{cost}");
    story.kernel.drain_dead(|_| {});
    story.kernel.drain_freed(|_| {});
    let freeing = story.kernel.statistics().operations - before - cost;
    assert!(freeing <= 2 * (2_001 + 2_000), "{freeing}");
}

#[test]
fn memory_is_flat_over_many_runs() {
    let mut story = Story::new();
    let mut bytes = Vec::new();
    for round in 0..40 {
        let tasks = story.submit(&[&[], &[0], &[0], &[1, 2], &[3, 0]], &[4]);
        let late = story.submit_on(&tasks[..2], &[&[EXTERNAL, EXTERNAL | 1], &[0]], &[]);
        story.lease(ANNA, 3);
        if round % 2 == 0 {
            story.kernel.cancel(&late);
            story.kernel.lose_worker(ANNA, &mut Vec::new());
            story.kernel.add_worker(ANNA);
        }
        story.kernel.cancel(&tasks);
        story.kernel.unhold(tasks[4]);
        assert_eq!(story.freed().len(), 7);
        bytes.push(story.kernel.statistics().bytes);
    }
    assert_eq!(bytes[5], bytes[39], "{bytes:?}");
    assert_eq!(story.kernel.statistics().slots, 7);
    assert_eq!(story.kernel.statistics().edges, 0);
}

#[test]
fn a_task_costs_a_hundred_bytes_and_an_edge_eight() {
    let tasks = 100_000_u32;
    let bytes = |degree: u32| {
        let dep_counts: Vec<u32> = (0..tasks).map(|task| task.min(degree)).collect();
        let deps: Vec<u32> = (0..tasks).flat_map(|task| task - task.min(degree)..task).collect();
        let (class, priority) = (Classes::One(ClassId(0)), Priorities::One(0));
        let chunk = Chunk { dep_counts: &dep_counts, deps: &deps, external: &[], class, priority, keep: &[] };
        let mut kernel = Kernel::new();
        kernel.submit(&chunk, &mut Vec::new()).expect("a valid chunk");
        kernel.statistics().bytes as f64 / f64::from(tasks)
    };
    assert!(bytes(0) < 110.0, "{}", bytes(0));
    assert!(bytes(3) - bytes(0) < 8.1 * 3.0, "{}", bytes(3) - bytes(0));
}
