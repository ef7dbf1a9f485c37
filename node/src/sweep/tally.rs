//! What announcing has done, since the start and within the last cycle.

use super::position::Position;

/// Length of one count, in seconds, and how many counts hold the cycle of 22 hours, the unfinished hour included.
const HOUR_SECS: u64 = 3600;
const HOURS: usize = 23;
/// Regions of the schedule.
const REGIONS: usize = 256;

/// How announcing stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Keys taken from the store's queue that are not done yet.
    pub(crate) in_flight: usize,
    /// Keys announced, and attempts that reached too few peers.
    pub(crate) done: u64,
    pub(crate) failed: u64,
    /// When the last key was announced.
    pub(crate) last_unix_secs: Option<u64>,
    /// Lookups, streams to peers, and records that arrived.
    pub(crate) lookups: u64,
    pub(crate) streams: u64,
    pub(crate) records: u64,
    /// Keys announced and lookups made within the last cycle, and the regions in which these keys were.
    pub(crate) cycle_keys: u64,
    pub(crate) cycle_lookups: u64,
    pub(crate) cycle_regions: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Hour {
    /// Hours since 1970.
    number: u64,
    keys: u64,
    lookups: u64,
}

/// The counters.
#[derive(Debug)]
pub(super) struct Tally {
    total: Counts,
    hours: [Hour; HOURS],
    /// The hour in which a key of each region was announced last.
    regions: [u64; REGIONS],
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            total: Counts::default(),
            hours: [Hour::default(); HOURS],
            regions: [0; REGIONS],
        }
    }

    fn hour(&mut self, now: u64) -> &mut Hour {
        let number = now / HOUR_SECS;
        let hour = &mut self.hours[number as usize % HOURS];
        if hour.number != number {
            *hour = Hour {
                number,
                ..Hour::default()
            };
        }
        hour
    }

    pub(super) fn looked_up(&mut self, now: u64) {
        self.total.lookups += 1;
        self.hour(now).lookups += 1;
    }

    pub(super) fn sent(&mut self) {
        self.total.streams += 1;
    }

    pub(super) fn arrived(&mut self, records: usize) {
        self.total.records += records as u64;
    }

    pub(super) fn announced(&mut self, key: Position, now: u64) {
        self.total.done += 1;
        self.total.last_unix_secs = Some(now);
        self.hour(now).keys += 1;
        self.regions[usize::from(key.region())] = now / HOUR_SECS;
    }

    pub(super) fn failed(&mut self) {
        self.total.failed += 1;
    }

    /// All of them, while so many keys are in work.
    pub(super) fn counts(&self, in_flight: usize, now: u64) -> Counts {
        let recent = |number: u64| number > 0 && number + HOURS as u64 > now / HOUR_SECS;
        let hours = || self.hours.iter().filter(|hour| recent(hour.number));
        Counts {
            in_flight,
            cycle_keys: hours().map(|hour| hour.keys).sum(),
            cycle_lookups: hours().map(|hour| hour.lookups).sum(),
            cycle_regions: self.regions.iter().filter(|hour| recent(**hour)).count(),
            ..self.total
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_a_cycle_counts_no_longer_as_part_of_it() {
        let start = 1_800_000_000;
        let mut tally = Tally::new();
        tally.looked_up(start);
        tally.announced(Position(0), start);
        tally.announced(Position(1), start);
        let later = start + 22 * HOUR_SECS;
        tally.announced(Position(u64::MAX), later);
        let counts = tally.counts(7, later);
        assert_eq!((counts.in_flight, counts.done), (7, 3));
        let cycle = (
            counts.cycle_keys,
            counts.cycle_lookups,
            counts.cycle_regions,
        );
        assert_eq!(cycle, (3, 1, 2));
        let counts = tally.counts(0, later + HOUR_SECS);
        let cycle = (
            counts.cycle_keys,
            counts.cycle_lookups,
            counts.cycle_regions,
        );
        assert_eq!((counts.done, cycle), (3, (1, 0, 1)));
    }
}
