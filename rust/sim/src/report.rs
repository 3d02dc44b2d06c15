//! A failure, for people: the seed, a smaller scenario that fails in the same way, and the last that happened there.

use crate::run;
use crate::scenario::{ClientPlan, Scenario};
use crate::shrink::shrink;
use crate::workload::{Dep, Name, Task};
use crate::world::Violation;
use std::fmt::Write;

/// Lines of a trace that are shown; and how many of the very last always are.
const LINES_SHOWN: usize = 60;
const LINES_ALWAYS: usize = 12;

/// Tells of a failure, made smaller for as long as this may go on; with `whole`, all that happened then.
pub fn tell(seed: u64, violation: &Violation, whole: bool, may_go_on: impl FnMut() -> bool) -> String {
    let (smaller, why) = shrink(&Scenario::draw(seed), violation, may_go_on);
    let trace = run(&smaller, true).outcome.map_or(Vec::new(), |outcome| outcome.trace);
    let lines = if whole { trace } else { last_words(&trace, &why) };
    format!(
        "seed {seed}: {violation}\nthe same in small: {why}\n{smaller}\n{}\n\
         `cargo run -p headrace-sim -- --seed {seed}` repeats this",
        lines.join("\n")
    )
}

/// The end of a trace, without what has nothing to do with the tasks that a failure names.
fn last_words(trace: &[String], violation: &Violation) -> Vec<String> {
    let names: Vec<&str> = violation.text.split(|c: char| !c.is_alphanumeric()).filter(|word| is_name(word)).collect();
    let slots: Vec<String> = trace
        .iter()
        .filter(|line| line.contains("Leased") && names.iter().any(|name| has_word(line, name)))
        .filter_map(|line| Some(format!("{}#", line.split("slot: ").nth(1)?.split(',').next()?)))
        .collect();
    let tail = trace.len().saturating_sub(LINES_ALWAYS);
    let is_relevant = |line: &str| {
        let happens = ["Kill(", "Hang(", "Cut(", "Pause(", "Died", "SessionOver", "faults", "wants"];
        names.is_empty()
            || names.iter().any(|name| has_word(line, name))
            || slots.iter().any(|slot| line.split([' ', '(', ',']).any(|word| word.starts_with(slot)))
            || happens.iter().any(|word| line.contains(word))
    };
    let is_dull = |line: &str| line.ends_with("Heartbeat ");
    let lines = trace.iter().enumerate().filter(|(at, line)| !is_dull(line) && (*at >= tail || is_relevant(line)));
    let lines: Vec<String> = lines.map(|(_, line)| line.clone()).collect();
    lines[lines.len().saturating_sub(LINES_SHOWN)..].to_vec()
}

fn is_name(word: &str) -> bool {
    let mut parts = word.split(|c: char| c.is_ascii_digit()).filter(|part| !part.is_empty());
    (parts.next(), parts.next(), parts.next(), parts.next()) == (Some("c"), Some("r"), Some("t"), None)
}

fn has_word(line: &str, name: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric()).any(|word| word == name)
}

impl std::fmt::Display for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Scenario { setup, pace, net, faults, .. } = self;
        writeln!(
            f,
            "{} workers, crash limit {}, {} bytes of memory and {} of disk, grace {}",
            setup.workers,
            setup.crash_limit,
            setup.store_limit,
            setup.spill_limit,
            time(setup.grace_ns)
        )?;
        writeln!(
            f,
            "at most: frame {}, turn {}, start {}, notice {}, disk {}",
            time(pace.frame_ns),
            time(pace.turn_ns),
            time(pace.spawn_ns),
            time(pace.notice_ns),
            time(pace.disk_ns)
        )?;
        if net.lossy_odds > 0 || self.clients.iter().any(|client| client.lossy) {
            writeln!(f, "{net:?}")?;
        }
        for (number, client) in self.clients.iter().enumerate().filter(|(_, client)| !client.ops.is_empty()) {
            let (eager, lossy) = (if client.eager { ", eager" } else { "" }, if client.lossy { ", lossy" } else { "" });
            writeln!(f, "client {number}{eager}{lossy}")?;
            write_client(f, number, client)?;
        }
        faults.iter().try_for_each(|fault| writeln!(f, "{:?}: {:?}", fault.when, fault.act))?;
        write!(f, "the faults stop at {}", time(self.heal_ns))
    }
}

fn write_client(f: &mut std::fmt::Formatter<'_>, number: usize, client: &ClientPlan) -> std::fmt::Result {
    for (run, workload) in client.workloads().enumerate().filter(|(_, workload)| !workload.tasks.is_empty()) {
        for (task, details) in workload.tasks.iter().enumerate() {
            let name = Name { client: number as u8, run: run as u8, number: task as u16 };
            writeln!(f, "  {name}: {}", describe(number, details))?;
        }
        writeln!(f, "  run {run} keeps {:?}, cut at {}", workload.keep, workload.cut)?;
    }
    client.ops.iter().try_for_each(|(at_ns, op)| writeln!(f, "  {}: {op:?}", time(*at_ns)))
}

fn describe(client: usize, task: &Task) -> String {
    let name = |dep: &Dep| Name { client: client as u8, run: dep.run, number: dep.number }.to_string();
    let deps: Vec<String> = task.deps.iter().map(name).collect();
    let mut words = format!("{:?}({}), {:?}, {}", task.body, deps.join(", "), task.size, time(task.run_ns));
    if task.deaf {
        words.push_str(", deaf");
    }
    if let Some(pin) = task.pin {
        let _ = write!(words, ", on worker {pin}");
    }
    let numbers = [
        ("priority", i64::from(task.priority)),
        ("raises", task.raises.into()),
        ("retries", task.retries.into()),
        ("backoff ms", task.backoff_ms.into()),
        ("timeout ms", task.timeout_ms.into()),
        ("queue timeout ms", task.queue_timeout_ms.into()),
        ("licenses", task.licenses.into()),
        ("tags", task.tagged.into()),
    ];
    for (what, number) in numbers.into_iter().filter(|(_, number)| *number != 0) {
        let _ = write!(words, ", {what} {number}");
    }
    words
}

fn time(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{} µs", ns / 1_000),
        _ => format!("{} ms", ns / 1_000_000),
    }
}
