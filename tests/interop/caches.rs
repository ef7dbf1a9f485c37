//! Package caches in IPFS: directories that `ipfs add -r` made, below their CID and below a name.

use crate::support::{Home, Kubo, LEGACY, MODERN, Role, World, sandbox_works};

/// A package cache that Kubo has, as its users know it.
struct Cache {
    /// `ipfs://CID`.
    by_cid: String,
    /// `ipns://NAME`.
    by_name: String,
    /// Who signed what is in it.
    key: String,
    tree: String,
}

/// A Kubo node with a DHT node of ours beside it, without which it publishes no name.
fn with_cache(profile: &str, test: impl Fn(&World, &Kubo<'_>, &Cache)) {
    let Some(world) = World::with_kubo() else {
        return;
    };
    if !sandbox_works() {
        return;
    }
    let kubo = Kubo::start(&world, profile, Role::DhtServer, None);
    let neighbour = world.home("neighbour");
    let neighbour = neighbour.daemon(Role::DhtServer, Some(&kubo.address()));
    kubo.wait_for_dht_peer(neighbour.peer_id());
    let (tree, _origin) = world.toy_tree();
    let tree = tree.to_str().unwrap().to_owned();
    let builder = world.home("builder");
    let dir = world.path("cache");
    let dir = dir.to_str().unwrap();
    builder.ok(&["--tree", &tree, "cache", "export", dir, "hello"]);
    let keys = builder.ok(&["key", "list"]);
    let key = keys.split_whitespace().nth(1).unwrap().to_owned();
    let cid = kubo.run(&["add", "-r", "--quieter", "--cid-version", "1", dir]);
    let published = kubo.run(&["name", "publish", "--quieter", &format!("/ipfs/{cid}")]);
    let cache = Cache {
        by_cid: format!("ipfs://{cid}"),
        by_name: format!("ipns://{published}"),
        key,
        tree,
    };
    test(&world, &kubo, &cache);
}

/// Gets the package from a cache into a new home; what the command said.
fn fetch(home: Home<'_>, cache: &Cache, url: &str) -> String {
    let home = home.with("PKG_CACHE_URL", url);
    home.ok(&["key", "trust", &cache.key]);
    let fetched = home.run(&["--tree", &cache.tree, "fetch", "hello"]);
    fetched.assert_exit(0).stderr
}

#[test]
fn a_cache_is_used_over_bitswap_by_its_cid_and_by_a_name() {
    for profile in [MODERN, LEGACY] {
        with_cache(profile, |world, kubo, cache| {
            for (name, url) in [("cid", &cache.by_cid), ("name", &cache.by_name)] {
                let home = world
                    .home(name)
                    .with("P2PKGS_NETWORK_BOOTSTRAP", &kubo.address());
                let said = fetch(home, cache, url);
                assert!(said.contains("peer"), "{url}: {said}");
            }
        });
    }
}

#[test]
fn a_cache_is_used_through_kubos_gateway_without_peers() {
    for profile in [MODERN, LEGACY] {
        with_cache(profile, |world, kubo, cache| {
            for (name, url) in [("cid", &cache.by_cid), ("name", &cache.by_name)] {
                let home = world
                    .home(name)
                    .with("P2PKGS_GATEWAYS_URLS", &kubo.gateway());
                let said = fetch(home, cache, url);
                assert!(said.contains("1 gateway"), "{url}: {said}");
            }
        });
    }
}
