//! `cargo run --release -p headrace-sim -- --seeds N [--first S]`, or `--seed S [--trace]` for one seed.
#![forbid(unsafe_code)]

use headrace_sim::{Coverage, Scenario, Verdict, Violation, last_words, run, shrink};
use std::time::{Duration, Instant};

/// How long a failure is made smaller.
const SHRINKING: Duration = Duration::from_secs(20);
/// Failures that are told at length.
const FAILURES_TOLD: usize = 3;

const USAGE: &str = "usage: headrace-sim --seeds N [--first S] | --seed S [--trace]
  --seeds N    play N seeds, and say what broke while what was going on
  --first S    the first of them; 0
  --seed S     play one seed and print the hash of its trace; a failure is made smaller
  --trace      print the whole trace of it";

struct Args {
    seeds: u64,
    first: u64,
    single: Option<u64>,
    traced: bool,
}

fn main() {
    let Some(args) = read_args() else {
        eprintln!("{USAGE}");
        std::process::exit(2);
    };
    std::panic::set_hook(Box::new(|_| {})); // A panic is a failure among others.
    let failed = match args.single {
        Some(seed) => show(seed, args.traced),
        None => play(args.first, args.seeds),
    };
    std::process::exit(i32::from(failed));
}

fn read_args() -> Option<Args> {
    let mut words = std::env::args().skip(1);
    let mut args = Args { seeds: 1_000, first: 0, single: None, traced: false };
    while let Some(word) = words.next() {
        let mut number = || words.next()?.parse::<u64>().ok();
        match word.as_str() {
            "--seeds" => args.seeds = number()?,
            "--first" => args.first = number()?,
            "--seed" => args.single = Some(number()?),
            "--trace" => args.traced = true,
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
        tell(seed, &scenario, violation, traced);
    }
    violation.is_some()
}

/// Plays many seeds; whether any of them fails.
fn play(first: u64, seeds: u64) -> bool {
    let began = Instant::now();
    let mut coverage = Coverage::default();
    let (mut events, mut bodies, mut recovered, mut failed) = (0, 0, 0, 0);
    for seed in first..first + seeds {
        let scenario = Scenario::draw(seed);
        let Verdict { outcome, judgement, violation } = run(&scenario, false);
        if let Some(outcome) = &outcome {
            coverage.add(&outcome.coverage);
            events += outcome.events;
        }
        bodies += judgement.bodies;
        recovered += judgement.recovered;
        if let Some(violation) = violation {
            failed += 1;
            match failed <= FAILURES_TOLD {
                true => tell(seed, &scenario, &violation, false),
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

/// Tells of a failure, made smaller.
fn tell(seed: u64, scenario: &Scenario, violation: &Violation, all: bool) {
    println!("seed {seed}: {violation}");
    let until = Instant::now() + SHRINKING;
    let (smaller, violation) = shrink(scenario, violation, || Instant::now() < until);
    println!("the same in small: {violation}\n{smaller}");
    if let Some(outcome) = run(&smaller, true).outcome {
        let lines = if all { outcome.trace } else { last_words(&outcome.trace, &violation) };
        lines.iter().for_each(|line| println!("{line}"));
    }
    println!("headrace-sim --seed {seed} repeats this");
}
