//! The HTTP door of a real daemon.

use std::fs;

use crate::support::{Browser, Daemon, TestEnv, get, sandbox_works};

#[test]
fn a_daemon_tells_where_its_door_is_and_gives_files_blocks_and_numbers() {
    let env = TestEnv::new();
    let home = env.home("mirror");
    let file = env.path("file");
    let content = "something that is mirrored";
    fs::write(&file, content).unwrap();
    let listed = home.ok(&["mirror", "add", file.to_str().unwrap()]);
    let sha256 = listed.split(' ').next().unwrap();
    let daemon = home.daemon(&[]);
    let url = daemon.http();
    let told = fs::read_to_string(home.path("node.http")).unwrap();
    assert_eq!(told, format!("{url}\n"));
    assert!(
        home.ok(&["node", "status"])
            .contains(&format!("HTTP at: {url}/status"))
    );

    assert_eq!(get(url, "/healthz", &[]).text(), "alive\n");
    assert_eq!(get(url, "/readyz", &[]).text(), "ready\n");
    let path = format!("/sha256/{sha256}");
    assert_eq!(get(url, &path, &[]).text(), content);
    assert_eq!(get(url, &path, &["Range: bytes=10-"]).text(), content[10..]);
    assert_eq!(get(url, "/ipfs/bafkqaaa?format=raw", &[]).code, 200);
    let metrics = get(url, "/metrics", &[]).text();
    for line in [
        "p2pkgs_store_blobs 1",
        "p2pkgs_store_pins 1",
        "p2pkgs_http_responses_total",
    ] {
        assert!(metrics.contains(line), "no `{line}` in {metrics}");
    }
    let rebound = get(url, "/ipfs/bafkqaaa", &["X-Forwarded-For: 192.0.2.1"]).code;
    assert_eq!(
        rebound, 406,
        "content is for everybody, in a form that proves itself"
    );
    assert_eq!(
        get(url, "/metrics", &["X-Forwarded-For: 192.0.2.1"]).code,
        403
    );

    let address = home.path("node.http");
    assert_eq!(daemon.stop(), Some(0));
    assert!(!address.exists());
}

#[test]
fn a_port_that_is_taken_does_not_stop_the_node() {
    let env = TestEnv::new();
    let first = env.home("first").daemon(&[]);
    let second = env.home("second");
    let mut command = second.command(&["node", "run"]);
    let taken = first.http().strip_prefix("http://").unwrap();
    command.env("P2PKGS_HTTP_LISTEN", format!("{taken} 127.0.0.1:0"));
    let daemon = Daemon::start(command, &second.path(""));
    daemon.wait_until_it_says(&format!("no HTTP at {taken}"));
    assert_ne!(daemon.http(), first.http());
    assert_eq!(get(daemon.http(), "/healthz", &[]).code, 200);
    drop(daemon);
    let mut command = second.command(&["node", "run"]);
    command.env("P2PKGS_HTTP_LISTEN", "nonsense");
    let finished = crate::support::Finished::of(command, crate::support::COMMAND_DEADLINE);
    finished.assert_exit(2).assert_says("http.listen");
}

#[test]
fn a_built_package_can_be_had_with_any_web_client() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let home = env.home("builder");
    let built = home.ok(&["build", "hello"]);
    let pkghash = home.ok(&["hash", "hello"]);
    let daemon = home.daemon(&[]);
    let archive = get(daemon.http(), &format!("/{}.tar.zst", pkghash.trim()), &[]);
    assert_eq!(archive.code, 200, "{}", archive.head);
    assert_eq!(archive.body, fs::read(built.trim()).unwrap());
    let statements = format!("/{}.realisations", pkghash.trim());
    assert_eq!(get(daemon.http(), &statements, &[]).code, 200);
}

#[test]
fn a_person_reads_how_the_node_is_doing() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let env = TestEnv::new();
    let (holder, seeker) = (env.home("holder"), env.home("seeker"));
    let file = env.path("file");
    // Three different chunks: equal ones are sent once.
    let content: Vec<u8> = (0..3_u8).flat_map(|n| vec![n; 1 << 20]).collect();
    fs::write(&file, content).unwrap();
    let listed = holder.ok(&["mirror", "add", file.to_str().unwrap()]);
    let sha256 = listed.split(' ').next().unwrap().to_owned();
    holder.ok(&["fetch", "--sources", "hello"]);
    let daemon = holder.daemon(&[]);
    let _other = seeker.daemon(&[&daemon]);
    daemon.wait_until_all_is_announced();
    let got = env.path("got");
    let name = format!("sha256:{sha256}");
    seeker.ok(&["fetch", &name, "-o", got.to_str().unwrap()]);
    daemon.wait_for_status("the file was sent", |status| {
        status["uploaded_bytes"].as_u64() >= Some(3 << 20)
    });

    let page = format!("{}/status", daemon.http());
    let document = browser.document(&page);
    for text in [
        daemon.peer_id(),
        "3.0 MiB",
        "p2pkgs/",
        "greet",
        "1 of 1",
        "To announce",
    ] {
        assert!(document.contains(text), "no `{text}` in {document}");
    }
    let picture = std::env::var_os("P2PKGS_KEEP_PICTURE").map_or(env.path("page.png"), Into::into);
    browser.picture(&page, &picture);
    assert!(fs::metadata(&picture).unwrap().len() > 10_000);
}

#[test]
fn a_mirror_that_only_the_web_reaches_gives_content_sources_and_packages() {
    let env = TestEnv::new();
    let (mirror, user) = (env.home("mirror"), env.home("user"));
    let file = env.path("file");
    let content: Vec<u8> = (0..5_u8).flat_map(|n| vec![n % 3; 1 << 20]).collect();
    fs::write(&file, &content).unwrap();
    let listed = mirror.ok(&["--json", "mirror", "add", file.to_str().unwrap()]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let (cid, sha256) = (listed[0]["cid"].as_str(), listed[0]["sha256"].as_str());
    let daemon = mirror.daemon(&[]);
    let fetch = |item: &str| {
        let got = env.path("got");
        let mut command = user.command(&["fetch", item, "-o", got.to_str().unwrap()]);
        command.env("P2PKGS_GATEWAYS_URLS", format!("{}/", daemon.http()));
        let finished = crate::support::Finished::of(command, crate::support::COMMAND_DEADLINE);
        finished.assert_exit(0).assert_says("1 gateway");
        assert!(fs::read(&got).unwrap() == content, "{item} came whole");
        // What is here already is not fetched again.
        user.ok(&["gc"]);
    };
    fetch(cid.unwrap());
    fetch(&format!("sha256:{}", sha256.unwrap()));
}

#[test]
fn a_package_comes_from_a_gateway_if_somebody_trusted_vouches_for_it() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let (builder, user) = (env.home("builder"), env.home("user"));
    builder.ok(&["build", "hello"]);
    let daemon = builder.daemon(&[]);
    let fetch = || {
        let mut command = user.command(&["fetch", "hello"]);
        command.env("P2PKGS_GATEWAYS_URLS", daemon.http());
        crate::support::Finished::of(command, crate::support::COMMAND_DEADLINE)
    };
    fetch().assert_exit(4);
    user.ok(&["key", "trust", &builder.key()]);
    fetch().assert_exit(0).assert_says("gateway");
}
