//! Transfers that break, and those that go on with them.

use super::*;

#[test]
fn a_dropped_transfer_is_taken_up_where_it_broke() {
    let body = content(300_000);
    let server = Server::new([
        Act::Truncated(body.clone(), 100_001),
        Act::Ranged(body.clone()),
    ]);
    let (fixture, counter) = (fixture(), Counter::default());
    let fetched = fixture
        .fetch_watched(Sha256::of(&body), &[&server.url], &counter)
        .unwrap();
    assert_eq!(fixture.read(&fetched.blob.sha256), body);
    assert_eq!(counter.bytes.into_inner(), 300_000);
    let second = server.requests()[1].to_lowercase();
    assert!(second.contains("range: bytes=100001-"), "{second}");
    assert!(second.contains("if-range: \"v1\""), "{second}");
}

/// What another process left of a download.
fn leave(fixture: &Fixture, sha256: &Sha256, bytes: &[u8]) {
    let mut download = fixture.store.download(sha256).unwrap();
    download.append(bytes).unwrap();
}

#[test]
fn what_another_process_has_got_is_not_fetched_again_from_whatever_url() {
    let (fixture, counter, body) = (fixture(), Counter::default(), content(300_000));
    let sha256 = Sha256::of(&body);
    leave(&fixture, &sha256, &body[..100_001]);
    let first = Server::new([Act::Status("404 Not Found")]);
    let second = Server::new([Act::Ranged(body.clone())]);
    let fetched = fixture
        .fetch_watched(sha256, &[&first.url, &second.url], &counter)
        .unwrap();
    assert_eq!(fixture.read(&sha256), body);
    let expected = [
        (Origin::Local, 100_001),
        (Origin::Http(second.url.clone()), 199_999),
    ];
    assert_eq!(fetched.received, expected);
    assert_eq!(counter.bytes.into_inner(), 300_000);
    let head = second.requests()[0].to_lowercase();
    assert!(head.contains("range: bytes=100001-"), "{head}");
    // All of it is there: nobody need be asked.
    let other = self::fixture();
    leave(&other, &sha256, &body);
    let fetched = other.fetch(sha256, &["http://127.0.0.1:1/x"]).unwrap();
    assert_eq!(fetched.received, [(Origin::Local, 300_000)]);
}

#[test]
fn what_was_left_wrong_or_too_long_costs_one_start_from_the_beginning() {
    let body = content(300_000);
    let sha256 = Sha256::of(&body);
    for left in [vec![7; 100_000], vec![7; 400_000]] {
        let fixture = fixture();
        leave(&fixture, &sha256, &left);
        let server = Server::new([Act::Ranged(body.clone()), Act::Whole(body.clone())]);
        let fetched = fixture.fetch(sha256, &[&server.url]).unwrap();
        assert_eq!(fixture.read(&sha256), body);
        assert_eq!(fetched.received, [(origin(&server.url), 300_000)]);
        let second = server.requests()[1].to_lowercase();
        assert!(!second.contains("range:"), "{second}");
    }
    // Who is wrong from the beginning is wrong.
    let fixture = fixture();
    leave(&fixture, &sha256, &body[..1000]);
    let wrong = vec![1; 300_000];
    let liar = Server::new([Act::Ranged(wrong.clone()), Act::Whole(wrong)]);
    let error = fixture.fetch(sha256, &[&liar.url]).unwrap_err();
    assert!(matches!(error, FetchError::Invalid { .. }), "{error:?}");
    assert_eq!(liar.requests().len(), 2);
}

#[test]
fn a_page_in_the_place_of_the_file_does_not_spoil_what_is_there() {
    let (fixture, body) = (fixture(), content(300_000));
    let sha256 = Sha256::of(&body);
    leave(&fixture, &sha256, &body[..200_000]);
    let portal = || Server::new([Act::Whole(b"<html>Log in".to_vec())]);
    let (one, two) = (portal(), portal());
    let stalled = Server::new([Act::Stalled(body.clone(), 1000)]);
    let error = fixture.fetch(sha256, &[&one.url]).unwrap_err();
    assert!(matches!(error, FetchError::Invalid { .. }), "{error:?}");
    let honest = Server::new([Act::Ranged(body.clone())]);
    let fetched = fixture
        .fetch(sha256, &[&two.url, &stalled.url, &honest.url])
        .unwrap();
    let expected = [(Origin::Local, 200_000), (origin(&honest.url), 100_000)];
    assert_eq!(fetched.received, expected);
    let left = std::fs::read_dir(fixture.store.root().join("partial")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn the_next_url_goes_on_where_the_one_before_broke_off_and_a_liar_spoils_nothing() {
    let body = content(300_000);
    let sha256 = Sha256::of(&body);
    let stalled = Server::new([Act::Stalled(body.clone(), 200_000)]);
    let honest = Server::new([Act::Ranged(body.clone())]);
    let fetched = fixture()
        .fetch(sha256, &[&stalled.url, &honest.url])
        .unwrap();
    let expected = [
        (origin(&stalled.url), 200_000),
        (origin(&honest.url), 100_000),
    ];
    assert_eq!(fetched.received, expected);
    let liar = Server::new([Act::Stalled(vec![1; 300_000], 200_000)]);
    let honest = Server::new([Act::Ranged(body.clone()), Act::Whole(body.clone())]);
    let fetched = fixture().fetch(sha256, &[&liar.url, &honest.url]).unwrap();
    assert_eq!(fetched.received, [(origin(&honest.url), 300_000)]);
}

#[test]
fn a_server_that_ignores_ranges_is_started_over() {
    let body = content(300_000);
    let server = Server::new([
        Act::Truncated(body.clone(), 200_000),
        Act::Whole(body.clone()),
    ]);
    let (fixture, counter) = (fixture(), Counter::default());
    let fetched = fixture
        .fetch_watched(Sha256::of(&body), &[&server.url], &counter)
        .unwrap();
    assert_eq!(fixture.read(&fetched.blob.sha256), body);
    assert_eq!(
        counter.bytes.into_inner(),
        300_000,
        "progress is not told twice"
    );
}

#[test]
fn a_server_that_sends_another_range_is_given_up() {
    let body = content(300_000);
    let server = Server::new([
        Act::Truncated(body.clone(), 200_000),
        Act::WrongRange(body.clone()),
    ]);
    let error = fixture()
        .fetch(Sha256::of(&body), &[&server.url])
        .unwrap_err();
    assert!(matches!(error, FetchError::Failed { .. }), "{error:?}");
}

#[test]
fn a_transfer_that_breaks_without_progress_is_not_resumed_for_ever() {
    let body = content(1000);
    let server = Server::new([Act::Truncated(body.clone(), 0)]);
    let error = fixture()
        .fetch(Sha256::of(&body), &[&server.url])
        .unwrap_err();
    assert!(matches!(error, FetchError::Failed { .. }), "{error:?}");
    assert_eq!(server.requests().len(), 1);
}
