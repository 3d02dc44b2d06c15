//! Judges a history. It knows what was asked for and what a body makes of its inputs, and nothing of broker and kernel.
//!
//! - **lost**: asked for, and nobody said how it ended.
//! - **duplicated**: told twice, or two bodies of one task at once.
//! - **unexpected**: a value that no attempt made or that a sequential evaluation does not give; an ending without a cause.
//! - **phantom**: a body that begins after its lease was given up, or a lease after the task's end.
//! - **blamed**: a task is said to have killed processes that it did not run in.
//! - *recovered*: more than one body, one ending. That is what recovery is, so it is counted only.

use crate::history::{Detail, History, Record};
use crate::scenario::Scenario;
use crate::workload::{Body, Dep, Name, Task, compute};
use crate::world::Violation;
use headrace_wire::{DeathCause, Outcome};
use std::collections::{BTreeMap, BTreeSet};

/// What the checker found.
#[derive(Debug, Default)]
pub struct Judgement {
    /// The first thing that is wrong.
    pub violation: Option<Violation>,
    /// Tasks with more than one body.
    pub recovered: u64,
    /// Tasks that were asked for.
    pub asked: u64,
    /// Bodies that began.
    pub bodies: u64,
}

/// What is known of one task.
#[derive(Clone, Debug, Default)]
struct Log {
    asked: bool,
    cancel_asked: bool,
    let_go: bool,
    bodies: u32,
    made: u32,
    threw: u32,
    deaths: u32,
    /// Those of which its body was the cause.
    suicides: u32,
    /// The process in which its body runs.
    runs_in: Option<usize>,
    told: Option<(u64, Outcome, Detail)>,
}

struct Checker<'a> {
    scenario: &'a Scenario,
    /// By client, run and number.
    logs: Vec<Vec<Vec<Log>>>,
    expected: Vec<Vec<Vec<Option<u64>>>>,
    /// Leases by (process, slot, attempt), and whether they have begun or were given up.
    leases: BTreeMap<(usize, u32, u32), (Name, bool)>,
    last_attempt: BTreeMap<u32, u32>,
    runs_over: BTreeMap<(u8, u8), u64>,
    sessions_over: BTreeSet<u8>,
    judgement: Judgement,
}

/// A kill takes so long at most.
const SLACK_NS: u64 = 20_000_000;

/// Judges what happened. `ended` says whether the run went to its end, so that nothing more can come.
pub fn judge(scenario: &Scenario, history: &History, ended: bool) -> Judgement {
    let table =
        |client: &crate::scenario::ClientPlan| client.workloads().map(|workload| workload.tasks.len()).collect();
    let sizes: Vec<Vec<usize>> = scenario.clients.iter().map(table).collect();
    let mut checker = Checker {
        scenario,
        logs: sizes.iter().map(|runs| runs.iter().map(|tasks| vec![Log::default(); *tasks]).collect()).collect(),
        expected: sizes.iter().map(|runs| runs.iter().map(|tasks| vec![None; *tasks]).collect()).collect(),
        leases: BTreeMap::new(),
        last_attempt: BTreeMap::new(),
        runs_over: BTreeMap::new(),
        sessions_over: BTreeSet::new(),
        judgement: Judgement::default(),
    };
    for (at_ns, record) in &history.records {
        checker.look_at(*at_ns, record);
    }
    if ended {
        checker.look_at_end();
    }
    let logs = checker.logs.iter().flatten().flatten();
    checker.judgement.recovered = logs.filter(|log| log.bodies > 1).count() as u64;
    checker.judgement
}

