//! The numbered rules of `docs/caches.md`, one test or more for each; `rule_3_…` is about rule 3.

#![allow(clippy::unwrap_used)] // What must not happen fails the test.

use std::collections::BTreeSet;

use base::{
    Codec, PackageName, PkgHash, PublicKey, Realisation, SecretKey, Sha256, SignedRealisation,
    block_cid,
};
use p2pkgs_trust::{
    Discount, KeyStatement, Member, Ring, Rule, Scope, SignedKeyStatement, Standing, TrustPolicy,
    Verdict, faults,
};
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
        ..Ring::default()
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
        ..Ring::default()
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
        ..Ring::default()
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
        ..Ring::default()
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
        ..Ring::default()
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

fn delegates(root: u8, to: u8, patterns: &[&str], until: Option<u64>) -> SignedKeyStatement {
    let statement = KeyStatement::Delegation {
        root: key(root),
        key: key(to),
        scope: Scope::new(patterns.iter().map(|text| text.parse().unwrap()).collect()),
        until_unix_secs: until,
    };
    statement.sign(&[&secret(root)]).unwrap()
}

fn rotates(old: u8, new: u8) -> SignedKeyStatement {
    let statement = KeyStatement::Rotation {
        old: key(old),
        new: key(new),
    };
    statement.sign(&[&secret(old), &secret(new)]).unwrap()
}

fn revokes(by: u8, revoked: u8) -> SignedKeyStatement {
    let statement = KeyStatement::Revocation {
        key: key(revoked),
        by: key(by),
    };
    statement.sign(&[&secret(by)]).unwrap()
}

fn policy_with(
    members: Vec<Member>,
    rule: &str,
    statements: Vec<SignedKeyStatement>,
) -> TrustPolicy {
    let own = vec![key(1)];
    let ring = Ring {
        own,
        members,
        statements,
    };
    TrustPolicy::of(&ring, &rule.parse().unwrap(), NOW).unwrap()
}

#[test]
fn rule_8_whom_a_trusted_root_names_speaks_for_it_within_its_limits() {
    let mut root = called(2, "root");
    root.scope = Scope::new(vec!["h*".parse().unwrap()]);
    let with = |statement| policy_with(vec![root.clone()], "1 of trusted", vec![statement]);
    assert!(is_trusted(
        &with(delegates(2, 5, &[], None)),
        &[says(5, b"x")],
        b"x"
    ));
    assert!(is_trusted(
        &with(delegates(2, 5, &["*o"], Some(NOW + 1))),
        &[says(5, b"x")],
        b"x"
    ));
    // Over, for other packages by either, of a stranger, of a delegate.
    for statement in [
        delegates(2, 5, &[], Some(NOW)),
        delegates(2, 5, &["make"], None),
        delegates(9, 5, &[], None),
    ] {
        let policy = with(statement);
        assert!(!is_trusted(&policy, &[says(5, b"x")], b"x"), "{policy:?}");
    }
    let make = with(delegates(2, 5, &[], None)).judge(&name("make"), &hash(), &[says(5, b"x")]);
    assert_eq!(make, Verdict::Untrusted(Vec::new()));
    let chain = vec![delegates(2, 5, &[], None), delegates(5, 6, &[], None)];
    let chain = policy_with(vec![root.clone()], "1 of trusted", chain);
    assert!(!is_trusted(&chain, &[says(6, b"x")], b"x"));
    // A later delegation of the same key prolongs an earlier one.
    let renewed = vec![
        delegates(2, 5, &[], Some(NOW)),
        delegates(2, 5, &[], Some(NOW + 9)),
    ];
    assert!(is_trusted(
        &policy_with(vec![root], "1 of trusted", renewed),
        &[says(5, b"x")],
        b"x"
    ));
}

#[test]
fn rule_8_however_many_keys_a_root_names_it_has_one_place() {
    let members = vec![called(2, "root"), called(3, "bob")];
    let named = vec![
        delegates(2, 5, &[], None),
        delegates(2, 6, &[], None),
        delegates(2, 3, &[], None),
    ];
    let policy = policy_with(members, "2 of {root, bob}", named);
    let both = [says(5, b"x"), says(6, b"x"), says(2, b"x")];
    assert_eq!(judge(&policy, &both), Verdict::TooFew { have: 1, need: 2 });
    assert!(is_trusted(&policy, &[says(5, b"x"), says(3, b"x")], b"x"));
    // Bob has a place of his own and speaks for nobody else.
    assert_eq!(
        judge(&policy, &[says(3, b"x")]),
        Verdict::TooFew { have: 1, need: 2 }
    );
    // For a search one of the root's keys is enough.
    let found = [says(5, b"x"), says(3, b"x")];
    assert!(policy.is_settled(Some(&name("hello")), &hash(), &found, &BTreeSet::new()));
}

