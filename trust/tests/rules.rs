//! The numbered rules of `docs/caches.md`, one test or more for each; `rule_3_…` is about rule 3.

#![allow(clippy::unwrap_used)] // What must not happen fails the test.

use std::collections::BTreeSet;

use base::{
    Codec, PackageName, PkgHash, PublicKey, Realisation, SecretKey, Sha256, SignedRealisation,
    block_cid,
};
use p2pkgs_trust::{Discount, Member, Ring, Rule, Scope, TrustPolicy, Verdict, faults};
use proptest::prelude::*;

/// A day in 2026, in seconds since 1970.
const NOW: u64 = 1_780_000_000;

fn secret(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

fn key(n: u8) -> PublicKey {
    secret(n).public()
}

fn name(text: &str) -> PackageName {
    text.parse().unwrap()
}

fn hash() -> PkgHash {
    PkgHash::of_derivation(b"package")
}

/// Key `n` signs that the package gave these bytes.
fn says(n: u8, output: &[u8]) -> SignedRealisation {
    let sha256 = Sha256::of(output);
    let said = Realisation {
        pkghash: hash(),
        output: block_cid(Codec::Raw, &sha256),
        sha256,
        size: 1,
    };
    said.sign(&secret(n))
}

fn called(n: u8, name: &str) -> Member {
    Member {
        name: Some(name.into()),
        ..Member::new(key(n))
    }
}

fn policy(members: Vec<Member>, rule: &str) -> TrustPolicy {
    let ring = Ring {
        own: vec![key(1)],
        members,
    };
    TrustPolicy::of(&ring, &rule.parse().unwrap(), NOW).unwrap()
}

fn judge(policy: &TrustPolicy, offered: &[SignedRealisation]) -> Verdict {
    policy.judge(&name("hello"), &hash(), offered)
}

fn is_trusted(policy: &TrustPolicy, offered: &[SignedRealisation], output: &[u8]) -> bool {
    matches!(judge(policy, offered), Verdict::Trusted(said) if said.sha256 == Sha256::of(output))
}

#[test]
fn rule_1_only_keys_with_a_place_count_and_others_are_named() {
    let policy = policy(vec![called(2, "alice")], "1 of trusted");
    assert!(is_trusted(
        &policy,
        &[says(2, b"good"), says(9, b"evil")],
        b"good"
    ));
    let strangers = [says(9, b"evil"), says(9, b"evil")];
    assert_eq!(judge(&policy, &strangers), Verdict::Untrusted(vec![key(9)]));
    assert_eq!(judge(&policy, &[]), Verdict::Missing);
    let other = PkgHash::of_derivation(b"another");
    let verdict = policy.judge(&name("hello"), &other, &[says(2, b"good")]);
    assert_eq!(verdict, Verdict::Missing);
}

#[test]
fn rule_2_own_keys_count_unlisted_and_together_as_one() {
    let ring = Ring {
        own: vec![key(1), key(7)],
        members: vec![called(2, "alice")],
    };
    let one = TrustPolicy::of(&ring, &Rule::default(), NOW).unwrap();
    assert!(is_trusted(&one, &[says(7, b"mine")], b"mine"));
    let two = TrustPolicy::of(&ring, &"2 of trusted".parse().unwrap(), NOW).unwrap();
    let both = [says(1, b"mine"), says(7, b"mine")];
    assert_eq!(judge(&two, &both), Verdict::TooFew { have: 1, need: 2 });
    assert!(is_trusted(
        &two,
        &[says(1, b"mine"), says(2, b"mine")],
        b"mine"
    ));
}

#[test]
fn rule_3_a_key_counts_only_for_the_packages_it_was_trusted_for() {
    let mut alice = called(2, "alice");
    alice.scope = Scope::new(vec!["gcc-*".parse().unwrap(), "hell?".parse().unwrap()]);
    let policy = policy(vec![alice], "1 of trusted");
    assert!(is_trusted(&policy, &[says(2, b"good")], b"good"));
    let elsewhere = policy.judge(&name("bash"), &hash(), &[says(2, b"good")]);
    assert_eq!(elsewhere, Verdict::Untrusted(Vec::new()));
    let said = policy.testimonies(&name("bash"), &hash(), &[says(2, b"good")]);
    assert!(
        said[0]
            .to_string()
            .contains("it is trusted for `gcc-*`, `hell?`"),
        "{}",
        said[0]
    );
}

#[test]
fn rule_3_a_key_counts_to_the_end_of_its_last_day() {
    let mut alice = called(2, "alice");
    alice.until = Some("2026-05-28".parse().unwrap());
    let ring = Ring {
        own: Vec::new(),
        members: vec![alice],
    };
    let end = ring.members[0].until.unwrap().end_unix_secs();
    let at = |now| TrustPolicy::of(&ring, &Rule::default(), now).unwrap();
    assert!(is_trusted(&at(end - 1), &[says(2, b"good")], b"good"));
    assert_eq!(
        judge(&at(end), &[says(2, b"good")]),
        Verdict::Untrusted(Vec::new())
    );
    let said = at(end).testimonies(&name("hello"), &hash(), &[says(2, b"good")]);
    assert!(
        said[0]
            .to_string()
            .contains("it was trusted until 2026-05-28"),
        "{}",
        said[0]
    );
}

#[test]
fn rule_4_a_key_has_one_place_however_often_it_signs_or_is_named() {
    let twice = vec![
        called(2, "alice"),
        called(2, "alice-again"),
        called(3, "bob"),
    ];
    let policy = policy(twice, "2 of trusted");
    let repeated = [says(2, b"good"), says(2, b"good"), says(3, b"other")];
    assert_eq!(
        judge(&policy, &repeated),
        Verdict::TooFew { have: 1, need: 2 }
    );
    assert!(is_trusted(
        &policy,
        &[says(2, b"good"), says(3, b"good")],
        b"good"
    ));
}

#[test]
fn rule_4_nobody_stands_in_a_rule_twice_and_everybody_in_it_is_trusted() {
    let ring = Ring {
        own: Vec::new(),
        members: vec![called(2, "alice"), called(3, "bob")],
    };
    let error = |text: &str| {
        let rule: Rule = text.parse().unwrap();
        TrustPolicy::of(&ring, &rule, NOW).unwrap_err().to_string()
    };
    assert!(error("2 of {alice, 1 of {bob, alice}}").contains("character 25"));
    let by_key = format!("2 of {{alice, {}}}", key(2));
    assert!(error(&by_key).contains("stands in the rule twice"));
    assert!(error("1 of {alice, carol}").contains("no trusted key is called `carol`"));
    assert!(error(&key(9).to_string()).contains("is no trusted key"));
    let twins = Ring {
        own: Vec::new(),
        members: vec![called(2, "a"), called(3, "a")],
    };
    let error = TrustPolicy::of(&twins, &"a".parse().unwrap(), NOW).unwrap_err();
    assert!(error.to_string().contains("several"));
}

#[test]
fn rule_5_nested_thresholds_are_counted_from_the_inside() {
    let members = vec![
        called(2, "alice"),
        called(3, "bob"),
        called(4, "ci-1"),
        called(5, "ci-2"),
    ];
    let policy = policy(members, "2 of {alice, bob, any 1 of {ci-1, ci-2}}");
    for (signers, expected) in [
        (&[2, 3][..], true),
        (&[2, 4], true),
        (&[3, 5], true),
        (&[4, 5], false),
        (&[2], false),
        (&[1, 2], false),
    ] {
        let offered: Vec<_> = signers.iter().map(|n| says(*n, b"good")).collect();
        assert_eq!(
            is_trusted(&policy, &offered, b"good"),
            expected,
            "{signers:?}"
        );
    }
    let ci = [says(4, b"good"), says(5, b"good")];
    assert_eq!(judge(&policy, &ci), Verdict::TooFew { have: 1, need: 2 });
    assert_eq!(policy.discount(None, &key(1)), Some(Discount::NotInRule));
}

#[test]
fn rule_6_two_outputs_that_satisfy_the_rule_stop_everything() {
    let members = vec![called(2, "alice"), called(3, "bob")];
    let one = policy(members.clone(), "1 of trusted");
    let offered = [says(2, b"one"), says(3, b"two")];
    assert!(matches!(judge(&one, &offered), Verdict::Conflict(outputs) if outputs.len() == 2));
    let two = policy(members, "2 of trusted");
    assert_eq!(judge(&two, &offered), Verdict::TooFew { have: 1, need: 2 });
}

#[test]
fn rule_7_a_key_that_contradicts_itself_does_not_count_and_the_proof_is_found() {
    let members = vec![called(2, "alice"), called(3, "bob")];
    let policy = policy(members, "1 of trusted");
    let offered = [says(2, b"one"), says(2, b"two"), says(2, b"three")];
    assert_eq!(judge(&policy, &offered), Verdict::Untrusted(Vec::new()));
    let said = policy.testimonies(&name("hello"), &hash(), &offered);
    assert!(
        said.iter()
            .all(|said| said.discount == Some(Discount::Fault))
    );
    let [proof] = &faults(&hash(), &offered)[..] else {
        panic!("one fault")
    };
    assert_eq!(proof, &offered[..2]);
    // Others still count, and the same thing said twice is no fault.
    let with_bob = [&offered[..], &[says(3, b"one"), says(3, b"one")]].concat();
    assert!(is_trusted(&policy, &with_bob, b"one"));
}

#[test]
fn rule_11_anyone_is_believed_only_when_asked_for_and_uncontradicted() {
    let strict = policy(vec![called(2, "alice")], "1 of trusted");
    let anyone = strict.clone().or_anyone();
    assert!(is_trusted(&anyone, &[says(8, b"x"), says(9, b"x")], b"x"));
    assert!(!is_trusted(&strict, &[says(8, b"x")], b"x"));
    let contradicted = [says(8, b"x"), says(9, b"y")];
    assert!(matches!(
        judge(&anyone, &contradicted),
        Verdict::Conflict(_)
    ));
    // Noise of strangers takes nothing away from what is trusted.
    assert!(is_trusted(
        &anyone,
        &[says(2, b"good"), says(9, b"evil")],
        b"good"
    ));
    assert_eq!(judge(&anyone, &[]), Verdict::Missing);
}

#[test]
fn rule_12_a_search_waits_for_every_place_that_counts() {
    let mut gcc = called(4, "gcc");
    gcc.scope = Scope::new(vec!["gcc".parse().unwrap()]);
    let policy = policy(
        vec![called(2, "alice"), called(3, "bob"), gcc],
        "1 of trusted",
    );
    let own = BTreeSet::from([key(1)]);
    let settled = |offered: &[SignedRealisation]| {
        policy.is_settled(Some(&name("hello")), &hash(), offered, &own)
    };
    assert!(!settled(&[]));
    assert!(!settled(&[says(2, b"one"), says(9, b"one")]));
    assert!(settled(&[says(2, b"one"), says(3, b"one")]));
    assert!(settled(&[says(2, b"one"), says(3, b"two")]));
    // Without a name even who counts for other packages is waited for.
    let both = [says(2, b"one"), says(3, b"one")];
    assert!(!policy.is_settled(None, &hash(), &both, &own));
    // Who may believe anyone wants to see whether anyone contradicts.
    let anyone = policy.clone().or_anyone();
    assert!(!anyone.is_settled(Some(&name("hello")), &hash(), &[says(9, b"x")], &own));
}

proptest! {
    /// What strangers sign, and in which order things arrive, never changes a verdict about those who count.
    #[test]
    fn strangers_and_order_change_no_trusted_verdict(
        said in proptest::collection::vec((2u8..6, 0u8..3), 0..8),
        noise in proptest::collection::vec((10u8..14, 0u8..3), 0..8),
        threshold in 1usize..4,
    ) {
        let policy = TrustPolicy::new((2u8..6).map(key), threshold);
        let trusted: Vec<_> = said.iter().map(|(n, o)| says(*n, &[*o])).collect();
        let noise: Vec<_> = noise.iter().map(|(n, o)| says(*n, &[*o])).collect();
        let mut all: Vec<_> = noise.into_iter().chain(trusted.iter().cloned()).collect();
        let verdict = judge(&policy, &trusted);
        if let Verdict::Trusted(_) | Verdict::Conflict(_) | Verdict::TooFew { .. } = verdict {
            prop_assert_eq!(judge(&policy, &all), verdict.clone());
            all.reverse();
            prop_assert_eq!(judge(&policy, &all), verdict);
        }
    }

    /// Nothing is ever trusted that fewer than the threshold of distinct keys vouch for.
    #[test]
    fn what_is_trusted_has_enough_distinct_signers(
        said in proptest::collection::vec((2u8..6, 0u8..3), 0..10),
        threshold in 1usize..4,
    ) {
        let policy = TrustPolicy::new((2u8..6).map(key), threshold);
        let offered: Vec<_> = said.iter().map(|(n, o)| says(*n, &[*o])).collect();
        if let Verdict::Trusted(output) = judge(&policy, &offered) {
            let signers: BTreeSet<_> = offered
                .iter()
                .filter(|signed| signed.realisation() == &output)
                .map(|signed| *signed.signer())
                .collect();
            prop_assert!(signers.len() >= threshold);
        }
    }
}