impl Checker<'_> {
    fn task(&self, name: Name) -> &Task {
        &self.scenario.clients[usize::from(name.client)].workload(name.run).tasks[usize::from(name.number)]
    }

    fn log(&mut self, name: Name) -> &mut Log {
        &mut self.logs[usize::from(name.client)][usize::from(name.run)][usize::from(name.number)]
    }

    fn known(&self, name: Name) -> &Log {
        &self.logs[usize::from(name.client)][usize::from(name.run)][usize::from(name.number)]
    }

    fn dep(name: Name, dep: Dep) -> Name {
        Name { client: name.client, run: dep.run, number: dep.number }
    }

    /// What a sequential evaluation gives.
    fn expected(&mut self, name: Name) -> u64 {
        let place = (usize::from(name.client), usize::from(name.run), usize::from(name.number));
        if let Some(value) = self.expected[place.0][place.1][place.2] {
            return value;
        }
        let task = self.task(name);
        let (body, deps) = (task.body, task.deps.clone());
        let inputs: Vec<u64> = deps.into_iter().map(|dep| self.expected(Self::dep(name, dep))).collect();
        let value = compute(name, body, &inputs);
        self.expected[place.0][place.1][place.2] = Some(value);
        value
    }

    fn fail(&mut self, class: &'static str, text: String) {
        self.judgement.violation.get_or_insert(Violation { class, text });
    }

    fn look_at(&mut self, at_ns: u64, record: &Record) {
        match *record {
            Record::Asked { name } => {
                self.judgement.asked += 1;
                self.log(name).asked = true;
            }
            Record::CancelAsked { name } => self.log(name).cancel_asked = true,
            Record::LetGo { name } => self.log(name).let_go = true,
            Record::Leased { process, name, slot, attempt } => self.leased(process, name, slot, attempt),
            Record::Began { process, name, slot, attempt } => self.began(at_ns, process, name, slot, attempt),
            Record::Took { name, position, value } => {
                let dep = Self::dep(name, self.task(name).deps[position]);
                if self.expected(dep) != value {
                    self.fail("unexpected", format!("{name} read {value:#x} as the result of {dep}"));
                }
            }
            Record::Made { name, value, .. } => {
                let log = self.log(name);
                (log.made, log.runs_in) = (log.made + 1, None);
                if self.expected(name) != value {
                    self.fail("unexpected", format!("{name} made {value:#x}"));
                }
            }
            Record::Threw { name, .. } => {
                let log = self.log(name);
                (log.threw, log.runs_in) = (log.threw + 1, None);
            }
            Record::Interrupted { name, .. } => {
                self.log(name).runs_in = None;
                if !self.was_cancelled(name) && !self.sessions_over.contains(&name.client) {
                    self.fail("unexpected", format!("{name} was interrupted and nobody had cancelled it"));
                }
            }
            Record::GaveUp { process, slot, attempt } => {
                if let Some((_, is_over)) = self.leases.get_mut(&(process, slot, attempt)) {
                    *is_over = true;
                }
            }
            Record::Died { executing, of_itself, .. } => {
                if let Some(name) = executing {
                    let log = self.log(name);
                    (log.deaths, log.runs_in) = (log.deaths + 1, None);
                    log.suicides += u32::from(of_itself);
                }
            }
            Record::Told { name, outcome, ref detail } => self.told(at_ns, name, outcome, detail),
            Record::RunOver { client, run, ended } => {
                if self.runs_over.insert((client, run), ended).is_some() {
                    self.fail("duplicated", format!("client {client} was told twice that run {run} is over"));
                }
            }
            Record::Read { name, value } => {
                if self.expected(name) != value {
                    self.fail("unexpected", format!("the client read {value:#x} as the result of {name}"));
                }
            }
            Record::SessionOver { client } => drop(self.sessions_over.insert(client)),
        }
    }

    fn leased(&mut self, process: usize, name: Name, slot: u32, attempt: u32) {
        if !self.known(name).asked {
            self.fail("unexpected", format!("{name} was leased before it was asked for"));
        }
        // A result that its client has let go of may be needed once more, for what depends on it.
        let log = self.known(name);
        if let Some((_, outcome, _)) = log.told.as_ref().filter(|told| told.1 != Outcome::Done || !log.let_go) {
            let text = format!("{name} was leased to process {process} though its client knows that it is {outcome:?}");
            self.fail("phantom", text);
        }
        let last = self.last_attempt.entry(slot).or_default();
        if *last >= attempt {
            let text = format!("attempt {attempt} of slot {slot} comes after attempt {last} (K4)");
            self.fail("duplicated", text);
        } else {
            *last = attempt;
        }
        self.leases.insert((process, slot, attempt), (name, false));
    }

    fn began(&mut self, at_ns: u64, process: usize, name: Name, slot: u32, attempt: u32) {
        self.judgement.bodies += 1;
        match self.leases.get_mut(&(process, slot, attempt)) {
            Some((leased, is_over)) if *leased == name && !*is_over => *is_over = true,
            lease => {
                let text = format!("{name} began in process {process} as attempt {attempt}, whose lease is {lease:?}");
                self.fail("phantom", text);
            }
        }
        let log = self.known(name);
        if let Some((told_ns, outcome, _)) = log.told.as_ref().filter(|told| told.1 != Outcome::Done || !log.let_go)
            && at_ns > told_ns + self.scenario.setup.grace_ns + SLACK_NS
        {
            let text = format!("{name} began long after its client was told that it is {outcome:?}");
            self.fail("phantom", text);
        }
        if let Some(other) = self.known(name).runs_in {
            self.fail("duplicated", format!("{name} runs in the processes {other} and {process} at once"));
        }
        for dep in self.task(name).deps.clone() {
            let dep = Self::dep(name, dep);
            if self.known(dep).made == 0 && self.task(dep).body != Body::Put {
                self.fail("unexpected", format!("{name} began before {dep} was done"));
            }
        }
        let limit = u32::from(self.scenario.setup.crash_limit);
        if self.known(name).suicides >= limit {
            self.fail("blamed", format!("{name} runs though it has killed {limit} processes"));
        }
        let log = self.log(name);
        (log.bodies, log.runs_in) = (log.bodies + 1, Some(process));
    }

    /// Whether somebody wanted the task cancelled, or one that it needs.
    fn was_cancelled(&self, name: Name) -> bool {
        self.ancestry(name, |log| log.cancel_asked)
    }

    /// Whether something holds of a task or of one of its ancestors.
    fn ancestry(&self, name: Name, is_so: impl Fn(&Log) -> bool) -> bool {
        let (mut seen, mut open) = (BTreeSet::from([name]), vec![name]);
        while let Some(name) = open.pop() {
            if is_so(self.known(name)) {
                return true;
            }
            let deps = self.task(name).deps.iter().map(|dep| Self::dep(name, *dep));
            open.extend(deps.filter(|dep| seen.insert(*dep)));
        }
        false
    }

    fn is_ancestor(&self, root: Name, of: Name) -> bool {
        let (mut seen, mut open) = (BTreeSet::new(), vec![of]);
        while let Some(name) = open.pop() {
            let deps = self.task(name).deps.iter().map(|dep| Self::dep(name, *dep));
            open.extend(deps.filter(|dep| seen.insert(*dep)));
        }
        seen.contains(&root)
    }

    fn told(&mut self, at_ns: u64, name: Name, outcome: Outcome, detail: &Detail) {
        let plan = &self.scenario.clients[usize::from(name.client)];
        let is_task =
            usize::from(name.run) <= plan.runs.len() && usize::from(name.number) < plan.workload(name.run).tasks.len();
        if !is_task || !self.known(name).asked {
            return self.fail("unexpected", format!("a client was told of {name}, for which it has not asked"));
        }
        if let Some((_, before, _)) = &self.known(name).told {
            let text = format!("{name} is {outcome:?}, and was {before:?} before");
            return self.fail("duplicated", text);
        }
        let (log, limit) = (self.known(name), u32::from(self.scenario.setup.crash_limit));
        let wrong = match outcome {
            Outcome::Done => (log.made == 0).then(|| "no body made a value".to_owned()),
            Outcome::Failed => (log.threw == 0).then(|| "no body raised".to_owned()),
            Outcome::Died => match *detail {
                Detail::Deaths { count, limit: said, cause } => {
                    let limit = if cause == DeathCause::Crashed as u8 { limit } else { said };
                    let is_right = count == said && said == limit && log.deaths >= count;
                    (!is_right).then(|| format!("it ran in {} processes that died: {detail:?}", log.deaths))
                }
                _ => Some("nobody said how".to_owned()),
            },
            Outcome::Cancelled => match *detail {
                Detail::ByUser(true) => (!log.cancel_asked).then(|| "nobody has asked for that".to_owned()),
                _ => (!self.was_cancelled(name)).then(|| "nobody has cancelled anything before it".to_owned()),
            },
            Outcome::Skipped => match *detail {
                Detail::Root(root) if self.is_ancestor(root, name) => None,
                _ => Some(format!("{detail:?} is not before it")),
            },
            Outcome::Refused => match detail {
                Detail::Text(text) if text.starts_with("StoreFull") => None,
                _ => Some(format!("{detail:?}")),
            },
            #[expect(unreachable_patterns, reason = "endings that seeds do not draw yet")]
            _ => Some("nothing could end so".to_owned()),
        };
        if let Some(text) = wrong {
            let class = if outcome == Outcome::Died { "blamed" } else { "unexpected" };
            self.fail(class, format!("{name} is {outcome:?}: {text}"));
        }
        self.log(name).told = Some((at_ns, outcome, detail.clone()));
    }

    /// Nothing more will come: is anything missing, and does it all go together?
    fn look_at_end(&mut self) {
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
        let tasks = self.scenario.clients[usize::from(name.client)].workload(name.run).tasks.len() as u64;
        let body = self.task(name).body;
        let Some(ending) = self.ending(name) else {
            if !log.let_go {
                self.fail("lost", format!("nobody said how {name} ended"));
            }
            return;
        };
        if body == Body::Put {
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
        let deps: Vec<Name> = self.task(name).deps.iter().map(|dep| Self::dep(name, *dep)).collect();
        let is_bad = |dep: &&Name| self.ending(**dep).is_some_and(|ending| ending != Outcome::Done);
        let bad = deps.iter().find(is_bad).copied();
        // What was made once may end badly when it has to be made again.
        let never_made = deps.iter().filter(is_bad).find(|dep| self.known(**dep).made == 0).copied();
        if let (Outcome::Done | Outcome::Failed | Outcome::Died | Outcome::Refused, Some(bad)) = (ending, never_made) {
            return self.fail("unexpected", format!("{name} is {ending:?} though {bad} before it did not end well"));
        }
        match (ending, bad) {
            (Outcome::Skipped, None) if deps.iter().all(|dep| self.ending(*dep).is_some()) => {
                self.fail("unexpected", format!("{name} was skipped though all before it ended well"));
            }
            (Outcome::Done, None) if matches!(body, Body::Raise | Body::Poison) => {
                self.fail("unexpected", format!("{name} ended well, which it cannot"));
            }
            _ => {}
        }
    }
}
