//! Getting outputs from elsewhere: trust, misses, lies, and the way back to building.

use std::sync::atomic::Ordering;

use base::SecretKey;
use builder::testing::{World, full, name};
use builder::{Error, ErrorKind, How, forecast};
use recipe::Policy;
use trust::TrustPolicy;

const SCRIPT: &str = "mkdir $DESTDIR/share; echo output >$DESTDIR/share/output";

/// Somebody who has built `p`, and a user who wants it.
fn builder_and_user() -> Option<(World, World)> {
    let mut builder = World::new()?;
    builder.key = SecretKey::from_seed(&[8; 32]);
    builder.package("p", SCRIPT);
    builder
        .realise(&["p"])
        .unwrap_or_else(|f| panic!("{}", full(&f)));
    let mut user = World::new()?;
    user.package("p", SCRIPT);
    user.remote.store = Some(builder.store.clone());
    user.trust = TrustPolicy::new([user.key.public(), builder.key.public()], 1).into();
    Some((builder, user))
}

#[test]
fn a_trusted_output_is_fetched_and_nothing_is_built_or_needed_to_build() {
    let Some((builder, mut user)) = builder_and_user() else {
        return;
    };
    let (graph, ids) = user.graph(&["p"]);
    let ahead = user
        .with_context(|context, options| forecast(context, &graph, &ids, options))
        .unwrap();
    assert_eq!(ahead.fetch.len(), 1);
    assert!(ahead.build.is_empty() && ahead.sources.is_empty());

    user.options.policy = Policy::SubstituteOnly;
    let report = user
        .realise(&["p"])
        .unwrap_or_else(|f| panic!("{}", full(&f)));
    assert_eq!(report.realised[&name("p")].how, How::Substituted);
    assert_eq!(report.fetched.len(), 1);
    assert_eq!(user.shelf.fetched.load(Ordering::Relaxed), 0);
    // The statement is kept: the user can pass the package on.
    let signed = user.store.realisations(&graph.pkghash(ids[0])).unwrap();
    assert_eq!(signed[0].signer(), &builder.key.public());
    assert!(
        user.store
            .derivation(&graph.pkghash(ids[0]))
            .unwrap()
            .is_some()
    );
    // And finds it again.
    user.remote.store = None;
    assert_eq!(
        user.realise(&["p"]).unwrap().realised[&name("p")].how,
        How::Present
    );
}

#[test]
fn whoever_trusts_nobody_gets_no_package_but_the_names_of_the_signers() {
    let Some((builder, mut user)) = builder_and_user() else {
        return;
    };
    user.trust = TrustPolicy::new([user.key.public()], 1).into();
    user.options.policy = Policy::SubstituteOnly;
    let failure = user.realise(&["p"]).unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::Mismatch);
    let Error::Untrusted { signers, .. } = &failure.error else {
        panic!("{failure}")
    };
    assert_eq!(signers, &[builder.key.public()]);
    // Whoever may build builds.
    user.options.policy = Policy::SubstituteOrBuild;
    let report = user.realise(&["p"]).unwrap();
    assert_eq!(report.realised[&name("p")].how, How::Built);
    assert!(user.observer.saw("not trusted"));
}

#[test]
fn too_few_agreeing_signers_are_not_enough() {
    let Some((_builder, mut user)) = builder_and_user() else {
        return;
    };
    let keys: Vec<_> = user.trust.now().keys().copied().collect();
    user.trust = TrustPolicy::new(keys, 2).into();
    user.options.policy = Policy::SubstituteOnly;
    let failure = user.realise(&["p"]).unwrap_err();
    assert!(
        matches!(
            failure.error,
            Error::TooFewSigners {
                have: 1,
                need: 2,
                ..
            }
        ),
        "{failure}"
    );
}

#[test]
fn trusted_signers_who_contradict_each_other_stop_everything() {
    let Some((builder, mut user)) = builder_and_user() else {
        return;
    };
    let (graph, ids) = user.graph(&["p"]);
    let second = SecretKey::from_seed(&[9; 32]);
    let mut other = builder.store.realisations(&graph.pkghash(ids[0])).unwrap()[0]
        .realisation()
        .clone();
    other.sha256 = base::Sha256::of(b"something else");
    builder.store.put_realisation(&other.sign(&second)).unwrap();
    user.trust = TrustPolicy::new([builder.key.public(), second.public()], 1).into();
    let failure = user.realise(&["p"]).unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::Mismatch);
    let Error::Conflict { testimonies, .. } = &failure.error else {
        panic!("{failure}")
    };
    let mut signers: Vec<_> = testimonies.iter().map(|said| said.signer).collect();
    signers.sort();
    let mut expected = [builder.key.public(), second.public()];
    expected.sort();
    assert_eq!(signers, expected);
}

#[test]
fn an_output_that_nobody_delivers_is_built_instead_or_fails_with_the_reason() {
    let Some((_builder, mut user)) = builder_and_user() else {
        return;
    };
    user.remote.lies = true;
    user.options.policy = Policy::SubstituteOnly;
    let failure = user.realise(&["p"]).unwrap_err();
    assert_eq!(
        failure.error.kind(),
        ErrorKind::Mismatch,
        "{}",
        full(&failure)
    );
    assert!(
        full(&failure).contains("sent something else"),
        "{}",
        full(&failure)
    );
    user.options.policy = Policy::SubstituteOrBuild;
    assert_eq!(
        user.realise(&["p"]).unwrap().realised[&name("p")].how,
        How::Built
    );
}

#[test]
fn a_miss_says_who_was_asked_and_no_build_is_tried() {
    let Some(mut user) = World::new() else { return };
    user.package("p", SCRIPT);
    user.options.policy = Policy::SubstituteOnly;
    let failure = user.realise(&["p"]).unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::Missing);
    assert_eq!(
        failure.error.to_string(),
        "`p` was not found anywhere: asked 1 provider"
    );
    assert!(!user.observer.saw("p Running"));
}

#[test]
fn without_substitutes_nobody_is_asked() {
    let Some((_builder, mut user)) = builder_and_user() else {
        return;
    };
    user.options.policy = Policy::BuildOnly;
    let report = user.realise(&["p"]).unwrap();
    assert_eq!(report.realised[&name("p")].how, How::Built);
    assert_eq!(user.remote.queries.load(Ordering::Relaxed), 0);
}
