//! `files/`: patches and other small files that come with a recipe and are laid into the build's home directory.
//!
//! Here is decided which names and links are harmless; the sandbox's side may then create them without a second thought.

use base::Sha256;

use crate::fault::Fault;
use crate::limits::{
    FILE_NAME_BYTES_MAX, FILES_BYTES_MAX, FILES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX,
};
use crate::package::{FileContent, FileEntry};
use crate::recipe::{FileKind, RecipeFile};

/// Checks the entries and sorts them by path. An error names the path it is about, empty for the whole folder.
pub(crate) fn parse(entries: Vec<FileEntry>) -> Result<Vec<RecipeFile>, (String, Fault)> {
    if entries.len() > FILES_MAX {
        return Err((String::new(), Fault::TooManyFiles(entries.len())));
    }
    let mut files = entries
        .into_iter()
        .map(parse_entry)
        .collect::<Result<Vec<_>, _>>()?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    check_total(&files)?;
    check_clashes(&files)?;
    Ok(files)
}

fn parse_entry(entry: FileEntry) -> Result<RecipeFile, (String, Fault)> {
    let path = String::from_utf8(entry.path).map_err(|e| {
        (
            String::from_utf8_lossy(e.as_bytes()).into_owned(),
            Fault::NotUtf8,
        )
    })?;
    match check_path(&path).and_then(|()| parse_content(&path, entry.content)) {
        Ok((kind, digest, size)) => Ok(RecipeFile {
            path,
            kind,
            digest,
            size,
        }),
        Err(fault) => Err((path, fault)),
    }
}

fn parse_content(path: &str, content: FileContent) -> Result<(FileKind, Sha256, u64), Fault> {
    match content {
        FileContent::Regular {
            executable: true,
            digest,
            size,
        } => Ok((FileKind::Executable, digest, size)),
        FileContent::Regular {
            executable: false,
            digest,
            size,
        } => Ok((FileKind::Regular, digest, size)),
        FileContent::Symlink { target } => {
            let target = String::from_utf8(target).map_err(|_| Fault::NotUtf8)?;
            check_link(path, &target)?;
            let (digest, size) = (Sha256::of(target.as_bytes()), target.len() as u64);
            Ok((FileKind::Symlink { target }, digest, size))
        }
    }
}

/// A relative path of plain components within the limits.
pub(crate) fn check_path(path: &str) -> Result<(), Fault> {
    if path.len() > PATH_BYTES_MAX || path.split('/').count() > PATH_DEPTH_MAX {
        return Err(Fault::PathTooLong);
    }
    path.split('/').try_for_each(|component| match component {
        "" | "." | ".." => Err(Fault::Path),
        _ => check_name(component),
    })
}

/// A name that a file can have and that a listing can show.
pub(crate) fn check_name(name: &str) -> Result<(), Fault> {
    if name.contains('/') {
        return Err(Fault::FileWithSlash(name.to_owned()));
    }
    if matches!(name, "" | "." | "..") {
        return Err(Fault::FileName(name.to_owned()));
    }
    if name.len() > FILE_NAME_BYTES_MAX {
        return Err(Fault::FileNameTooLong(name.len()));
    }
    match name.chars().find(|c| c.is_control()) {
        Some(c) => Err(Fault::ControlCharacter(c)),
        None => Ok(()),
    }
}

/// A target of leading `..`, at most as many as lead back to `files/`, and plain components behind them.
///
/// `..` behind a name is refused even where it looks harmless: the name may be another link, and then it leads elsewhere.
/// Parents of entries are directories (see [`check_clashes`]), so leading `..` mean what they say.
fn check_link(path: &str, target: &str) -> Result<(), Fault> {
    if target.is_empty() || target.len() > PATH_BYTES_MAX {
        return Err(Fault::PathTooLong);
    }
    if target.starts_with('/') {
        return Err(Fault::LinkAbsolute(target.to_owned()));
    }
    if let Some(c) = target.chars().find(|c| c.is_control()) {
        return Err(Fault::ControlCharacter(c));
    }
    let ups = target
        .split('/')
        .take_while(|c| matches!(*c, "" | "." | ".."));
    if ups.filter(|c| *c == "..").count() >= path.split('/').count() {
        return Err(Fault::LinkEscapes(target.to_owned()));
    }
    let mut downs = target
        .split('/')
        .skip_while(|c| matches!(*c, "" | "." | ".."));
    if downs.any(|c| c == "..") {
        return Err(Fault::LinkWanders(target.to_owned()));
    }
    Ok(())
}

fn check_total(files: &[RecipeFile]) -> Result<(), (String, Fault)> {
    let total = files.iter().fold(0u64, |sum, f| sum.saturating_add(f.size));
    if total > FILES_BYTES_MAX {
        return Err((
            String::new(),
            Fault::TooLarge {
                bytes: total,
                max: FILES_BYTES_MAX,
            },
        ));
    }
    Ok(())
}

