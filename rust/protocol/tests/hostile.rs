//! Peers that nobody meant well, before a real broker: frames of every kind, from everybody, at any moment.
//!
//! The test plays 3,000 scripts by default and as many as `HEADRACE_FUZZ_RUNS` says; `HEADRACE_FUZZ_SEED` plays the one
//! that failed.

mod siege;

/// SplitMix64: enough to scatter choices, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn number_from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

#[test]
fn a_broker_stands_whatever_its_peers_send() {
    let seeds = match number_from_env("HEADRACE_FUZZ_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number_from_env("HEADRACE_FUZZ_RUNS").unwrap_or(3_000),
    };
    for seed in seeds {
        let mut random = Random(seed);
        let len = 1 << (4 + random.next() % 8);
        let script: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        if let Err(panic) = std::panic::catch_unwind(|| siege::besiege(&script)) {
            eprintln!("HEADRACE_FUZZ_SEED={seed} repeats this");
            std::panic::resume_unwind(panic);
        }
    }
}
