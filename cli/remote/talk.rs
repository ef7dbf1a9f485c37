//! The conversation with a host, as the end that asks has it.
//!
//! One thread speaks for the user and follows what is said. Beside it one reads, one gives the files that are wanted, one listens
//! to what ssh complains about, one says that we are still here, and one looks at the clock: silence and ^C end ssh, and with its
//! pipes every other thread. Those that only read are not waited for: what ssh has started may hold its pipes longer than it lives.

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufRead as _, BufReader, Read};
use std::process::{ChildStdin, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use base::Sha256;
use builder::Ssh;
use store::Store;

use super::address::HostAddress;
use super::link::{ALIVE_EVERY, Ear, Heard, Outbox, SILENCE_MAX, TICK};
use super::wire::{Ask, Tell, WireError, read, read_greeting};
use crate::bench::search_path;
use crate::error::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::sanitize;
use crate::ui::Ui;
use crate::units;

/// Messages that were read and not looked at yet.
const UNREAD_MAX: usize = 16;
/// Files that may be wanted at once; a host waits for each.
const WANTS_MAX: usize = 16;
/// How long ssh may take to end when everything was said.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long is waited for what ssh complained about before it ended.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// What a shell says of a program that it does not find.
const NOT_FOUND: i32 = 127;
/// What ssh says of itself.
const SSH_FAILED: i32 = 255;
/// Lines of complaint that are kept, and how long each may be.
const COMPLAINTS_MAX: usize = 20;
const COMPLAINT_CHARACTERS_MAX: usize = 400;
const COMPLAINT_BYTES_MAX: u64 = 4096;

/// Why a host did not do what it was asked to.
#[derive(Debug)]
pub enum Trouble {
    /// It is gone, or makes no sense.
    Lost(Lost),
    /// It cannot build. Another machine may.
    Host(Failure),
    /// What would end a build on any machine.
    Final(Failure),
}

/// How a conversation ended.
#[derive(Debug)]
pub enum Lost {
    /// The other end is gone.
    Gone,
    /// It cannot be understood.
    Wire(WireError),
    /// It says what makes no sense where it says it.
    Odd(&'static str),
}

impl From<Lost> for Trouble {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

/// Whom to talk to, and what may be given.
#[derive(Debug)]
pub struct Party<'a> {
    /// The host.
    pub address: &'a HostAddress,
    /// The files that it may have, and what they are; all others are not for it.
    pub files: &'a HashMap<Sha256, String>,
    /// Where they lie.
    pub store: &'a Store,
    /// The terminal.
    pub ui: &'a Ui,
    /// Whether the user wants to stop.
    pub interrupt: &'a Interrupt,
}

/// What was given.
#[derive(Debug, Default)]
struct Given {
    files: AtomicUsize,
    bytes: AtomicU64,
}

/// The connection, and what the threads around it know.
#[derive(Debug)]
struct Line {
    ssh: Ssh,
    out: Outbox<ChildStdin>,
    ear: Arc<Ear>,
    /// Whether it was ended because the host said nothing.
    silent: AtomicBool,
    given: Given,
    complaints: Complaints,
}

/// A conversation that goes on.
#[derive(Debug)]
pub struct Talk<'a> {
    inbox: Receiver<Result<Tell, WireError>>,
    wants: SyncSender<Sha256>,
    line: &'a Line,
}

impl Talk<'_> {
    /// Says something.
    ///
    /// # Errors
    /// When the host is gone.
    pub fn say(&self, ask: &Ask) -> Result<(), Lost> {
        self.line.out.say(ask).map_err(|_| self.why_gone())
    }

    fn greet(&self) -> Result<(), Lost> {
        self.line.out.greet().map_err(|_| self.why_gone())
    }

    /// What the host said before it went away says more than that it did.
    fn why_gone(&self) -> Lost {
        let error = self.inbox.iter().find_map(Result::err);
        error.map_or(Lost::Gone, Lost::Wire)
    }

    /// How many files were given so far, and their bytes.
    pub fn given(&self) -> (usize, u64) {
        let Given { files, bytes } = &self.line.given;
        (files.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed))
    }

    /// What the host says next; what it wants is given meanwhile.
    ///
    /// # Errors
    /// When it is gone, or makes no sense.
    pub fn next(&self) -> Result<Tell, Lost> {
        loop {
            match self.inbox.recv() {
                Ok(Ok(Tell::Alive)) => {}
                Ok(Ok(Tell::Want { sha256 })) => match self.wants.try_send(sha256.0) {
                    Ok(()) => {}
                    Err(mpsc::TrySendError::Full(_)) => {
                        return Err(Lost::Odd("it wants too much at once"));
                    }
                    Err(mpsc::TrySendError::Disconnected(_)) => return Err(Lost::Gone),
                },
                Ok(Ok(tell)) => return Ok(tell),
                Ok(Err(error)) => return Err(Lost::Wire(error)),
                Err(_) => return Err(Lost::Gone),
            }
        }
    }
}

