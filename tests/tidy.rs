//! The house rules as a test: what ARCHITECTURE.md and CONTRIBUTING.md promise about the code, checked on every run.
//!
//! A rule that is only written down is forgotten; one that lives in a shell script is skipped. Each check here prints the
//! place and what to do instead.

#![allow(clippy::unwrap_used, clippy::panic)] // What must not happen fails the test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines a source file may have before its tests: past this it holds more than one idea.
const FILE_LINES_MAX: usize = 600;
/// Lines a function may have.
const FUNCTION_LINES_MAX: usize = 70;
/// Lines, tests excluded, that `base` may have in all, so that it cannot become a drawer. It grew by the verified block,
/// which the exchange and the store must both say and may not hear from each other.
const BASE_LINES_MAX: usize = 1200;

/// Which of our crates may use which; ARCHITECTURE.md section 2 gives the reasons.
const EDGES: &[(&str, &[&str])] = &[
    ("p2pkgs-base", &[]),
    ("p2pkgs-trust", &["p2pkgs-base"]),
    ("p2pkgs-recipe", &["p2pkgs-base"]),
    ("p2pkgs-netconfig", &["p2pkgs-base"]),
    ("p2pkgs-bitswap", &["p2pkgs-base"]),
    ("p2pkgs-store", &["p2pkgs-base"]),
    (
        "p2pkgs-node",
        &[
            "p2pkgs-base",
            "p2pkgs-bitswap",
            "p2pkgs-netconfig",
            "p2pkgs-store",
        ],
    ),
    (
        "p2pkgs-builder",
        &[
            "p2pkgs-base",
            "p2pkgs-recipe",
            "p2pkgs-store",
            "p2pkgs-trust",
        ],
    ),
    (
        "p2pkgs-bootstrap",
        &[
            "p2pkgs-base",
            "p2pkgs-builder",
            "p2pkgs-recipe",
            "p2pkgs-store",
        ],
    ),
];

/// Foreign crates that only some of ours may use: the doors of section 2.
const DOORS: &[(&str, &[&str])] = &[
    ("tokio", &["p2pkgs-node", "p2pkgs"]),
    ("libp2p", &["p2pkgs-node"]),
    ("ureq", &["p2pkgs-node"]),
    ("rusqlite", &["p2pkgs-store"]),
    ("clap", &["p2pkgs"]),
    ("anyhow", &["p2pkgs"]),
    ("indicatif", &["p2pkgs"]),
];

/// Crates without input, output or clock; each carries a `clippy.toml` that bans them.
const PURE: &[&str] = &["base", "trust", "recipe", "netconfig", "node/bitswap"];

/// Tokens that have no place in the sources, and what to write instead.
const BANNED: &[(&str, &str)] = &[
    (concat!("#[", "ignore"), "delete the test or make it run"),
    (concat!("should_", "panic"), "assert on the returned error"),
    (concat!("todo", "!("), "finish it before it lands"),
    (concat!("unimpl", "emented!("), "finish it before it lands"),
    (concat!("FIX", "ME"), "fix it, or open an issue and name it"),
    (concat!("XX", "X:"), "fix it, or open an issue and name it"),
    (concat!("unbounded_", "channel"), "use a bounded channel"),
    (concat!("Box<dyn ", "Error>"), "use the crate's error enum"),
];

/// Words the glossary replaces, looked for in the documentation.
const NEVER_SAID: &[(&str, &str)] = &[
    ("artifact", "output"),
    ("artefact", "output"),
    ("formula", "recipe"),
    ("build id", "package hash"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All tracked kinds of files below the root with one of the endings, in a stable order.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(root(), endings, &mut found);
    found.sort();
    assert!(
        !found.is_empty(),
        "no files with {endings:?} below the root"
    );
    found
}

fn collect(folder: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_symlink() || name == "target" || name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            collect(&path, endings, found);
        } else if endings.iter().any(|e| name.ends_with(e)) {
            found.push(path);
        }
    }
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// The part of a source before its inline tests.
fn without_tests(text: &str) -> &str {
    text.split_once("\n#[cfg(test)]\nmod tests {")
        .map_or(text, |(head, _)| head)
}

