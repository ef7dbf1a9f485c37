//! The text of a rule: read strictly, with the character where it stops making sense.

use std::str::FromStr;

use crate::rule::{
    RULE_BYTES_MAX, RULE_DEPTH_MAX, Rule, RuleError, RuleProblem, Term, Who, is_rule_name,
};

/// Characters of a word that an error quotes.
const QUOTED_CHARACTERS_MAX: usize = 80;

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        if text.len() > RULE_BYTES_MAX {
            let problem = RuleProblem::TooLong;
            return Err(RuleError { at: 1, problem });
        }
        let mut reader = Reader {
            words: words(text),
            next: 0,
        };
        let rule = reader.rule()?;
        match reader.peek() {
            Word {
                kind: Kind::End, ..
            } => Ok(rule),
            word => Err(word.unexpected("the end of the rule")),
        }
    }
}

/// A word, and its character.
#[derive(Clone, Debug)]
struct Word {
    at: usize,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// Letters, digits and what else is in names and keys.
    Text(String),
    /// Anything else, one character each.
    Sign(char),
    End,
}

impl Word {
    fn is(&self, text: &str) -> bool {
        matches!(&self.kind, Kind::Text(word) if word == text)
    }

    fn error(&self, problem: RuleProblem) -> RuleError {
        RuleError {
            at: self.at,
            problem,
        }
    }

    fn unexpected(&self, expected: &'static str) -> RuleError {
        let found = match &self.kind {
            Kind::Text(word) => {
                format!(
                    "`{}`",
                    word.chars().take(QUOTED_CHARACTERS_MAX).collect::<String>()
                )
            }
            Kind::Sign(sign) => format!("{sign:?}"),
            Kind::End => "the end".into(),
        };
        self.error(RuleProblem::Unexpected { expected, found })
    }
}

fn words(text: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut goes_on = false;
    let mut end = 1;
    for (at, c) in (1..).zip(text.chars()) {
        end = at + 1;
        let in_word = c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        match words.last_mut() {
            Some(Word {
                kind: Kind::Text(word),
                ..
            }) if goes_on && in_word => word.push(c),
            _ if in_word => words.push(Word {
                at,
                kind: Kind::Text(c.into()),
            }),
            _ if c.is_whitespace() => {}
            _ => words.push(Word {
                at,
                kind: Kind::Sign(c),
            }),
        }
        goes_on = in_word;
    }
    words.push(Word {
        at: end,
        kind: Kind::End,
    });
    words
}

/// Reads words one after the other; the last one, the end, stays.
struct Reader {
    words: Vec<Word>,
    next: usize,
}

impl Reader {
    fn peek(&self) -> Word {
        self.words[self.next.min(self.words.len() - 1)].clone()
    }

    fn take(&mut self) -> Word {
        let word = self.peek();
        self.next += 1;
        word
    }

    fn rule(&mut self) -> Result<Rule, RuleError> {
        let begin = self.next;
        if self.peek().is("any") {
            self.take();
        }
        let count = self.take();
        if self.take().is("of") && self.peek().is("trusted") {
            let need = count.count()?;
            if need == 0 {
                return Err(count.unexpected("a count of at least 1"));
            }
            self.take();
            return Ok(Rule::Flat(need));
        }
        self.next = begin;
        Ok(Rule::Nested(self.term(0)?))
    }

    fn term(&mut self, depth: usize) -> Result<Term, RuleError> {
        let mut word = self.take();
        let is_threshold = word.is("any");
        if is_threshold {
            word = self.take();
        }
        if is_threshold || word.is_count() {
            if depth >= RULE_DEPTH_MAX {
                return Err(word.error(RuleProblem::TooDeep));
            }
            let need = word.count()?;
            let of = self.group(depth)?;
            if need == 0 || need > of.len() {
                return Err(word.error(RuleProblem::Threshold { need, of: of.len() }));
            }
            return Ok(Term::AtLeast { need, of });
        }
        Ok(Term::Who(word.who()?, word.at))
    }

    fn group(&mut self, depth: usize) -> Result<Vec<Term>, RuleError> {
        let of = self.take();
        if !of.is("of") {
            return Err(of.unexpected("`of`"));
        }
        let open = self.take();
        if open.is("trusted") {
            return Err(open.error(RuleProblem::TrustedInside));
        }
        if open.kind != Kind::Sign('{') {
            return Err(open.unexpected("`{`"));
        }
        let mut terms = Vec::new();
        loop {
            terms.push(self.term(depth + 1)?);
            let next = self.take();
            match next.kind {
                Kind::Sign(',') if self.peek().kind == Kind::Sign('}') => {
                    self.take();
                    return Ok(terms);
                }
                Kind::Sign(',') => {}
                Kind::Sign('}') => return Ok(terms),
                _ => return Err(next.unexpected("`,` or `}`")),
            }
        }
    }
}

