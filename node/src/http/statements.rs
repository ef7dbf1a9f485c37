//! What caches and gateways say about packages: `PKGHASH.realisations` below their URL.
//!
//! Nothing that they say is believed: statements are signed, and what does not verify is left out as from peers.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use base::{PkgHash, SignedRealisation};
use store::substitute::{Progress, Query, QueryError};

use super::HttpSources;
use super::attempts::Attempts;
use super::page::open_file;
use super::transfer::{Failure, read_failure};
use crate::realisation_protocol::{StatementsError, read_statements};

/// The form of the answer, for those who give several.
const ACCEPT: &str = "application/vnd.p2pkgs.realisations";
/// How often a waiting query looks up.
const SLICE: Duration = Duration::from_millis(10);

impl HttpSources {
    /// Asks all of `bases` at once. One that does not answer in time is not asked again for a while, so that it costs its
    /// deadline once.
    pub(super) fn query(
        &self,
        bases: &[String],
        pkghash: &PkgHash,
        progress: &dyn Progress,
    ) -> Result<Query, QueryError> {
        let (sender, answers) = mpsc::sync_channel(bases.len().max(1));
        let now = Instant::now();
        let bases = bases.iter().filter(|b| !self.hosts.is_left_out(b, now));
        for base in bases {
            // On threads that are not waited for: one that says nothing would hold up whoever has heard enough.
            let (this, base, pkghash) = (self.clone(), base.clone(), *pkghash);
            let sender = sender.clone();
            std::thread::spawn(move || {
                let answer = this.ask(&base, &pkghash);
                let _ = sender.send((base, answer));
            });
        }
        drop(sender);
        let (mut query, mut attempts) = (Query::default(), Attempts::default());
        loop {
            match answers.recv_timeout(SLICE) {
                Ok((_, Ok(statements))) => {
                    query.asked.caches += 1;
                    for statement in statements {
                        if !query.realisations.contains(&statement) {
                            query.realisations.push(statement);
                        }
                    }
                }
                Ok((base, Err(failure))) => attempts.push(base, failure),
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

    fn ask(&self, base: &str, pkghash: &PkgHash) -> Result<Vec<SignedRealisation>, Failure> {
        let answer = self.statements(base, pkghash);
        match &answer {
            Err(failure @ (Failure::Unreachable(_) | Failure::TimedOut)) => {
                if self.hosts.note_silent(base, Instant::now()) {
                    tracing::warn!(url = base, ?failure, "it does not answer: doing without it");
                }
            }
            Err(Failure::Missing) | Ok(_) => {}
            Err(failure) => tracing::info!(url = base, ?failure, "statements cannot be had"),
        }
        answer
    }

    fn statements(&self, base: &str, pkghash: &PkgHash) -> Result<Vec<SignedRealisation>, Failure> {
        let url = format!("{base}/{pkghash}.realisations");
        let statements = match url.strip_prefix("file://") {
            Some(path) => read_statements(open_file(path)?, pkghash),
            None => {
                let body = self.get(&url, ACCEPT, Some(self.deadlines.request))?;
                read_statements(body, pkghash)
            }
        };
        statements.map_err(|error| match error {
            StatementsError::Read(error) => read_failure(error).into_failure(),
            error => Failure::Invalid {
                expected: format!("statements about `{pkghash}`"),
                got: error.to_string(),
            },
        })
    }
}
