//! In which order packages are built that could all be built now: the one with the longest way behind it first.
//!
//! That way is its own build and the longest chain of builds that wait for it, in the time that each took when it was last
//! built. Put off, such a package puts off the end; all others can fill the gaps. This is the classical list schedule by
//! critical path (Graham 1966, Hu 1961): never more than twice as long as the best, and close to it in practice.

use std::cmp::Reverse;
use std::time::Duration;

use super::{Plan, State};
use crate::graph::PackageId;

/// What a build is thought to take while none has ever been timed: then the number of builds in the chain decides.
const UNKNOWN: Duration = Duration::from_secs(1);

/// The times of all packages, from those that are known: for the others the median.
pub(super) fn with_median(known: &[Option<Duration>]) -> Box<[Duration]> {
    let mut sorted: Vec<_> = known.iter().flatten().copied().collect();
    sorted.sort_unstable();
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or(UNKNOWN);
    known.iter().map(|time| time.unwrap_or(median)).collect()
}

impl Plan {
    /// The most urgent of what can be built now; of equals the one that lies deepest.
    pub(super) fn most_urgent(&self) -> Option<PackageId> {
        if self.builds.len() < 2 {
            return self.builds.first().copied();
        }
        let after = self.longest_after();
        let urgency = |id: &PackageId| self.times[id.index()].saturating_add(after[id.index()]);
        let first = self
            .builds
            .iter()
            .max_by_key(|id| (urgency(id), Reverse(**id)));
        first.copied()
    }

    /// The longest chain of builds that waits for each package, itself not counted. What is not built holds nobody up, but
    /// what needs it to be complete may.
    fn longest_after(&self) -> Vec<Duration> {
        let mut after = vec![Duration::ZERO; self.items.len()];
        // Whatever a package needs has a smaller id than itself.
        for (index, item) in self.items.iter().enumerate().rev() {
            let behind = after[index];
            let mut at_least = |id: PackageId, time: Duration| {
                after[id.index()] = after[id.index()].max(time);
            };
            if matches!(item.state, State::Waiting | State::Running(_)) && !item.is_seed {
                let with_own = behind.saturating_add(self.times[index]);
                item.build_deps
                    .iter()
                    .for_each(|id| at_least(*id, with_own));
            }
            item.run_deps.iter().for_each(|id| at_least(*id, behind));
        }
        after
    }
}

#[cfg(test)]
mod tests;
