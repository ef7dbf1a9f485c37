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
    let http = HttpSources::new(deadlines, 16 << 20, Arc::new(|_, _| Vec::new()));
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
    let honest = Server::new([Act::Whole(content[2 << 20..].to_vec())]);
    let (fetched, bytes) = ask_gateways(&[&liar, &honest], &root);
    let fetched = fetched.unwrap();
    assert_eq!(bytes, content);
    assert_eq!(fetched.received.len(), 2, "{:?}", fetched.received);
    assert_eq!(fetched.asked.invalid, 1);
    assert!(honest.requests()[0].contains("?format=raw "));
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
