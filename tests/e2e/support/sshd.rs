//! A real sshd on loopback, run by the test's own user: keys, configuration and port are its own.

use std::fs;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{P2PKGS, judge, wait_until};

/// Where distributions put it; it wants to be started by its whole path.
const SSHD: &str = "/usr/sbin/sshd";
/// Where an sshd that was started by root wants to lock itself in.
const PRIVSEP: &str = "/run/sshd";
/// How often a port is tried that somebody else took meanwhile.
const TRIES: usize = 5;
/// How long sshd may take to say who it is before it is asked again.
const BANNER_MAX: Duration = Duration::from_secs(5);

/// An sshd. It ends when this is dropped.
#[derive(Debug)]
pub struct Sshd {
    dir: tempfile::TempDir,
    child: Child,
}

impl Sshd {
    /// Starts one that lets this user in and finds the tested program; `None` where there is no sshd, see [`judge`].
    pub fn start() -> Option<Self> {
        for program in [SSHD, "ssh", "ssh-keygen"] {
            judge(program)?;
        }
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all(PRIVSEP).unwrap();
        }
        let dir = tempfile::Builder::new().prefix("sshd.").tempdir().unwrap();
        for key in ["host", "user"] {
            let path = dir.path().join(key);
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(path)
                .status();
            assert!(made.unwrap().success());
        }
        let child = (0..TRIES).find_map(|_| start_in(dir.path()));
        let child = child.expect("sshd starts");
        Some(Self { dir, child })
    }

    /// A folder with an `ssh` that knows the host `builder` and nobody else.
    pub fn client(&self) -> PathBuf {
        self.dir.path().join("bin")
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start_in(dir: &Path) -> Option<Child> {
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap()
        .port();
    write_configuration(dir, port);
    let mut child = Command::new(SSHD)
        .args(["-D", "-e", "-f"])
        .arg(dir.join("sshd_config"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(dir.join("sshd.log")).unwrap())
        .spawn()
        .unwrap();
    let mut ended = false;
    wait_until("sshd answers", || {
        ended = child.try_wait().unwrap().is_some();
        ended || greets(port)
    });
    (!ended).then_some(child)
}

fn greets(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    stream.set_read_timeout(Some(BANNER_MAX)).unwrap();
    let mut banner = [0; 4];
    stream.read_exact(&mut banner).is_ok() && banner == *b"SSH-"
}

fn write_configuration(dir: &Path, port: u16) {
    let (d, bin) = (dir.display(), Path::new(P2PKGS).parent().unwrap().display());
    let sshd = format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {d}/host\nPidFile none\n\
         AuthorizedKeysFile {d}/user.pub\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
         KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nPrintMotd no\n\
         SetEnv PATH={bin}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin\n"
    );
    fs::write(dir.join("sshd_config"), sshd).unwrap();
    let key = fs::read_to_string(dir.join("host.pub")).unwrap();
    fs::write(dir.join("known_hosts"), format!("[127.0.0.1]:{port} {key}")).unwrap();
    let client = format!(
        "Host builder\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {d}/user\n  IdentitiesOnly yes\n  \
         UserKnownHostsFile {d}/known_hosts\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n"
    );
    fs::write(dir.join("config"), client).unwrap();
    write_program(
        &dir.join("bin/ssh"),
        &format!("exec /usr/bin/ssh -F {d}/config \"$@\""),
    );
}

/// Writes a shell script that can be run.
pub fn write_program(path: &Path, script: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
