//! `/p2pkgs/realisation/1.0.0`: "what did building these packages give?"
//!
//! The answer is a list of signed statements. Their signatures are checked here, while the response is read (in the
//! connection's task, so that a peer cannot slow the node down with many of them); whether a signer counts is the caller's
//! policy. A statement that is invalid, or about another package than the one asked for, is left out and counted against
//! the peer: one bad statement does not make the good ones beside it worthless.
//!
//! ```text
//! request   = frame( count:u8  (pkghash: 32 bytes)×count )            1 ≤ count ≤ 64
//! response  = frame( count:u8  package×count )                        same count, same order
//! package   = count:u8  statement×count                               count ≤ 16
//! statement = length:uvarint  signed realisation, canonical DAG-CBOR  length ≤ 4096
//! frame(x)  = uvarint(length of x)  x                                 x ≤ 1 MiB
//! ```
//!
//! A holder that has more statements than fit sends those that fit.

use std::io::{self, Read as _};

use base::{PkgHash, SIGNED_REALISATION_BYTES_MAX, Sha256, SignedRealisation};
use libp2p::StreamProtocol;

use crate::framed::{Body, FramedCodec};
use crate::wire::{Reader, WireError, digests_body, put_uvarint};

/// The protocol's name.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/p2pkgs/realisation/1.0.0");
/// Packages asked for in one request: a closure in one round trip, in 2 KiB.
pub const KEYS_MAX: usize = 64;
/// Statements about one package: as many builders as anybody will require to agree, with room for strangers.
pub const STATEMENTS_MAX: usize = 16;

/// Largest response body, in bytes. Statements take below 500 bytes today, so 64 × 16 of them fit in 512 KB.
const RESPONSE_BYTES_MAX: usize = 1 << 20;

/// Packages that somebody looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request(pub Vec<PkgHash>);

/// The statements about each package, in the request's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Verified statements. A package nothing is known about has an empty list.
    pub packages: Vec<Vec<SignedRealisation>>,
    /// How many statements did not verify. Not sent, only counted on receipt.
    pub invalid: u32,
}

impl Body for Request {
    const BYTES_MAX: usize = 1 + KEYS_MAX * Sha256::LEN;

    fn encode(&self) -> Vec<u8> {
        let digests: Vec<_> = self.0.iter().map(|pkghash| *pkghash.digest()).collect();
        digests_body(digests.iter())
    }

    fn decode(body: &[u8]) -> Result<Self, WireError> {
        let digests = Reader(body).digests(KEYS_MAX)?;
        Ok(Self(
            digests.into_iter().map(PkgHash::from_digest).collect(),
        ))
    }
}

impl Body for Response {
    const BYTES_MAX: usize = RESPONSE_BYTES_MAX;

    fn encode(&self) -> Vec<u8> {
        let mut body = vec![u8::try_from(self.packages.len()).expect("as many answers as keys")];
        for (done, statements) in self.packages.iter().enumerate() {
            // Every package still to come takes at least its count byte.
            let room = RESPONSE_BYTES_MAX - (self.packages.len() - done);
            encode_package(&mut body, statements, room);
        }
        body
    }

    fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let count = usize::from(reader.byte()?);
        if count > KEYS_MAX {
            return Err(WireError::Range("number of answers"));
        }
        let mut response = Self::default();
        for _ in 0..count {
            let package = decode_package(&mut reader, &mut response.invalid)?;
            response.packages.push(package);
        }
        reader.end()?;
        Ok(response)
    }
}

impl Response {
    /// Moves statements about other packages than those asked for to the invalid ones, and checks the number of answers.
    pub(crate) fn matched_to(mut self, request: &Request) -> Option<Self> {
        if self.packages.len() != request.0.len() {
            return None;
        }
        for (statements, pkghash) in self.packages.iter_mut().zip(&request.0) {
            let before = statements.len();
            statements.retain(|statement| statement.realisation().pkghash == *pkghash);
            self.invalid += (before - statements.len()) as u32;
        }
        Some(self)
    }
}

/// Largest list of statements about one package, in bytes.
pub(crate) const STATEMENTS_BYTES_MAX: usize =
    1 + STATEMENTS_MAX * (2 + SIGNED_REALISATION_BYTES_MAX);

/// The statements about one package, as one answer of the protocol has them: `package` above.
pub fn encode_statements(statements: &[SignedRealisation]) -> Vec<u8> {
    let mut body = Vec::new();
    encode_package(&mut body, statements, STATEMENTS_BYTES_MAX);
    body
}

