//! Judges a history. It knows what was asked for and what a body makes of its inputs, and nothing of broker and kernel.
//!
//! - **lost**: asked for, and nobody said how it ended.
//! - **duplicated**: told twice, or two bodies of one task at once.
//! - **unexpected**: a value that no attempt made or that a sequential evaluation does not give; an ending without a cause.
//! - **phantom**: a body that begins after its lease was given up, or a lease after the task's end.
//! - **blamed**: a task is said to have killed processes that it did not run in, or runs on though it has killed enough.
//! - **exceeded**: more bodies run at once than there are licenses for.
//! - *recovered*: more than one body, one ending. That is what recovery is, so it is counted only.

mod endings;

use crate::history::{Detail, History, Record};
use crate::scenario::{ClientPlan, PLENTY_BYTES, Scenario};
use crate::workload::{Body, Dep, LICENSES, Name, TAGGED, Task, Workload, compute};
use crate::world::Violation;
use headrace_wire::Outcome;
use std::collections::{BTreeMap, BTreeSet};

/// What the checker found.
#[derive(Debug, Default)]
pub struct Judgement {
    /// The first thing that is wrong.
    pub(crate) violation: Option<Violation>,
    /// Tasks with more than one body.
    pub recovered: u64,
    /// Tasks that were asked for.
    pub(crate) asked: u64,
    /// Bodies that began.
    pub bodies: u64,
}

/// What is known of one task.
#[derive(Clone, Debug, Default)]
struct Log {
    asked: bool,
    asked_ns: u64,
    cancel_asked: bool,
    let_go: bool,
    bodies: u32,
    made: u32,
    threw: u32,
    /// Bodies that ran for longer than they may.
    overran: u32,
    deaths: u32,
    /// Those of which its body was the cause.
    suicides: u32,
    /// The processes in which bodies of it run, and since when.
    runs_in: Vec<(usize, u64)>,
    told: Option<(u64, Outcome, Detail)>,
}

struct Checker<'a> {
    scenario: &'a Scenario,
    any_speculative: bool,
    /// By client, run and number.
    logs: Vec<Vec<Vec<Log>>>,
    expected: Vec<Vec<Vec<Option<u64>>>>,
    /// Leases by (process, slot, attempt), and whether they have begun or were given up.
    leases: BTreeMap<(usize, u32, u32), (Name, bool)>,
    last_attempt: BTreeMap<u32, u32>,
    runs_over: BTreeMap<(u8, u8), u64>,
    sessions_over: BTreeSet<u8>,
    /// What the bodies that run have taken.
    licenses: u64,
    tagged: u64,
    judgement: Judgement,
}

/// Deaths of silent workers that a task may have.
const SILENT_MAX: u32 = 10;
/// A kill takes so long at most, unless the broker is stopped.
const SLACK_NS: u64 = 20_000_000;

