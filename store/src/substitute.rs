//! Getting things from elsewhere: the contracts between who needs bytes (builder, command line) and who can get them.
//!
//! A *miss* is an answer, not a failure, and says who was asked. Every implementation writes through
//! [`Store::ingest`](crate::Store::ingest), so no byte becomes visible before its hash was checked.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use base::{PkgHash, Realisation, Sha256, SignedRealisation};

pub use crate::heats::{Heats, Way};
pub use crate::race::Race;
use crate::{Blob, Store, StoreError};

/// Who was asked during a search, and what came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Package caches and mirrors asked over HTTP or in the file system.
    pub caches: u32,
    /// DHT nodes asked for providers.
    pub dht_nodes: u32,
    /// Peers asked for the thing itself.
    pub providers: u32,
    /// How many of the caches and peers could not be reached.
    pub unreachable: u32,
    /// How many refused.
    pub refused: u32,
    /// How many did not answer in time.
    pub timed_out: u32,
    /// How many sent something that did not verify.
    pub invalid: u32,
    /// How many answered with an error of their own, or broke off.
    pub failed: u32,
    /// How many peers could only be met through a relay, which carries no files.
    pub relayed: u32,
    /// Configured first peers that could not be reached. They matter only where nobody else was found.
    pub first_peers_unreachable: u32,
}

impl Asked {
    /// Both searches together.
    #[must_use]
    pub const fn merged(self, other: Self) -> Self {
        Self {
            caches: self.caches.saturating_add(other.caches),
            dht_nodes: self.dht_nodes.saturating_add(other.dht_nodes),
            providers: self.providers.saturating_add(other.providers),
            unreachable: self.unreachable.saturating_add(other.unreachable),
            refused: self.refused.saturating_add(other.refused),
            timed_out: self.timed_out.saturating_add(other.timed_out),
            invalid: self.invalid.saturating_add(other.invalid),
            failed: self.failed.saturating_add(other.failed),
            relayed: self.relayed.saturating_add(other.relayed),
            // The same few peers, whatever was asked for.
            first_peers_unreachable: if self.first_peers_unreachable > other.first_peers_unreachable
            {
                self.first_peers_unreachable
            } else {
                other.first_peers_unreachable
            },
        }
    }

    /// Adds another search to this one.
    pub const fn merge(&mut self, other: Self) {
        *self = self.merged(other);
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = [
            counted(self.caches, "cache", "caches"),
            counted(self.dht_nodes, "DHT node", "DHT nodes"),
            counted(self.providers, "provider", "providers"),
        ];
        let asked: Vec<_> = asked.into_iter().flatten().collect();
        if asked.is_empty() {
            f.write_str("asked nobody")?;
        } else {
            write!(f, "asked {}", asked.join(", "))?;
        }
        let alone = self.dht_nodes == 0 && self.providers == 0;
        let first_peers = counted(
            self.first_peers_unreachable,
            "first peer unreachable",
            "first peers unreachable",
        );
        let troubles = [
            counted(self.unreachable, "unreachable", "unreachable"),
            counted(self.refused, "refused", "refused"),
            counted(self.timed_out, "timed out", "timed out"),
            counted(self.invalid, "invalid", "invalid"),
            counted(self.failed, "failed", "failed"),
            counted(
                self.relayed,
                "reachable only through a relay, which carries no files",
                "reachable only through relays, which carry no files",
            ),
        ];
        let troubles: Vec<_> = troubles
            .into_iter()
            .chain([first_peers.filter(|_| alone)])
            .flatten()
            .collect();
        if !troubles.is_empty() {
            write!(f, " ({})", troubles.join(", "))?;
        }
        Ok(())
    }
}

fn counted(count: u32, one: &str, many: &str) -> Option<String> {
    (count > 0).then(|| format!("{count} {}", if count == 1 { one } else { many }))
}

/// Where bytes came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// They were here already.
    Local,
    /// A peer on the local network, by its id.
    LanPeer(String),
    /// A peer elsewhere, by its id.
    Peer(String),
    /// A web server, by its host or URL.
    Http(String),
    /// A trustless gateway, by its URL.
    Gateway(String),
    /// A file or directory, by its path.
    File(String),
    /// Made from a bootstrap seed.
    Bootstrap,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("this store"),
            Self::LanPeer(id) => write!(f, "LAN peer {id}"),
            Self::Peer(id) => write!(f, "peer {id}"),
            Self::Http(url) => f.write_str(url),
            Self::Gateway(url) => write!(f, "gateway {url}"),
            Self::File(path) => write!(f, "file {path}"),
            Self::Bootstrap => f.write_str("bootstrap seed"),
        }
    }
}

