//! Content in one file: from home to home without a network, directories, and files that are no archives.

use std::fs;

use base::{Cid, Codec, Sha256};
use store::car::CarWriter;
use store::dag::{PbLink, PbNode, UnixFs, UnixFsKind};
use store::{Block, Store};

use crate::support::TestEnv;

/// An archive of a directory with one file `hello.txt`; the directory's root.
fn archive_of_directory(content: &str) -> (Vec<u8>, Cid) {
    let file = Block::of(content.as_bytes().to_vec().into());
    let node = PbNode {
        links: vec![PbLink {
            cid: file.cid(Codec::Raw),
            name: Some("hello.txt".to_owned()),
            tsize: Some(file.len() as u64),
        }],
        data: Some(UnixFs::new(UnixFsKind::Directory).encode().into()),
    };
    let node = Block::of(node.encode().into());
    let root = node.cid(Codec::DagPb);
    let mut writer = CarWriter::new(Vec::new(), &[root]).unwrap();
    writer.write(&root, &node).unwrap();
    writer.write(&file.cid(Codec::Raw), &file).unwrap();
    (writer.finish().unwrap(), root)
}

#[test]
fn a_file_is_carried_from_home_to_home_without_a_network() {
    let env = TestEnv::new();
    let (from, to) = (env.home("from"), env.home("to"));
    let content: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    fs::write(env.path("file"), &content).unwrap();
    let added = from.ok(&["--json", "mirror", "add", "file"]);
    let added: serde_json::Value = serde_json::from_str(&added).unwrap();
    let cid = added[0]["cid"].as_str().unwrap();
    let written = from.ok(&["--offline", "car", "export", cid, "-o", "file.car"]);
    assert_eq!(written, "file.car\n");
    let imported = to.ok(&["--offline", "--json", "car", "import", "file.car"]);
    let imported: serde_json::Value = serde_json::from_str(&imported).unwrap();
    assert_eq!(imported[0]["cid"], cid);
    assert_eq!(imported[0]["sha256"], Sha256::of(&content).to_string());
    let sha256 = format!("sha256:{}", Sha256::of(&content));
    to.ok(&["--offline", "fetch", &sha256, "-o", "out"]);
    assert_eq!(fs::read(env.path("out")).unwrap(), content);
    to.ok(&["--offline", "car", "export", cid, "-o", "again.car"]);
    let [first, second] = ["file.car", "again.car"].map(|name| fs::read(env.path(name)).unwrap());
    assert!(first == second, "the same DAG gives the same archive");
}

#[test]
fn a_directory_is_imported_served_and_followed_by_path() {
    let env = TestEnv::new();
    let (holder, user) = (env.home("holder"), env.home("user"));
    let (bytes, root) = archive_of_directory("hello\n");
    fs::write(env.path("dir.car"), bytes).unwrap();
    assert_eq!(
        holder.ok(&["car", "import", "dir.car"]),
        format!("{root}\n")
    );
    let path = format!("ipfs://{root}/hello.txt");
    // It is kept as a file would be.
    holder.ok(&["gc"]);
    assert_eq!(
        holder.ok(&["--offline", "fetch", &path, "-o", "-"]),
        "hello\n"
    );

    let unkept = env.home("unkept");
    unkept.ok(&["--offline", "car", "import", "dir.car"]);
    unkept.ok(&["unpin", "dir.car"]);
    unkept.run(&["gc"]).assert_exit(0).assert_says("2 blocks");
    unkept
        .run(&["--offline", "fetch", &path, "-o", "-"])
        .assert_exit(3);

    let meeting = env.home("meeting").daemon(&[]);
    let daemon = holder.daemon(&[&meeting]);
    daemon.wait_until_all_is_announced();
    user.bootstrap_from(&meeting);
    user.ok(&["fetch", &path, "-o", "out"]);
    assert_eq!(fs::read_to_string(env.path("out")).unwrap(), "hello\n");
    user.run(&["fetch", &format!("{root}/bye.txt"), "-o", "out"])
        .assert_exit(3)
        .assert_says("there is no `bye.txt`");
    let other = env.home("other");
    other.bootstrap_from(&meeting);
    for home in [&user, &other] {
        home.run(&["fetch", &root.to_string(), "-o", "out"])
            .assert_exit(1)
            .assert_says("is a directory, not a file")
            .assert_says("p2pkgs fetch CID/NAME");
    }
    assert_eq!(
        other.ok(&["fetch", &root.to_string(), "--into", "dir"]),
        "dir\n"
    );
    let placed = fs::read_to_string(env.path("dir/hello.txt")).unwrap();
    assert_eq!(placed, "hello\n");
    other
        .run(&["fetch", &path, "--into", "elsewhere"])
        .assert_exit(2)
        .assert_says("it is a file");
}

#[test]
fn what_is_broken_or_not_there_is_refused_and_leaves_nothing() {
    let env = TestEnv::new();
    let home = env.home("home");
    let (mut bytes, root) = archive_of_directory("hello\n");
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(env.path("wrong.car"), &bytes).unwrap();
    home.run(&["car", "import", "wrong.car"])
        .assert_exit(4)
        .assert_says("cannot import `wrong.car`")
        .assert_says("at byte");
    bytes.truncate(bytes.len() - 1);
    fs::write(env.path("cut.car"), &bytes).unwrap();
    home.run(&["car", "import", "cut.car"])
        .assert_exit(4)
        .assert_says("archive ends at byte");
    home.run(&["car", "import", "/dev/null"]).assert_exit(2);
    let root = root.to_string();
    home.run(&["--offline", "car", "export", &root, "-o", "x.car"])
        .assert_exit(3)
        .assert_says(&format!("p2pkgs fetch {root}"));
    assert!(!env.path("x.car").exists());
    let store = Store::open(&home.path("store")).unwrap();
    assert!(store.blobs().unwrap().is_empty());
}
