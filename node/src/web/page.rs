//! `/status`: how the node is doing, for a person; and the same as JSON.
//!
//! Plain HTML that the server writes: no script, nothing from elsewhere. Text of strangers (what peers call themselves)
//! is escaped, cut, and freed of characters that reorder what stands around them.

use std::fmt::Write as _;

use bytes::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use store::Usage;

use super::body::Content;
use super::site::{Answer, PackageFacts, Visit, blocking, broken, bytes};
use crate::status::{PeerStatus, Status};

/// How often the page loads itself again, in seconds.
const REFRESH_SECS: u32 = 10;
/// Characters of a stranger's text that are shown.
const TEXT_CHARACTERS_MAX: usize = 64;
/// Peers shown; who wants all of them reads the JSON.
const PEERS_SHOWN_MAX: usize = 200;
/// The style sheet.
const STYLE: &str = include_str!("status.css");

/// All that the page tells.
#[derive(Serialize)]
struct Report {
    version: &'static str,
    #[serde(flatten)]
    status: Status,
    store: StoreReport,
    http_transfers: usize,
    http_sent_bytes: u64,
    packages: Vec<PackageFacts>,
}

#[derive(Serialize)]
struct StoreReport {
    blobs: u64,
    bytes: u64,
    pins: u64,
    free_bytes: u64,
    quota_bytes: Option<u64>,
}

/// `/status`
pub(super) async fn answer(visit: &Visit<'_>) -> Answer {
    let report = report(visit).await?;
    let page = render(&report);
    Ok(of_this_site(bytes(
        StatusCode::OK,
        "text/html; charset=utf-8",
        page.into(),
    )))
}

/// `/status.json`
pub(super) async fn json(visit: &Visit<'_>) -> Answer {
    let report = report(visit).await?;
    let body = serde_json::to_vec_pretty(&report).map_err(|e| broken(&e))?;
    Ok(of_this_site(bytes(
        StatusCode::OK,
        "application/json",
        body.into(),
    )))
}

/// `/status.css`
pub(super) fn style() -> Response<Content> {
    let style = Bytes::from_static(STYLE.as_bytes());
    of_this_site(bytes(StatusCode::OK, "text/css; charset=utf-8", style))
}

/// No other site may take it into a page of its own.
fn of_this_site(mut response: Response<Content>) -> Response<Content> {
    let name = HeaderName::from_static("cross-origin-resource-policy");
    let headers = response.headers_mut();
    headers.insert(name, HeaderValue::from_static("same-origin"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response
}

async fn report(visit: &Visit<'_>) -> Result<Report, super::request::Refusal> {
    let site = visit.site;
    let status = site.status().await?;
    let (store, facts) = (site.store.clone(), site.facts.clone());
    let read = move || Ok((store.usage().map_err(|e| broken(&e))?, facts.packages()));
    let (usage, packages): (Usage, _) = blocking(read).await?;
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        status,
        store: StoreReport {
            blobs: usage.blobs,
            bytes: usage.bytes,
            pins: usage.pins,
            free_bytes: usage.free_bytes,
            quota_bytes: site.store.limits().quota_bytes,
        },
        http_transfers: site.transfers(),
        http_sent_bytes: site.counters.sent_bytes(),
        packages,
    })
}

fn render(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"refresh\" content=\"{REFRESH_SECS}\">\n\
         <title>p2pkgs node</title>\n<link rel=\"stylesheet\" href=\"/status.css\">\n</head>\n<body>\n<main>\n"
    );
    head(&mut page, report);
    cards(&mut page, report);
    peers(&mut page, &report.status.peers);
    transfers(&mut page, &report.status);
    packages(&mut page, &report.packages);
    let _ = write!(
        page,
        "<footer>p2pkgs {} · not shown to strangers · loads again every {REFRESH_SECS} s · \
         <a href=\"/status.json\">JSON</a> · <a href=\"/metrics\">metrics</a></footer>\n</main>\n</body>\n</html>\n",
        text(report.version)
    );
    page
}

