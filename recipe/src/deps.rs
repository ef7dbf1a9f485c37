//! `build-deps` and `run-deps`: one relative path a line, `../make`.
//!
//! Upstream follows any path; here a dependency is a sibling in the package tree and nothing else, since only siblings
//! have a hash. Blank lines are skipped, blanks around a line and one slash behind it are forgiven, as upstream forgives them.

use base::PackageName;

use crate::fault::Fault;
use crate::limits::DEPS_BYTES_MAX;
use crate::recipe::Dependency;

/// Where and why a file is refused; no line when it is refused as a whole.
pub(crate) type At = (Option<usize>, Fault);

/// Reads the dependency file of package `own`.
pub(crate) fn parse(own: &PackageName, bytes: &[u8]) -> Result<Vec<Dependency>, At> {
    let text = text(bytes)?;
    let mut dependencies: Vec<Dependency> = Vec::new();
    for (line, content) in (1..)
        .zip(text.lines())
        .filter(|(_, l)| !l.trim().is_empty())
    {
        let at = |fault| (Some(line), fault);
        let name = parse_line(content.trim()).map_err(at)?;
        if name == *own {
            return Err(at(Fault::SelfDependency(name)));
        }
        dependencies.push(Dependency { name, line });
    }
    check_unique(&dependencies)?;
    Ok(dependencies)
}

/// Names the first line whose package another line before it names.
fn check_unique(dependencies: &[Dependency]) -> Result<(), At> {
    let mut sorted: Vec<_> = dependencies.iter().collect();
    sorted.sort_by_key(|dependency| (&dependency.name, dependency.line));
    let repeated = sorted.windows(2).filter(|w| w[0].name == w[1].name);
    match repeated.min_by_key(|w| w[1].line) {
        Some(&[first, second]) => {
            let (name, first_line) = (second.name.clone(), first.line);
            let fault = Fault::DuplicateDependency { name, first_line };
            Err((Some(second.line), fault))
        }
        _ => Ok(()),
    }
}

fn text(bytes: &[u8]) -> Result<&str, At> {
    if bytes.len() > DEPS_BYTES_MAX {
        let fault = Fault::TooLarge {
            bytes: bytes.len() as u64,
            max: DEPS_BYTES_MAX as u64,
        };
        return Err((None, fault));
    }
    if let Some(position) = bytes.iter().position(|b| *b == 0) {
        return Err((Some(line_of(bytes, position)), Fault::Nul));
    }
    std::str::from_utf8(bytes).map_err(|e| (Some(line_of(bytes, e.valid_up_to())), Fault::NotUtf8))
}

/// The line, counted from 1, on which the byte at `position` stands.
pub(crate) fn line_of(bytes: &[u8], position: usize) -> usize {
    1 + bytes.iter().take(position).filter(|b| **b == b'\n').count()
}

fn parse_line(line: &str) -> Result<PackageName, Fault> {
    let path = line.strip_suffix('/').unwrap_or(line);
    let Some(rest) = path.strip_prefix("../") else {
        return Err(not_a_sibling(line));
    };
    if rest.is_empty() || rest.contains('/') || rest == ".." || rest == "." {
        return Err(not_a_sibling(line));
    }
    rest.parse().map_err(|reason| Fault::DependencyName {
        text: line.to_owned(),
        reason,
    })
}

/// Tells what leaves the tree from what is merely written in another way.
fn not_a_sibling(line: &str) -> Fault {
    let mut depth = 1i32;
    for component in line.split('/') {
        match component {
            ".." => depth -= 1,
            "" | "." => {}
            _ => depth += 1,
        }
        if depth < 0 {
            break;
        }
    }
    // Depth 0 is the tree's own folder, 1 a package in it; the walk starts in a package.
    if line.starts_with('/') || depth < 0 {
        Fault::EscapesTree(line.to_owned())
    } else {
        Fault::NotADependency(line.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn own() -> PackageName {
        "own".parse().unwrap()
    }

    fn names(text: &str) -> Vec<(String, usize)> {
        let read = parse(&own(), text.as_bytes()).unwrap();
        read.into_iter()
            .map(|d| (d.name.to_string(), d.line))
            .collect()
    }

    #[test]
    fn one_sibling_a_line_is_read_with_its_line() {
        let expected = vec![("musl".to_owned(), 1), ("gtk+3.0".to_owned(), 4)];
        assert_eq!(names("../musl\n\n  \n../gtk+3.0/ \r\n"), expected);
        // Upstream's files often end without a newline.
        assert_eq!(names("../musl\n\n\n../gtk+3.0"), expected);
        assert_eq!(names(""), vec![]);
    }

    #[test]
    fn whatever_leaves_the_tree_is_refused() {
        for line in [
            "../../etc",
            "/etc/passwd",
            "../..",
            "../a/../../b",
            "../../pkg/make",
        ] {
            let got = parse(&own(), format!("../a\n{line}\n").as_bytes());
            assert_eq!(
                got,
                Err((Some(2), Fault::EscapesTree(line.to_owned()))),
                "{line}"
            );
        }
    }

    #[test]
    fn other_spellings_and_bad_names_are_refused_with_the_line() {
        for line in [
            "make",
            "./make",
            "../",
            "..",
            "../a/b",
            "# note",
            "../a/../b",
            "../a//",
        ] {
            let got = parse(&own(), line.as_bytes());
            assert_eq!(
                got,
                Err((Some(1), Fault::NotADependency(line.to_owned()))),
                "{line}"
            );
        }
        for line in ["../Make", "../a b", "../-x", "../.git"] {
            let got = parse(&own(), line.as_bytes());
            assert!(
                matches!(got, Err((Some(1), Fault::DependencyName { .. }))),
                "{line}"
            );
        }
    }

    #[test]
    fn oneself_and_the_same_twice_are_refused() {
        assert_eq!(
            parse(&own(), b"../own"),
            Err((Some(1), Fault::SelfDependency(own())))
        );
        let name = "a".parse().unwrap();
        let twice = Fault::DuplicateDependency {
            name,
            first_line: 2,
        };
        assert_eq!(
            parse(&own(), b"\n../a\n../b\n../a/\n"),
            Err((Some(4), twice))
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_with_the_line() {
        assert_eq!(
            parse(&own(), b"../a\n../\xff\n"),
            Err((Some(2), Fault::NotUtf8))
        );
        assert_eq!(
            parse(&own(), b"../a\n\n../b\0\n"),
            Err((Some(3), Fault::Nul))
        );
        let huge = vec![b'\n'; DEPS_BYTES_MAX + 1];
        assert!(matches!(
            parse(&own(), &huge),
            Err((None, Fault::TooLarge { .. }))
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse(&own(), &bytes);
        }

        #[test]
        fn what_is_accepted_is_a_sibling(line in "[./a-z\\\\ -]{0,12}") {
            if let Ok(read) = parse(&own(), line.as_bytes()) {
                for dependency in read {
                    let plain = format!("../{}", dependency.name);
                    let line = line.trim();
                    prop_assert_eq!(line.strip_suffix('/').unwrap_or(line), plain);
                }
            }
        }
    }
}
