//! Scratch directories: where one build's world lies on the host, and how it goes away, come what may.
//!
//! A process that is killed cannot clean up. Each scratch directory therefore holds a file that its owner keeps locked;
//! whoever makes the next one removes those whose lock nobody holds any more.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::error::Error;

/// How the names of scratch directories begin.
const PREFIX: &str = "build-";
/// The file whose lock says that a scratch directory is in use.
pub(crate) const LOCK: &str = "lock";

/// One build's directory on the host. Dropping it removes it.
#[derive(Debug)]
pub struct Scratch {
    dir: PathBuf,
    /// Holds the lock as long as it is open.
    _lock: File,
    kept: bool,
}

impl Scratch {
    /// Makes a scratch directory below `parent`, and removes what killed processes left there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn new(parent: &Path) -> Result<Self, Error> {
        let builder = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
        builder(parent).map_err(|e| Error::io("create", parent, e))?;
        // Held while directories come and go, so that nobody takes one that is not locked yet for an abandoned one.
        let guard = lock(&parent.join(LOCK), FlockOperation::LockExclusive)
            .map_err(|e| Error::io("lock", parent, e))?;
        sweep(parent);
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(parent)
            .map_err(|e| Error::io("create", parent, e))?
            .keep();
        let own = lock(&dir.join(LOCK), FlockOperation::LockExclusive)
            .map_err(|e| Error::io("lock", &dir, e))?;
        drop(guard);
        Ok(Self {
            dir,
            _lock: own,
            kept: false,
        })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// What becomes the sandbox's root.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// Leaves the directory where it is, for the user to look at, and says where that is. Nobody will remove it.
    pub(crate) fn keep(mut self) -> PathBuf {
        self.kept = true;
        let kept = self.dir.with_file_name(
            self.dir
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .replace(PREFIX, "kept-"),
        );
        match fs::rename(&self.dir, &kept) {
            Ok(()) => kept,
            Err(_) => self.dir.clone(),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = remove_tree(&self.dir)
        {
            tracing::warn!(path = %self.dir.display(), %error, "cannot remove scratch directory");
        }
    }
}

/// Removes scratch directories whose owners are gone. What cannot be removed is left for the next time.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with(PREFIX)
            && lock(&path.join(LOCK), FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = remove_tree(&path);
        }
    }
}

pub(crate) fn lock(path: &Path, operation: FlockOperation) -> io::Result<File> {
    let file = File::options().create(true).append(true).open(path)?;
    flock(&file, operation)?;
    Ok(file)
}

/// Removes a directory in which a build may have left directories that even their owner may not change.
pub(crate) fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unlock_directories(dir);
            fs::remove_dir_all(dir)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn unlock_directories(dir: &Path) {
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        let _ = fs::set_permissions(&dir, Permissions::from_mode(0o700));
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        // The type is that of the entry itself: links are not followed.
        open.extend(
            entries
                .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
                .map(|e| e.path()),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_directory_goes_away_with_its_owner_and_only_then() {
        let parent = tempfile::tempdir().unwrap();
        let first = Scratch::new(parent.path()).unwrap();
        let second = Scratch::new(parent.path()).unwrap();
        assert!(first.path().exists());
        let path = first.path().to_owned();
        drop(first);
        assert!(!path.exists() && second.path().exists());
    }

    #[test]
    fn what_a_killed_process_left_is_removed_by_the_next_one() {
        let parent = tempfile::tempdir().unwrap();
        let left = parent.path().join("build-left");
        fs::create_dir_all(left.join("root/bin")).unwrap();
        fs::write(left.join("lock"), "").unwrap();
        fs::create_dir(parent.path().join("precious")).unwrap();
        let _own = Scratch::new(parent.path()).unwrap();
        assert!(!left.exists());
        assert!(parent.path().join("precious").exists());
    }

    #[test]
    fn a_kept_directory_survives_its_owner_and_the_next_one() {
        let parent = tempfile::tempdir().unwrap();
        let kept = Scratch::new(parent.path()).unwrap().keep();
        let _next = Scratch::new(parent.path()).unwrap();
        assert!(kept.exists());
    }

    #[test]
    fn directories_without_permissions_are_removed_and_links_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let outside = parent.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::set_permissions(&outside, Permissions::from_mode(0o555)).unwrap();
        let tree = parent.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("a/link")).unwrap();
        fs::set_permissions(tree.join("a"), Permissions::from_mode(0o000)).unwrap();
        unlock_directories(&tree);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert_eq!(
            fs::metadata(&outside).unwrap().permissions().mode() & 0o777,
            0o555
        );
        remove_tree(&tree).unwrap();
    }
}
