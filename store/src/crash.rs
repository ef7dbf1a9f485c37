//! Places where the tests kill the process: each is a moment at which a real crash leaves something half done.

/// Kills the process if the tests ask for it here.
#[cfg(test)]
pub(crate) fn point(name: &str) {
    if std::env::var("P2PKGS_STORE_CRASH_AT").is_ok_and(|at| at == name) {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Nothing outside the tests.
#[cfg(not(test))]
pub(crate) const fn point(_name: &str) {}
