//! Whole files: sources by their SHA-256, outputs and the statements about them by their package hash, and what keys said of keys.
//!
//! A file can be had from any byte on, so that a broken download goes on where it was. The receiver checks the hash; the
//! name of the output's own hash stands in a header, and who vouches for it in `PKGHASH.realisations`.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;

use base::{PkgHash, Sha256};
use bytes::{Bytes, BytesMut};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use store::{BlobFile, Store};

use super::body::{Content, PIECE_BYTES, pipe};
use super::gateway::unchanged;
use super::request::Refusal;
use super::site::{Answer, Visit, blocking, broken, bytes, value};
use crate::framed::Body as _;
use crate::realisation_protocol::{self, KEYS_MAX};

/// What hangs on a SHA-256 never changes.
const IMMUTABLE: &str = "public, max-age=29030400, immutable";
/// What hangs on a package hash may: another output may be here tomorrow.
const CHANGING: &str = "public, max-age=60";

/// The form of statements about packages.
const STATEMENTS: &str = "application/vnd.p2pkgs.realisations";

/// What the name of a file asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// `PKGHASH.tar.zst`
    Output(PkgHash),
    /// `PKGHASH.realisations`
    Realisations(PkgHash),
    /// `PKGHASH.outline`
    Outline(PkgHash),
}

impl Wanted {
    /// Reads a name.
    pub(super) fn of(name: &str) -> Option<Self> {
        let (digits, ending) = name.split_once('.')?;
        let pkghash = PkgHash::from_digest(digits.parse().ok()?);
        match ending {
            "tar.zst" => Some(Self::Output(pkghash)),
            "realisations" => Some(Self::Realisations(pkghash)),
            "outline" => Some(Self::Outline(pkghash)),
            _ => None,
        }
    }
}

/// `/sha256/HEX`
pub(super) async fn by_sha256(visit: &Visit<'_>) -> Answer {
    let bad = |_| Refusal::new(400, "a sha256 has 64 digits from 0 to f");
    let sha256: Sha256 = visit.asked.path[1].parse().map_err(bad)?;
    let store = visit.site.store.clone();
    let file = blocking(move || open(&store, &sha256)).await?;
    let file = file.ok_or_else(|| Refusal::new(404, "no file with this sha256 is here"))?;
    send(visit, file, "application/octet-stream", IMMUTABLE)
}

/// `/PKGHASH.tar.zst`, `/PKGHASH.outline` and `/PKGHASH.realisations`
pub(super) async fn of_package(visit: &Visit<'_>) -> Answer {
    let store = visit.site.store.clone();
    match Wanted::of(&visit.asked.path[0]) {
        Some(Wanted::Output(pkghash)) => {
            let file = blocking(move || output(&store, &pkghash)).await?;
            let file =
                file.ok_or_else(|| Refusal::new(404, "no output of this package is here"))?;
            send(visit, file, "application/zstd", CHANGING)
        }
        Some(Wanted::Outline(pkghash)) => {
            let made = blocking(move || outline(&store, &pkghash)).await?;
            let body =
                made.ok_or_else(|| Refusal::new(404, "no output of this package is here"))?;
            Ok(changing("application/vnd.ipld.car", body))
        }
        Some(Wanted::Realisations(pkghash)) => {
            let found = move || store.realisations(&pkghash).map_err(|e| broken(&e));
            let found = blocking(found).await?;
            if found.is_empty() {
                return Err(Refusal::new(
                    404,
                    "nothing is known about this package here",
                ));
            }
            let body = realisation_protocol::encode_statements(&found);
            Ok(changing(STATEMENTS, body))
        }
        None => Err(Refusal::new(404, "there is nothing here")),
    }
}

/// `/key-statements`
pub(super) async fn key_statements(visit: &Visit<'_>) -> Answer {
    let facts = Arc::clone(&visit.site.facts);
    let Some(body) = blocking(move || Ok(facts.key_statements())).await? else {
        return Err(Refusal::new(404, "no statements about keys are here"));
    };
    Ok(changing("application/vnd.p2pkgs.key-statements", body))
}

