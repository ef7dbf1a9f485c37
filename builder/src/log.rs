//! The log of a build: whole on disk, its last lines at hand.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use base::PkgHash;

use crate::error::Error;

/// How many lines are shown when a build fails.
pub const LAST_LINES: usize = 40;
/// How much of the end of a log is held in memory, in bytes: forty lines of four hundred.
const TAIL_BYTES_MAX: usize = 16 << 10;

/// Where the log of a package's last build lies.
pub fn log_path(logs: &Path, pkghash: &PkgHash) -> PathBuf {
    logs.join(format!("{pkghash}.log"))
}

/// A log that is being written.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
    tail: VecDeque<u8>,
    /// The first error of the disk; a build is not killed because its log cannot be kept.
    error: Option<std::io::Error>,
}

impl Log {
    /// Starts a log; an earlier one of the same name becomes `.log.1`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(path: &Path) -> Result<Self, Error> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
        }
        let mut earlier = path.as_os_str().to_owned();
        earlier.push(".1");
        match fs::rename(path, &earlier) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("rename", path, e));
            }
            _ => {}
        }
        let file = File::create(path).map_err(|e| Error::io("create", path, e))?;
        // Says to `log -f` that more may come; a file system without locks only costs that.
        let _ = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive);
        Ok(Self {
            file,
            path: path.to_owned(),
            tail: VecDeque::new(),
            error: None,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends to it. That the disk refuses it is told by [`Self::take_error`].
    pub fn write(&mut self, text: &[u8]) {
        if self.error.is_none() {
            self.error = self.file.write_all(text).err();
        }
        let kept = &text[text.len().saturating_sub(TAIL_BYTES_MAX)..];
        let excess = (self.tail.len() + kept.len()).saturating_sub(TAIL_BYTES_MAX);
        self.tail.drain(..excess);
        self.tail.extend(kept);
    }

    /// Why the log on disk is incomplete, if it is.
    pub fn take_error(&mut self) -> Option<Error> {
        self.error.take().map(|e| Error::io("write", &self.path, e))
    }

    /// The last lines, without their line ends.
    pub(crate) fn last_lines(&self) -> Vec<Vec<u8>> {
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        let text = tail.strip_suffix(b"\n").unwrap_or(&tail);
        if text.is_empty() {
            return Vec::new();
        }
        let lines: Vec<_> = text.split(|b| *b == b'\n').collect();
        let skipped = lines.len().saturating_sub(LAST_LINES);
        lines[skipped..].iter().map(|line| line.to_vec()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_in(dir: &Path) -> Log {
        Log::create(&dir.join("logs/x.log")).unwrap()
    }

    #[test]
    fn the_last_forty_lines_of_a_long_log_are_at_hand_and_all_of_it_is_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log_in(dir.path());
        assert_eq!(log.last_lines(), Vec::<Vec<u8>>::new());
        (0..10_000).for_each(|n| log.write(format!("line {n}\n").as_bytes()));
        let lines = log.last_lines();
        assert_eq!(
            (lines.len(), &lines[0][..], &lines[39][..]),
            (40, &b"line 9960"[..], &b"line 9999"[..])
        );
        assert!(log.take_error().is_none());
        let on_disk = fs::read_to_string(log.path()).unwrap();
        assert_eq!(on_disk.lines().count(), 10_000);
    }

    #[test]
    fn one_endless_line_is_cut_and_not_kept_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log_in(dir.path());
        (0..100).for_each(|_| log.write(&[b'x'; 1000]));
        log.write(&vec![b'y'; 2 * TAIL_BYTES_MAX]);
        assert_eq!(log.last_lines(), [vec![b'y'; TAIL_BYTES_MAX]]);
    }

    #[test]
    fn the_log_before_is_kept_under_another_name() {
        let dir = tempfile::tempdir().unwrap();
        log_in(dir.path()).write(b"first");
        log_in(dir.path()).write(b"second");
        log_in(dir.path()).write(b"third");
        assert_eq!(fs::read(dir.path().join("logs/x.log")).unwrap(), b"third");
        assert_eq!(
            fs::read(dir.path().join("logs/x.log.1")).unwrap(),
            b"second"
        );
    }
}
