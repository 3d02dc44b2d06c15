//! The whole cluster on one virtual clock and one seed: the real kernel and the broker, worker and client machines, and
//! played surroundings that break.
//!
//! A seed stands for a [`Scenario`]: what clients ask for, how fast things go, what breaks and when. [`run`] plays it: first
//! the faults, then without any until all has ended, then until nothing is left. [`judge`] reads the history that this left
//! and says what is wrong with it.
#![forbid(unsafe_code)]

mod chance;
mod checker;
mod coverage;
mod describe;
mod draw;
mod encode;
mod history;
mod large;
mod queue;
mod report;
mod scenario;
mod shrink;
mod trace;
mod workload;
mod world;

pub use checker::Judgement;
pub use coverage::Coverage;
pub use large::Load;
pub use report::tell;
pub use scenario::Scenario;
pub use world::{Outcome, Violation};

use checker::judge;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a scenario went, and what is wrong with that.
#[derive(Debug)]
pub struct Verdict {
    /// How it went; `None` after a panic.
    pub outcome: Option<Outcome>,
    /// What the checker says.
    pub judgement: Judgement,
    /// What is wrong, if anything is.
    pub violation: Option<Violation>,
}

/// Plays a scenario and judges it. With `traced`, what happens is written down in words as well.
pub fn run(scenario: &Scenario, traced: bool) -> Verdict {
    let played = catch_unwind(AssertUnwindSafe(|| world::World::new(scenario, traced).run()));
    match played {
        Ok(outcome) => {
            let judgement = judge(scenario, &outcome.history, outcome.violation.is_none());
            // What the checker sees is closer to the cause than that something is left or does not end.
            let violation = judgement.violation.clone().or_else(|| outcome.violation.clone());
            Verdict { outcome: Some(outcome), judgement, violation }
        }
        Err(panic) => {
            let words = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            let text = words.unwrap_or("a panic without words").to_owned();
            Verdict {
                outcome: None,
                judgement: Judgement::default(),
                violation: Some(Violation { class: "panic", text }),
            }
        }
    }
}
