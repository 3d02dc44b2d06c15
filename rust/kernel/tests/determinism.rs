//! K8: equal calls give equal answers, in equal order.
#![allow(missing_docs)]

use std::fmt::Write;

use headrace_kernel::{
    Chunk, ClassId, Classes, EXTERNAL, Kernel, LeaseRequest, Leased, Oracle, Preference, Priorities, TaskIndex,
    TaskState, WorkerId,
};

#[test]
fn k8_two_runs_leave_equal_traces() {
    for seed in 0..20 {
        let trace = run(seed);
        assert!(trace.lines().count() > 500, "a short trace proves little:\n{trace}");
        assert_eq!(trace, run(seed));
    }
}

/// A run with every kind of event, all chosen by the seed, and everything that the kernel said in it.
fn run(seed: u64) -> String {
    let mut kernel = Kernel::new();
    let mut trace = String::new();
    let mut random = seed;
    let mut below = move |limit: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % limit.max(1)
    };
    let mut known: Vec<TaskIndex> = Vec::new();
    let mut leases: Vec<(WorkerId, Leased)> = Vec::new();
    (0..4).for_each(|worker| kernel.add_worker(WorkerId(worker)));
    for step in 0..600 {
        let worker = WorkerId(below(4) as u32);
        let task = known.get(below(known.len())).copied().unwrap_or(TaskIndex(0));
        match below(10) {
            0 | 1 => {
                let external: Vec<TaskIndex> =
                    (0..below(3)).map(|_| task).filter(|&task| kernel.result_alive(task)).take(1).collect();
                let (mut counts, mut deps) = (Vec::new(), Vec::new());
                for number in 0..10_u32 {
                    let before = deps.len();
                    deps.extend((0..number).filter(|_| below(4) == 0));
                    if !external.is_empty() && below(2) == 0 {
                        deps.push(EXTERNAL);
                    }
                    counts.push((deps.len() - before) as u32);
                }
                let priorities: Vec<i32> = (0..10).map(|_| below(3) as i32).collect();
                let chunk = Chunk {
                    dep_counts: &counts,
                    deps: &deps,
                    external: &external,
                    class: Classes::One(ClassId(below(2) as u32)),
                    priority: Priorities::Each(&priorities),
                    keep: &[9],
                };
                let mut slots = Vec::new();
                kernel.submit(&chunk, &mut slots).expect("a valid chunk");
                writeln!(trace, "{step} submitted {slots:?}").expect("a string takes everything");
                known.extend(slots);
            }
            2..6 => {
                let request = LeaseRequest {
                    classes: &[ClassId(1), ClassId(0)],
                    tasks_max: 8,
                    seeds_max: 3,
                    budget: 12,
                    only_preferred: below(4) == 0,
                    roots: below(6) != 0,
                };
                let mut batch = Vec::new();
                kernel.lease(worker, &request, &mut BySlot, &mut batch);
                writeln!(trace, "{step} leased {batch:?}").expect("a string takes everything");
                leases.extend(batch.into_iter().map(|lease| (worker, lease)));
            }
            6 | 7 => {
                for (worker, lease) in leases.drain(..leases.len().min(4)) {
                    let end = match below(8) {
                        0 => kernel.fail(worker, lease.task, lease.attempt),
                        1 => kernel.give_back(worker, lease.task, lease.attempt),
                        secured => kernel.complete(worker, lease.task, lease.attempt, secured > 4),
                    };
                    writeln!(trace, "{step} reported {lease:?}: {end:?}").expect("a string takes everything");
                }
            }
            8 if kernel.state(task) == TaskState::Done => kernel.lose_result(task),
            8 => kernel.cancel(&[task]),
            _ => {
                let mut lost = Vec::new();
                kernel.lose_worker(worker, &mut lost);
                kernel.add_worker(worker);
                writeln!(trace, "{step} lost {lost:?}").expect("a string takes everything");
                kernel.unhold(task);
            }
        }
        kernel.drain_ended(|ended| writeln!(trace, "{step} {ended:?}").expect("a string takes everything"));
        kernel.drain_returned(|lease| writeln!(trace, "{step} {lease:?}").expect("a string takes everything"));
        kernel.drain_dead(|task| writeln!(trace, "{step} dead {task:?}").expect("a string takes everything"));
        kernel.drain_freed(|task| writeln!(trace, "{step} freed {task:?}").expect("a string takes everything"));
        writeln!(trace, "{step} {:?}", kernel.statistics()).expect("a string takes everything");
    }
    trace
}

struct BySlot;

impl Oracle for BySlot {
    fn cost(&mut self, task: TaskIndex) -> u64 {
        u64::from(task.0 % 4)
    }

    fn preference(&mut self, predecessors: &[TaskIndex], task: TaskIndex) -> Preference {
        match (task.0 + predecessors[0].0) % 3 {
            0 => Preference::Mine,
            1 => Preference::Other,
            _ => Preference::Nobody,
        }
    }
}
