//! Makes a scenario that fails smaller, as long as it fails in the same way: whatever can be left out is.

use crate::run;
use crate::scenario::{ClientPlan, Net, Op, PLENTY_BYTES, Scenario};
use crate::workload::{Dep, Size, Task, Workload};
use crate::world::Violation;

/// A smaller scenario, and how it fails. `may_go_on` is asked before each try.
pub(crate) fn shrink(
    scenario: &Scenario,
    violation: &Violation,
    mut may_go_on: impl FnMut() -> bool,
) -> (Scenario, Violation) {
    let (mut best, mut why) = (scenario.clone(), violation.clone());
    loop {
        let before = size(&best);
        for cut in CUTS {
            // Positions are tried from the end, so that what is left keeps its place.
            let mut position = (cut.places)(&best);
            while position > 0 && may_go_on() {
                position -= 1;
                let mut smaller = best.clone();
                (cut.take)(&mut smaller, position);
                tidy(&mut smaller);
                if size(&smaller) >= size(&best) {
                    continue;
                }
                if let Some(found) = run(&smaller, false).violation.filter(|found| found.class == why.class) {
                    (best, why) = (smaller, found);
                    position = position.min((cut.places)(&best));
                }
            }
        }
        if size(&best) == before || !may_go_on() {
            return (best, why);
        }
    }
}

/// One way to leave something out.
struct Cut {
    /// In how many places it can be done.
    places: fn(&Scenario) -> usize,
    take: fn(&mut Scenario, usize),
}

const CUTS: &[Cut] = &[
    Cut { places: |scenario| scenario.faults.len(), take: |scenario, at| _ = scenario.faults.remove(at) },
    Cut {
        places: |scenario| if scenario.clients.len() > 1 { scenario.clients.len() } else { 0 },
        take: |scenario, at| scenario.clients[at] = ClientPlan::default(),
    },
    Cut { places: |_| 4, take: |scenario, at| ease_net(&mut scenario.net, at) },
    Cut { places: |scenario| scenario.clients.len(), take: |scenario, at| scenario.clients[at].lossy = false },
    Cut {
        places: ops,
        take: |scenario, at| {
            if let Some((client, op)) = place_of(scenario, at, |client| client.ops.len()) {
                scenario.clients[client].ops.remove(op);
            }
        },
    },
    Cut { places: |scenario| 3 * workloads(scenario), take: |scenario, at| halve(scenario, at / 3, [2, 4, 8][at % 3]) },
    Cut { places: tasks, take: take_task },
    Cut { places: |_| 7, take: ease_tasks },
    Cut { places: |scenario| scenario.setup.workers as usize - 1, take: |scenario, _| scenario.setup.workers -= 1 },
    Cut {
        places: |scenario| usize::from(scenario.setup.store_limit < PLENTY_BYTES),
        take: |scenario, _| (scenario.setup.store_limit, scenario.setup.spill_limit) = (PLENTY_BYTES, 0),
    },
];

/// What is to become less.
fn size(scenario: &Scenario) -> u64 {
    let Scenario { net, clients, faults, setup, .. } = scenario;
    let per_task = |task: &Task| {
        let has_options = [task.deaf, task.pin.is_some(), task.priority != 0, task.speculative];
        let marks = has_options.into_iter().chain([task.size != Size::Small, task.run_ns > 0]);
        8 + task.deps.len() as u64 + marks.filter(|mark| *mark).count() as u64
    };
    let per_client = |client: &ClientPlan| {
        let workloads = client.workloads();
        let tasks = workloads.map(|workload| {
            workload.tasks.iter().map(per_task).sum::<u64>() + workload.keep.len() as u64 + u64::from(workload.cut > 0)
        });
        tasks.sum::<u64>() + 4 * client.ops.len() as u64 + 8 * u64::from(client.lossy)
    };
    let rates = [net.lossy_odds, net.lost_ppm, net.doubled_ppm, net.late_ppm];
    clients.iter().map(per_client).sum::<u64>()
        + 16 * faults.len() as u64
        + 8 * rates.into_iter().filter(|rate| *rate > 0).count() as u64
        + u64::from(setup.workers)
        + u64::from(setup.store_limit < PLENTY_BYTES)
}

fn ease_net(net: &mut Net, at: usize) {
    match at {
        0 => net.lossy_odds = 0,
        1 => net.lost_ppm = 0,
        2 => net.doubled_ppm = 0,
        _ => net.late_ppm = 0,
    }
}

fn ops(scenario: &Scenario) -> usize {
    scenario.clients.iter().map(|client| client.ops.len()).sum()
}

fn workloads(scenario: &Scenario) -> usize {
    scenario.clients.iter().map(|client| 1 + client.runs.len()).sum()
}

fn tasks(scenario: &Scenario) -> usize {
    scenario.clients.iter().map(ClientPlan::tasks).sum()
}

