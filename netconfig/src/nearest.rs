//! "Did you mean": the known word nearest to one that was mistyped.

/// Words farther away than this share of their length are no help (one edit in three characters).
const EDITS_PER_CHARACTERS: usize = 3;

/// The candidate nearest to `word` by edits (insert, delete, replace), if one is near enough to be meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = word.chars().count().div_ceil(EDITS_PER_CHARACTERS);
    candidates
        .into_iter()
        .map(|candidate| (edits(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance, one row at a time.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (done, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = done + 1;
        for (column, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_word_and_nonsense_finds_nothing() {
        let words = ["network.listen", "network.bootstrap", "trust.keys"];
        assert_eq!(nearest("network.lisen", words), Some("network.listen"));
        assert_eq!(nearest("trust.key", words), Some("trust.keys"));
        assert_eq!(nearest("completely.else", words), None);
        assert_eq!(nearest("", words), None);
    }

    #[test]
    fn distances_are_those_of_the_textbook() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("same", "same"), 0);
    }
}
