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
use super::statements::{Ask, Enough};
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

/// Package caches, in the order in which they are preferred while nothing else is known of them.
#[derive(Clone)]
pub struct HttpCaches {
    http: HttpSources,
    /// URLs of the directories, without a slash at the end.
    bases: Vec<String>,
    known: Arc<Mutex<Known>>,
    enough: Arc<Enough>,
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
            Box::new(move |progress| {
                let request = SourceRequest {
                    sha256: realisation.sha256,
                    file_name: "output",
                    urls: &urls,
                };
                http.fetch(&request, store, progress)
            })
        };
        let (fetched, failed) = WHOLE_HEATS.run(doors.iter().map(way).collect(), progress)?;
        let asked = failed.merged(fetched.asked);
        Ok(Fetched { asked, ..fetched })
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
        // Who answers after the end is heard all the same.
        let known = Arc::clone(&self.known);
        let http = self.http.clone();
        let ask: Arc<Ask> = Arc::new(move |base, pkghash| {
            let answer = http.statements(base, pkghash);
            let knows = match &answer {
                Ok(statements) => !statements.is_empty(),
                // Object stores refuse what is not there to those who may not list.
                Err(Failure::Missing | Failure::Refused(_)) => false,
                Err(_) => return answer,
            };
            let mut known = lock(&known);
            if known.len() >= REMEMBERED_MAX && !known.contains_key(pkghash) {
                known.clear();
            }
            let said = known.entry(*pkghash).or_default();
            said.insert(base.to_owned(), knows);
            answer
        });
        self.http
            .query(&self.bases, pkghash, &ask, &*self.enough, progress)
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
                delivery.run(progress)
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
