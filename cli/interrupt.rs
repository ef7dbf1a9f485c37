//! ^C and SIGTERM (and SIGHUP, but to a daemon it means to read its configuration again): a flag that long work looks at, and a guarantee that the process ends soon after.
//!
//! Work that can stop in an orderly way (a build kills its sandbox, a fetch drops its temporary file) gets
//! [`GRACE`]. What does not look at the flag in time is ended from here; sandboxes die with this process, and a
//! store survives being killed at any moment, so nothing is lost by it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::Exit;

/// How long a command may take to stop by itself: killing a build tree and removing its scratch root takes below one.
const GRACE: Duration = Duration::from_secs(5);

/// Whether the user wants the command to stop. Clones share the flags.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    stop: AtomicBool,
    /// Whether SIGHUP means to read the configuration again, as it does to daemons.
    is_daemon: AtomicBool,
    reload: AtomicBool,
}

impl Interrupt {
    /// Starts listening for SIGINT, SIGTERM and SIGHUP.
    ///
    /// # Errors
    /// When the signal handlers cannot be installed.
    #[expect(
        clippy::disallowed_methods,
        reason = "a command that does not stop by itself is ended"
    )]
    pub fn install() -> io::Result<Self> {
        let interrupt = Self::default();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let seen = interrupt.clone();
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for signal in signals.forever() {
                    if signal == SIGHUP && seen.0.is_daemon.load(Ordering::SeqCst) {
                        seen.0.reload.store(true, Ordering::SeqCst);
                        continue;
                    }
                    if seen.is_set() {
                        // The second ^C means now.
                        std::process::exit(Exit::Interrupted as i32);
                    }
                    seen.raise();
                }
            })?;
        Ok(interrupt)
    }

    /// Stops the command as a signal would.
    #[expect(
        clippy::disallowed_methods,
        reason = "a command that does not stop by itself is ended"
    )]
    pub fn raise(&self) {
        if !self.0.stop.swap(true, Ordering::SeqCst) {
            thread::spawn(|| {
                thread::sleep(GRACE);
                std::process::exit(Exit::Interrupted as i32);
            });
        }
    }

    /// Whether a signal has come.
    pub fn is_set(&self) -> bool {
        self.0.stop.load(Ordering::SeqCst)
    }

    /// From now on SIGHUP does not stop the command, see [`Self::take_reload`].
    pub fn reload_on_hangup(&self) {
        self.0.is_daemon.store(true, Ordering::SeqCst);
    }

    /// Whether SIGHUP has come since this was asked last.
    pub fn take_reload(&self) -> bool {
        self.0.reload.swap(false, Ordering::SeqCst)
    }
}
