//! The last line of everything that fetches: how much came, and where from.

use builder::FetchedItem;
use store::substitute::Origin;

use crate::units;

/// Kinds of origins in the order in which they are told.
const KINDS: [(&str, &str); 6] = [
    ("LAN peer", "LAN peers"),
    ("peer", "peers"),
    ("https", "https"),
    ("gateway", "gateways"),
    ("file", "files"),
    ("rebuilt seed", "rebuilt seeds"),
];

/// How many things came from where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    items: usize,
    bytes: u64,
    /// How much of it was here already, in an earlier version or from a fetch that was cut short.
    reused: u64,
    by_kind: [usize; KINDS.len()],
}

impl Tally {
    /// Counts what the builder fetched.
    pub fn of(items: &[FetchedItem]) -> Self {
        let mut tally = Self::default();
        for item in items {
            tally.add(item.bytes, &item.received);
        }
        tally
    }

    /// Counts one thing, under the kind of origin that sent most of it.
    pub fn add(&mut self, bytes: u64, received: &[(Origin, u64)]) {
        let mut shares = [0; KINDS.len()];
        for (origin, bytes) in received {
            if let Some(kind) = kind(origin) {
                shares[kind] += bytes;
            }
        }
        let best = (0..KINDS.len()).rev().max_by_key(|kind| shares[*kind]);
        if let Some(kind) = best.filter(|kind| shares[*kind] > 0) {
            self.by_kind[kind] += 1;
            let here = received
                .iter()
                .filter(|(origin, _)| *origin == Origin::Local);
            self.reused += here.map(|(_, bytes)| bytes).sum::<u64>();
        }
        self.items += 1;
        self.bytes += bytes;
    }

    /// The line, if anything was fetched: `fetched 14 (212 MiB): 9 LAN peers, 3 peers, 2 https; reused 61 MiB`.
    pub fn line(&self) -> Option<String> {
        if self.items == 0 {
            return None;
        }
        let parts: Vec<_> = self
            .by_kind
            .iter()
            .zip(KINDS)
            .filter(|(count, _)| **count > 0)
            .map(|(count, (one, many))| format!("{count} {}", if *count == 1 { one } else { many }))
            .collect();
        let total = format!("fetched {} ({})", self.items, units::bytes(self.bytes));
        let mut line = total;
        if !parts.is_empty() {
            line = format!("{line}: {}", parts.join(", "));
        }
        if self.reused > 0 {
            line = format!("{line}; reused {}", units::bytes(self.reused));
        }
        Some(line)
    }
}

const fn kind(origin: &Origin) -> Option<usize> {
    match origin {
        Origin::LanPeer(_) => Some(0),
        Origin::Peer(_) => Some(1),
        Origin::Http(_) => Some(2),
        Origin::Gateway(_) => Some(3),
        Origin::File(_) => Some(4),
        Origin::Bootstrap => Some(5),
        Origin::Local => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_counts_once_where_most_of_it_came_from() {
        let lan = || Origin::LanPeer("a".into());
        let http = || Origin::Http("https://x".into());
        let mut tally = Tally::default();
        assert_eq!(tally.line(), None);
        tally.add(
            3 << 20,
            &[(lan(), 2 << 20), (Origin::Peer("b".into()), 1 << 20)],
        );
        tally.add(1 << 20, &[(lan(), 1 << 20)]);
        tally.add(1 << 20, &[(http(), 1 << 20)]);
        assert_eq!(
            tally.line().unwrap(),
            "fetched 3 (5.0 MiB): 2 LAN peers, 1 https"
        );
    }

    #[test]
    fn what_was_here_already_is_told_beside_what_came() {
        let lan = || Origin::LanPeer("a".into());
        let mut tally = Tally::default();
        tally.add(1 << 20, &[(Origin::Local, 1 << 20)]);
        assert_eq!(tally.line().unwrap(), "fetched 1 (1.0 MiB)");
        tally.add(4 << 20, &[(lan(), 1 << 20), (Origin::Local, 3 << 20)]);
        assert_eq!(
            tally.line().unwrap(),
            "fetched 2 (5.0 MiB): 1 LAN peer; reused 3.0 MiB"
        );
    }

    #[test]
    fn an_empty_file_is_counted_without_an_origin() {
        let mut tally = Tally::default();
        tally.add(0, &[]);
        assert_eq!(tally.line().unwrap(), "fetched 1 (0 B)");
    }
}
