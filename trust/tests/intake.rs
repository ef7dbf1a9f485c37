//! What is kept of statements about keys that came along, whoever sent them: the attacks on a user's book of keys.

#![allow(clippy::unwrap_used)] // What must not happen fails the test.

use base::{PublicKey, SecretKey};
use p2pkgs_trust::{
    Discount, Intake, KeyStatement, Member, Ring, Rule, STATEMENTS_MAX, Scope, SignedKeyStatement,
    TrustPolicy,
};

/// A day in 2026, in seconds since 1970.
const NOW: u64 = 1_780_000_000;
const DAY: u64 = 24 * 3600;

/// The user's own key, the root he named, a machine that it named, and others.
const OWN: u16 = 1;
const ROOT: u16 = 2;
const MACHINE: u16 = 3;
const MALLORY: u16 = 666;

fn secret(n: u16) -> SecretKey {
    let mut seed = [0; 32];
    seed[..2].copy_from_slice(&n.to_be_bytes());
    SecretKey::from_seed(&seed)
}

fn key(n: u16) -> PublicKey {
    secret(n).public()
}

fn delegation(root: u16, machine: u16, until: Option<u64>) -> SignedKeyStatement {
    let statement = KeyStatement::Delegation {
        root: key(root),
        key: key(machine),
        scope: Scope::default(),
        until_unix_secs: until,
    };
    statement.sign(&[&secret(root)]).unwrap()
}

fn rotation(old: u16, new: u16) -> SignedKeyStatement {
    let statement = KeyStatement::Rotation {
        old: key(old),
        new: key(new),
    };
    statement.sign(&[&secret(old), &secret(new)]).unwrap()
}

fn revocation(of: u16, by: u16) -> SignedKeyStatement {
    let statement = KeyStatement::Revocation {
        key: key(of),
        by: key(by),
    };
    statement.sign(&[&secret(by)]).unwrap()
}

fn ring(statements: Vec<SignedKeyStatement>) -> Ring {
    Ring {
        own: vec![key(OWN)],
        members: vec![Member::new(key(ROOT))],
        statements,
    }
}

fn offer(known: Vec<SignedKeyStatement>, offered: &[SignedKeyStatement]) -> Intake {
    Intake::of(&ring(known), offered, NOW)
}

fn counts(known: &[SignedKeyStatement], n: u16) -> bool {
    let rule: Rule = "1 of trusted".parse().unwrap();
    let policy = TrustPolicy::of(&ring(known.to_vec()), &rule, NOW).unwrap();
    policy.counts(&key(n))
}

#[test]
fn what_concerns_keys_with_a_place_is_kept_in_whatever_order_it_comes() {
    let all = [
        revocation(5, 5),
        rotation(ROOT, 4),
        delegation(4, 5, None),
        delegation(ROOT, MACHINE, Some(NOW + DAY)),
        revocation(OWN, OWN),
    ];
    let mut backwards = all.to_vec();
    backwards.reverse();
    for offered in [&all[..], &backwards] {
        let intake = offer(Vec::new(), offered);
        assert!(intake.torn.is_empty());
        assert!(counts(&intake.kept, 4) && !counts(&intake.kept, ROOT));
        assert!(!counts(&intake.kept, 5) && !counts(&intake.kept, OWN));
        assert!(intake.kept.contains(&all[0]) && intake.kept.contains(&all[2]));
        // A second time nothing is new.
        let again = offer(intake.kept.clone(), offered);
        assert_eq!((again.kept, again.new), (intake.kept, Vec::new()));
    }
}

#[test]
fn strangers_fill_nothing_and_get_no_place() {
    let mut offered: Vec<_> = (1000..1200).map(|n| delegation(MALLORY, n, None)).collect();
    offered.push(rotation(MALLORY, ROOT));
    offered.push(revocation(ROOT, MALLORY));
    offered.push(revocation(MALLORY, MALLORY));
    // What a machine says of other keys counts for nothing, and is not kept either.
    let known = vec![delegation(ROOT, MACHINE, None)];
    offered.push(delegation(MACHINE, MALLORY, None));
    offered.push(rotation(MACHINE, MALLORY));
    let intake = offer(known.clone(), &offered);
    assert_eq!(
        intake,
        Intake {
            kept: known,
            ..Intake::default()
        }
    );
}

