//! ^C and SIGTERM: a flag that long work looks at, and a guarantee that the process ends soon after.
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

/// Whether the user wants the command to stop. Clones share the flag.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

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
                for _ in signals.forever() {
                    if seen.0.swap(true, Ordering::SeqCst) {
                        // The second ^C means now.
                        std::process::exit(Exit::Interrupted as i32);
                    }
                    thread::spawn(|| {
                        thread::sleep(GRACE);
                        std::process::exit(Exit::Interrupted as i32);
                    });
                }
            })?;
        Ok(interrupt)
    }

    /// Whether a signal has come.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
