//! Package caches: directories on web servers or in the file system, with some files for each package.
//!
//! `PKGHASH.realisations` holds the statements about it, `PKGHASH.tar.zst` an output, and `PKGHASH.outline` what its parts
//! hash to. Nothing a cache says is believed: statements are signed, the outline has the hash that the chosen statement
//! names, and each chunk that of the outline. So wrong bytes are found where they begin, and somebody else goes on from there.

mod contest;
mod delivery;
mod outline;
mod reader;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base::{PkgHash, Realisation, SignedRealisation};
use store::Store;
use store::car::Outline;
use store::substitute::{
    Asked, FetchError, Fetched, Heats, Progress, Query, QueryError, SourceFetcher as _,
    SourceRequest, Substituter, Way,
};

use self::contest::SILENCE_MAX;
use self::delivery::Delivery;
use super::HttpSources;
use super::statements::{Answer, Ask, Enough, Heard};
use super::transfer::Failure;

/// Packages remembered with who knows them.
const REMEMBERED_MAX: usize = 4096;
/// How whole files follow one another, where there is nothing by which to check their parts. Who is next may send everything
/// again, so it waits longer.
const WHOLE_HEATS: Heats = Heats {
    silence: SILENCE_MAX,
    head_start: Duration::from_secs(3),
    eager: usize::MAX,
};

/// Hears what each of several caches did. It is told on the threads that ask, so it may take its time.
pub trait CacheObserver: Send + Sync {
    /// The cache at `base` said this about a package: perhaps nothing, which is an answer too.
    fn answered(&self, base: &str, pkghash: &PkgHash, statements: &[SignedRealisation]);

    /// The cache at `base` did not give an output for which it was asked: it has none, or another one.
    fn not_delivered(&self, base: &str, realisation: &Realisation);
}

/// Nobody.
struct NoObserver;

impl CacheObserver for NoObserver {
    fn answered(&self, _base: &str, _pkghash: &PkgHash, _statements: &[SignedRealisation]) {}

    fn not_delivered(&self, _base: &str, _realisation: &Realisation) {}
}

/// Package caches, in the order in which they are preferred while nothing else is known of them.
#[derive(Clone)]
pub struct HttpCaches {
    http: HttpSources,
    /// URLs of the directories, without a slash at the end.
    bases: Vec<String>,
    known: Arc<Mutex<Known>>,
    enough: Arc<Enough>,
    observer: Arc<dyn CacheObserver>,
}

/// Whether caches know packages, as far as they have said.
type Known = HashMap<PkgHash, HashMap<String, bool>>;

impl HttpCaches {
    /// The caches at `urls`: `http://`, `https://` or `file://`.
    pub fn new(http: HttpSources, urls: &[String]) -> Self {
        let trimmed = urls.iter().map(|url| url.trim_end_matches('/').to_owned());
        Self {
            http,
            bases: trimmed.collect(),
            known: Arc::default(),
            enough: Arc::new(|_, _| false),
            observer: Arc::new(NoObserver),
        }
    }

    /// Lets a query end as soon as `enough` says so: the place for the caller's trust policy.
    #[must_use]
    pub fn until(
        self,
        enough: impl Fn(&PkgHash, &[SignedRealisation]) -> bool + Send + Sync + 'static,
    ) -> Self {
        let enough = Arc::new(enough);
        Self { enough, ..self }
    }

    /// Lets `observer` hear what each cache does, by its URL without a slash at the end.
    #[must_use]
    pub fn observed_by(self, observer: Arc<dyn CacheObserver>) -> Self {
        Self { observer, ..self }
    }

    /// Remembers who knows a package, and passes on what was said.
    fn heard(&self) -> Arc<Heard> {
        let (known, observer) = (Arc::clone(&self.known), Arc::clone(&self.observer));
        Arc::new(move |base, pkghash, answer: &Answer| {
            let statements = match answer {
                Ok(statements) => &statements[..],
                // Object stores refuse what is not there to those who may not list.
                Err(Failure::Missing | Failure::Refused(_)) => &[],
                Err(_) => return,
            };
            {
                let mut known = lock(&known);
                if known.len() >= REMEMBERED_MAX && !known.contains_key(pkghash) {
                    known.clear();
                }
                let said = known.entry(*pkghash).or_default();
                said.insert(base.to_owned(), !statements.is_empty());
            }
            observer.answered(base, pkghash, statements);
        })
    }

