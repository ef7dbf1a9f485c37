//! Where keys and peers stand in the keyspace of the DHT.
//!
//! A position is the SHA-256 of a key's or a peer id's bytes, and the distance of two is their XOR. The first 64 bits are
//! enough here: among a million peers two share them once in 40 million networks, and then one record goes to the 21st
//! closest peer instead of the 20th.

use base::Sha256;

/// The first bits of a Kademlia position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position(pub(crate) u64);

/// All positions that begin with the same bits; both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Position {
    /// Where a key or a peer stands, by its bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *Sha256::of(bytes).as_bytes();
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }

    /// How far two positions are apart.
    pub(crate) const fn distance(self, other: Self) -> u64 {
        self.0 ^ other.0
    }

    /// How many bits two positions have in common at their beginning.
    pub(crate) const fn shared_bits(self, other: Self) -> u32 {
        self.distance(other).leading_zeros()
    }

    /// All positions that share the first `bits` bits with this one.
    pub(crate) fn span(self, bits: u32) -> Span {
        let free = u64::MAX.checked_shr(bits).unwrap_or(0);
        Span {
            first: self.0 & !free,
            last: self.0 | free,
        }
    }

    /// The first eight bits: one of the regions into which the schedule divides the keyspace.
    pub(crate) const fn region(self) -> u8 {
        (self.0 >> (u64::BITS - u8::BITS)) as u8
    }
}

impl Span {
    /// The whole keyspace.
    pub(crate) const ALL: Self = Self {
        first: 0,
        last: u64::MAX,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_of_the_public_network() {
        let id: libp2p::PeerId = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"
            .parse()
            .unwrap();
        assert_eq!(
            Position::of(&id.to_bytes()),
            Position(0xdfd5_3212_a4bd_2bed)
        );
    }

    #[test]
    fn a_span_holds_what_shares_its_bits() {
        let position = Position(0xdfd5_3212_a4bd_2bed);
        assert_eq!(position.span(0), Span::ALL);
        let byte = position.span(8);
        assert_eq!(
            (byte.first, byte.last),
            (0xdf00_0000_0000_0000, 0xdfff_ffff_ffff_ffff)
        );
        let itself = position.span(64);
        assert_eq!((itself.first, itself.last), (position.0, position.0));
        assert_eq!(position.shared_bits(Position(byte.first)), 8);
        assert_eq!(position.region(), 0xdf);
    }
}
