//! A real browser without a window, for pages that people read.
//!
//! Where none is installed a test says so and passes, unless P2PKGS_REQUIRE_BROWSER is set, as it is in CI.

use std::path::Path;
use std::process::Command;

use super::{COMMAND_DEADLINE, Finished};

/// Programs that are the same browser.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A browser that was found.
#[derive(Debug)]
pub struct Browser {
    program: &'static str,
    profile: tempfile::TempDir,
}

impl Browser {
    /// The machine's browser; `None` where there is none.
    pub fn find() -> Option<Self> {
        let runs = |name: &&&str| Command::new(name).arg("--version").output().is_ok();
        let Some(program) = NAMES.iter().find(runs) else {
            let required = std::env::var_os("P2PKGS_REQUIRE_BROWSER").is_some_and(|v| v == "1");
            assert!(!required, "P2PKGS_REQUIRE_BROWSER is set: no browser");
            eprintln!("skipped: none of {NAMES:?} is installed");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        Some(Self { program, profile })
    }

    /// The document as it is after loading.
    pub fn document(&self, url: &str) -> String {
        self.run(&["--dump-dom", url]).stdout
    }

    /// What a reader sees, as a picture.
    pub fn picture(&self, url: &str, file: &Path) {
        let file = format!("--screenshot={}", file.display());
        self.run(&["--window-size=1200,1000", "--hide-scrollbars", &file, url]);
    }

    fn run(&self, args: &[&str]) -> Finished {
        let mut command = Command::new(self.program);
        command
            // Tests run as root in containers, where its sandbox cannot be had; the only page it loads is ours.
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ])
            .args(["--no-first-run", "--disable-background-networking"])
            .arg(format!("--user-data-dir={}", self.profile.path().display()))
            .args(args);
        Finished::of(command, COMMAND_DEADLINE).assert_exit(0)
    }
}
