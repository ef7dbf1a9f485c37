//! Gateways: HTTP instead of a connection between peers.

use std::fs;

use crate::support::{Kubo, LEGACY, MODERN, Role, SIZES, World, get, sha256_of, write_file};

#[test]
fn files_are_fetched_from_kubos_gateway() {
    let Some(world) = World::with_kubo() else {
        return;
    };
    for profile in [MODERN, LEGACY] {
        let kubo = Kubo::start(&world, profile, Role::DhtClient, None);
        let home = world
            .home(profile)
            .with("P2PKGS_GATEWAYS_URLS", &kubo.gateway());
        for size in SIZES {
            let file = world.path("file");
            let sha256 = write_file(&file, size);
            let cid = kubo.add(&file);
            let got = home.path("got");
            home.ok(&["fetch", &cid, "-o", got.to_str().unwrap()]);
            assert_eq!(sha256_of(&got), sha256, "{size} bytes, {cid}");
        }
    }
}

#[test]
fn kubo_reads_the_archives_and_blocks_of_our_gateway() {
    let Some(world) = World::with_kubo() else {
        return;
    };
    let home = world.home("mirror");
    let daemon = home.daemon(Role::DhtClient, None);
    let kubo = Kubo::start(&world, MODERN, Role::DhtClient, None);
    for size in SIZES {
        let file = world.path("file");
        let sha256 = write_file(&file, size);
        let cid = home.add(&file);
        let reply = get(daemon.http(), &format!("/ipfs/{cid}?format=car"), &[]);
        assert_eq!(reply.code, 200, "{}", reply.head);
        let archive = world.path("archive.car");
        fs::write(&archive, &reply.body).unwrap();
        let imported = kubo.run(&["dag", "import", "--stats", archive.to_str().unwrap()]);
        assert!(imported.contains(&cid), "{imported}");
        assert_eq!(sha256_of(&kubo.get(&cid)), sha256, "{size} bytes, {cid}");
        let block = get(daemon.http(), &format!("/ipfs/{cid}?format=raw"), &[]);
        let ours = world.path("block");
        fs::write(&ours, &block.body).unwrap();
        let put = ["block", "put", "--mhtype", "sha2-256", "--cid-codec"];
        let codec = if cid.starts_with("bafk") {
            "raw"
        } else {
            "dag-pb"
        };
        let put: Vec<_> = put
            .into_iter()
            .chain([codec, ours.to_str().unwrap()])
            .collect();
        assert_eq!(kubo.run(&put), cid);
    }
}