/// Judges what happened. `ended` says whether the run went to its end, so that nothing more can come.
pub(crate) fn judge(scenario: &Scenario, history: &History, ended: bool) -> Judgement {
    let table = |client: &ClientPlan| client.workloads().map(|workload| workload.tasks.len()).collect();
    let sizes: Vec<Vec<usize>> = scenario.clients.iter().map(table).collect();
    let mut tasks = scenario.clients.iter().flat_map(ClientPlan::workloads).flat_map(|load| &load.tasks);
    let mut checker = Checker {
        scenario,
        any_speculative: tasks.any(|task| task.speculative),
        logs: sizes.iter().map(|runs| runs.iter().map(|tasks| vec![Log::default(); *tasks]).collect()).collect(),
        expected: sizes.iter().map(|runs| runs.iter().map(|tasks| vec![None; *tasks]).collect()).collect(),
        leases: BTreeMap::new(),
        last_attempt: BTreeMap::new(),
        runs_over: BTreeMap::new(),
        sessions_over: BTreeSet::new(),
        licenses: 0,
        tagged: 0,
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
                let log = self.log(name);
                (log.asked, log.asked_ns) = (true, at_ns);
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
            Record::Made { process, name, value } => {
                self.ended(at_ns, process, name);
                self.log(name).made += 1;
                if self.expected(name) != value {
                    self.fail("unexpected", format!("{name} made {value:#x}"));
                }
            }
            Record::Threw { process, name } => {
                self.ended(at_ns, process, name);
                self.log(name).threw += 1;
            }
            Record::Interrupted { process, name } => {
                self.ended(at_ns, process, name);
                if !self.may_be_interrupted(name) {
                    self.fail("unexpected", format!("{name} was interrupted and nobody had cancelled it"));
                }
            }
            Record::GaveUp { process, slot, attempt } => {
                if let Some((_, is_over)) = self.leases.get_mut(&(process, slot, attempt)) {
                    *is_over = true;
                }
            }
            Record::Died { process, executing, of_itself } => {
                if let Some(name) = executing {
                    let is_late = self.ended(at_ns, process, name);
                    let log = self.log(name);
                    log.deaths += 1;
                    // Of one that had to stop anyway, only that counts.
                    log.suicides += u32::from(of_itself && !is_late);
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
            && at_ns > told_ns + self.scenario.setup.grace_ns + SLACK_NS + self.scenario.pauses_ns()
        {
            let text = format!("{name} began long after its client was told that it is {outcome:?}");
            self.fail("phantom", text);
        }
        let others = self.known(name).runs_in.clone();
        if others.len() > usize::from(self.task(name).speculative) {
            self.fail("duplicated", format!("{name} runs in the processes {others:?} and {process} at once"));
        }
        for dep in self.task(name).deps.clone() {
            let dep = Self::dep(name, dep);
            if self.known(dep).made == 0 && self.task(dep).body != Body::Put {
                self.fail("unexpected", format!("{name} began before {dep} was done"));
            }
        }
        // Of two that run at once, the first death does not count. And who stands behind a loser may die before its process is
        // killed for that: then nobody knows that it has, and it counts as one of a silent worker.
        let mut limit = u32::from(self.scenario.setup.crash_limit) << u32::from(self.task(name).speculative);
        limit += if self.any_speculative { SILENT_MAX } else { 0 };
        if self.known(name).suicides >= limit {
            self.fail("blamed", format!("{name} runs though it has killed {limit} processes"));
        }
        let log = self.log(name);
        log.bodies += 1;
        log.runs_in.push((process, at_ns));
        let Task { licenses, tagged, .. } = *self.task(name);
        self.licenses += u64::from(licenses);
        self.tagged += u64::from(tagged);
        if self.licenses > LICENSES || self.tagged > TAGGED {
            let (licenses, tagged) = (self.licenses, self.tagged);
            self.fail("exceeded", format!("with {name}, {licenses} licenses are taken, and {tagged} tagged tasks run"));
        }
    }

    /// A body has come to its end, whatever that was. Whether it took too long.
    fn ended(&mut self, at_ns: u64, process: usize, name: Name) -> bool {
        let Task { licenses, tagged, timeout_ms, .. } = *self.task(name);
        let log = self.log(name);
        let Some(place) = log.runs_in.iter().position(|(other, _)| *other == process) else { return false };
        let (_, began_ns) = log.runs_in.remove(place);
        let is_long = timeout_ms > 0 && at_ns >= began_ns + u64::from(timeout_ms) * 1_000_000;
        log.overran += u32::from(is_long);
        self.licenses -= u64::from(licenses);
        self.tagged -= u64::from(tagged);
        is_long
    }

    /// Whether there is any reason to stop a body.
    fn may_be_interrupted(&self, name: Name) -> bool {
        self.was_cancelled(name)
            || self.task(name).timeout_ms > 0
            || self.task(name).speculative
            || self.sessions_over.contains(&name.client)
            // What it reads may have been refused where memory is scarce, and its worker only learns that later.
            || (self.scenario.setup.store_limit < PLENTY_BYTES && !self.task(name).deps.is_empty())
            || self.ancestor_where(name, |name, _| self.may_end_early(name))
    }

    /// Whether its run may be cancelled as a whole.
    fn may_end_early(&self, name: Name) -> bool {
        let run = self.run(name);
        run.stops_on_error || run.deadline_ms > 0
    }

    fn run(&self, name: Name) -> &Workload {
        self.scenario.clients[usize::from(name.client)].workload(name.run)
    }

    /// Whether somebody wanted the task cancelled, or one that it needs.
    fn was_cancelled(&self, name: Name) -> bool {
        self.ancestor_where(name, |_, log| log.cancel_asked)
    }

    /// Whether something holds of a task or of one of its ancestors.
    fn ancestor_where(&self, name: Name, is_so: impl Fn(Name, &Log) -> bool) -> bool {
        let (mut seen, mut open) = (BTreeSet::from([name]), vec![name]);
        while let Some(name) = open.pop() {
            if is_so(name, self.known(name)) {
                return true;
            }
            let deps = self.task(name).deps.iter().map(|dep| Self::dep(name, *dep));
            open.extend(deps.filter(|dep| seen.insert(*dep)));
        }
        false
    }

    fn is_ancestor(&self, root: Name, of: Name) -> bool {
        let deps = self.task(of).deps.iter().map(|dep| Self::dep(of, *dep));
        deps.into_iter().any(|dep| self.ancestor_where(dep, |name, _| name == root))
    }
}
