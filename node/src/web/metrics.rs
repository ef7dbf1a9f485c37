//! `/metrics`: what a mirror's operator wants to watch, as OpenMetrics for who asks for that, as Prometheus does, and else
//! in the older text format, which every tool reads (`promtool check metrics` reads nothing else).
//!
//! Names follow what the field uses: `process_*` as every Prometheus client library, `libp2p_swarm_*` as go-libp2p and
//! Kubo, units and suffixes as the format demands. The format is a dozen lines to write, so no library does it.

use std::fmt::{Display, Write as _};

use hyper::{StatusCode, header};
use store::Usage;

use super::process::Process;
use super::site::{Answer, Visit, blocking, broken, bytes};
use crate::status::Status;

/// How the numbers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Format {
    /// Prometheus' text format: a counter's family is called like its sample, with `_total`.
    #[default]
    Text,
    /// OpenMetrics: a counter's family lacks the `_total` of its sample, and the text has an end.
    OpenMetrics,
}

impl Format {
    /// The one a visitor asks for. Nobody names OpenMetrics who prefers the other.
    fn of(accepted: Option<&str>) -> Self {
        let open = |kind: &str| {
            let name = kind.split(';').next().unwrap_or_default();
            name.trim()
                .eq_ignore_ascii_case("application/openmetrics-text")
        };
        match accepted {
            Some(kinds) if kinds.split(',').any(open) => Self::OpenMetrics,
            _ => Self::Text,
        }
    }

