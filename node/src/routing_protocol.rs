//! `/p2pkgs/routing/1.0.0`: "who provides this key?", asked by the commands of a machine of the daemon they share a home with.
//!
//! The daemon is in the DHT already: it has a routing table, open connections, and the answers to what was asked a moment
//! ago. A command that asked the DHT itself would begin from nothing each time. Only connections of this machine are
//! answered, for a stranger who can make us walk the DHT has us work for him.
//!
//! ```text
//! request  = frame( want:u8  key: multihash sha2-256 )        want 0: as soon as somebody is found; 1: all, at the end
//! response = frame( complete:u8  nodes:uvarint  providers:places  neighbours:places )
//! places   = count:u8  (id:bytes  count:u8  (address:bytes)×count)×count
//! bytes    = length:uvarint  byte×length
//! frame(x) = uvarint(length of x)  x                          x ≤ 64 KiB
//! ```
//!
//! `complete` is 0 while the walk goes on, so that the asker may ask again. Neighbours are peers of the local network, and
//! first peers: they may hold something that nobody announced.

use base::{Multihash, Sha256};
use libp2p::{Multiaddr, PeerId, StreamProtocol};

use crate::framed::{Body, FramedCodec};
use crate::wire::{Reader, WireError, put_uvarint};

/// The protocol's name.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/p2pkgs/routing/1.0.0");
/// Most places of one kind in a response.
pub(crate) const PLACES_MAX: usize = 32;
/// Most addresses of one place, and the length of one in bytes.
pub(crate) const ADDRESSES_MAX: usize = 4;
const ADDRESS_BYTES_MAX: usize = 200;
/// Longest peer id, in bytes: an Ed25519 key in an identity multihash has 38.
const ID_BYTES_MAX: usize = 64;

/// A key whose providers are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub(crate) key: Multihash,
    /// Whether to wait for the end of the walk.
    pub(crate) all: bool,
}

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub(crate) peer: PeerId,
    pub(crate) addresses: Vec<Multiaddr>,
}

/// What is known so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Whether the walk is over.
    pub(crate) complete: bool,
    /// Nodes of the DHT that were asked.
    pub(crate) nodes: u32,
    pub(crate) providers: Vec<Place>,
    pub(crate) neighbours: Vec<Place>,
}

impl Body for Request {
    const BYTES_MAX: usize = 1 + 2 + Sha256::LEN;

    fn encode(&self) -> Vec<u8> {
        [&[u8::from(self.all)][..], self.key.as_bytes()].concat()
    }

    fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let all = flag(reader.byte()?)?;
        let code = reader.bytes(2)?;
        if code != [0x12, 0x20] {
            return Err(WireError::Range("multihash"));
        }
        let key = Multihash::sha2_256(&reader.sha256()?);
        reader.end()?;
        Ok(Self { key, all })
    }
}

impl Body for Response {
    const BYTES_MAX: usize = 64 << 10;

    fn encode(&self) -> Vec<u8> {
        let mut body = vec![u8::from(self.complete)];
        put_uvarint(&mut body, self.nodes.into());
        put_places(&mut body, &self.providers);
        put_places(&mut body, &self.neighbours);
        body
    }

    fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let complete = flag(reader.byte()?)?;
        let nodes = u32::try_from(reader.uvarint("nodes")?);
        let response = Self {
            complete,
            nodes: nodes.map_err(|_| WireError::Range("nodes"))?,
            providers: read_places(&mut reader)?,
            neighbours: read_places(&mut reader)?,
        };
        reader.end()?;
        Ok(response)
    }
}

const fn flag(byte: u8) -> Result<bool, WireError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::Range("flag")),
    }
}

fn put_places(body: &mut Vec<u8>, places: &[Place]) {
    let places = &places[..places.len().min(PLACES_MAX)];
    body.push(places.len() as u8);
    for place in places {
        put_bytes(body, &place.peer.to_bytes());
        let fits = |address: &&Multiaddr| address.len() <= ADDRESS_BYTES_MAX;
        let addresses: Vec<_> = place
            .addresses
            .iter()
            .filter(fits)
            .take(ADDRESSES_MAX)
            .collect();
        body.push(addresses.len() as u8);
        for address in addresses {
            put_bytes(body, address.as_ref());
        }
    }
}

