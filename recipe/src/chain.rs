//! Packages in a row, each needing the next: how cycles and the answer to "why is this needed" are told.

use std::fmt;

use base::PackageName;

/// What a package needs another one for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EdgeKind {
    /// It stands in `build-deps`.
    Build,
    /// It stands in `run-deps`.
    Run,
}

impl fmt::Display for EdgeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Build => "build",
            Self::Run => "run",
        })
    }
}

/// A walk along dependencies, printed as `bash -run-> musl -build-> gcc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Where the walk starts.
    pub start: PackageName,
    /// Each further package and what the one before it needs it for.
    pub steps: Vec<(EdgeKind, PackageName)>,
}

impl Chain {
    /// A cycle with the least name first, so that one cycle is always told in one way. `steps` lead back to `start`.
    pub(crate) fn cycle(start: PackageName, mut steps: Vec<(EdgeKind, PackageName)>) -> Self {
        let least = steps.iter().enumerate().min_by_key(|(_, (_, name))| name);
        let Some((position, _)) = least else {
            return Self { start, steps };
        };
        steps.rotate_left(position + 1);
        let start = steps.last().map_or(start, |(_, name)| name.clone());
        Self { start, steps }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.start)?;
        self.steps
            .iter()
            .try_for_each(|(kind, name)| write!(f, " -{kind}-> {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_is_told_from_its_least_name_whoever_met_it_first() {
        let step = |kind, name: &str| (kind, name.parse().unwrap());
        let cycle = Chain::cycle(
            "c".parse().unwrap(),
            vec![
                step(EdgeKind::Run, "a"),
                step(EdgeKind::Build, "b"),
                step(EdgeKind::Run, "c"),
            ],
        );
        assert_eq!(cycle.to_string(), "a -build-> b -run-> c -run-> a");
        let alone = Chain::cycle("a".parse().unwrap(), Vec::new());
        assert_eq!(alone.to_string(), "a");
    }
}
