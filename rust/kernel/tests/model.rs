//! Random graphs and random orders of events, step by step against the naive model.
#![allow(missing_docs)]

mod naive;

use headrace_kernel::TaskState;
use naive::{Dep, Op, World};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_events(steps in proptest::collection::vec((0..106_u32, any::<u64>()), 1..150)) {
        let mut world = World::default();
        world.apply(&Op::AddWorker(0));
        world.apply(&Op::AddWorker(1));
        for (kind, seed) in steps {
            if let Some(op) = choose(&world, kind, &mut Dice(seed)) {
                world.apply(&op);
            }
        }
        finish(&mut world);
    }
}

/// The same cases every time, unless `PROPTEST_RNG_SEED` asks for others; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    let rng_seed = if asked.rng_seed == RngSeed::Random { RngSeed::Fixed(0) } else { asked.rng_seed };
    ProptestConfig { rng_seed, failure_persistence: None, ..asked }
}

/// What happens next: `kind` says what, the dice to whom.
fn choose(world: &World, kind: u32, dice: &mut Dice) -> Option<Op> {
    let in_state = |state: TaskState| world.live().filter(|&task| world.tasks[task].state == state).collect::<Vec<_>>();
    let any: Vec<usize> = world.live().collect();
    let leased = in_state(TaskState::Leased);
    Some(match kind {
        0..12 if any.len() < 40 => submit(world, dice),
        0..30 => lease(dice),
        30..52 => {
            // Mostly in order, as a worker does it.
            let heads: Vec<usize> = world.workers.values().filter_map(|queue| queue.first().copied()).collect();
            let from = if dice.one_in(4) { &leased } else { &heads };
            let task = *dice.pick(from)?;
            Op::Complete { task, secured: dice.one_in(2) }
        }
        52..55 => Op::Fail(*dice.pick(&leased)?),
        55..57 => Op::FailUnleased(*dice.pick(&any)?),
        57..62 => Op::GiveBack(*dice.pick(&leased)?),
        62..65 => Op::LoseWorker(dice.below(3)),
        65..70 => Op::AddWorker(dice.below(3)),
        70..78 => Op::LoseResult(*dice.pick(&in_state(TaskState::Done))?),
        78..81 => Op::Secure(*dice.pick(&any)?),
        81..83 => Op::Cancel((0..=dice.below(2)).filter_map(|_| dice.pick(&any).copied()).collect()),
        83..86 => Op::Hold(*dice.pick(&any)?),
        86..92 => Op::Unhold(*dice.pick(&any)?),
        92..94 => {
            let task = *dice.pick(&any)?;
            let holder = world.worker_of(task);
            let (worker, attempt_off) = (dice.below(3), i64::from(dice.below(3)) - 1);
            let matches = holder == Some(worker) && attempt_off == 0;
            Op::Stale { task, worker: if matches { worker + 1 } else { worker }, attempt_off }
        }
        94..96 => Op::SetClass(*dice.pick(&any)?, dice.below(3)),
        96 => Op::Watch(*dice.pick(&any)?),
        97..101 => {
            let from = if dice.one_in(8) { &any } else { &leased };
            Op::Rival(*dice.pick(from)?)
        }
        101..104 => {
            let rivalled: Vec<usize> = world.elders.keys().copied().collect();
            let from = if dice.one_in(8) { &any } else { &rivalled };
            Op::TakeOver { task: *dice.pick(from)?, worker: dice.below(3) }
        }
        _ => Op::DrainFreed,
    })
}

fn submit(world: &World, dice: &mut Dice) -> Op {
    let tasks = dice.below(7);
    let usable: Vec<usize> = world.live().filter(|&task| !world.tasks[task].dead).collect();
    // Numbers need not be in order of dependency.
    let mut order: Vec<u32> = (0..tasks).collect();
    if dice.one_in(3) {
        (1..tasks as usize).rev().for_each(|place| order.swap(place, dice.below(place as u32 + 1) as usize));
    }
    let mut deps = vec![Vec::new(); tasks as usize];
    for place in 0..tasks as usize {
        let row = &mut deps[order[place] as usize];
        for &before in &order[..place] {
            if dice.one_in(3) {
                row.push(Dep::Local(before));
            }
        }
        let mut left = usable.clone();
        while dice.one_in(3) && !left.is_empty() {
            let at = dice.below(left.len() as u32) as usize;
            row.insert(dice.below(row.len() as u32 + 1) as usize, Dep::External(left.remove(at)));
        }
    }
    let classes = (0..tasks).map(|_| dice.below(3)).collect();
    let spread = dice.below(2);
    let priorities = (0..tasks).map(|_| dice.below(1 + 2 * spread) as i32 - 1).collect();
    let keep = (0..tasks).filter(|_| dice.one_in(4)).collect();
    Op::Submit { deps, classes, priorities, keep }
}

fn lease(dice: &mut Dice) -> Op {
    let start = dice.below(3);
    let classes = (0..=dice.below(3)).map(|step| (start + step) % 3).take(3).collect();
    Op::Lease {
        worker: dice.below(3),
        classes,
        tasks_max: dice.below(9),
        seeds_max: dice.below(6),
        budget: u64::from(dice.below(30)),
        only_preferred: dice.one_in(4),
        roots: !dice.one_in(6),
        salt: dice.below(u32::MAX),
    }
}

/// Runs everything to its end, lets go of every result, and expects an empty kernel.
fn finish(world: &mut World) {
    world.apply(&Op::AddWorker(0));
    while world.live().any(|task| world.pending(task)) {
        let everything = Op::Lease {
            worker: 0,
            classes: vec![0, 1, 2],
            tasks_max: 100,
            seeds_max: 100,
            budget: u64::MAX,
            only_preferred: false,
            roots: true,
            salt: 0,
        };
        world.apply(&everything);
        let heads: Vec<usize> = world.workers.values().filter_map(|queue| queue.first().copied()).collect();
        for task in heads {
            world.apply(&Op::Complete { task, secured: false });
        }
    }
    for task in world.live().collect::<Vec<_>>() {
        while world.tasks[task].holds > 0 {
            world.apply(&Op::Unhold(task));
        }
    }
    world.apply(&Op::DrainFreed);
    assert_eq!(world.live().count(), 0, "every slot is free in the end");
}

/// Chance out of one number (splitmix64), so that a failing case shrinks.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u32) -> u32 {
        (self.next() % u64::from(limit.max(1))) as u32
    }

    fn one_in(&mut self, count: u32) -> bool {
        self.below(count) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        (!from.is_empty()).then(|| &from[self.below(from.len() as u32) as usize])
    }
}
