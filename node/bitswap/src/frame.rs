//! Framing: each message travels as `uv(length)` and its bytes; several may follow each other on one stream.
//!
//! The decoder says itself where the stream's next bytes belong ([`FrameDecoder::space`]), so that a large block is read
//! from the socket straight into the buffer its [`Bytes`] slices will share. It refuses a length above the limit before
//! it reserves anything, and reserves little before bytes really arrive.

use bytes::Bytes;

use crate::error::DecodeError;
use crate::limits::{FRAME_COMMIT_BYTES, MESSAGE_BYTES_MAX};
use crate::wire::varint_len;

/// Bytes read ahead while the next frame's length is unknown: a window's worth of small answers in one read.
const READ_AHEAD_BYTES: usize = 8 * 1024;
/// A frame's buffer grows by so many bytes at a time, while they are warm in the cache: zeroing it as a whole would write a
/// large block to memory twice.
const GROW_BYTES: usize = 32 * 1024;
/// A length up to 4 MiB has at most four varint bytes.
const LENGTH_BYTES_MAX: usize = varint_len(MESSAGE_BYTES_MAX as u64);

/// An encoded message with its length prefix, as the pieces to write one after the other.
///
/// Large blocks stay their own pieces, shared with the store's buffer and never copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    pieces: Vec<Bytes>,
}

impl Frame {
    pub(crate) const fn new(pieces: Vec<Bytes>) -> Self {
        Self { pieces }
    }

    /// The pieces in order.
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// The pieces in order, by value.
    pub fn into_pieces(self) -> Vec<Bytes> {
        self.pieces
    }

    /// Total length in bytes.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// True of no frame that [`Message::encode`](crate::Message::encode) makes: there is always a length prefix.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All pieces in one buffer, for those who need it contiguous.
    pub fn to_vec(&self) -> Vec<u8> {
        self.pieces.concat()
    }
}

/// Cuts one stream into frames.
///
/// ```
/// # use p2pkgs_bitswap::FrameDecoder;
/// let mut wire: &[u8] = &[3, b'o', b'n', b'e', 3, b't', b'w', b'o'];
/// let mut decoder = FrameDecoder::default();
/// let mut frames = Vec::new();
/// while !wire.is_empty() {
///     let space = decoder.space();
///     let length = space.len().min(wire.len());
///     space[..length].copy_from_slice(&wire[..length]); // a real caller reads from its socket here
///     wire = &wire[length..];
///     decoder.filled(length);
///     while let Some(frame) = decoder.next_frame()? {
///         frames.push(frame);
///     }
/// }
/// decoder.finish()?;
/// assert_eq!(frames, ["one", "two"]);
/// # Ok::<(), p2pkgs_bitswap::DecodeError>(())
/// ```
#[derive(Debug, Default)]
pub struct FrameDecoder {
    /// Bytes read ahead of the next length; `ahead[start..end]` is unread.
    ahead: Vec<u8>,
    start: usize,
    end: usize,
    /// The frame being filled once its length is known and `ahead` does not hold all of it.
    large: Option<Large>,
}

#[derive(Debug)]
struct Large {
    length: usize,
    filled: usize,
    buffer: Vec<u8>,
}

impl FrameDecoder {
    /// Where the stream's next bytes belong; never empty. Tell by [`filled`](Self::filled) how many were put there.
    pub fn space(&mut self) -> &mut [u8] {
        if let Some(large) = &mut self.large {
            return large.space();
        }
        if self.ahead.is_empty() {
            self.ahead = vec![0; READ_AHEAD_BYTES];
        }
        if self.start > 0 {
            self.ahead.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.ahead[self.end..]
    }

    /// Takes in the first `length` bytes of [`space`](Self::space).
    pub fn filled(&mut self, length: usize) {
        match &mut self.large {
            Some(large) => large.filled = (large.filled + length).min(large.buffer.len()),
            None => self.end = (self.end + length).min(self.ahead.len()),
        }
    }

    /// The next complete frame, if its bytes are there.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] and [`DecodeError::LengthPrefix`]; the stream cannot be read on after either.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, DecodeError> {
        if self.large.is_none() && !self.begin_large()? {
            return Ok(self.small_frame());
        }
        Ok(self
            .large
            .take_if(|large| large.filled == large.length)
            .map(|large| large.buffer.into()))
    }

    /// Tells that the stream ended.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if it ended inside a frame.
    pub fn finish(&self) -> Result<(), DecodeError> {
        let (have, announced) = match (&self.large, self.length_prefix()?) {
            (Some(large), _) => (large.filled, large.length),
            (None, Some((length, prefix))) => (self.end - self.start - prefix, length),
            (None, None) if self.start == self.end => return Ok(()),
            (None, None) => return Err(DecodeError::LengthPrefix),
        };
        Err(DecodeError::Truncated { have, announced })
    }

    /// True between two frames: nothing of the next one has arrived.
    pub fn is_idle(&self) -> bool {
        self.large.is_none() && self.start == self.end
    }

    /// If a length is known and its frame is not all in `ahead`, moves on to fill a buffer of its own.
    fn begin_large(&mut self) -> Result<bool, DecodeError> {
        let Some((length, prefix)) = self.length_prefix()? else {
            return Ok(false);
        };
        let body = &self.ahead[self.start + prefix..self.end];
        if body.len() >= length {
            return Ok(false);
        }
        let filled = body.len();
        let mut buffer = Vec::with_capacity(length.min(FRAME_COMMIT_BYTES));
        buffer.extend_from_slice(body);
        self.large = Some(Large {
            length,
            filled,
            buffer,
        });
        (self.start, self.end) = (0, 0);
        Ok(true)
    }

