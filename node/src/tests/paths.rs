//! Files by path: below a root that was announced, and below a name.

use std::time::SystemTime;

use store::Block;
use store::dag::{PbLink, PbNode, UnixFs, UnixFsKind};

use super::*;
use crate::ipns::IpnsRecord;
use crate::{ContentPath, Doors, PathError, TreeEntry, fetch_blocks, fetch_path, fetch_tree};

fn node_of(entries: impl IntoIterator<Item = (String, base::Cid)>, message: &UnixFs) -> Block {
    let links = entries.into_iter().map(|(name, cid)| PbLink {
        cid,
        name: Some(name),
        tsize: Some(0),
    });
    let node = PbNode {
        links: links.collect(),
        data: Some(message.encode().into()),
    };
    Block::of(node.encode().into())
}

pub(super) fn directory(name: &str, cid: base::Cid) -> Block {
    node_of(
        [(name.to_owned(), cid)],
        &UnixFs::new(UnixFsKind::Directory),
    )
}

/// A sharded directory that has the entry in every bucket, so that no hash is needed to put it into the right one.
pub(super) fn shard(name: &str, cid: base::Cid) -> Block {
    let message = UnixFs {
        data: Some(vec![0xff; 32].into()),
        hash_type: Some(0x22),
        fanout: Some(256),
        ..UnixFs::new(UnixFsKind::HamtShard)
    };
    node_of(
        (0..256).map(|bucket| (format!("{bucket:02X}{name}"), cid)),
        &message,
    )
}

/// A node that has announced a directory with a sharded directory with a file; the root, and what the file holds.
async fn holder(middle: &TestNode) -> (TestNode, base::Cid, Vec<u8>) {
    let node = TestNode::server(&[&middle.address]).await;
    let bytes = content(1, 3 << 20);
    let file = ingest(&node.store, &bytes);
    let inner = shard("file.bin", file.root);
    let outer = directory("sub", inner.cid(Codec::DagPb));
    for block in [&inner, &outer] {
        node.store.put(block).unwrap();
    }
    node.store.provide(outer.hash(), ProvideKind::Root).unwrap();
    middle.keeps(1).await;
    (node, outer.cid(Codec::DagPb), bytes)
}

