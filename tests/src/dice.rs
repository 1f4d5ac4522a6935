//! Chance that can be had again.

/// Moments, drawn from a seed.
pub struct Dice(u64);

impl Dice {
    /// From `RAST_TEST_SEED`, else from the clock; printed, so that a failure can be had again.
    pub fn seeded() -> Self {
        let clock = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_nanos() as u64;
        let seed = std::env::var("RAST_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(clock);
        eprintln!("RAST_TEST_SEED={seed}");
        Self(seed | 1)
    }

    /// A number below the limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        // xorshift (Marsaglia, 2003)
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