impl Party<'_> {
    /// Talks with the host until `work` is done.
    ///
    /// # Errors
    /// What `work` says; never [`Trouble::Lost`], which is explained.
    pub fn talk<R>(
        &self,
        work: impl FnOnce(&Talk<'_>) -> Result<R, Trouble>,
    ) -> Result<R, Trouble> {
        let command = self.address.command();
        let started = Ssh::start(&self.address.target, &command, &search_path());
        let (ssh, streams) = started.map_err(|error| Trouble::Host(error.into()))?;
        let (heard, ear) = Heard::new(streams.stdout);
        let line = &Line {
            ssh,
            out: Outbox::new(streams.stdin),
            ear,
            silent: AtomicBool::new(false),
            given: Given::default(),
            complaints: Complaints::default(),
        };
        let heard_out = line.complaints.listen(streams.stderr, self);
        let (unread, inbox) = mpsc::sync_channel(UNREAD_MAX);
        let (wants, wanted) = mpsc::sync_channel(WANTS_MAX);
        let ((over, clock), (over_too, alive)) = (mpsc::channel(), mpsc::channel());
        thread::spawn(move || read_all(heard, &unread));
        let (result, ended) = thread::scope(|scope| {
            scope.spawn(move || self.give(&wanted, line));
            scope.spawn(move || say_alive(&line.out, &alive));
            scope.spawn(move || self.watch(line, &clock));
            let talk = Talk { inbox, wants, line };
            let greeted = talk.greet().map_err(Trouble::Lost);
            let result = greeted.and_then(|()| work(&talk));
            drop(talk);
            // Somebody who still speaks is waiting for a host that does not listen.
            let all_said = line.out.close();
            let patience = if all_said { FAREWELL } else { Duration::ZERO };
            let ended = line.ssh.finish(patience);
            drop((over, over_too));
            (result, ended)
        });
        if self.interrupt.is_set() {
            return Err(Trouble::Final(Failure::interrupted()));
        }
        result.map_err(|trouble| match trouble {
            Trouble::Lost(lost) => {
                // It says all and hangs up, or says nothing more.
                let _ = heard_out.recv_timeout(LAST_WORDS);
                Trouble::Host(self.explain(&lost, line, ended))
            }
            other => other,
        })
    }

    /// Gives what is wanted, file by file.
    fn give(&self, wanted: &Receiver<Sha256>, line: &Line) {
        let Line { out, given, .. } = line;
        while let Ok(sha256) = wanted.recv() {
            let what = self.files.get(&sha256);
            let sent = match what {
                Some(what) => {
                    let task = self.ui.tasks().start(format!("sending {what}"));
                    let gone = |n, total| task.add_bytes(n, Some(total));
                    out.send::<Ask>(self.store, &sha256, gone)
                }
                None => out.lack::<Ask>().map(|()| None),
            };
            match (sent, what) {
                (Ok(Some(bytes)), Some(what)) => {
                    given.files.fetch_add(1, Ordering::Relaxed);
                    given.bytes.fetch_add(bytes, Ordering::Relaxed);
                    let size = units::bytes(bytes);
                    let what = format!("sent {what} ({size}) to {}", self.address);
                    self.ui.detail(what);
                }
                (Ok(_), _) => {}
                (Err(error), _) => {
                    if error.kind() != io::ErrorKind::BrokenPipe {
                        self.ui.warn(format!("cannot send a file: {error}"));
                    }
                    // Half a file cannot be gone on with.
                    return line.ssh.kill();
                }
            }
        }
    }

    /// Ends ssh when the user does not want to wait any more, or nobody should.
    fn watch(&self, line: &Line, over: &Receiver<()>) {
        while over.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            let is_silent = line.ear.silence() > SILENCE_MAX;
            if is_silent || self.interrupt.is_set() {
                line.silent.store(is_silent, Ordering::Relaxed);
                return line.ssh.kill();
            }
        }
    }

    /// Why a conversation was lost, by all that is known.
    fn explain(&self, lost: &Lost, line: &Line, ended: Option<ExitStatus>) -> Failure {
        let host = &self.address.target.host;
        let complaints = line.complaints.lines();
        let last = |otherwise: &str| {
            complaints
                .last()
                .map_or(otherwise, String::as_str)
                .to_owned()
        };
        let code = ended.and_then(|status| status.code());
        let (why, hint) = match (lost, code) {
            _ if line.silent.load(Ordering::Relaxed) => {
                let secs = SILENCE_MAX.as_secs();
                (format!("it said nothing for {secs} seconds"), None)
            }
            (Lost::Odd(what), _) => ((*what).to_owned(), None),
            (Lost::Wire(error @ WireError::Greeting(_)), _) => {
                let hint =
                    format!("`ssh {host} true` shows what is in the way, and has to print nothing");
                (error.to_string(), Some(hint))
            }
            (Lost::Wire(error), _) => (error.to_string(), None),
            (Lost::Gone, Some(NOT_FOUND)) => {
                let hint = format!("install it there: `ssh {host} p2pkgs --version` has to work");
                ("there is no p2pkgs on it".to_owned(), Some(hint))
            }
            (Lost::Gone, Some(SSH_FAILED)) => {
                let hint = format!("`ssh {host} true` has to work without a question");
                (last("ssh failed"), Some(hint))
            }
            (Lost::Gone, _) => (last("it broke off"), None),
        };
        let message = format!("cannot build on {}: {why}", self.address);
        let failure = Failure::new(Exit::Network, message).detail(complaints);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

fn read_all(mut heard: Heard<impl Read>, unread: &SyncSender<Result<Tell, WireError>>) {
    match read_greeting(&mut heard) {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => {
            let _ = unread.send(Err(error));
            return;
        }
    }
    loop {
        let message = match read(&mut heard) {
            Ok(Some(message)) => Ok(message),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        let is_last = message.is_err();
        // Nobody listens any more when the work is done.
        if unread.send(message).is_err() || is_last {
            return;
        }
    }
}

/// On a thread of its own: a host that does not listen may keep it waiting.
fn say_alive(out: &Outbox<ChildStdin>, over: &Receiver<()>) {
    while over.recv_timeout(ALIVE_EVERY) == Err(RecvTimeoutError::Timeout) {
        out.mutter(&Ask::Alive);
    }
}

/// What ssh, and what it started, said on standard error: the end of it.
#[derive(Clone, Debug, Default)]
struct Complaints(Arc<Mutex<VecDeque<String>>>);

impl Complaints {
    /// Listens until nothing more comes, which what is returned tells by hanging up.
    fn listen(&self, stderr: impl Read + Send + 'static, party: &Party<'_>) -> Receiver<()> {
        let (listening, over) = mpsc::channel();
        let (complaints, ui) = (self.clone(), party.ui.clone());
        let address = party.address.clone();
        thread::spawn(move || {
            let mut stderr = BufReader::new(stderr);
            while let Some(line) = next_line(&mut stderr) {
                ui.detail(format!("{address}: {line}"));
                complaints.keep(line);
            }
            drop(listening);
        });
        over
    }

    fn keep(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push_back(line);
        if lines.len() > COMPLAINTS_MAX {
            lines.pop_front();
        }
    }

    fn lines(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }
}

/// The next line that is not empty, cleaned and cut.
fn next_line(stderr: &mut impl io::BufRead) -> Option<String> {
    loop {
        let mut line = Vec::new();
        let read = stderr
            .take(COMPLAINT_BYTES_MAX)
            .read_until(b'\n', &mut line);
        if !read.is_ok_and(|read| read > 0) {
            return None;
        }
        let line = sanitize::bytes(line.trim_ascii_end(), COMPLAINT_CHARACTERS_MAX);
        if !line.is_empty() {
            return Some(line);
        }
    }
}
