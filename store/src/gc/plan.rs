//! What goes and what stays: a pure function, so that it can be tested on more stores than anybody has.

use base::Sha256;

use crate::partial::Unfinished;

/// A blob, or a loose block, as the plan sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which blob, or the hash of a block.
    pub sha256: Sha256,
    /// Whether it is a block that no file here is made of.
    pub is_block: bool,
    /// Bytes that its removal frees: none for a file that is served where its owner keeps it.
    pub bytes: u64,
    /// The hour of its last use, since 1970.
    pub used_unix_hours: u64,
    /// How many others are known to have it; `None` when nobody counted, which is taken for nobody.
    pub providers: Option<u32>,
    /// Whether a pin keeps it.
    pub is_pinned: bool,
    /// Whether a living process needs it.
    pub is_in_use: bool,
}

/// Which blobs go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// What was not used for the longest time.
    LeastRecentlyUsed,
    /// What most others have, so that a store of limited size keeps the rarest; then as above.
    Commonest,
}

/// How much is to go, and in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goal {
    /// Bytes to be freed; `None` frees all that may go.
    pub free_bytes: Option<u64>,
    /// Which go first.
    pub order: Order,
}

/// Why a blob stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stays {
    /// A pin keeps it.
    Pinned,
    /// A living process needs it.
    InUse,
    /// It may go, but enough is freed without it.
    Spared,
}

/// What goes and what stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What goes, in this order.
    pub remove: Vec<Entry>,
    /// What stays, and why.
    pub stay: Vec<(Entry, Stays)>,
    /// Unfinished fetches that go; [`plan`] knows of none.
    pub unfinished: Vec<Unfinished>,
}

impl Plan {
    /// Bytes that are freed.
    pub fn freed_bytes(&self) -> u64 {
        let unfinished: u64 = self.unfinished.iter().map(|gone| gone.bytes).sum();
        self.remove.iter().map(|entry| entry.bytes).sum::<u64>() + unfinished
    }

    /// Number of the blobs, and bytes of blobs and blocks, that stay for a reason.
    pub fn staying(&self, why: Stays) -> (usize, u64) {
        let stay = self.stay.iter().filter(|(_, stays)| *stays == why);
        stay.fold((0, 0), |(count, bytes), (entry, _)| {
            (count + usize::from(!entry.is_block), bytes + entry.bytes)
        })
    }
}

/// Plans a collection: never what is pinned or in use, and of the rest no more than is needed.
pub fn plan(entries: Vec<Entry>, goal: &Goal) -> Plan {
    let mut plan = Plan::default();
    let mut candidates = Vec::new();
    for entry in entries {
        match (entry.is_pinned, entry.is_in_use) {
            (true, _) => plan.stay.push((entry, Stays::Pinned)),
            (_, true) => plan.stay.push((entry, Stays::InUse)),
            _ => candidates.push(entry),
        }
    }
    // Of equals the largest first, so that few go; then by digest, so that the same store always gives the same plan.
    candidates.sort_by_key(|entry| {
        let commonness = match goal.order {
            Order::LeastRecentlyUsed => 0,
            Order::Commonest => entry.providers.unwrap_or(0),
        };
        let (used, bytes) = (entry.used_unix_hours, entry.bytes);
        (!commonness, used, !bytes, entry.sha256)
    });
    let mut freed = 0u64;
    for entry in candidates {
        let is_needed = goal.free_bytes.is_none_or(|wanted| freed < wanted);
        // Within a goal of bytes, what frees none helps nobody.
        if is_needed && (entry.bytes > 0 || goal.free_bytes.is_none()) {
            freed = freed.saturating_add(entry.bytes);
            plan.remove.push(entry);
        } else {
            plan.stay.push((entry, Stays::Spared));
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let entry = (
            prop_oneof![Just(0), 1u64..100, 1u64..1_000_000],
            0u64..5,
            proptest::option::of(0u32..4),
            any::<bool>(),
            any::<bool>(),
        );
        proptest::collection::vec(entry, 0..40).prop_map(|entries| {
            let number = |(n, (bytes, used_unix_hours, providers, is_pinned, is_in_use))| Entry {
                sha256: Sha256::of(&usize::to_le_bytes(n)),
                is_block: false,
                bytes,
                used_unix_hours,
                providers,
                is_pinned,
                is_in_use,
            };
            entries.into_iter().enumerate().map(number).collect()
        })
    }

    fn goal() -> impl Strategy<Value = Goal> {
        let order = prop_oneof![Just(Order::LeastRecentlyUsed), Just(Order::Commonest)];
        (proptest::option::of(0u64..3_000_000), order)
            .prop_map(|(free_bytes, order)| Goal { free_bytes, order })
    }

    proptest! {
        #[test]
        fn every_blob_goes_or_stays_and_what_is_needed_never_goes(entries in entries(), goal in goal()) {
            let plan = plan(entries.clone(), &goal);
            prop_assert!(plan.remove.iter().all(|entry| !entry.is_pinned && !entry.is_in_use));
            let stay = plan.stay.iter().map(|(entry, _)| entry.sha256);
            let all: HashSet<_> = plan.remove.iter().map(|entry| entry.sha256).chain(stay).collect();
            prop_assert_eq!(all.len(), entries.len());
            prop_assert_eq!(plan.remove.len() + plan.stay.len(), entries.len());
            for (entry, stays) in &plan.stay {
                let why = match (entry.is_pinned, entry.is_in_use) {
                    (true, _) => Stays::Pinned,
                    (_, true) => Stays::InUse,
                    _ => Stays::Spared,
                };
                prop_assert_eq!(*stays, why);
            }
        }

        #[test]
        fn enough_goes_if_there_is_enough_and_no_more(entries in entries(), goal in goal()) {
            let plan = plan(entries.clone(), &goal);
            let may_go = entries.iter().filter(|entry| !entry.is_pinned && !entry.is_in_use);
            let most: u64 = may_go.clone().map(|entry| entry.bytes).sum();
            match goal.free_bytes {
                None => prop_assert_eq!(plan.remove.len(), may_go.count()),
                Some(wanted) => {
                    prop_assert!(plan.freed_bytes() >= wanted.min(most));
                    let last = plan.remove.last().map_or(0, |entry| entry.bytes);
                    prop_assert!(plan.remove.is_empty() || plan.freed_bytes() - last < wanted);
                }
            }
        }

        #[test]
        fn what_goes_is_older_or_commoner_than_what_is_spared(entries in entries(), goal in goal()) {
            let plan = plan(entries, &goal);
            for gone in &plan.remove {
                for (spared, _) in plan.stay.iter().filter(|(entry, stays)| *stays == Stays::Spared && entry.bytes > 0) {
                    let common = |entry: &Entry| entry.providers.unwrap_or(0);
                    let is_older = gone.used_unix_hours <= spared.used_unix_hours;
                    let is_right = match goal.order {
                        Order::LeastRecentlyUsed => is_older,
                        Order::Commonest => {
                            common(gone) > common(spared) || common(gone) == common(spared) && is_older
                        }
                    };
                    prop_assert!(is_right);
                }
            }
        }

        #[test]
        fn the_order_in_which_blobs_are_listed_does_not_matter(entries in entries(), goal in goal()) {
            let reversed = entries.iter().rev().copied().collect();
            prop_assert_eq!(plan(entries, &goal).remove, plan(reversed, &goal).remove);
        }
    }
}
