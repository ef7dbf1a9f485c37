//! Packages as a squashfs image, made by the host's `mksquashfs`: a file that can be mounted as it is.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use store::Store;
use store::archive::MTIME_UNIX_SECS;

use crate::error::{Error, ProcessError};
use crate::probe::find_program;
use crate::root::Input;
use crate::scratch::Scratch;
use crate::venv;

/// The program, of squashfs-tools 4.4 or later: older ones cannot be told the time.
const PROGRAM: &str = "mksquashfs";
/// Bytes of its complaint that are shown.
const COMPLAINT_BYTES_MAX: usize = 2000;

/// Writes a closure, composed as in a venv but with nothing added, as a squashfs image to `output`, which is replaced. Two
/// machines with the same squashfs-tools write the same bytes.
///
/// # Errors
/// [`Error::NoProgram`] when `search_path` (as in `PATH`) has no `mksquashfs`, [`Error::Program`] when it fails, and whatever
/// keeps the packages from being composed.
pub fn squashfs(
    store: &Store,
    inputs: &[Input],
    scratch: &Path,
    search_path: &OsStr,
    output: &Path,
) -> Result<(), Error> {
    let program = find_program(PROGRAM, search_path).ok_or(Error::NoProgram {
        program: PROGRAM,
        package: "squashfs-tools",
    })?;
    let scratch = Scratch::new(scratch)?;
    let root = scratch.root();
    venv::compose(store, inputs, &root)?;
    let time = MTIME_UNIX_SECS.to_string();
    let ended = Command::new(program)
        .arg(&root)
        .arg(output)
        .args([
            "-noappend",
            "-quiet",
            "-no-progress",
            "-all-root",
            "-no-xattrs",
        ])
        .args(["-comp", "zstd", "-reproducible", "-no-exports"])
        .args(["-mkfs-time", &time, "-all-time", &time])
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Error::Process(ProcessError::Start(e)))?;
    if ended.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&ended.stderr);
    Err(Error::Program {
        program: PROGRAM,
        status: ended.status.to_string(),
        complaint: complaint.chars().take(COMPLAINT_BYTES_MAX).collect(),
    })
}
