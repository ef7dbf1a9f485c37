//! A bug of ours: a panic becomes a short report and exit code 70, whichever thread it happens on.
//!
//! The process ends at once instead of unwinding, for others would wait forever for the answer of a thread that is gone.
//! Nothing is lost by it: sandboxes die with this process, and home and store survive being killed at any moment.
//! Only a node's tasks are kept apart: what one peer provokes must not end the daemon that serves all others.

use std::io;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::error::Exit;
use crate::sanitize;

/// Name of the threads that run the tasks of a node. Each task is caught by the runtime.
pub const NODE_THREAD: &str = "node";

/// Whether a task of a node has panicked.
static HAPPENED: AtomicBool = AtomicBool::new(false);

/// Makes every panic from now on such a report.
#[expect(
    clippy::disallowed_methods,
    reason = "the other threads would wait for the one that is gone"
)]
pub fn watch_for_panics() {
    std::panic::set_hook(Box::new(|panic| {
        // A closed stderr leaves nobody to tell.
        let _ = report(panic, &mut io::stderr().lock());
        HAPPENED.store(true, Ordering::SeqCst);
        if thread::current().name() != Some(NODE_THREAD) {
            std::process::exit(Exit::Bug as i32);
        }
    }));
}

/// Whether a command that failed did so, most likely, because of a bug.
pub fn happened() -> bool {
    HAPPENED.load(Ordering::SeqCst)
}

fn report(panic: &PanicHookInfo<'_>, err: &mut impl io::Write) -> io::Result<()> {
    let payload = panic.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    let what = sanitize::line(text.unwrap_or("no message"));
    let place = panic.location().map(ToString::to_string);
    let place = place.unwrap_or_default();
    let (version, project) = (env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_REPOSITORY"));
    writeln!(err, "error: bug in p2pkgs {version} at {place}: {what}")?;
    writeln!(
        err,
        "hint: please report the line above and the command you ran at {project}/issues"
    )?;
    writeln!(
        err,
        "hint: the store is unharmed, what was finished is kept; the command can be run again"
    )
}

/// Lets the end-to-end tests see what a bug does, in debug builds only: `$P2PKGS_DEBUG_PANIC` names the place.
#[cfg(debug_assertions)]
pub fn provoke(place: &str) {
    let asked = std::env::var_os("P2PKGS_DEBUG_PANIC");
    assert!(asked.is_none_or(|p| p != place), "asked for at `{place}`");
}

/// A release has no such switch.
#[cfg(not(debug_assertions))]
pub const fn provoke(_place: &str) {}

#[cfg(all(test, debug_assertions))]
mod tests {
    use std::process::Command;

    use super::*;

    /// The hook is the whole process's, so this test starts itself once more.
    #[test]
    fn a_task_of_a_node_that_panics_ends_nothing_but_is_remembered() {
        if std::env::var_os("P2PKGS_DEBUG_PANIC").is_some() {
            watch_for_panics();
            let task = thread::Builder::new().name(NODE_THREAD.to_owned());
            assert!(task.spawn(|| provoke("task")).unwrap().join().is_err());
            assert!(happened());
            return;
        }
        let name = "bug::tests::a_task_of_a_node_that_panics_ends_nothing_but_is_remembered";
        let again = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env("P2PKGS_DEBUG_PANIC", "task")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&again.stderr);
        assert!(again.status.success(), "{said}");
        assert!(said.contains("error: bug in p2pkgs"), "{said}");
    }
}
