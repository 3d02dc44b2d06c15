//! Deterministic chance (SplitMix64), in streams: what is drawn in one does not move what is drawn in another, so a seed
//! keeps its meaning where a new kind of thing is drawn, and a scenario can be made smaller without changing the rest.

/// A stream of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    /// The stream of this name under a seed.
    pub(crate) fn new(seed: u64, stream: &str) -> Self {
        Self::numbered(seed, stream, 0)
    }

    /// One of many streams of this name.
    pub(crate) fn numbered(seed: u64, stream: &str, number: u64) -> Self {
        let name =
            stream.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
        Chance(scramble(seed.wrapping_add(1)) ^ scramble(name ^ scramble(number)))
    }

    /// The next 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scramble(self.0)
    }

    /// A number below `bound`, which is above 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True once in `odds` times; never for 0.
    pub(crate) fn one_in(&mut self, odds: u64) -> bool {
        odds > 0 && self.below(odds) == 0
    }

    /// True in so many of a million cases.
    pub(crate) fn ppm(&mut self, millionths: u64) -> bool {
        millionths > 0 && self.below(1_000_000) < millionths
    }

    /// A number from `low` (above 0) to `high` whose logarithm is spread evenly: small ones dominate.
    pub(crate) fn log_within(&mut self, low: u64, high: u64) -> u64 {
        let (from, to) = ((low as f64).ln(), (high as f64 + 1.0).ln());
        let unit = (self.bits() >> 11) as f64 / (1_u64 << 53) as f64;
        ((from + (to - from) * unit).exp() as u64).clamp(low, high)
    }

    /// One of `choices`.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// Bits that depend on all bits of `word`.
pub(crate) fn scramble(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

const PRIME: u64 = 0x0100_0000_01b3;
