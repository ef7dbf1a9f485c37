//! For how long a head holds: what whoever signs one promises.

/// Seconds of a day.
const DAY_SECS: u64 = 24 * 3600;
/// Longest time in days that a head may hold: who promises more promises nothing.
const DAYS_MAX: i64 = 3660;

/// The flag of those commands that sign heads.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Lifetime {
    /// For how many days the head holds; users are warned when there is no newer one then
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
    expires: u32,
}

impl Lifetime {
    /// The first second, since 1970, after it.
    pub fn ends(self, now_unix_secs: u64) -> u64 {
        now_unix_secs + u64::from(self.expires) * DAY_SECS
    }
}