/// Which realisations were found for a package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Signed and verified statements; whether their signers count is the caller's policy.
    pub realisations: Vec<SignedRealisation>,
    /// Who was asked.
    pub asked: Asked,
}

/// Something that was fetched and now is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The blob.
    pub blob: Blob,
    /// How many bytes came from whom.
    pub received: Vec<(Origin, u64)>,
    /// Who was asked.
    pub asked: Asked,
}

/// A source as a recipe describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRequest<'a> {
    /// Its SHA-256, which has the last word.
    pub sha256: Sha256,
    /// The name under which the recipe downloads it.
    pub file_name: &'a str,
    /// Where upstream keeps it.
    pub urls: &'a [String],
}

/// Who watches a fetch, and may stop it.
pub trait Progress: Send + Sync {
    /// `n` more bytes have arrived, of `total` where that is known.
    fn bytes(&self, n: u64, total: Option<u64>);

    /// Whether the fetch should stop as soon as it can.
    fn cancelled(&self) -> bool;
}

/// Progress that nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn bytes(&self, _n: u64, _total: Option<u64>) {}

    fn cancelled(&self) -> bool {
        false
    }
}

/// Why realisations could not be looked up. Finding none is not an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// Nobody answered in time.
    #[error("lookup timed out: {asked}")]
    TimedOut {
        /// Who was asked.
        asked: Asked,
    },
    /// The lookup itself went wrong.
    #[error("lookup failed")]
    Failed {
        /// What went wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The caller stopped it.
    #[error("lookup cancelled")]
    Cancelled,
}

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Everybody answered, nobody has it.
    #[error("not found: {asked}")]
    Missing {
        /// Who was asked.
        asked: Asked,
    },
    /// What came was something else.
    #[error("`{from}` sent something else: expected `{expected}`, got `{got}`")]
    Invalid {
        /// What was asked for.
        expected: String,
        /// What came.
        got: String,
        /// Who sent it.
        from: Origin,
    },
    /// Whoever has it does not give it, or our own policy forbids asking.
    #[error("refused by `{from}`: {reason}")]
    Refused {
        /// Who refused.
        from: Origin,
        /// Why, in their words or ours.
        reason: String,
    },
    /// The deadline passed.
    #[error("timed out: {asked}")]
    TimedOut {
        /// Who was asked.
        asked: Asked,
    },
    /// The fetch itself went wrong.
    #[error("fetch failed")]
    Failed {
        /// What went wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The caller stopped it.
    #[error("fetch cancelled")]
    Cancelled,
    /// Our own store could not take it.
    #[error("cannot keep what was fetched")]
    Store(#[from] StoreError),
}

/// Who can get built outputs from elsewhere.
pub trait Substituter: Send + Sync {
    /// Which realisations of a package are known. Ends soon after `progress` says that it should.
    ///
    /// # Errors
    /// [`QueryError`] when the lookup failed as a whole; an empty answer is no error.
    fn query(&self, pkghash: &PkgHash, progress: &dyn Progress) -> Result<Query, QueryError>;

    /// Gets the output that a realisation names into the store.
    ///
    /// # Errors
    /// [`FetchError`]; whatever it is, nothing that did not verify was kept.
    fn fetch(
        &self,
        realisation: &Realisation,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError>;
}

/// Who can get sources from elsewhere.
pub trait SourceFetcher: Send + Sync {
    /// Gets a source into the store.
    ///
    /// # Errors
    /// [`FetchError`]; whatever it is, nothing that did not verify was kept.
    fn fetch(
        &self,
        request: &SourceRequest<'_>,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError>;
}

/// Whether the realisations found so far are enough to stop looking.
pub(crate) type Enough = dyn Fn(&PkgHash, &[SignedRealisation]) -> bool + Send + Sync;

/// Several of a kind, tried in order: the next one on a miss, an invalid answer or a failure.
#[derive(Clone)]
pub struct First<T> {
    items: Vec<T>,
    enough: Arc<Enough>,
}

impl<T> First<T> {
    /// Tries `items` in order. Lookups stop at the first one that knows any realisation; see [`Self::until`].
    pub fn new(items: Vec<T>) -> Self {
        Self {
            items,
            enough: Arc::new(|_, found| !found.is_empty()),
        }
    }

    /// Lets lookups go on, collecting realisations, until `enough` says so: the place for the caller's trust policy.
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

    fn try_each(
        &self,
        progress: &dyn Progress,
        fetch: impl Fn(&T) -> Result<Fetched, FetchError>,
    ) -> Result<Fetched, FetchError> {
        let mut asked = Asked::default();
        let mut kept: Option<FetchError> = None;
        for item in &self.items {
            if progress.cancelled() {
                return Err(FetchError::Cancelled);
            }
            match fetch(item) {
                Ok(fetched) => {
                    return Ok(Fetched {
                        asked: asked.merged(fetched.asked),
                        ..fetched
                    });
                }
                // Our own disk is full, or the user pressed ^C: asking somebody else cannot help.
                Err(error @ (FetchError::Store(_) | FetchError::Cancelled)) => return Err(error),
                Err(error) => {
                    asked.merge(error.asked());
                    kept = Some(error.worse_than(kept));
                }
            }
        }
        Err(kept.map_or(FetchError::Missing { asked }, |error| {
            error.with_asked(asked)
        }))
    }
}

impl<T> fmt::Debug for First<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "First({} items)", self.items.len())
    }
}