#[test]
fn a_stolen_root_cannot_crowd_out_its_own_revocation() {
    let named: Vec<_> = (1000..1200).map(|n| delegation(ROOT, n, None)).collect();
    let taken_back: Vec<_> = (2000..2200).map(|n| revocation(n, ROOT)).collect();
    let flooded = offer(Vec::new(), &[named, taken_back].concat()).kept;
    assert!(flooded.len() <= 64, "{}", flooded.len());
    let intake = offer(flooded.clone(), &[revocation(ROOT, ROOT)]);
    assert_eq!(intake.new.len(), 1);
    assert!(!counts(&intake.kept, 1000));
    // Nor does a book that the user himself has filled.
    let full: Vec<_> = (0..STATEMENTS_MAX as u16)
        .map(|n| delegation(MALLORY, 3000 + n, None))
        .collect();
    let intake = offer(full, &[revocation(ROOT, ROOT)]);
    assert_eq!(intake.kept.len(), STATEMENTS_MAX);
    assert!(intake.kept.contains(&revocation(ROOT, ROOT)));
}

#[test]
fn an_old_delegation_is_not_taken_again_after_it_was_taken_back() {
    let old = delegation(ROOT, MACHINE, None);
    for end in [revocation(MACHINE, ROOT), revocation(MACHINE, MACHINE)] {
        let known = offer(Vec::new(), &[old.clone(), end.clone()]).kept;
        assert!(!counts(&known, MACHINE));
        let renewed = delegation(ROOT, MACHINE, Some(NOW + DAY));
        let intake = offer(known.clone(), &[renewed, old.clone()]);
        assert_eq!(intake.new, []);
        assert!(!counts(&intake.kept, MACHINE));
    }
    // Also where the revocation comes first, and the delegation was never seen.
    let known = offer(Vec::new(), &[revocation(MACHINE, ROOT)]).kept;
    assert_eq!(known.len(), 1);
    assert_eq!(offer(known.clone(), &[old]).new, []);
    let rule: Rule = "1 of trusted".parse().unwrap();
    let policy = TrustPolicy::of(&ring(known), &rule, NOW).unwrap();
    let why = policy.discount(None, &key(MACHINE));
    assert_eq!(why, Some(Discount::Revoked));
}

#[test]
fn renewals_replace_each_other_and_what_is_over_is_not_kept() {
    let mut known = Vec::new();
    for day in 1..400 {
        let renewed = delegation(ROOT, MACHINE, Some(NOW + day * DAY));
        known = offer(known, &[renewed]).kept;
        assert_eq!(known.len(), 1);
    }
    let older = delegation(ROOT, MACHINE, Some(NOW + DAY));
    let over = delegation(ROOT, 4, Some(NOW));
    assert_eq!(offer(known.clone(), &[older, over]).new, []);
    // A narrower one for longer is another one.
    let narrow = KeyStatement::Delegation {
        root: key(ROOT),
        key: key(MACHINE),
        scope: Scope::new(vec!["gcc-*".parse().unwrap()]),
        until_unix_secs: None,
    };
    let narrow = narrow.sign(&[&secret(ROOT)]).unwrap();
    assert_eq!(offer(known, &[narrow]).kept.len(), 2);
}

#[test]
fn the_first_successor_stays_and_the_second_is_shown() {
    let known = offer(Vec::new(), &[rotation(ROOT, 4)]).kept;
    let theft = rotation(ROOT, MALLORY);
    let intake = offer(known.clone(), std::slice::from_ref(&theft));
    assert_eq!((intake.kept, intake.torn), (known, vec![theft]));
    // Once the old key is revoked it names nobody.
    let known = offer(Vec::new(), &[revocation(ROOT, ROOT)]).kept;
    assert_eq!(offer(known, &[rotation(ROOT, MALLORY)]).new, []);
}