/// The client to which the n-th of something belongs, and which of its own it is.
fn place_of(scenario: &Scenario, mut at: usize, count: impl Fn(&ClientPlan) -> usize) -> Option<(usize, usize)> {
    for (number, client) in scenario.clients.iter().enumerate() {
        match at.checked_sub(count(client)) {
            Some(rest) => at = rest,
            None => return Some((number, at)),
        }
    }
    None
}

fn workload_mut(client: &mut ClientPlan, run: usize) -> &mut Workload {
    if run == 0 { &mut client.calls } else { &mut client.runs[run - 1] }
}

/// Leaves out the last part of a graph.
fn halve(scenario: &mut Scenario, at: usize, parts: usize) {
    if let Some((client, run)) = place_of(scenario, at, |client| 1 + client.runs.len()) {
        let workload = workload_mut(&mut scenario.clients[client], run);
        let left = workload.tasks.len() - workload.tasks.len().div_ceil(parts);
        workload.tasks.truncate(left);
    }
}

/// Leaves out one task. Those behind it move up, and who read it reads what it read.
fn take_task(scenario: &mut Scenario, at: usize) {
    let Some((client, mut number)) = place_of(scenario, at, ClientPlan::tasks) else { return };
    let client = &mut scenario.clients[client];
    let mut run = 0;
    while number >= client.workload(run).tasks.len() {
        number -= client.workload(run).tasks.len();
        run += 1;
    }
    let gone = workload_mut(client, run.into()).tasks.remove(number);
    let number = number as u16;
    let move_dep = |dep: &mut Dep| {
        if dep.run == run && dep.number > number {
            dep.number -= 1;
        }
    };
    for reader in 0..=client.runs.len() {
        for task in &mut workload_mut(client, reader).tasks {
            if let Some(place) = task.deps.iter().position(|dep| *dep == Dep { run, number }) {
                task.deps.remove(place);
                task.deps.extend(gone.deps.iter().copied().filter(|dep| reader > 0 || dep.run != run || run == 0));
            }
            task.deps.iter_mut().for_each(move_dep);
            task.deps.sort_unstable();
            task.deps.dedup();
        }
    }
    let workload = workload_mut(client, run.into());
    workload.keep.retain(|kept| *kept != number);
    workload.keep.iter_mut().for_each(|kept| *kept -= u16::from(*kept > number));
    let moved = |index: &mut u16| *index -= u16::from(*index > number);
    client.ops.retain(|(_, op)| !matches!(op, Op::Call(call) | Op::Forget(call) if run == 0 && *call == number));
    for (_, op) in &mut client.ops {
        match op {
            Op::Call(call) | Op::Forget(call) if run == 0 => moved(call),
            Op::Cancel(cancelled, indices) if *cancelled == run => {
                indices.retain(|index| *index != number);
                indices.iter_mut().for_each(moved);
            }
            Op::Hold(dep) | Op::Unhold(dep) => move_dep(dep),
            _ => {}
        }
    }
}

/// Makes all tasks plainer in one respect.
fn ease_tasks(scenario: &mut Scenario, at: usize) {
    let workloads = scenario.clients.iter_mut().flat_map(|client| client.runs.iter_mut().chain([&mut client.calls]));
    for workload in workloads {
        if at == 5 {
            workload.cut = 0;
        }
        for task in &mut workload.tasks {
            match at {
                0 => task.deaf = false,
                1 => task.pin = None,
                2 => task.priority = 0,
                3 => task.size = Size::Small,
                4 => task.run_ns = 0,
                6 => task.speculative = false,
                _ => {}
            }
        }
    }
}

/// Removes what speaks of things that are gone.
fn tidy(scenario: &mut Scenario) {
    let workers = scenario.setup.workers;
    for client in &mut scenario.clients {
        let sizes: Vec<usize> = client.workloads().map(|workload| workload.tasks.len()).collect();
        let is_there = |dep: &Dep| sizes.get(usize::from(dep.run)).is_some_and(|size| usize::from(dep.number) < *size);
        for (run, size) in sizes.iter().enumerate() {
            let workload = workload_mut(client, run);
            workload.keep.retain(|kept| usize::from(*kept) < *size);
            workload.cut = if usize::from(workload.cut) < *size { workload.cut } else { 0 };
            for task in &mut workload.tasks {
                task.deps.retain(is_there);
                task.pin = task.pin.filter(|pin| *pin < workers);
            }
        }
        client.ops.retain(|(_, op)| match op {
            Op::Submit(run) => sizes[usize::from(*run)] > 0,
            Op::Call(call) | Op::Forget(call) => usize::from(*call) < sizes[0],
            Op::Hold(dep) | Op::Unhold(dep) => is_there(dep),
            _ => true,
        });
        for (_, op) in &mut client.ops {
            if let Op::Cancel(run, indices) = op {
                indices.retain(|index| usize::from(*index) < sizes[usize::from(*run)]);
            }
        }
        client.ops.retain(|(_, op)| !matches!(op, Op::Cancel(_, indices) if indices.is_empty()));
    }
}
