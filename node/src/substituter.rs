//! Peers as a source of outputs and sources: the network's side of the store's contracts.
//!
//! Both calls of each contract may be made from any thread that is not one of the runtime's own. They look first at what
//! is here, then ask; whoever was asked, and how that went, is counted for the message the user will read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use base::{Cid, PkgHash, Realisation, Sha256, SignedRealisation};
use libp2p::PeerId;
use store::substitute::{
    Asked, FetchError, Fetched, Progress, Query, QueryError, SourceFetcher, SourceRequest,
    Substituter,
};
use store::{Expected, Store};
use tokio::sync::mpsc;

use crate::client::Client;
use crate::command::{Found, Question};
use crate::delta::{self, After, Outcome};
use crate::error::ClientError;
use crate::fetch::{self, Holders, Plan};

/// Packages whose holders are remembered between a query and the fetch that follows it.
const REMEMBERED_MAX: usize = 4096;

/// Whether the statements found so far are enough to stop looking.
type Enough = dyn Fn(&PkgHash, &[SignedRealisation]) -> bool + Send + Sync;

/// Built outputs from peers.
#[derive(Clone)]
pub struct PeerSubstituter {
    client: Client,
    enough: Arc<Enough>,
    /// Who answered about a package: the first providers of its output.
    holders: Arc<Mutex<HashMap<PkgHash, Vec<PeerId>>>>,
}

impl PeerSubstituter {
    /// Looks until everybody has answered or the deadline comes; see [`Self::until`].
    pub fn new(client: Client) -> Self {
        Self {
            client,
            enough: Arc::new(|_, _| false),
            holders: Arc::default(),
        }
    }

    /// Lets a query end as soon as `enough` says so: the place for the caller's trust policy. Without it a stranger's
    /// statement could not end a search, but a trusted one could not either.
    #[must_use]
    pub fn until(
        self,
        enough: impl Fn(&PkgHash, &[SignedRealisation]) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            enough: Arc::new(enough),
            ..self
        }
    }

    fn remember(&self, pkghash: PkgHash, peers: Vec<PeerId>) {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        if holders.len() >= REMEMBERED_MAX {
            holders.clear();
        }
        holders.insert(pkghash, peers);
    }

    /// Who answered about a package, as far as that is remembered.
    pub fn remembered(&self, pkghash: &PkgHash) -> Vec<PeerId> {
        let holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        holders.get(pkghash).cloned().unwrap_or_default()
    }
}

impl Substituter for PeerSubstituter {
    fn query(&self, pkghash: &PkgHash, progress: &dyn Progress) -> Result<Query, QueryError> {
        let enough = |found: &[SignedRealisation]| (self.enough)(pkghash, found);
        let found = self
            .client
            .blocking()
            .find_realisations(*pkghash, enough, progress)
            .map_err(|error| match error {
                ClientError::Cancelled => QueryError::Cancelled,
                error => QueryError::Failed {
                    source: error.into(),
                },
            })?;
        if found.overdue && found.found.is_empty() {
            return Err(QueryError::TimedOut { asked: found.asked });
        }
        self.remember(*pkghash, found.peers);
        let realisations = found
            .found
            .into_iter()
            .map(|(_, statement)| statement)
            .collect();
        Ok(Query {
            realisations,
            asked: found.asked,
        })
    }

    fn fetch(
        &self,
        realisation: &Realisation,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        if let Some(blob) = store.blob(&realisation.sha256)? {
            return Ok(fetch::local(blob));
        }
        let providers = self.remembered(&realisation.pkghash);
        let tried = delta::fetch(&self.client, realisation, &providers, store, progress)?;
        let (received, shown) = match tried {
            Outcome::Done(fetched) => return Ok(fetched),
            Outcome::Not { received, shown } => (received, shown),
        };
        let progress = &After::new(progress, shown);
        let mut search = Search::start(
            &self.client,
            Question::Realisations(realisation.pkghash),
            &providers,
        )?;
        let expected = Expected::realisation(realisation);
        let plan = Plan {
            root: realisation.output,
            providers,
            expected: &expected,
            claimed_size: None,
        };
        let mut knowers = Knowers {
            search: &mut search,
            root: realisation.output,
        };
        let result = fetch::fetch(&self.client, &plan, store, progress, &mut knowers);
        let mut fetched = search.count(result)?;
        fetched.received.extend(received);
        Ok(fetched)
    }
}

