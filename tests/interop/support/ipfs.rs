//! Where the programs of others come from: the environment, the search path, or Go.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Versions on the search path that count; others are passed over and this one is built.
const VERSION: &str = "0.43.";

/// The program. Prints why there is none.
pub fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Found> = OnceLock::new();
    required(PROGRAM.get_or_init(find))
}

/// A server that speaks S3. Prints why there is none.
pub fn object_store() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Found> = OnceLock::new();
    let build = || built("build-s3.sh", "versitygw", "no object store could be built");
    required(PROGRAM.get_or_init(build))
}

type Found = Result<PathBuf, String>;

fn required(found: &'static Found) -> Option<&'static Path> {
    match found {
        Ok(path) => Some(path),
        Err(missing) => {
            let required = std::env::var_os("P2PKGS_REQUIRE_KUBO").is_some_and(|v| v == "1");
            assert!(!required, "P2PKGS_REQUIRE_KUBO is set: {missing}");
            eprintln!("skipped: {missing}");
            None
        }
    }
}

fn find() -> Found {
    if let Some(path) = std::env::var_os("P2PKGS_IPFS") {
        return Ok(path.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join("ipfs"))
        .find(|path| version(path).is_some_and(|v| v.starts_with(VERSION)))
        .map_or_else(build, Ok)
}

fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).args(["version", "--number"]).output();
    String::from_utf8(output.ok()?.stdout).ok()
}

fn build() -> Found {
    built(
        "build-kubo.sh",
        "ipfs",
        "no Kubo 0.43 on this machine, and none could be built",
    )
}

fn built(script: &str, program: &str, missing: &str) -> Found {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Beside the folder of cargo's own scratch files, so in the `target` that this test was built in.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../interop");
    let program = folder.join(program);
    let built = Command::new("sh")
        .arg(project.join("tests/interop").join(script))
        .arg(&program)
        .status();
    match built {
        Ok(status) if status.success() => Ok(program),
        _ => Err(format!("{missing} (see above)")),
    }
}
