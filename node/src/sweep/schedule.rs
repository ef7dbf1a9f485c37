//! When a key is announced again: together with its neighbours in the keyspace.
//!
//! The keyspace is divided into 256 regions, and the 22 hours of a cycle into as many parts of five minutes. Each region has
//! its part, so the keys of a region become due together, one exploration serves them all, and the work is spread evenly.
//! Where the cycle begins differs from node to node: otherwise all nodes of the world would come to the same peers at once.

use super::position::Position;

/// Time between two announcements of a key, in seconds: the reprovide interval of the public network, where records live
/// for 48 hours but the addresses in them for 24.
const CYCLE_SECS: u64 = 22 * 3600;
/// Regions of the keyspace.
const REGIONS: u64 = 256;
/// A key that was announced less than this before its region's turn is left out of it, in seconds. No record ever gets
/// older than a cycle and this.
const FRESH_SECS: u64 = 3600;

/// The cycle of one node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    offset_secs: u64,
}

impl Schedule {
    /// The cycle of the node that stands at `local`.
    pub(crate) const fn of(local: Position) -> Self {
        Self {
            offset_secs: local.0 % CYCLE_SECS,
        }
    }

    /// When a key that was announced at `at` is due again.
    pub(crate) fn next_unix_secs(self, at: u64, key: Position) -> u64 {
        let turn = u64::from(key.region()) * CYCLE_SECS / REGIONS + self.offset_secs;
        let soonest = at + FRESH_SECS;
        soonest + (turn % CYCLE_SECS + CYCLE_SECS - soonest % CYCLE_SECS) % CYCLE_SECS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_800_000_000;

    #[test]
    fn a_key_is_due_at_its_regions_turn_and_always_within_23_hours() {
        let schedule = Schedule::of(Position(0x1234_5678_9abc_def0));
        for region in 0..=255 {
            let key = Position(region << 56 | 0xabc);
            let first = schedule.next_unix_secs(START, key);
            assert!((START + FRESH_SECS..START + FRESH_SECS + CYCLE_SECS).contains(&first));
            // Announced on time, it keeps its place; its neighbours have the same.
            assert_eq!(schedule.next_unix_secs(first, key), first + CYCLE_SECS);
            assert_eq!(schedule.next_unix_secs(first + 60, key), first + CYCLE_SECS);
            let neighbour = Position(region << 56);
            assert_eq!(schedule.next_unix_secs(START + 1, neighbour), first);
        }
    }

    #[test]
    fn regions_are_spread_evenly_and_differently_on_each_node() {
        let turns = |local| -> Vec<u64> {
            let schedule = Schedule::of(Position(local));
            let mut turns: Vec<_> = (0..REGIONS)
                .map(|region| schedule.next_unix_secs(START, Position(region << 56)))
                .collect();
            turns.sort_unstable();
            turns
        };
        let one = turns(77);
        let gaps = one.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.into_iter().all(|gap| (309..=310).contains(&gap)));
        assert_ne!(one, turns(7_777_777));
    }
}