/// No path twice, and none below another: `a` cannot be a file or a link and `a/b` lie in it.
fn check_clashes(sorted: &[RecipeFile]) -> Result<(), (String, Fault)> {
    let paths: std::collections::HashSet<&str> = sorted.iter().map(|f| f.path.as_str()).collect();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0].path == pair[1].path) {
        return Err((pair[0].path.clone(), Fault::DuplicatePath));
    }
    for file in sorted {
        let parents = file
            .path
            .match_indices('/')
            .map(|(end, _)| &file.path[..end]);
        if let Some(parent) = parents.into_iter().find(|p| paths.contains(p)) {
            return Err((file.path.clone(), Fault::BelowAFile(parent.to_owned())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::recipe::FileMode;

    fn file(path: &str) -> FileEntry {
        FileEntry::regular(path, false, b"x")
    }

    fn fault(entries: Vec<FileEntry>) -> (String, Fault) {
        parse(entries).unwrap_err()
    }

    #[test]
    fn entries_are_sorted_and_keep_mode_digest_and_size() {
        let entries = vec![
            FileEntry::symlink("z", "patch/1"),
            FileEntry::regular("patch/1", true, b"diff"),
            file("a b/ü"),
        ];
        let files = parse(entries).unwrap();
        let paths: Vec<_> = files.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(paths, ["a b/ü", "patch/1", "z"]);
        assert_eq!(
            (files[1].kind.mode(), files[1].size),
            (FileMode::Executable, 4)
        );
        assert_eq!(
            files[2].kind,
            FileKind::Symlink {
                target: "patch/1".into()
            }
        );
        assert_eq!(
            (files[2].digest, files[2].size),
            (Sha256::of(b"patch/1"), 7)
        );
    }

    #[test]
    fn paths_that_are_not_plain_and_relative_are_refused() {
        for path in ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "../a"] {
            assert_eq!(
                fault(vec![file(path)]),
                (path.to_owned(), Fault::Path),
                "{path:?}"
            );
        }
        assert_eq!(fault(vec![file("a\nb")]).1, Fault::ControlCharacter('\n'));
        assert_eq!(fault(vec![file("a\0b")]).1, Fault::ControlCharacter('\0'));
        assert_eq!(
            fault(vec![file(&"a".repeat(256))]).1,
            Fault::FileNameTooLong(256)
        );
        assert_eq!(fault(vec![file(&"a/".repeat(600))]).1, Fault::PathTooLong);
        assert_eq!(
            fault(vec![file(&["a"; 33].join("/"))]).1,
            Fault::PathTooLong
        );
        assert!(parse(vec![file(&["a"; 32].join("/"))]).is_ok());
        let latin1 = FileEntry::regular(b"caf\xe9".to_vec(), false, b"");
        assert_eq!(fault(vec![latin1]).1, Fault::NotUtf8);
    }

    #[test]
    fn links_stay_below_files_whatever_other_links_there_are() {
        for (path, target) in [
            ("l", "a"),
            ("d/l", "../a"),
            ("d/e/l", "../../a/b"),
            ("d/l", "./a"),
        ] {
            assert!(
                parse(vec![FileEntry::symlink(path, target)]).is_ok(),
                "{path} -> {target}"
            );
        }
        let of = |path: &str, target: &str| fault(vec![FileEntry::symlink(path, target)]).1;
        assert_eq!(
            of("l", "/etc/passwd"),
            Fault::LinkAbsolute("/etc/passwd".into())
        );
        for (path, target) in [
            ("l", ".."),
            ("l", "../a"),
            ("d/l", "../../a"),
            ("d/l", ".././/.."),
        ] {
            assert_eq!(
                of(path, target),
                Fault::LinkEscapes(target.into()),
                "{path} -> {target}"
            );
        }
        // With `s -> .` beside it this would lead above `files/`.
        assert_eq!(of("d/l", "../s/.."), Fault::LinkWanders("../s/..".into()));
        assert_eq!(of("l", ""), Fault::PathTooLong);
        assert_eq!(of("l", "a\x1b"), Fault::ControlCharacter('\x1b'));
    }

    #[test]
    fn two_entries_in_one_place_are_refused() {
        assert_eq!(
            fault(vec![file("a"), file("a")]),
            ("a".into(), Fault::DuplicatePath)
        );
        let below = fault(vec![
            file("a/b/c"),
            FileEntry::symlink("a", "d"),
            file("a-b"),
        ]);
        assert_eq!(below, ("a/b/c".into(), Fault::BelowAFile("a".into())));
    }

    #[test]
    fn too_many_and_too_large_are_refused_as_a_whole() {
        let many = (0..=FILES_MAX).map(|n| file(&n.to_string())).collect();
        assert_eq!(
            fault(many),
            (String::new(), Fault::TooManyFiles(FILES_MAX + 1))
        );
        let huge = |path: &str| {
            let digest = Sha256::of(b"");
            let content = FileContent::Regular {
                executable: false,
                digest,
                size: u64::MAX,
            };
            FileEntry {
                path: path.into(),
                content,
            }
        };
        let total = Fault::TooLarge {
            bytes: u64::MAX,
            max: FILES_BYTES_MAX,
        };
        assert_eq!(fault(vec![huge("a"), huge("b")]), (String::new(), total));
    }

    proptest! {
        #[test]
        fn arbitrary_names_and_links_never_panic(path: Vec<u8>, target: Vec<u8>) {
            let _ = parse(vec![FileEntry::symlink(path, target)]);
        }

        #[test]
        fn an_accepted_link_never_climbs_above_files(
            path in "([a-c]/){0,3}[a-c]",
            target in "(\\.\\./|\\./|[a-c]/){0,5}(\\.\\.|[a-c])",
        ) {
            if parse(vec![FileEntry::symlink(path.as_str(), target.as_str())]).is_ok() {
                let mut depth = path.matches('/').count() as i32;
                for component in target.split('/') {
                    depth += match component { ".." => -1, "" | "." => 0, _ => 1 };
                    prop_assert!(depth >= 0);
                }
            }
        }
    }
}
