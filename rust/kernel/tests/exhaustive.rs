//! Every graph of up to four tasks, and every order of events on it, against the naive model.
//!
//! States that were met before are not left again, and faults are limited per path: otherwise the orders have no end.
#![allow(missing_docs)]

mod naive;

use std::collections::HashSet;

use headrace_kernel::TaskState;
use naive::{Dep, Op, World};

#[test]
fn three_tasks_two_workers_two_faults() {
    let mut states = 0;
    for edges in 0..1 << 3 {
        states += explore(3, edges, 2, 2);
    }
    assert!(states > 10_000, "only {states} states were met");
}

#[test]
fn four_tasks_one_worker_one_fault() {
    let mut states = 0;
    for edges in 0..1 << 6 {
        states += explore(4, edges, 1, 1);
    }
    assert!(states > 10_000, "only {states} states were met");
}

#[test]
fn four_tasks_two_workers_no_fault() {
    let mut states = 0;
    for edges in 0..1 << 6 {
        states += explore(4, edges, 2, 0);
    }
    assert!(states > 10_000, "only {states} states were met");
}

/// Walks all orders of events on the graph whose possible edges, (0, 1), (0, 2), (1, 2), (0, 3) … are the bits of `edges`.
fn explore(tasks: usize, edges: u32, workers: u32, faults: u32) -> usize {
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
        for (op, fault) in events(&world) {
            if fault && faults == 0 {
                continue;
            }
            let left = faults - u32::from(fault);
            let mut next = world.clone();
            next.apply(&op);
            if met.insert((signature(&next), left)) {
                open.push((next, left));
            }
        }
    }
    met.len()
}

/// All that can happen, and whether it is a fault.
fn events(world: &World) -> Vec<(Op, bool)> {
    let mut events = vec![(Op::DrainFreed, false)];
    for &worker in world.workers.keys() {
        for tasks_max in [1, 4] {
            events.push((lease(worker, tasks_max), false));
        }
        if world.workers.len() > 1 {
            events.push((Op::LoseWorker(worker), true));
        }
        if let Some(&task) = world.workers[&worker].first() {
            events.push((Op::Complete { task, secured: true }, false));
            events.push((Op::Complete { task, secured: false }, false));
            events.push((Op::Fail(task), true));
        }
        events.extend(world.workers[&worker].iter().map(|&task| (Op::GiveBack(task), true)));
    }
    for task in world.live() {
        if world.pending(task) {
            events.push((Op::Cancel(vec![task]), true));
        }
        if world.tasks[task].state == TaskState::Done {
            events.push((Op::LoseResult(task), true));
            events.push((Op::Secure(task), false));
        }
        if world.tasks[task].holds > 0 {
            events.push((Op::Unhold(task), false));
        }
    }
    events
}

fn lease(worker: u32, tasks_max: u32) -> Op {
    let (classes, seeds_max, budget, only_preferred, salt) = (vec![0], 4, u64::MAX, false, 0);
    Op::Lease { worker, classes, tasks_max, seeds_max, budget, only_preferred, salt }
}

/// What tells two worlds apart: all but the numbers of attempts.
fn signature(world: &World) -> String {
    format!("{:?} {:?} {:?}", world.tasks, world.workers, world.ready)
}
