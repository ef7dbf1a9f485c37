//! Records of names, version 2, with the fields of version 1 for who reads only those (IPNS specification "IPNS Record").

use std::cmp::Ordering;
use std::time::{Duration, SystemTime};

use libp2p::identity::{Keypair, PublicKey};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{IpnsError, IpnsName};

/// Largest record in bytes, checked before anything else (the specification's limit).
pub const RECORD_BYTES_MAX: usize = 10 * 1024;
/// What is signed before the data, so that no signature can be used for something else.
const SIGNED_PREFIX: &[u8] = b"ipns-signature:";
/// The only type of validity: it ends at a time. Version 1 signs it as this text.
const END_OF_LIFE: u64 = 0;
/// See [`END_OF_LIFE`].
const END_OF_LIFE_TEXT: &[u8] = b"EOL";
/// Longest time to live in nanoseconds: the reference implementation reads it with a sign.
const TTL_NANOS_MAX: u64 = i64::MAX as u64;

/// The record as encoded.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Entry {
    #[prost(bytes = "vec", optional, tag = "1")]
    pub(super) value: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(super) signature_v1: Option<Vec<u8>>,
    #[prost(uint64, optional, tag = "3")]
    pub(super) validity_type: Option<u64>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub(super) validity: Option<Vec<u8>>,
    #[prost(uint64, optional, tag = "5")]
    pub(super) sequence: Option<u64>,
    #[prost(uint64, optional, tag = "6")]
    pub(super) ttl: Option<u64>,
    #[prost(bytes = "vec", optional, tag = "7")]
    pub(super) public_key: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "8")]
    pub(super) signature_v2: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "9")]
    pub(super) data: Option<Vec<u8>>,
}

/// What is signed, a DAG-CBOR map. Fields we do not know are allowed: owners may add their own.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    #[serde(rename = "TTL")]
    ttl: u64,
    value: ByteBuf,
    sequence: u64,
    validity: ByteBuf,
    validity_type: u64,
}

/// A statement about what a name stands for, signed by the name's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpnsRecord {
    bytes: Vec<u8>,
    name: IpnsName,
    value: Vec<u8>,
    sequence: u64,
    expires: SystemTime,
    ttl: Duration,
}

