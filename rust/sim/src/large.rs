//! One scenario that is large instead of many that are small: thousands of workers on machines of ten, a million tasks, and
//! machines that die in the middle.

use crate::chance::Chance;
use crate::history::{History, Record};
use crate::scenario::{Act, ClientPlan, Fault, Net, Op, PLENTY_BYTES, Pace, Scenario, Setup, When, Whose};
use crate::workload::{Body, Dep, Name, Size, Task, Workload};
use headrace_protocol::broker::STRAGGLER_NS;
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::time::Duration;

/// Workers of a machine, which die together.
const MACHINE_WORKERS: u32 = 10;
/// Tasks of a run; more are several runs at once.
const RUN_TASKS_MAX: u32 = 50_000;
/// How long a task takes: evenly in the exponent between the two, 40 ms on average.
const TASK_NS: (u64, u64) = (10_000_000, 100_000_000);

/// What the broker had to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Processor time of its machine, told the same once more and alone.
    pub broker: Duration,
    /// Turns of its loop.
    pub turns: u64,
    /// Frames and bytes that waited for one turn, at most.
    pub frames_waiting_max: usize,
    /// The bytes.
    pub bytes_waiting_max: usize,
    /// Recalls that it sent.
    pub recalls: u64,
    /// Until every client had all results, on the virtual clock.
    pub took_ns: u64,
}

impl Scenario {
    /// `tasks` tasks in rows, of which each reads two of the row before; one machine in a hundred dies.
    #[must_use]
    pub fn large(seed: u64, workers: u32, tasks: u32) -> Self {
        let setup = Setup {
            workers,
            crash_limit: 3,
            oom_limit: 1,
            tasks_max: u64::MAX,
            store_limit: PLENTY_BYTES,
            spill_limit: PLENTY_BYTES,
            grace_ns: 1_000_000_000,
            straggler_ns: STRAGGLER_NS,
        };
        // Half of a network's round trip, a thread's wake-up, the start of a Python, a pidfd.
        let pace = Pace {
            frame_ns: 200_000,
            turn_ns: 50_000,
            spawn_ns: 100_000_000,
            notice_ns: 1_000_000,
            disk_ns: 1_000_000,
        };
        let mut chance = Chance::new(seed, "large");
        let runs = tasks.div_ceil(RUN_TASKS_MAX).min(u8::MAX.into());
        let mut client = ClientPlan::default();
        for run in 1..=runs as u8 {
            client.runs.push(rows(&mut chance, run, (tasks / runs).min(RUN_TASKS_MAX) as u16));
            client.ops.push((1_000_000_000, Op::Submit(run)));
        }
        let span_ns = client.work_ns() / u64::from(workers);
        let machines = workers / MACHINE_WORKERS;
        let mut faults = Vec::new();
        for _ in 0..machines.div_ceil(100) {
            let (machine, at_ns) = (chance.below(machines.into()) as u32, 1_000_000_000 + chance.below(span_ns));
            let of_machine = machine * MACHINE_WORKERS..(machine + 1) * MACHINE_WORKERS;
            faults.extend(
                of_machine.map(|worker| Fault { when: When::At(at_ns), act: Act::Kill(Whose::Worker(worker)) }),
            );
        }
        let heal_ns = 1_000_000_000 + span_ns;
        Scenario { seed, setup, pace, net: Net::default(), clients: vec![client], faults, heal_ns, is_large: true }
    }
}

fn rows(chance: &mut Chance, run: u8, tasks: u16) -> Workload {
    let width = (tasks / 10).max(1);
    let mut workload = Workload { keep: (tasks - width..tasks).collect(), ..Workload::default() };
    for number in 0..tasks {
        let above = (number - number % width).checked_sub(width);
        let mut deps: Vec<Dep> = above.map_or(Vec::new(), |row| {
            (0..2).map(|_| Dep { run, number: row + chance.below(width.into()) as u16 }).collect()
        });
        deps.sort_unstable();
        deps.dedup();
        workload.tasks.push(Task {
            deps,
            body: Body::Value,
            size: Size::Small,
            run_ns: chance.log_within(TASK_NS.0, TASK_NS.1),
            deaf: false,
            raises: 0,
            retries: 0,
            backoff_ms: 0,
            timeout_ms: 0,
            queue_timeout_ms: 0,
            licenses: 0,
            tagged: false,
            speculative: false,
            function: 0,
            pin: None,
            priority: 0,
        });
    }
    workload
}

/// What this thread has taken of a processor.
pub(crate) fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// How long it took after the death of a process until each task that it ran began again; in order.
pub(crate) fn recoveries_ns(history: &History) -> Vec<u64> {
    let mut interrupted: BTreeMap<Name, u64> = BTreeMap::new();
    let mut recoveries = Vec::new();
    for (at_ns, record) in &history.records {
        match record {
            Record::Died { executing: Some(name), .. } => drop(interrupted.insert(*name, *at_ns)),
            Record::Began { name, .. } => recoveries.extend(interrupted.remove(name).map(|died_ns| at_ns - died_ns)),
            _ => {}
        }
    }
    recoveries.sort_unstable();
    recoveries
}
