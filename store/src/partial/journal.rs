//! What a partial's journal says, as bytes: which blocks are there, and where.
//!
//! It is only appended to. Its lines need no checksum: a block is hashed whenever it is read, so a line that lies costs one
//! block fetched again. What cannot be read ends the journal there; a line that is cut short may still be on its way.

use base::{BLOCK_BYTES_MAX, Sha256};

/// How a journal begins; another format gets another number.
pub(super) const MAGIC: &[u8; 17] = b"p2pkgs-partial-1\n";
/// Tag, digest, offset and length of a leaf.
const LEAF_BYTES: usize = 1 + 32 + 8 + 4;
/// Tag, digest and length of a node, whose bytes follow.
const NODE_BYTES: usize = 1 + 32 + 4;
const LEAF: u8 = 1;
const NODE: u8 = 2;

/// Where the bytes of a block lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the file itself, at the leaf's own offset.
    File {
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        length: u32,
    },
    /// In the journal: blocks that are more than bytes of the file.
    Journal {
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        length: u32,
    },
}

impl Place {
    pub(super) const fn length(self) -> u64 {
        match self {
            Self::File { length, .. } | Self::Journal { length, .. } => length as u64,
        }
    }
}

/// Appends the line of a leaf.
pub(super) fn put_leaf(out: &mut Vec<u8>, digest: &Sha256, offset: u64, length: u32) {
    out.push(LEAF);
    out.extend_from_slice(digest.as_bytes());
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
}

/// Appends the line of a node, bytes included; says where in the line they begin.
pub(super) fn put_node(out: &mut Vec<u8>, digest: &Sha256, bytes: &[u8]) -> usize {
    out.push(NODE);
    out.extend_from_slice(digest.as_bytes());
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
    NODE_BYTES
}

/// What lies between two offsets of a journal.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lines {
    /// The blocks, in the order in which they came.
    pub(super) blocks: Vec<(Sha256, Place)>,
    /// Bytes up to the end of the last whole line.
    pub(super) whole: usize,
    /// Whether what follows can never become a line.
    pub(super) is_damaged: bool,
}

/// Reads `bytes`, which begin at `offset` of the journal. At 0 they begin with [`MAGIC`].
pub(super) fn parse(bytes: &[u8], offset: u64) -> Lines {
    let mut lines = Lines::default();
    let mut rest = bytes;
    if offset == 0 {
        let Some(after) = rest.strip_prefix(MAGIC) else {
            lines.is_damaged = !MAGIC.starts_with(rest);
            return lines;
        };
        rest = after;
        lines.whole = MAGIC.len();
    }
    while let Some(tag) = rest.first() {
        let (needed, length_at) = match *tag {
            LEAF => (LEAF_BYTES, LEAF_BYTES - 4),
            NODE => (NODE_BYTES, NODE_BYTES - 4),
            _ => {
                lines.is_damaged = true;
                break;
            }
        };
        let Some(head) = rest.get(..needed) else {
            break;
        };
        let length = u32::from_le_bytes(field(&head[length_at..]));
        if length == 0 || length as usize > BLOCK_BYTES_MAX {
            lines.is_damaged = true;
            break;
        }
        let digest = Sha256::from_bytes(field(&head[1..33]));
        let (place, line) = if *tag == LEAF {
            let offset = u64::from_le_bytes(field(&head[33..41]));
            (Place::File { offset, length }, needed)
        } else {
            let offset = offset + (lines.whole + needed) as u64;
            (Place::Journal { offset, length }, needed + length as usize)
        };
        let Some(after) = rest.get(line..) else { break };
        lines.blocks.push((digest, place));
        lines.whole += line;
        rest = after;
    }
    lines
}

/// A field of a head whose length was checked.
fn field<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[..N]);
    field
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> (Vec<u8>, Vec<(Sha256, Place)>) {
        let (leaf, node) = (Sha256::of(b"leaf"), Sha256::of(b"node"));
        let mut bytes = MAGIC.to_vec();
        put_leaf(&mut bytes, &leaf, 1 << 40, 1 << 20);
        let start = bytes.len();
        let offset = (start + put_node(&mut bytes, &node, b"the node")) as u64;
        put_leaf(&mut bytes, &node, 0, 1);
        let leaf_at = |offset, length| Place::File { offset, length };
        let blocks = vec![
            (leaf, leaf_at(1 << 40, 1 << 20)),
            (node, Place::Journal { offset, length: 8 }),
            (node, leaf_at(0, 1)),
        ];
        (bytes, blocks)
    }

    #[test]
    fn what_was_written_is_read_in_one_piece_and_in_two() {
        let (bytes, blocks) = sample();
        let all = parse(&bytes, 0);
        assert_eq!((&all.blocks, all.whole), (&blocks, bytes.len()));
        for cut in 0..bytes.len() {
            let first = parse(&bytes[..cut], 0);
            assert!(!first.is_damaged && first.whole <= cut, "{cut}");
            let second = parse(&bytes[first.whole..], first.whole as u64);
            let both = [first.blocks, second.blocks].concat();
            assert_eq!(both, blocks, "{cut}");
        }
    }

    #[test]
    fn a_line_that_is_none_ends_the_journal() {
        let (mut bytes, blocks) = sample();
        let whole = bytes.len();
        for rest in [&[9][..], &[LEAF; LEAF_BYTES], &[0; 100]] {
            bytes.truncate(whole);
            bytes.extend_from_slice(rest);
            let lines = parse(&bytes, 0);
            assert_eq!(
                (&lines.blocks, lines.whole, lines.is_damaged),
                (&blocks, whole, true)
            );
        }
        assert!(parse(b"something else", 0).is_damaged);
    }

    proptest! {
        #[test]
        fn no_bytes_whatever_do_harm(bytes: Vec<u8>, offset in 0u64..1 << 40) {
            let lines = parse(&bytes, offset);
            prop_assert!(lines.whole <= bytes.len());
            let inside = |(_, place): &(Sha256, Place)| match place {
                Place::Journal { offset: at, length } => at + u64::from(*length) <= offset + bytes.len() as u64,
                Place::File { .. } => true,
            };
            prop_assert!(lines.blocks.iter().all(inside));
        }
    }
}
