//! Signed statements about packages, as the IPLD blocks that they are.

use std::fs;

use serde_json::Value;

use crate::support::{Kubo, MODERN, Role, World, sandbox_works};

#[test]
fn kubo_reads_a_statement_by_its_cid_and_follows_its_link_to_the_output() {
    let Some(world) = World::with_kubo() else {
        return;
    };
    if !sandbox_works() {
        return;
    }
    let (tree, _origin) = world.toy_tree();
    let tree = tree.to_str().unwrap();
    let builder = world.home("builder");
    builder.ok(&["--tree", tree, "build", "hello"]);
    let published = builder.ok(&["--tree", tree, "--json", "publish", "hello"]);
    let published: Value = serde_json::from_str(&published).unwrap();
    let hello = &published.as_array().unwrap()[0];
    let text = |name: &str| hello[name].as_str().unwrap().to_owned();
    let (cid, output) = (text("statement"), text("cid"));
    let daemon = builder.daemon(Role::DhtClient, None);
    let kubo = Kubo::start(&world, MODERN, Role::DhtClient, None);
    kubo.run(&["swarm", "connect", &daemon.address()]);
    let read: Value = serde_json::from_str(&kubo.run(&["dag", "get", &cid])).unwrap();
    assert_eq!(read["statement"]["output"]["/"], *output, "{read}");
    assert!(read["signature"]["/"]["bytes"].is_string(), "{read}");
    let size = kubo.run(&["dag", "get", &format!("{cid}/statement/size")]);
    assert!(size.parse::<u64>().unwrap() > 0);
    // The link leads to the archive itself.
    let stat = kubo.run(&["dag", "resolve", &format!("{cid}/statement/output")]);
    assert_eq!(stat, output);
    // And back: what Kubo has now, a home gets that knows Kubo alone.
    let user = world.home("user");
    let user = user.with("P2PKGS_NETWORK_BOOTSTRAP", &kubo.address());
    let got = user.path("statement");
    user.ok(&[
        "fetch",
        &format!("ipfs://{cid}"),
        "-o",
        got.to_str().unwrap(),
    ]);
    let again = kubo.run(&[
        "dag",
        "put",
        "--input-codec",
        "dag-cbor",
        got.to_str().unwrap(),
    ]);
    assert_eq!(again, cid);
    assert!(fs::metadata(&got).unwrap().len() < 500);
}
