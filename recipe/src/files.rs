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
    let mut files = entries.into_iter().map(parse_entry).collect::<Result<Vec<_>, _>>()?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    check_total(&files)?;
    check_clashes(&files)?;
    Ok(files)
}

fn parse_entry(entry: FileEntry) -> Result<RecipeFile, (String, Fault)> {
    let path = String::from_utf8(entry.path)
        .map_err(|e| (String::from_utf8_lossy(e.as_bytes()).into_owned(), Fault::NotUtf8))?;
    match check_path(&path).and_then(|()| parse_content(&path, entry.content)) {
        Ok((kind, digest, size)) => Ok(RecipeFile { path, kind, digest, size }),
        Err(fault) => Err((path, fault)),
    }
}

fn parse_content(path: &str, content: FileContent) -> Result<(FileKind, Sha256, u64), Fault> {
    match content {
        FileContent::Regular { executable: true, digest, size } => {
            Ok((FileKind::Executable, digest, size))
        }
        FileContent::Regular { executable: false, digest, size } => {
            Ok((FileKind::Regular, digest, size))
        }
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

/// Follows a link's target word by word: at no point may it be above `files/`.
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
    let mut depth = path.split('/').count() - 1;
    for component in target.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                let above = || Fault::LinkEscapes(target.to_owned());
                depth = depth.checked_sub(1).ok_or_else(above)?;
            }
            _ => depth += 1,
        }
    }
    Ok(())
}

fn check_total(files: &[RecipeFile]) -> Result<(), (String, Fault)> {
    let total = files.iter().fold(0u64, |sum, f| sum.saturating_add(f.size));
    if total > FILES_BYTES_MAX {
        return Err((String::new(), Fault::TooLarge { bytes: total, max: FILES_BYTES_MAX }));
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
        let parents = file.path.match_indices('/').map(|(end, _)| &file.path[..end]);
        if let Some(parent) = parents.into_iter().find(|p| paths.contains(p)) {
            return Err((file.path.clone(), Fault::BelowAFile(parent.to_owned())));
        }
    }
    Ok(())
}