impl IpnsRecord {
    /// Decodes a record of `name` and verifies it.
    ///
    /// # Errors
    /// [`IpnsError`]; [`IpnsError::Expired`] only when nothing else is wrong.
    pub fn verify(name: &IpnsName, bytes: &[u8], now: SystemTime) -> Result<Self, IpnsError> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(IpnsError::TooLarge(bytes.len()));
        }
        let entry = Entry::decode(bytes).map_err(|e| IpnsError::Malformed(e.to_string()))?;
        let (Some(signature), Some(signed)) = (present(&entry.signature_v2), present(&entry.data))
        else {
            return Err(IpnsError::Unsigned);
        };
        let key = public_key(name, &entry)?;
        if !key.verify(&[SIGNED_PREFIX, signed].concat(), signature) {
            return Err(IpnsError::Signature);
        }
        let data: Data = serde_ipld_dagcbor::from_slice(signed)
            .map_err(|e| IpnsError::Malformed(e.to_string()))?;
        if present(&entry.signature_v1).is_some() || present(&entry.value).is_some() {
            compare(&entry, &data)?;
        }
        let record = Self::from_data(*name, data, bytes)?;
        if record.is_expired(now) {
            return Err(IpnsError::Expired);
        }
        Ok(record)
    }

    /// Makes a record of the key's name, with the fields of version 1 beside those of version 2.
    ///
    /// # Errors
    /// [`IpnsError::Signing`] when the key cannot sign or there is too much to sign.
    pub fn sign(
        key: &Keypair,
        value: &[u8],
        sequence: u64,
        expires: SystemTime,
        ttl: Duration,
    ) -> Result<Self, IpnsError> {
        let sign = |message: &[u8]| {
            key.sign(message)
                .map_err(|e| IpnsError::Signing(e.to_string()))
        };
        let validity = OffsetDateTime::from(expires)
            .format(&Rfc3339)
            .map_err(|e| IpnsError::Signing(e.to_string()))?;
        let ttl_nanos = u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
        let data = Data {
            ttl: ttl_nanos.min(TTL_NANOS_MAX),
            value: ByteBuf::from(value),
            sequence,
            validity: ByteBuf::from(validity.as_bytes()),
            validity_type: END_OF_LIFE,
        };
        let signed = serde_ipld_dagcbor::to_vec(&data).expect("integers and bytes encode");
        let public = key.public();
        let name = IpnsName::of(&public);
        let entry = Entry {
            value: Some(value.to_vec()),
            signature_v1: Some(sign(
                &[value, validity.as_bytes(), END_OF_LIFE_TEXT].concat(),
            )?),
            validity_type: Some(END_OF_LIFE),
            validity: Some(validity.into_bytes()),
            sequence: Some(sequence),
            ttl: Some(data.ttl),
            public_key: name
                .inlined_key()
                .is_none()
                .then(|| public.encode_protobuf()),
            signature_v2: Some(sign(&[SIGNED_PREFIX, &signed].concat())?),
            data: Some(signed),
        };
        let bytes = entry.encode_to_vec();
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(IpnsError::TooLarge(bytes.len()));
        }
        Self::from_data(name, data, &bytes)
    }

    fn from_data(name: IpnsName, data: Data, bytes: &[u8]) -> Result<Self, IpnsError> {
        let malformed = |what: &str| IpnsError::Malformed(what.to_owned());
        if data.validity_type != END_OF_LIFE {
            return Err(malformed("unknown type of validity"));
        }
        if data.ttl > TTL_NANOS_MAX {
            return Err(malformed("negative time to live"));
        }
        let expires = std::str::from_utf8(&data.validity)
            .ok()
            .and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok())
            .ok_or_else(|| malformed("validity is no RFC 3339 time"))?;
        Ok(Self {
            bytes: bytes.to_vec(),
            name,
            value: data.value.into_vec(),
            sequence: data.sequence,
            expires: expires.into(),
            ttl: Duration::from_nanos(data.ttl),
        })
    }

    /// The whole record, as it travels.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whose record it is.
    pub const fn name(&self) -> &IpnsName {
        &self.name
    }

    /// What the name stands for, a path such as `/ipfs/…`. Nobody has looked at it yet.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// Counts up with each change.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// When it stops counting.
    pub const fn expires(&self) -> SystemTime {
        self.expires
    }

    /// How long its owner wishes it to be used without asking again.
    pub const fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Whether its time is over.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.expires <= now
    }

    /// Whether this record counts rather than `other` of the same name: the higher sequence, then the later end, then
    /// the larger bytes, so that all who see both agree.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        let rank = |record: &Self| (record.sequence, record.expires);
        let order = rank(self).cmp(&rank(other));
        order.then_with(|| self.bytes.cmp(&other.bytes)) == Ordering::Greater
    }
}

fn present(field: &Option<Vec<u8>>) -> Option<&[u8]> {
    field.as_deref().filter(|bytes| !bytes.is_empty())
}

/// The key of the name: inside the name, else in the record.
fn public_key(name: &IpnsName, entry: &Entry) -> Result<PublicKey, IpnsError> {
    let sent = present(&entry.public_key)
        .map(PublicKey::try_decode_protobuf)
        .transpose()
        .map_err(|_| IpnsError::Key("unreadable public key"))?;
    if sent.as_ref().is_some_and(|key| IpnsName::of(key) != *name) {
        return Err(IpnsError::Key("the key in the record has another name"));
    }
    sent.or_else(|| name.inlined_key())
        .ok_or(IpnsError::Key("neither name nor record hold a usable key"))
}

/// What version 1 says must be what is signed: who reads only that must not be told something else.
fn compare(entry: &Entry, data: &Data) -> Result<(), IpnsError> {
    let bytes = |field: &Option<Vec<u8>>| field.clone().unwrap_or_default();
    for (what, is_same) in [
        ("value", bytes(&entry.value) == **data.value),
        ("validity", bytes(&entry.validity) == **data.validity),
        (
            "validity type",
            entry.validity_type.unwrap_or(0) == data.validity_type,
        ),
        ("sequence", entry.sequence.unwrap_or(0) == data.sequence),
        ("time to live", entry.ttl.unwrap_or(0) == data.ttl),
    ] {
        if !is_same {
            return Err(IpnsError::Contradiction(what));
        }
    }
    Ok(())
}