impl Word {
    fn is_count(&self) -> bool {
        matches!(&self.kind, Kind::Text(word) if word.bytes().all(|b| b.is_ascii_digit()))
    }

    fn count(&self) -> Result<usize, RuleError> {
        match &self.kind {
            // Four digits are more than a rule has room for.
            Kind::Text(word) if self.is_count() && word.len() <= 4 => {
                word.parse().map_err(|_| self.unexpected("a count"))
            }
            _ => Err(self.unexpected("a count")),
        }
    }

    fn who(&self) -> Result<Who, RuleError> {
        match &self.kind {
            Kind::Text(word) if word == "own" => Ok(Who::Own),
            Kind::Text(word) if word == "trusted" => Err(self.error(RuleProblem::TrustedInside)),
            Kind::Text(word) if word.contains(':') => {
                let key = word.parse().map_err(|_| self.error(RuleProblem::Key))?;
                Ok(Who::Key(key))
            }
            Kind::Text(word) if is_rule_name(word) => Ok(Who::Name(word.clone())),
            _ => Err(self.unexpected("a name, a key, or a threshold such as `1 of {…}`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> (usize, String) {
        let error = text.parse::<Rule>().unwrap_err();
        (error.at, error.problem.to_string())
    }

    #[test]
    fn thresholds_may_be_nested_and_any_is_only_for_the_ear() {
        let rule: Rule = "2 of {alice, bob, any 1 of {ci-1, ci-2,},}"
            .parse()
            .unwrap();
        assert_eq!(rule.to_string(), "2 of {alice, bob, 1 of {ci-1, ci-2}}");
        assert_eq!("alice".parse::<Rule>().unwrap().to_string(), "alice");
        assert_eq!(
            "1 of {own}".parse::<Rule>().unwrap().to_string(),
            "1 of {own}"
        );
    }

    #[test]
    fn a_count_of_all_trusted_keys_is_the_flat_threshold() {
        for (text, need) in [("2 of trusted", 2), ("any 1 of trusted", 1)] {
            assert!(
                matches!(text.parse(), Ok(Rule::Flat(n)) if n == need),
                "{text}"
            );
        }
    }

    #[test]
    fn errors_say_at_which_character_and_what_could_stand_there() {
        let cases = [
            ("", 1, "found the end"),
            ("2 of {a, b}, c", 12, "expected the end"),
            ("2 of {a b}", 9, "expected `,` or `}`, found `b`"),
            ("2 of a", 6, "expected `{`, found `a`"),
            ("2 {a}", 3, "expected `of`"),
            ("any a", 5, "expected a count"),
            ("3 of {a, b}", 1, "3 of 2 is no threshold"),
            ("0 of {a}", 1, "0 of 1 is no threshold"),
            ("0 of trusted", 1, "at least 1"),
            ("1 of {a, 1 of trusted}", 15, "stands alone"),
            ("1 of {a, trusted}", 10, "stands alone"),
            ("1 of {ed25519:12}", 7, "64 hexadecimal digits"),
            ("1 of {}", 7, "expected a name"),
            ("1 of {é}", 7, "expected a name"),
            ("1 of {2ab}", 7, "expected a name"),
            ("99999 of {a}", 1, "expected a count"),
            ("a b", 3, "expected the end of the rule, found `b`"),
        ];
        for (text, at, says) in cases {
            let (found, message) = error(text);
            assert!(
                found == at && message.contains(says),
                "{text:?}: {found}: {message}"
            );
        }
    }

    #[test]
    fn length_and_depth_are_bounded() {
        let deep = |n: usize| format!("{}a{}", "1 of {".repeat(n), "}".repeat(n));
        assert!(deep(RULE_DEPTH_MAX).parse::<Rule>().is_ok());
        assert!(error(&deep(RULE_DEPTH_MAX + 1)).1.contains("deeper"));
        assert!(error(&"a".repeat(RULE_BYTES_MAX + 1)).1.contains("bytes"));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(text in "[12] of \\{(a|b|own), (any )?1 of \\{c, d(, 2 of \\{e, f\\})?\\}\\}") {
            let rule: Rule = text.parse().unwrap();
            let again: Rule = rule.to_string().parse().unwrap();
            prop_assert_eq!(again.to_string(), rule.to_string());
        }

        #[test]
        fn no_text_panics_and_errors_point_into_it(text in "[ of{}a12,any:é]{0,60}") {
            if let Err(error) = text.parse::<Rule>() {
                prop_assert!((1..=text.chars().count() + 1).contains(&error.at));
            }
        }
    }
}
