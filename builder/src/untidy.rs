//! What a careful reviewer would say of an output: what is allowed in a package and yet better left out.

use std::collections::{BTreeMap, BTreeSet};

use store::Store;
use store::archive::{Entry, EntryKind};

use crate::error::Error;
use crate::root::{self, Input};

/// How many paths a remark names before it counts the rest.
const PATHS_MAX: usize = 3;

/// What there is to say about an output. `closure` are the outputs that it will be used with, its own among them or not.
///
/// # Errors
/// [`Error::Archive`] or [`Error::Store`] when one of them cannot be read.
pub fn untidy(store: &Store, output: &Input, closure: &[Input]) -> Result<Vec<String>, Error> {
    let own = root::entries(store, output)?;
    let mut remarks = about(&own);
    let files: BTreeSet<&[u8]> = own.iter().filter(|e| is_file(e)).map(path).collect();
    for other in closure.iter().filter(|other| other.name != output.name) {
        let theirs = root::entries(store, other)?;
        let both = theirs.iter().filter(|e| is_file(e)).map(path);
        let both: Vec<_> = both.filter(|path| files.contains(path)).collect();
        let what = format!("`{}`, which it runs with, has the same", other.name);
        remarks.extend(remark(&both, &what));
    }
    Ok(remarks)
}

fn path(entry: &Entry) -> &[u8] {
    &entry.path
}

const fn is_file(entry: &Entry) -> bool {
    !matches!(entry.kind, EntryKind::Directory)
}

/// Kinds of files that no package of a source-based tree needs, and why.
fn needless(path: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(path);
    let name = text.rsplit('/').next().unwrap_or_default();
    if text.starts_with("lib/") && name.ends_with(".la") {
        Some("libtool's notes name paths of the build")
    } else if text.starts_with("share/info/") {
        Some("info files collide in `share/info/dir`")
    } else if text.starts_with("share/locale/") {
        Some("translations")
    } else if name == "charset.alias" {
        Some("many packages would install it")
    } else if name.ends_with(".orig") || name.ends_with(".rej") {
        Some("left over from a patch")
    } else {
        None
    }
}

fn about(entries: &[Entry]) -> Vec<String> {
    if !entries.iter().any(is_file) {
        return vec!["its output is empty".into()];
    }
    let mut by_reason: BTreeMap<&str, Vec<&[u8]>> = BTreeMap::new();
    for entry in entries.iter().filter(|e| is_file(e)) {
        if let Some(reason) = needless(&entry.path) {
            by_reason.entry(reason).or_default().push(&entry.path);
        }
    }
    let remarks = by_reason
        .iter()
        .filter_map(|(reason, paths)| remark(paths, reason));
    remarks.collect()
}

fn remark(paths: &[&[u8]], reason: &str) -> Option<String> {
    if paths.is_empty() {
        return None;
    }
    let named: Vec<_> = paths
        .iter()
        .take(PATHS_MAX)
        .map(|path| format!("`{}`", String::from_utf8_lossy(path)))
        .collect();
    let rest = match paths.len().saturating_sub(PATHS_MAX) {
        0 => String::new(),
        rest => format!(" and {rest} more"),
    };
    Some(format!("{}{rest}: {reason}", named.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: EntryKind) -> Entry {
        Entry {
            path: path.into(),
            kind,
            mode: 0o644,
            size: 0,
            sha256: None,
        }
    }

    fn remarks(paths: &[&str]) -> Vec<String> {
        let entries: Vec<_> = paths
            .iter()
            .map(|path| entry(path, EntryKind::File))
            .collect();
        about(&entries)
    }

    #[test]
    fn needless_files_are_named_and_then_counted() {
        assert_eq!(
            remarks(&["bin/a", "lib/liba.a", "share/man/man1/a.1"]),
            [""; 0]
        );
        assert_eq!(
            remarks(&[
                "lib/a.la",
                "lib/b.la",
                "lib/c.la",
                "lib/d.la",
                "share/info/dir"
            ]),
            [
                "`share/info/dir`: info files collide in `share/info/dir`",
                "`lib/a.la`, `lib/b.la`, `lib/c.la` and 1 more: libtool's notes name paths of the build"
            ]
        );
        assert_eq!(remarks(&[]), ["its output is empty"]);
        assert_eq!(
            about(&[entry("bin", EntryKind::Directory)]),
            ["its output is empty"]
        );
    }
}
