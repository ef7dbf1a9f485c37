//! The trustless gateway (IPFS specification "Trustless Gateway"): blocks, archives and records that prove themselves.
//!
//! It answers as if every request said `only-if-cached`: what is not in the store is 404, for a gateway that fetched for
//! strangers would do their downloading in our name.

use std::time::SystemTime;

use base::{Cid, Multihash, Sha256};
use bytes::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use store::BlockStore as _;
use store::car::{CarError, Located, Selection};
use store::dag::{self, Target};
use tokio::sync::OwnedSemaphorePermit;

use super::body::{Content, pipe};
use super::request::{Format, Refusal, cid};
use super::site::{Answer, Visit, blocking, broken, value};
use crate::ipns::IpnsName;
use crate::names::{NameError, remembered_name};

/// What hangs on a CID alone never changes; the time is the one that all gateways say.
const IMMUTABLE: &str = "public, max-age=29030400, immutable";
/// Longest time a record may be used without asking again, in seconds, whatever its maker says.
const RECORD_TTL_SECS_MAX: u64 = 3600;
/// Digits of a digest that tell answers to different questions about one CID apart.
const TAG_DIGITS: usize = 16;

/// `/ipfs/CID…`
pub(super) async fn content(visit: &Visit<'_>) -> Answer {
    let asked = &visit.asked;
    let root = cid(&asked.path[1])?;
    let path = asked.path[2..].to_vec();
    if let Some(part) = path.iter().find(|part| !dag::is_entry_name(part)) {
        let reason = format!("a path may not have `{}` in it", part.escape_debug());
        return Err(Refusal::new(400, reason));
    }
    let format = asked.format()?;
    let response = match format {
        Format::Raw if !path.is_empty() => {
            let reason = "a block has no path below it, ask for its own CID or for format=car";
            return Err(Refusal::new(400, reason));
        }
        Format::Raw => block(visit, root).await,
        Format::Car(duplicates) => {
            let selection = asked.selection(duplicates)?;
            archive(visit, root, path, selection).await
        }
        Format::IpnsRecord => {
            return Err(Refusal::new(
                400,
                "records belong to names, ask below /ipns/",
            ));
        }
    };
    let missing = |Refusal(code, reason)| match code {
        404 if asked.only_if_cached() => Refusal(412, reason),
        code => Refusal(code, reason),
    };
    let mut response = response.map_err(missing)?;
    let headers = response.headers_mut();
    headers.insert(
        HeaderName::from_static("x-ipfs-path"),
        value(asked.raw_path),
    );
    Ok(response)
}

/// One block.
async fn block(visit: &Visit<'_>, cid: Cid) -> Answer {
    let etag = format!("\"{cid}.raw\"");
    if visit.asked.has(&etag) {
        return Ok(unchanged(&etag));
    }
    let permit = visit.site.enter()?;
    let (store, head) = (visit.site.store.clone(), visit.asked.head);
    let load = move || match target(&cid)? {
        Target::Inline(_, bytes) => Ok((bytes.len() as u64, Some(bytes))),
        Target::Block(_, hash) => {
            let size = store
                .size(&hash)
                .map_err(|e| broken(&e))?
                .ok_or_else(not_here)?;
            if head {
                return Ok((size, None));
            }
            let bytes = store.serve(&hash).map_err(|e| broken(&e))?;
            Ok((size, Some(bytes.ok_or_else(not_here)?)))
        }
    };
    let (size, bytes) = blocking(load).await?;
    let body = match bytes.filter(|_| !head) {
        Some(bytes) => whole(visit, bytes, permit),
        None => Content::Bytes(None),
    };
    let mut response = attachment(
        body,
        &etag,
        "application/vnd.ipld.raw",
        &format!("{cid}.bin"),
    );
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, size.into());
    headers.insert(
        HeaderName::from_static("x-ipfs-roots"),
        value(&cid.to_string()),
    );
    Ok(response)
}

/// Bytes that are there already, paced as everything else.
fn whole(visit: &Visit<'_>, bytes: Bytes, permit: OwnedSemaphorePermit) -> Content {
    let (mut pipe, body) = pipe(visit.site, visit.near, Some(bytes.len() as u64));
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        // A visitor who left is nobody's loss.
        let _ = pipe.send(bytes);
    });
    body
}

