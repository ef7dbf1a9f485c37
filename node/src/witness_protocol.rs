//! `/p2pkgs/witness/1.0.0`: "what have you seen of this?"
//!
//! Users who tell each other which heads they saw, and what keys said of keys, cannot be shown different things for long. A topic is
//! the SHA-256 of a text that only who knows what it is about can make; what is said about it is signed, and is nothing to this
//! crate but bytes. Whoever asks checks every signature, and believes the peer in nothing.
//!
//! ```text
//! request  = frame( count:u8  (topic: 32 bytes)×count )              1 ≤ count ≤ 64
//! response = frame( count:u8  answer×count )                         same count, same order
//! answer   = count:u8  thing×count                                   count ≤ 16
//! thing    = length:uvarint  signed head or statement about keys     length ≤ 4096
//! frame(x) = uvarint(length of x)  x                                 x ≤ 256 KiB
//! ```
//!
//! A witness that has more to say than fits says what fits.

use base::Sha256;
use libp2p::StreamProtocol;

use crate::framed::{Body, FramedCodec};
use crate::wire::{Reader, WireError, digests_body, put_uvarint};

/// The protocol's name.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/p2pkgs/witness/1.0.0");
/// Topics of one request.
pub const TOPICS_MAX: usize = 64;
/// Things said about one topic: a head, or a key's delegations, rotation and end.
pub const THINGS_MAX: usize = 16;
/// Longest thing in bytes, as heads have it.
pub const THING_BYTES_MAX: usize = 4096;

/// Longest response in bytes: far more than is said about as many keys as a user has.
const RESPONSE_BYTES_MAX: usize = 256 << 10;
/// Largest number on the wire here, in bytes.
const UVARINT_BYTES_MAX: usize = 2;

/// What this node says that it has seen.
pub trait Witness: Send + Sync + std::fmt::Debug {
    /// All that is known about a topic, what matters most first. May read the disk.
    fn about(&self, topic: &Sha256) -> Vec<Vec<u8>>;
}

/// A node that has seen nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoWitness;

impl Witness for NoWitness {
    fn about(&self, _topic: &Sha256) -> Vec<Vec<u8>> {
        Vec::new()
    }
}

/// Topics that somebody wants to hear about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request(pub(crate) Vec<Sha256>);

/// What is said about each topic, in the request's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Response(pub(crate) Vec<Vec<Vec<u8>>>);

/// The protocol's codec.
pub(crate) type WitnessCodec = FramedCodec<Request, Response>;

impl Response {
    /// What a witness says.
    pub(crate) fn of(witness: &dyn Witness, request: &Request) -> Self {
        Self(request.0.iter().map(|topic| witness.about(topic)).collect())
    }
}

impl Body for Request {
    const BYTES_MAX: usize = 1 + TOPICS_MAX * Sha256::LEN;

    fn encode(&self) -> Vec<u8> {
        digests_body(self.0.iter())
    }

    fn decode(body: &[u8]) -> Result<Self, WireError> {
        Ok(Self(Reader(body).digests(TOPICS_MAX)?))
    }
}

impl Body for Response {
    const BYTES_MAX: usize = RESPONSE_BYTES_MAX;

    fn encode(&self) -> Vec<u8> {
        let mut body = vec![u8::try_from(self.0.len()).expect("as many answers as topics")];
        for (done, things) in self.0.iter().enumerate() {
            // Every answer still to come takes at least its count.
            let room = RESPONSE_BYTES_MAX - (self.0.len() - done);
            let count_at = body.len();
            body.push(0);
            for thing in things.iter().filter(|thing| thing.len() <= THING_BYTES_MAX) {
                let fits = body.len() + UVARINT_BYTES_MAX + thing.len() <= room;
                if usize::from(body[count_at]) == THINGS_MAX || !fits {
                    break;
                }
                put_uvarint(&mut body, thing.len() as u64);
                body.extend(thing);
                body[count_at] += 1;
            }
        }
        body
    }

    fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let count = usize::from(reader.byte()?);
        if count > TOPICS_MAX {
            return Err(WireError::Range("number of answers"));
        }
        let mut answers = Vec::new();
        for _ in 0..count {
            let count = usize::from(reader.byte()?);
            if count > THINGS_MAX {
                return Err(WireError::Range("number of things"));
            }
            let mut things = Vec::new();
            for _ in 0..count {
                let length = reader.uvarint("length of a thing")?;
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                if length > THING_BYTES_MAX {
                    return Err(WireError::Range("length of a thing"));
                }
                things.push(reader.bytes(length)?.to_vec());
            }
            answers.push(things);
        }
        reader.end()?;
        Ok(Self(answers))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn questions_and_answers_survive_the_wire() {
        let request = Request(vec![Sha256::of(b"a"), Sha256::of(b"b")]);
        assert_eq!(Request::decode(&request.encode()), Ok(request));
        let response = Response(vec![vec![vec![1; 300], Vec::new()], Vec::new()]);
        assert_eq!(Response::decode(&response.encode()), Ok(response));
    }

    #[test]
    fn a_witness_with_too_much_to_say_says_what_fits() {
        let crowd = Response(vec![vec![vec![7; THING_BYTES_MAX]; 20]; TOPICS_MAX]);
        let body = crowd.encode();
        assert!(body.len() <= RESPONSE_BYTES_MAX);
        let got = Response::decode(&body).unwrap();
        assert_eq!((got.0.len(), got.0[0].len()), (TOPICS_MAX, THINGS_MAX));
        let long = Response(vec![vec![vec![7; THING_BYTES_MAX + 1], vec![8]]]);
        let got = Response::decode(&long.encode()).unwrap();
        assert_eq!(got.0, [[[8]]]);
    }

    #[test]
    fn counts_and_lengths_over_their_limits_are_refused() {
        let range = |what| Err(WireError::Range(what));
        assert_eq!(Response::decode(&[65]), range("number of answers"));
        assert_eq!(Response::decode(&[1, 17]), range("number of things"));
        assert_eq!(
            Response::decode(&[1, 1, 0x81, 0x20]),
            range("length of a thing")
        );
        assert_eq!(Response::decode(&[1, 1, 5, 1]), Err(WireError::Short));
        assert_eq!(Response::decode(&[0, 0]), Err(WireError::Trailing));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(garbage: Vec<u8>) {
            let _ = Response::decode(&garbage);
            let _ = Request::decode(&garbage);
        }
    }
}