impl fmt::Debug for PeerSubstituter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerSubstituter")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// Sources from peers, by their plain SHA-256.
#[derive(Clone, Debug)]
pub struct PeerSources {
    client: Client,
}

impl PeerSources {
    /// Asks through a node.
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

impl SourceFetcher for PeerSources {
    fn fetch(
        &self,
        request: &SourceRequest<'_>,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        if let Some(blob) = store.blob(&request.sha256)? {
            return Ok(fetch::local(blob));
        }
        let mut search = Search::start(&self.client, Question::Source(request.sha256), &[])?;
        let mut last: Option<FetchError> = None;
        while let Some((root, size)) = search.next_root(progress)? {
            let result = self.fetch_root(request, root, size, store, progress, &mut search);
            match result {
                Ok(fetched) => return search.count(Ok(fetched)),
                Err(error @ (FetchError::Store(_) | FetchError::Cancelled)) => return Err(error),
                Err(error) => {
                    if matches!(error, FetchError::Invalid { .. }) {
                        search.accuse(request.sha256, &root);
                    }
                    tracing::info!(%error, %root, "a holder's copy could not be fetched");
                    // A lie says more than a copy that was merely not there.
                    if !matches!(last, Some(FetchError::Invalid { .. })) {
                        last = Some(error);
                    }
                }
            }
        }
        search.count(Err(last.unwrap_or(FetchError::Missing {
            asked: Asked::default(),
        })))
    }
}

impl PeerSources {
    fn fetch_root(
        &self,
        request: &SourceRequest<'_>,
        root: Cid,
        claimed_size: Option<u64>,
        store: &Store,
        progress: &dyn Progress,
        search: &mut Search<'_>,
    ) -> Result<Fetched, FetchError> {
        let expected = Expected::sha256(request.sha256);
        let providers = search.name_holders(&root);
        let plan = Plan {
            root,
            providers,
            expected: &expected,
            claimed_size,
        };
        let mut knowers = Knowers { search, root };
        fetch::fetch(&self.client, &plan, store, progress, &mut knowers)
    }
}

/// A lookup that goes on while its first answers are used already.
struct Search<'a> {
    client: &'a Client,
    answers: mpsc::Receiver<Found>,
    /// Sources only: the roots that were given, and the sizes. In order of arrival, so that the first answer is tried first.
    roots: Vec<(Cid, Option<u64>)>,
    tried: HashSet<Cid>,
    holders: BTreeMap<Cid, Vec<PeerId>>,
    /// Holders that a running fetch was told of.
    named: HashSet<PeerId>,
    /// Realisations only: who knows the package.
    knowers: Vec<PeerId>,
    sha256: Option<Sha256>,
    lied: u32,
    finished: Option<(Asked, bool)>,
}

impl<'a> Search<'a> {
    fn start(
        client: &'a Client,
        question: Question,
        providers: &[PeerId],
    ) -> Result<Self, FetchError> {
        let lookup = client.lookup(question, providers.to_vec());
        let answers = client
            .shared()
            .runtime
            .block_on(lookup)
            .map_err(fetch::stopped)?;
        let sha256 = match question {
            Question::Source(sha256) => Some(sha256),
            Question::Realisations(_) | Question::Providers(_) => None,
        };
        Ok(Self {
            client,
            answers,
            roots: Vec::new(),
            tried: HashSet::new(),
            holders: BTreeMap::new(),
            named: providers.iter().copied().collect(),
            knowers: Vec::new(),
            sha256,
            lied: 0,
            finished: None,
        })
    }

    /// Takes whatever has been answered so far, without waiting.
    fn drain(&mut self) {
        while let Ok(found) = self.answers.try_recv() {
            self.take(&found);
        }
    }