async fn fetch(node: &TestNode, path: &str) -> Result<Fetched, PathError> {
    let path: ContentPath = path.parse().unwrap();
    let (client, store) = (node.client_handle().blocking(), node.store.clone());
    let fetch = move || fetch_path(Some(&client), &path, &store, &NoProgress);
    in_time("a path", tokio::task::spawn_blocking(fetch))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_fetched_through_directories_of_both_kinds() {
    let middle = TestNode::server(&[]).await;
    let (_holder, root, bytes) = holder(&middle).await;
    let reader = TestNode::client(&[&middle.address]).await;
    let fetched = fetch(&reader, &format!("{root}/sub/file.bin"))
        .await
        .unwrap();
    assert_eq!(fetched.blob.sha256, Sha256::of(&bytes));
    let missing = fetch(&reader, &format!("{root}/sub/other"))
        .await
        .unwrap_err();
    assert!(matches!(missing, PathError::NoEntry { name, .. } if name == "other"));
    let directory = fetch(&reader, &format!("{root}/sub")).await.unwrap_err();
    assert!(matches!(
        directory,
        PathError::NotAFile {
            found: "directory",
            ..
        }
    ));
    // The directories were kept, so that the way is known without a network now.
    let path = format!("ipfs://{root}/sub/file.bin").parse().unwrap();
    assert!(fetch_path(Doors::default(), &path, &reader.store, &NoProgress).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_blocks_below_a_root_are_fetched_up_to_a_limit() {
    let middle = TestNode::server(&[]).await;
    let holder = TestNode::server(&[&middle.address]).await;
    let leaves: Vec<_> = (0..200u8).map(|n| Block::of(vec![n; 100].into())).collect();
    let entries = leaves
        .iter()
        .map(|leaf| (leaf.cid(Codec::Raw).to_string(), leaf.cid(Codec::Raw)));
    let inner = node_of(entries, &UnixFs::new(UnixFsKind::Directory));
    let outer = directory("sub", inner.cid(Codec::DagPb));
    for block in leaves.iter().chain([&inner, &outer]) {
        holder.store.put(block).unwrap();
    }
    holder
        .store
        .provide(outer.hash(), ProvideKind::Root)
        .unwrap();
    middle.keeps(1).await;
    let reader = TestNode::client(&[&middle.address]).await;
    let root = outer.cid(Codec::DagPb);
    let fetch = |bytes_max| {
        let (client, store) = (reader.client_handle().blocking(), reader.store.clone());
        let fetch = move || fetch_blocks(Some(&client), &root, bytes_max, &store, &NoProgress);
        in_time("a tree", tokio::task::spawn_blocking(fetch))
    };
    let refused = fetch(20_000).await.unwrap().unwrap_err();
    assert!(matches!(refused, PathError::Dag(_)), "{refused}");
    let bytes = (20_000 + inner.len() + outer.len()) as u64;
    assert_eq!(fetch(1 << 20).await.unwrap().unwrap(), bytes);
    assert!(
        leaves
            .iter()
            .all(|leaf| reader.store.has(leaf.hash()).unwrap())
    );
    // Nobody is needed for what is there.
    let again = fetch_blocks(None, &root, 1 << 20, &reader.store, &NoProgress);
    assert_eq!(again.unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_lies_in_its_own_cid_is_there_without_anybody() {
    let alone = TestNode::client(&[]).await;
    let path = "ipfs://bafkqabtimvwgy3yk";
    let fetched = fetch(&alone, path).await.unwrap();
    assert_eq!(fetched.blob.sha256, Sha256::of(b"hello\n"));
    let without_client = fetch_path(None, &path.parse().unwrap(), &alone.store, &NoProgress);
    assert_eq!(without_client.unwrap().blob, fetched.blob);
    let root = base::parse_root("bafkqabtimvwgy3yk").unwrap();
    let (client, store) = (alone.client_handle().blocking(), alone.store.clone());
    let by_cid = move || client.fetch_cid(root, &[], &store, &NoProgress);
    let by_cid = tokio::task::spawn_blocking(by_cid).await.unwrap();
    assert_eq!(by_cid.unwrap().blob, fetched.blob);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_below_a_name_follows_what_the_name_stands_for() {
    let middle = TestNode::server(&[]).await;
    let (holder, root, bytes) = holder(&middle).await;
    let reader = TestNode::client(&[&middle.address]).await;
    let key = identity::ephemeral();
    let publish = async |sequence, value: String| {
        let (end, ttl) = (SystemTime::now() + PATIENCE * 100, PATIENCE);
        let record = IpnsRecord::sign(&key, value.as_bytes(), sequence, end, ttl).unwrap();
        let name = *record.name();
        holder.client_handle().publish_ipns(record).await.unwrap();
        name
    };
    let name = publish(1, format!("/ipfs/{root}/sub")).await;
    let fetched = fetch(&reader, &format!("ipns://{name}/file.bin"))
        .await
        .unwrap();
    assert_eq!(fetched.blob.sha256, Sha256::of(&bytes));
    publish(2, "something else".to_owned()).await;
    let error = fetch(&reader, &format!("ipns://{name}")).await.unwrap_err();
    assert!(
        matches!(error, PathError::Value { source: None, .. }),
        "{error}"
    );
    publish(3, format!("/ipns/{name}")).await;
    let error = fetch(&reader, &format!("ipns://{name}")).await.unwrap_err();
    assert!(matches!(error, PathError::NamesTooMany), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_blocks_lie_here_in_pieces_is_put_together_without_asking() {
    let alone = TestNode::client(&[]).await;
    let bytes = content(2, 600_000);
    let profile = store::dag::Profile::UNIXFS_V0_2015;
    let root = store::dag::build_file(profile, &bytes[..], &mut |block: Block| {
        alone.store.put(&block).unwrap();
    })
    .unwrap();
    let path = ContentPath::of(root.cid);
    let fetched = fetch_path(Doors::default(), &path, &alone.store, &NoProgress).unwrap();
    assert_eq!(fetched.blob.sha256, Sha256::of(&bytes));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_placed_directories_first_and_names_that_mean_harm_are_not() {
    let middle = TestNode::server(&[]).await;
    let (holder, root, bytes) = holder(&middle).await;
    let reader = TestNode::client(&[&middle.address]).await;
    let place = async |root: base::Cid| {
        let (client, store) = (reader.client_handle().blocking(), reader.store.clone());
        let work = move || {
            let mut placed = Vec::new();
            let path = ContentPath::of(root);
            let place = &mut |path: &std::path::Path, entry| {
                let file = match entry {
                    TreeEntry::Directory => None,
                    TreeEntry::File(fetched) => Some(fetched.blob.sha256),
                };
                placed.push((path.display().to_string(), file));
                Ok::<_, PathError>(())
            };
            fetch_tree(Some(&client), &path, &store, &NoProgress, place).map(|()| placed)
        };
        in_time("a tree", tokio::task::spawn_blocking(work))
            .await
            .unwrap()
    };
    let sha256 = Sha256::of(&bytes);
    let expected = [("", None), ("sub", None), ("sub/file.bin", Some(sha256))];
    let placed = place(root).await.unwrap();
    assert_eq!(placed, expected.map(|(path, file)| (path.to_owned(), file)));
    let climbing = directory("../x", root);
    holder.store.put(&climbing).unwrap();
    reader
        .client_handle()
        .connect(holder.address.clone())
        .await
        .unwrap();
    let error = place(climbing.cid(Codec::DagPb)).await.unwrap_err();
    assert!(
        matches!(&error, PathError::EntryName { name, .. } if name == "../x"),
        "{error}"
    );
}
