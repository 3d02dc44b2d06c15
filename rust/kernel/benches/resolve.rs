//! What does it cost to resolve a graph, from submit to the last freed slot?
//!
//! `cargo bench -p headrace-kernel` prints nanoseconds for each shape: the fastest and the median of the repetitions.
//! Everything is included: checking the columns, leases in batches to two workers, completions, deaths, and freeing (K5).

use std::hint::black_box;
use std::time::{Duration, Instant};

use headrace_kernel::{
    Chunk, ClassId, Classes, GraphError, Kernel, LeaseRequest, Leased, Oracle, Preference, Priorities, TaskIndex,
    WorkerId,
};

fn main() {
    println!(
        "{:34} {:>9} {:>9} {:>10} {:>10} {:>10} {:>9} {:>9}",
        "graph", "tasks", "edges", "bare Kahn", "fastest", "median", "ns/t+e", "B/task"
    );
    for tasks in [10_000, 1_000_000] {
        let repetitions = if tasks > 100_000 { 5 } else { 100 };
        resolve("independent", tasks, repetitions, || Columns::random(tasks, 0));
        resolve("chain", tasks, repetitions, || Columns::stencil(tasks, 1));
        let width = tasks.isqrt();
        resolve("stencil, 3 edges a task", tasks, repetitions, || Columns::stencil(width * width, width));
        resolve("random, 0 to 3 edges a task", tasks, repetitions, || Columns::up_to(tasks, 3));
        resolve("random, 3 edges a task", tasks, repetitions, || Columns::random(tasks, 3));
        resolve("random near, 3 edges a task", tasks, repetitions, || Columns::near(tasks, 3));
    }
    let tasks = 10_000;
    resolve("dense: near, 20 edges a task", tasks, 20, || Columns::near(tasks, 20));
    resolve("dense: random, 20 edges a task", tasks, 20, || Columns::random(tasks, 20));
    resolve("dense: near, 100 edges a task", tasks, 10, || Columns::near(tasks, 100));
    if chosen("others") {
        cycle(1_000_000);
        cancel_chain(1_000_000);
        calls(1_000_000);
    }
}

/// Whether the line is wanted: all are, unless an argument names a part of it.
fn chosen(name: &str) -> bool {
    let mut wanted = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).peekable();
    wanted.peek().is_none() || wanted.any(|part| name.contains(&part))
}

struct Columns {
    dep_counts: Vec<u32>,
    deps: Vec<u32>,
    keep: Vec<u32>,
}

impl Columns {
    /// Each task depends on up to `degree` distinct earlier ones out of the `reach` before it.
    fn within(tasks: usize, degree: usize, reach: usize) -> Self {
        let (mut dep_counts, mut deps) = (Vec::new(), Vec::new());
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut chosen = Vec::new();
        for task in 0..tasks {
            chosen.clear();
            let span = task.min(reach);
            while chosen.len() < degree.min(span) {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let dep = (task - 1 - (random >> 16) as usize % span) as u32;
                if !chosen.contains(&dep) {
                    chosen.push(dep);
                }
            }
            dep_counts.push(chosen.len() as u32);
            deps.extend(&chosen);
        }
        Self::with_sinks(dep_counts, deps)
    }

    /// The same with random degrees: the first few of the predecessors that it would have had.
    fn up_to(tasks: usize, degree: usize) -> Self {
        let full = Self::random(tasks, degree);
        let (mut dep_counts, mut deps, mut rest) = (Vec::new(), Vec::new(), &full.deps[..]);
        for (task, &count) in full.dep_counts.iter().enumerate() {
            let (row, tail) = rest.split_at(count as usize);
            rest = tail;
            let some = &row[..(task.wrapping_mul(0x9e37_79b1) >> 7) % (row.len() + 1)];
            dep_counts.push(some.len() as u32);
            deps.extend(some);
        }
        Self::with_sinks(dep_counts, deps)
    }

    fn random(tasks: usize, degree: usize) -> Self {
        Self::within(tasks, degree, usize::MAX)
    }

    fn near(tasks: usize, degree: usize) -> Self {
        Self::within(tasks, degree, 4 * degree.max(16))
    }