#[test]
fn rule_9_the_new_key_has_the_place_of_the_old_with_name_limits_and_rule() {
    let mut alice = called(2, "alice");
    alice.scope = Scope::new(vec!["hello".parse().unwrap()]);
    let chain = vec![rotates(2, 5), rotates(5, 6)];
    let policy = policy_with(vec![alice, called(3, "bob")], "2 of {alice, bob}", chain);
    assert!(is_trusted(&policy, &[says(6, b"x"), says(3, b"x")], b"x"));
    let said = policy.testimonies(&name("make"), &hash(), &[says(6, b"x")]);
    assert!(said[0].to_string().starts_with("alice ed25519:"));
    assert!(matches!(said[0].discount, Some(Discount::OutOfScope(_))));
    // The old key signs no more, also not with the new.
    assert_eq!(
        policy.discount(None, &key(2)),
        Some(Discount::ReplacedBy(key(5)))
    );
    let old = [says(2, b"x"), says(3, b"x")];
    assert_eq!(judge(&policy, &old), Verdict::TooFew { have: 1, need: 2 });
    let voices: Vec<_> = policy
        .voices()
        .filter(|(_, how, _)| *how == Standing::Follows)
        .collect();
    assert_eq!(voices, [(&key(6), Standing::Follows, Some("alice"))]);
}

#[test]
fn rule_9_circles_and_two_successors_leave_the_place_empty() {
    for statements in [
        vec![rotates(2, 5), rotates(5, 2)],
        vec![rotates(2, 5), rotates(2, 6)],
    ] {
        let policy = policy_with(vec![called(2, "alice")], "alice", statements);
        for n in [2, 5, 6] {
            assert!(!is_trusted(&policy, &[says(n, b"x")], b"x"), "{n}");
        }
    }
    // Who has a place already does not get a second one.
    let members = vec![called(2, "alice"), called(3, "bob")];
    let policy = policy_with(members, "2 of {alice, bob}", vec![rotates(2, 3)]);
    assert_eq!(
        judge(&policy, &[says(3, b"x")]),
        Verdict::TooFew { have: 1, need: 2 }
    );
}

#[test]
fn rule_9_delegations_of_the_old_key_end_with_it() {
    let statements = vec![
        delegates(2, 7, &[], None),
        rotates(2, 5),
        delegates(5, 8, &[], None),
    ];
    let policy = policy_with(vec![called(2, "root")], "root", statements);
    assert!(!is_trusted(&policy, &[says(7, b"x")], b"x"));
    assert!(is_trusted(&policy, &[says(8, b"x")], b"x"));
}

#[test]
fn rule_10_a_revoked_key_counts_for_nothing_and_names_nobody() {
    let statements = vec![revokes(2, 2), rotates(2, 5), delegates(2, 6, &[], None)];
    let policy = policy_with(vec![called(2, "alice")], "1 of trusted", statements);
    for n in [2, 5, 6] {
        assert!(!is_trusted(&policy, &[says(n, b"x")], b"x"), "{n}");
        assert!(!is_trusted(
            &policy.clone().or_anyone(),
            &[says(2, b"x")],
            b"x"
        ));
    }
    let said = policy.testimonies(&name("hello"), &hash(), &[says(2, b"x")]);
    assert!(
        said[0]
            .to_string()
            .ends_with("which does not count: it was revoked")
    );
    // Not even who believes anyone believes it, known or not.
    let anyone = policy_with(Vec::new(), "1 of trusted", vec![revokes(9, 9)]).or_anyone();
    assert!(!is_trusted(&anyone, &[says(9, b"x")], b"x"));
    assert!(is_trusted(&anyone, &[says(9, b"x"), says(8, b"y")], b"y"));
    let own = policy_with(Vec::new(), "1 of trusted", vec![revokes(1, 1)]);
    assert!(!is_trusted(&own, &[says(1, b"x")], b"x"));
}

#[test]
fn rule_10_a_root_revokes_what_it_named_and_nothing_else() {
    let statements = vec![
        delegates(2, 6, &[], None),
        revokes(2, 6),
        revokes(2, 3),
        revokes(9, 2),
    ];
    let members = vec![called(2, "root"), called(3, "bob")];
    let policy = policy_with(members, "1 of trusted", statements);
    assert!(!is_trusted(&policy, &[says(6, b"x")], b"x"));
    assert_eq!(policy.discount(None, &key(6)), Some(Discount::Revoked));
    assert!(is_trusted(&policy, &[says(3, b"x")], b"x"));
    assert!(is_trusted(&policy, &[says(2, b"x")], b"x"));
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

    /// Statements of those whom nobody named never give anybody a voice, whatever they say and in whatever order.
    #[test]
    fn statements_of_strangers_change_nothing(
        pairs in proptest::collection::vec((10u8..16, 2u8..16, 0u8..3), 0..10),
    ) {
        let statements: Vec<_> = pairs
            .iter()
            .filter(|(by, of, _)| by != of)
            .map(|(by, of, kind)| match kind {
                0 => delegates(*by, *of, &[], None),
                1 => rotates(*by, *of),
                _ => revokes(*by, *of),
            })
            .collect();
        let members = vec![called(2, "alice"), called(3, "bob")];
        let policy = policy_with(members, "1 of trusted", statements);
        for n in 1u8..16 {
            let expected = n <= 3;
            prop_assert_eq!(is_trusted(&policy, &[says(n, b"x")], b"x"), expected);
        }
    }
}
