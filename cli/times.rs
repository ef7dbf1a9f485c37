//! How long each package's build took the last time, remembered in the home: what is urgent, and how long it will take.
//!
//! One line a package, its name and milliseconds. A guess from last time is all it is: whatever cannot be read or written
//! costs a worse order and nothing else, so no error comes out of here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::PackageName;

use crate::home::write_atomically;

/// Largest file that is read, in bytes: tens of thousands of packages.
const FILE_BYTES_MAX: u64 = 1 << 20;

type Known = BTreeMap<PackageName, Duration>;

/// The times of one home.
#[derive(Debug)]
pub struct Times {
    path: PathBuf,
    known: Mutex<Known>,
}

impl Times {
    /// Those in this file, which need not exist.
    pub fn open(path: PathBuf) -> Self {
        let known = Mutex::new(read(&path));
        Self { path, known }
    }

    /// How long a package's build took last.
    pub fn of(&self, package: &PackageName) -> Option<Duration> {
        self.lock().get(package).copied()
    }

    /// A package's build took so long.
    pub fn took(&self, package: &PackageName, time: Duration) {
        let mut known = self.lock();
        // Other commands of this home may have built since.
        *known = read(&self.path);
        known.insert(package.clone(), time);
        let lines = known
            .iter()
            .map(|(name, t)| format!("{name} {}\n", t.as_millis()));
        if let Err(error) = write_atomically(&self.path, &lines.collect::<String>(), 0o600) {
            tracing::debug!(path = %self.path.display(), %error, "cannot remember how long a build took");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All lines that make sense.
fn read(path: &Path) -> Known {
    let text = || -> io::Result<String> {
        let mut text = String::new();
        File::open(path)?
            .take(FILE_BYTES_MAX)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    let line = |line: &str| {
        let (name, millis) = line.split_once(' ')?;
        Some((
            name.parse().ok()?,
            Duration::from_millis(millis.parse().ok()?),
        ))
    };
    text()
        .unwrap_or_default()
        .lines()
        .filter_map(line)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_remembered_across_commands_and_by_several_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("build-times");
        let (make, zlib) = ("make".parse().unwrap(), "zlib".parse().unwrap());
        let (one, other) = (Times::open(path.clone()), Times::open(path.clone()));
        assert_eq!(one.of(&make), None);
        one.took(&make, Duration::from_millis(1234));
        other.took(&zlib, Duration::from_secs(40));
        other.took(&zlib, Duration::from_secs(41));
        let later = Times::open(path.clone());
        assert_eq!(later.of(&make), Some(Duration::from_millis(1234)));
        assert_eq!(later.of(&zlib), Some(Duration::from_secs(41)));
        assert_eq!(
            std::fs::read_to_string(path).unwrap(),
            "make 1234\nzlib 41000\n"
        );
    }

    #[test]
    fn what_makes_no_sense_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("build-times");
        std::fs::write(
            &path,
            "make 5\nmake\n../x 7\nzlib -1\nzlib 99999999999999999999\n\n",
        )
        .unwrap();
        assert_eq!(read(&path).len(), 1);
        std::fs::write(&path, b"make 5\n\xff 1\n").unwrap();
        assert!(read(&path).is_empty());
        // Not a directory that could be written to.
        Times::open(dir.path().join("no/such")).took(&"make".parse().unwrap(), Duration::ZERO);
    }
}
