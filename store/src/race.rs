//! Several substituters at once: the first good answer wins, and who is slow or dead costs nothing but patience.
//!
//! A **query** goes to all of them at the same time and ends as soon as what was found is enough, or all have answered. A
//! **fetch** begins with those who vouched for the output, in the order of the list, as [`Heats`] has it: so the worst that a
//! slow one can do is to have some bytes come twice.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::{PkgHash, Realisation, SignedRealisation};

use crate::Store;
use crate::heats::{Heats, Until, Way};
use crate::substitute::{Enough, FetchError, Fetched, Progress, Query, QueryError, Substituter};

/// How long a fetch may take before the next substituter is tried beside it: longer than most packages take from anybody
/// who is well, shorter than a person's patience.
const JOIN_AFTER: Duration = Duration::from_secs(3);
/// How long one may send nothing before the next one is tried beside it. Somebody who has just said that it has an output begins to
/// send it within a few round trips.
const SILENCE: Duration = Duration::from_millis(500);
/// Packages remembered with who vouched for them.
const REMEMBERED_MAX: usize = 4096;

/// Who of the items has vouched for a package, and who has answered that it knows nothing, or had trouble.
#[derive(Clone, Debug, Default)]
struct Said {
    vouched: Vec<usize>,
    denied: Vec<usize>,
}

/// Substituters that are asked at once.
pub struct Race<'a> {
    items: Vec<Box<dyn Substituter + 'a>>,
    enough: Arc<Enough>,
    /// What the items have said of a package.
    said: Mutex<HashMap<PkgHash, Said>>,
    silence: Duration,
    join_after: Duration,
}

impl<'a> Race<'a> {
    /// Asks all of `items`; of those who have something, the first in the list are preferred. A query ends when `enough`
    /// says so: the place for the caller's trust policy.
    pub fn new(
        items: Vec<Box<dyn Substituter + 'a>>,
        enough: impl Fn(&PkgHash, &[SignedRealisation]) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            items,
            enough: Arc::new(enough),
            said: Mutex::default(),
            silence: SILENCE,
            join_after: JOIN_AFTER,
        }
    }

    /// With another time after which the next one joins a fetch.
    #[must_use]
    pub fn joining_after(self, join_after: Duration) -> Self {
        let silence = self.silence.min(join_after);
        Self {
            silence,
            join_after,
            ..self
        }
    }

    /// The items in the order in which to fetch from them, and how many of them are worth asking beside others: those that
    /// have vouched, and those whose answer was not waited for.
    fn order(&self, pkghash: &PkgHash) -> (Vec<usize>, usize) {
        let said = lock(&self.said).get(pkghash).cloned().unwrap_or_default();
        let place = |item: &usize| match item {
            item if said.vouched.contains(item) => 0,
            item if said.denied.contains(item) => 2,
            _ => 1,
        };
        let mut order: Vec<_> = (0..self.items.len()).collect();
        order.sort_by_key(place);
        let worth_it = order.iter().filter(|item| place(item) < 2).count();
        (order, worth_it)
    }

    fn remember(&self, pkghash: PkgHash, said: Said) {
        let mut all = lock(&self.said);
        if all.len() >= REMEMBERED_MAX {
            all.clear();
        }
        all.insert(pkghash, said);
    }
}

impl fmt::Debug for Race<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Race({} items)", self.items.len())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the items have answered.
#[derive(Default)]
struct Answers {
    found: Query,
    said: Said,
    errors: Vec<QueryError>,
}

impl Answers {
    fn take(&mut self, item: usize, answer: Result<Query, QueryError>) {
        match answer {
            Ok(query) => {
                self.found.asked.merge(query.asked);
                if query.realisations.is_empty() {
                    self.said.denied.push(item);
                } else {
                    self.said.vouched.push(item);
                }
                for statement in query.realisations {
                    if !self.found.realisations.contains(&statement) {
                        self.found.realisations.push(statement);
                    }
                }
            }
            Err(error) => {
                self.said.denied.push(item);
                self.errors.push(error);
            }
        }
    }

    /// Something that was found counts for more than somebody's trouble.
    fn into_result(mut self) -> Result<Query, QueryError> {
        match self.errors.pop() {
            Some(error) if self.found.realisations.is_empty() => Err(error),
            _ => Ok(self.found),
        }
    }
}

impl Substituter for Race<'_> {
    fn query(&self, pkghash: &PkgHash, progress: &dyn Progress) -> Result<Query, QueryError> {
        let answers = Mutex::new(Answers::default());
        let settled = AtomicBool::new(false);
        let ask = |item: usize| {
            let progress = Until {
                progress,
                over: &settled,
            };
            let answer = self.items[item].query(pkghash, &progress);
            let mut answers = lock(&answers);
            // Whoever was stopped because another one knew enough has no trouble of his own.
            if matches!(answer, Err(QueryError::Cancelled)) && !progress.progress.cancelled() {
                return;
            }
            answers.take(item, answer);
            if (self.enough)(pkghash, &answers.found.realisations) {
                settled.store(true, Ordering::Relaxed);
            }
        };
        std::thread::scope(|scope| {
            for item in 1..self.items.len() {
                scope.spawn(move || ask(item));
            }
            if !self.items.is_empty() {
                ask(0);
            }
        });
        if progress.cancelled() {
            return Err(QueryError::Cancelled);
        }
        let mut answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.remember(*pkghash, std::mem::take(&mut answers.said));
        answers.into_result()
    }

    fn fetch(
        &self,
        realisation: &Realisation,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        let (order, eager) = self.order(&realisation.pkghash);
        let heats = Heats {
            silence: self.silence,
            head_start: self.join_after,
            eager,
        };
        let way = |item: usize| -> Way<'_, Fetched> {
            let substituter = &self.items[item];
            Box::new(move |progress| substituter.fetch(realisation, store, progress))
        };
        let (fetched, failed) = heats.run(order.into_iter().map(way).collect(), progress)?;
        let asked = failed.merged(fetched.asked);
        Ok(Fetched { asked, ..fetched })
    }
}