/// Why something is no list of statements.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StatementsError {
    /// It could not be read to its end.
    #[error("cannot read the statements")]
    Read(#[from] io::Error),
    /// It is longer than any list of statements.
    #[error("more bytes than statements have")]
    TooLarge,
    /// It is something else.
    #[error("no list of statements")]
    Form(#[from] WireError),
}

/// Reads what [`encode_statements`] writes, from wherever. Statements that do not verify, or are about another package, are
/// left out.
///
/// # Errors
/// [`StatementsError`].
pub fn read_statements(
    body: impl io::Read,
    pkghash: &PkgHash,
) -> Result<Vec<SignedRealisation>, StatementsError> {
    let mut bytes = Vec::new();
    let mut body = body.take(STATEMENTS_BYTES_MAX as u64 + 1);
    body.read_to_end(&mut bytes)?;
    if bytes.len() > STATEMENTS_BYTES_MAX {
        return Err(StatementsError::TooLarge);
    }
    Ok(decode_statements(&bytes, pkghash)?)
}

/// Reads the answer to a request, from wherever: the statements about each package, in the request's order.
///
/// # Errors
/// [`StatementsError`].
pub(crate) fn read_response(
    body: impl io::Read,
    request: &Request,
) -> Result<Vec<Vec<SignedRealisation>>, StatementsError> {
    let mut bytes = Vec::new();
    let mut body = body.take(RESPONSE_BYTES_MAX as u64 + 1);
    body.read_to_end(&mut bytes)?;
    if bytes.len() > RESPONSE_BYTES_MAX {
        return Err(StatementsError::TooLarge);
    }
    let response = Response::decode(&bytes)?.matched_to(request);
    let number = WireError::Range("number of answers");
    Ok(response.ok_or(number)?.packages)
}

fn decode_statements(body: &[u8], pkghash: &PkgHash) -> Result<Vec<SignedRealisation>, WireError> {
    let mut reader = Reader(body);
    let mut statements = decode_package(&mut reader, &mut 0)?;
    reader.end()?;
    statements.retain(|statement| statement.realisation().pkghash == *pkghash);
    Ok(statements)
}

fn encode_package(body: &mut Vec<u8>, statements: &[SignedRealisation], room: usize) {
    let at = body.len();
    body.push(0);
    for statement in statements.iter().take(STATEMENTS_MAX) {
        let bytes = statement.to_bytes();
        if body.len() + 2 + bytes.len() > room {
            break;
        }
        put_uvarint(body, bytes.len() as u64);
        body.extend_from_slice(&bytes);
        body[at] += 1;
    }
}

fn decode_package(
    reader: &mut Reader<'_>,
    invalid: &mut u32,
) -> Result<Vec<SignedRealisation>, WireError> {
    let count = usize::from(reader.byte()?);
    if count > STATEMENTS_MAX {
        return Err(WireError::Range("number of statements"));
    }
    let mut statements = Vec::new();
    for _ in 0..count {
        let length = reader.uvarint("statement length")?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > SIGNED_REALISATION_BYTES_MAX {
            return Err(WireError::Range("statement length"));
        }
        match SignedRealisation::from_bytes(reader.bytes(length)?) {
            Ok(statement) => statements.push(statement),
            Err(_) => *invalid += 1,
        }
    }
    Ok(statements)
}

/// Reads and writes the messages for libp2p.
pub type RealisationCodec = FramedCodec<Request, Response>;

#[cfg(test)]
mod tests {
    use base::{Codec as BlockCodec, Realisation, SecretKey, block_cid};
    use proptest::prelude::*;

    use super::*;

    fn pkghash(name: u8) -> PkgHash {
        PkgHash::of_derivation(&[name])
    }

    fn statement(package: u8, signer: u8) -> SignedRealisation {
        Realisation {
            pkghash: pkghash(package),
            output: block_cid(BlockCodec::Raw, &Sha256::of(b"output")),
            sha256: Sha256::of(b"output"),
            size: 6,
        }
        .sign(&SecretKey::from_seed(&[signer; 32]))
    }

    #[test]
    fn statements_survive_their_way_and_are_verified_on_receipt() {
        let packages = vec![
            vec![statement(1, 1), statement(1, 2)],
            vec![],
            vec![statement(3, 1)],
        ];
        let response = Response {
            packages,
            invalid: 0,
        };
        assert_eq!(Response::decode(&response.encode()), Ok(response));
    }

    #[test]
    fn a_forged_statement_is_dropped_and_counted_beside_a_good_one() {
        let response = Response {
            packages: vec![vec![statement(1, 1), statement(1, 2)]],
            invalid: 0,
        };
        let mut body = response.encode();
        let last = body.len() - 1;
        body[last] ^= 1;
        let got = Response::decode(&body).unwrap();
        assert_eq!(got.invalid, 1);
        assert_eq!(got.packages, vec![vec![statement(1, 1)]]);
    }

    #[test]
    fn a_true_statement_about_another_package_counts_as_invalid() {
        let request = Request(vec![pkghash(1)]);
        let moved = Response {
            packages: vec![vec![statement(2, 1)]],
            invalid: 0,
        };
        let got = moved.matched_to(&request).unwrap();
        assert_eq!((got.packages[0].len(), got.invalid), (0, 1));
        assert_eq!(Response::default().matched_to(&request), None);
    }

    #[test]
    fn more_than_fits_is_cut_and_never_over_the_limit() {
        let statements: Vec<_> = (0..40).map(|signer| statement(1, signer)).collect();
        let response = Response {
            packages: vec![statements; KEYS_MAX],
            invalid: 0,
        };
        let body = response.encode();
        assert!(body.len() <= RESPONSE_BYTES_MAX);
        let got = Response::decode(&body).unwrap();
        assert!(
            got.packages
                .iter()
                .all(|package| package.len() == STATEMENTS_MAX)
        );
    }

    #[test]
    fn counts_and_lengths_over_their_limits_are_refused() {
        assert_eq!(
            Response::decode(&[1, 17]),
            Err(WireError::Range("number of statements"))
        );
        assert_eq!(
            Response::decode(&[65]),
            Err(WireError::Range("number of answers"))
        );
        let long = [1, 1, 0x81, 0x20];
        assert_eq!(
            Response::decode(&long),
            Err(WireError::Range("statement length"))
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