/// `/realisations?of=PKGHASH,PKGHASH…`: what is known about several packages.
pub(super) async fn realisations(visit: &Visit<'_>) -> Answer {
    let bad = || Refusal::new(400, format!("`of` lists 1 to {KEYS_MAX} package hashes"));
    let listed = visit.asked.parameter("of").ok_or_else(bad)?;
    let hashes = listed.split(',').take(KEYS_MAX + 1);
    let hashes: Result<Vec<Sha256>, _> = hashes.map(str::parse).collect();
    let hashes = hashes.ok().filter(|hashes| hashes.len() <= KEYS_MAX);
    let hashes = hashes.ok_or_else(bad)?;
    let store = visit.site.store.clone();
    let found = blocking(move || {
        let known = |hash| store.realisations(&PkgHash::from_digest(hash));
        let packages = hashes.into_iter().map(known).collect::<Result<_, _>>();
        packages.map_err(|error| broken(&error))
    });
    let response = realisation_protocol::Response {
        packages: found.await?,
        invalid: 0,
    };
    Ok(changing(STATEMENTS, response.encode()))
}

fn changing(kind: &'static str, body: Vec<u8>) -> Response<Content> {
    let mut response = bytes(StatusCode::OK, kind, body.into());
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(CHANGING));
    response
}

/// What the parts of the output hash to that is here.
fn outline(store: &Store, pkghash: &PkgHash) -> Result<Option<Vec<u8>>, Refusal> {
    let Some(file) = output(store, pkghash)? else {
        return Ok(None);
    };
    let written = store.write_outline(&file.blob().root, Vec::new());
    written.map(Some).map_err(|error| broken(&error))
}

fn open(store: &Store, sha256: &Sha256) -> Result<Option<BlobFile>, Refusal> {
    store.open_blob(sha256).map_err(|e| broken(&e))
}

/// The output of a package that is here. Of several the one that most builders vouch for; the receiver decides anyway.
fn output(store: &Store, pkghash: &PkgHash) -> Result<Option<BlobFile>, Refusal> {
    let statements = store.realisations(pkghash).map_err(|e| broken(&e))?;
    let mut outputs: Vec<_> = statements.iter().map(|s| s.realisation().sha256).collect();
    let votes = |sha256: &Sha256| {
        let same = |s: &&base::SignedRealisation| s.realisation().sha256 == *sha256;
        std::cmp::Reverse(statements.iter().filter(same).count())
    };
    outputs.sort_by_key(|sha256| (votes(sha256), *sha256));
    outputs.dedup();
    for sha256 in outputs {
        if let Some(file) = open(store, &sha256)? {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// The file, or the part of it that is wanted.
fn send(visit: &Visit<'_>, file: BlobFile, kind: &'static str, caching: &'static str) -> Answer {
    let (sha256, size) = (file.blob().sha256, file.size());
    let etag = format!("\"{sha256}\"");
    if visit.asked.has(&etag) {
        return Ok(unchanged(&etag));
    }
    let range = match visit.asked.range(size, &etag) {
        Ok(range) => range,
        Err(Refusal(416, _)) => return Ok(beyond(size)),
        Err(refusal) => return Err(refusal),
    };
    let (first, end) = range.unwrap_or((0, size));
    let permit = visit.site.enter()?;
    let body = if visit.asked.head {
        Content::Bytes(None)
    } else {
        let (mut pipe, body) = pipe(visit.site, visit.near, Some(end - first));
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            if let Err(error) = read(file, first, end, &mut |piece| pipe.send(piece)) {
                pipe.fail(error);
            }
        });
        body
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, (end - first).into());
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    headers.insert(header::ETAG, value(&etag));
    headers.insert(HeaderName::from_static("x-sha256"), value(&sha256.to_hex()));
    if range.is_some() {
        let range = format!("bytes {first}-{}/{size}", end - 1);
        headers.insert(header::CONTENT_RANGE, value(&range));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

fn beyond(size: u64) -> Response<Content> {
    let mut response = super::site::text(StatusCode::RANGE_NOT_SATISFIABLE, "no such bytes\n");
    let range = format!("bytes */{size}");
    response
        .headers_mut()
        .insert(header::CONTENT_RANGE, value(&range));
    response
}

/// Reads a part of a file piece by piece.
fn read(
    mut file: BlobFile,
    first: u64,
    end: u64,
    send: &mut dyn FnMut(Bytes) -> std::io::Result<()>,
) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(first))?;
    let mut left = end - first;
    while left > 0 {
        let length = usize::try_from(left)
            .unwrap_or(PIECE_BYTES)
            .min(PIECE_BYTES);
        let mut piece = BytesMut::zeroed(length);
        file.read_exact(&mut piece)?;
        send(piece.freeze())?;
        left -= length as u64;
    }
    Ok(())
}