fn assert_none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn every_source_file_says_what_it_is() {
    let silent: Vec<_> = files(&[".rs"])
        .iter()
        .filter(|p| {
            !fs::read_to_string(p)
                .unwrap()
                .lines()
                .any(|l| l.starts_with("//!"))
        })
        .map(|p| shown(p))
        .collect();
    assert_none(&silent, "start the file with `//!`: what it is and why so");
}

#[test]
fn files_and_functions_stay_small() {
    let mut large = Vec::new();
    for path in files(&[".rs"]) {
        let text = fs::read_to_string(&path).unwrap();
        let code = without_tests(&text);
        let lines = code.lines().count();
        if lines > FILE_LINES_MAX {
            large.push(format!("{}: {lines} lines, split it by idea", shown(&path)));
        }
        for (name, line, length) in functions(code) {
            if length > FUNCTION_LINES_MAX {
                large.push(format!(
                    "{}:{line}: `{name}` has {length} lines",
                    shown(&path)
                ));
            }
        }
    }
    assert_none(&large, "too large");
}

/// Name, first line and length of each function, measured from `fn` to the closing brace of the same indentation.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<_> = code.lines().collect();
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let Some(name) = function_name(line.trim_start()) else {
            continue;
        };
        let closing = format!("{}}}", " ".repeat(indent));
        let end = lines[number..].iter().position(|l| l.trim_end() == closing);
        if let Some(length) = end {
            found.push((name, number + 1, length + 1));
        }
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    const BEFORE: &[&str] = &["pub", "pub(crate)", "pub(super)", "const", "async", "fn"];
    let (head, rest) = line.split_once("fn ")?;
    let is_function = head.split_whitespace().all(|word| BEFORE.contains(&word));
    let name: String = rest
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    (is_function && !name.is_empty() && !line.ends_with(';') && !line.ends_with('}'))
        .then_some(name)
}

#[test]
fn base_stays_a_vocabulary() {
    let lines: usize = files(&[".rs"])
        .iter()
        .filter(|p| p.starts_with(root().join("base/src")))
        .map(|p| {
            without_tests(&fs::read_to_string(p).unwrap())
                .lines()
                .count()
        })
        .sum();
    assert!(
        lines <= BASE_LINES_MAX,
        "base has {lines} lines, at most {BASE_LINES_MAX}"
    );
}

#[test]
fn banned_tokens_are_absent() {
    let mut found = Vec::new();
    for path in files(&[".rs"]) {
        for (number, line) in (1..).zip(fs::read_to_string(&path).unwrap().lines()) {
            for (token, instead) in BANNED {
                if line.contains(token) {
                    found.push(format!("{}:{number}: `{token}`: {instead}", shown(&path)));
                }
            }
        }
    }
    assert_none(&found, "banned");
}

/// Direct dependencies of each workspace package, as `(package, dependency, is a development dependency)`.
fn dependencies() -> Vec<(String, String, bool)> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut edges = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        for dependency in package["dependencies"].as_array().unwrap() {
            let from = package["name"].as_str().unwrap().to_owned();
            let to = dependency["name"].as_str().unwrap().to_owned();
            edges.push((from, to, dependency["kind"] == "dev"));
        }
    }
    edges
}

#[test]
fn crates_depend_only_on_what_the_architecture_allows() {
    let allowed: BTreeMap<_, BTreeSet<_>> = EDGES
        .iter()
        .map(|(from, to)| (*from, to.iter().copied().collect()))
        .collect();
    let mut wrong = Vec::new();
    for (from, to, dev) in dependencies() {
        let known = allowed.get(from.as_str());
        let forbidden = known.is_some_and(|k| to.starts_with("p2pkgs") && !k.contains(to.as_str()));
        if forbidden && !dev && from != to {
            wrong.push(format!("{from} -> {to}"));
        }
        assert!(
            known.is_some() || from == "p2pkgs",
            "`{from}` has no line in EDGES"
        );
    }
    assert_none(&wrong, "edges that ARCHITECTURE.md section 2 forbids");
}

