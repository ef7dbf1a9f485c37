//! Upstream's `mirrors/ipfs`: each source under the identifier that `ipfs add` gave it, of the old kind by default.

use std::fs;
use std::path::Path;

use crate::support::{Kubo, LEGACY, Role, World, write_file};

/// Files and what Kubo calls them, in a list as upstream writes it.
fn list(world: &World, kubo: &Kubo<'_>, sizes: &[u64]) -> (String, Vec<String>) {
    let mut text = "%rec: ipfs_source\n%sort: source_url\n".to_owned();
    let mut digests = Vec::new();
    for size in sizes {
        let file = world.path("file");
        let sha256 = write_file(&file, *size).to_string();
        let cid = kubo.add(&file);
        assert!(cid.starts_with("Qm"), "{cid}");
        text += &format!(
            "\nsource_url: https://origin.invalid/pool/source-{size}.tar.gz\nsha256: {sha256}\ncid: {cid}\n"
        );
        digests.push(sha256);
    }
    (text, digests)
}

#[test]
fn upstreams_list_is_imported_from_kubo_and_kept() {
    let Some(world) = World::with_kubo() else {
        return;
    };
    let kubo = Kubo::start(&world, LEGACY, Role::DhtServer, None);
    let (text, digests) = list(&world, &kubo, &[12, 600_000, 3 << 20]);
    let file = world.path("list");
    fs::write(&file, text).unwrap();
    let home = world
        .home("mirror")
        .with("P2PKGS_NETWORK_BOOTSTRAP", &kubo.address());
    let printed = home.ok(&["mirror", "import", file.to_str().unwrap()]);
    let listed = home.ok(&["--json", "mirror", "list"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    for sha256 in digests {
        assert!(printed.contains(&sha256), "{printed}");
        let mut entries = listed.as_array().unwrap().iter();
        let entry = entries.find(|entry| entry["sha256"] == sha256.as_str());
        assert_eq!(entry.unwrap()["kept"], true);
    }
}

#[test]
fn a_tree_with_upstreams_list_finds_its_sources_with_kubo() {
    let Some(world) = World::with_kubo() else {
        return;
    };
    let kubo = Kubo::start(&world, LEGACY, Role::DhtServer, None);
    let (text, digests) = list(&world, &kubo, &[600_000]);
    let tree = world.path("tree");
    fs::create_dir_all(tree.join("mirrors")).unwrap();
    fs::write(tree.join("mirrors/ipfs"), text).unwrap();
    write_package(&tree, &digests[0]);
    let home = world
        .home("user")
        .with("P2PKGS_NETWORK_BOOTSTRAP", &kubo.address());
    let tree = tree.to_str().unwrap();
    let printed = home.ok(&["--tree", tree, "fetch", "--sources", "thing"]);
    assert_eq!(printed, format!("{}  source-600000.tar.gz\n", digests[0]));
}

/// A package with one source, whose origin is gone.
fn write_package(tree: &Path, sha256: &str) {
    let package = tree.join("pkg/thing");
    fs::create_dir_all(&package).unwrap();
    let url = "https://origin.invalid/pool/source-600000.tar.gz";
    fs::write(
        package.join("fetch"),
        format!("url: {url}\nsha256: {sha256}\n"),
    )
    .unwrap();
    fs::write(package.join("build"), "#!/bin/sh\n").unwrap();
}