fn head(page: &mut String, report: &Report) {
    let status = &report.status;
    let (class, words) = match (status.listen_addrs.is_empty(), status.external_addrs.len()) {
        (true, _) => ("bad", "listens nowhere".to_owned()),
        (false, 0) => (
            "odd",
            "no address known at which others reach it".to_owned(),
        ),
        (false, 1) => ("good", "reachable at 1 address".to_owned()),
        (false, n) => ("good", format!("reachable at {n} addresses")),
    };
    let _ = write!(
        page,
        "<header>\n<h1>p2pkgs node</h1>\n<p class=\"id\"><code>{}</code></p>\n\
         <p><span class=\"pill {class}\">{words}</span> <span class=\"pill\">running for {}</span> \
         <span class=\"pill\">{}</span></p>\n",
        text(&status.peer_id),
        duration(status.uptime_secs),
        if status.dht_server {
            "serves the DHT"
        } else {
            "asks the DHT"
        },
    );
    let mut addresses = |name: &str, list: &[String]| {
        if !list.is_empty() {
            let items: String = list
                .iter()
                .map(|address| format!("<li><code>{}</code></li>", text_of(address, 256)))
                .collect();
            let _ = writeln!(
                page,
                "<details><summary>{name}</summary><ul>{items}</ul></details>"
            );
        }
    };
    addresses("Listens on", &status.listen_addrs);
    addresses("Tells others", &status.external_addrs);
    page.push_str("</header>\n");
}

fn cards(page: &mut String, report: &Report) {
    let (status, store) = (&report.status, &report.store);
    let provide = &status.provide;
    let near = status.peers.iter().filter(|peer| peer.lan).count();
    let quota = match store.quota_bytes {
        Some(quota) => format!("of {}", size(quota)),
        None => format!("{} free on the disk", size(store.free_bytes)),
    };
    let here = report
        .packages
        .iter()
        .filter(|package| package.output)
        .count();
    let waiting = provide.queued + provide.in_flight;
    page.push_str("<section class=\"cards\">\n");
    let mut card = |name: &str, number: String, note: String| {
        let _ = writeln!(
            page,
            "<div class=\"card\"><h2>{name}</h2><p class=\"number\">{number}</p><p>{note}</p></div>"
        );
    };
    card(
        "Peers",
        status.peers.len().to_string(),
        format!(
            "{near} on this network, {} of the DHT known",
            status.dht_peers
        ),
    );
    card(
        "Sent",
        size(status.uploaded_bytes.saturating_add(report.http_sent_bytes)),
        format!(
            "{} to this network, {} over HTTP, {} transfers now",
            size(status.uploaded_near_bytes),
            size(report.http_sent_bytes),
            report.http_transfers
        ),
    );
    card(
        "Received",
        size(status.downloaded_bytes),
        format!("{} from this network", size(status.downloaded_near_bytes)),
    );
    card(
        "To announce",
        waiting.to_string(),
        format!("{} done, {} failed", provide.done, provide.failed),
    );
    card(
        "Store",
        size(store.bytes),
        format!("{quota}, {} files, {} pins", store.blobs, store.pins),
    );
    if !report.packages.is_empty() {
        card(
            "Packages here",
            here.to_string(),
            format!("of {} in the tree", report.packages.len()),
        );
    }
    page.push_str("</section>\n");
}

fn peers(page: &mut String, peers: &[PeerStatus]) {
    page.push_str("<section>\n<h2>Peers</h2>\n");
    if peers.is_empty() {
        page.push_str("<p class=\"none\">Nobody is connected.</p>\n</section>\n");
        return;
    }
    page.push_str(
        "<div class=\"wide\"><table>\n<thead><tr><th>Peer</th><th>Program</th><th>Where</th><th>How</th>\
         <th class=\"n\">Sent</th><th class=\"n\">Received</th><th class=\"n\">Connected</th></tr></thead>\n<tbody>\n",
    );
    let mut sorted: Vec<_> = peers.iter().collect();
    sorted.sort_by_key(|peer| std::cmp::Reverse(peer.bytes_up + peer.bytes_down));
    for peer in sorted.iter().take(PEERS_SHOWN_MAX) {
        let _ = writeln!(
            page,
            "<tr><td title=\"{}\"><code>{}</code></td><td><bdi>{}</bdi></td><td>{}</td><td title=\"{}\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            text(&peer.id),
            text(&short(&peer.id)),
            text(&peer.agent),
            if peer.lan {
                "this network"
            } else {
                "elsewhere"
            },
            text_of(&peer.addr, 256),
            peer.transport,
            size(peer.bytes_up),
            size(peer.bytes_down),
            duration(peer.connected_secs),
        );
    }
    page.push_str("</tbody>\n</table></div>\n");
    if let Some(more) = peers.len().checked_sub(PEERS_SHOWN_MAX).filter(|n| *n > 0) {
        let _ = writeln!(page, "<p class=\"none\">and {more} more</p>");
    }
    page.push_str("</section>\n");
}

