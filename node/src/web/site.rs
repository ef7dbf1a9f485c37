//! What is served: which path means what, who may ask for it, and how it is counted.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bitswap::Budget;
use bytes::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use store::Store;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::body::Content;
use super::request::{Asked, Refusal};
use super::{files, gateway, metrics, page, routing};
use crate::address::{Reach, reach_of_ip};
use crate::client::Client;
use crate::status::Status;

/// Answers under way that read from the disk. Further visitors are told to come again (429).
const TRANSFERS_MAX: usize = 32;
/// When a visitor who found no room should come again, in seconds.
const RETRY_AFTER_SECS: u32 = 5;
/// How long the node may take to say how it is. It answers within milliseconds unless it hangs.
const STATUS_DEADLINE: Duration = Duration::from_secs(5);

/// What pages tell that only the program around the node knows.
pub trait Facts: Send + Sync {
    /// The packages of the tree, and which of them are here. May read the disk.
    fn packages(&self) -> Vec<PackageFacts>;

    /// What keys said of keys, as a file that is handed on. May read the disk. The node knows nothing of what it means.
    fn key_statements(&self) -> Option<Vec<u8>> {
        None
    }
}

/// A package of the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PackageFacts {
    /// Its name.
    pub name: String,
    /// Its package hash.
    pub pkghash: String,
    /// Whether its output is here.
    pub output: bool,
    /// How many of its sources are here.
    pub sources_here: usize,
    /// How many sources it has.
    pub sources: usize,
}

/// No tree, no packages.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFacts;

impl Facts for NoFacts {
    fn packages(&self) -> Vec<PackageFacts> {
        Vec::new()
    }
}

/// What a server serves.
pub struct Site {
    pub(super) client: Client,
    pub(super) store: Store,
    pub(super) facts: Arc<dyn Facts>,
    /// Whether the node is of use only while it listens.
    listens: bool,
    /// Whether our own network may read the pages too.
    pages_to_network: bool,
    pub(super) upload: Budget,
    pub(super) counters: Counters,
    transfers: Arc<Semaphore>,
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// What was answered since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    responses: Mutex<BTreeMap<(Endpoint, u16), u64>>,
    sent_bytes: AtomicU64,
}

impl Counters {
    fn answered(&self, endpoint: Endpoint, code: u16) {
        let mut responses = self
            .responses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *responses.entry((endpoint, code)).or_default() += 1;
    }

    /// Counts bytes of files, blocks and archives.
    pub(super) fn sent(&self, bytes: u64) {
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Answers by kind and status.
    pub(super) fn responses(&self) -> Vec<(Endpoint, u16, u64)> {
        let responses = self
            .responses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        responses
            .iter()
            .map(|((e, code), n)| (*e, *code, *n))
            .collect()
    }

    /// Bytes of files, blocks and archives.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }
}

/// What a path means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Endpoint {
    Home,
    Health,
    Ready,
    Metrics,
    Page,
    Style,
    Json,
    Ipfs,
    Ipns,
    File,
    Package,
    Keys,
    Realisations,
    Providers,
    Unknown,
}

impl Endpoint {
    /// What the parts of a path mean.
    fn of(path: &[String]) -> Self {
        let parts: Vec<_> = path.iter().map(String::as_str).collect();
        match parts[..] {
            [] => Self::Home,
            ["healthz"] => Self::Health,
            ["readyz"] => Self::Ready,
            ["metrics"] => Self::Metrics,
            ["status"] => Self::Page,
            ["status.css"] => Self::Style,
            ["status.json"] => Self::Json,
            ["ipfs", _, ..] => Self::Ipfs,
            ["ipns", _, ..] => Self::Ipns,
            ["sha256", _] => Self::File,
            ["realisations"] => Self::Realisations,
            ["routing", "v1", "providers", _] => Self::Providers,
            ["key-statements"] => Self::Keys,
            [name] if files::Wanted::of(name).is_some() => Self::Package,
            _ => Self::Unknown,
        }
    }

    /// Whether only this machine is answered: who is connected, what is being fetched, and searches in our name are nobody
    /// else's business.
    pub(super) const fn is_private(self) -> bool {
        matches!(
            self,
            Self::Home | Self::Metrics | Self::Page | Self::Style | Self::Json | Self::Providers
        )
    }

    /// Its name in metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::Health => "healthz",
            Self::Ready => "readyz",
            Self::Metrics => "metrics",
            Self::Page | Self::Style => "status",
            Self::Json => "status.json",
            Self::Ipfs => "ipfs",
            Self::Ipns => "ipns",
            Self::File => "sha256",
            Self::Package => "package",
            Self::Keys => "key-statements",
            Self::Realisations => "realisations",
            Self::Providers => "routing",
            Self::Unknown => "unknown",
        }
    }
}

/// An answer in the making.
pub(super) type Answer = Result<Response<Content>, Refusal>;

/// One visitor's question, with all that is needed to answer it.
pub(super) struct Visit<'r> {
    pub(super) site: &'r Arc<Site>,
    pub(super) asked: Asked<'r>,
    /// Whether the visitor is on our own network.
    pub(super) near: bool,
}

impl Site {
    /// Serves what a node and its store have. `listens`: the node is of use only while it listens.
    pub fn new(client: Client, store: Store, facts: Arc<dyn Facts>, listens: bool) -> Self {
        Self {
            upload: client.shared().upload.clone(),
            client,
            store,
            facts,
            listens,
            pages_to_network: false,
            counters: Counters::default(),
            transfers: Arc::new(Semaphore::new(TRANSFERS_MAX)),
        }
    }

