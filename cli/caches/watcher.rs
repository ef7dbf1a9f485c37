//! Looks at what a package cache says of itself while it is used: at its head, and whether it gives what the head lists.
//!
//! A cache that hands out an old copy, or keeps a package back, cannot be made to give it; but who uses it should know. So nothing here
//! is waited for while packages are looked up, and nothing here fails anything: the work is done on a thread of its own, beside
//! everything else, and told as warnings. Only at the end of the command a cache that did answer gets a moment to answer this too.
//!
//! One thing is waited for, as it is asked for at the same time as the first package: what the cache says of keys, since a revocation
//! must count for what comes with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base::{PkgHash, Realisation, Sha256, SignedRealisation};
use store::substitute::{FetchError, Progress};
use trust::{HEAD_BYTES_MAX, HeadKind, News, NotNext, SignedHead, SignedKeyStatement};

use super::listed::Listed;
use super::{Shelf, memory_name};
use crate::believing::Believer;
use crate::bench::unix_secs;
use crate::context::PackageNames;
use crate::error::CmdResult;
use crate::heads::{self, Followed, HEAD_FILE, Memory, read_head};
use crate::home::Home;
use crate::network::Remote;
use crate::sanitize;
use crate::statements;
use crate::witness;

/// How long is waited for what a cache says of keys, and at the end of a command for its head and index: less than a lookup may
/// take, and more than a server that is well needs.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often who waits looks up.
const SLICE: Duration = Duration::from_millis(10);
/// Packages that wait to be looked for in the index; further ones are not looked for.
const NOTES_MAX: usize = 4096;

/// What happened.
enum Note {
    /// The cache gave these statements about a package.
    Answered(PkgHash, Vec<SignedRealisation>),
    /// It did not give this output.
    NotDelivered(PkgHash, Sha256),
}

/// Who looks at one cache, or at one gateway, which has no head.
#[derive(Debug)]
pub struct Watcher {
    looking: Arc<Looking>,
    /// Where notes go; `None` before the first question.
    work: Mutex<Option<Work>>,
    /// Whether it answered anything, so that it is worth waiting for.
    has_answered: AtomicBool,
}

#[derive(Debug)]
struct Work {
    began: Instant,
    notes: SyncSender<Note>,
    done: Receiver<()>,
}

/// What the thread works with.
#[derive(Debug)]
pub(super) struct Looking {
    url: String,
    pub(super) shelf: Shelf,
    remote: Arc<Remote>,
    believer: Arc<Believer>,
    pub(super) names: PackageNames,
    /// Where heads are remembered; `None` for what has none.
    home: Option<Home>,
    /// Nobody waits any more.
    is_over: AtomicBool,
    keys_are_read: Mutex<bool>,
    changed: Condvar,
}

impl Progress for Looking {
    fn bytes(&self, _n: u64, _total: Option<u64>) {}