    /// Rows of `width`; each task depends on its neighbours in the row above.
    fn stencil(tasks: usize, width: usize) -> Self {
        let (mut dep_counts, mut deps) = (Vec::new(), Vec::new());
        for task in 0..tasks {
            let before = deps.len();
            if task >= width {
                let column = task % width;
                let above = task - width;
                let left = above - usize::from(column > 0);
                let right = above + usize::from(column + 1 < width);
                deps.extend((left..=right).map(|dep| dep as u32));
            }
            dep_counts.push((deps.len() - before) as u32);
        }
        Self::with_sinks(dep_counts, deps)
    }

    fn with_sinks(dep_counts: Vec<u32>, deps: Vec<u32>) -> Self {
        let mut used = vec![false; dep_counts.len()];
        deps.iter().for_each(|&dep| used[dep as usize] = true);
        let keep = (0..dep_counts.len() as u32).filter(|&task| !used[task as usize]).collect();
        Columns { dep_counts, deps, keep }
    }

    fn chunk(&self) -> Chunk<'_> {
        Chunk {
            dep_counts: &self.dep_counts,
            deps: &self.deps,
            external: &[],
            class: Classes::One(ClassId(0)),
            priority: Priorities::One(0),
            keep: &self.keep,
        }
    }
}

/// The least that anybody can do: successors from predecessors, and one pass of Kahn's algorithm over them. Timed beside
/// the kernel, because machines change their speed from one second to the next.
fn bare(columns: &Columns) -> Duration {
    let begin = Instant::now();
    let tasks = columns.dep_counts.len();
    let mut starts = vec![0_u32; tasks + 1];
    columns.deps.iter().for_each(|&dep| starts[dep as usize + 1] += 1);
    (0..tasks).for_each(|task| starts[task + 1] += starts[task]);
    let mut places = starts.clone();
    let mut consumers = vec![0_u32; columns.deps.len()];
    let mut missing = columns.dep_counts.clone();
    let mut at = 0;
    for (task, &count) in columns.dep_counts.iter().enumerate() {
        for &dep in &columns.deps[at..at + count as usize] {
            consumers[places[dep as usize] as usize] = task as u32;
            places[dep as usize] += 1;
        }
        at += count as usize;
    }
    let mut ready: Vec<u32> = (0..tasks as u32).filter(|&task| missing[task as usize] == 0).collect();
    let mut done = 0;
    while let Some(task) = ready.pop() {
        done += 1;
        for &consumer in &consumers[starts[task as usize] as usize..starts[task as usize + 1] as usize] {
            missing[consumer as usize] -= 1;
            if missing[consumer as usize] == 0 {
                ready.push(consumer);
            }
        }
    }
    assert_eq!(done, tasks);
    begin.elapsed()
}

struct Equal;

impl Oracle for Equal {
    fn cost(&mut self, _: TaskIndex) -> u64 {
        1
    }

    fn preference(&mut self, _: &[TaskIndex], _: TaskIndex) -> Preference {
        Preference::Nobody
    }
}

/// The phases of one resolution.
#[derive(Default, Clone, Copy)]
struct Phases {
    submit: Duration,
    run: Duration,
    end: Duration,
}

impl Phases {
    fn total(&self) -> Duration {
        self.submit + self.run + self.end
    }
}

fn resolve_once(kernel: &mut Kernel, columns: &Columns, slots: &mut Vec<TaskIndex>, bytes: &mut u64) -> Phases {
    let tasks = columns.dep_counts.len();
    slots.clear();
    let begin = Instant::now();
    kernel.submit(&columns.chunk(), slots).expect("a valid graph");
    let submitted = Instant::now();
    *bytes = kernel.statistics().bytes;
    let workers = [WorkerId(0), WorkerId(1)];
    let mut queues: [Vec<Leased>; 2] = Default::default();
    let mut done = 0;
    let mut freed = 0;
    while done < tasks {
        for (&worker, queue) in workers.iter().zip(&mut queues) {
            // Two frames a worker: one stays while the other is reported.
            let share = kernel.ready_len(ClassId(0)).div_ceil(workers.len()) as u32;
            let request = LeaseRequest {
                classes: &[ClassId(0)],
                tasks_max: 4_096,
                seeds_max: share,
                budget: 1_000,
                only_preferred: false,
                roots: true,
            };
            let old = queue.len();
            kernel.lease(worker, &request, &mut Equal, queue);
            let finished = if old == 0 { queue.len() } else { old };
            for lease in queue.drain(..finished) {
                kernel.complete(worker, lease.task, lease.attempt, lease.report).expect("a valid report");
                done += 1;
            }
        }
        kernel.drain_dead(|task| {
            black_box(task);
        });
        kernel.drain_freed(|_| freed += 1);
    }
    let ran = Instant::now();
    for &number in &columns.keep {
        kernel.unhold(slots[number as usize]);
    }
    loop {
        kernel.drain_dead(|task| {
            black_box(task);
        });
        if !kernel.drain_freed(|_| freed += 1) {
            break;
        }
    }
    assert_eq!(freed, tasks);
    Phases { submit: submitted - begin, run: ran - submitted, end: ran.elapsed() }
}

