//! Package caches in an object store: what `cache export` wrote, uploaded to a real server that speaks S3, and read by plain GET.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{World, object_store, sandbox_works, wait_until};

/// The owner's key, which readers do not have.
const OWNER: [&str; 2] = ["owner", "a secret of the owner"];
/// Everybody may read what is in the bucket, and nothing else.
const PUBLIC_READ: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::cache/*"}]}"#;

/// The server, with a bucket that everybody may read.
struct ObjectStore {
    child: Child,
    url: String,
}

impl ObjectStore {
    fn start(world: &World, program: &Path) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let data = world.path("objects");
        fs::create_dir(&data).unwrap();
        let mut command = Command::new(program);
        command
            .args(["--quiet", "--port", &address.to_string(), "posix"])
            .arg(&data)
            .env("ROOT_ACCESS_KEY", OWNER[0])
            .env("ROOT_SECRET_KEY", OWNER[1])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().unwrap();
        wait_until("the object store listens", || {
            TcpStream::connect(address).is_ok()
        });
        let store = Self {
            child,
            url: format!("http://{address}/cache"),
        };
        store.signed(&["-X", "PUT", &store.url]);
        let policy = format!("{}?policy=", store.url);
        store.signed(&["-X", "PUT", "--data-binary", PUBLIC_READ, &policy]);
        store
    }

    /// A request of the owner.
    fn signed(&self, args: &[&str]) {
        let user = OWNER.join(":");
        let status = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--user", &user])
            .args(["--aws-sigv4", "aws:amz:us-east-1:s3"])
            .args(["--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD"])
            .args(args)
            .stdout(Stdio::null())
            .status();
        assert!(status.unwrap().success(), "curl {args:?}");
    }

    /// Everything below `dir`, which lies below `to`.
    fn upload(&self, dir: &Path, to: &str) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let url = format!("{to}/{}", entry.file_name().to_string_lossy());
            match entry.file_type().unwrap().is_dir() {
                true => self.upload(&entry.path(), &url),
                false => self.signed(&["--upload-file", entry.path().to_str().unwrap(), &url]),
            }
        }
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_exported_directory_in_an_object_store_is_a_cache_for_those_without_its_keys() {
    let Some(program) = object_store() else {
        return;
    };
    if !sandbox_works() {
        return;
    }
    let world = World::without_kubo();
    let (tree, _origin) = world.toy_tree();
    let tree = tree.to_str().unwrap();
    let builder = world.home("builder");
    let dir = world.path("cache");
    builder.ok(&[
        "--tree",
        tree,
        "cache",
        "export",
        dir.to_str().unwrap(),
        "hello",
        "big",
    ]);
    let keys = builder.ok(&["key", "list"]);
    let store = ObjectStore::start(&world, program);
    store.upload(&dir, &store.url);
    // Nobody else may write.
    let write = Command::new("curl")
        .args([
            "--silent",
            "--fail",
            "--upload-file",
            dir.to_str().unwrap(),
            &store.url,
        ])
        .status();
    assert!(!write.unwrap().success());
    let user = world.home("user").with("PKG_CACHE_URL", &store.url);
    user.ok(&["key", "trust", keys.split_whitespace().nth(1).unwrap()]);
    user.ok(&["--tree", tree, "fetch", "--sources", "hello"]);
    let fetched = user
        .run(&["--tree", tree, "fetch", "hello", "big"])
        .assert_exit(0);
    assert!(fetched.stderr.contains("2 https"), "{}", fetched.stderr);
    assert!(!fetched.stderr.contains("warning"), "{}", fetched.stderr);
    let listed = user.ok(&["cache", "list"]);
    assert!(listed.starts_with(&store.url), "{listed}");
    // What it has not is a miss and no trouble.
    let miss = user.run(&["--tree", tree, "fetch", "greet"]).assert_exit(3);
    assert!(!miss.stderr.contains("refused"), "{}", miss.stderr);
}
