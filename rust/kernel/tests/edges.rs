//! What may be submitted, and what becomes of it: one test a rule, named by the invariant that it belongs to.
#![allow(missing_docs)]

mod story;

use headrace_kernel::{
    Attempt, Chunk, ClassId, Classes, EXTERNAL, Ended, GraphError, HowEnded, Kernel, Priorities, Stale, TRANSITIONS,
    TaskIndex, TaskState,
};
use story::{ANNA, BERT, CHAIN, Cheap, DIAMOND, Story, everything};

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
