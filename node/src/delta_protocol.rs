//! `/p2pkgs/delta/1.0.0`: "I have an earlier output of this package: what has changed?"
//!
//! One segment of the new output's tar in one exchange, see [`store::delta`]. Nothing that is said here is believed: the
//! archive that comes of all segments must have the SHA-256 that was signed. Who does not want to, has none of the outputs
//! that the asker has, or is busy says so, and the archive is fetched as a whole.
//!
//! ```text
//! request  = frame( new: 32 bytes  segment:uvarint  count:u8  (earlier: 32 bytes)×count )    1 ≤ count ≤ 8
//! response = frame( 0x00 )                                                                   no
//!          | frame( 0x01  earlier:u8  tar:uvarint  from:uvarint  length:uvarint  packed )
//! frame(x) = uvarint(length of x)  x                                                         x ≤ 4 MiB + 64 KiB
//! ```
//!
//! `new` and `earlier` are SHA-256 of archives. Segment n of a tar is its bytes from n × 4 MiB on, at most 4 MiB of them. `earlier` of
//! the response counts those of the request from 0, `tar` is the length of the new tar; `length` ≤ 12 MiB bytes from `from` on of
//! the earlier tar are the prefix with which `packed`, a zstd frame, expands to the segment.

use base::Sha256;
use libp2p::StreamProtocol;
use store::delta::{EARLIER_MAX, SEGMENT_BYTES, Segment};

use crate::framed::{Body, FramedCodec};
use crate::wire::{Reader, WireError, put_uvarint};

/// The protocol's name.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/p2pkgs/delta/1.0.0");
/// What a segment that does not compress takes beyond its length, and the numbers beside it.
const OVERHEAD_BYTES: usize = 64 << 10;
/// Largest number on the wire, in bytes.
const UVARINT_BYTES_MAX: usize = 9;
/// Bytes of a frame around a body, at most.
const FRAME_BYTES: u64 = 4;

/// A segment that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// The archive that is wanted.
    pub(crate) new: Sha256,
    /// Which segment of its tar.
    pub(crate) segment: u64,
    /// Archives that the asker has, those first that it would rather have used.
    pub(crate) earlier: Vec<Sha256>,
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Response {
    /// Nothing.
    No,
    /// The segment, and which of the earlier archives its reference is in.
    Segment { earlier: u8, segment: Segment },
}

impl Request {
    /// Bytes on the wire.
    pub(crate) fn wire_bytes(&self) -> u64 {
        self.encode().len() as u64 + FRAME_BYTES
    }
}

impl Response {
    /// Bytes on the wire.
    pub(crate) fn wire_bytes(&self) -> u64 {
        let numbers = |segment: &Segment| {
            let mut numbers = Vec::new();
            for number in [segment.tar_bytes, segment.from, segment.length] {
                put_uvarint(&mut numbers, number);
            }
            2 + numbers.len() + segment.packed.len()
        };
        let body = match self {
            Self::No => 1,
            Self::Segment { segment, .. } => numbers(segment),
        };
        body as u64 + FRAME_BYTES
    }
}

impl Body for Request {
    const BYTES_MAX: usize = Sha256::LEN * (1 + EARLIER_MAX) + UVARINT_BYTES_MAX + 1;

    fn encode(&self) -> Vec<u8> {
        let mut body = self.new.as_bytes().to_vec();
        put_uvarint(&mut body, self.segment);
        body.push(u8::try_from(self.earlier.len()).expect("a handful of archives"));
        for earlier in &self.earlier {
            body.extend_from_slice(earlier.as_bytes());
        }
        body
    }

    fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let new = reader.sha256()?;
        let segment = reader.uvarint("segment")?;
        let earlier = reader.digests(EARLIER_MAX)?;
        Ok(Self {
            new,
            segment,
            earlier,
        })
    }
}

impl Body for Response {
    const BYTES_MAX: usize = SEGMENT_BYTES as usize + OVERHEAD_BYTES;

    fn encode(&self) -> Vec<u8> {
        let Self::Segment { earlier, segment } = self else {
            return vec![0];
        };
        let mut body = Vec::with_capacity(2 + 3 * UVARINT_BYTES_MAX + segment.packed.len());
        body.extend([1, *earlier]);
        for number in [segment.tar_bytes, segment.from, segment.length] {
            put_uvarint(&mut body, number);
        }
        body.extend_from_slice(&segment.packed);
        body
    }

    fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        match reader.byte()? {
            0 => reader.end().map(|()| Self::No),
            1 => {
                let earlier = reader.byte()?;
                let tar_bytes = reader.uvarint("length of a tar")?;
                let from = reader.uvarint("begin of a reference")?;
                let length = reader.uvarint("length of a reference")?;
                let packed = reader.0.to_vec();
                let segment = Segment {
                    tar_bytes,
                    from,
                    length,
                    packed,
                };
                Ok(Self::Segment { earlier, segment })
            }
            _ => Err(WireError::Range("answer")),
        }
    }
}

/// Reads and writes the messages for libp2p.
pub(crate) type DeltaCodec = FramedCodec<Request, Response>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(earlier: usize) -> Request {
        Request {
            new: Sha256::of(b"new"),
            segment: 300,
            earlier: vec![Sha256::of(b"old"); earlier],
        }
    }

    fn response() -> Response {
        let segment = Segment {
            tar_bytes: 1 << 30,
            from: 5,
            length: 12 << 20,
            packed: vec![7; 100],
        };
        Response::Segment {
            earlier: 3,
            segment,
        }
    }

    #[test]
    fn messages_survive_their_way() {
        for count in [1, EARLIER_MAX] {
            let request = request(count);
            assert!(request.encode().len() <= Request::BYTES_MAX);
            assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
        for response in [response(), Response::No] {
            assert_eq!(Response::decode(&response.encode()), Ok(response.clone()));
            let body = response.encode().len() as u64;
            assert_eq!(response.wire_bytes(), body + FRAME_BYTES);
        }
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        let many = WireError::Range("number of keys");
        for count in [0, EARLIER_MAX + 1] {
            assert_eq!(Request::decode(&request(count).encode()), Err(many));
        }
        let mut long = request(1).encode();
        long.push(0);
        assert_eq!(Request::decode(&long), Err(WireError::Trailing));
        assert_eq!(Response::decode(&[2]), Err(WireError::Range("answer")));
        assert_eq!(Response::decode(&[0, 0]), Err(WireError::Trailing));
        assert_eq!(Response::decode(&[1, 0]), Err(WireError::Short));
        let padded = [1, 0, 0x80, 0, 0, 0];
        assert_eq!(
            Response::decode(&padded),
            Err(WireError::Range("length of a tar"))
        );
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_what_is_read_is_written_alike(garbage: Vec<u8>) {
            if let Ok(request) = Request::decode(&garbage) {
                prop_assert_eq!(request.encode(), garbage.clone());
            }
            if let Ok(response) = Response::decode(&garbage) {
                prop_assert_eq!(response.encode(), garbage);
            }
        }
    }
}
