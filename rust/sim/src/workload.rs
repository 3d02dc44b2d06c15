//! What clients ask for: graphs and calls, and what each task does when it runs.

use crate::chance::{Chance, scramble};

/// A task of the scenario, whatever slots and attempts it gets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    /// Its client.
    pub(crate) client: u8,
    /// The client's run; 0 for single calls.
    pub(crate) run: u8,
    /// Index in the run, or position in the plan of calls.
    pub(crate) number: u16,
}

impl Name {
    /// As a number, which travels in the task's arguments.
    pub(crate) fn packed(self) -> u32 {
        u32::from(self.client) << 24 | u32::from(self.run) << 16 | u32::from(self.number)
    }

    /// The name behind a number.
    pub(crate) fn unpack(number: u32) -> Self {
        Name { client: (number >> 24) as u8, run: (number >> 16) as u8, number: number as u16 }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "c{}r{}t{}", self.client, self.run, self.number)
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// A predecessor, of the same client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Dep {
    /// Its run.
    pub(crate) run: u8,
    /// Its number there.
    pub(crate) number: u16,
}

/// What a task does at its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Body {
    /// It returns a value made of its inputs.
    Value,
    /// It returns its first input, or a value if it has none.
    Echo,
    /// It raises.
    Raise,
    /// It kills its process.
    Poison,
    /// It is no task: the client puts the value itself.
    Put,
}

/// How a value travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Size {
    /// In the frame.
    Small,
    /// In the frame, and worth a move to disk.
    Padded,
    /// In a block of shared memory.
    Block,
}

/// How many times as long as it should an attempt takes that straggles.
pub(crate) const STRAGGLES: u64 = 10;
/// As [`Task::raises`].
pub(crate) const FOR_EVER: u8 = u8::MAX;

/// One task.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    /// Predecessors, each once.
    pub(crate) deps: Vec<Dep>,
    /// What it does.
    pub(crate) body: Body,
    /// How large its value is.
    pub(crate) size: Size,
    /// How long it runs.
    pub(crate) run_ns: u64,
    /// Whether it does not hear interrupts.
    pub(crate) deaf: bool,
    /// How often it raises before it returns; [`FOR_EVER`] for ever.
    pub(crate) raises: u8,
    /// How often it is tried again, and the pause before that.
    pub(crate) retries: u32,
    /// Milliseconds before the first retry.
    pub(crate) backoff_ms: u32,
    /// Milliseconds that an attempt may run; 0 for any. Some attempts take longer.
    pub(crate) timeout_ms: u32,
    /// Milliseconds that it may stand ready; 0 for any.
    pub(crate) queue_timeout_ms: u32,
    /// Licenses that it takes while it runs.
    pub(crate) licenses: u8,
    /// Whether it has the tag.
    pub(crate) tagged: bool,
    /// Whether two workers may try it at once. Some attempts take long then.
    pub(crate) speculative: bool,
    /// Which function it calls.
    pub(crate) function: u8,
    /// The only worker that may run it.
    pub(crate) pin: Option<u32>,
    /// Higher runs first.
    pub(crate) priority: i32,
}

/// A graph, or the calls of a client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Workload {
    /// The tasks; a call has its position in the plan, not its index.
    pub(crate) tasks: Vec<Task>,
    /// Numbers of the tasks that are kept; all for calls.
    pub(crate) keep: Vec<u16>,
    /// Where the graph is cut into two chunks; 0 for none.
    pub(crate) cut: u16,
    /// Whether the first failure cancels the rest.
    pub(crate) stops_on_error: bool,
    /// Milliseconds after which it is cancelled; 0 for none.
    pub(crate) deadline_ms: u64,
    /// Added to the priorities of its tasks.
    pub(crate) priority: i32,
}

/// How many licenses there are, and how many tasks with the tag may run at once.
pub(crate) const LICENSES: u64 = 3;
/// The same for the tag.
pub(crate) const TAGGED: u64 = 1;

/// The value that a task makes of its inputs.
pub(crate) fn compute(name: Name, body: Body, inputs: &[u64]) -> u64 {
    match inputs.first() {
        Some(&first) if body == Body::Echo => first,
        _ => inputs
            .iter()
            .fold(scramble(u64::from(name.packed()) + 1), |word, input| scramble(word.rotate_left(7) ^ input)),
    }
}

/// What is common to the tasks of one seed.
#[derive(Clone, Debug)]
pub(crate) struct Style {
    pub(crate) workers: u32,
    /// About how long a task runs.
    pub(crate) run_ns: u64,
    pub(crate) raise_odds: u64,
    pub(crate) poison_odds: u64,
    pub(crate) echo_odds: u64,
    pub(crate) deaf_odds: u64,
    pub(crate) pin_odds: u64,
    pub(crate) priorities: bool,
    pub(crate) block_odds: u64,
    pub(crate) padded_odds: u64,
    /// Retries, and one task in so many that raises a few times before it returns.
    pub(crate) retries: u32,
    pub(crate) flaky_odds: u64,
    pub(crate) timeout_ms: u32,
    pub(crate) queue_timeout_ms: u32,
    /// One task in so many takes licenses; the same for the tag.
    pub(crate) license_odds: u64,
    pub(crate) stop_odds: u64,
    pub(crate) deadline_odds: u64,
}