impl FetchError {
    /// Who was asked before it went wrong, as far as the error knows.
    pub fn asked(&self) -> Asked {
        match self {
            Self::Missing { asked } | Self::TimedOut { asked } => *asked,
            Self::Invalid { .. } => Asked {
                invalid: 1,
                ..Asked::default()
            },
            Self::Refused { .. } => Asked {
                refused: 1,
                ..Asked::default()
            },
            Self::Failed { .. } | Self::Cancelled | Self::Store(_) => Asked::default(),
        }
    }

    /// A plain miss never hides an earlier error that says more.
    pub(crate) fn worse_than(self, earlier: Option<Self>) -> Self {
        match (self, earlier) {
            (Self::Missing { .. }, Some(earlier)) => earlier,
            (error, _) => error,
        }
    }

    pub(crate) fn with_asked(self, asked: Asked) -> Self {
        match self {
            Self::Missing { .. } => Self::Missing { asked },
            Self::TimedOut { .. } => Self::TimedOut { asked },
            other => other,
        }
    }
}

impl<T: Substituter> Substituter for First<T> {
    fn query(&self, pkghash: &PkgHash, progress: &dyn Progress) -> Result<Query, QueryError> {
        let mut found = Query::default();
        let mut kept = None;
        for item in &self.items {
            match item.query(pkghash, progress) {
                Ok(query) => {
                    found.asked.merge(query.asked);
                    for realisation in query.realisations {
                        if !found.realisations.contains(&realisation) {
                            found.realisations.push(realisation);
                        }
                    }
                }
                Err(QueryError::Cancelled) => return Err(QueryError::Cancelled),
                Err(error) => {
                    if let QueryError::TimedOut { asked } = &error {
                        found.asked.merge(*asked);
                    }
                    kept = Some(error);
                }
            }
            if (self.enough)(pkghash, &found.realisations) {
                return Ok(found);
            }
        }
        match kept {
            Some(QueryError::TimedOut { .. }) if found.realisations.is_empty() => {
                Err(QueryError::TimedOut { asked: found.asked })
            }
            Some(error) if found.realisations.is_empty() => Err(error),
            _ => Ok(found),
        }
    }

    fn fetch(
        &self,
        realisation: &Realisation,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        self.try_each(progress, |item| item.fetch(realisation, store, progress))
    }
}

impl<T: SourceFetcher> SourceFetcher for First<T> {
    fn fetch(
        &self,
        request: &SourceRequest<'_>,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Fetched, FetchError> {
        self.try_each(progress, |item| item.fetch(request, store, progress))
    }
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<T: Substituter + ?Sized> Substituter for $pointer {
            fn query(&self, pkghash: &PkgHash, progress: &dyn Progress) -> Result<Query, QueryError> {
                (**self).query(pkghash, progress)
            }

            fn fetch(
                &self,
                realisation: &Realisation,
                store: &Store,
                progress: &dyn Progress,
            ) -> Result<Fetched, FetchError> {
                (**self).fetch(realisation, store, progress)
            }
        }

        impl<T: SourceFetcher + ?Sized> SourceFetcher for $pointer {
            fn fetch(
                &self,
                request: &SourceRequest<'_>,
                store: &Store,
                progress: &dyn Progress,
            ) -> Result<Fetched, FetchError> {
                (**self).fetch(request, store, progress)
            }
        }
    )*};
}

forward!(&T, Box<T>, Arc<T>);