fn transfers(page: &mut String, status: &Status) {
    if status.transfers.is_empty() {
        return;
    }
    page.push_str(
        "<section>\n<h2>Being fetched</h2>\n<div class=\"wide\"><table>\n<thead><tr><th>Content</th>\
         <th class=\"n\">Peers</th><th class=\"n\">So far</th></tr></thead>\n<tbody>\n",
    );
    for transfer in &status.transfers {
        let _ = writeln!(
            page,
            "<tr><td><code>{}</code></td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            text_of(&transfer.root, 128),
            transfer.peers,
            size(transfer.bytes),
        );
    }
    page.push_str("</tbody>\n</table></div>\n</section>\n");
}

fn packages(page: &mut String, packages: &[PackageFacts]) {
    if packages.is_empty() {
        return;
    }
    page.push_str(
        "<section>\n<h2>Packages of the tree</h2>\n<div class=\"wide\"><table>\n<thead><tr><th>Package</th>\
         <th>Output</th><th>Sources</th><th>Package hash</th></tr></thead>\n<tbody>\n",
    );
    for package in packages {
        let output = if package.output {
            let hash = text(&package.pkghash);
            format!("<a class=\"yes\" href=\"/{hash}.tar.zst\">here</a>")
        } else {
            "<span class=\"no\">not here</span>".to_owned()
        };
        let sources = match (package.sources_here, package.sources) {
            (_, 0) => "<span class=\"no\">none</span>".to_owned(),
            (here, all) if here == all => format!("<span class=\"yes\">{here} of {all}</span>"),
            (here, all) => format!("<span class=\"no\">{here} of {all}</span>"),
        };
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{output}</td><td>{sources}</td><td><code>{}</code></td></tr>",
            text(&package.name),
            text(package.pkghash.get(..16).unwrap_or(&package.pkghash)),
        );
    }
    page.push_str("</tbody>\n</table></div>\n</section>\n");
}

/// Text of anybody, as HTML.
fn text(raw: &str) -> String {
    text_of(raw, TEXT_CHARACTERS_MAX)
}

fn text_of(raw: &str, characters_max: usize) -> String {
    let mut clean = String::with_capacity(raw.len());
    for (number, character) in raw.chars().filter(|c| !is_hidden(*c)).enumerate() {
        if number == characters_max {
            clean.push('…');
            break;
        }
        match character {
            '&' => clean.push_str("&amp;"),
            '<' => clean.push_str("&lt;"),
            '>' => clean.push_str("&gt;"),
            '"' => clean.push_str("&quot;"),
            '\'' => clean.push_str("&#39;"),
            character => clean.push(character),
        }
    }
    clean
}

/// Control characters, and those that reorder or hide the text around them.
const fn is_hidden(c: char) -> bool {
    let reorders = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    reorders || matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}')
}

/// The end of a peer id, which is what tells it from others.
fn short(id: &str) -> String {
    let skip = id.chars().count().saturating_sub(12);
    let end: String = id.chars().skip(skip).collect();
    if skip == 0 { end } else { format!("…{end}") }
}

/// A number of bytes for people.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut number = bytes as f64 / 1024.0;
    let mut unit = 0;
    while number >= 1024.0 && unit + 1 < UNITS.len() {
        number /= 1024.0;
        unit += 1;
    }
    format!("{number:.1} {}", UNITS[unit])
}

/// A time for people, in its two largest units.
fn duration(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs} s"),
        60..3600 => format!("{} min", secs / 60),
        3600..86_400 => format!("{} h {} min", secs / 3600, secs % 3600 / 60),
        _ => format!("{} d {} h", secs / 86_400, secs % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_strangers_stays_text() {
        assert_eq!(text("<b a='x\"'>&"), "&lt;b a=&#39;x&quot;&#39;&gt;&amp;");
        assert_eq!(text("a\u{202e}b\n\0c\u{9b}d"), "abcd");
        assert_eq!(
            text(&"x".repeat(100)).chars().count(),
            TEXT_CHARACTERS_MAX + 1
        );
        assert_eq!(short("12D3KooWabcdefghijkl"), "…abcdefghijkl");
        assert_eq!(short("ünï"), "ünï");
    }

    #[test]
    fn numbers_are_for_people() {
        let sizes = [0, 1023, 1024, 5 << 20, u64::MAX].map(size);
        assert_eq!(
            sizes,
            ["0 B", "1023 B", "1.0 KiB", "5.0 MiB", "16384.0 PiB"]
        );
        let times = [59, 61, 7260, 90_000].map(duration);
        assert_eq!(times, ["59 s", "1 min", "2 h 1 min", "1 d 1 h"]);
    }
}
