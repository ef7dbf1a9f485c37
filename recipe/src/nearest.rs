//! The name somebody probably meant.

use base::PackageName;

/// The most similar of `names`, if any is similar enough: at most one edit in three characters, and at least one allowed.
pub(crate) fn nearest(wanted: &PackageName, names: Vec<PackageName>) -> Option<PackageName> {
    let allowed = (wanted.as_str().len() / 3).max(1);
    names
        .into_iter()
        .map(|name| {
            (
                distance(wanted.as_str().as_bytes(), name.as_str().as_bytes()),
                name,
            )
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}

/// Optimal string alignment distance: insertions, deletions, replacements and swaps of neighbours.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let replaced = last[j] + usize::from(a[i] != b[j]);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suggest(wanted: &str) -> Option<String> {
        let names = ["make", "cmake", "musl", "linux-headers", "xz"];
        let names = names.iter().map(|n| n.parse().unwrap()).collect();
        nearest(&wanted.parse().unwrap(), names).map(|n| n.to_string())
    }

    #[test]
    fn slips_of_the_finger_find_their_name() {
        assert_eq!(suggest("amke"), Some("make".into()));
        assert_eq!(suggest("mkae"), Some("make".into()));
        assert_eq!(suggest("linux-header"), Some("linux-headers".into()));
        assert_eq!(suggest("zx"), Some("xz".into()));
    }

    #[test]
    fn unlike_names_are_not_suggested() {
        assert_eq!(suggest("perl"), None);
        assert_eq!(suggest("a"), None);
    }
}
