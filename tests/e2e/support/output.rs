//! A command that has ended, with what it said.

use std::io::Read;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

/// How often an ending process is looked at.
const POLL_EVERY: Duration = Duration::from_millis(10);

/// A command's exit code and output.
#[derive(Debug)]
pub struct Finished {
    shown: String,
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed as data.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Finished {
    /// Runs a command to its end, or kills it at the deadline and fails.
    pub fn of(command: Command, deadline: Duration) -> Self {
        let shown = format!("{command:?}");
        Self::wait(super::start(command), shown, deadline)
    }

    /// Waits for a child whose stdout and stderr are pipes.
    pub fn wait(mut child: Child, shown: String, deadline: Duration) -> Self {
        let stdout = drain(child.stdout.take().unwrap());
        let stderr = drain(child.stderr.take().unwrap());
        let status = wait_with_deadline(&mut child, deadline);
        let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
        let Some(status) = status else {
            panic!("{shown} did not end in {deadline:?}\nstdout: {stdout}\nstderr: {stderr}");
        };
        Self {
            shown,
            code: status.code(),
            stdout,
            stderr,
        }
    }

    /// Fails the test unless the command ended with this code.
    #[track_caller]
    pub fn assert_exit(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "{}\nstdout: {}\nstderr: {}",
            self.shown,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Fails the test unless stderr holds the text.
    #[track_caller]
    pub fn assert_says(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text),
            "no `{text}` in stderr of {}:\n{}",
            self.shown,
            self.stderr
        );
        self
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A killed child closes its pipes; what it said until then is what there is.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for a child; kills it and returns `None` at the deadline.
pub fn wait_with_deadline(child: &mut Child, deadline: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() >= end {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        thread::sleep(POLL_EVERY);
    }
}
