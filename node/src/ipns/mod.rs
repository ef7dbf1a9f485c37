//! IPNS: names that their owners can point to something else, without a network and without a clock.
//!
//! * [`IpnsName`]: a public key by its hash.
//! * [`IpnsRecord`]: a signed statement "this name stands for that path until then". It cannot exist unverified.
//!
//! Records come from anybody who answers, so [`IpnsRecord::verify`] follows the order of the specification: what is cheap
//! first, nothing is believed before the signature. Which of several valid records counts is decided by
//! [`IpnsRecord::is_newer_than`]; that an old one does not come back later is the business of who remembers
//! ([`store::Store::keep_name_record`]).

mod name;
mod record;
#[cfg(test)]
mod tests;

pub use name::{IpnsName, IpnsNameError};
pub use record::{IpnsRecord, RECORD_BYTES_MAX};

/// Why bytes are no record of a name, or one that no longer counts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IpnsError {
    /// Larger than any record may be.
    #[error("record of {0} bytes is over the limit of {RECORD_BYTES_MAX}")]
    TooLarge(usize),
    /// Not the protobuf message of a record.
    #[error("record is malformed: {0}")]
    Malformed(String),
    /// Without the signature of version 2, or without what it signs. Records of version 1 alone are not valid any more.
    #[error("record has no signature of version 2")]
    Unsigned,
    /// No public key, or not the one that the name stands for.
    #[error("record has not the key of its name: {0}")]
    Key(&'static str),
    /// The signature was not made by the name's key over this data.
    #[error("signature of the record is wrong")]
    Signature,
    /// A field outside the signed data says something else than the one inside.
    #[error("record contradicts itself about its {0}")]
    Contradiction(&'static str),
    /// The key cannot sign, or the record would be too large.
    #[error("cannot sign the record: {0}")]
    Signing(String),
    /// Its time is over.
    #[error("record has expired")]
    Expired,
}