impl Style {
    pub(crate) fn draw(chance: &mut Chance, workers: u32) -> Self {
        let some = |chance: &mut Chance, odds: u64, choices: &[u64]| match chance.one_in(odds) {
            true => chance.pick(choices),
            false => 0,
        };
        Style {
            workers,
            run_ns: chance.log_within(1_000, 20_000_000),
            raise_odds: some(chance, 3, &[4, 15, 40]),
            poison_odds: some(chance, 8, &[20, 60]),
            echo_odds: some(chance, 2, &[2, 5]),
            deaf_odds: some(chance, 4, &[2, 10]),
            pin_odds: some(chance, 4, &[1, 3, 10]),
            priorities: chance.one_in(4),
            block_odds: some(chance, 2, &[1, 2, 5]),
            padded_odds: some(chance, 4, &[1, 2, 5]),
            retries: some(chance, 3, &[1, 3, 3]) as u32,
            flaky_odds: some(chance, 2, &[2, 5, 20]),
            timeout_ms: some(chance, 8, &[1, 5, 50]) as u32,
            queue_timeout_ms: some(chance, 12, &[1, 20, 500]) as u32,
            license_odds: some(chance, 4, &[1, 2, 6]),
            stop_odds: some(chance, 6, &[1, 3]),
            deadline_odds: some(chance, 8, &[1, 3]),
        }
    }

    /// A task with these predecessors.
    pub(crate) fn task(&self, chance: &mut Chance, mut deps: Vec<Dep>) -> Task {
        deps.sort_unstable();
        deps.dedup();
        let body = match () {
            () if chance.one_in(self.poison_odds) => Body::Poison,
            () if chance.one_in(self.raise_odds) => Body::Raise,
            () if chance.one_in(self.echo_odds) => Body::Echo,
            () => Body::Value,
        };
        let size = match () {
            () if chance.one_in(self.block_odds) => Size::Block,
            () if chance.one_in(self.padded_odds) => Size::Padded,
            () => Size::Small,
        };
        let raises = match () {
            () if chance.one_in(self.raise_odds) => FOR_EVER,
            () if self.retries > 0 && chance.one_in(self.flaky_odds) => chance.within(1, 4) as u8,
            () => 0,
        };
        let run_ns = if chance.one_in(10) { 0 } else { chance.log_within(self.run_ns / 10 + 1, self.run_ns * 10) };
        Task {
            deps,
            body,
            size,
            run_ns,
            deaf: chance.one_in(self.deaf_odds),
            raises,
            retries: self.retries,
            backoff_ms: if chance.one_in(3) { chance.within(1, 30) as u32 } else { 0 },
            timeout_ms: self.timeout_ms,
            queue_timeout_ms: if chance.one_in(4) { self.queue_timeout_ms } else { 0 },
            licenses: if chance.one_in(self.license_odds) { chance.below(LICENSES + 1) as u8 } else { 0 },
            tagged: chance.one_in(2 * self.license_odds),
            speculative: false,
            function: chance.below(3) as u8,
            pin: chance.one_in(self.pin_odds).then(|| chance.below(self.workers.into()) as u32),
            priority: if self.priorities { chance.below(5) as i32 - 2 } else { 0 },
        }
    }
}

/// A graph. `known` are results of other runs that it may read.
pub(crate) fn draw_graph(chance: &mut Chance, style: &Style, run: u8, known: &[Dep]) -> Workload {
    let tasks = chance.log_within(1, 200) as u16;
    let shape = chance.below(6);
    let width = chance.log_within(1, 20) as u16;
    let external_odds = if known.is_empty() { 0 } else { chance.pick(&[0, 2, 10]) };
    let mut workload = Workload::default();
    for number in 0..tasks {
        let own = |number: u16| Dep { run, number };
        let mut deps: Vec<Dep> = match shape {
            0 => number.checked_sub(1).map(own).into_iter().collect(),
            1 => Vec::new(),
            2 => (2 * number >= tasks)
                .then(|| 2 * (number - tasks / 2))
                .map_or(Vec::new(), |left| [left, left + 1].into_iter().filter(|dep| *dep < number).map(own).collect()),
            // Layers: each task reads its neighbours of the row before.
            3 if number < width => Vec::new(),
            3 => [number - width, (number - width + 1).min(number - 1)].map(own).to_vec(),
            _ => (0..chance.below(4).min(number.into())).map(|_| own(chance.below(number.into()) as u16)).collect(),
        };
        if chance.one_in(external_odds) {
            deps.push(known[chance.below(known.len() as u64) as usize]);
        }
        workload.tasks.push(style.task(chance, deps));
    }
    let keep_odds = chance.pick(&[0, 1, 3, 3]);
    let mut is_read = vec![false; tasks.into()];
    let own = workload.tasks.iter().flat_map(|task| &task.deps).filter(|dep| dep.run == run);
    own.for_each(|dep| is_read[usize::from(dep.number)] = true);
    workload.keep = match keep_odds {
        0 => (0..tasks).filter(|number| !is_read[usize::from(*number)]).collect(),
        odds => (0..tasks).filter(|_| chance.one_in(odds)).collect(),
    };
    workload.cut = if chance.one_in(6) { chance.below(tasks.into()) as u16 } else { 0 };
    workload.stops_on_error = chance.one_in(style.stop_odds);
    workload.deadline_ms = if chance.one_in(style.deadline_odds) { chance.log_within(1, 5_000) } else { 0 };
    workload.priority = if style.priorities { chance.below(3) as i32 - 1 } else { 0 };
    workload
}
