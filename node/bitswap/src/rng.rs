//! Randomness that replays: everything random here comes from the one seed the machine was given.
//!
//! The standard library's own hasher draws from the operating system, so two runs over the same input would walk their
//! maps in different orders, and a failure of the simulator could not be replayed. An unkeyed hasher would replay, but
//! then a peer could choose CIDs that all fall into one bucket. A hasher keyed by the seed does neither.

use std::hash::{BuildHasher, DefaultHasher, Hasher as _};

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast, and good enough for ties and schedules; not for keys.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A hasher for maps, with a key of its own.
    pub(crate) const fn hasher(&mut self) -> Seeded {
        Seeded(self.next())
    }

    /// A number below `bound`; the bias of the remainder does not matter to a schedule.
    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True once in `n` times.
    pub(crate) const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[cfg(any(test, feature = "sim"))]
impl Rng {
    /// A number between `low` and `high`, both included.
    pub(crate) const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }
}

/// Builds keyed SipHash hashers.
#[derive(Clone, Debug)]
pub(crate) struct Seeded(u64);

impl BuildHasher for Seeded {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_the_published_sequence() {
        // First outputs of SplitMix64 for seed 1234567, from the authors' reference implementation.
        let mut rng = Rng::new(1_234_567);
        assert_eq!(
            [rng.next(), rng.next(), rng.next()],
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn hashers_of_one_key_agree_and_of_two_keys_do_not() {
        assert_eq!(Seeded(1).hash_one(7), Seeded(1).hash_one(7));
        assert_ne!(Seeded(1).hash_one(7), Seeded(2).hash_one(7));
    }
}