/// A part of a DAG.
async fn archive(visit: &Visit<'_>, root: Cid, path: Vec<String>, selection: Selection) -> Answer {
    target(&root)?;
    let question = format!("{path:?} {selection:?}");
    let tag = &Sha256::of(question.as_bytes()).to_hex()[..TAG_DIGITS];
    let etag = format!("W/\"{root}.car.{tag}\"");
    if visit.asked.has(&etag) {
        return Ok(unchanged(&etag));
    }
    let permit = visit.site.enter()?;
    let store = visit.site.store.clone();
    let located = blocking(move || match store.locate(&root, &path) {
        Ok(Some(located)) => Ok(located),
        Ok(None) => Err(Refusal::new(
            404,
            "a directory of the path has no such entry",
        )),
        Err(CarError::Missing { .. }) => Err(not_here()),
        Err(CarError::Store(error)) => Err(broken(&error)),
        Err(error) => Err(Refusal::new(
            404,
            format!("the path leads nowhere: {error}"),
        )),
    })
    .await?;
    let roots = [&root].into_iter().chain(&located.parts);
    let roots: Vec<_> = roots.map(ToString::to_string).collect();
    let roots = roots.join(",");
    let name = format!("{}.car", located.end);
    let body = if visit.asked.head {
        Content::Bytes(None)
    } else {
        written(visit, located, selection, permit)
    };
    let repeated = if selection.duplicates { 'y' } else { 'n' };
    let kind = format!("application/vnd.ipld.car; version=1; order=dfs; dups={repeated}");
    let mut response = attachment(body, &etag, &kind, &name);
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static("x-ipfs-roots"), value(&roots));
    Ok(response)
}

/// An archive as it is written. A block that turns out to be missing breaks the connection: there is no other way to say it.
fn written(
    visit: &Visit<'_>,
    located: Located,
    selection: Selection,
    permit: OwnedSemaphorePermit,
) -> Content {
    let (mut pipe, body) = pipe(visit.site, visit.near, None);
    let store = visit.site.store.clone();
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        match store.export_selection(&located, &selection, &mut pipe) {
            Ok(_) | Err(CarError::Write(_)) => {}
            Err(error) => {
                tracing::info!(%error, end = %located.end, "an archive ends early");
                pipe.fail(std::io::Error::other(error));
            }
        }
    });
    body
}

/// `/ipns/NAME`
pub(super) async fn name(visit: &Visit<'_>) -> Answer {
    let asked = &visit.asked;
    let bad = |_| Refusal::new(400, "the path has no name where it should have one");
    let name: IpnsName = asked.path[1].parse().map_err(bad)?;
    if asked.path.len() > 2 || asked.format()? != Format::IpnsRecord {
        let reason = "names are not resolved here: ask for format=ipns-record, then below /ipfs/";
        return Err(Refusal::new(406, reason));
    }
    let store = visit.site.store.clone();
    let load = move || match remembered_name(&store, &name, SystemTime::now()) {
        Ok(resolved) => Ok(resolved.record),
        Err(NameError::Store(error)) => Err(broken(&*error)),
        Err(_) => Err(Refusal::new(404, "no record of this name is here")),
    };
    let record = blocking(load).await?;
    let tag = &Sha256::of(record.bytes()).to_hex()[..TAG_DIGITS];
    let etag = format!("\"{tag}.ipns-record\"");
    if asked.has(&etag) {
        return Ok(unchanged(&etag));
    }
    let ttl = record.ttl().as_secs().min(RECORD_TTL_SECS_MAX);
    let body = Content::Bytes(Some(Bytes::copy_from_slice(record.bytes())));
    let kind = "application/vnd.ipfs.ipns-record";
    let mut response = attachment(body, &etag, kind, &format!("{name}.ipns-record"));
    let headers = response.headers_mut();
    headers.insert(
        header::CACHE_CONTROL,
        value(&format!("public, max-age={ttl}")),
    );
    headers.insert(
        HeaderName::from_static("x-ipfs-path"),
        value(asked.raw_path),
    );
    Ok(response)
}

/// What a CID leads to. A hash that we cannot check is one that we do not have.
fn target(cid: &Cid) -> Result<Target, Refusal> {
    match Target::of(cid) {
        Ok(target) => Ok(target),
        Err(_) if cid.hash().code() == 0 => Err(Refusal::new(400, "the CID has too much inside")),
        // A block is its hash, whatever its codec.
        Err(error) => Multihash::of(cid)
            .map(|hash| Target::Block(base::Codec::Raw, hash))
            .map_err(|_| Refusal::new(404, format!("it is not here: {error}"))),
    }
}

fn not_here() -> Refusal {
    Refusal::new(404, "it is not here, and this gateway fetches nothing")
}

/// A file to be saved, never shown.
fn attachment(body: Content, etag: &str, kind: &str, name: &str) -> Response<Content> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, value(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(IMMUTABLE));
    headers.insert(header::ETAG, value(etag));
    // The form of an archive depends on what is accepted.
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    let disposition = format!("attachment; filename=\"{name}\"");
    headers.insert(header::CONTENT_DISPOSITION, value(&disposition));
    response
}

/// The visitor has it already.
pub(super) fn unchanged(etag: &str) -> Response<Content> {
    let mut response = Response::new(Content::Bytes(None));
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response.headers_mut().insert(header::ETAG, value(etag));
    response
}
