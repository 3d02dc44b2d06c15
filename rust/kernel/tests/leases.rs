//! Who gets what, and in which order: one test a rule of K2, K3 and K4.
#![allow(missing_docs)]

mod story;

use headrace_kernel::{
    Attempt, ClassId, Classes, EXTERNAL, LeaseRequest, Oracle, Preference, Priorities, Returned, Stale, TaskIndex,
    TaskState, WorkerId,
};
use story::{ANNA, BERT, CHAIN, DIAMOND, Elsewhere, Story, everything};

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
    for worker in [0, 3] {
        story.kernel.add_worker(WorkerId(worker));
    }
    let tasks = story.submit(&[&[], &[], &[], &[0, 1, 2]], &[]);
    assert_eq!(story.lease(WorkerId(0), 1), [tasks[0]]);
    assert_eq!(story.lease(BERT, 1), [tasks[1]]);
    assert_eq!(story.lease(WorkerId(3), 1), [tasks[2]]);
    story.complete(WorkerId(3), &tasks[2..3]);
    // Workers 0 and 2 have the mean 1 = Anna: by the sum alone the last task would follow her.
    assert_eq!(story.lease(ANNA, 1), []);
}

/// Bars every task with predecessors.
struct Barred;

impl Oracle for Barred {
    fn cost(&mut self, _: TaskIndex) -> u64 {
        1
    }

    fn preference(&mut self, _: &[TaskIndex], _: TaskIndex) -> Preference {
        unreachable!("nobody is asked about what is barred")
    }

    fn guards(&self) -> bool {
        true
    }

    fn bars(&mut self, predecessors: &[TaskIndex]) -> bool {
        assert!(!predecessors.is_empty());
        true
    }
}

#[test]
fn k2_barred_tasks_stay_where_they_are() {
    let mut story = Story::new();
    let first = story.submit(&[&[], &[0]], &[]);
    story.lease(ANNA, 1);
    story.complete(ANNA, &first[..1]);
    let second = story.submit(&[&[], &[0], &[]], &[]);
    let mut batch = Vec::new();
    story.kernel.lease(BERT, &everything(&[ClassId(0)]), &mut Barred, &mut batch);
    story.check();
    let tasks: Vec<_> = batch.iter().map(|lease| lease.task).collect();
    assert_eq!(tasks, [second[0], second[2]], "neither the ready one nor the follower");
    assert_eq!(story.lease(BERT, 9), [second[1], first[1]]);
}

#[test]
fn k2_followers_go_before_seeds() {
    let mut story = Story::new();
    let tasks = story.submit(&[&[], &[], &[0]], &[]);
    assert_eq!(story.lease(ANNA, 1), [tasks[0]]);
    assert_eq!(story.lease(ANNA, 5), [tasks[2], tasks[1]]);
}

