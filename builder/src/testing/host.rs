//! What the machine must have for tests that build: a working sandbox, and a static busybox to make toy seeds of.
//!
//! Where one is missing a test says so and passes, unless [`REQUIRE_SANDBOX`] is set, as it is in CI.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::Sandbox;

/// Set to 1 where a machine without a sandbox is a failure.
pub const REQUIRE_SANDBOX: &str = "P2PKGS_REQUIRE_SANDBOX";
/// Type of the program header that names a dynamic linker (ELF specification).
const PT_INTERP: u32 = 3;

/// Whether builds can run here. Prints why not.
pub fn sandbox_works() -> bool {
    static WORKS: OnceLock<Result<(), String>> = OnceLock::new();
    let works = WORKS.get_or_init(|| {
        static_busybox().ok_or("no static busybox on this machine (package busybox-static)")?;
        let found = Sandbox::find(&search_path());
        found.map(|_| ()).map_err(|error| error.to_string())
    });
    can_go_on(works, REQUIRE_SANDBOX)
}

/// Whether a test has what it needs. Prints what is missing, and fails where the variable says that it must be there.
pub fn can_go_on(works: &Result<(), String>, require: &str) -> bool {
    let Err(missing) = works else { return true };
    let required = std::env::var_os(require).is_some_and(|v| v == "1");
    assert!(!required, "{require} is set: {missing}");
    // Not by `eprintln`: what that says of a test that passes is kept from everybody.
    let _ = writeln!(io::stderr(), "skipped: {missing}");
    false
}

pub(super) fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// A busybox that runs anywhere, because it needs no library.
pub fn static_busybox() -> Option<PathBuf> {
    let path = search_path();
    std::env::split_paths(&path)
        .flat_map(|dir| ["busybox", "busybox.static", "busybox-static"].map(|name| dir.join(name)))
        .find(|path| is_static(path))
}

/// Whether a 64-bit little-endian ELF program asks for no dynamic linker.
fn is_static(path: &Path) -> bool {
    let Ok(bytes) = fs::read(path) else {
        return false;
    };
    let u16_at = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let headers = || {
        let start = usize::try_from(u64_at(32)?).ok()?;
        let (size, count) = (usize::from(u16_at(54)?), usize::from(u16_at(56)?));
        (0..count)
            .map(|i| {
                bytes
                    .get(start + i * size..)?
                    .get(..4)?
                    .try_into()
                    .ok()
                    .map(u32::from_le_bytes)
            })
            .collect::<Option<Vec<_>>>()
    };
    bytes.starts_with(b"\x7fELF\x02\x01")
        && headers().is_some_and(|types| !types.contains(&PT_INTERP))
}
