//! The published records, records of our own, and records that mean harm.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use prost::Message as _;

use super::record::Entry;
use super::*;
use crate::{Keypair, identity};

/// Records of the IPFS gateway conformance suite, by name and file.
macro_rules! vector {
    ($name:literal, $rest:literal) => {
        (
            $name.parse::<IpnsName>().unwrap(),
            &include_bytes!(concat!("vectors/", $name, $rest, ".ipns-record"))[..],
        )
    };
}

/// A year in which all of them are valid.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

fn sign(key: &Keypair, value: &str, sequence: u64) -> IpnsRecord {
    let expires = now() + hours(48);
    IpnsRecord::sign(key, value.as_bytes(), sequence, expires, hours(1)).unwrap()
}

#[test]
fn a_record_of_version_2_alone_is_valid() {
    let (name, bytes) = vector!(
        "k51qzi5uqu5dit2ku9mutlfgwyz8u730on38kd10m97m36bjt66my99hb6103f",
        "_v2"
    );
    assert_eq!(bytes.len(), 188);
    let record = IpnsRecord::verify(&name, bytes, now()).unwrap();
    assert_eq!(record.value(), b"/ipfs/bafkqadtwgiww63tmpeqhezldn5zgi");
    assert_eq!(
        (record.sequence(), record.ttl()),
        (0, Duration::from_secs(1800))
    );
    let expires = record
        .expires()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    // 2123-08-14T12:17:03.694052Z
    assert_eq!(expires, Duration::new(4_847_689_023, 694_052_000));
}

#[test]
fn records_of_both_versions_are_valid_and_the_old_signature_does_not_count() {
    for (name, bytes) in [
        vector!(
            "k51qzi5uqu5dlkw8pxuw9qmqayfdeh4kfebhmreauqdc6a7c3y7d5i9fi8mk9w",
            "_v1-v2"
        ),
        vector!(
            "k51qzi5uqu5dilgf7gorsh9vcqqq4myo6jd4zmqkuy9pxyxi5fua3uf7axph4y",
            "_v1-v2-broken-signature-v1"
        ),
        vector!("12D3KooWLQzUv2FHWGVPXTXSZpdHs7oHbXub2G5WC8Tx4NQhyd2d", ""),
    ] {
        let record = IpnsRecord::verify(&name, bytes, now()).unwrap();
        assert!(record.value().starts_with(b"/ipfs/baf"), "{name}");
    }
}

#[test]
fn a_record_of_an_rsa_key_brings_the_key_that_its_name_is_the_hash_of() {
    let (name, bytes) = vector!("QmVujd5Vb7moysJj8itnGufN7MEtPRCNHkKpNuA4onsRa3", "");
    let record = IpnsRecord::verify(&name, bytes, now()).unwrap();
    assert!(
        record
            .value()
            .starts_with(b"/ipfs/bafkreicysg23kiwv34eg2d7q")
    );
    let other = IpnsName::of(&identity::ephemeral().public());
    assert_eq!(
        IpnsRecord::verify(&other, bytes, now()),
        Err(IpnsError::Key("the key in the record has another name"))
    );
    let mut entry = Entry::decode(bytes).unwrap();
    entry.public_key = None;
    assert_eq!(
        IpnsRecord::verify(&name, &entry.encode_to_vec(), now()),
        Err(IpnsError::Key("neither name nor record hold a usable key"))
    );
}

#[test]
fn the_published_invalid_records_are_refused_each_for_its_reason() {
    for ((name, bytes), reason) in [
        (
            vector!(
                "k51qzi5uqu5dm4tm0wt8srkg9h9suud4wuiwjimndrkydqm81cqtlb5ak6p7ku",
                "_v1"
            ),
            IpnsError::Unsigned,
        ),
        (
            vector!(
                "k51qzi5uqu5dlmit2tuwdvnx4sbnyqgmvbxftl0eo3f33wwtb9gr7yozae9kpw",
                "_v1-v2-broken-v1-value"
            ),
            IpnsError::Contradiction("value"),
        ),
        (
            vector!(
                "k51qzi5uqu5diamp7qnnvs1p1gzmku3eijkeijs3418j23j077zrkok63xdm8c",
                "_v1-v2-broken-signature-v2"
            ),
            IpnsError::Signature,
        ),
    ] {
        assert_eq!(IpnsRecord::verify(&name, bytes, now()), Err(reason));
    }
}

