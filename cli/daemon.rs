//! The home's daemon as other processes see it: a lock that is held while it runs, a state file, an address.
//!
//! There is no control socket. The files are written in one step each, so that a reader sees a whole one; the lock, not
//! the presence of a file, says whether a daemon runs, so a killed one leaves nothing that must be cleaned up.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::fs::{FlockOperation, flock};

use crate::error::{CmdResult, Exit, Failure};
use crate::home::{Home, write_atomically};

/// Largest state file that is read, in bytes; one of a thousand peers has 300 kB.
const STATE_BYTES_MAX: u64 = 16 << 20;

/// Held by the one daemon of a home.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Becomes the daemon of a home.
    ///
    /// # Errors
    /// Exit code 9 when there is one already.
    pub fn take(home: &Home) -> CmdResult<Self> {
        home.create()?;
        let file =
            open_lock(home).map_err(|e| Failure::from(e).context("cannot open `node.lock`"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let message = format!("a daemon runs in `{}` already", home.root().display());
                Err(Failure::new(Exit::Busy, message)
                    .hint("`p2pkgs node status` says what it is doing"))
            }
            Err(error) => {
                Err(Failure::from(io::Error::from(error)).context("cannot lock `node.lock`"))
            }
        }
    }
}

/// Whether a daemon runs in a home.
pub fn is_running(home: &Home) -> bool {
    let Ok(file) = File::open(home.path("node.lock")) else {
        return false;
    };
    // A shared lock is refused only while the daemon holds its exclusive one, and two who ask do not see each other.
    flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}

/// Where the running daemon accepts connections from this machine.
pub fn address(home: &Home) -> Option<String> {
    if !is_running(home) {
        return None;
    }
    let text = fs::read_to_string(home.path("node.addr")).ok()?;
    text.lines()
        .next()
        .filter(|line| line.starts_with('/'))
        .map(str::to_owned)
}

/// Tells where the daemon accepts connections, the address for this machine first.
///
/// # Errors
/// What the operating system says.
pub fn write_address(home: &Home, addresses: &[String]) -> io::Result<()> {
    write_atomically(
        &home.path("node.addr"),
        &(addresses.join("\n") + "\n"),
        0o600,
    )
}

/// Tells where the daemon's HTTP door is, one URL a line; none removes the file.
///
/// # Errors
/// What the operating system says.
pub fn write_http(home: &Home, urls: &[String]) -> io::Result<()> {
    let path = home.path("node.http");
    if urls.is_empty() {
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    write_atomically(&path, &(urls.join("\n") + "\n"), 0o600)
}

/// Tells what the daemon is doing.
///
/// # Errors
/// What the operating system says.
pub fn write_state(home: &Home, state: &str) -> io::Result<()> {
    write_atomically(&home.path("node.json"), state, 0o600)
}

/// What the running daemon said last.
///
/// # Errors
/// When none runs, or its state cannot be read.
pub fn read_state(home: &Home) -> CmdResult<serde_json::Value> {
    if !is_running(home) {
        let message = format!("no daemon runs in `{}`", home.root().display());
        return Err(Failure::new(Exit::Other, message).hint("start one with `p2pkgs node run`"));
    }
    let path = home.path("node.json");
    let cannot =
        |e: io::Error| Failure::from(e).context(format!("cannot read `{}`", path.display()));
    if fs::metadata(&path).map_err(cannot)?.len() > STATE_BYTES_MAX {
        return Err(Failure::new(
            Exit::Other,
            format!("`{}` is too large", path.display()),
        ));
    }
    Ok(serde_json::from_str(
        &fs::read_to_string(&path).map_err(cannot)?,
    )?)
}

fn open_lock(home: &Home) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options
        .create(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(home.path("node.lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_has_one_daemon_at_a_time_and_others_see_it() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::find(Some(dir.path())).unwrap();
        assert!(!is_running(&home));
        let lock = Lock::take(&home).unwrap();
        assert!(is_running(&home));
        assert_eq!(Lock::take(&home).unwrap_err().exit(), Exit::Busy);
        write_address(&home, &["/ip4/127.0.0.1/tcp/4001/p2p/x".into()]).unwrap();
        assert_eq!(
            address(&home).as_deref(),
            Some("/ip4/127.0.0.1/tcp/4001/p2p/x")
        );
        drop(lock);
        assert!(!is_running(&home));
        assert_eq!(
            address(&home),
            None,
            "the address of a dead daemon is not used"
        );
        assert_eq!(read_state(&home).unwrap_err().exit(), Exit::Other);
    }
}
