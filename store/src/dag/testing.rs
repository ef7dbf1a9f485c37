//! Small helpers for the tests of this module.

use base::Cid;

/// The bytes that hexadecimal digits stand for.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).unwrap() as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// A CID of a codec and hash of ours.
pub(crate) fn cid(text: &str) -> Cid {
    base::parse_cid(text).unwrap()
}
