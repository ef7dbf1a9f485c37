//! The daemon's HTTP door: a trustless gateway, the files of packages and sources, and pages for the machine's own users.
//!
//! It gives what the store holds and never fetches anything for a stranger. Every answer can be checked by its receiver:
//! blocks and archives by their CIDs, files by their SHA-256. What is nobody else's business (`Endpoint::is_private`)
//! is answered to this machine alone, under a name of this machine, so that neither the network nor a web page that was
//! given our address by a name server can read it.
//!
//! Everything a visitor can make us spend is bounded: connections, header bytes, the time a header may take, the time
//! without progress while we write, answers under way, bytes a second. A port that is taken is told and costs nothing else.

mod body;
mod files;
mod gateway;
mod metrics;
mod page;
mod patience;
mod process;
mod request;
mod routing;
mod site;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use self::patience::Patient;
pub use self::site::{Facts, NoFacts, PackageFacts, Site};

/// Open connections in all; further visitors wait in the system's queue.
const CONNECTIONS_MAX: usize = 128;
/// Bytes of a request's head. Browsers send below two thousand; the library's least buffer is 8 KiB.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Lines of a request's head.
const HEADERS_MAX: usize = 64;
/// Until a request's head is there; also how long an idle connection is kept.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// Without a byte taken by a visitor whom we write to.
const STALL: Duration = Duration::from_secs(30);
/// One connection, whatever happens: the largest file over a slow line.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(6 * 3600);
/// Pause after the system refused us a socket, such as for lack of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// A running server. It ends when it is dropped.
#[derive(Debug)]
pub struct Web {
    addresses: Vec<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
}

impl Web {
    /// Listens on these addresses and serves the site there; also says which of them could not be had, and why. Must be
    /// called inside the runtime.
    pub async fn start(listen: &[SocketAddr], site: Site) -> (Self, Vec<(SocketAddr, io::Error)>) {
        let (site, room) = (Arc::new(site), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
        let (mut addresses, mut tasks, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for address in listen {
            match bind(*address).await {
                Ok((listener, bound)) => {
                    let accept = accept(listener, Arc::clone(&site), Arc::clone(&room));
                    tasks.push(tokio::spawn(accept));
                    addresses.push(bound);
                }
                Err(error) => failed.push((*address, error)),
            }
        }
        (Self { addresses, tasks }, failed)
    }

    /// Where it really listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

async fn accept(listener: TcpListener, site: Arc<Site>, room: Arc<Semaphore>) {
    // Connections end with the server.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, visitor)) => {
                let site = Arc::clone(&site);
                connections.spawn(async move {
                    let _permit = permit;
                    let serve = serve(stream, visitor, site);
                    let _ = tokio::time::timeout(CONNECTION_DEADLINE, serve).await;
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, visitor: SocketAddr, site: Arc<Site>) {
    let _ = stream.set_nodelay(true);
    let answer = service_fn(move |request| {
        let site = Arc::clone(&site);
        async move { Ok::<_, std::convert::Infallible>(site.answer(visitor, &request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(Patient::new(stream, STALL)), answer);
    if let Err(error) = connection.await {
        tracing::debug!(%visitor, %error, "a web connection ended early");
    }
}
