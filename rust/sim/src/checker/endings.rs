//! What clients are told of endings: each has its cause, and together they make sense.

use super::{Checker, Log};
use crate::history::Detail;
use crate::workload::{Body, FOR_EVER, Name};
use headrace_wire::{CancelReason, DeathCause, Outcome};

impl Checker<'_> {
    pub(super) fn told(&mut self, at_ns: u64, name: Name, outcome: Outcome, detail: &Detail) {
        let plan = &self.scenario.clients[usize::from(name.client)];
        let is_task =
            usize::from(name.run) <= plan.runs.len() && usize::from(name.number) < plan.workload(name.run).tasks.len();
        if !is_task || !self.known(name).asked {
            return self.fail("unexpected", format!("a client was told of {name}, for which it has not asked"));
        }
        // A result that its client has let go of may be made once more, and end badly then.
        let Log { told: before, let_go, .. } = self.known(name);
        if let Some((_, before, _)) = before.as_ref().filter(|told| told.1 != Outcome::Done || !let_go) {
            let text = format!("{name} is {outcome:?}, and was {before:?} before");
            return self.fail("duplicated", text);
        }
        let wrong = match outcome {
            Outcome::Done => (self.known(name).made == 0).then(|| "no body made a value".to_owned()),
            Outcome::Failed => self.no_reason_to_fail(name),
            Outcome::Died => self.no_reason_to_die(name, detail),
            Outcome::TimedOut => self.no_reason_to_time_out(at_ns, name, detail),
            Outcome::Cancelled => self.no_reason_to_cancel(at_ns, name, detail),
            Outcome::Skipped => match *detail {
                Detail::Root(root) if self.is_ancestor(root, name) => None,
                _ => Some(format!("{detail:?} is not before it")),
            },
            Outcome::Refused => match detail {
                Detail::Text(text) if text.starts_with("StoreFull") => None,
                _ => Some(format!("{detail:?}")),
            },
        };
        let ran =
            matches!(outcome, Outcome::Failed | Outcome::Died) || matches!(detail, Detail::Overrun { queued: false });
        let wrong = wrong.or_else(|| {
            // One that has made its value may be stopping still when that is lost and has to be made again.
            let log = self.known(name);
            let runs_on = ran && log.made == 0 && !log.runs_in.is_empty();
            runs_on.then(|| format!("it runs in the processes {:?}", log.runs_in))
        });
        if let Some(text) = wrong {
            let class = if outcome == Outcome::Died { "blamed" } else { "unexpected" };
            self.fail(class, format!("{name} is {outcome:?}: {text}"));
        }
        self.log(name).told = Some((at_ns, outcome, detail.clone()));
    }

    fn no_reason_to_fail(&self, name: Name) -> Option<String> {
        let (Log { threw, overran, .. }, retries) = (self.known(name), self.task(name).retries);
        let is_right = *threw > 0 && threw + overran > retries;
        (!is_right)
            .then(|| format!("it raised {threw} times, took too long {overran} times, and has {retries} retries"))
    }

    fn no_reason_to_die(&self, name: Name, detail: &Detail) -> Option<String> {
        let (setup, deaths) = (&self.scenario.setup, self.known(name).deaths);
        let Detail::Deaths { count, limit: said, cause } = *detail else { return Some("nobody said how".to_owned()) };
        let limit = match cause {
            cause if cause == DeathCause::Crashed as u8 => setup.crash_limit.into(),
            cause if cause == DeathCause::OutOfMemory as u8 => setup.oom_limit.into(),
            _ => said,
        };
        let is_right = count == said && said == limit && deaths >= count;
        (!is_right).then(|| format!("it ran in {deaths} processes that died: {detail:?}"))
    }

    fn no_reason_to_time_out(&self, at_ns: u64, name: Name, detail: &Detail) -> Option<String> {
        let (log, task) = (self.known(name), self.task(name));
        let waited_ns = at_ns - log.asked_ns;
        let is_right = match detail {
            Detail::Overrun { queued: false } => log.overran > 0 && log.overran + log.threw > task.retries,
            Detail::Overrun { queued: true } => {
                task.queue_timeout_ms > 0 && waited_ns >= u64::from(task.queue_timeout_ms) * 1_000_000
            }
            _ => false,
        };
        (!is_right)
            .then(|| format!("{detail:?}: {} bodies took too long, it was asked for {waited_ns} ns ago", log.overran))
    }

    fn no_reason_to_cancel(&self, at_ns: u64, name: Name, detail: &Detail) -> Option<String> {
        let (log, run) = (self.known(name), self.run(name));
        let is_right = match detail {
            Detail::Because(CancelReason::User) => log.cancel_asked,
            Detail::Because(CancelReason::ParentCancelled) => {
                self.was_cancelled(name) || self.ancestor_where(name, |name, _| self.may_end_early(name))
            }
            Detail::Because(CancelReason::Deadline) => {
                run.deadline_ms > 0 && at_ns >= log.asked_ns + run.deadline_ms * 1_000_000
            }
            Detail::Because(CancelReason::RunFailed) => {
                let logs = &self.logs[usize::from(name.client)][usize::from(name.run)];
                run.stops_on_error
                    && logs.iter().any(|log| log.threw + log.deaths + log.overran > 0 || log.ended_badly())
            }
            _ => false,
        };
        (!is_right).then(|| format!("{detail:?}"))
    }

    /// Nothing more will come: is anything missing, and does it all go together?
    pub(super) fn look_at_end(&mut self) {
        for (client, plan) in self.scenario.clients.iter().enumerate() {
            if self.sessions_over.contains(&(client as u8)) {
                continue;
            }
            for (run, workload) in plan.workloads().enumerate() {
                for number in 0..workload.tasks.len() {
                    let name = Name { client: client as u8, run: run as u8, number: number as u16 };
                    self.look_at_ending(name, workload.keep.contains(&name.number));
                }
            }
        }
    }

    /// How a task ended: as was told, or well if its run is over and nothing was told.
    fn ending(&self, name: Name) -> Option<Outcome> {
        let log = self.known(name);
        match &log.told {
            Some((_, outcome, _)) => Some(*outcome),
            None if self.task(name).body == Body::Put && log.asked => Some(Outcome::Done),
            None => self.runs_over.contains_key(&(name.client, name.run)).then_some(Outcome::Done),
        }
    }

    fn look_at_ending(&mut self, name: Name, is_kept: bool) {
        let log = self.known(name).clone();
        if !log.asked {
            return;
        }
        let (tasks, task) = (self.run(name).tasks.len() as u64, self.task(name).clone());
        let Some(ending) = self.ending(name) else {
            if !log.let_go {
                self.fail("lost", format!("nobody said how {name} ended"));
            }
            return;
        };
        if task.body == Body::Put {
            return;
        }
        if is_kept && log.told.is_none() && !log.let_go {
            return self.fail("lost", format!("{name} is kept and its run is over, but nobody said how it ended"));
        }
        if name.run > 0 && self.runs_over.get(&(name.client, name.run)).is_some_and(|ended| *ended != tasks) {
            return self.fail("lost", format!("the run of {name} is over and some of its {tasks} tasks are not"));
        }
        if ending == Outcome::Done && log.made == 0 {
            return self.fail("lost", format!("{name} counts as done and no body made its value"));
        }
        let deps: Vec<Name> = task.deps.iter().map(|dep| Self::dep(name, *dep)).collect();
        let is_bad = |dep: &&Name| self.ending(**dep).is_some_and(|ending| ending != Outcome::Done);
        let bad = deps.iter().find(is_bad).copied();
        // What was made once may end badly when it has to be made again.
        let never_made = deps.iter().filter(is_bad).find(|dep| self.known(**dep).made == 0).copied();
        let ran =
            matches!(ending, Outcome::Done | Outcome::Failed | Outcome::Died | Outcome::Refused | Outcome::TimedOut);
        if let Some(bad) = never_made.filter(|_| ran) {
            return self.fail("unexpected", format!("{name} is {ending:?} though {bad} before it did not end well"));
        }
        match (ending, bad) {
            (Outcome::Skipped, None) if deps.iter().all(|dep| self.ending(*dep).is_some()) => {
                self.fail("unexpected", format!("{name} was skipped though all before it ended well"));
            }
            (Outcome::Done, None) if task.raises == FOR_EVER || task.body == Body::Poison => {
                self.fail("unexpected", format!("{name} ended well, which it cannot"));
            }
            _ => {}
        }
    }
}

impl Log {
    fn ended_badly(&self) -> bool {
        self.told.as_ref().is_some_and(|told| told.1 != Outcome::Done)
    }
}
