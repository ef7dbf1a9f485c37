//! What the machine must have for tests that need more than the builder's sandbox.

use std::process::Command;

use builder::testing::{REQUIRE_SANDBOX, can_go_on};

/// Whether a process may have mounts of its own. Prints why not.
pub fn may_unshare() -> bool {
    let mount = ["-Urm", "mount", "-t", "tmpfs", "tmpfs", "/tmp"];
    let tried = Command::new("unshare").args(mount).output();
    let works = match tried {
        Ok(tried) if tried.status.success() => Ok(()),
        Ok(tried) => Err(String::from_utf8_lossy(&tried.stderr).into_owned()),
        Err(error) => Err(format!("no unshare: {error}")),
    };
    can_go_on(&works, REQUIRE_SANDBOX)
}