    /// Whom to ask for an output, the best first: who knows the package, then who has not answered yet, then who said that it
    /// does not know it; of those, who was right before and did not fail lately.
    fn doors(&self, pkghash: &PkgHash, now: Instant) -> Vec<String> {
        let known = lock(&self.known).get(pkghash).cloned().unwrap_or_default();
        let hosts = &self.http.hosts;
        let mut doors: Vec<_> = self.bases.clone();
        doors.retain(|base| !hosts.is_left_out(base, now));
        doors.sort_by_key(|base| {
            let standing = hosts.standing(base);
            let knows = match known.get(base) {
                Some(true) => 0,
                None => 1,
                Some(false) => 2,
            };
            (standing.is_last(now), knows, !standing.is_proven)
        });
        doors
    }

    /// The whole file from whoever has it, checked at its end.
    fn whole(
        &self,
        doors: &[String],
        realisation: &Realisation,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let http = self.http.clone().at_most(realisation.size);
        let way = |base: &String| -> Way<'_, Fetched> {
            let (http, urls) = (http.clone(), [output_url(base, &realisation.pkghash)]);
            let (observer, base) = (Arc::clone(&self.observer), base.clone());
            Box::new(move |progress| {
                let request = SourceRequest {
                    sha256: realisation.sha256,
                    file_name: "output",
                    urls: &urls,
                };
                let fetched = http.fetch(&request, store, progress);
                if is_withheld(&fetched) {
                    observer.not_delivered(&base, realisation);
                }
                fetched
            })
        };
        let (fetched, failed) = WHOLE_HEATS.run(doors.iter().map(way).collect(), progress)?;
        let asked = failed.merged(fetched.asked);
        Ok(Fetched { asked, ..fetched })
    }
}

/// Whether a cache could be asked, and did not give what it should have.
fn is_withheld(fetched: &Result<Fetched, FetchError>) -> bool {
    match fetched {
        Err(FetchError::Missing { asked }) => asked.caches > 0,
        Err(FetchError::Invalid { .. } | FetchError::Refused { .. }) => true,
        _ => false,
    }
}

/// Where a cache has an output.
fn output_url(base: &str, pkghash: &PkgHash) -> String {
    format!("{base}/{pkghash}.tar.zst")
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    // Every change is one insertion or removal, so a panic elsewhere leaves the map whole.
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Substituter for HttpCaches {
    fn query(&self, pkghash: &PkgHash, progress: &dyn Progress) -> Result<Query, QueryError> {
        let http = self.http.clone();
        let ask: Arc<Ask> = Arc::new(move |base, pkghash| http.statements(base, pkghash));
        self.http.query(
            &self.bases,
            pkghash,
            &ask,
            &self.heard(),
            &*self.enough,
            progress,
        )
    }

    fn fetch(
        &self,
        realisation: &Realisation,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        if let Some(blob) = store.blob(&realisation.sha256)? {
            return Ok(crate::fetch::local(blob));
        }
        let mut doors = self.doors(&realisation.pkghash, Instant::now());
        if doors.is_empty() {
            let asked = Asked::default();
            return Err(FetchError::Missing { asked });
        }
        let outline = match Outline::of_one_chunk(&realisation.output, realisation.size) {
            Some(outline) => Some(outline),
            None => outline::get(&self.http, &mut doors, realisation, progress)?,
        };
        match outline {
            Some(outline) => {
                let delivery = Delivery::open(&self.http, &doors, realisation, outline, store)?;
                let withheld = |base: &str| self.observer.not_delivered(base, realisation);
                delivery.run(&withheld, progress)
            }
            None => self.whole(&doors, realisation, store, progress),
        }
    }
}

impl fmt::Debug for HttpCaches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpCaches").field(&self.bases).finish()
    }
}
