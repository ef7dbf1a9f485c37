//! With what a package was built: the list that a realisation of version 2 names by its CID.
//!
//! A package hash covers the recipes of everything a package is built with, but not the outputs that were there in the end.
//! The list names those, so that somebody who doubts an output can follow it down to the seeds. Whoever trusts the
//! signer needs it for nothing, so it is a block of its own. It is text as the derivation is, with one spelling for
//! each list.

use std::fmt;

use base::{BLOCK_BYTES_MAX, Cid, PackageName, PkgHash, Sha256, parse_cid};
use recipe::Graph;

use crate::root::Input;

/// First line of the list.
const HEAD: &str = "p2pkgs-inputs 1";

/// An output that a build used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedInput {
    /// Which package.
    pub pkghash: PkgHash,
    /// SHA-256 of its output.
    pub sha256: Sha256,
    /// Root of its output.
    pub root: Cid,
    /// What it is called.
    pub name: PackageName,
}

/// All outputs that a build used, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InputList(Vec<UsedInput>);

/// Bytes that are no list of inputs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: not as in a list of inputs")]
pub struct InputListError {
    /// The first line that is wrong, counted from 1.
    pub line: usize,
}

impl InputList {
    /// Sorts the inputs; of those with one name the first counts.
    pub fn new(mut inputs: Vec<UsedInput>) -> Self {
        inputs.sort_by(|a, b| a.name.cmp(&b.name));
        inputs.dedup_by(|a, b| a.name == b.name);
        Self(inputs)
    }

    /// The inputs of a build in a graph.
    pub(crate) fn of(graph: &Graph, inputs: &[Input]) -> Self {
        let used = inputs.iter().filter_map(|input| {
            let id = graph.id(&input.name.parse().ok()?)?;
            Some(UsedInput {
                pkghash: graph.pkghash(id),
                sha256: input.blob.sha256,
                root: input.blob.root,
                name: graph.name(id).clone(),
            })
        });
        Self::new(used.collect())
    }

    /// The inputs, by name.
    pub fn iter(&self) -> impl Iterator<Item = &UsedInput> {
        self.0.iter()
    }

    /// Reads exactly what printing writes.
    ///
    /// # Errors
    /// [`InputListError`] with the line.
    pub fn parse(bytes: &[u8]) -> Result<Self, InputListError> {
        let wrong = |line| InputListError { line };
        if bytes.len() > BLOCK_BYTES_MAX {
            return Err(wrong(1));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| wrong(1))?;
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return Err(wrong(1));
        }
        let mut inputs: Vec<UsedInput> = Vec::new();
        for (line, text) in (2..).zip(lines) {
            let input = parse_line(text).ok_or_else(|| wrong(line))?;
            if inputs.last().is_some_and(|last| last.name >= input.name) {
                return Err(wrong(line));
            }
            inputs.push(input);
        }
        let list = Self(inputs);
        if list.to_string() == text {
            Ok(list)
        } else {
            Err(wrong(list.0.len() + 1))
        }
    }
}

fn parse_line(text: &str) -> Option<UsedInput> {
    let mut words = text.split(' ');
    let head = words.next()?;
    let input = UsedInput {
        pkghash: words.next()?.parse().ok()?,
        sha256: words.next()?.parse().ok()?,
        root: parse_cid(words.next()?).ok()?,
        name: words.next()?.parse().ok()?,
    };
    (head == "input" && words.next().is_none()).then_some(input)
}

impl fmt::Display for InputList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD}")?;
        for UsedInput {
            pkghash,
            sha256,
            root,
            name,
        } in &self.0
        {
            writeln!(f, "input {pkghash} {sha256} {root} {name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use base::{Codec, block_cid};

    use super::*;

    fn input(name: &str) -> UsedInput {
        let sha256 = Sha256::of(name.as_bytes());
        UsedInput {
            pkghash: PkgHash::of_derivation(name.as_bytes()),
            sha256,
            root: block_cid(Codec::Raw, &sha256),
            name: name.parse().unwrap(),
        }
    }

    #[test]
    fn a_list_is_sorted_pinned_and_read_back() {
        let list = InputList::new(vec![input("seed"), input("make"), input("make")]);
        let text = list.to_string();
        assert_eq!(list.iter().count(), 2);
        assert_eq!(InputList::parse(text.as_bytes()), Ok(list));
        let pin = "adc1113bf024b11c132a5ac087f01b0dc2fbd7d799608d2283302e560f828bc3";
        assert_eq!(Sha256::of(text.as_bytes()).to_hex(), pin, "{text}");
        let none = InputList::default();
        assert_eq!(InputList::parse(none.to_string().as_bytes()), Ok(none));
    }

    #[test]
    fn any_other_spelling_is_refused_with_its_line() {
        let text = InputList::new(vec![input("make"), input("seed")]).to_string();
        let lines: Vec<_> = text.lines().collect();
        let swapped = format!("{}\n{}\n{}\n", lines[0], lines[2], lines[1]);
        let twice = format!("{text}{}\n", lines[2]);
        for (wrong, line) in [
            (String::new(), 1),
            (text.replace("inputs 1", "inputs 2"), 1),
            (text.trim_end().to_owned(), 3),
            (text.replace("\ninput", "\n input"), 2),
            (text.replace(" make", "  make"), 2),
            (text.to_uppercase().replace("P2PKGS-INPUTS 1", HEAD), 2),
            (swapped, 3),
            (twice, 4),
        ] {
            let error = InputList::parse(wrong.as_bytes()).unwrap_err();
            assert_eq!(error.line, line, "{wrong}");
        }
    }
}