    fn cancelled(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one assignment, so a panic elsewhere leaves the value whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watcher {
    /// Looks at the cache at `url`, once it is used. Heads are remembered in `home`, if it can have one.
    pub fn new(
        url: &str,
        shelf: Shelf,
        remote: Arc<Remote>,
        believer: Arc<Believer>,
        names: PackageNames,
        home: Option<&Home>,
    ) -> Self {
        Self {
            looking: Arc::new(Looking {
                url: url.to_owned(),
                shelf,
                remote,
                believer,
                names,
                home: home.cloned(),
                is_over: AtomicBool::new(false),
                keys_are_read: Mutex::new(false),
                changed: Condvar::new(),
            }),
            work: Mutex::new(None),
            has_answered: AtomicBool::new(false),
        }
    }

    /// Starts to look, the first time.
    pub fn begin(&self) {
        let mut work = lock(&self.work);
        if work.is_some() {
            return;
        }
        let (notes, inbox) = mpsc::sync_channel(NOTES_MAX);
        let (sender, done) = mpsc::sync_channel(1);
        let looking = Arc::clone(&self.looking);
        std::thread::spawn(move || {
            looking.run(&inbox);
            let _ = sender.send(());
        });
        *work = Some(Work {
            began: Instant::now(),
            notes,
            done,
        });
    }

    /// The cache gave these statements about a package, perhaps none.
    pub fn answered(&self, pkghash: &PkgHash, statements: &[SignedRealisation]) {
        self.has_answered.store(true, Ordering::Relaxed);
        self.note(Note::Answered(*pkghash, statements.to_vec()));
    }

    /// The cache did not give an output for which it was asked.
    pub fn not_delivered(&self, realisation: &Realisation) {
        self.note(Note::NotDelivered(realisation.pkghash, realisation.sha256));
    }

    fn note(&self, note: Note) {
        if let Some(work) = &*lock(&self.work) {
            // What finds no room is not looked for.
            let _ = work.notes.try_send(note);
        }
    }

    /// What the cache says of keys, on its way; `None` before [`Watcher::begin`].
    pub fn keys(&self) -> Option<KeysToCome> {
        let began = lock(&self.work).as_ref()?.began;
        Some(KeysToCome {
            looking: Arc::clone(&self.looking),
            until: began + PATIENCE,
        })
    }
}

/// What a cache says of keys, which is being read. It keeps no watcher alive.
#[derive(Debug)]
pub struct KeysToCome {
    looking: Arc<Looking>,
    until: Instant,
}

impl KeysToCome {
    /// Waits until it was read, but not long, and once for all packages.
    pub fn wait(self, progress: &dyn Progress) {
        let mut are_read = lock(&self.looking.keys_are_read);
        while !*are_read && Instant::now() < self.until && !progress.cancelled() {
            let waited = self.looking.changed.wait_timeout(are_read, SLICE);
            are_read = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let Some(Work { notes, done, .. }) = lock(&self.work).take() else {
            return;
        };
        drop(notes);
        if self.has_answered.load(Ordering::Relaxed) {
            self.wait_for_end(&done);
        }
        self.looking.is_over.store(true, Ordering::Relaxed);
    }
}

impl Watcher {
    fn wait_for_end(&self, done: &Receiver<()>) {
        let until = Instant::now() + PATIENCE;
        while let Err(RecvTimeoutError::Timeout) = done.recv_timeout(SLICE) {
            if self.looking.believer.is_interrupted() {
                return;
            }
            if Instant::now() >= until {
                return self.looking.tell_silence();
            }
        }
    }
}

impl Looking {
    fn run(&self, notes: &Receiver<Note>) {
        self.read_keys();
        *lock(&self.keys_are_read) = true;
        self.changed.notify_all();
        let head = self.home.as_ref().and_then(|home| {
            self.head(home).unwrap_or_else(|failure| {
                let url = self.shown();
                let doing = format!("cannot tell whether `{url}` is what it was");
                self.warn(failure.context(doing).message());
                None
            })
        });
        let Some(head) = head else { return };
        let mut listed = Listed::of(self, &head);
        for note in notes {
            match note {
                Note::Answered(pkghash, said) => {
                    let is_vouched = said.iter().any(|s| self.believer.counts(s.signer()));
                    if !is_vouched {
                        listed.look_for(&pkghash, None);
                    }
                }
                Note::NotDelivered(pkghash, sha256) => listed.look_for(&pkghash, Some(&sha256)),
            }
        }
        listed.tell();
        // Last, when peers were met.
        self.hear(&head);
    }

    fn read_keys(&self) {
        let read = self
            .shelf
            .read(statements::FILE, statements::BYTES_MAX, self);
        let Ok(Some(bytes)) = read else {
            return;
        };
        match SignedKeyStatement::parse_file(&bytes) {
            Ok(offered) => self.believer.take_in(&self.shown(), &offered),
            Err(error) => tracing::info!(url = self.url, %error, "no statements about keys"),
        }
    }

    /// The cache's head, if it is one to hold the cache to; remembers it if it is news. What is wrong with it is told.
    fn head(&self, home: &Home) -> CmdResult<Option<SignedHead>> {
        let memory = Memory::of(home, HeadKind::Cache, &memory_name(&self.url));
        let read = self.shelf.read(HEAD_FILE, HEAD_BYTES_MAX, self);
        let counts = |signed: &SignedHead| signed.signers().any(|key| self.believer.counts(key));
        let got = match read {
            Ok(bytes) => bytes.and_then(|bytes| read_head(&bytes, HeadKind::Cache).ok()),
            Err(FetchError::Refused { .. } | FetchError::Invalid { .. }) => None,
            Err(FetchError::Cancelled) => return Ok(None),
            Err(error) => {
                tracing::info!(url = self.url, %error, "no head");
                self.tell_silence();
                return Ok(None);
            }
        };
        // A cache without heads, as most are, leaves no trace in the home.
        if got.is_none() && memory.head()?.is_none() {
            return Ok(None);
        }
        let _lock = memory.lock_shortly(home)?;
        let seen = memory.head()?.filter(counts);
        match (got.filter(counts), seen) {
            (Some(got), seen) => self.compare(home, &memory, got, seen.as_ref()),
            (None, Some(seen)) => {
                let head = seen.head();
                self.warn(format!(
                    "`{}` shows no head any more by anybody whom you trust, and showed revision {} of `{}` before: it may be an old copy, and keep packages back",
                    self.shown(),
                    head.revision,
                    head.name
                ));
                Ok(None)
            }
            (None, None) => Ok(None),
        }
    }

    fn compare(
        &self,
        home: &Home,
        memory: &Memory,
        got: SignedHead,
        seen: Option<&SignedHead>,
    ) -> CmdResult<Option<SignedHead>> {
        let (url, head) = (self.shown(), got.head());
        let begins_anew = format!("if its makers began anew, `p2pkgs cache forget {url}`");
        if let Some(seen) = seen.map(SignedHead::head)
            && seen.name != head.name
        {
            let (was, is) = (&seen.name, &head.name);
            self.warn(format!(
                "`{url}` was the cache `{was}`, and shows the head of `{is}` now; {begins_anew}"
            ));
            return Ok(None);
        }
        let mut others = Vec::new();
        for (_, other) in Memory::all(home, HeadKind::Cache)? {
            others.extend(other.head()?);
        }
        match got.follows_all(&others, |key| self.believer.counts(key)) {
            Ok(news) => {
                if news == News::Newer || seen.is_none() {
                    memory.remember(&got)?;
                    memory.follow(&Followed {
                        source: Some(self.url.clone()),
                        ..Followed::default()
                    })?;
                }
            }
            Err((NotNext::RolledBack { seen, got }, _)) => self.warn(format!(
                "`{url}` is an old copy: it shows revision {got} of `{}`, and revision {seen} was seen before; {begins_anew}",
                head.name
            )),
            Err((_, seen)) => {
                self.warn(format!(
                    "`{url}` contradicts what was seen of the cache `{}`: {}, and {}{}",
                    head.name,
                    heads::in_words(seen),
                    heads::in_words(&got),
                    self.keep_proof([seen, &got])
                ));
                return Ok(None);
            }
        }
        if head.stale_secs(unix_secs()).is_some() {
            let day = heads::last_day(head.expires_unix_secs);
            self.warn(format!(
                "the head of `{url}` has expired, its last day was {day}: the cache is kept no more, or what is new is kept from you"
            ));
        }
        Ok(Some(got))
    }

    /// Compares the head with those that peers have seen of the same cache, signed by somebody who counts and signed both.
    fn hear(&self, head: &SignedHead) {
        // Whoever looks up packages has a node by now, or none at all.
        let Ok(Some(client)) = self.remote.client() else {
            return;
        };
        let (url, name) = (self.shown(), &head.head().name);
        for (peer, seen) in witness::cache_heads_seen(client, name, self) {
            let stands_against = head.follows_all([&seen], |key| self.believer.counts(key));
            match stands_against {
                Ok(_) => {}
                Err((NotNext::RolledBack { seen, got }, _)) => self.warn(format!(
                    "`{url}` shows revision {got} of `{name}`, and peer {peer} has seen revision {seen}: it may keep back what came since"
                )),
                Err(_) => self.warn(format!(
                    "`{url}` contradicts what peer {peer} has seen of the cache `{name}`: {}, and {}{}",
                    heads::in_words(&seen),
                    heads::in_words(head),
                    self.keep_proof([&seen, head])
                )),
            }
        }
    }

    fn keep_proof(&self, both: [&SignedHead; 2]) -> String {
        let Some(home) = &self.home else {
            return String::new();
        };
        let memory = Memory::of(home, HeadKind::Cache, &memory_name(&self.url));
        match memory.keep_proof(both) {
            Ok([a, b]) => format!("; kept in `{}` and `{}`", a.display(), b.display()),
            Err(failure) => format!("; {}", failure.message()),
        }
    }

    /// A cache whose head was seen before, and that says nothing now when it is asked for it.
    fn tell_silence(&self) {
        let seen = self.home.as_ref().and_then(|home| {
            let memory = Memory::of(home, HeadKind::Cache, &memory_name(&self.url));
            memory.head().ok()?
        });
        if seen.is_some() {
            let url = self.shown();
            self.warn(format!(
                "`{url}` did not give its head in time: whether it is up to date cannot be told"
            ));
        }
    }

    /// The URL, for people.
    pub(super) fn shown(&self) -> String {
        sanitize::line(&self.url)
    }

    /// Tells the user, while he waits for anything.
    pub(super) fn warn(&self, text: String) {
        // Who does not wait any more is not to be surprised either.
        if !self.is_over.load(Ordering::Relaxed) {
            self.believer.ui().warn(text);
        }
    }
}