    /// Lets machines of our own network read the status page and the metrics, by this machine's number.
    #[must_use]
    pub fn with_pages_to_network(self, pages_to_network: bool) -> Self {
        Self {
            pages_to_network,
            ..self
        }
    }

    /// Answers a request.
    pub(super) async fn answer<B>(
        self: &Arc<Self>,
        visitor: SocketAddr,
        request: &Request<B>,
    ) -> Response<Content> {
        let (endpoint, answer) = match Asked::of(request) {
            Err(refusal) => (Endpoint::Unknown, Err(refusal)),
            Ok(asked) => {
                let endpoint = Endpoint::of(&asked.path);
                let near = reach_of_ip(visitor.ip().to_canonical()) == Reach::Near;
                let visit = Visit {
                    site: self,
                    asked,
                    near,
                };
                (endpoint, self.route(endpoint, visitor, &visit).await)
            }
        };
        let mut response = answer.unwrap_or_else(|refusal| refused(&refusal));
        secure(&mut response);
        self.counters.answered(endpoint, response.status().as_u16());
        tracing::debug!(%visitor, path = request.uri().path(), status = %response.status(), "answered");
        response
    }

    async fn route(&self, endpoint: Endpoint, visitor: SocketAddr, visit: &Visit<'_>) -> Answer {
        // Searches in our name are for this machine alone, whoever may read the pages.
        let network = self.pages_to_network && endpoint != Endpoint::Providers;
        if endpoint.is_private() && !visit.asked.is_of_this_machine(visitor, network) {
            let reason = "this page is for the machine the node runs on, under the name localhost";
            return Err(Refusal::new(403, reason));
        }
        match endpoint {
            Endpoint::Home => Ok(redirect("/status")),
            Endpoint::Health => Ok(text(StatusCode::OK, "alive\n")),
            Endpoint::Ready => Ok(self.ready().await),
            Endpoint::Metrics => metrics::answer(visit).await,
            Endpoint::Page => page::answer(visit).await,
            Endpoint::Style => Ok(page::style()),
            Endpoint::Json => page::json(visit).await,
            Endpoint::Ipfs => gateway::content(visit).await,
            Endpoint::Ipns => gateway::name(visit).await,
            Endpoint::File => files::by_sha256(visit).await,
            Endpoint::Package => files::of_package(visit).await,
            Endpoint::Keys => files::key_statements(visit).await,
            Endpoint::Realisations => files::realisations(visit).await,
            Endpoint::Providers => routing::providers(visit).await,
            Endpoint::Unknown => Err(Refusal::new(404, "there is nothing here")),
        }
    }

    /// How the node is doing.
    pub(super) async fn status(&self) -> Result<Status, Refusal> {
        match tokio::time::timeout(STATUS_DEADLINE, self.client.status()).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(_)) => Err(Refusal::new(503, "the node has stopped")),
            Err(_) => Err(Refusal::new(503, "the node does not answer")),
        }
    }

    async fn ready(self: &Site) -> Response<Content> {
        let status = match self.status().await {
            Ok(status) => status,
            Err(refusal) => return refused(&refusal),
        };
        if self.listens && status.listen_addrs.is_empty() {
            return refused(&Refusal::new(503, "the node listens nowhere"));
        }
        let store = self.store.clone();
        match tokio::task::spawn_blocking(move || store.usage()).await {
            Ok(Ok(_)) => text(StatusCode::OK, "ready\n"),
            Ok(Err(error)) => refused(&Refusal::new(
                503,
                format!("the store does not open: {error}"),
            )),
            Err(_) => refused(&Refusal::new(503, "the store does not open")),
        }
    }

    /// How many answers are being read from the disk.
    pub(super) fn transfers(&self) -> usize {
        TRANSFERS_MAX - self.transfers.available_permits()
    }

    /// A place among those that are served at the same time.
    pub(super) fn enter(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let full = |_| {
            Refusal::new(
                429,
                "as many as fit are being served, come again in a moment",
            )
        };
        Arc::clone(&self.transfers)
            .try_acquire_owned()
            .map_err(full)
    }
}

/// Runs something that reads the disk.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let failed = |_| Refusal::new(500, "the answer could not be made");
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

/// What is said when the store cannot be read. The details are for the log, not for strangers.
pub(super) fn broken(error: &(dyn std::error::Error + 'static)) -> Refusal {
    tracing::warn!(error, "cannot answer a web request from the store");
    Refusal::new(500, "the store could not be read")
}

/// An answer of a few words.
pub(super) fn text(status: StatusCode, words: &str) -> Response<Content> {
    bytes(status, "text/plain; charset=utf-8", words.to_owned().into())
}

/// An answer that is there already.
pub(super) fn bytes(status: StatusCode, kind: &'static str, bytes: Bytes) -> Response<Content> {
    let mut response = Response::new(Content::Bytes(Some(bytes)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A header whose text we made ourselves out of what was parsed strictly.
pub(super) fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn redirect(to: &'static str) -> Response<Content> {
    let mut response = text(StatusCode::FOUND, "see /status\n");
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_static(to));
    response
}

fn refused(Refusal(code, reason): &Refusal) -> Response<Content> {
    let status = StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = text(status, &format!("{reason}\n"));
    let headers = response.headers_mut();
    match *code {
        405 => headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD")),
        429 => headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECS.into()),
        _ => None,
    };
    response
}

/// What every answer says, so that no browser makes more of it than it is.
fn secure(response: &mut Response<Content>) {
    let headers = response.headers_mut();
    let policy = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