    /// The media type.
    const fn kind(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// `/metrics`
pub(super) async fn answer(visit: &Visit<'_>) -> Answer {
    let site = visit.site;
    let status = site.status().await?;
    let store = site.store.clone();
    let usage = blocking(move || store.usage().map_err(|e| broken(&e))).await?;
    let format = Format::of(visit.asked.header(header::ACCEPT));
    let mut out = Metrics {
        format,
        ..Metrics::default()
    };
    out.process(&Process::now());
    out.node(&status);
    out.store(&usage, site.store.limits().quota_bytes);
    out.counter("p2pkgs_http_responses", "Answers of the HTTP door.");
    for (endpoint, code, count) in site.counters.responses() {
        let labels = [("handler", endpoint.name()), ("code", &code.to_string())];
        out.total("p2pkgs_http_responses", &labels, count);
    }
    let sent = site.counters.sent_bytes();
    out.one_counter(
        "p2pkgs_http_sent_bytes",
        "Bytes of files, blocks and archives sent over HTTP.",
        sent,
    );
    out.one(
        "p2pkgs_http_transfers",
        "Answers being read from the disk.",
        site.transfers(),
    );
    Ok(bytes(StatusCode::OK, format.kind(), out.finish().into()))
}

/// A number of the node: its name, what it means, where it stands.
type Row = (&'static str, &'static str, fn(&Status) -> u64);

/// What the node says of now. What it learns to say is one line more here, or in [`COUNTERS`].
#[rustfmt::skip]
const GAUGES: &[Row] = &[
    ("libp2p_kad_routing_table_peers", "Peers in the routing table of the DHT.", |status| status.dht_peers as u64),
    ("p2pkgs_dht_records", "Provider records kept for others.", |status| status.dht_records as u64),
    ("p2pkgs_reachable_addresses", "Addresses at which others can reach this node.", |status| status.external_addrs.len() as u64),
    ("p2pkgs_bitswap_wants", "Blocks this node wants.", |status| status.blocks.wants as u64),
    ("p2pkgs_bitswap_wants_of_others", "Blocks others want of this node.", |status| status.blocks.wants_of_others as u64),
    ("p2pkgs_fetches", "Files being fetched.", |status| status.transfers.len() as u64),
    ("p2pkgs_provide_queue", "Keys that wait to be announced.", |status| status.provide.queued),
    ("p2pkgs_provide_in_flight", "Keys being announced.", |status| status.provide.in_flight),
];

/// What the node has counted since the start.
#[rustfmt::skip]
const COUNTERS: &[Row] = &[
    ("p2pkgs_bitswap_sent_blocks", "Blocks sent.", |status| status.blocks.sent),
    ("p2pkgs_bitswap_received_blocks", "Blocks received that were wanted.", |status| status.blocks.received),
    ("p2pkgs_bitswap_duplicate_bytes", "Bytes of blocks that came twice.", |status| status.blocks.duplicate_bytes),
    ("p2pkgs_lookups", "Questions to the network.", |status| status.asked.lookups),
    ("p2pkgs_sources_served", "Source requests of others.", |status| status.asked.sources_served),
    ("p2pkgs_realisations_served", "Realisation requests of others.", |status| status.asked.realisations_served),
    ("p2pkgs_verify_failures", "Statements of others that did not verify.", |status| status.asked.invalid_statements),
    ("p2pkgs_misbehaved_peers", "Peers that broke the rules of the exchange.", |status| status.asked.misbehaved_peers),
];

/// A text in the making.
#[derive(Debug, Default)]
struct Metrics {
    format: Format,
    text: String,
}

impl Metrics {
    /// Everything the node says of itself.
    fn node(&mut self, status: &Status) {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        self.gauge("p2pkgs_build_info", "The version that runs.");
        self.sample("p2pkgs_build_info", &version, 1);
        for (name, help, number) in GAUGES {
            self.one(name, help, number(status));
        }
        for (name, help, number) in COUNTERS {
            self.one_counter(name, help, number(status));
        }
        self.connections(status);
        let near = status.peers.iter().filter(|peer| peer.lan).count();
        let far = status.peers.len() - near;
        self.gauge("p2pkgs_peers", "Connected peers, by how far they are.");
        self.sample("p2pkgs_peers", &[("reach", "lan")], near);
        self.sample("p2pkgs_peers", &[("reach", "wan")], far);
        let (sent, near) = (status.uploaded_bytes, status.uploaded_near_bytes);
        self.by_reach(
            "p2pkgs_bitswap_sent_bytes",
            "Bytes of blocks sent.",
            sent,
            near,
        );
        let (received, near) = (status.downloaded_bytes, status.downloaded_near_bytes);
        let help = "Bytes of blocks received.";
        self.by_reach("p2pkgs_bitswap_received_bytes", help, received, near);
        let provide = &status.provide;
        self.counter("p2pkgs_provides", "Announcements, by how they ended.");
        self.total("p2pkgs_provides", &[("result", "ok")], provide.done);
        self.total("p2pkgs_provides", &[("result", "failed")], provide.failed);
        if let Some(at) = provide.last_unix_secs {
            let name = "p2pkgs_provide_last_success_timestamp_seconds";
            self.one(name, "When the last announcement was made.", at);
        }
    }

    fn connections(&mut self, status: &Status) {
        let kinds = &status.connections;
        let labels = |kind: &crate::ConnectionsStatus| {
            [("dir", kind.direction), ("transport", kind.transport)]
        };
        self.gauge("libp2p_swarm_connections", "Open connections.");
        for kind in kinds {
            let open = kind.opened - kind.closed;
            self.sample("libp2p_swarm_connections", &labels(kind), open);
        }
        self.counter("libp2p_swarm_connections_opened", "Connections opened.");
        for kind in kinds {
            self.total(
                "libp2p_swarm_connections_opened",
                &labels(kind),
                kind.opened,
            );
        }
        self.counter("libp2p_swarm_connections_closed", "Connections closed.");
        for kind in kinds {
            self.total(
                "libp2p_swarm_connections_closed",
                &labels(kind),
                kind.closed,
            );
        }
    }

    fn store(&mut self, usage: &Usage, quota: Option<u64>) {
        self.one(
            "p2pkgs_store_blobs",
            "Whole files in the store.",
            usage.blobs,
        );
        self.one("p2pkgs_store_bytes", "Their bytes.", usage.bytes);
        self.one(
            "p2pkgs_store_pins",
            "Reasons for which files are kept.",
            usage.pins,
        );
        self.one(
            "p2pkgs_store_free_bytes",
            "Free bytes of the disk.",
            usage.free_bytes,
        );
        if let Some(quota) = quota {
            self.one(
                "p2pkgs_store_quota_bytes",
                "Most bytes the store may take.",
                quota,
            );
        }
    }

    fn process(&mut self, process: &Process) {
        if let Some(secs) = process.cpu_secs {
            self.one_counter("process_cpu_seconds", "User and system time.", secs);
        }
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Resident memory.",
                process.resident_bytes,
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory.",
                process.virtual_bytes,
            ),
            (
                "process_open_fds",
                "Open file descriptors.",
                process.open_fds,
            ),
            (
                "process_max_fds",
                "Most file descriptors there may be.",
                process.max_fds,
            ),
        ];
        for (name, help, number) in gauges {
            if let Some(number) = number {
                self.one(name, help, number);
            }
        }
        if let Some(at) = process.started_unix_secs {
            self.one(
                "process_start_time_seconds",
                "When the process started, since 1970.",
                at,
            );
        }
    }

    fn by_reach(&mut self, name: &str, help: &str, total: u64, near: u64) {
        self.counter(name, help);
        self.total(name, &[("reach", "lan")], near);
        self.total(name, &[("reach", "wan")], total.saturating_sub(near));
    }

    fn one(&mut self, name: &str, help: &str, number: impl Display) {
        self.gauge(name, help);
        self.sample(name, &[], number);
    }

    fn one_counter(&mut self, name: &str, help: &str, number: impl Display) {
        self.counter(name, help);
        self.total(name, &[], number);
    }

    fn gauge(&mut self, name: &str, help: &str) {
        self.family(name, "gauge", help);
    }

    fn counter(&mut self, name: &str, help: &str) {
        match self.format {
            Format::Text => self.family(&format!("{name}_total"), "counter", help),
            Format::OpenMetrics => self.family(name, "counter", help),
        }
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn total(&mut self, name: &str, labels: &[(&str, &str)], number: impl Display) {
        self.sample(&format!("{name}_total"), labels, number);
    }

    /// Labels are words of ours, so nothing in them needs escaping.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], number: impl Display) {
        let labels: Vec<_> = labels.iter().map(|(n, v)| format!("{n}=\"{v}\"")).collect();
        let labels = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", labels.join(","))
        };
        let _ = writeln!(self.text, "{name}{labels} {number}");
    }

    fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}
