//! Delegated Routing V1: who announced a CID, as our own place in the DHT can find out.
//!
//! A command on this machine asks here instead of meeting the network anew; so can any other program that speaks the
//! protocol. Strangers are not answered, for each question costs a walk through the DHT. Walks are those of
//! `event_loop/routing.rs`, shared with the commands that ask there.

use base::Multihash;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::body::Content;
use super::request::{Refusal, cid};
use super::site::{Answer, Visit, bytes};
use crate::routing_protocol::Place;

/// Providers named in one answer, as the specification says.
const PROVIDERS_MAX: usize = 100;
/// How long an answer with providers, and one without, may be used again, in seconds.
const FOUND_SECS: u32 = 300;
/// See [`FOUND_SECS`].
const EMPTY_SECS: u32 = 15;

/// One provider.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Record {
    schema: &'static str,
    #[serde(rename = "ID")]
    id: String,
    addrs: Vec<String>,
    protocols: [&'static str; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Records {
    providers: Vec<Record>,
}

/// `/routing/v1/providers/CID`
pub(super) async fn providers(visit: &Visit<'_>) -> Answer {
    let cid = cid(&visit.asked.path[3])?;
    let key = Multihash::of(&cid)
        .map_err(|_| Refusal::new(422, "only CIDs of sha2-256 are looked for"))?;
    let client = &visit.site.client;
    let found = client
        .walk(key)
        .await
        .map_err(|_| Refusal::new(503, "the node has stopped"))?;
    let records = records(&found);
    let seconds = if records.is_empty() {
        EMPTY_SECS
    } else {
        FOUND_SECS
    };
    let accepted = visit.asked.header(header::ACCEPT).unwrap_or_default();
    let mut response = if accepted.contains("application/x-ndjson") {
        lines(&records)
    } else {
        document(records)
    };
    let caching = format!("max-age={seconds}");
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, super::site::value(&caching));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

fn records(found: &[Place]) -> Vec<Record> {
    let record = |place: &Place| Record {
        schema: "peer",
        id: place.peer.to_string(),
        addrs: place.addresses.iter().map(ToString::to_string).collect(),
        protocols: ["transport-bitswap"],
    };
    found.iter().take(PROVIDERS_MAX).map(record).collect()
}

fn document(providers: Vec<Record>) -> Response<Content> {
    let body = serde_json::to_vec(&Records { providers }).unwrap_or_default();
    bytes(StatusCode::OK, "application/json", body.into())
}

fn lines(records: &[Record]) -> Response<Content> {
    let mut body = Vec::new();
    for record in records {
        body.extend(serde_json::to_vec(record).unwrap_or_default());
        body.push(b'\n');
    }
    bytes(StatusCode::OK, "application/x-ndjson", body.into())
}
