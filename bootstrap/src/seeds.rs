//! `seeds.rec`: which seeds there are, what their archives must be, and which recipes they are merged from.
//!
//! One record per seed: `seed:` its name, `sha256:` and `size:` of its archive, `from:` the packages whose outputs it is
//! merged from. The list is compiled into the program: what a program believes to be its seed changes only with it.

use std::collections::BTreeSet;

use base::rec::{self, RecError, Record};
use base::{NameError, PackageName, ParseDigestError, Sha256};

/// The list that this program was built with.
const BUILT_IN: &[u8] = include_bytes!("../seeds.rec");

/// A seed as the list describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// Its name, as in `bootstrap:NAME`.
    pub name: PackageName,
    /// SHA-256 of its archive.
    pub sha256: Sha256,
    /// Length of its archive in bytes.
    pub size: u64,
    /// The packages whose outputs it is merged from, at least one, sorted.
    pub from: Vec<PackageName>,
}

/// Why a text is no list of seeds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SeedsError {
    /// Not a rec file.
    #[error("malformed list of seeds")]
    Rec(#[source] RecError),
    /// A record lacks a field.
    #[error("line {line}: a seed needs the field `{field}`")]
    Missing {
        /// Where the record begins.
        line: usize,
        /// Which field.
        field: &'static str,
    },
    /// A name that is none.
    #[error("line {line}: malformed name")]
    Name {
        /// Where the record begins.
        line: usize,
        /// What is wrong.
        #[source]
        source: NameError,
    },
    /// A digest that is none.
    #[error("line {line}: malformed digest")]
    Digest {
        /// Where the record begins.
        line: usize,
        /// What is wrong.
        #[source]
        source: ParseDigestError,
    },
    /// A size that is no number.
    #[error("line {line}: malformed size")]
    Size {
        /// Where the record begins.
        line: usize,
    },
    /// Two seeds of one name.
    #[error("line {line}: the seed `{name}` occurs twice")]
    Duplicate {
        /// Where the second begins.
        line: usize,
        /// Its name.
        name: PackageName,
    },
}

/// The seeds that this program knows.
///
/// # Errors
/// [`SeedsError`]; a test keeps the list from being built in broken.
pub fn seeds() -> Result<Vec<Seed>, SeedsError> {
    parse_seeds(BUILT_IN)
}

/// Parses a list of seeds.
///
/// # Errors
/// [`SeedsError`] naming the line.
pub fn parse_seeds(bytes: &[u8]) -> Result<Vec<Seed>, SeedsError> {
    let mut names = BTreeSet::new();
    let mut seeds = Vec::new();
    for record in rec::parse(bytes).map_err(SeedsError::Rec)? {
        let seed = parse_seed(&record)?;
        if !names.insert(seed.name.clone()) {
            return Err(SeedsError::Duplicate {
                line: record.line(),
                name: seed.name,
            });
        }
        seeds.push(seed);
    }
    Ok(seeds)
}

fn parse_seed(record: &Record) -> Result<Seed, SeedsError> {
    let line = record.line();
    let get = |field| record.get(field).ok_or(SeedsError::Missing { line, field });
    let name = |text: &str| {
        text.parse()
            .map_err(|source| SeedsError::Name { line, source })
    };
    let digest = get("sha256")?.parse();
    let mut from = get("from")?
        .split_whitespace()
        .map(name)
        .collect::<Result<Vec<PackageName>, _>>()?;
    if from.is_empty() {
        return Err(SeedsError::Missing {
            line,
            field: "from",
        });
    }
    from.sort();
    from.dedup();
    Ok(Seed {
        name: name(get("seed")?)?,
        sha256: digest.map_err(|source| SeedsError::Digest { line, source })?,
        size: get("size")?
            .parse()
            .map_err(|_| SeedsError::Size { line })?,
        from,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, sha256: &str, size: &str, from: &str) -> String {
        format!("seed: {name}\nsha256: {sha256}\nsize: {size}\nfrom: {from}\n\n")
    }

    #[test]
    fn the_built_in_list_has_the_tiny_seed() {
        let seeds = seeds().unwrap();
        let tiny = seeds.iter().find(|s| s.name.as_str() == "tiny").unwrap();
        assert!(tiny.from.len() >= 3, "{tiny:?}");
    }

    #[test]
    fn fields_are_read_and_names_sorted() {
        let text = record("tiny", &"ab".repeat(32), "12", "tcc busybox  make\ttcc");
        let seeds = parse_seeds(text.as_bytes()).unwrap();
        assert_eq!(seeds[0].size, 12);
        assert_eq!(seeds[0].sha256.to_hex(), "ab".repeat(32));
        let from: Vec<_> = seeds[0].from.iter().map(PackageName::as_str).collect();
        assert_eq!(from, ["busybox", "make", "tcc"]);
    }

    #[test]
    fn what_is_missing_malformed_or_there_twice_is_named_with_its_line() {
        let digest = "0".repeat(64);
        let error = |text: String| parse_seeds(text.as_bytes()).unwrap_err();
        assert_eq!(
            error("\nseed: a\n".into()),
            SeedsError::Missing {
                line: 2,
                field: "sha256"
            }
        );
        assert!(matches!(
            error(record("A", &digest, "1", "b")),
            SeedsError::Name { line: 1, .. }
        ));
        assert!(matches!(
            error(record("a", "00", "1", "b")),
            SeedsError::Digest { .. }
        ));
        assert_eq!(
            error(record("a", &digest, "-1", "b")),
            SeedsError::Size { line: 1 }
        );
        assert_eq!(
            error(record("a", &digest, "1", " ")),
            SeedsError::Missing {
                line: 1,
                field: "from"
            }
        );
        let twice = record("a", &digest, "1", "b").repeat(2);
        assert!(matches!(
            error(twice),
            SeedsError::Duplicate { line: 6, .. }
        ));
        assert!(matches!(error("x".into()), SeedsError::Rec(_)));
    }
}