    fn take(&mut self, found: &Found) {
        match found {
            Found::Root { peer, root, size } => self.take_root(*peer, *root, *size),
            Found::Realisations { peer, .. } | Found::Provider { peer, .. } => {
                self.knowers.push(*peer);
            }
            Found::Finished { asked, overdue } => self.finished = Some((*asked, *overdue)),
        }
    }

    fn take_root(&mut self, peer: PeerId, root: Cid, size: Option<u64>) {
        if self
            .sha256
            .is_some_and(|sha256| self.client.has_lied(&peer, &sha256))
        {
            self.lied += 1;
            return;
        }
        if !self.holders.contains_key(&root) {
            self.roots.push((root, size));
        }
        self.holders.entry(root).or_default().push(peer);
    }

    /// The next root worth trying; waits for answers while any may come.
    fn next_root(
        &mut self,
        progress: &dyn Progress,
    ) -> Result<Option<(Cid, Option<u64>)>, FetchError> {
        loop {
            self.drain();
            let untried = self
                .roots
                .iter()
                .find(|(root, _)| !self.tried.contains(root))
                .copied();
            if let Some((root, size)) = untried {
                self.tried.insert(root);
                return Ok(Some((root, size)));
            }
            if self.finished.is_some() {
                return Ok(None);
            }
            let next = self.answers.recv();
            let next = self
                .client
                .blocking()
                .block_on_unless(next, progress)
                .and_then(|found| found.ok_or(ClientError::Stopped))
                .map_err(fetch::stopped)?;
            self.take(&next);
        }
    }

    /// The holders of a root, which count as named from now on.
    fn name_holders(&mut self, root: &Cid) -> Vec<PeerId> {
        let holders = self.holders.get(root).cloned().unwrap_or_default();
        self.named.extend(&holders);
        holders
    }

    /// Remembers that everybody who gave this root for the source lied.
    fn accuse(&mut self, sha256: Sha256, root: &Cid) {
        self.drain();
        let liars = self.holders.get(root).cloned().unwrap_or_default();
        self.lied += liars.len() as u32;
        self.client.remember_lie(sha256, &liars);
    }

    /// Puts who was asked into the result, and says "out of time" rather than "missing" where the search did not end.
    fn count(mut self, result: Result<Fetched, FetchError>) -> Result<Fetched, FetchError> {
        self.drain();
        let (mut asked, overdue) = self.finished.unwrap_or_else(|| {
            let providers = self.named.len() as u32;
            (
                Asked {
                    providers,
                    ..Asked::default()
                },
                false,
            )
        });
        asked.invalid += self.lied;
        match result {
            Ok(fetched) => Ok(Fetched {
                asked: joined(asked, fetched.asked),
                ..fetched
            }),
            Err(FetchError::Missing { asked: more } | FetchError::TimedOut { asked: more })
                if overdue =>
            {
                Err(FetchError::TimedOut {
                    asked: joined(asked, more),
                })
            }
            Err(FetchError::Missing { asked: more }) => Err(FetchError::Missing {
                asked: joined(asked, more),
            }),
            Err(FetchError::TimedOut { asked: more }) => Err(FetchError::TimedOut {
                asked: joined(asked, more),
            }),
            Err(error) => Err(error),
        }
    }
}

/// The question's count and the fetch's: they asked the same providers, so these are not added up.
fn joined(question: Asked, fetch: Asked) -> Asked {
    Asked {
        dht_nodes: question.dht_nodes.max(fetch.dht_nodes),
        providers: question.providers.max(fetch.providers),
        relayed: question.relayed.max(fetch.relayed),
        ..question
    }
}

/// The holders of one root, as a search finds them.
struct Knowers<'s, 'a> {
    search: &'s mut Search<'a>,
    root: Cid,
}

impl Holders for Knowers<'_, '_> {
    fn newcomers(&mut self) -> Vec<PeerId> {
        self.search.drain();
        let Search {
            holders,
            knowers,
            named,
            ..
        } = &mut *self.search;
        let holders = holders.get(&self.root).into_iter().flatten();
        holders
            .chain(knowers.iter())
            .filter(|peer| named.insert(**peer))
            .copied()
            .collect()
    }

    fn may_bring_more(&self) -> bool {
        self.search.finished.is_none()
    }
}