#[cfg(test)]
mod tests {
    use base::{Codec, SecretKey, Sha256, block_cid};

    use super::*;
    use crate::Expected;
    use crate::substitute::{Asked, NoProgress, Origin};

    const OUTPUT: &[u8] = b"output";

    fn realisation() -> Realisation {
        let sha256 = Sha256::of(OUTPUT);
        Realisation {
            pkghash: PkgHash::of_derivation(b"package"),
            output: block_cid(Codec::Raw, &sha256),
            sha256,
            size: OUTPUT.len() as u64,
        }
    }

    /// What a substituter does when it is asked.
    enum Act {
        Has(&'static str),
        HasNot,
        Fails,
        /// Hangs until it is told to stop.
        Hangs,
        /// Vouches, and hangs when it is to deliver.
        Promises,
    }

    fn until_stopped(progress: &dyn Progress) {
        while !progress.cancelled() {
            std::thread::yield_now();
        }
    }

    impl Substituter for Act {
        fn query(&self, _: &PkgHash, progress: &dyn Progress) -> Result<Query, QueryError> {
            let asked = Asked {
                caches: 1,
                ..Asked::default()
            };
            match self {
                Self::Has(_) | Self::Promises => {
                    let signed = realisation().sign(&SecretKey::from_seed(&[1; 32]));
                    let realisations = vec![signed];
                    Ok(Query {
                        realisations,
                        asked,
                    })
                }
                Self::HasNot => Ok(Query {
                    realisations: Vec::new(),
                    asked,
                }),
                Self::Fails => Err(QueryError::TimedOut { asked }),
                Self::Hangs => {
                    until_stopped(progress);
                    Err(QueryError::Cancelled)
                }
            }
        }

        fn fetch(
            &self,
            _: &Realisation,
            store: &Store,
            progress: &dyn Progress,
        ) -> Result<Fetched, FetchError> {
            let asked = Asked {
                caches: 1,
                ..Asked::default()
            };
            match self {
                Self::Has(name) => {
                    let mut ingest = store.ingest()?;
                    ingest.append(OUTPUT)?;
                    let blob = ingest.finish(&Expected::anything())?;
                    let received = vec![(Origin::Http((*name).to_owned()), blob.size)];
                    Ok(Fetched {
                        blob,
                        received,
                        asked,
                    })
                }
                Self::HasNot => Err(FetchError::Missing { asked }),
                Self::Fails => Err(FetchError::TimedOut { asked }),
                Self::Hangs | Self::Promises => {
                    until_stopped(progress);
                    Err(FetchError::Cancelled)
                }
            }
        }
    }

    fn race(acts: Vec<Act>) -> Race<'static> {
        let items = acts
            .into_iter()
            .map(|act| Box::new(act) as Box<dyn Substituter>);
        Race::new(items.collect(), |_, found| !found.is_empty())
            .joining_after(Duration::from_millis(10))
    }

    fn query(acts: Vec<Act>) -> Result<Query, QueryError> {
        race(acts).query(&realisation().pkghash, &NoProgress)
    }

    fn fetch(acts: Vec<Act>) -> Result<String, FetchError> {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let race = race(acts);
        race.query(&realisation().pkghash, &NoProgress).ok();
        let fetched = race.fetch(&realisation(), &store, &NoProgress)?;
        assert_eq!(fetched.blob.sha256, realisation().sha256);
        Ok(fetched.received[0].0.to_string())
    }

    #[test]
    fn whoever_hangs_does_not_keep_an_answer_back() {
        let found = query(vec![Act::Hangs, Act::HasNot, Act::Has("b"), Act::Hangs]).unwrap();
        assert_eq!(found.realisations.len(), 1);
    }

    #[test]
    fn all_are_counted_and_trouble_matters_only_where_nothing_was_found() {
        let found = query(vec![Act::HasNot, Act::HasNot]).unwrap();
        assert!(found.realisations.is_empty());
        assert_eq!(found.asked.caches, 2);
        assert!(query(vec![Act::HasNot, Act::Fails]).is_err());
        assert!(query(vec![Act::Fails, Act::Has("b")]).is_ok());
        assert!(query(Vec::new()).unwrap().realisations.is_empty());
    }

    #[test]
    fn who_vouched_delivers_and_the_first_of_them_is_preferred() {
        assert_eq!(
            fetch(vec![Act::HasNot, Act::Has("b"), Act::Has("c")]).unwrap(),
            "b"
        );
    }

    #[test]
    fn who_promises_and_does_not_deliver_is_overtaken() {
        assert_eq!(fetch(vec![Act::Promises, Act::Has("b")]).unwrap(), "b");
    }

    #[test]
    fn the_next_one_is_asked_when_one_fails() {
        let missing = fetch(vec![Act::HasNot, Act::HasNot]).unwrap_err();
        assert!(matches!(missing, FetchError::Missing { asked } if asked.caches == 2));
        let late = fetch(vec![Act::HasNot, Act::Fails]).unwrap_err();
        assert!(matches!(late, FetchError::TimedOut { .. }), "{late}");
    }
}
