//! Telling a service manager how the daemon is doing (sd_notify(3)): one datagram a message, to a socket that is named in
//! the environment. Without one nobody asked, and nothing is sent.
//!
//! It opens no door to the network: the socket is the manager's, on this machine, and nothing is ever read from it.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// Whoever started the daemon and wants to hear of it.
#[derive(Debug, Default)]
pub struct Notify {
    manager: Option<(UnixDatagram, SocketAddr)>,
    /// How often the manager wants a sign of life, and when it had the last.
    watchdog: Option<(Duration, Instant)>,
}

impl Notify {
    /// As the environment says.
    ///
    /// # Errors
    /// When there is a socket, but not one that can be written to.
    pub fn of_environment() -> io::Result<Self> {
        let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|s| !s.is_empty()) else {
            return Ok(Self::default());
        };
        let manager = (UnixDatagram::unbound()?, address(&socket)?);
        let text = |name| std::env::var(name).ok();
        let is_ours = text("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let period = text("WATCHDOG_USEC")
            .and_then(|usec| usec.parse().ok())
            .filter(|_| is_ours)
            .map(Duration::from_micros);
        Ok(Self {
            manager: Some(manager),
            watchdog: period.map(|period| (period, Instant::now())),
        })
    }

    /// The daemon can be used, and what it is doing.
    pub fn ready(&self, what: &str) {
        self.send(&format!("READY=1\nSTATUS={what}"));
    }

    /// The daemon reads its configuration again; [`Self::ready`] says that it did. The time lets the manager tell which of
    /// its requests is answered.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// The daemon ends on purpose.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// The daemon works; to be called often. Told when half of the manager's patience is over.
    pub fn alive(&mut self) {
        let Some((period, last)) = &mut self.watchdog else {
            return;
        };
        if last.elapsed() >= *period / 2 {
            *last = Instant::now();
            self.send("WATCHDOG=1");
        }
    }

    /// A manager that went away is nobody's concern.
    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.manager {
            let _ = socket.send_to_addr(message.as_bytes(), address);
        }
    }
}

/// A path, or after an `@` a name that is in no file system.
fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(socket),
        _ => Err(io::Error::other("$NOTIFY_SOCKET names no local socket")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_have_paths_or_abstract_names_and_nothing_else() {
        let path = address(OsStr::new("/run/notify")).unwrap();
        assert_eq!(path.as_pathname().unwrap(), OsStr::new("/run/notify"));
        let name = address(OsStr::new("@name")).unwrap();
        assert_eq!(name.as_abstract_name(), Some(&b"name"[..]));
        assert!(address(OsStr::new("vsock:2:1")).is_err());
    }
}
