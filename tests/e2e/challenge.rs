//! Who signed the same as what comes out here: `challenge`.

use crate::support::{TestEnv, sandbox_works};

#[test]
fn a_challenge_says_who_agrees_and_shows_what_differs() {
    if !sandbox_works() {
        return;
    }
    let env = TestEnv::new();
    let builder_home = env.home("builder");
    builder_home.ok(&["build", "greet", "flaky"]);
    let key = builder_home.key();
    let meeting = env.home("meeting").daemon(&[]);
    let builder = builder_home.daemon(&[&meeting]);
    builder.wait_until_all_is_announced();

    // Nobody is trusted, and nobody needs to be.
    let user = env.home("user");
    user.bootstrap_from(&meeting);
    let first = user.run(&["challenge", "greet", "flaky"]).assert_exit(6);
    assert_eq!(first.stdout, "greet 1 0\nflaky 0 1\n");
    first
        .assert_says(&format!("{key} signed "))
        .assert_says("`share/random`: other content")
        .assert_says("not everybody got the same of 1 package");

    // What came out is signed, once: another output of the same key would be proof against it.
    let own = user.key();
    let second = user
        .run(&["challenge", "--json", "greet", "flaky"])
        .assert_exit(6);
    assert!(second.stdout.contains(&own), "{}", second.stdout);
    assert!(
        second.stdout.contains("\"disagree\":[]"),
        "{}",
        second.stdout
    );
    user.run(&["key", "faults"]).assert_exit(0);
    assert_eq!(user.ok(&["key", "faults"]), "");
    // Alone with a package that is reproducible.
    user.run(&["--offline", "challenge", "hello"])
        .assert_exit(0);
}