#[test]
fn k3_a_ready_task_of_higher_priority_goes_before_a_follower() {
    let mut story = Story::new();
    let priorities = Priorities::Each(&[3, 2, 1, 2]);
    // The second and the fourth follow the first; the third is ready.
    let tasks =
        story.try_submit(&[], &[&[], &[0], &[], &[1]], &[], (Classes::One(ClassId(0)), priorities)).expect("valid");
    assert_eq!(story.lease(ANNA, 9), [tasks[0], tasks[1], tasks[3], tasks[2]]);
    let mut story = Story::new();
    let priorities = Priorities::Each(&[3, 1, 2, 1]);
    let tasks =
        story.try_submit(&[], &[&[], &[0], &[], &[1]], &[], (Classes::One(ClassId(0)), priorities)).expect("valid");
    assert_eq!(story.lease(ANNA, 9), [tasks[0], tasks[2], tasks[1], tasks[3]]);
    let mut story = Story::new();
    let tasks =
        story.try_submit(&[], &[&[], &[0], &[], &[1]], &[], (Classes::One(ClassId(0)), priorities)).expect("valid");
    let only_one_seed = LeaseRequest { seeds_max: 1, ..everything(&[ClassId(0)]) };
    let batch: Vec<_> = story.batch_of(ANNA, only_one_seed).iter().map(|lease| lease.task).collect();
    assert_eq!(batch, [tasks[0], tasks[1], tasks[3]], "no ready task may be taken any more");
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

#[test]
fn k3_a_task_of_another_class_stands_in_its_queue() {
    let (usual, apart) = (ClassId(0), ClassId(9));
    let mut story = Story::new();
    let tasks = story.submit(&[&[], &[], &[1]], &[]);
    assert_eq!(story.kernel.set_class(tasks[0], apart), usual);
    assert_eq!(story.kernel.set_class(tasks[2], apart), usual);
    assert_eq!(story.lease(ANNA, 9), [tasks[1]], "neither a ready task nor one that would follow");
    // A lease stays; what class it has counts when it comes back.
    assert_eq!(story.kernel.set_class(tasks[1], apart), usual);
    story.check();
    story.give_back(ANNA, tasks[1]);
    assert_eq!(story.lease(ANNA, 9), []);
    assert_eq!(story.kernel.ready_len(apart), 2);
    for &task in &tasks {
        assert_eq!(story.kernel.set_class(task, usual), apart);
        story.check();
    }
    assert_eq!(story.lease(BERT, 9), [tasks[1], tasks[2], tasks[0]], "each came to the front");
}

#[test]
fn k3_who_would_go_first_is_told_without_a_lease() {
    let mut story = Story::new();
    let (one, other) = (ClassId(5), ClassId(3));
    let classes = [one, other, one, other, one];
    let chunk = (Classes::Each(&classes), Priorities::Each(&[0, -1, 7, 2, 7]));
    let tasks = story.try_submit(&[], &[&[], &[], &[], &[], &[2]], &[], chunk).unwrap();
    let first = |story: &Story| story.kernel.ready_priorities().collect::<Vec<_>>();
    assert_eq!(first(&story), [(other, 2), (one, 7)]);
    assert_eq!(story.kernel.ready_tasks(one).collect::<Vec<_>>(), [tasks[2], tasks[0]]);
    assert_eq!(story.kernel.class_of(tasks[3]), other);
    let batch = story.batch_of(ANNA, LeaseRequest { tasks_max: 1, ..everything(&[one]) });
    assert_eq!(batch.iter().map(|lease| lease.task).collect::<Vec<_>>(), [tasks[2]]);
    assert_eq!(first(&story), [(other, 2), (one, 0)]);
    assert_eq!(story.kernel.follower_classes(ANNA).collect::<Vec<_>>(), [one]);
    assert_eq!(story.kernel.follower_classes(BERT).count(), 0);
    story.complete(ANNA, &[tasks[2]]);
    assert_eq!(story.kernel.ready_tasks(one).collect::<Vec<_>>(), [tasks[4], tasks[0]]);
    assert_eq!(story.kernel.follower_classes(ANNA).count(), 0);
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

#[test]
fn k4_a_rival_has_a_number_of_its_own_and_no_lease() {
    let mut story = Story::new();
    let tasks = story.submit(&[&[], &[0]], &[1]);
    assert_eq!(story.kernel.add_rival(tasks[0]), None, "nobody has the task");
    story.lease(ANNA, 2);
    let lease = story.kernel.attempt(tasks[0]);
    let rival = story.kernel.add_rival(tasks[0]).expect("it is leased");
    assert!(rival > lease);
    assert_eq!(story.kernel.add_rival(tasks[1]), None, "it waits for what stands before it");
    for (worker, attempt) in [(BERT, rival), (ANNA, rival), (BERT, lease)] {
        assert_eq!(story.kernel.complete(worker, tasks[0], attempt, true), Err(Stale));
    }
    assert_eq!((story.kernel.attempt(tasks[0]), story.kernel.worker_of(tasks[0])), (lease, Some(ANNA)));
    story.give_back(ANNA, tasks[0]);
    assert_eq!(story.returned().len(), 1, "what stood behind it");
    let next = story.batch(BERT, 1)[0].attempt;
    assert!(next > rival, "the number of the rival is not used again");
    assert!(!story.kernel.take_over(tasks[0], ANNA), "its rival ended with the lease before");
    story.complete(BERT, &tasks[..1]);
}

#[test]
fn k2_a_rival_that_takes_over_brings_back_what_stood_behind() {
    let mut story = Story::new();
    let tasks = story.submit(&[&[], &[0], &[1]], &[2]);
    story.lease(ANNA, 3);
    let behind = story.kernel.attempt(tasks[1]);
    let rival = story.kernel.add_rival(tasks[0]).expect("it is leased");
    assert!(story.kernel.take_over(tasks[0], BERT));
    story.check();
    let returned: Vec<(TaskIndex, WorkerId)> =
        story.returned().iter().map(|lease| (lease.task, lease.worker)).collect();
    assert_eq!(returned, [(tasks[1], ANNA), (tasks[2], ANNA)]);
    assert_eq!((story.kernel.attempt(tasks[0]), story.kernel.worker_of(tasks[0])), (rival, Some(BERT)));
    assert_eq!(story.kernel.complete(ANNA, tasks[0], Attempt(rival.0 - 1), true), Err(Stale), "the first attempt");
    assert_eq!(story.kernel.complete(ANNA, tasks[1], behind, true), Err(Stale));
    assert_eq!(story.lease(ANNA, 9), [], "it follows the other worker now");
    assert_eq!(story.lease(BERT, 9), tasks[1..]);
    story.complete(BERT, &tasks);
}
