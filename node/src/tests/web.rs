//! The door over real sockets, spoken to in plain bytes: a client library would hide what is tested.

use std::time::Duration;

use base::{Codec, Multihash, SecretKey, Sha256, block_cid};
use store::car::CarReader;
use store::substitute::{Asked, NoProgress, Origin};
use store::{BlockStore as _, Store};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::paths::{directory, shard};
use super::{TestNode, config, in_time};
use crate::ipns::IpnsRecord;
use crate::names::settle;
use crate::web::{NoFacts, Site, Web};
use crate::{Deadlines, Doors, Gateways, HttpSources, PathError, fetch_path, identity};

mod metrics;

/// An answer as it came over the wire.
struct Reply {
    code: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

struct World {
    node: TestNode,
    web: Web,
}

impl World {
    async fn new() -> Self {
        Self::of(TestNode::server(&[]).await).await
    }

    /// The door of a node.
    async fn of(node: TestNode) -> Self {
        let site = Site::new(
            node.client_handle().clone(),
            node.store.clone(),
            std::sync::Arc::new(NoFacts),
            true,
        );
        let (web, failed) = Web::start(&["127.0.0.1:0".parse().unwrap()], site).await;
        assert!(failed.is_empty());
        Self { node, web }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.web.addresses()[0]).await.unwrap()
    }

    async fn ask(&self, method: &str, path: &str, headers: &str) -> Reply {
        let host = self.web.addresses()[0];
        self.send(&format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n"
        ))
        .await
    }

    async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, "").await
    }

    async fn send(&self, request: &str) -> Reply {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        in_time("an answer", stream.read_to_end(&mut bytes))
            .await
            .unwrap();
        let end = bytes
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .expect("a whole head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut body = bytes[end + 4..].to_vec();
        if head
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked")
        {
            body = unchunked(&body);
        }
        let code = head[9..12].parse().unwrap();
        Reply { code, head, body }
    }
}

