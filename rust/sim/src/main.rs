//! `cargo run --release -p headrace-sim -- --seeds N [--first S]`, or `--seed S [--trace]` for one seed, or `--large WORKERS TASKS`.
//!
//! Without `--release` it is half as fast, and debug assertions look on.
#![forbid(unsafe_code)]

use headrace_sim::{Coverage, Outcome, Scenario, Verdict, Violation, run, tell};
use std::time::{Duration, Instant};

/// How long a failure is made smaller.
const SHRINKING: Duration = Duration::from_secs(20);
/// Failures that are told at length.
const FAILURES_TOLD: usize = 3;

const USAGE: &str =
    "usage: headrace-sim --seeds N [--first S] [--cover] | --seed S [--trace] | --large WORKERS TASKS [--first S]
  --seeds N    play N seeds, and say what broke while what was going on
  --first S    the first of them; 0
  --cover      name each that meets what no one before it has met, for corpus.txt
  --seed S     play one seed and print the hash of its trace; a failure is made smaller
  --trace      print the whole trace of it
  --large W T  play one scenario of W workers and T tasks, in which machines die, and say what the broker had to do";

struct Args {
    seeds: u64,
    first: u64,
    covers: bool,
    single: Option<u64>,
    traced: bool,
    large: Option<(u32, u32)>,
}

fn main() {
    let Some(args) = read_args() else {
        eprintln!("{USAGE}");
        std::process::exit(2);
    };
    std::panic::set_hook(Box::new(|_| {})); // A panic is a failure among others.
    let failed = match (args.large, args.single) {
        (Some((workers, tasks)), _) => play_large(args.first, workers, tasks),
        (None, Some(seed)) => show(seed, args.traced),
        (None, None) => play(&args),
    };
    std::process::exit(i32::from(failed));
}

fn read_args() -> Option<Args> {
    let mut words = std::env::args().skip(1);
    let mut args = Args { seeds: 1_000, first: 0, covers: false, single: None, traced: false, large: None };
    while let Some(word) = words.next() {
        let mut number = || words.next()?.parse::<u64>().ok();
        match word.as_str() {
            "--seeds" => args.seeds = number()?,
            "--first" => args.first = number()?,
            "--cover" => args.covers = true,
            "--seed" => args.single = Some(number()?),
            "--trace" => args.traced = true,
            "--large" => args.large = Some((u32::try_from(number()?).ok()?, u32::try_from(number()?).ok()?)),
            #[cfg(feature = "seeded-bugs")]
            "--bug" => headrace_kernel::seeded::plant(words.next()?.leak()),
            _ => return None,
        }
    }
    Some(args)
}

/// Plays one seed; whether it fails.
fn show(seed: u64, traced: bool) -> bool {
    let scenario = Scenario::draw(seed);
    if traced {
        println!("{scenario}");
    }
    let Verdict { outcome, violation, .. } = run(&scenario, traced);
    if let Some(outcome) = outcome {
        if traced && violation.is_none() {
            outcome.trace.iter().for_each(|line| println!("{line}"));
        }
        println!("seed {seed}: trace {:016x}, {} events", outcome.trace_hash, outcome.events);
    }
    if let Some(violation) = &violation {
        println!("{}", told(seed, violation, traced));
    }
    violation.is_some()
}

/// Plays a large scenario; whether it fails.
fn play_large(seed: u64, workers: u32, tasks: u32) -> bool {
    let Verdict { outcome, judgement, violation } = run(&Scenario::large(seed, workers, tasks), false);
    if let Some(Outcome { load, recoveries_ns, events, .. }) = outcome {
        let per_task_us = load.broker.as_secs_f64() * 1e6 / f64::from(tasks);
        println!("{workers} workers, {tasks} tasks, {} bodies, {events} events", judgement.bodies);
        println!(
            "broker: {per_task_us:.2} µs/task of processor time, {} turns, {} recalls; waiting for one turn: at most {} frames, {} bytes",
            load.turns, load.recalls, load.frames_waiting_max, load.bytes_waiting_max
        );
        let middle = recoveries_ns.get(recoveries_ns.len() / 2).copied().unwrap_or(0) as f64 / 1e6;
        let last = recoveries_ns.last().copied().unwrap_or(0) as f64 / 1e6;
        println!(
            "{} tasks were running on machines that died; they began again after {middle:.1} ms (most {last:.1} ms); all took {:.2} s",
            recoveries_ns.len(),
            load.took_ns as f64 / 1e9 - 1.0
        );
    }
    match &violation {
        Some(violation) => println!("{violation}"),
        None => println!("no violation"),
    }
    violation.is_some()
}

/// Plays many seeds; whether any of them fails.
fn play(&Args { first, seeds, covers, .. }: &Args) -> bool {
    let began = Instant::now();
    let mut coverage = Coverage::default();
    let (mut events, mut bodies, mut recovered, mut failed) = (0, 0, 0, 0);
    for seed in first..first + seeds {
        let Verdict { outcome, judgement, violation } = run(&Scenario::draw(seed), false);
        if let Some(outcome) = &outcome {
            let missed_before = if covers { coverage.missed() } else { Vec::new() };
            coverage.add(&outcome.coverage);
            events += outcome.events;
            let missed = if covers { coverage.missed() } else { Vec::new() };
            if missed.len() < missed_before.len() {
                let news: Vec<String> = missed_before.into_iter().filter(|what| !missed.contains(what)).collect();
                println!("{seed} {}", news.join(", "));
            }
        }
        bodies += judgement.bodies;
        recovered += judgement.recovered;
        if let Some(violation) = violation {
            failed += 1;
            match failed <= FAILURES_TOLD {
                true => println!("{}", told(seed, &violation, false)),
                false => println!("seed {seed}: {violation}"),
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{coverage}");
    println!("{events} events, {bodies} bodies, {recovered} tasks ran more than once and ended once");
    println!("{seeds} seeds from {first} on, {failed} failed, {:.0} seeds/s", seeds as f64 / seconds);
    failed > 0
}

/// A failure in words, made smaller.
fn told(seed: u64, violation: &Violation, whole: bool) -> String {
    let until = Instant::now() + SHRINKING;
    tell(seed, violation, whole, || Instant::now() < until)
}