#[test]
fn what_is_signed_here_is_valid_until_its_end() {
    let key = identity::ephemeral();
    let record = sign(&key, "/ipfs/bafkqaaa", 7);
    let name = IpnsName::of(&key.public());
    assert_eq!(*record.name(), name);
    assert_eq!(
        IpnsRecord::verify(&name, record.bytes(), now()),
        Ok(record.clone())
    );
    let last = now() + hours(48) - Duration::from_nanos(1);
    assert!(IpnsRecord::verify(&name, record.bytes(), last).is_ok());
    let end = now() + hours(48);
    assert_eq!(
        IpnsRecord::verify(&name, record.bytes(), end),
        Err(IpnsError::Expired)
    );
}

#[test]
fn each_field_of_version_1_must_say_what_is_signed() {
    let key = identity::ephemeral();
    let name = IpnsName::of(&key.public());
    let good = Entry::decode(sign(&key, "/ipfs/bafkqaaa", 7).bytes()).unwrap();
    let refused = |change: fn(&mut Entry)| {
        let mut entry = good.clone();
        change(&mut entry);
        IpnsRecord::verify(&name, &entry.encode_to_vec(), now()).unwrap_err()
    };
    let contradiction = IpnsError::Contradiction;
    assert_eq!(refused(|e| e.value = None), contradiction("value"));
    assert_eq!(
        refused(|e| e.validity = Some(vec![1])),
        contradiction("validity")
    );
    assert_eq!(
        refused(|e| e.validity_type = Some(1)),
        contradiction("validity type")
    );
    assert_eq!(refused(|e| e.sequence = Some(8)), contradiction("sequence"));
    assert_eq!(refused(|e| e.ttl = Some(8)), contradiction("time to live"));
    assert_eq!(
        refused(|e| e.data.as_mut().unwrap()[9] ^= 1),
        IpnsError::Signature
    );
    let mut bare = good.clone();
    (bare.value, bare.signature_v1, bare.sequence) = (None, None, Some(99));
    let record = IpnsRecord::verify(&name, &bare.encode_to_vec(), now()).unwrap();
    assert_eq!(
        record.sequence(),
        7,
        "without version 1 nobody looks at its fields"
    );
}

#[test]
fn size_is_looked_at_before_anything_else() {
    let key = identity::ephemeral();
    let name = IpnsName::of(&key.public());
    assert_eq!(
        IpnsRecord::verify(&name, &[0xff; RECORD_BYTES_MAX + 1], now()),
        Err(IpnsError::TooLarge(RECORD_BYTES_MAX + 1))
    );
    let long = "x".repeat(RECORD_BYTES_MAX / 2);
    let error = IpnsRecord::sign(&key, long.as_bytes(), 0, now(), hours(1)).unwrap_err();
    assert!(matches!(error, IpnsError::TooLarge(_)), "{error}");
}

#[test]
fn signed_data_that_is_no_record_is_refused() {
    let key = identity::ephemeral();
    let name = IpnsName::of(&key.public());
    let with = |data: &[u8]| {
        let entry = Entry {
            signature_v2: Some(key.sign(&[b"ipns-signature:", data].concat()).unwrap()),
            data: Some(data.to_vec()),
            ..Entry::default()
        };
        IpnsRecord::verify(&name, &entry.encode_to_vec(), now()).unwrap_err()
    };
    // Nothing but brackets: as deep as a record may be long.
    for data in [&b"\xa0"[..], b"\x00", &[0x81; 9000], b"\xa1\x63TTL\x20"] {
        assert!(
            matches!(with(data), IpnsError::Malformed(_)),
            "{:?}",
            with(data)
        );
    }
}

#[test]
fn of_two_records_the_higher_sequence_counts_then_the_later_end() {
    let key = identity::ephemeral();
    let (old, new) = (
        sign(&key, "/ipfs/bafkqaaa", 1),
        sign(&key, "/ipfs/bafkqaaa", 2),
    );
    assert!(new.is_newer_than(&old) && !old.is_newer_than(&new) && !new.is_newer_than(&new));
    let later = now() + hours(49);
    let longer = IpnsRecord::sign(&key, b"/ipfs/bafkqaaa", 1, later, hours(1)).unwrap();
    assert!(longer.is_newer_than(&old) && new.is_newer_than(&longer));
    let twin = sign(&key, "/ipfs/bafkqaab", 1);
    assert_ne!(
        twin.is_newer_than(&old),
        old.is_newer_than(&twin),
        "all see the same order"
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, at in 0usize..400, value: u8) {
        let (name, record) =
            vector!("k51qzi5uqu5dlkw8pxuw9qmqayfdeh4kfebhmreauqdc6a7c3y7d5i9fi8mk9w", "_v1-v2");
        let _ = IpnsRecord::verify(&name, &bytes, now());
        let mut damaged = record.to_vec();
        if let Some(byte) = damaged.get_mut(at) {
            *byte = value;
        }
        let _ = IpnsRecord::verify(&name, &damaged, now());
    }
}
