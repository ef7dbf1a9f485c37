//! Trustless gateways that give too little, or something else.

use std::io::Read as _;

use super::*;

/// A file of three different chunks: its root, its archive, and its chunks.
fn chunked() -> (Vec<u8>, base::Cid, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let content: Vec<u8> = (0..3_u8).flat_map(|n| vec![n; 1 << 20]).collect();
    let mut ingest = store.ingest().unwrap();
    ingest.append(&content).unwrap();
    let root = ingest.finish(&store::Expected::anything()).unwrap().root;
    let archive = store.export_car(&[root], Vec::new()).unwrap();
    (content, root, archive)
}

fn ask_gateways(servers: &[&Server], root: &base::Cid) -> (Result<Fetched, FetchError>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let urls: Vec<_> = servers.iter().map(|server| server.url.clone()).collect();
    let deadlines = Deadlines {
        dial: Duration::from_secs(2),
        ..Deadlines::default()
    };
    let http = HttpSources::new(deadlines, 16 << 20);
    let gateways = Gateways::new(http, &urls);
    let result = gateways.fetch_cid(root, &store::Expected::anything(), &store, &NoProgress);
    let mut bytes = Vec::new();
    if let Ok(fetched) = &result {
        let mut file = store.open_blob(&fetched.blob.sha256).unwrap().unwrap();
        file.read_to_end(&mut bytes).unwrap();
    }
    (result, bytes)
}

#[test]
fn a_gateway_gives_a_file_as_one_archive() {
    let (content, root, archive) = chunked();
    let gateway = Server::new([Act::Whole(archive)]);
    let (fetched, bytes) = ask_gateways(&[&gateway], &root);
    let received = fetched.unwrap().received;
    assert_eq!(received[0].0, Origin::Gateway(gateway.url.clone()));
    assert_eq!(bytes, content);
    let request = gateway.requests().remove(0);
    let wanted = format!("GET /file/ipfs/{root}?format=car&dag-scope=entity&car-dups=y ");
    assert!(request.starts_with(&wanted), "{request}");
}

#[test]
fn what_one_gateway_spoils_the_next_one_finishes_block_by_block() {
    let (content, root, mut archive) = chunked();
    *archive.last_mut().unwrap() ^= 1;
    let liar = Server::new([Act::Whole(archive)]);
    let honest = Server::new([
        Act::Status("406 Not Acceptable"),
        Act::Whole(content[2 << 20..].to_vec()),
    ]);
    let (fetched, bytes) = ask_gateways(&[&liar, &honest], &root);
    let fetched = fetched.unwrap();
    assert_eq!(bytes, content);
    assert_eq!(fetched.received.len(), 2, "{:?}", fetched.received);
    assert_eq!(fetched.asked.invalid, 1);
    let asked = honest.requests();
    let rest = format!("&entity-bytes={}:* ", 2 << 20);
    assert!(asked[0].contains(&rest), "{}", asked[0]);
    assert!(asked[1].contains("?format=raw "), "{}", asked[1]);
    liar.requests();
}

#[test]
fn a_gateway_without_archives_is_asked_for_blocks_and_wrong_ones_are_refused() {
    let (_, root, archive) = chunked();
    let poor = Server::new([Act::Status("406 Not Acceptable"), Act::Whole(archive)]);
    let (result, _) = ask_gateways(&[&poor], &root);
    assert!(
        matches!(result, Err(FetchError::Invalid { .. })),
        "{result:?}"
    );
    assert_eq!(poor.requests().len(), 2);
    let empty = Server::new([Act::Status("404 Not Found"), Act::Status("404 Not Found")]);
    let (result, _) = ask_gateways(&[&empty], &root);
    assert!(
        matches!(result, Err(FetchError::Missing { .. })),
        "{result:?}"
    );
}

