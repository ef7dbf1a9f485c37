//! The numbers that the door gives, in both formats.

use std::collections::{BTreeMap, BTreeSet};

use super::World;
use crate::tests::TestNode;

/// What a family is said to be, and the numbers in it.
#[derive(Default)]
struct Family {
    help: bool,
    kind: Option<String>,
    samples: BTreeSet<String>,
}

/// Reads numbers as strictly as their formats allow: every family is named, explained and typed once, before its samples,
/// which stand together and are called as their type wants it. What `promtool check metrics` finds fault with besides is
/// asked of the tool itself, in `tests/e2e`.
fn check_metrics(text: &str, open: bool) -> BTreeMap<String, Family> {
    let is_name = |name: &str| {
        let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(rest)
    };
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let body = match open {
        true => text.strip_suffix("# EOF\n").expect("an end"),
        false => text,
    };
    assert!(body.ends_with('\n'));
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let [what, name, rest] = comment.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            assert!(is_name(name) && !rest.trim().is_empty(), "{line}");
            assert_eq!(what == "HELP", name != current, "{line}");
            name.clone_into(&mut current);
            let family = families.entry(current.clone()).or_default();
            match what {
                "HELP" => assert!(!std::mem::replace(&mut family.help, true), "{line}"),
                "TYPE" => assert!(family.kind.replace(rest.to_owned()).is_none(), "{line}"),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (sample, number) = line.rsplit_once(' ').expect("a number");
        assert!(number.parse::<f64>().unwrap().is_finite(), "{line}");
        let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
        let labels = labels.strip_suffix('}').expect("labels have an end");
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once("=\"").expect("a quoted value");
            assert!(is_name(key), "{line}");
            let value = value.strip_suffix('"').expect("a quoted value");
            assert!(!value.contains(['"', '\\', '\n']), "{line}");
        }
        let family = families.get_mut(&current).expect("a family first");
        let is_counter = family.kind.as_deref().expect("a type first") == "counter";
        let expected = match is_counter && open {
            true => format!("{current}_total"),
            false => current.clone(),
        };
        assert_eq!(name, expected, "{line}");
        assert_eq!(name.ends_with("_total"), is_counter, "{line}");
        assert!(family.samples.insert(sample.to_owned()), "twice: {line}");
    }
    assert!(families.values().all(|f| f.help && f.kind.is_some()));
    families
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_written_as_the_visitor_reads_them() {
    let world = World::new().await;
    let _other = TestNode::server(&[&world.node.address]).await;
    let plain = world.get("/metrics").await;
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(plain.header("content-type"), Some(kind));
    let plain = check_metrics(&plain.text(), false);
    // What Prometheus 2.42 sends.
    let accept = "Accept: application/openmetrics-text;version=1.0.0,\
                  application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n";
    let open = world.ask("GET", "/metrics", accept).await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(open.header("content-type"), Some(kind));
    let open = check_metrics(&open.text(), true);
    let bare = |name: &String| name.trim_end_matches("_total").to_owned();
    let names: Vec<_> = plain.keys().map(bare).collect();
    assert_eq!(names, open.keys().map(bare).collect::<Vec<_>>());
    assert!(names.len() > 25, "{names:?}");
}
