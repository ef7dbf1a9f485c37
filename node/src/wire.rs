//! Bounded reading and writing for our own small request-response protocols.
//!
//! Every message is one frame, `uvarint(length) ‖ body`, as in all libp2p protocols, so that neither side has to wait for
//! the other's end of stream. The length is checked against the protocol's limit before a single byte is allocated, and a
//! body must be used up exactly: trailing bytes mean that the two sides do not speak the same protocol.

use std::io;

use base::{Cid, Sha256};
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Longest unsigned varint, in bytes: 9 × 7 bits, the limit of the multiformats specification.
const UVARINT_BYTES_MAX: usize = 9;

/// Why a body is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The body ends inside a field.
    #[error("message ends early")]
    Short,
    /// The body goes on after its last field.
    #[error("message goes on after its end")]
    Trailing,
    /// A number or a count out of its range, or a varint in a longer form than needed.
    #[error("{0} out of range")]
    Range(&'static str),
    /// No CID of ours.
    #[error("not a usable CID")]
    Cid,
}

impl From<WireError> for io::Error {
    fn from(error: WireError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Reads one frame of at most `limit` bytes.
pub(crate) async fn read_frame<T>(io: &mut T, limit: usize) -> io::Result<Vec<u8>>
where
    T: AsyncRead + Unpin + Send,
{
    let mut header = [0; UVARINT_BYTES_MAX];
    for used in 0..UVARINT_BYTES_MAX {
        io.read_exact(&mut header[used..=used]).await?;
        if header[used] < 0x80 {
            let length = Reader(&header[..=used]).uvarint("frame length")?;
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length > limit {
                return Err(WireError::Range("frame length").into());
            }
            let mut body = vec![0; length];
            io.read_exact(&mut body).await?;
            return Ok(body);
        }
    }
    Err(WireError::Range("frame length").into())
}

/// Writes one frame.
pub(crate) async fn write_frame<T>(io: &mut T, body: &[u8]) -> io::Result<()>
where
    T: AsyncWrite + Unpin + Send,
{
    let mut frame = Vec::with_capacity(UVARINT_BYTES_MAX + body.len());
    put_uvarint(&mut frame, body.len() as u64);
    frame.extend_from_slice(body);
    io.write_all(&frame).await?;
    io.flush().await
}

/// Appends an unsigned varint in its shortest form.
pub(crate) fn put_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes fields off the front of a body.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next `count` bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(head)
    }

    /// The next byte.
    pub(crate) fn byte(&mut self) -> Result<u8, WireError> {
        self.bytes(1).map(|byte| byte[0])
    }

    /// An unsigned varint in its shortest form.
    pub(crate) fn uvarint(&mut self, what: &'static str) -> Result<u64, WireError> {
        let mut value = 0;
        for shift in (0..UVARINT_BYTES_MAX * 7).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                let padded = byte == 0 && shift > 0;
                return if padded {
                    Err(WireError::Range(what))
                } else {
                    Ok(value)
                };
            }
        }
        Err(WireError::Range(what))
    }

    /// A digest.
    pub(crate) fn sha256(&mut self) -> Result<Sha256, WireError> {
        let bytes = self.bytes(Sha256::LEN)?;
        Ok(Sha256::from_bytes(
            bytes.try_into().map_err(|_| WireError::Short)?,
        ))
    }

    /// A count byte and as many digests: the body of both our requests.
    pub(crate) fn digests(mut self, count_max: usize) -> Result<Vec<Sha256>, WireError> {
        let count = usize::from(self.byte()?);
        if count == 0 || count > count_max {
            return Err(WireError::Range("number of keys"));
        }
        let digests = (0..count)
            .map(|_| self.sha256())
            .collect::<Result<_, _>>()?;
        self.end()?;
        Ok(digests)
    }

    /// A length byte and a binary CID over sha2-256 of a codec that we read.
    pub(crate) fn cid(&mut self) -> Result<Cid, WireError> {
        let length = usize::from(self.byte()?);
        let bytes = self.bytes(length)?;
        let cid = Cid::try_from(bytes).map_err(|_| WireError::Cid)?;
        base::Codec::of(&cid).map_err(|_| WireError::Cid)?;
        base::Multihash::of(&cid).map_err(|_| WireError::Cid)?;
        if cid.encoded_len() == length {
            Ok(cid)
        } else {
            Err(WireError::Cid)
        }
    }

    /// Makes sure that nothing is left.
    pub(crate) fn end(self) -> Result<(), WireError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(WireError::Trailing)
        }
    }
}

/// The body that [`Reader::digests`] reads.
pub(crate) fn digests_body<'a>(digests: impl ExactSizeIterator<Item = &'a Sha256>) -> Vec<u8> {
    let mut body = vec![u8::try_from(digests.len()).expect("a request holds at most 64 keys")];
    for digest in digests {
        body.extend_from_slice(digest.as_bytes());
    }
    body
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::io::Cursor;

    use super::*;

    fn frame(bytes: &[u8], limit: usize) -> io::Result<Vec<u8>> {
        block_on(read_frame(&mut Cursor::new(bytes.to_vec()), limit))
    }

    #[test]
    fn a_frame_survives_its_way_over_the_wire() {
        for length in [0, 1, 127, 128, 300, 20_000] {
            let body: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let mut wire = Cursor::new(Vec::new());
            block_on(write_frame(&mut wire, &body)).unwrap();
            assert_eq!(frame(wire.get_ref(), 20_000).unwrap(), body);
        }
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_before_its_body_arrives() {
        // 2^62 bytes announced, none sent: an allocation would abort the process.
        let mut announced = Vec::new();
        put_uvarint(&mut announced, 1 << 62);
        assert_eq!(
            frame(&announced, 4096).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        assert_eq!(
            frame(&[0x80; 10], 4096).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        assert_eq!(
            frame(&[0x81, 0x00], 4096).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        assert_eq!(
            frame(&[5, 1, 2], 4096).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        assert_eq!(
            frame(&[], 4096).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn counts_and_lengths_must_fit_the_body_exactly() {
        let digest = Sha256::of(b"x");
        let body = digests_body([digest, digest].iter());
        assert_eq!(Reader(&body).digests(64), Ok(vec![digest, digest]));
        assert_eq!(
            Reader(&body).digests(1),
            Err(WireError::Range("number of keys"))
        );
        assert_eq!(Reader(&body[..64]).digests(64), Err(WireError::Short));
        assert_eq!(
            Reader(&[0]).digests(64),
            Err(WireError::Range("number of keys"))
        );
        assert_eq!(Reader(&[]).digests(64), Err(WireError::Short));
        let mut longer = body;
        longer.push(0);
        assert_eq!(Reader(&longer).digests(64), Err(WireError::Trailing));
    }
}
