//! From a seed to its scenario. Each kind of thing is drawn from a stream of its own (`chance.rs`).

use crate::chance::Chance;
use crate::scenario::{
    Act, ClientPlan, Fault, Moment, Net, Op, PLENTY_BYTES, Pace, Scenario, Setup, Ways, When, Whose,
};
use crate::workload::{Body, Dep, Size, Style, Task, draw_graph};
use headrace_protocol::broker::STRAGGLER_NS;

/// Moments that come about once a task.
const USUAL_MOMENTS: &[Moment] = &[
    Moment::LeaseSent,
    Moment::LeaseArrived,
    Moment::Began,
    Moment::Ends,
    Moment::ReportSent,
    Moment::ReportApplied,
    Moment::ReportOvertaken,
    Moment::ReportOvertaken,
];

impl Scenario {
    /// The scenario of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut chance = Chance::new(seed, "setup");
        let workers = chance.pick(&[1, 2, 2, 2, 3, 3, 4, 6]);
        let scarce = chance.one_in(3);
        let mut setup = Setup {
            workers,
            crash_limit: chance.pick(&[1, 2, 3, 3, 200]),
            oom_limit: chance.pick(&[1, 1, 2]),
            tasks_max: u64::MAX,
            store_limit: if scarce { 1 << chance.within(13, 17) } else { PLENTY_BYTES },
            spill_limit: chance.pick(&[0, 1 << 15, PLENTY_BYTES]),
            grace_ns: chance.pick(&[1_000_000, 50_000_000, 1_000_000_000]),
            straggler_ns: STRAGGLER_NS,
        };
        let mut chance = Chance::new(seed, "pace");
        let mut pace = Pace {
            frame_ns: chance.log_within(1_000, 2_000_000),
            turn_ns: chance.log_within(1_000, 500_000),
            spawn_ns: chance.log_within(1_000, 50_000_000),
            notice_ns: chance.log_within(1_000, 5_000_000),
            disk_ns: chance.log_within(10_000, 50_000_000),
        };
        let mut chance = Chance::new(seed, "retirement");
        if chance.one_in(5) {
            setup.tasks_max = chance.log_within(1, 40);
        }
        let mut style = Style::draw(&mut Chance::new(seed, "style"), workers);
        if setup.spill_limit < PLENTY_BYTES {
            // There must be a place for what is inline, or some of it is refused.
            style.padded_odds = 0;
        }
        let mut chance = Chance::new(seed, "refusals");
        if chance.one_in(16) {
            (setup.store_limit, setup.spill_limit) = (1 << chance.within(12, 15), 0);
            (style.padded_odds, style.license_odds) = (chance.within(1, 3), chance.pick(&[0, 1, 2]));
        }
        if style.poison_odds > 0 {
            // Each death may have much made again.
            setup.crash_limit = setup.crash_limit.min(3);
        }
        let mut chance = Chance::new(seed, "thrash");
        if chance.one_in(16) {
            // Blocks die and lie anew while others move slowly to disk.
            (setup.store_limit, setup.spill_limit) = (1 << chance.within(13, 15), PLENTY_BYTES);
            (style.block_odds, style.run_ns) = (1, chance.log_within(1_000, 100_000));
            pace.disk_ns = chance.log_within(1_000_000, 50_000_000);
        }
        let clients = Chance::new(seed, "clients").pick(&[1, 1, 1, 1, 1, 2, 2, 3]);
        let mut clients: Vec<ClientPlan> =
            (0..clients).map(|client| draw_client(&mut Chance::numbered(seed, "client", client), &style)).collect();
        let mut chance = Chance::new(seed, "speculation");
        if chance.one_in(4) {
            setup.straggler_ns = chance.log_within(1_000, STRAGGLER_NS);
            let odds = chance.within(1, 4);
            let tasks = clients.iter_mut().flat_map(ClientPlan::tasks_mut);
            tasks.for_each(|task| task.speculative = chance.one_in(odds));
        }
        let span_ns = clients.iter().map(ClientPlan::work_ns).sum::<u64>() / u64::from(workers) + 10 * pace.frame_ns;
        let net = Net::draw(&mut Chance::new(seed, "net"), &pace);
        let mut scenario =
            Scenario { seed, setup, pace, net, clients, faults: Vec::new(), heal_ns: 0, is_large: false };
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
        self.heal_ns = match chance.one_in(6) {
            true => chance.log_within(100_000, 20_000_000_000),
            false => chance.log_within(span_ns / 2 + 1_000_000, 4 * span_ns + 100_000_000),
        };
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
                false if chance.one_in(2) => {
                    When::On(chance.pick(USUAL_MOMENTS), chance.log_within(1, tasks as u64 + 3) as u32)
                }
                false => When::On(chance.pick(Moment::ALL), chance.log_within(1, tasks as u64 / 4 + 3) as u32),
            };
            let whose = match chance.below(8) {
                0 => Whose::Client(chance.below(clients) as u8),
                1 | 2 => Whose::Worker(chance.below(self.setup.workers.into()) as u32),
                _ => Whose::Concerned,
            };
            let long_ns = chance.log_within(10_000, 12_000_000_000);
            let act = match chance.pick(&kinds) {
                0 | 1 if chance.one_in(6) => Act::Exhaust(whose),
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
        // Large arguments are put, read by a run, and known to nobody else.
        let puts = if chance.one_in(4) { chance.within(1, 3) } else { 0 };
        let puts: Vec<Dep> = (0..puts).map(|_| draw_put(chance, style, &mut plan)).collect();
        let mut graph = draw_graph(chance, style, run, &known);
        for put in &puts {
            let reader = chance.below(graph.tasks.len() as u64) as usize;
            graph.tasks[reader].deps.push(*put);
            graph.tasks[reader].deps.sort_unstable();
        }
        plan.ops.push((0, Op::Submit(run)));
        plan.ops.extend(puts.iter().map(|put| (0, Op::Forget(put.number))));
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

fn draw_put(chance: &mut Chance, style: &Style, plan: &mut ClientPlan) -> Dep {
    let number = plan.calls.tasks.len() as u16;
    let task = style.task(chance, Vec::new());
    plan.calls.tasks.push(Task { deps: Vec::new(), body: Body::Put, size: Size::Small, ..task });
    plan.calls.keep.push(number);
    plan.ops.push((0, Op::Call(number)));
    Dep { run: 0, number }
}

fn draw_calls(chance: &mut Chance, style: &Style, plan: &mut ClientPlan, known: &mut Vec<Dep>, calls: u16) {
    for _ in 0..calls {
        if chance.one_in(6) {
            known.push(draw_put(chance, style, plan));
            continue;
        }
        let number = plan.calls.tasks.len() as u16;
        let deps = (0..chance.below(3))
            .filter(|_| !known.is_empty())
            .map(|_| known[chance.below(known.len() as u64) as usize])
            .collect();
        let task = style.task(chance, deps);
        plan.calls.tasks.push(task);
        plan.calls.keep.push(number);
        plan.ops.push((0, Op::Call(number)));
        known.push(Dep { run: 0, number });
        if chance.one_in(10) {
            plan.ops.push((0, Op::Forget(chance.below(u64::from(number) + 1) as u16)));
        }
    }
}