/// What is asked in the tests below: one block, by its SHA-256.
fn ask_for_source(
    fixture: &Fixture,
    peers: impl FnOnce(&dyn Progress) -> Result<Fetched, FetchError> + Send,
    gateways: &Gateways,
    sha256: Sha256,
) -> Result<Fetched, FetchError> {
    let heats = store::substitute::Heats {
        silence: Duration::from_millis(20),
        head_start: Duration::from_millis(20),
        ..GATEWAY_HEATS
    };
    let form = SourceForm::File;
    let sources = GatewaySources { gateways, form };
    let request = SourceRequest {
        sha256,
        file_name: "file",
        urls: &[],
    };
    let ways: Vec<store::substitute::Way<'_, Fetched>> = vec![
        Box::new(peers),
        Box::new(|progress| sources.fetch(&request, &fixture.store, progress)),
    ];
    let (fetched, failed) = heats.run(ways, &NoProgress)?;
    let asked = failed.merged(fetched.asked);
    Ok(Fetched { asked, ..fetched })
}

fn hangs(progress: &dyn Progress) -> Result<Fetched, FetchError> {
    while !progress.cancelled() {
        std::thread::yield_now();
    }
    Err(FetchError::Cancelled)
}

#[test]
fn peers_that_hang_are_overtaken_by_the_first_gateway_that_is_right() {
    let (fixture, body) = (fixture(), content(5000));
    let (silent, liar, honest) = (
        Server::new([Act::Silent]),
        Server::new([Act::Whole(vec![1; 5000])]),
        Server::new([Act::Whole(body.clone())]),
    );
    let urls = [&silent, &liar, &honest].map(|server| server.url.clone());
    let gateways = Gateways::new(fixture.sources.clone(), &urls);
    let fetched = ask_for_source(&fixture, hangs, &gateways, Sha256::of(&body)).unwrap();
    assert_eq!(
        fetched.received,
        [(Origin::Gateway(honest.url.clone()), 5000)]
    );
    assert_eq!(
        (
            fetched.asked.caches,
            fetched.asked.timed_out,
            fetched.asked.invalid
        ),
        (3, 1, 1)
    );
    let path = format!("/file/sha256/{} ", Sha256::of(&body).to_hex());
    assert!(honest.requests()[0].contains(&path));
}

#[test]
fn a_gateway_that_hangs_is_left_when_peers_have_it() {
    let mut fixture = fixture();
    fixture.sources.deadlines.first_byte = Duration::from_secs(3600);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let http = HttpSources::new(fixture.sources.deadlines.clone(), 1 << 20);
    let gateways = Gateways::new(http, &[url]);
    let body = content(5000);
    let mut ingest = fixture.store.ingest().unwrap();
    ingest.append(&body).unwrap();
    let blob = ingest.finish(&store::Expected::anything()).unwrap();
    // Peers are slow: they have it only when the gateway was asked, too. It never answers.
    let peers = |_: &dyn Progress| {
        let _asked = listener.accept().unwrap();
        Ok(crate::fetch::local(blob))
    };
    let fetched = ask_for_source(&fixture, peers, &gateways, Sha256::of(&body)).unwrap();
    assert_eq!(fetched.received, [(Origin::Local, 5000)]);
}

#[test]
fn a_gateway_is_asked_at_once_when_peers_have_missed_and_nothing_right_is_a_failure() {
    let (fixture, body) = (fixture(), content(5000));
    let missed = |_: &dyn Progress| {
        let asked = Asked {
            providers: 1,
            ..Asked::default()
        };
        Err(FetchError::Missing { asked })
    };
    let honest = Server::new([Act::Whole(body.clone())]);
    let gateways = Gateways::new(fixture.sources.clone(), std::slice::from_ref(&honest.url));
    let fetched = ask_for_source(&fixture, missed, &gateways, Sha256::of(&body)).unwrap();
    assert_eq!((fetched.asked.providers, fetched.asked.caches), (1, 1));
    let liar = Server::new([Act::Whole(vec![1; 5000])]);
    let gateways = Gateways::new(fixture.sources.clone(), std::slice::from_ref(&liar.url));
    let error = ask_for_source(&fixture, missed, &gateways, Sha256::of(b"x")).unwrap_err();
    assert!(matches!(error, FetchError::Invalid { .. }), "{error:?}");
}

