//! What a seed stands for, as plain data: what is asked for, how fast things go, and what breaks when. The same scenario
//! always runs the same way, and so does one from which something was taken away.

use crate::chance::Chance;
use crate::workload::{Body, Dep, Size, Style, Task, Workload, draw_graph};

/// Everything about one run of the simulator.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed: what chance is left after the drawing comes from it.
    pub seed: u64,
    /// How the broker is set up.
    pub setup: Setup,
    /// How fast things go.
    pub pace: Pace,
    /// What networks do to packets until the faults stop.
    pub net: Net,
    /// The clients.
    pub clients: Vec<ClientPlan>,
    /// What breaks.
    pub faults: Vec<Fault>,
    /// When the faults stop.
    pub heal_ns: u64,
}

/// How the broker is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Worker processes.
    pub workers: u32,
    /// Executing deaths that fail a task.
    pub crash_limit: u8,
    /// Bytes of results in memory.
    pub store_limit: u64,
    /// Bytes of results on disk.
    pub spill_limit: u64,
    /// From an interrupt to a kill.
    pub grace_ns: u64,
}

/// Longest times that things take.
#[derive(Clone, Debug)]
pub struct Pace {
    /// A frame from one process to another.
    pub frame_ns: u64,
    /// A process that has input, until it looks at it.
    pub turn_ns: u64,
    /// The start of a process.
    pub spawn_ns: u64,
    /// The broker's notice of an end.
    pub notice_ns: u64,
    /// A write to disk.
    pub disk_ns: u64,
}

/// What networks do to packets. Only those of lossy connections; the others keep frames in order and lose none.
#[derive(Clone, Debug, Default)]
pub struct Net {
    /// One worker in so many has a lossy connection; 0 for none.
    pub lossy_odds: u64,
    /// Packets in a million that are lost.
    pub lost_ppm: u64,
    /// That come twice.
    pub doubled_ppm: u64,
    /// That are late, by at most `late_ns`.
    pub late_ppm: u64,
    /// How late.
    pub late_ns: u64,
    /// Bytes that a link has under way at most.
    pub window_bytes: usize,
    /// When a link sends a frame again.
    pub resend_ns: u64,
}

/// One client: what it asks for, and when it does what.
#[derive(Clone, Debug, Default)]
pub struct ClientPlan {
    /// Whether its connection is lossy.
    pub lossy: bool,
    /// Whether it lets go of everything as soon as it has read it.
    pub eager: bool,
    /// Its runs, from run 1 on.
    pub runs: Vec<Workload>,
    /// Its single calls and puts.
    pub calls: Workload,
    /// What it does, in order of time.
    pub ops: Vec<(u64, Op)>,
}

/// One thing that a client does. It leaves out what makes no sense any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// It submits a run.
    Submit(u8),
    /// It makes a call, or puts a value.
    Call(u16),
    /// It cancels tasks of a run.
    Cancel(u8, Vec<u16>),
    /// It cancels a whole run.
    CancelRun(u8),
    /// It takes a ref to a result, and lets go of it.
    Hold(Dep),
    /// It lets go of a ref.
    Unhold(Dep),
    /// It forgets a call.
    Forget(u16),
    /// It is not interested in a run any more, ended or not.
    Release(u8),
    /// It asks how a run stands.
    Query(u8),
    /// It says goodbye.
    Close,
}

/// Something that breaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// When.
    pub when: When,
    /// What.
    pub act: Act,
}

/// When something breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// At this time.
    At(u64),
    /// When this happens for the n-th time, counted from 1.
    On(Moment, u32),
}

/// What breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// A process dies, a worker's or a client's; what it was about to send may still go out in part.
    Kill(Whose),
    /// A process is stopped for so long.
    Hang(Whose, u64),
    /// A connection carries nothing for so long: towards the broker, away from it, or both ways.
    Cut(Whose, Ways, u64),
    /// The broker is stopped for so long.
    Pause(u64),
    /// The next starts of processes fail.
    FailSpawns(u32),
    /// Writes to disk fail for so long.
    FailDisk(u64),
}

