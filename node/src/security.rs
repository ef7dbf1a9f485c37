//! Encryption of TCP connections: Noise or TLS 1.3, whichever both sides know.
//!
//! Kubo prefers TLS, browsers' peers know only Noise; both prove the peer's identity. As a dialler we propose Noise first,
//! for its one round trip less.

use futures::future::{BoxFuture, Either, FutureExt as _};
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::{PeerId, noise, tls};

const NOISE: &str = "/noise";
const TLS: &str = "/tls/1.0.0";

/// Both ways, ready to negotiate.
#[derive(Clone)]
pub(crate) struct Security {
    pub(crate) noise: noise::Config,
    pub(crate) tls: tls::Config,
}

/// Why a connection could not be encrypted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecurityError {
    /// The Noise handshake failed.
    #[error(transparent)]
    Noise(#[from] noise::Error),
    /// The TLS handshake failed.
    #[error(transparent)]
    Tls(#[from] tls::UpgradeError),
}

type Encrypted<C> = (PeerId, Either<noise::Output<C>, tls::TlsStream<C>>);

impl UpgradeInfo for Security {
    type Info = &'static str;
    type InfoIter = [&'static str; 2];

    fn protocol_info(&self) -> Self::InfoIter {
        [NOISE, TLS]
    }
}

impl<C> InboundConnectionUpgrade<C> for Security
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = Encrypted<C>;
    type Error = SecurityError;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, socket: C, info: Self::Info) -> Self::Future {
        async move {
            if info == TLS {
                let (peer, stream) = self.tls.upgrade_inbound(socket, info).await?;
                return Ok((peer, Either::Right(stream)));
            }
            let (peer, stream) = self.noise.upgrade_inbound(socket, info).await?;
            Ok((peer, Either::Left(stream)))
        }
        .boxed()
    }
}

impl<C> OutboundConnectionUpgrade<C> for Security
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = Encrypted<C>;
    type Error = SecurityError;
    type Future = BoxFuture<'static, Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, socket: C, info: Self::Info) -> Self::Future {
        async move {
            if info == TLS {
                let (peer, stream) = self.tls.upgrade_outbound(socket, info).await?;
                return Ok((peer, Either::Right(stream)));
            }
            let (peer, stream) = self.noise.upgrade_outbound(socket, info).await?;
            Ok((peer, Either::Left(stream)))
        }
        .boxed()
    }
}
