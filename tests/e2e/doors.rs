//! Several caches at once, all but one of which are bad: what they may cost.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base::{PkgHash, Realisation, SecretKey};
use store::{Expected, Store};

use crate::support::{
    COMMAND_DEADLINE, Door, Finished, Home, Lan, Manner, TestEnv, judge, sandbox_works, wait_until,
};

/// Below every deadline of these homes, the shortest of which, that of a connection, is 5 s: whoever waited for a bad cache would
/// take longer.
const WITHOUT_WAITING: Duration = Duration::from_millis(4500);
const MIB: u64 = 1 << 20;

/// A directory with two packages, one of some bytes and one of 48 MiB, and the key of who built them.
fn export(env: &TestEnv) -> (PathBuf, String) {
    let builder = env.home("builder");
    let dir = env.path("cache");
    builder.ok(&["cache", "export", dir.to_str().unwrap(), "hello", "big"]);
    (dir, builder.key())
}

fn size_of_largest(dir: &Path) -> u64 {
    let sizes = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len());
    sizes.max().unwrap()
}

#[test]
fn five_caches_of_which_one_is_right_cost_no_deadline_and_little_comes_twice() {
    let Some(lan) = Lan::new() else { return };
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let (dir, key) = export(&env);
    let size = size_of_largest(&dir);
    let hole = format!("http://{}/cache", lan.black_hole());
    let refused = "http://10.77.0.1:1/cache".to_owned();
    for (turn, down) in [hole, refused].into_iter().enumerate() {
        let manners = [
            Manner::Hangs,
            Manner::Truncates,
            Manner::Lies,
            Manner::Right,
        ];
        let doors = manners.map(|manner| Door::serve(lan.listen(0), &dir, manner, None));
        let mut urls: Vec<_> = doors.iter().map(Door::url).collect();
        urls.insert(0, &down);
        // The right one is last, then in the middle.
        urls.rotate_left(2 * turn);
        let home = env.home(&format!("user{turn}"));
        home.ok(&["key", "trust", &key]);
        // The origin of the seed is on another machine.
        home.ok(&["fetch", "--sources", "hello"]);
        let mut command = home.command(&["fetch", "hello", "big"]);
        command.env("PKG_CACHE_URL", urls.join(" "));
        let started = Instant::now();
        let fetched = Finished::of(lan.on(1, &command), COMMAND_DEADLINE).assert_exit(0);
        let took = started.elapsed();
        assert!(took < WITHOUT_WAITING, "{took:?}: {}", fetched.stderr);
        let sent: u64 = doors.iter().map(Door::sent_bytes).sum();
        // What is sent before the visitor leaves may be lost: a chunk and what lies in buffers, of each bad one.
        assert!(sent < size + 24 * MIB, "{sent} bytes were sent of {size}");
    }
}

/// Statements and outputs of packages that nobody had to build, in a cache, and the key of who signed them.
fn forge(env: &TestEnv, dir: &Path, names: &[String]) -> String {
    let store = Store::open(&env.path("forge")).unwrap();
    let root = env.path("output");
    fs::create_dir_all(root.join("share")).unwrap();
    let key = SecretKey::from_seed(&[7; 32]);
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let hashes = env.home("hashes").ok(&[&["hash"], &names[..]].concat());
    let hashes = hashes.lines().zip(&names);
    fs::create_dir_all(dir).unwrap();
    for (digits, name) in hashes {
        let pkghash = PkgHash::from_digest(digits.parse().unwrap());
        fs::write(root.join("share/name"), name).unwrap();
        let mut ingest = store.ingest().unwrap();
        let mut archive = Vec::new();
        store::archive::pack(&root, &mut archive).unwrap();
        ingest.append(&archive).unwrap();
        let blob = ingest.finish(&Expected::anything()).unwrap();
        let signed = Realisation {
            pkghash,
            output: blob.root,
            sha256: blob.sha256,
            size: blob.size,
        }
        .sign(&key);
        let statements = node::encode_statements(&[signed]);
        fs::write(dir.join(format!("{pkghash}.realisations")), statements).unwrap();
        fs::write(dir.join(format!("{pkghash}.tar.zst")), archive).unwrap();
    }
    key.public().to_string()
}

/// A package that needs so many others at run time.
fn closure_of(env: &TestEnv, count: usize) -> Vec<String> {
    let names: Vec<_> = (1..=count).map(|n| format!("part{n}")).collect();
    for (number, name) in names.iter().enumerate() {
        let package = env.tree().join("pkg").join(name);
        fs::create_dir(&package).unwrap();
        fs::write(package.join("build"), "#!/bin/sh\nexit 1\n").unwrap();
        if number == 0 {
            let others: String = names[1..]
                .iter()
                .map(|other| format!("../{other}\n"))
                .collect();
            fs::write(package.join("run-deps"), others).unwrap();
        }
    }
    names
}

