//! Every graph of up to four tasks, and every order of events on it, against the naive model.
//!
//! States that were met before are not left again, and faults are limited per path: otherwise the orders have no end.
#![allow(missing_docs)]

mod naive;

use std::collections::HashSet;

use headrace_kernel::TaskState;
use naive::{Dep, Op, World};

#[test]
fn there_are_31_graphs_of_four_tasks() {
    assert_eq!((graphs(2).count(), graphs(3).count(), graphs(4).count()), (2, 6, 31));
}

#[test]
fn three_tasks_two_workers_one_fault() {
    let states: usize = graphs(3).map(|edges| explore(3, edges, 2, 1, Grain::Fine)).sum();
    assert!(states > 6_000, "only {states} states were met");
}

#[test]
fn three_tasks_one_worker_three_faults() {
    let states: usize = graphs(3).map(|edges| explore(3, edges, 1, 3, Grain::Coarse)).sum();
    assert!(states > 1_500, "only {states} states were met");
}

#[test]
fn four_tasks_two_workers_one_fault() {
    let states: usize = graphs(4).map(|edges| explore(4, edges, 2, 1, Grain::Coarse)).sum();
    assert!(states > 20_000, "only {states} states were met");
}

/// How finely events are told apart.
#[derive(Clone, Copy, PartialEq)]
enum Grain {
    /// Freed slots are drained now or later, results are secured now or later, leases are for one task or all.
    Fine,
    /// Freed slots are drained at once, results are secured at completion or not at all, leases are for one task.
    Coarse,
}

/// The graphs of so many tasks, each once however its tasks are numbered: the possible edges (0, 1), (0, 2), (1, 2), (0, 3) …
/// are the bits.
fn graphs(tasks: u32) -> impl Iterator<Item = u32> {
    let bit = |before: u32, after: u32| 1_u32 << (after * (after - 1) / 2 + before);
    let edges = move |graph: u32| {
        let pairs = (0..tasks).flat_map(|after| (0..after).map(move |before| (before, after)));
        pairs.filter(move |&(before, after)| graph & bit(before, after) != 0)
    };
    let renumbered = move |graph: u32, numbers: &[u32]| {
        let ends = |(before, after): (u32, u32)| (numbers[before as usize], numbers[after as usize]);
        edges(graph).map(ends).try_fold(0, |graph, (a, b)| (a < b).then(|| graph | bit(a, b)))
    };
    let numberings = permutations(tasks);
    let is_first =
        move |graph: &u32| numberings.iter().filter_map(|numbers| renumbered(*graph, numbers)).all(|n| n >= *graph);
    (0..1 << (tasks * (tasks - 1) / 2)).filter(is_first)
}

fn permutations(count: u32) -> Vec<Vec<u32>> {
    let mut all = vec![Vec::new()];
    for number in 0..count {
        let with = |shorter: &Vec<u32>| {
            let insert = |place: usize| [&shorter[..place], &[number], &shorter[place..]].concat();
            (0..=shorter.len()).map(insert).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(with).collect();
    }
    all
}

/// Walks all orders of events on a graph, and returns how many states they lead to.
fn explore(tasks: usize, edges: u32, workers: u32, faults: u32, grain: Grain) -> usize {
    let mut bits = 0..;
    let mut row = |task: usize| -> Vec<Dep> {
        let bits: Vec<u32> = bits.by_ref().take(task).collect();
        (0..task as u32).filter(|&dep| edges >> bits[dep as usize] & 1 == 1).map(Dep::Local).collect()
    };
    let deps: Vec<Vec<Dep>> = (0..tasks).map(&mut row).collect();
    let mut world = World::default();
    for worker in 0..workers {
        world.apply(&Op::AddWorker(worker));
    }
    let (classes, priorities) = (vec![0; tasks], vec![0; tasks]);
    world.apply(&Op::Submit { deps, classes, priorities, keep: vec![tasks as u32 - 1] });
    let mut met = HashSet::new();
    let mut open = vec![(world, faults)];
    while let Some((world, faults)) = open.pop() {
        for (op, fault) in events(&world, grain) {
            if fault && faults == 0 {
                continue;
            }
            let left = faults - u32::from(fault);
            let mut next = world.clone();
            next.step(&op);
            if grain == Grain::Coarse {
                next.step(&Op::DrainFreed);
            }
            if met.insert((signature(&next), left)) {
                next.compare();
                open.push((next, left));
            }
        }
    }
    met.len()
}

/// All that can happen, and whether it is a fault.
fn events(world: &World, grain: Grain) -> Vec<(Op, bool)> {
    let mut events = Vec::new();
    let fine = grain == Grain::Fine;
    if fine {
        events.push((Op::DrainFreed, false));
    }
    for (&worker, queue) in &world.workers {
        if fine {
            events.push((lease(worker, 4), false));
        }
        events.push((lease(worker, 1), false));
        if world.workers.len() > 1 {
            events.push((Op::LoseWorker(worker), true));
        }
        if let Some(&task) = queue.first() {
            events.push((Op::Complete { task, secured: true }, false));
            events.push((Op::Complete { task, secured: false }, false));
            events.push((Op::Fail(task), true));
            if !world.elders.contains_key(&task) {
                events.push((Op::Rival(task), true));
            }
        }
        events.extend(queue.iter().map(|&task| (Op::GiveBack(task), true)));
    }
    for &task in world.elders.keys() {
        events.extend(world.workers.keys().map(|&worker| (Op::TakeOver { task, worker }, false)));
    }
    for task in world.live() {
        if world.pending(task) {
            events.push((Op::Cancel(vec![task]), true));
        }
        if world.tasks[task].state == TaskState::Done && !world.tasks[task].dead && !world.tasks[task].secured {
            events.push((Op::LoseResult(task), true));
            if fine {
                events.push((Op::Secure(task), false));
            }
        }
        if world.tasks[task].holds > 0 && fine {
            events.push((Op::Unhold(task), false));
        }
    }
    events
}

fn lease(worker: u32, tasks_max: u32) -> Op {
    let (classes, seeds_max, budget, only_preferred, roots, salt) = (vec![0], 4, u64::MAX, false, true, 0);
    Op::Lease { worker, classes, tasks_max, seeds_max, budget, only_preferred, roots, salt }
}

/// What tells two worlds apart: all but the numbers of attempts.
fn signature(world: &World) -> String {
    let rivalled: Vec<&usize> = world.elders.keys().collect();
    format!("{:?} {:?} {:?} {rivalled:?}", world.tasks, world.workers, world.ready)
}
