//! Whose signatures on a head are enough: the rule of one tree, over keys that may be trusted for outputs in another way.

#![allow(clippy::unwrap_used)] // What must not happen fails the test.

use base::{PublicKey, SecretKey};
use p2pkgs_trust::{Discount, KeyStatement, Member, Ring, Rule, Scope, TrustPolicy};

/// A day in 2026, in seconds since 1970.
const NOW: u64 = 1_780_000_000;

fn secret(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

fn key(n: u8) -> PublicKey {
    secret(n).public()
}

fn called(n: u8, name: &str) -> Member {
    Member {
        name: Some(name.into()),
        ..Member::new(key(n))
    }
}

/// Key 5 was named by bob, key 6 took the place of alice, carol's time is over.
fn policy() -> TrustPolicy {
    let delegation = KeyStatement::Delegation {
        root: key(3),
        key: key(5),
        scope: Scope::default(),
        until_unix_secs: None,
    };
    let (old, new) = (key(2), key(6));
    let rotation = KeyStatement::Rotation { old, new };
    let gcc_only = Scope::new(vec!["gcc-*".parse().unwrap()]);
    let ring = Ring {
        own: vec![key(1)],
        members: vec![
            Member {
                scope: gcc_only,
                ..called(2, "alice")
            },
            called(3, "bob"),
            Member {
                until: Some("2026-01-01".parse().unwrap()),
                ..called(4, "carol")
            },
        ],
        statements: vec![
            delegation.sign(&[&secret(3)]).unwrap(),
            rotation.sign(&[&secret(2), &secret(6)]).unwrap(),
        ],
    };
    let rule: Rule = "2 of {alice, bob, carol}".parse().unwrap();
    TrustPolicy::of(&ring, &rule, NOW).unwrap()
}

fn is_enough(signers: &[u8]) -> bool {
    let signers: Vec<_> = signers.iter().map(|n| key(*n)).collect();
    policy().judge_signers(&signers).0
}

#[test]
fn places_ends_and_rotations_count_and_limits_to_packages_do_not() {
    assert!(is_enough(&[3, 6]));
    assert!(is_enough(&[3, 6, 9]));
    for too_few in [&[][..], &[3], &[3, 3], &[2, 3], &[3, 4], &[3, 9], &[1, 3]] {
        assert!(!is_enough(too_few), "{too_few:?}");
    }
}

#[test]
fn a_key_that_another_named_signs_outputs_only() {
    assert!(!is_enough(&[5, 6]));
    let (_, said) = policy().judge_signers(&[key(5), key(9), key(3)]);
    let expected = [
        (key(5), Some(Discount::OutputsOnly)),
        (key(9), Some(Discount::Stranger)),
        (key(3), None),
    ];
    assert_eq!(said, expected);
}
