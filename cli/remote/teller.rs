//! What the end that builds tells, and whom it asks: to its builder, the connection is one who watches, and one more place where
//! sources and outputs may be had.

use std::collections::HashMap;
use std::io::Stdout;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base::{PackageName, PkgHash, Realisation, Sha256, SignedRealisation};
use builder::{Event, Observer};
use serde_bytes::ByteBuf;
use store::substitute::{
    Asked, FetchError, Fetched, Origin, Progress, Query, QueryError, SourceFetcher, SourceRequest,
    Substituter,
};
use store::{Blob, Expected, Store, StoreError};

use super::link::{NotReceived, Outbox, receive};
use super::wire::{News, PIECE_BYTES, Part, Tell};
use crate::as_text::Text;
use crate::watch::{Watch, named, origins};

/// Tells the other end what happens.
pub struct Teller<'a> {
    /// Where it is told.
    pub out: &'a Outbox<Stdout>,
    /// Who watches here: knows how long builds take, and whether to stop.
    pub watch: &'a Watch,
}

impl Teller<'_> {
    fn tell(&self, news: News) {
        // That nobody listens any more is heard by the inbox, which ends everything.
        let _ = self.out.say(&Tell::News(news));
    }
}

impl Observer for Teller<'_> {
    fn event(&self, event: &Event<'_>) {
        let text = |package: &PackageName| Text(package.clone());
        match event {
            Event::Building { package, phase } => self.tell(News::Phase {
                package: text(package),
                phase: (*phase).into(),
            }),
            Event::Output {
                package,
                text: printed,
            } => {
                for piece in printed.chunks(PIECE_BYTES) {
                    self.tell(News::Output {
                        package: text(package),
                        text: ByteBuf::from(piece),
                    });
                }
            }
            Event::Built {
                package,
                bytes,
                elapsed,
            } => {
                self.watch.event(event);
                self.tell(News::Built {
                    package: text(package),
                    bytes: *bytes,
                    millis: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
                });
            }
            Event::Over { package } => self.tell(News::Over {
                package: text(package),
            }),
            Event::Warning {
                package,
                text: warning,
            } => self.tell(News::Warning {
                package: text(package),
                text: (*warning).to_owned(),
            }),
            Event::Fetched {
                package,
                source,
                bytes,
                received,
            } if received.iter().any(|(origin, _)| *origin != client()) => {
                self.tell(News::Fetched {
                    package: text(package),
                    what: named(package, *source),
                    bytes: *bytes,
                    from: origins(received),
                });
            }
            // Progress is not worth a message: while a file comes from the other end, it may not listen.
            _ => {}
        }
    }

    fn cancelled(&self) -> bool {
        self.watch.cancelled()
    }

    fn expected(&self, package: &PackageName) -> Option<Duration> {
        self.watch.expected(package)
    }
}

/// The other end as somebody who has files.
pub struct Asker<'a> {
    out: &'a Outbox<Stdout>,
    /// One file at a time: they all come through one pipe.
    parts: Mutex<Receiver<Part>>,
    expecting: Arc<AtomicBool>,
    /// What it says of packages.
    statements: HashMap<PkgHash, Vec<SignedRealisation>>,
}

impl<'a> Asker<'a> {
    /// Asks by `out`, and hears by `parts` while `expecting` says so.
    pub fn new(
        out: &'a Outbox<Stdout>,
        parts: Receiver<Part>,
        expecting: Arc<AtomicBool>,
        said: &[ByteBuf],
    ) -> Self {
        let mut statements: HashMap<_, Vec<_>> = HashMap::new();
        // What is no statement says nothing.
        for signed in said
            .iter()
            .filter_map(|b| SignedRealisation::from_bytes(b).ok())
        {
            let of_package = statements.entry(signed.realisation().pkghash);
            of_package.or_default().push(signed);
        }
        Self {
            out,
            parts: Mutex::new(parts),
            expecting,
            statements,
        }
    }

    /// A file that the other end may have.
    ///
    /// # Errors
    /// When the conversation is over, another file came, or the store fails.
    pub fn file(
        &self,
        store: &Store,
        sha256: &Sha256,
        expected: &Expected,
        progress: &dyn Progress,
    ) -> Result<Option<Blob>, FetchError> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        if progress.cancelled() {
            return Err(FetchError::Cancelled);
        }
        self.expecting.store(true, Ordering::SeqCst);
        let want = Tell::Want {
            sha256: Text(*sha256),
        };
        let asked = self.out.say(&want).map_err(|_| FetchError::Cancelled);
        let next = || parts.recv();
        let arrived = |n, total| progress.bytes(n, Some(total));
        let received = asked.map(|()| receive(store, expected, next, arrived));
        self.expecting.store(false, Ordering::SeqCst);
        received?.map_err(|error| match error {
            NotReceived::Over(_) => FetchError::Cancelled,
            NotReceived::Odd => invalid(sha256, "another file"),
            NotReceived::Store(StoreError::Mismatch { got, .. }) => invalid(sha256, &got),
            NotReceived::Store(error) => FetchError::Store(error),
        })
    }

    fn fetch_file(
        &self,
        store: &Store,
        sha256: &Sha256,
        expected: &Expected,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let asked = Asked::default();
        let blob = self.file(store, sha256, expected, progress)?;
        let blob = blob.ok_or(FetchError::Missing { asked })?;
        let received = vec![(client(), blob.size)];
        Ok(Fetched {
            blob,
            received,
            asked,
        })
    }
}

/// Who sent it, for people.
fn client() -> Origin {
    Origin::File("of the machine that asked".into())
}

fn invalid(expected: &Sha256, got: &str) -> FetchError {
    FetchError::Invalid {
        expected: expected.to_string(),
        got: got.to_owned(),
        from: client(),
    }
}

impl Substituter for Asker<'_> {
    fn query(&self, pkghash: &PkgHash, _progress: &dyn Progress) -> Result<Query, QueryError> {
        Ok(Query {
            realisations: self.statements.get(pkghash).cloned().unwrap_or_default(),
            asked: Asked::default(),
        })
    }

    fn fetch(
        &self,
        realisation: &Realisation,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let asked = Asked::default();
        let said = self.statements.get(&realisation.pkghash);
        if !said.is_some_and(|all| all.iter().any(|s| s.realisation() == realisation)) {
            return Err(FetchError::Missing { asked });
        }
        let expected = Expected::realisation(realisation);
        self.fetch_file(store, &realisation.sha256, &expected, progress)
    }
}

impl SourceFetcher for Asker<'_> {
    fn fetch(
        &self,
        request: &SourceRequest<'_>,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let expected = Expected::sha256(request.sha256);
        self.fetch_file(store, &request.sha256, &expected, progress)
    }
}