fn resolve(name: &str, tasks: usize, repetitions: usize, make: impl Fn() -> Columns) {
    if !chosen(&format!("{name}: {tasks} tasks")) {
        return;
    }
    let columns = &make();
    let mut slots = Vec::new();
    let mut bytes = 0;
    let mut times: Vec<Phases> = Vec::new();
    let mut kernel = Kernel::new();
    kernel.add_worker(WorkerId(0));
    kernel.add_worker(WorkerId(1));
    let mut floor = Duration::MAX;
    for _ in 0..repetitions {
        floor = floor.min(bare(columns));
        times.push(resolve_once(&mut kernel, columns, &mut slots, &mut bytes));
    }
    times.sort_by_key(Phases::total);
    let (tasks, edges) = (columns.dep_counts.len(), columns.deps.len());
    let median = times[times.len() / 2];
    println!(
        "{name:34} {tasks:9} {edges:9} {floor:>10.2?} {:>10.2?} {:>10.2?} {:9.1} {:9.1}   fastest: submit {:.2?} run {:.2?} end {:.2?}",
        times[0].total(),
        median.total(),
        times[0].total().as_nanos() as f64 / (tasks + edges) as f64,
        bytes as f64 / tasks as f64,
        times[0].submit,
        times[0].run,
        times[0].end,
    );
}

/// A ring, entered at an arbitrary place.
fn cycle(tasks: u32) {
    let deps: Vec<u32> = (0..tasks).map(|task| (task + tasks - 1) % tasks).collect();
    let columns = Columns { dep_counts: vec![1; tasks as usize], deps, keep: Vec::new() };
    let begin = Instant::now();
    let refused = Kernel::new().submit(&columns.chunk(), &mut Vec::new());
    let took = begin.elapsed();
    assert!(matches!(refused, Err(GraphError::Cycle { tasks: cycle }) if cycle.len() == tasks as usize));
    println!("a cycle of {tasks} tasks is refused in {took:.2?}");
}

/// The root of a long chain is cancelled.
fn cancel_chain(tasks: usize) {
    let columns = Columns::stencil(tasks, 1);
    let mut kernel = Kernel::new();
    let mut slots = Vec::new();
    kernel.submit(&columns.chunk(), &mut slots).expect("a valid graph");
    let begin = Instant::now();
    kernel.cancel(&slots[..1]);
    let took = begin.elapsed();
    assert_eq!(kernel.statistics().cancelled as usize, tasks);
    println!("cancelling the root of a chain of {tasks} tasks takes {took:.2?}");
}

/// Calls one after the other: submit, lease, complete, release.
fn calls(count: usize) {
    let mut kernel = Kernel::new();
    kernel.add_worker(WorkerId(0));
    let columns = Columns::random(1, 0);
    let mut slots = Vec::new();
    let mut bytes = 0;
    let begin = Instant::now();
    for _ in 0..count {
        resolve_once(&mut kernel, &columns, &mut slots, &mut bytes);
    }
    let took = begin.elapsed();
    assert_eq!(kernel.statistics().slots, 1);
    println!(
        "{count} calls in sequence take {:.0} ns each, with {} bytes in the end",
        took.as_nanos() as f64 / count as f64,
        kernel.statistics().bytes
    );
}