fn fetch_with(home: &Home<'_>, variable: &str, url: &str, package: &str) -> Finished {
    let mut command = home.command(&["fetch", package]);
    command.env(variable, url);
    Finished::of(command, COMMAND_DEADLINE)
}

#[test]
fn a_closure_of_thirty_packages_is_asked_for_at_once() {
    let env = TestEnv::new();
    let names = closure_of(&env, 30);
    let dir = env.path("cache");
    let key = forge(&env, &dir, &names);
    // It answers nothing before all thirty questions are there.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let door = Door::holding(listener, &dir, names.len());
    let home = env.home("user");
    home.ok(&["key", "trust", &key]);
    let fetched = fetch_with(&home, "PKG_CACHE_URL", door.url(), &names[0]).assert_exit(0);
    assert!(fetched.stderr.contains("fetched 30"), "{}", fetched.stderr);
}

#[test]
fn a_daemon_is_asked_for_a_closure_in_few_requests_over_http_and_among_peers() {
    let env = TestEnv::new();
    let names = closure_of(&env, 30);
    let dir = env.path("cache");
    let key = forge(&env, &dir, &names);
    let holder = env.home("holder");
    holder.ok(&["key", "trust", &key]);
    let url = format!("file://{}", dir.display());
    fetch_with(&holder, "PKG_CACHE_URL", &url, &names[0]).assert_exit(0);
    let daemon = holder.daemon(&[]);
    let served = |what: &str| -> u64 {
        let metrics = crate::support::get(daemon.http(), "/metrics", &[]).text();
        let lines = metrics.lines().filter(|line| line.starts_with(what));
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    };
    let over_http = env.home("http");
    over_http.ok(&["key", "trust", &key]);
    fetch_with(&over_http, "P2PKGS_GATEWAYS_URLS", daemon.http(), &names[0]).assert_exit(0);
    let requests = served("p2pkgs_http_responses_total{handler=\"realisations\"");
    // How many it takes is a matter of how fast the threads of a command come.
    assert!((1..=8).contains(&requests), "{requests} requests");
    assert_eq!(served("p2pkgs_http_responses_total{handler=\"package\""), 0);
    let peer = env.home("peer");
    peer.ok(&["key", "trust", &key]);
    peer.bootstrap_from(&daemon);
    let before = served("p2pkgs_realisations_served_total");
    // Looks for all of them and gets none.
    peer.ok(&["build", "--dry-run", &names[0]]);
    let requests = served("p2pkgs_realisations_served_total") - before;
    assert!((1..=8).contains(&requests), "{requests} requests");
    peer.ok(&["fetch", &names[0]]);
}

/// Runs nginx over a directory; `None` where there is none.
fn nginx(env: &TestEnv, dir: &Path) -> Option<(KilledOnDrop, String)> {
    judge("nginx")?;
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let home = env.path("nginx");
    fs::create_dir(&home).unwrap();
    let config = format!(
        "daemon off; master_process off; error_log stderr; pid {home}/pid;
         events {{ }}
         http {{
             access_log off; client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;
             fastcgi_temp_path {home}/fastcgi; uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
             server {{ listen 127.0.0.1:{port}; root {dir}; }}
         }}",
        home = home.display(),
        dir = dir.display(),
    );
    let file = home.join("nginx.conf");
    fs::write(&file, config).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&file).arg("-p").arg(&home);
    let child = KilledOnDrop(command.stderr(Stdio::null()).spawn().unwrap());
    let listens = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    wait_until("nginx listens", listens);
    Some((child, format!("http://127.0.0.1:{port}")))
}

/// A server that ends with the test.
struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn nginx_serves_a_cache_and_goes_on_where_another_server_broke_off() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let dir = env.path("cache");
    fs::create_dir(&dir).unwrap();
    let Some((_nginx, url)) = nginx(&env, &dir) else {
        return;
    };
    let (dir, key) = export(&env);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let breaks_off = Door::serve(listener, &dir, Manner::Truncates, None);
    let home = env.home("user");
    home.ok(&["key", "trust", &key]);
    home.ok(&["fetch", "--sources", "hello"]);
    let mut command = home.command(&["fetch", "hello", "big"]);
    command.env("PKG_CACHE_URL", format!("{} {url}", breaks_off.url()));
    let fetched = Finished::of(command, COMMAND_DEADLINE).assert_exit(0);
    assert!(fetched.stderr.contains("fetched 2"), "{}", fetched.stderr);
}
