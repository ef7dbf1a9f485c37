//! Files that a user asked for by name: they appear whole or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{CmdResult, Failure};

/// A file being written beside its final place. Dropping it removes what was written.
#[derive(Debug)]
pub struct OutFile {
    file: File,
    temporary: PathBuf,
    target: PathBuf,
    finished: bool,
}

impl OutFile {
    /// Starts a file that will replace `target`.
    ///
    /// # Errors
    /// When its directory cannot be written, or `target` is a directory.
    pub fn create(target: &Path) -> CmdResult<Self> {
        if target.is_dir() {
            return Err(Failure::usage(format!(
                "`{}` is a directory",
                target.display()
            )));
        }
        let name = target
            .file_name()
            .ok_or_else(|| Failure::usage(format!("`{}` names no file", target.display())))?;
        let temporary = format!(".{}.{}", name.to_string_lossy(), std::process::id());
        let temporary = target.with_file_name(temporary);
        let file = File::create(&temporary).map_err(|e| {
            Failure::from(e).context(format!("cannot write `{}`", target.display()))
        })?;
        Ok(Self {
            file,
            temporary,
            target: target.to_owned(),
            finished: false,
        })
    }

    /// Where to write.
    pub const fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Where it lies until it is finished, for programs that write it themselves.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn finish(mut self) -> CmdResult {
        let place = || -> io::Result<()> {
            self.file.sync_all()?;
            fs::rename(&self.temporary, &self.target)
        };
        place().map_err(|e| {
            Failure::from(e).context(format!("cannot write `{}`", self.target.display()))
        })?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for OutFile {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        let mut abandoned = OutFile::create(&target).unwrap();
        abandoned.file().write_all(b"half").unwrap();
        drop(abandoned);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut out = OutFile::create(&target).unwrap();
        out.file().write_all(b"whole").unwrap();
        out.finish().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"whole");
        assert!(OutFile::create(dir.path()).is_err());
    }
}
