//! A test of the tests: bugs are planted in the real machines, and the simulator must notice each.

use headrace_kernel::seeded::plant;
use headrace_sim::{Scenario, run};
use std::time::{Duration, Instant};

/// Names of the planted bugs; each stands where it is planted.
const BUGS: &[&str] = &[
    // Kernel.
    "skipped fence",
    "double decrement",
    "lost wake-up",
    "missed descendant",
    "lost recall",
    "death keeps a lease",
    "cancelled and dispatched",
    "attempt used again",
    "number of a rival used again",
    "retry of a done task",
    // Broker.
    "kept result told twice",
    "cancel unheard",
    "blamed neighbour",
    "deaths not counted",
    "freed while cited",
    "freed while seen",
    "input not sent",
    "run over early",
    "chunks not held",
    "what was put is made again",
    "no blame behind an overdue one",
    "input out of reach made again",
    "refusal unheard",
    "any task is tried twice",
    "third attempt",
    "one of two failures counted",
    "second attempt takes nothing",
    // Worker.
    "started without an input",
    "held value dropped",
    "report cut short",
    "returned and started",
    // Link.
    "frame accepted twice",
    "acknowledged and dropped",
    "sent again once",
    "forgotten too early",
    // Store.
    "citation not counted",
    "move not heard",
    "another block moved",
];
const SEEDS_MAX: u64 = 20_000;
const TIME_MAX: Duration = Duration::from_secs(60);

#[test]
fn every_planted_bug_is_noticed() {
    std::panic::set_hook(Box::new(|_| {})); // Panics are expected.
    let mut unnoticed = Vec::new();
    for bug in BUGS {
        let began = Instant::now();
        plant(bug);
        let noticed = (0..SEEDS_MAX)
            .take_while(|_| began.elapsed() < TIME_MAX)
            .find_map(|seed| Some((seed, run(&Scenario::draw(seed), false).violation?)));
        plant("");
        match noticed {
            Some((seed, violation)) => {
                println!("{bug:>26}: seed {seed:>4}, {:>5} ms, {}", began.elapsed().as_millis(), violation.class);
                // The same seed is right without the bug.
                assert_eq!(run(&Scenario::draw(seed), false).violation, None, "seed {seed} without a bug");
            }
            None => unnoticed.push(bug),
        }
    }
    assert_eq!(unnoticed, [] as [&&str; 0]);
}
