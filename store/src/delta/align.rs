//! Which piece of the old tar a segment of the new one is most like: pure.
//!
//! Both tars are sorted by path, so what was between the same two paths is the place to look. Some entries are remembered
//! as marks; between two marks the distance from the first one counts.

use std::ops::Range;

use super::{REFERENCE_BYTES_MAX, SEGMENT_BYTES};

/// An entry of at least this many bytes is a mark, and the first one after so many bytes without any. So a tar of the largest
/// size has 32,768 of them at most.
const MARK_BYTES: u64 = 64 << 10;

/// Where what lies in a tar.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Map {
    size: u64,
    marks: Vec<Mark>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    offset: u64,
    path: Vec<u8>,
}

impl Map {
    /// Notes an entry of so many bytes.
    pub(super) fn entry(&mut self, offset: u64, path: &[u8], bytes: u64) {
        let last = self.marks.last().map(|mark| mark.offset);
        let is_far = last.is_none_or(|last| offset.saturating_sub(last) >= MARK_BYTES);
        if bytes >= MARK_BYTES || is_far {
            let path = path.to_vec();
            self.marks.push(Mark { offset, path });
        }
    }

    /// Notes the length of the whole.
    pub(super) fn end(&mut self, size: u64) {
        self.size = size;
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Where in this tar that is found which is at `offset` in another one.
    fn counterpart(&self, other: &Self, offset: u64) -> u64 {
        let here = other.marks.partition_point(|mark| mark.offset <= offset);
        let Some(theirs) = here.checked_sub(1).and_then(|i| other.marks.get(i)) else {
            return offset.min(self.size);
        };
        let next = self.marks.partition_point(|mark| mark.path <= theirs.path);
        let start = next.checked_sub(1).and_then(|i| self.marks.get(i));
        let start = start.map_or(0, |mark| mark.offset);
        let end = self.marks.get(next).map_or(self.size, |mark| mark.offset);
        start.saturating_add(offset - theirs.offset).min(end)
    }
}

/// The reference in `old` of the segment that begins at `offset` in `new`: never longer than allowed, never behind the end.
pub(super) fn reference(old: &Map, new: &Map, offset: u64) -> Range<u64> {
    let from = old.counterpart(new, offset).saturating_sub(SEGMENT_BYTES);
    // At the end of the tar there is more before than behind.
    let from = from.min(old.size.saturating_sub(REFERENCE_BYTES_MAX));
    from..old.size.min(from + REFERENCE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(entries: &[(&str, u64)]) -> Map {
        let (mut map, mut at) = (Map::default(), 0);
        for (path, bytes) in entries {
            map.entry(at, path.as_bytes(), *bytes);
            at += bytes;
        }
        map.end(at);
        map
    }

    #[test]
    fn a_segment_is_looked_for_where_its_paths_were() {
        let old = map(&[("bin/a", 20 << 20), ("lib/b", 20 << 20)]);
        let new = map(&[
            ("bin/a", 20 << 20),
            ("bin/new", 40 << 20),
            ("lib/b", 20 << 20),
        ]);
        // The middle of `lib/b`, which lay 40 MiB earlier.
        let found = reference(&old, &new, 66 << 20);
        assert_eq!(found, (22 << 20)..(34 << 20));
    }

    #[test]
    fn a_renamed_file_is_looked_for_in_the_one_before_it() {
        let old = map(&[
            ("bin/a", 20 << 20),
            ("lib/b.so.1", 30 << 20),
            ("lib/c", 20 << 20),
        ]);
        let new = map(&[
            ("bin/a", 20 << 20),
            ("lib/b.so.2", 30 << 20),
            ("lib/c", 20 << 20),
        ]);
        assert_eq!(reference(&old, &new, 40 << 20), (36 << 20)..(48 << 20));
    }

    #[test]
    fn a_small_tar_is_its_own_reference_as_a_whole() {
        let (old, new) = (map(&[("a", 5000)]), map(&[("b", 70_000)]));
        assert_eq!(reference(&old, &new, 0), 0..5000);
        assert_eq!(reference(&Map::default(), &new, 0), 0..0);
    }

    proptest! {
        #[test]
        fn a_reference_is_never_too_long_nor_behind_the_end(
            old in proptest::collection::vec((".{0,3}", 0_u64..30 << 20), 0..6),
            new in proptest::collection::vec((".{0,3}", 0_u64..30 << 20), 0..6),
            offset in 0_u64..200 << 20,
        ) {
            let of = |entries: &[(String, u64)]| {
                let entries: Vec<_> = entries.iter().map(|(p, n)| (p.as_str(), *n)).collect();
                map(&entries)
            };
            let (old, new) = (of(&old), of(&new));
            let found = reference(&old, &new, offset);
            prop_assert!(found.start <= found.end && found.end <= old.size());
            prop_assert!(found.end - found.start <= REFERENCE_BYTES_MAX);
            prop_assert_eq!(found.end - found.start, old.size().min(REFERENCE_BYTES_MAX));
        }
    }
}