#[test]
fn statements_of_gateways_and_caches_are_counted_by_what_came_of_them() {
    let fixture = fixture();
    let pkghash = base::PkgHash::of_derivation(b"package");
    // One package, of which nothing is known.
    let empty = vec![1, 0];
    let answers = [
        Act::Whole(empty),
        Act::Status("404 Not Found"),
        Act::Status("403 Forbidden"),
        Act::Status("500 Oops"),
        Act::Whole(b"<html>".to_vec()),
        Act::Whole(vec![0; 1 << 20]),
    ];
    let servers = answers.map(|act| Server::new([act]));
    let mut urls: Vec<_> = servers.iter().map(|server| server.url.clone()).collect();
    // A port that was just free refuses connections.
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    urls.push(format!("http://{}", free.local_addr().unwrap()));
    drop(free);
    let gateways = Gateways::new(fixture.sources.clone(), &urls);
    let query =
        |who: &dyn store::substitute::Substituter| who.query(&pkghash, &NoProgress).unwrap();
    let asked = query(&gateways).asked;
    assert_eq!(
        asked,
        Asked {
            caches: 7,
            refused: 1,
            failed: 1,
            invalid: 2,
            unreachable: 1,
            ..Asked::default()
        }
    );
    // What one has found out about a server, all others know.
    let cache = HttpCaches::new(fixture.sources.clone(), &[format!("{}/cache", urls[6])]);
    assert_eq!(query(&cache).asked, Asked::default());
}

#[test]
fn blocks_and_records_of_names_come_from_the_first_gateway_that_is_right() {
    let fixture = fixture();
    let block = base::Block::of(bytes::Bytes::from_static(b"block"));
    let cid = base::block_cid(base::Codec::Raw, &block.hash().digest());
    let key = crate::identity::ephemeral();
    let end = std::time::SystemTime::now() + Duration::from_secs(3600);
    let record =
        crate::ipns::IpnsRecord::sign(&key, b"/ipfs/bafkqaaa", 1, end, Duration::from_secs(60))
            .unwrap();
    let liar = Server::new([Act::Whole(b"other".to_vec()), Act::Whole(b"no".to_vec())]);
    let honest = Server::new([
        Act::Whole(b"block".to_vec()),
        Act::Whole(record.bytes().to_vec()),
    ]);
    let urls = [&liar, &honest].map(|server| server.url.clone());
    let gateways = Gateways::new(fixture.sources.clone(), &urls);
    assert_eq!(gateways.block(&cid, &NoProgress).unwrap(), block);
    let (got, asked) = gateways.name_record(record.name(), &NoProgress).unwrap();
    assert_eq!((got, asked.invalid), (record, 1));
}

#[test]
fn a_gateway_that_is_silent_about_a_source_costs_its_deadline_once() {
    let fixture = fixture();
    let silent = Server::new([Act::Silent]);
    let gateways = Gateways::new(fixture.sources.clone(), std::slice::from_ref(&silent.url));
    let sources = GatewaySources {
        gateways: &gateways,
        form: SourceForm::File,
    };
    let fetch = |bytes: &[u8]| {
        let request = SourceRequest {
            sha256: Sha256::of(bytes),
            file_name: "file",
            urls: &[],
        };
        sources.fetch(&request, &fixture.store, &NoProgress)
    };
    let first = fetch(b"one").unwrap_err();
    assert!(matches!(first, FetchError::TimedOut { .. }), "{first:?}");
    let second = fetch(b"two").unwrap_err();
    assert!(matches!(second, FetchError::Missing { asked } if asked == Asked::default()));
    assert_eq!(silent.requests().len(), 1);
}