#[test]
fn each_effect_has_one_door() {
    let mut wrong = Vec::new();
    for (from, to, dev) in dependencies() {
        let door = DOORS.iter().find(|(name, _)| *name == to);
        if door.is_some_and(|(_, users)| !dev && !users.contains(&from.as_str())) {
            wrong.push(format!("{from} -> {to}"));
        }
    }
    assert_none(
        &wrong,
        "only the doors of ARCHITECTURE.md section 2 may use these",
    );
}

#[test]
fn pure_crates_ban_input_output_and_clock() {
    for folder in PURE {
        let text = fs::read_to_string(root().join(folder).join("clippy.toml"))
            .unwrap_or_else(|_| panic!("`{folder}` is pure and needs its own clippy.toml"));
        for ban in [
            "std::fs::",
            "std::process::Command",
            "std::time::Instant::now",
        ] {
            assert!(
                text.contains(ban),
                "`{folder}/clippy.toml` must ban `{ban}`"
            );
        }
    }
}

#[test]
fn documents_have_one_title_and_speak_the_glossary() {
    let mut wrong = Vec::new();
    for path in files(&[".md"]) {
        let text = fs::read_to_string(&path).unwrap();
        let prose = without_code_blocks(&text);
        let titles = prose.iter().filter(|(_, l)| l.starts_with("# ")).count();
        if titles != 1 {
            wrong.push(format!(
                "{}: {titles} titles, exactly one is wanted",
                shown(&path)
            ));
        }
        if path.ends_with("glossary.md") {
            continue;
        }
        for (number, line) in &prose {
            for (never, instead) in NEVER_SAID {
                if line.to_lowercase().contains(never) {
                    wrong.push(format!(
                        "{}:{number}: say {instead}, not {never}",
                        shown(&path)
                    ));
                }
            }
        }
    }
    assert_none(&wrong, "documents");
}

/// The numbered lines of a markdown text outside fenced code.
fn without_code_blocks(text: &str) -> Vec<(usize, &str)> {
    let mut inside = false;
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            lines.push((number, line));
        }
    }
    lines
}

#[test]
fn the_guide_to_packaging_quotes_the_recipe_as_it_is() {
    let guide = fs::read_to_string(root().join("docs/packaging.md")).unwrap();
    for file in ["build", "fetch"] {
        let text = fs::read_to_string(root().join("pkg/hello").join(file)).unwrap();
        let is_quoted = guide.contains(&format!("\n{text}```\n"));
        assert!(
            is_quoted,
            "docs/packaging.md does not quote pkg/hello/{file}"
        );
    }
}

/// Names of all recipes of the tree.
fn recipes() -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(root().join("pkg"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn recipes_keep_their_dependencies_sorted() {
    let mut wrong = Vec::new();
    for name in recipes() {
        for list in ["build-deps", "run-deps"] {
            let path = root().join("pkg").join(&name).join(list);
            let text = fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let mut sorted = lines.clone();
            sorted.sort_unstable();
            sorted.dedup();
            if lines != sorted {
                wrong.push(format!("pkg/{name}/{list}: sort it, each line once"));
            }
        }
    }
    assert_none(&wrong, "recipes");
}

/// Package hashes are names that others hold signatures for: a change of the hashing code must not change one unseen.
/// A change of a recipe does change them; `P2PKGS_UPDATE_GOLDEN=1 cargo test --test tidy` writes the new list.
#[test]
fn package_hashes_of_the_tree_are_pinned() {
    let output = Command::new(env!("CARGO_BIN_EXE_p2pkgs"))
        .arg("--tree")
        .arg(root())
        .arg("hash")
        .args(recipes())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let hashes = String::from_utf8(output.stdout).unwrap();
    let now: String = recipes()
        .iter()
        .zip(hashes.lines())
        .map(|(n, h)| format!("{h}  {n}\n"))
        .collect();
    let pins = root().join("tests/golden/pkg-hashes.txt");
    if std::env::var_os("P2PKGS_UPDATE_GOLDEN").is_some() {
        fs::write(&pins, &now).unwrap();
    }
    let pinned = fs::read_to_string(&pins).unwrap();
    assert_eq!(
        now, pinned,
        "package hashes changed; see the comment of this test"
    );
}
