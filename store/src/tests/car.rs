//! Archives of DAGs, taken in and given out.

use std::fs::File;
use std::io::{Seek as _, Write as _};

use base::{Cid, Codec};
use bytes::Bytes;

use super::{add, file_count, noise, store};
use crate::car::CarError;
use crate::dag::{PbLink, PbNode, Profile, UnixFs, UnixFsKind, build_file};
use crate::{Block, BlockStore as _, MemoryBlockStore, Store};

fn archive(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

fn export(store: &Store, roots: &[Cid]) -> Vec<u8> {
    store.export_car(roots, Vec::new()).unwrap()
}

fn directory(entries: &[(&str, Cid)]) -> Block {
    let link = |(name, cid): &(&str, Cid)| PbLink {
        cid: *cid,
        name: Some((*name).to_owned()),
        tsize: Some(0),
    };
    let node = PbNode {
        links: entries.iter().map(link).collect(),
        data: Some(UnixFs::new(UnixFsKind::Directory).encode().into()),
    };
    Block::of(node.encode().into())
}

/// The file laid out as old tools do, in blocks of the store's index.
fn add_old_form(store: &Store, bytes: &[u8]) -> Cid {
    let blocks = MemoryBlockStore::new();
    let put = &mut |block: Block| {
        blocks.put(&block).unwrap();
        store.put(&block).unwrap();
    };
    build_file(Profile::UNIXFS_V0_2015, bytes, put).unwrap().cid
}

#[test]
fn a_file_goes_from_store_to_store_and_is_a_blob_there() {
    let ((_a, from), (_b, to)) = (store(), store());
    let bytes = noise(1, (2 << 20) + 17);
    let blob = add(&from, &bytes);
    let car = export(&from, &[blob.root]);
    let import = to.import_car(&archive(&car)).unwrap();
    assert_eq!(import.files, [(blob.root, blob.clone())]);
    assert_eq!((import.blocks, import.incomplete.len()), (4, 0));
    assert_eq!(to.blob(&blob.sha256).unwrap(), Some(blob.clone()));
    assert_eq!(
        export(&to, &[blob.root]),
        car,
        "and out again, byte for byte"
    );
}

#[test]
fn a_chunk_that_occurs_twice_in_a_file_is_in_the_archive_once() {
    let ((_a, from), (_b, to)) = (store(), store());
    let blob = add(&from, &vec![5; 4 << 20]);
    let car = export(&from, &[blob.root]);
    assert!(car.len() < (1 << 20) + 1000);
    let import = to.import_car(&archive(&car)).unwrap();
    assert_eq!(import.files, [(blob.root, blob)]);
}

#[test]
fn a_file_laid_out_by_another_tool_becomes_a_blob_and_keeps_its_root() {
    let ((_a, from), (_b, to)) = (store(), store());
    let bytes = noise(2, 600_000);
    let root = add_old_form(&from, &bytes);
    let import = to.import_car(&archive(&export(&from, &[root]))).unwrap();
    let [(found, blob)] = &import.files[..] else {
        panic!("{import:?}");
    };
    assert_eq!(*found, root);
    assert_eq!(blob.sha256, base::Sha256::of(&bytes));
    assert_ne!(blob.root, root, "our own layout has another root");
    assert_eq!(export(&to, &[root]), export(&from, &[root]));
}

#[test]
fn blocks_in_the_worst_order_are_put_together_all_the_same() {
    let ((_a, from), (_b, to)) = (store(), store());
    let root = add_old_form(&from, &noise(3, 1_000_000));
    let mut sections = Vec::new();
    let car = export(&from, &[root]);
    let mut reader = crate::car::CarReader::new(&car[..]).unwrap();
    while let Some(section) = reader.next_section().unwrap() {
        sections.push(section);
    }
    let mut writer = crate::car::CarWriter::new(Vec::new(), &[root]).unwrap();
    for section in sections.iter().rev() {
        writer.write(&section.cid, &section.block).unwrap();
    }
    let import = to.import_car(&archive(&writer.finish().unwrap())).unwrap();
    assert_eq!(import.files.len(), 1);
}

#[test]
fn directories_and_what_is_no_unixfs_are_kept_as_blocks() {
    let ((_a, from), (_b, to)) = (store(), store());
    let (one, two) = (add(&from, b"one"), add(&from, b"two"));
    let inner = directory(&[("two", two.root)]);
    let outer = directory(&[("inner", inner.cid(Codec::DagPb)), ("one", one.root)]);
    let odd = Block::of(Bytes::from(PbNode::default().encode()));
    for block in [&inner, &outer, &odd] {
        from.put(block).unwrap();
    }
    let roots = [outer.cid(Codec::DagPb), odd.cid(Codec::DagPb)];
    let import = to.import_car(&archive(&export(&from, &roots))).unwrap();
    assert_eq!(
        (import.roots.as_slice(), import.files.len()),
        (&roots[..], 0)
    );
    assert_eq!(export(&to, &roots), export(&from, &roots));
    assert_eq!(to.blob_of_blocks(&one.root).unwrap(), Some(one));
    let error = to.blob_of_blocks(&roots[0]).unwrap_err();
    assert!(matches!(error, CarError::Dag { .. }), "{error}");
}

#[test]
fn a_file_that_is_not_whole_is_told_of_and_its_blocks_are_kept() {
    let ((_a, from), (_b, to)) = (store(), store());
    let blob = add(&from, &noise(4, 3 << 20));
    let root = from.get_cid(&blob.root).unwrap().unwrap();
    let mut writer = crate::car::CarWriter::new(Vec::new(), &[blob.root]).unwrap();
    writer.write(&blob.root, &root).unwrap();
    let import = to.import_car(&archive(&writer.finish().unwrap())).unwrap();
    assert_eq!(import.incomplete, [blob.root]);
    assert!(to.has(root.hash()).unwrap());
    assert_eq!(to.blob_of_blocks(&blob.root).unwrap(), None);
    let error = to.export_car(&[blob.root], Vec::new()).unwrap_err();
    assert!(
        matches!(&error, CarError::Missing { root, .. } if *root == blob.root.to_string()),
        "{error}"
    );
}

#[test]
fn a_broken_archive_leaves_nothing_behind() {
    let ((_a, from), (_b, to)) = (store(), store());
    let blob = add(&from, &noise(5, 2 << 20));
    let mut car = export(&from, &[blob.root]);
    *car.last_mut().unwrap() ^= 1;
    let error = to.import_car(&archive(&car)).unwrap_err();
    assert!(matches!(error, CarError::Mismatch { .. }), "{error}");
    assert!(!to.has(&base::Multihash::of(&blob.root).unwrap()).unwrap());
    assert_eq!((file_count(&to, "blobs"), file_count(&to, "tmp")), (0, 0));
}

#[test]
fn a_file_that_lies_about_its_size_is_refused() {
    let (_dir, store) = store();
    let leaf = Block::of(Bytes::from_static(b"abc"));
    let message = UnixFs {
        file_size: Some(4),
        block_sizes: vec![4],
        ..UnixFs::new(UnixFsKind::File)
    };
    let node = PbNode {
        links: vec![PbLink {
            cid: leaf.cid(Codec::Raw),
            name: Some(String::new()),
            tsize: Some(3),
        }],
        data: Some(message.encode().into()),
    };
    let node = Block::of(node.encode().into());
    let root = node.cid(Codec::DagPb);
    let mut writer = crate::car::CarWriter::new(Vec::new(), &[root]).unwrap();
    writer.write(&root, &node).unwrap();
    writer.write(&leaf.cid(Codec::Raw), &leaf).unwrap();
    let error = store
        .import_car(&archive(&writer.finish().unwrap()))
        .unwrap_err();
    assert!(matches!(error, CarError::Dag { .. }), "{error}");
}

/// What a collection of all that may go removes: files, blocks.
fn collect(store: &Store) -> (usize, usize) {
    let everything = crate::gc::Goal {
        free_bytes: None,
        order: crate::gc::Order::LeastRecentlyUsed,
    };
    let plan = store.plan_collection(&everything, &|_| None).unwrap();
    let collected = store.collect(&plan, &|| false).unwrap();
    assert_eq!(collected.removed.len(), plan.remove.len());
    let blocks = collected.removed.iter().filter(|entry| entry.is_block);
    let blocks = blocks.count();
    (collected.removed.len() - blocks, blocks)
}

#[test]
fn blocks_that_are_part_of_no_file_are_cache_like_any_file() {
    let ((_a, from), (_b, to)) = (store(), store());
    let blob = add(&from, &noise(1, 3000));
    let folder = directory(&[("file", blob.root)]);
    from.put(&folder).unwrap();
    let root = base::block_cid(Codec::DagPb, &folder.hash().digest());
    let import = to.import_car(&archive(&export(&from, &[root]))).unwrap();
    assert!(import.files.is_empty());
    let bytes = 3000 + folder.len() as u64;
    assert_eq!(to.usage().unwrap().bytes, bytes);
    // A file and a folder came, both as blocks, which stay while the folder is pinned.
    let pinned = crate::Pin {
        sha256: folder.hash().digest(),
        kind: crate::PinKind::Other {
            name: "folder".to_owned(),
        },
        added_unix_secs: 0,
    };
    to.pin(&pinned).unwrap();
    assert_eq!(collect(&to), (0, 0));
    to.unpin(&pinned.sha256, &pinned.kind).unwrap();
    assert_eq!(collect(&to), (0, 2));
    assert_eq!(to.usage().unwrap().bytes, 0);
    assert!(!to.has(folder.hash()).unwrap());
    // Within a quota they go for what is new.
    to.import_car(&archive(&export(&from, &[root]))).unwrap();
    let limits = crate::Limits {
        quota_bytes: Some(4000),
        keep_free_bytes: 0,
    };
    let full = to.clone().with_limits(limits);
    let new = add(&full, &noise(2, 4000));
    assert!(full.blob(&new.sha256).unwrap().is_some());
    assert!(!to.has(folder.hash()).unwrap());
}

#[test]
fn what_is_another_form_of_a_pinned_file_stays_with_it() {
    let ((_a, from), (_b, to)) = (store(), store());
    let root = add_old_form(&from, &noise(1, 600_000));
    let import = to.import_car(&archive(&export(&from, &[root]))).unwrap();
    let blob = import.files[0].1.clone();
    super::pin(&to, &blob);
    assert_eq!(collect(&to), (0, 0));
    assert!(!export(&to, &[root]).is_empty());
    for pin in to.pins(None).unwrap() {
        to.unpin(&pin.sha256, &pin.kind).unwrap();
    }
    let (files, blocks) = collect(&to);
    assert!(files == 1 && blocks >= 3, "{files} {blocks}");
    assert_eq!(to.usage().unwrap().bytes, 0);
}

#[test]
fn a_block_that_becomes_part_of_a_file_goes_with_the_file_only() {
    let (_dir, store) = store();
    let bytes = noise(1, 3 << 20);
    let other = super::store();
    let blob = add(&other.1, &bytes);
    let root = base::Multihash::of(&blob.root).unwrap();
    store.put(&other.1.get(&root).unwrap().unwrap()).unwrap();
    assert_eq!(add(&store, &bytes), blob);
    super::pin(&store, &blob);
    assert_eq!(collect(&store), (0, 0));
    assert!(store.has(&root).unwrap());
    assert_eq!(store.usage().unwrap().bytes, 3 << 20);
}