    fn small_frame(&mut self) -> Option<Bytes> {
        let (length, prefix) = self.length_prefix().ok().flatten()?;
        let from = self.start + prefix;
        let frame = Bytes::copy_from_slice(self.ahead.get(from..from + length)?);
        self.start = from + length;
        Some(frame)
    }

    /// Length of the frame at the front and of its prefix, if the prefix is complete.
    fn length_prefix(&self) -> Result<Option<(usize, usize)>, DecodeError> {
        let mut length = 0_u64;
        for (position, byte) in self.ahead[self.start..self.end].iter().enumerate() {
            length |= u64::from(byte & 0x7f) << (7 * position);
            if length > MESSAGE_BYTES_MAX as u64 {
                return Err(DecodeError::TooLong(length));
            }
            if byte & 0x80 == 0 {
                let shortest = varint_len(length) == position + 1;
                let length = length as usize; // At most 4 MiB.
                return if shortest {
                    Ok(Some((length, position + 1)))
                } else {
                    Err(DecodeError::LengthPrefix)
                };
            }
            if position + 1 == LENGTH_BYTES_MAX {
                return Err(DecodeError::TooLong(length | 1 << (7 * LENGTH_BYTES_MAX)));
            }
        }
        Ok(None)
    }
}

impl Large {
    /// Where the next bytes belong. The rest of the frame is reserved once the bytes reserved first have really arrived.
    fn space(&mut self) -> &mut [u8] {
        if self.filled == self.buffer.len() {
            if self.filled == self.buffer.capacity() {
                self.buffer.reserve_exact(self.length - self.filled);
            }
            let room = self.buffer.capacity().min(self.length);
            let length = room.min(self.filled + GROW_BYTES);
            self.buffer.resize(length, 0);
        }
        &mut self.buffer[self.filled..]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `wire` in pieces of at most `piece` bytes.
    fn decode(mut wire: &[u8], piece: usize) -> Result<Vec<Bytes>, DecodeError> {
        let mut decoder = FrameDecoder::default();
        let mut frames = Vec::new();
        while !wire.is_empty() {
            let space = decoder.space();
            assert!(!space.is_empty());
            let length = space.len().min(wire.len()).min(piece);
            space[..length].copy_from_slice(&wire[..length]);
            decoder.filled(length);
            wire = &wire[length..];
            while let Some(frame) = decoder.next_frame()? {
                frames.push(frame);
            }
        }
        decoder.finish()?;
        Ok(frames)
    }

    fn framed(bodies: &[Vec<u8>]) -> Vec<u8> {
        let mut wire = bytes::BytesMut::new();
        for body in bodies {
            crate::wire::put_varint(&mut wire, body.len() as u64);
            wire.extend_from_slice(body);
        }
        wire.to_vec()
    }

    #[test]
    fn a_frame_of_exactly_4_mib_passes_and_one_byte_more_is_refused_before_it_is_buffered() {
        let body = vec![7; MESSAGE_BYTES_MAX];
        let frames = decode(&framed(std::slice::from_ref(&body)), 100_000).unwrap();
        assert_eq!(frames, [body]);

        let mut decoder = FrameDecoder::default();
        let prefix = [0x81, 0x80, 0x80, 0x02];
        decoder.space()[..4].copy_from_slice(&prefix);
        decoder.filled(4);
        assert_eq!(
            decoder.next_frame(),
            Err(DecodeError::TooLong((4 << 20) + 1))
        );
        assert!(decoder.large.is_none());
    }

    #[test]
    fn an_announced_but_unsent_frame_reserves_little() {
        let mut decoder = FrameDecoder::default();
        decoder.space()[..4].copy_from_slice(&[0x80, 0x80, 0x80, 0x02]);
        decoder.filled(4);
        assert_eq!(decoder.next_frame(), Ok(None));
        assert!(decoder.space().len() <= FRAME_COMMIT_BYTES);
        let large = decoder.large.unwrap();
        assert!(large.buffer.capacity() <= FRAME_COMMIT_BYTES);
    }

    #[test]
    fn endless_and_overlong_length_prefixes_are_refused() {
        assert!(matches!(
            decode(&[0xff; 9], 1),
            Err(DecodeError::TooLong(_))
        ));
        assert!(matches!(
            decode(&[0x80, 0x80, 0x80, 0x80, 0x01], 9),
            Err(DecodeError::TooLong(_))
        ));
        assert_eq!(
            decode(&[0x83, 0x00, 1, 2, 3], 9),
            Err(DecodeError::LengthPrefix)
        );
    }

    #[test]
    fn a_stream_that_ends_inside_a_frame_says_how_much_was_missing() {
        assert_eq!(
            decode(&[3, 1], 9),
            Err(DecodeError::Truncated {
                have: 1,
                announced: 3
            })
        );
        assert_eq!(decode(&[0x80], 9), Err(DecodeError::LengthPrefix));
        assert_eq!(decode(&[0, 0], 9), Ok(vec![Bytes::new(), Bytes::new()]));
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_the_stream_is_cut(
            sizes in prop::collection::vec(prop_oneof![0..40_usize, 7_000..9_000_usize, 60_000..70_000_usize], 0..6),
            piece in prop_oneof![1..5_usize, 8_000..8_400_usize, Just(usize::MAX)],
        ) {
            let bodies: Vec<Vec<u8>> =
                sizes.iter().enumerate().map(|(i, size)| vec![i as u8; *size]).collect();
            prop_assert_eq!(decode(&framed(&bodies), piece), Ok(bodies.into_iter().map(Bytes::from).collect()));
        }

        #[test]
        fn arbitrary_bytes_never_panic(wire: Vec<u8>, piece in 1..20_usize) {
            let _ = decode(&wire, piece);
        }
    }
}
