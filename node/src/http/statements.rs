//! What caches and gateways say about packages: `PKGHASH.realisations` below a cache's URL, all of a closure in one request
//! where a gateway is a daemon of this project.
//!
//! Nothing that they say is believed: statements are signed, and what does not verify is left out as from peers.

use std::collections::HashMap;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base::{PkgHash, SignedRealisation};
use store::substitute::{Progress, Query, QueryError};

use super::HttpSources;
use super::attempts::Attempts;
use super::page::open_file;
use super::transfer::{Failure, read_failure};
use crate::realisation_protocol::{
    KEYS_MAX, Request, StatementsError, read_response, read_statements,
};

/// The form of the answer, for those who give several.
const ACCEPT: &str = "application/vnd.p2pkgs.realisations";
/// How often a waiting query looks up.
const SLICE: Duration = Duration::from_millis(10);
/// How long the others are heard when what was found is enough: who answers at the same time may contradict it.
const GRACE: Duration = Duration::from_millis(10);
/// The same of directories of this machine, which have no reason to be late.
const LOCAL_GRACE: Duration = Duration::from_millis(500);
/// Questions to a gateway are gathered until none has come for so long: no round trip is as short.
const QUIET: Duration = Duration::from_millis(2);
/// And for so many times of that at most: on a machine that is busy the threads of a command come one after the other.
const QUIET_TIMES_MAX: usize = 8;

/// What one of those who are asked says.
pub(super) type Answer = Result<Vec<SignedRealisation>, Failure>;
/// Whether what was found about a package is enough to stop asking.
pub(super) type Enough = dyn Fn(&PkgHash, &[SignedRealisation]) -> bool + Send + Sync;
/// Hears what each answers, by its URL, be it after the end.
pub(super) type Heard = dyn Fn(&str, &PkgHash, &Answer) + Send + Sync;
/// Asks one, by its URL.
pub(super) type Ask = dyn Fn(&str, &PkgHash) -> Answer + Send + Sync;