/// Takes the chunks of a body apart; one that ends early gives what came.
fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") {
        let length = std::str::from_utf8(&bytes[..end]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        bytes = &bytes[end + 2..];
        body.extend_from_slice(&bytes[..length.min(bytes.len())]);
        bytes = bytes.get(length + 2..).unwrap_or_default();
    }
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_and_archives_are_given_as_the_specification_says() {
    let world = World::new().await;
    let content = vec![7; 3 << 20];
    world.node.mirror(&content);
    let leaf = block_cid(Codec::Raw, &Sha256::of(&content[..1 << 20]));

    let probe = world.get("/ipfs/bafkqaaa?format=raw").await;
    assert_eq!((probe.code, probe.body.len()), (200, 0));
    let probe = world.ask("HEAD", "/ipfs/bafkqaaa?format=raw", "").await;
    assert_eq!(
        (probe.code, probe.header("content-length")),
        (200, Some("0"))
    );

    let block = world.get(&format!("/ipfs/{leaf}?format=raw")).await;
    assert_eq!((block.code, &block.body[..]), (200, &content[..1 << 20]));
    for (name, value) in [
        ("content-type", "application/vnd.ipld.raw"),
        ("content-length", "1048576"),
        ("cache-control", "public, max-age=29030400, immutable"),
        ("x-content-type-options", "nosniff"),
        ("x-ipfs-roots", &leaf.to_string()),
        (
            "content-disposition",
            &format!("attachment; filename=\"{leaf}.bin\""),
        ),
        ("etag", &format!("\"{leaf}.raw\"")),
    ] {
        assert_eq!(block.header(name), Some(value), "{}", block.head);
    }
    assert_eq!(block.header("access-control-allow-origin"), None);
    let head = world
        .ask(
            "HEAD",
            &format!("/ipfs/{leaf}"),
            "Accept: application/vnd.ipld.raw\r\n",
        )
        .await;
    assert_eq!((head.code, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some("1048576"));
    let same = format!("If-None-Match: W/\"{leaf}.raw\"\r\n");
    assert_eq!(
        world
            .ask("GET", &format!("/ipfs/{leaf}?format=raw"), &same)
            .await
            .code,
        304
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_has_what_was_asked_for_in_the_order_of_the_file() {
    let world = World::new().await;
    let blob = world.node.mirror(&vec![7; 3 << 20]);
    let archive = world
        .ask(
            "GET",
            &format!("/ipfs/{}", blob.root),
            "Accept: application/vnd.ipld.car; dups=y\r\n",
        )
        .await;
    assert_eq!(archive.code, 200);
    let kind = "application/vnd.ipld.car; version=1; order=dfs; dups=y";
    assert_eq!(archive.header("content-type"), Some(kind));
    let mut reader = CarReader::new(&archive.body[..]).unwrap();
    assert_eq!(reader.roots(), [blob.root]);
    let mut blocks = 0;
    while reader.next_section().unwrap().is_some() {
        blocks += 1;
    }
    assert_eq!(blocks, 4, "the root, and one chunk three times");
    let one = world
        .get(&format!("/ipfs/{}?format=car&dag-scope=block", blob.root))
        .await;
    assert!(one.body.len() < 1000, "{}", one.body.len());
}

/// The blocks of an archive, in order.
fn blocks(archive: &[u8]) -> Vec<cid::Cid> {
    let mut reader = CarReader::new(archive).unwrap();
    let mut blocks = Vec::new();
    while let Some(section) = reader.next_section().unwrap() {
        blocks.push(section.cid);
    }
    blocks
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_of_a_path_proves_the_way_and_holds_the_part_that_was_asked_for() {
    let world = World::new().await;
    let content: Vec<u8> = (0..3_u8).flat_map(|n| vec![n; 1 << 20]).collect();
    let file = world.node.mirror(&content).root;
    let inner = shard("file.bin", file);
    let outer = directory("sub", inner.cid(Codec::DagPb));
    for block in [&inner, &outer] {
        world.node.store.put(block).unwrap();
    }
    let (root, sub) = (outer.cid(Codec::DagPb), inner.cid(Codec::DagPb));
    let leaf = |n: usize| block_cid(Codec::Raw, &Sha256::of(&content[n << 20..(n + 1) << 20]));
    for (question, expected) in [
        ("", vec![root, sub, file, leaf(0), leaf(1), leaf(2)]),
        ("&dag-scope=block", vec![root, sub, file]),
        (
            "&dag-scope=entity&entity-bytes=1048576:*",
            vec![root, sub, file, leaf(1), leaf(2)],
        ),
        ("&entity-bytes=-1:*", vec![root, sub, file, leaf(2)]),
        ("&entity-bytes=0:9", vec![root, sub, file, leaf(0)]),
    ] {
        let path = format!("/ipfs/{root}/sub/file.bin");
        let reply = world.get(&format!("{path}?format=car{question}")).await;
        assert_eq!(reply.code, 200, "{question}: {}", reply.head);
        assert_eq!(blocks(&reply.body), expected, "{question}");
        let roots = format!("{root},{sub},{file}");
        assert_eq!(reply.header("x-ipfs-roots"), Some(&roots[..]));
        assert_eq!(reply.header("x-ipfs-path"), Some(&path[..]));
    }
    // A directory as an entity is the list of what is in it, and nothing below.
    let list = world
        .get(&format!("/ipfs/{root}/sub?format=car&dag-scope=entity"))
        .await;
    assert_eq!(blocks(&list.body), [root, sub]);
    let nothing = world.get(&format!("/ipfs/{root}/sub/x?format=car")).await;
    assert_eq!(nothing.code, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_below_a_name_is_followed_through_a_gateway_without_peers() {
    let world = World::new().await;
    let content = vec![7; (2 << 20) + 5];
    let file = world.node.mirror(&content).root;
    let inner = shard("file.bin", file);
    let outer = directory("sub", inner.cid(Codec::DagPb));
    for block in [&inner, &outer] {
        world.node.store.put(block).unwrap();
    }
    let root = outer.cid(Codec::DagPb);
    let now = std::time::SystemTime::now();
    let hour = Duration::from_secs(3600);
    let key = identity::ephemeral();
    let value = format!("/ipfs/{root}/sub");
    let record = IpnsRecord::sign(&key, value.as_bytes(), 1, now + hour, hour).unwrap();
    let name = *record.name();
    settle(
        &world.node.store,
        &name,
        Some(&record),
        Asked::default(),
        now,
    )
    .unwrap();
    let url = format!("http://{}", world.web.addresses()[0]);
    let fetch = move || {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let http = HttpSources::new(Deadlines::default(), 16 << 20);
        let gateways = Gateways::new(http, &[url]);
        let doors = Doors {
            peers: None,
            gateways: Some(&gateways),
        };
        let get = |path: String| fetch_path(doors, &path.parse().unwrap(), &store, &NoProgress);
        let missing = get(format!("ipns://{name}/other")).unwrap_err();
        assert!(matches!(missing, PathError::NoEntry { .. }), "{missing}");
        get(format!("ipns://{name}/file.bin")).unwrap()
    };
    let fetched = in_time("a path", tokio::task::spawn_blocking(fetch))
        .await
        .unwrap();
    assert_eq!(fetched.blob.sha256, Sha256::of(&content));
    assert!(matches!(fetched.received[0].0, Origin::Gateway(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_or_not_here_has_the_right_code() {
    let world = World::new().await;
    let missing = block_cid(Codec::Raw, &Sha256::of(b"nobody has this"));
    let sha512 = cid::multihash::Multihash::wrap(0x13, &[7; 64]).unwrap();
    let sha512 = cid::Cid::new_v1(0x55, sha512);
    for (code, path) in [
        (404, format!("/ipfs/{missing}?format=raw")),
        (404, format!("/ipfs/{missing}?format=car")),
        (404, format!("/ipfs/{sha512}?format=raw")),
        (406, format!("/ipfs/{missing}")),
        (406, format!("/ipfs/{missing}?format=dag-json")),
        (400, "/ipfs/nonsense?format=raw".to_owned()),
        (400, format!("/ipfs/{missing}/a?format=raw")),
        (400, format!("/ipfs/{missing}/..?format=car")),
        (400, format!("/ipfs/{missing}?format=car&dag-scope=most")),
        (400, "/ipns/nonsense?format=ipns-record".to_owned()),
        (400, "/sha256/xyz".to_owned()),
        (404, format!("/sha256/{}", Sha256::of(b"x").to_hex())),
        (404, format!("/{}.tar.zst", Sha256::of(b"x").to_hex())),
        (404, "/../etc/passwd".to_owned()),
        (404, "/robots.txt".to_owned()),
    ] {
        let reply = world.get(&path).await;
        assert_eq!(reply.code, code, "{path}: {}", reply.text());
    }
    let cached = world
        .ask(
            "GET",
            &format!("/ipfs/{missing}?format=raw"),
            "Cache-Control: only-if-cached\r\n",
        )
        .await;
    assert_eq!(cached.code, 412);
    let post = world.ask("POST", "/healthz", "").await;
    assert_eq!((post.code, post.header("allow")), (405, Some("GET, HEAD")));
    let long = format!("X-Long: {}\r\n", "x".repeat(64 << 10));
    assert!(matches!(
        world.ask("GET", "/healthz", &long).await.code,
        400 | 431
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_can_be_had_from_any_byte_on() {
    let world = World::new().await;
    let content: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let blob = world.node.mirror(&content);
    let path = format!("/sha256/{}", blob.sha256.to_hex());
    let whole = world.get(&path).await;
    assert_eq!((whole.code, whole.body.as_slice()), (200, &content[..]));
    let rest = world.ask("GET", &path, "Range: bytes=999990-\r\n").await;
    assert_eq!(
        (rest.code, rest.body.as_slice()),
        (206, &content[999_990..])
    );
    assert_eq!(
        rest.header("content-range"),
        Some("bytes 999990-999999/1000000")
    );
    let beyond = world.ask("GET", &path, "Range: bytes=1000000-\r\n").await;
    assert_eq!(
        (beyond.code, beyond.header("content-range")),
        (416, Some("bytes */1000000"))
    );

    let pkghash = base::PkgHash::of_derivation(b"package");
    let key = SecretKey::from_seed(&[1; 32]);
    let signed = world.node.publish(pkghash, b"output", &key);
    let output = world
        .get(&format!("/{}.tar.zst", pkghash.digest().to_hex()))
        .await;
    assert_eq!((output.code, output.text().as_str()), (200, "output"));
    let sha256 = signed.realisation().sha256.to_hex();
    assert_eq!(output.header("x-sha256"), Some(sha256.as_str()));
    let statements = world
        .get(&format!("/{}.realisations", pkghash.digest().to_hex()))
        .await;
    assert_eq!(statements.code, 200);
    assert!(statements.body.ends_with(&signed.to_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_for_this_machine_under_its_own_name() {
    let world = World::new().await;
    for path in ["/status", "/status.json", "/status.css", "/metrics"] {
        assert_eq!(world.get(path).await.code, 200, "{path}");
        let foreign =
            format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
        assert_eq!(world.send(&foreign).await.code, 403, "{path}");
        let framed = world
            .ask("GET", path, "Sec-Fetch-Site: cross-site\r\n")
            .await;
        assert_eq!(framed.code, 403, "{path}");
    }
    assert_eq!(world.get("/").await.header("location"), Some("/status"));
    assert_eq!(world.get("/healthz").await.text(), "alive\n");
    assert_eq!(world.get("/readyz").await.text(), "ready\n");
    let page = world.get("/status").await;
    assert!(page.text().contains(&world.node.peer_id().to_string()));
    assert!(
        page.header("content-security-policy")
            .unwrap()
            .starts_with("default-src 'none'")
    );
    let metrics = world.get("/metrics").await.text();
    for line in [
        "p2pkgs_http_responses_total{handler=\"healthz\",code=\"200\"} 1",
        "p2pkgs_bitswap_sent_bytes_total{reach=\"lan\"} 0",
        "p2pkgs_provide_queue 0",
        "# TYPE process_resident_memory_bytes gauge",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dht_is_asked_in_the_name_of_others_on_this_machine() {
    let world = World::new().await;
    let holder = TestNode::server(&[&world.node.address]).await;
    let blob = holder.mirror(b"somebody else has this");
    world.node.keeps(1).await;
    let key = Multihash::sha2_256(&blob.sha256);
    let cid = block_cid(Codec::Raw, &key.digest());
    let path = format!("/routing/v1/providers/{cid}");
    let reply = world.get(&path).await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let found: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
    let provider = &found["Providers"][0];
    assert_eq!(provider["ID"], holder.peer_id().to_string());
    assert_eq!(provider["Schema"], "peer");
    let address = provider["Addrs"][0].as_str().unwrap();
    assert!(address.starts_with("/ip4/127.0.0.1/tcp/"), "{address}");
    let lines = world
        .ask("GET", &path, "Accept: application/x-ndjson\r\n")
        .await
        .text();
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first["ID"], provider["ID"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_over_http_and_a_command_share_one_walk() {
    let middle = TestNode::server(&[]).await;
    let holder = TestNode::server(&[&middle.address]).await;
    let blob = holder.mirror(b"somebody else has this");
    middle.keeps(1).await;
    let node = TestNode::server(&[&middle.address]).await;
    let world = World::of(node).await;
    let own = world.node.mirror(b"this is here");
    middle.keeps(2).await;
    let key = Multihash::sha2_256(&blob.sha256);
    let path = format!(
        "/routing/v1/providers/{}",
        block_cid(Codec::Raw, &blob.sha256)
    );
    let user = TestNode::start(crate::Config {
        listen: Vec::new(),
        daemon: Some(world.node.peer_id()),
        ..config(crate::DhtMode::Client, &[&world.node.address])
    })
    .await;
    let found = user.client_handle().find_providers(key).await.unwrap();
    assert_eq!(found.peers, [holder.peer_id()]);
    // The DHT is gone: what the command's walk found is known here too.
    middle.node.stop().await;
    let reply = world.get(&path).await;
    let found: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
    assert_eq!(found["Providers"][0]["ID"], holder.peer_id().to_string());
    // This node names itself for what it announces.
    let path = format!(
        "/routing/v1/providers/{}",
        block_cid(Codec::Raw, &own.sha256)
    );
    let reply = world.get(&path).await;
    let found: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
    assert_eq!(
        found["Providers"][0]["ID"],
        world.node.peer_id().to_string()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_given_as_signed_records_if_they_are_here() {
    use crate::ipns::IpnsRecord;
    let world = World::new().await;
    let key = crate::identity::ephemeral();
    let expires = std::time::SystemTime::now() + Duration::from_secs(3600);
    let ttl = Duration::from_secs(60);
    let record = IpnsRecord::sign(&key, b"/ipfs/bafkqaaa", 1, expires, ttl).unwrap();
    let path = format!("/ipns/{}?format=ipns-record", record.name());
    assert_eq!(world.get(&path).await.code, 404);
    let name = record.name().to_bytes();
    world
        .node
        .store
        .keep_name_record(&name, 1, record.bytes())
        .unwrap();
    let reply = world.get(&path).await;
    assert_eq!((reply.code, reply.body.as_slice()), (200, record.bytes()));
    assert_eq!(reply.header("cache-control"), Some("public, max-age=60"));
    assert_eq!(
        reply.header("content-type"),
        Some("application/vnd.ipfs.ipns-record")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_told_and_the_others_are_served() {
    let world = World::new().await;
    let taken = world.web.addresses()[0];
    let site = Site::new(
        world.node.client_handle().clone(),
        world.node.store.clone(),
        std::sync::Arc::new(NoFacts),
        true,
    );
    let (web, failed) = Web::start(&[taken, "127.0.0.1:0".parse().unwrap()], site).await;
    assert_eq!(web.addresses().len(), 1);
    assert_eq!(failed[0].0, taken);
    assert_eq!(failed[0].1.kind(), std::io::ErrorKind::AddrInUse);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_vanishes_breaks_the_connection_instead_of_ending_the_archive() {
    use store::dag::{PbLink, PbNode, UnixFs, UnixFsKind};
    let world = World::new().await;
    let node = PbNode {
        links: vec![PbLink {
            name: Some("gone".to_owned()),
            cid: block_cid(Codec::Raw, &Sha256::of(b"gone")),
            tsize: None,
        }],
        data: Some(UnixFs::new(UnixFsKind::Directory).encode().into()),
    };
    let block = store::Block::of(node.encode().into());
    world.node.store.put(&block).unwrap();
    let cid = block.cid(Codec::DagPb);
    let mut stream = world.connect().await;
    let request = format!("GET /ipfs/{cid}?format=car HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let _ = in_time("the end", stream.read_to_end(&mut bytes)).await;
    assert!(
        !bytes.ends_with(b"0\r\n\r\n"),
        "the last chunk says that all came"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_change_count_for_whoever_comes_next() {
    let world = World::new().await;
    let met = TestNode::client(&[&world.node.address]).await;
    let id = met
        .client_handle()
        .connect(world.node.address.clone())
        .await;
    assert!(id.is_ok());
    let none = crate::RunningLimits {
        connections: 1,
        connections_per_peer: 1,
        memory_bytes: usize::MAX,
        upload_bytes_per_sec: Some(1 << 20),
        download_bytes_per_sec: None,
    };
    world.node.client_handle().set_limits(none).await.unwrap();
    let late = TestNode::client(&[]).await;
    let refused = late.client_handle().connect(world.node.address.clone());
    assert!(in_time("a refusal", refused).await.is_err());
    let status = world.node.client_handle().status().await.unwrap();
    assert_eq!(status.peers.len(), 1, "who was there stays");
    let more = crate::RunningLimits {
        connections: 8,
        ..none
    };
    world.node.client_handle().set_limits(more).await.unwrap();
    let again = late.client_handle().connect(world.node.address.clone());
    assert!(in_time("a connection", again).await.is_ok());
}
