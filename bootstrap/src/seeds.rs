//! `seeds.rec`: which seeds there are, what their archives must be, and which recipes they are merged from.
//!
//! One record per seed: `seed:` its name, `sha256:` and `size:` of its archive, `from:` the packages whose outputs it is
//! merged from, `steps:` the order in which stage 0 builds them if it does so one at a time, `seconds:` how long each stage takes on two idle cores.
//! A record without `sha256:` and `size:` is of a seed that is still being made. The list is compiled into the program: what a program believes to be its seed changes only with it.

use std::collections::BTreeSet;
use std::time::Duration;

use base::rec::{self, RecError, Record};
use base::{NameError, PackageName, ParseDigestError, Sha256};

/// The list that this program was built with.
const BUILT_IN: &[u8] = include_bytes!("../seeds.rec");

/// A seed as the list describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// Its name, as in `bootstrap:NAME`.
    pub name: PackageName,
    /// SHA-256 of its archive; `None` while nothing is pinned yet.
    pub sha256: Option<Sha256>,
    /// Length of its archive in bytes; there exactly if the digest is.
    pub size: Option<u64>,
    /// The packages whose outputs it is merged from, at least one, sorted.
    pub from: Vec<PackageName>,
    /// The order in which stage 0 builds them one at a time, some perhaps twice; empty if one script builds all at once.
    pub steps: Vec<PackageName>,
    /// How long each stage takes, stage 0 first, measured on two idle cores; as many stages as it takes until the last two
    /// are equal. Empty if it was not measured.
    pub times: Vec<Duration>,
}

impl Seed {
    /// The content that stands for the seed where it does not matter: the pinned one, or none that there is.
    pub(crate) fn content(&self) -> Sha256 {
        self.sha256
            .unwrap_or_else(|| Sha256::of(self.name.as_str().as_bytes()))
    }
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
    /// A size or a time that is no number.
    #[error("line {line}: malformed number in `{field}`")]
    Number {
        /// Where the record begins.
        line: usize,
        /// In which field.
        field: &'static str,
    },
    /// A step that is none of the packages.
    #[error("line {line}: `{name}` is in `steps:` and not in `from:`")]
    Step {
        /// Where the record begins.
        line: usize,
        /// The step.
        name: PackageName,
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
    let name = |text: &str| -> Result<PackageName, SeedsError> {
        text.parse()
            .map_err(|source| SeedsError::Name { line, source })
    };
    let number = |text: &str, field| {
        text.parse::<u64>()
            .map_err(|_| SeedsError::Number { line, field })
    };
    let digest = |text: &str| {
        text.parse()
            .map_err(|source| SeedsError::Digest { line, source })
    };
    let sha256 = record.get("sha256").map(digest).transpose()?;
    // Neither of them is of use without the other.
    let pinned = sha256.is_some() || record.get("size").is_some();
    if pinned {
        get("sha256")?;
    }
    let size = pinned.then(|| get("size")).transpose()?;
    let size = size.map(|text| number(text, "size")).transpose()?;
    let names = |text: &str| {
        text.split_whitespace()
            .map(name)
            .collect::<Result<Vec<_>, _>>()
    };
    let mut from = names(get("from")?)?;
    if from.is_empty() {
        return Err(SeedsError::Missing {
            line,
            field: "from",
        });
    }
    from.sort();
    from.dedup();
    let steps = names(record.get("steps").unwrap_or_default())?;
    if let Some(step) = steps.iter().find(|step| !from.contains(step)) {
        return Err(SeedsError::Step {
            line,
            name: step.clone(),
        });
    }
    let times = record.get("seconds").unwrap_or_default().split_whitespace();
    let times = times.map(|text| number(text, "seconds").map(Duration::from_secs));
    let times = times.collect::<Result<Vec<_>, _>>()?;
    Ok(Seed {
        name: name(get("seed")?)?,
        sha256,
        size,
        from,
        steps,
        times,
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
        assert_eq!(seeds[0].size, Some(12));
        assert_eq!(seeds[0].sha256.unwrap().to_hex(), "ab".repeat(32));
        let from: Vec<_> = seeds[0].from.iter().map(PackageName::as_str).collect();
        assert_eq!(from, ["busybox", "make", "tcc"]);
        assert_eq!(
            (&seeds[0].steps[..], &seeds[0].times[..]),
            (&[][..], &[][..])
        );
    }

    #[test]
    fn a_seed_may_have_steps_and_times_and_no_pin_yet() {
        let text = "seed: big\nfrom: cc libc\nsteps: libc cc libc\nseconds: 60 5 5\n";
        let seeds = parse_seeds(text.as_bytes()).unwrap();
        let steps: Vec<_> = seeds[0].steps.iter().map(PackageName::as_str).collect();
        assert_eq!(steps, ["libc", "cc", "libc"]);
        assert_eq!(seeds[0].times, [60, 5, 5].map(Duration::from_secs));
        assert_eq!((seeds[0].sha256, seeds[0].size), (None, None));
        let error = |more: &str| parse_seeds((text.to_owned() + more).as_bytes()).unwrap_err();
        assert_eq!(
            error("size: 5\n"),
            SeedsError::Missing {
                line: 1,
                field: "sha256"
            }
        );
        assert_eq!(
            error(&format!("sha256: {}\n", "0".repeat(64))),
            SeedsError::Missing {
                line: 1,
                field: "size"
            }
        );
        let text = text.replace("seconds: 60", "seconds: 1m");
        let error = parse_seeds(text.as_bytes()).unwrap_err();
        assert_eq!(
            error,
            SeedsError::Number {
                line: 1,
                field: "seconds"
            }
        );
        let text = text.replace("steps: libc", "steps: musl");
        let error = parse_seeds(text.as_bytes()).unwrap_err();
        assert!(matches!(error, SeedsError::Step { line: 1, name } if name.as_str() == "musl"));
    }

    #[test]
    fn every_built_in_seed_has_a_script_for_stage_0() {
        for seed in seeds().unwrap() {
            let script = crate::stage_0_script(&seed).unwrap_or_default();
            assert!(script.starts_with(b"#!/bin/sh\n"), "{}", seed.name);
        }
    }

    #[test]
    fn what_is_missing_malformed_or_there_twice_is_named_with_its_line() {
        let digest = "0".repeat(64);
        let error = |text: String| parse_seeds(text.as_bytes()).unwrap_err();
        assert_eq!(
            error("\nseed: a\n".into()),
            SeedsError::Missing {
                line: 2,
                field: "from"
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
            SeedsError::Number {
                line: 1,
                field: "size"
            }
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
