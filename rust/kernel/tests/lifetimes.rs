//! How long results and slots live: one test a rule of K5.
#![allow(missing_docs)]

mod story;

use headrace_kernel::{
    Chunk, ClassId, Classes, EXTERNAL, Ended, HowEnded, LeaseRequest, Priorities, TaskIndex, TaskState,
};
use story::{ANNA, BERT, CHAIN, Cheap, Story, everything};

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
fn k5_what_outlives_its_ancestors_dies_row_by_row() {
    let mut story = Story::new();
    let kept = story.submit(&[&[], &[]], &[0, 1]);
    story.lease(ANNA, 2);
    story.completes(ANNA, &kept, true);
    assert_eq!(story.freed(), [], "their ancestors went, had they any");
    let late = story.submit_on(&kept, &[&[EXTERNAL], &[EXTERNAL | 1]], &[]);
    story.lease(ANNA, 2);
    story.completes(ANNA, &late, true);
    kept.iter().for_each(|&task| story.kernel.unhold(task));
    story.kernel.drain_dead(|_| {});
    // One dies, and with that the call is over: the other waits for the next one.
    while story.kernel.drain_freed(|_| {}) {
        story.check();
        story.kernel.drain_dead(|_| {});
    }
    assert_eq!(story.states(&kept), [TaskState::Free; 2]);
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
