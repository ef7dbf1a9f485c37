//! What of a tree can be had from others: `weather`.

use crate::support::{TestEnv, sandbox_works};

#[test]
fn the_weather_tells_what_others_have_and_what_is_rare() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let builder_home = env.home("builder");
    builder_home.ok(&["build", "greet"]);
    let key = &builder_home.key();
    let meeting = env.home("meeting").daemon(&[]);
    let builder = builder_home.daemon(&[&meeting]);
    builder.wait_until_all_is_announced();
    // What `scripts/demo.sh` waits for.
    let status = builder_home.ok(&["node", "status"]).replace('\n', " ");
    let announced = "in all, 0 to announce (0 overdue), 0 under way announced: ";
    assert!(status.contains(announced), "{status}");

    let user = env.home("user");
    user.bootstrap_from(&meeting);
    let weather = |args: &[&str]| user.run(&[&["weather"], args].concat()).assert_exit(0);
    let before = weather(&["greet", "hello", "flaky", "toy"]);
    assert_eq!(
        before.stdout,
        "greet untrusted 1 1 0/0\nhello untrusted 1 1 1/1\nflaky nobody 0 0 0/0\ntoy seed 0 1 1/1\n"
    );
    before
        .assert_says("0 of 3 packages can be had")
        .assert_says("2 of 2 sources are announced")
        .assert_says("one node alone announces greeting.txt, toy.tar.zst");

    user.ok(&["key", "trust", key]);
    user.ok(&["fetch", "hello"]);
    let after = weather(&["greet", "hello"]);
    assert_eq!(after.stdout, "greet trusted 1 1 0/0\nhello here 1 1 1/1\n");
    after.assert_says("2 of 2 packages can be had built (1 are here)");
    let json = weather(&["--json", "greet"]).stdout;
    assert!(json.contains("\"state\":\"trusted\""), "{json}");

    // Of what nobody can be asked about nothing is said.
    user.run(&["--offline", "weather", "greet"]).assert_exit(7);
}
