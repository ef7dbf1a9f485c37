//! Something to look up in a part of the keyspace in which we have no key.
//!
//! Peers hash what they are asked for, so a position cannot be asked for: it takes a key that hashes to it, found by trying.

use base::{Multihash, Sha256};

use super::position::{Position, Span};

/// Smallest part of the keyspace for which a key is looked for, in first bits. On average that takes 2^14 hashes, 3 ms;
/// a network in which 20 peers fill so small a part has 300,000 of them.
const BITS_MAX: u32 = 14;
/// Most keys tried: 16 times as many as are needed on average, so that one search in ten million finds none.
const TRIES_MAX: u64 = 16 << BITS_MAX;

/// A key that stands in the largest aligned part at the beginning of `gap`; `None` where that is too small.
pub(super) fn key_in(gap: Span) -> Option<Multihash> {
    let bits = bits_of_start(gap);
    if bits > BITS_MAX {
        return None;
    }
    let wanted = Position(gap.first);
    (0..TRIES_MAX).map(candidate).find(|key| {
        let position = Position::of(key.as_bytes());
        position.shared_bits(wanted) >= bits
    })
}

/// How many first bits the largest aligned part at the beginning of `gap` has in common.
fn bits_of_start(gap: Span) -> u32 {
    let inside = |bits: &u32| {
        let span = Position(gap.first).span(*bits);
        span.first == gap.first && span.last <= gap.last
    };
    (0..=u64::BITS).find(inside).unwrap_or(u64::BITS)
}

fn candidate(number: u64) -> Multihash {
    let mut digest = [0; Sha256::LEN];
    digest[..8].copy_from_slice(&number.to_be_bytes());
    Multihash::sha2_256(&Sha256::from_bytes(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_any_part_that_is_not_too_small() {
        for bits in 0..=BITS_MAX {
            let gap = Position(0xfedc_ba98_7654_3210).span(bits);
            let found = Position::of(key_in(gap).unwrap().as_bytes());
            assert!((gap.first..=gap.last).contains(&found.0), "{bits} bits");
        }
        assert_eq!(key_in(Position(1).span(BITS_MAX + 1)), None);
    }

    #[test]
    fn only_the_beginning_of_an_uneven_gap_is_aimed_at() {
        let quarter = 1 << 62;
        let gap = |first, last| Span { first, last };
        assert_eq!(bits_of_start(Span::ALL), 0);
        assert_eq!(bits_of_start(gap(quarter, u64::MAX)), 2);
        assert_eq!(bits_of_start(gap(2 * quarter, u64::MAX)), 1);
        assert_eq!(bits_of_start(gap(0, 3 * quarter)), 1);
        assert_eq!(bits_of_start(gap(5, 5)), 64);
    }
}
