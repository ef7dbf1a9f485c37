//! `/p2pkgs/source/1.0.0`: "which DAG holds the file with this plain SHA-256?"
//!
//! A source is named by the SHA-256 in its recipe, but travels as a UnixFS DAG whose root nobody can compute from that
//! hash. Whoever holds the file knows the root. The answer is a hint, not a proof: the fetched file must have the
//! SHA-256 that was asked for, and who gave a root that leads elsewhere is remembered as a liar.
//!
//! ```text
//! request  = frame( count:u8  (sha256: 32 bytes)×count )              1 ≤ count ≤ 64
//! response = frame( count:u8  answer×count )                          same count, same order
//! answer   = 0x00                                                     does not have it
//!          | 0x01  size:uvarint  length:u8  root:CID in binary        has it
//! frame(x) = uvarint(length of x)  x
//! ```
//!
//! The root is a CIDv0 or CIDv1 over sha2-256, codec raw or dag-pb. Numbers are unsigned varints in their shortest form.

use base::{Cid, Sha256};
use libp2p::StreamProtocol;

use crate::framed::{Body, FramedCodec};
use crate::wire::{Reader, WireError, digests_body, put_uvarint};

/// The protocol's name.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/p2pkgs/source/1.0.0");
/// Files asked for in one request: a closure's sources in one round trip, in 2 KiB.
pub const KEYS_MAX: usize = 64;

/// Largest answer: tag, size, CID length and a CID of at most 40 bytes (ours take 34 or 36).
const ANSWER_BYTES_MAX: usize = 1 + 9 + 1 + 40;
/// Largest response body, in bytes.
const RESPONSE_BYTES_MAX: usize = 1 + KEYS_MAX * ANSWER_BYTES_MAX;

/// Files that somebody looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request(pub Vec<Sha256>);

/// One answer per file, in the request's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response(pub Vec<Option<Holding>>);

/// What a holder says about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Root of the DAG.
    pub root: Cid,
    /// Length of the file in bytes.
    pub size: u64,
}

impl Body for Request {
    const BYTES_MAX: usize = 1 + KEYS_MAX * Sha256::LEN;

    fn encode(&self) -> Vec<u8> {
        digests_body(self.0.iter())
    }

    fn decode(body: &[u8]) -> Result<Self, WireError> {
        Reader(body).digests(KEYS_MAX).map(Self)
    }
}

impl Body for Response {
    const BYTES_MAX: usize = RESPONSE_BYTES_MAX;

    fn encode(&self) -> Vec<u8> {
        let mut body = vec![u8::try_from(self.0.len()).expect("as many answers as keys")];
        for answer in &self.0 {
            match answer {
                None => body.push(0),
                Some(holding) => {
                    body.push(1);
                    put_uvarint(&mut body, holding.size);
                    let root = holding.root.to_bytes();
                    body.push(u8::try_from(root.len()).expect("a sha2-256 CID is short"));
                    body.extend_from_slice(&root);
                }
            }
        }
        body
    }

    fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let count = usize::from(reader.byte()?);
        if count > KEYS_MAX {
            return Err(WireError::Range("number of answers"));
        }
        let answers = (0..count)
            .map(|_| decode_answer(&mut reader))
            .collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(Self(answers))
    }
}

fn decode_answer(reader: &mut Reader<'_>) -> Result<Option<Holding>, WireError> {
    match reader.byte()? {
        0 => Ok(None),
        1 => {
            let size = reader.uvarint("file size")?;
            let root = reader.cid()?;
            Ok(Some(Holding { root, size }))
        }
        _ => Err(WireError::Range("answer")),
    }
}

/// Reads and writes the messages for libp2p.
pub type SourceCodec = FramedCodec<Request, Response>;

#[cfg(test)]
mod tests {
    use base::{Codec as BlockCodec, block_cid};
    use proptest::prelude::*;

    use super::*;

    fn holding(size: u64) -> Holding {
        Holding {
            root: block_cid(BlockCodec::DagPb, &Sha256::of(b"root")),
            size,
        }
    }

    #[test]
    fn the_byte_format_is_pinned() {
        let request = Request(vec![Sha256::from_bytes([7; 32])]);
        assert_eq!(request.encode(), [vec![1], vec![7; 32]].concat());
        let response = Response(vec![None, Some(holding(300))]);
        let root = holding(0).root.to_bytes();
        assert_eq!(
            response.encode(),
            [vec![2, 0, 1, 0xac, 0x02, 36], root].concat()
        );
    }

    #[test]
    fn version_0_roots_are_answers_too() {
        let root = base::parse_cid("QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH").unwrap();
        let response = Response(vec![Some(Holding {
            root,
            size: u64::MAX >> 1,
        })]);
        assert_eq!(Response::decode(&response.encode()), Ok(response));
    }

    #[test]
    fn foreign_hashes_and_bad_tags_are_refused() {
        // An identity CID.
        assert_eq!(
            Response::decode(&[1, 1, 5, 4, 1, 0x55, 0, 0]),
            Err(WireError::Cid)
        );
        assert_eq!(Response::decode(&[1, 2]), Err(WireError::Range("answer")));
        assert_eq!(
            Response::decode(&[65]),
            Err(WireError::Range("number of answers"))
        );
        assert_eq!(Response::decode(&[1, 1]), Err(WireError::Short));
    }

    proptest! {
        #[test]
        fn messages_survive_and_garbage_never_panics(
            answers in prop::collection::vec(prop::option::of(0..=u64::MAX >> 1), 0..=KEYS_MAX),
            garbage: Vec<u8>,
        ) {
            let response = Response(answers.into_iter().map(|size| size.map(holding)).collect());
            let body = response.encode();
            prop_assert!(body.len() <= RESPONSE_BYTES_MAX);
            prop_assert_eq!(Response::decode(&body), Ok(response));
            let _ = Response::decode(&garbage);
            let _ = Request::decode(&garbage);
        }
    }
}
