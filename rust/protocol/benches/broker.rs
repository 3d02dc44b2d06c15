//! What does the broker's machine cost a task? `cargo bench -p headrace-protocol --bench broker`
//!
//! Workers that answer at once, no socket, no Python: time spent inside the broker only, frames encoded and decoded.
//! Compare nothing end to end with this: it is the scheduler alone.

mod machines;

use headrace_protocol::broker::Action;
use headrace_protocol::worker::{Ending, Start};
use headrace_wire::{Blobs, BlobsBuf, Message, Submit};
use machines::{CLIENT, connected, feed};
use std::time::{Duration, Instant};

fn main() {
    // Sizes may be given: to count instructions, say.
    let given: Vec<u32> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    for tasks in if given.is_empty() { vec![10_000, 100_000, 1_000_000] } else { given } {
        report("independent", tasks, (0..tasks).map(|_| Vec::new()).collect(), &(0..tasks).collect::<Vec<u32>>());
        report(
            "chain",
            tasks,
            (0..tasks).map(|task| task.checked_sub(1).into_iter().collect()).collect(),
            &[tasks - 1],
        );
        let side = 100;
        let stencil = |task: u32| {
            let (row, column) = (task / side, task % side);
            let above = |column: u32| (row > 0 && column < side).then(|| (row - 1) * side + column);
            [above(column.wrapping_sub(1)), above(column), above(column + 1)].into_iter().flatten().collect()
        };
        report("stencil", tasks, (0..tasks).map(stencil).collect(), &(tasks - side..tasks).collect::<Vec<u32>>());
    }
}

fn report(name: &str, tasks: u32, deps: Vec<Vec<u32>>, keep: &[u32]) {
    let edges: usize = deps.iter().map(Vec::len).sum();
    let mut best: Option<(Duration, Duration)> = None;
    for _ in 0..5 {
        let (submit, run) = run(&deps, keep);
        if best.is_none_or(|(_, known)| run < known) {
            best = Some((submit, run));
        }
    }
    let (submit, run) = best.expect("ran");
    let ns = |time: Duration| time.as_nanos() as f64 / f64::from(tasks);
    println!(
        "{name:12} {tasks:8} tasks {edges:8} edges   first lease after {:8.2} ms   submit {:6.1} ns/task   run {:6.1} ns/task",
        submit.as_secs_f64() * 1e3,
        ns(submit),
        ns(run)
    );
}

/// Time from SUBMIT to the first leases, and from there to the last result.
fn run(deps: &[Vec<u32>], keep: &[u32]) -> (Duration, Duration) {
    let (mut broker, mut workers) = connected(2);
    while broker.poll_action().is_some() {}
    let counts: Vec<u32> = deps.iter().map(|row| row.len() as u32).collect();
    let deps: Vec<u32> = deps.concat();
    let (zeros, lens) = (vec![0; counts.len()], vec![4; counts.len()]);
    let args = vec![7; 4 * counts.len()];
    let mut name = BlobsBuf::default();
    name.push(b"work");
    let submit = Submit {
        run: 1,
        function_ids: zeros[..1].into(),
        function_names: name.as_blobs(),
        functions: name.as_blobs(),
        function_map: zeros[..1].into(),
        task_function: (&zeros).into(),
        dep_counts: (&counts).into(),
        deps: (&deps).into(),
        args: Blobs { lens: (&lens).into(), bytes: &args },
        keep: keep.into(),
        ..Submit::default()
    };
    let mut bytes = Vec::new();
    Message::Submit(submit).encode(&mut bytes);
    let mut now_ns = 1;
    let start = Instant::now();
    feed(&mut broker, CLIENT, bytes);
    broker.finish_turn(now_ns);
    let submitted = start.elapsed();
    let mut inside = Duration::ZERO;
    let mut ended = false;
    while !ended {
        let mut reports = Vec::new();
        while let Some(action) = broker.poll_action() {
            let Action::Send { peer, frame, wake } = action else { continue };
            ended |= wake.is_some_and(|wake| wake.finished);
            if peer != CLIENT {
                let machine = &mut workers[peer.0 as usize - 1];
                machine.handle_frame(&frame);
                let mut next = Start::default();
                // 100 ns a call, by a clock that the calls drive.
                while machine.start_next(&mut next, || now_ns) {
                    now_ns += 100;
                    machine.finish(Ending::Value(&[3, 7]));
                }
                machine.flush(now_ns);
                while let Some(report) = machine.poll_frame() {
                    reports.push((peer, report));
                }
            }
        }
        let start = Instant::now();
        for (peer, report) in reports {
            feed(&mut broker, peer, report);
            broker.finish_turn(now_ns);
        }
        // The rest of a large graph comes in between turns.
        broker.handle_timeout(now_ns);
        broker.finish_turn(now_ns);
        inside += start.elapsed();
    }
    (submitted, inside)
}