fn put_bytes(body: &mut Vec<u8>, bytes: &[u8]) {
    put_uvarint(body, bytes.len() as u64);
    body.extend_from_slice(bytes);
}

fn read_places(reader: &mut Reader<'_>) -> Result<Vec<Place>, WireError> {
    let count = read_count(reader, PLACES_MAX, "number of places")?;
    (0..count).map(|_| read_place(reader)).collect()
}

fn read_place(reader: &mut Reader<'_>) -> Result<Place, WireError> {
    let peer = read_bytes(reader, ID_BYTES_MAX)?;
    let peer = PeerId::from_bytes(peer).map_err(|_| WireError::Range("peer id"))?;
    let count = read_count(reader, ADDRESSES_MAX, "number of addresses")?;
    let mut address = || {
        let bytes = read_bytes(reader, ADDRESS_BYTES_MAX)?.to_vec();
        Multiaddr::try_from(bytes).map_err(|_| WireError::Range("address"))
    };
    let addresses = (0..count).map(|_| address()).collect::<Result<_, _>>()?;
    Ok(Place { peer, addresses })
}

fn read_count(
    reader: &mut Reader<'_>,
    most: usize,
    what: &'static str,
) -> Result<usize, WireError> {
    let count = usize::from(reader.byte()?);
    if count > most {
        return Err(WireError::Range(what));
    }
    Ok(count)
}

fn read_bytes<'a>(reader: &mut Reader<'a>, most: usize) -> Result<&'a [u8], WireError> {
    let length = usize::try_from(reader.uvarint("length")?).unwrap_or(usize::MAX);
    if length > most {
        return Err(WireError::Range("length"));
    }
    reader.bytes(length)
}

/// Reads and writes the messages for libp2p.
pub(crate) type RoutingCodec = FramedCodec<Request, Response>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(n: u8) -> Place {
        let identity = libp2p::identity::Keypair::ed25519_from_bytes([n; 32]).unwrap();
        Place {
            peer: identity.public().to_peer_id(),
            addresses: vec![format!("/ip4/192.0.2.{n}/tcp/4001").parse().unwrap(); 4],
        }
    }

    #[test]
    fn messages_survive_and_the_largest_fits() {
        let key = Multihash::sha2_256(&Sha256::of(b"x"));
        for all in [false, true] {
            let request = Request { key, all };
            assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
        let response = Response {
            complete: true,
            nodes: 300,
            providers: (1..=32).map(place).collect(),
            neighbours: vec![place(40)],
        };
        let body = response.encode();
        assert_eq!(Response::decode(&body), Ok(response));
        let worst =
            2 * (1 + PLACES_MAX * (2 + ID_BYTES_MAX + ADDRESSES_MAX * (2 + ADDRESS_BYTES_MAX)));
        assert!(1 + 9 + worst <= Response::BYTES_MAX);
    }

    #[test]
    fn odd_messages_are_refused() {
        let key = Multihash::sha2_256(&Sha256::of(b"x"));
        let mut request = Request { key, all: true }.encode();
        request[0] = 2;
        assert_eq!(Request::decode(&request), Err(WireError::Range("flag")));
        request[0] = 1;
        request[1] = 0x13;
        assert_eq!(
            Request::decode(&request),
            Err(WireError::Range("multihash"))
        );
        assert_eq!(
            Response::decode(&[1, 0, 33]),
            Err(WireError::Range("number of places"))
        );
        assert_eq!(Response::decode(&[1, 0, 0, 0, 0]), Err(WireError::Trailing));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(garbage: Vec<u8>) {
            let _ = Request::decode(&garbage);
            let _ = Response::decode(&garbage);
        }
    }
}