impl HttpSources {
    /// Asks all of `bases` at once, until that is enough, and a moment longer. One that does not answer in time is not asked again for a while, so that it costs its
    /// deadline once.
    pub(super) fn query(
        &self,
        bases: &[String],
        pkghash: &PkgHash,
        ask: &Arc<Ask>,
        heard: &Arc<Heard>,
        enough: &Enough,
        progress: &dyn Progress,
    ) -> Result<Query, QueryError> {
        let (sender, answers) = mpsc::sync_channel(bases.len().max(1));
        let now = Instant::now();
        let mut open: Vec<&String> = bases.iter().collect();
        open.retain(|base| !self.hosts.is_left_out(base, now));
        for &base in &open {
            // On threads that are not waited for: one that says nothing would hold up whoever has heard enough.
            let (this, base, pkghash) = (self.clone(), base.clone(), *pkghash);
            let (sender, ask, heard) = (sender.clone(), Arc::clone(ask), Arc::clone(heard));
            std::thread::spawn(move || {
                let started = Instant::now();
                let answer = ask(&base, &pkghash);
                this.note_answer(&base, &answer, started.elapsed());
                heard(&base, &pkghash, &answer);
                let _ = sender.send((base, answer));
            });
        }
        drop(sender);
        let (mut query, mut attempts) = (Query::default(), Attempts::default());
        let mut is_enough = false;
        loop {
            let wait = match is_enough {
                false => SLICE,
                true if open.iter().any(|base| base.starts_with("file://")) => LOCAL_GRACE,
                true => GRACE,
            };
            match answers.recv_timeout(wait) {
                Ok((base, Ok(statements))) => {
                    open.retain(|other| **other != base);
                    query.asked.caches += 1;
                    for statement in statements {
                        if !query.realisations.contains(&statement) {
                            query.realisations.push(statement);
                        }
                    }
                    is_enough = is_enough || enough(pkghash, &query.realisations);
                }
                Ok((base, Err(failure))) => {
                    open.retain(|other| **other != base);
                    attempts.push(base, failure);
                }
                Err(RecvTimeoutError::Timeout) if is_enough => break,
                Err(RecvTimeoutError::Timeout) if progress.cancelled() => {
                    return Err(QueryError::Cancelled);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        query.asked.merge(attempts.asked(false));
        Ok(query)
    }

    fn note_answer(&self, base: &str, answer: &Answer, took: Duration) {
        match answer {
            Err(failure @ (Failure::Unreachable(_) | Failure::TimedOut)) => {
                if self.hosts.note_silent(base, Instant::now()) {
                    tracing::warn!(url = base, ?failure, "it does not answer: doing without it");
                }
            }
            Err(Failure::Missing) | Ok(_) => self.hosts.note_answer(base, took),
            Err(failure) => tracing::info!(url = base, ?failure, "statements cannot be had"),
        }
    }

    /// What a cache says about a package.
    pub(super) fn statements(&self, base: &str, pkghash: &PkgHash) -> Answer {
        let url = format!("{base}/{pkghash}.realisations");
        let statements = match url.strip_prefix("file://") {
            Some(path) => read_statements(open_file(path)?, pkghash),
            None => {
                let now = Instant::now();
                std::thread::sleep(self.hosts.begin_at(base, now) - now);
                let body = self.get(&url, ACCEPT, Some(self.deadlines.request))?;
                read_statements(body, pkghash)
            }
        };
        statements.map_err(|error| failure(error, &url))
    }

    /// What a gateway says about some packages, in their order.
    fn statements_of_all(
        &self,
        base: &str,
        request: &Request,
    ) -> Result<Vec<Vec<SignedRealisation>>, Failure> {
        let hashes: Vec<_> = request.0.iter().map(PkgHash::to_string).collect();
        let url = format!("{base}/realisations?of={}", hashes.join(","));
        let body = self.get(&url, ACCEPT, Some(self.deadlines.request))?;
        read_response(body, request).map_err(|error| failure(error, base))
    }
}

fn failure(error: StatementsError, url: &str) -> Failure {
    match error {
        StatementsError::Read(error) => read_failure(error).into_failure(),
        error => Failure::Invalid {
            expected: format!("statements at `{url}`"),
            got: error.to_string(),
        },
    }
}

/// Questions to gateways that are put together: the packages of a closure are looked up at the same time by as many threads, and
/// go out in one request.
#[derive(Debug, Default)]
pub(super) struct Together(Mutex<Gathered>);

/// By the gateway's URL: what is wanted of it, and who waits for it.
type Gathered = HashMap<String, Vec<(PkgHash, SyncSender<Answer>)>>;

impl Together {
    /// What a gateway says about a package. Whoever is first gathers for a moment and asks for all.
    pub(super) fn ask(&self, http: &HttpSources, base: &str, pkghash: &PkgHash) -> Answer {
        let (sender, answer) = mpsc::sync_channel(1);
        let is_first = {
            let mut gathered = self.gathered();
            let wanted = gathered.entry(base.to_owned()).or_default();
            wanted.push((*pkghash, sender));
            wanted.len() == 1
        };
        if is_first {
            let mut known = 1;
            for _ in 0..QUIET_TIMES_MAX {
                std::thread::sleep(QUIET);
                let count = self.gathered().get(base).map_or(0, Vec::len);
                if count == std::mem::replace(&mut known, count) {
                    break;
                }
            }
            let wanted = self.gathered().remove(base).unwrap_or_default();
            for wanted in wanted.chunks(KEYS_MAX) {
                answer_all(http, base, wanted);
            }
        }
        let gone = |_| Failure::Broken("nobody asked".into());
        answer.recv().map_err(gone)?
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        // Every change is one insertion or removal, so a panic elsewhere leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer_all(http: &HttpSources, base: &str, wanted: &[(PkgHash, SyncSender<Answer>)]) {
    let request = Request(wanted.iter().map(|(pkghash, _)| *pkghash).collect());
    match http.statements_of_all(base, &request) {
        Ok(packages) => {
            for ((_, sender), statements) in wanted.iter().zip(packages) {
                let _ = sender.send(Ok(statements));
            }
        }
        Err(failure) => {
            for (_, sender) in wanted {
                let _ = sender.send(Err(failure.of_same_kind()));
            }
        }
    }
}
