//! A real daemon process: started, waited for, asked, killed.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::{COMMAND_DEADLINE, wait_until, wait_with_deadline};

/// How long a daemon may take to stop when asked to.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// A running `p2pkgs node run`. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    home: PathBuf,
    peer_id: String,
    addresses: Vec<String>,
    http: Vec<String>,
    stderr: Arc<Mutex<String>>,
}

impl Daemon {
    /// Starts the command and waits for its `ready` line.
    pub fn start(mut command: Command, home: &Path) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = Arc::new(Mutex::new(String::new()));
        collect(child.stderr.take().unwrap(), Arc::clone(&stderr));
        let (sender, receiver) = mpsc::sync_channel(1);
        let stdout = child.stdout.take().unwrap();
        thread::spawn(move || {
            let mut lines = BufReader::new(stdout);
            let mut first = String::new();
            let _ = lines.read_line(&mut first);
            let _ = sender.send(first);
            // The pipe must stay open and drained for as long as the daemon lives.
            let _ = lines.read_to_end(&mut Vec::new());
        });
        let first = receiver.recv_timeout(COMMAND_DEADLINE).unwrap_or_default();
        let Ok(ready) = serde_json::from_str::<serde_json::Value>(&first) else {
            let _ = child.kill();
            let status = child.wait();
            panic!(
                "no ready line but {first:?}, {status:?}: {}",
                stderr.lock().unwrap()
            );
        };
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let texts =
            |value: &serde_json::Value| value.as_array().unwrap().iter().map(text).collect();
        Self {
            child,
            home: home.to_owned(),
            peer_id: text(&ready["peer_id"]),
            addresses: texts(&ready["addrs"]),
            http: texts(&ready["http"]),
            stderr,
        }
    }

    /// The node's name.
    pub fn peer_id(&self) -> &str {
        &self.peer_id
    }

    /// An address with the peer id, as `--bootstrap` takes it.
    pub fn address(&self) -> String {
        let address = &self.addresses[0];
        if address.contains("/p2p/") {
            address.clone()
        } else {
            format!("{address}/p2p/{}", self.peer_id)
        }
    }

    /// The URL of its HTTP door, without a slash at the end.
    pub fn http(&self) -> &str {
        &self.http[0]
    }

    /// Waits until it has said something.
    pub fn wait_until_it_says(&self, text: &str) {
        wait_until(&format!("the daemon says `{text}`"), || {
            self.stderr().contains(text)
        });
    }

    /// What it said so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Its state file.
    pub fn status(&self) -> serde_json::Value {
        let text = fs::read_to_string(self.home.join("node.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or(serde_json::Value::Null)
    }

    /// Waits until a condition holds for the state file.
    pub fn wait_for_status(&self, what: &str, condition: impl Fn(&serde_json::Value) -> bool) {
        wait_until(what, || condition(&self.status()));
    }

    /// Waits until everything in the queue was announced.
    pub fn wait_until_all_is_announced(&self) {
        self.wait_for_status("all keys are announced", |status| {
            let provide = &status["provide"];
            provide["done"].as_u64() > Some(0)
                && provide["queued"].as_u64() == Some(0)
                && provide["in_flight"].as_u64() == Some(0)
        });
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop and returns its exit code.
    pub fn stop(mut self) -> Option<i32> {
        super::signal(self.child.id(), rustix::process::Signal::TERM);
        wait_with_deadline(&mut self.child, STOP_DEADLINE)
            .expect("the daemon stops when asked to")
            .code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("daemon of {}: {}", self.home.display(), self.stderr());
        }
    }
}

fn collect(pipe: impl std::io::Read + Send + 'static, into: Arc<Mutex<String>>) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut text = into.lock().unwrap();
            text.push_str(&line);
            text.push('\n');
        }
    });
}
