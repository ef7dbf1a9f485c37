//! What the machine must have for tests that need more than the builder's sandbox.

use std::process::Command;

use builder::testing::can_go_on;

/// Whether a process may have mounts of its own. Prints why not.
pub fn may_unshare() -> bool {
    let tried = Command::new("unshare").args(["-Urm", "true"]).output();
    can_go_on(&match tried {
        Ok(tried) if tried.status.success() => Ok(()),
        Ok(tried) => Err(String::from_utf8_lossy(&tried.stderr).into_owned()),
        Err(error) => Err(format!("no unshare: {error}")),
    })
}