/// Whom a fault concerns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// The process that the moment is about; else the first worker.
    Concerned,
    /// The process that has this worker's number then.
    Worker(u32),
    /// This client.
    Client(u8),
}

/// Which ways a cut connection carries nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Ways {
    Up,
    Down,
    Both,
}

macro_rules! moments {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Something that happens in every run, at which something else may break.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Moment { $($(#[$doc])* $name),+ }

        impl Moment {
            /// All of them, in order.
            pub const ALL: &[Moment] = &[$(Moment::$name),+];
        }
    };
}

moments! {
    /// A worker's process was started.
    Spawned,
    /// The broker has applied a HELLO.
    HelloApplied,
    /// A LEASE left the broker.
    LeaseSent,
    /// A LEASE reached its worker.
    LeaseArrived,
    /// A task's body began.
    Began,
    /// A task's body is about to end.
    Ends,
    /// A REPORT left its worker.
    ReportSent,
    /// The broker has applied a REPORT: whatever its sender learns of it.
    ReportApplied,
    /// A RECALL left the broker.
    RecallSent,
    /// A RECALL reached its worker.
    RecallArrived,
    /// A REVOKE left the broker.
    RevokeSent,
    /// The broker has a body interrupted.
    InterruptSent,
    /// A FORGET left the broker.
    ForgetSent,
    /// A RELEASE left the broker.
    ReleaseSent,
    /// The broker has applied a RELEASED.
    ReleasedApplied,
    /// A process was granted a segment.
    Granted,
    /// Results begin to move to disk.
    SpillBegun,
    /// The broker has applied a SUBMIT.
    SubmitApplied,
    /// The broker has applied a HOLD.
    HoldApplied,
    /// The broker has applied a CANCEL.
    CancelApplied,
    /// RESULTS left the broker.
    ResultsSent,
    /// RESULTS reached their client.
    ResultsArrived,
}

impl Scenario {
    /// The scenario of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut chance = Chance::new(seed, "setup");
        let workers = chance.pick(&[1, 2, 2, 2, 3, 3, 4, 6]);
        let scarce = chance.one_in(3);
        let mut setup = Setup {
            workers,
            crash_limit: chance.pick(&[1, 2, 3, 3, 200]),
            store_limit: if scarce { 1 << chance.within(13, 17) } else { 1 << 30 },
            spill_limit: chance.pick(&[0, 1 << 15, 1 << 30]),
            grace_ns: chance.pick(&[1_000_000, 50_000_000, 1_000_000_000]),
        };
        let mut chance = Chance::new(seed, "pace");
        let mut pace = Pace {
            frame_ns: chance.log_within(1_000, 2_000_000),
            turn_ns: chance.log_within(1_000, 500_000),
            spawn_ns: chance.log_within(1_000, 50_000_000),
            notice_ns: chance.log_within(1_000, 5_000_000),
            disk_ns: chance.log_within(10_000, 50_000_000),
        };
        let mut style = Style::draw(&mut Chance::new(seed, "style"), workers);
        if setup.spill_limit < 1 << 30 {
            // There must be a place for what is inline, or some of it is refused.
            style.padded_odds = 0;
        }
        if style.poison_odds > 0 {
            // Each death may have much made again.
            setup.crash_limit = setup.crash_limit.min(3);
        }
        let mut chance = Chance::new(seed, "thrash");
        if chance.one_in(16) {
            // Blocks die and lie anew while others move slowly to disk.
            (setup.store_limit, setup.spill_limit) = (1 << chance.within(13, 15), 1 << 30);
            (style.block_odds, style.run_ns) = (1, chance.log_within(1_000, 100_000));
            pace.disk_ns = chance.log_within(1_000_000, 50_000_000);
        }
        let clients = Chance::new(seed, "clients").pick(&[1, 1, 1, 1, 1, 2, 2, 3]);
        let clients: Vec<ClientPlan> =
            (0..clients).map(|client| draw_client(&mut Chance::numbered(seed, "client", client), &style)).collect();
        let span_ns = clients.iter().map(ClientPlan::work_ns).sum::<u64>() / u64::from(workers) + 10 * pace.frame_ns;
        let net = Net::draw(&mut Chance::new(seed, "net"), &pace);
        let mut scenario = Scenario { seed, setup, pace, net, clients, faults: Vec::new(), heal_ns: 0 };
        if scenario.net.lossy_odds > 0 {
            let mut chance = Chance::new(seed, "lossy clients");
            scenario.clients.iter_mut().for_each(|client| client.lossy = chance.one_in(2));
        }
        scenario.draw_times(span_ns);
        scenario.draw_faults(span_ns);
        scenario
    }

    /// Spreads what clients do over about the time that it takes.
    fn draw_times(&mut self, span_ns: u64) {
        for (number, client) in self.clients.iter_mut().enumerate() {
            let mut chance = Chance::numbered(self.seed, "times", number as u64);
            let span_ns = chance.pick(&[0, 1, span_ns / 10, span_ns, span_ns, 2 * span_ns]);
            let mut times: Vec<u64> = client.ops.iter().map(|_| chance.below(span_ns + 1)).collect();
            times.sort_unstable();
            client.ops.iter_mut().zip(times).for_each(|(op, at_ns)| op.0 = at_ns);
        }
    }

    fn draw_faults(&mut self, span_ns: u64) {
        let mut chance = Chance::new(self.seed, "faults");
        self.heal_ns = chance.log_within(100_000, 20_000_000_000);
        if chance.one_in(8) {
            return;
        }
        // Swarm testing: each seed has a part of the kinds only, so that rare ones are not drowned.
        let kinds: Vec<u64> = (0..6).filter(|_| chance.one_in(2)).collect();
        if kinds.is_empty() {
            return;
        }
        let clients = self.clients.len() as u64;
        let tasks: usize = self.clients.iter().map(ClientPlan::tasks).sum();
        for _ in 0..chance.log_within(1, 16) {
            let when = match chance.one_in(4) {
                true => When::At(chance.below(span_ns + 1)),
                false => When::On(chance.pick(Moment::ALL), chance.log_within(1, tasks as u64 + 3) as u32),
            };
            let whose = match chance.below(8) {
                0 => Whose::Client(chance.below(clients) as u8),
                1 | 2 => Whose::Worker(chance.below(self.setup.workers.into()) as u32),
                _ => Whose::Concerned,
            };
            let long_ns = chance.log_within(10_000, 12_000_000_000);
            let act = match chance.pick(&kinds) {
                0 | 1 => Act::Kill(whose),
                2 => Act::Hang(whose, long_ns),
                3 => Act::Cut(whose, chance.pick(&[Ways::Up, Ways::Down, Ways::Both]), long_ns),
                4 => match chance.below(3) {
                    0 => Act::Pause(long_ns),
                    1 => Act::FailSpawns(1),
                    _ => Act::FailDisk(long_ns),
                },
                _ => Act::Hang(whose, long_ns / 1_000 + 1),
            };
            self.faults.push(Fault { when, act });
        }
    }
}

impl Net {
    fn draw(chance: &mut Chance, pace: &Pace) -> Self {
        let lossy_odds = chance.pick(&[0, 0, 0, 1, 2]);
        let mut rate = || if chance.one_in(2) { chance.log_within(1_000, 300_000) } else { 0 };
        Net {
            lossy_odds,
            lost_ppm: rate(),
            doubled_ppm: rate(),
            late_ppm: rate(),
            late_ns: chance.log_within(pace.frame_ns, 1_000_000_000),
            window_bytes: chance.pick(&[1, 1 << 10, 8 << 20]),
            resend_ns: chance.log_within(1_000_000 + 3 * pace.frame_ns, 200_000_000),
        }
    }
}

impl ClientPlan {
    /// Nanoseconds of all its tasks together.
    pub fn work_ns(&self) -> u64 {
        self.workloads().flat_map(|workload| &workload.tasks).map(|task| task.run_ns).sum()
    }

    /// The number of its tasks.
    pub fn tasks(&self) -> usize {
        self.workloads().map(|workload| workload.tasks.len()).sum()
    }

    /// Calls, then runs.
    pub fn workloads(&self) -> impl Iterator<Item = &Workload> {
        std::iter::once(&self.calls).chain(&self.runs)
    }

    /// The tasks of a run; run 0 is the calls.
    pub fn workload(&self, run: u8) -> &Workload {
        if run == 0 { &self.calls } else { &self.runs[usize::from(run) - 1] }
    }
}

fn draw_client(chance: &mut Chance, style: &Style) -> ClientPlan {
    let mut plan = ClientPlan::default();
    let calls = if chance.one_in(2) { 0 } else { chance.log_within(1, 40) };
    let runs = if calls > 0 && chance.one_in(4) { 0 } else { chance.pick(&[1, 1, 2, 3]) };
    let restless = chance.one_in(2);
    plan.eager = chance.one_in(3);
    let mut known: Vec<Dep> = Vec::new();
    let mut calls_left = calls as u16;
    for run in 1..=runs as u8 {
        let before = chance.below(u64::from(calls_left) + 1) as u16;
        draw_calls(chance, style, &mut plan, &mut known, before);
        calls_left -= before;
        if plan.eager {
            known.clear(); // What it lets go of, nobody can read.
        }
        let graph = draw_graph(chance, style, run, &known);
        plan.ops.push((0, Op::Submit(run)));
        known.extend(graph.keep.iter().map(|&number| Dep { run, number }));
        let tasks = graph.tasks.len() as u64;
        plan.runs.push(graph);
        if restless {
            draw_whims(chance, &mut plan, &known, run, tasks);
        }
    }
    draw_calls(chance, style, &mut plan, &mut known, calls_left);
    if restless && chance.one_in(4) {
        plan.ops.push((0, Op::Close));
    }
    plan
}

/// What a client does with a run beside waiting for it.
fn draw_whims(chance: &mut Chance, plan: &mut ClientPlan, known: &[Dep], run: u8, tasks: u64) {
    for _ in 0..chance.below(4) {
        let op = match chance.below(8) {
            0 | 1 => Op::Cancel(run, (0..chance.log_within(1, tasks)).map(|_| chance.below(tasks) as u16).collect()),
            2 => Op::CancelRun(run),
            3 | 4 if !known.is_empty() => {
                let dep = known[chance.below(known.len() as u64) as usize];
                plan.ops.push((0, Op::Hold(dep)));
                Op::Unhold(dep)
            }
            5 => Op::Release(run),
            _ => Op::Query(run),
        };
        plan.ops.push((0, op));
    }
}

fn draw_calls(chance: &mut Chance, style: &Style, plan: &mut ClientPlan, known: &mut Vec<Dep>, calls: u16) {
    for _ in 0..calls {
        let number = plan.calls.tasks.len() as u16;
        let deps = (0..chance.below(3))
            .filter(|_| !known.is_empty())
            .map(|_| known[chance.below(known.len() as u64) as usize])
            .collect();
        let mut task = style.task(chance, deps);
        if chance.one_in(6) {
            task = Task { deps: Vec::new(), body: Body::Put, size: Size::Small, ..task };
        }
        plan.calls.tasks.push(task);
        plan.calls.keep.push(number);
        plan.ops.push((0, Op::Call(number)));
        known.push(Dep { run: 0, number });
        if chance.one_in(10) {
            plan.ops.push((0, Op::Forget(chance.below(u64::from(number) + 1) as u16)));
        }
    }
}
