//! A line of a shell script as words, roughly: enough to say which commands it calls and which files it names.
//!
//! Not a shell: what is quoted stays one word, what is substituted is looked into, what spans lines is cut at their ends.

/// A word of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// Without its quotes.
    pub text: String,
    /// Whether a command begins with it.
    pub command: bool,
}

/// Words that a command may follow directly.
const BEFORE_COMMANDS: [&str; 10] = [
    "!", "{", "do", "elif", "else", "exec", "if", "then", "time", "while",
];

/// The words of a line, without its comment.
pub(crate) fn words(line: &str) -> Vec<Word> {
    let mut words = Words {
        list: Vec::new(),
        text: String::new(),
        command: true,
    };
    let mut quote = None;
    // What was quoted around a `$(` that is not closed yet.
    let mut around = Vec::new();
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => words.text.extend(characters.next()),
            ('\'', None) | ('"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (c, Some('\'')) => words.text.push(c),
            ('$', _) if characters.next_if_eq(&'(').is_some() => {
                around.push(quote.take());
                words.end(true);
            }
            (')', None) => {
                quote = around.pop().flatten();
                words.end(false);
            }
            ('`', _) => words.end(true),
            (c, Some(_)) => words.text.push(c),
            ('#', None) if words.text.is_empty() => break,
            (';' | '|' | '&' | '(', None) => words.end(true),
            (c, None) if c.is_whitespace() || matches!(c, '<' | '>') => words.end_word(),
            (c, None) => words.text.push(c),
        }
    }
    words.end(true);
    words.list
}

struct Words {
    list: Vec<Word>,
    text: String,
    /// Whether the next word begins a command.
    command: bool,
}

impl Words {
    fn end_word(&mut self) {
        let text = std::mem::take(&mut self.text);
        if text.is_empty() {
            return;
        }
        // Neither an assignment nor a key word is the command.
        let before = BEFORE_COMMANDS.contains(&text.as_str()) || is_assignment(&text);
        let command = self.command && !before;
        self.command = self.command && before;
        self.list.push(Word { text, command });
    }

    fn end(&mut self, command: bool) {
        self.end_word();
        self.command = command;
    }
}

fn is_assignment(word: &str) -> bool {
    let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    word.split_once('=')
        .is_some_and(|(before, _)| !before.is_empty() && before.chars().all(name))
}

/// Whether a word of a script, or a part of its path, may stand for the file `name`: wildcards and variables for anything.
pub(crate) fn covers(word: &str, name: &str) -> bool {
    let pattern = wildcards(word);
    let meaningful = |pattern: &str| pattern.chars().any(|c| c != '*');
    let parts = pattern.split('/').chain([pattern.as_str()]);
    let mut parts = parts.filter(|part| meaningful(part));
    parts.any(|part| matches(part.as_bytes(), name.as_bytes()))
}

/// A word with its variables and brackets as wildcards.
fn wildcards(word: &str) -> String {
    let mut pattern = String::new();
    let mut characters = word.chars().peekable();
    while let Some(c) = characters.next() {
        let close = match c {
            '$' if characters.next_if_eq(&'{').is_some() => '}',
            '[' => ']',
            '$' => {
                while characters
                    .next_if(|c| c.is_ascii_alphanumeric() || *c == '_')
                    .is_some()
                {}
                pattern.push('*');
                continue;
            }
            c => {
                pattern.push(c);
                continue;
            }
        };
        while characters.next().is_some_and(|c| c != close) {}
        pattern.push('*');
    }
    pattern
}

/// Shell patterns of `*` and `?`, without recursion: after a mismatch the last `*` takes one byte more.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((after, at)) = retry else {
                    return false;
                };
                retry = Some((after, at + 1));
                (p, n) = (after, at + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        let show = |word: Word| {
            let mark = if word.command { "!" } else { "" };
            format!("{mark}{}", word.text)
        };
        words(line)
            .into_iter()
            .map(show)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn commands_are_told_from_arguments() {
        assert_eq!(shown("make  -C src all"), "!make -C src all");
        assert_eq!(
            shown("CC=cc make; cp a b && rm c"),
            "CC=cc !make !cp a b !rm c"
        );
        assert_eq!(
            shown("if test -e x; then date; fi"),
            "if !test -e x then !date !fi"
        );
        assert_eq!(
            shown("echo \"$(date +%s) now\" 'a; date'"),
            "!echo !date +%s  now a; date"
        );
        assert_eq!(
            shown("tar -xf a | (cd b && cat) # date"),
            "!tar -xf a !cd b !cat"
        );
        assert_eq!(shown("# date"), "");
        assert_eq!(shown("echo a#b \\\"c"), "!echo a#b \"c");
    }

    #[test]
    fn a_word_covers_the_files_it_may_stand_for() {
        for (word, name) in [
            ("hello-*.tar.gz", "hello-2.10.tar.gz"),
            ("lua-$version.tar.gz", "lua-5.4.tar.gz"),
            ("../tcc.patch", "tcc.patch"),
            ("*.patch", "a.patch"),
            ("${name}.c", "x.c"),
            ("gcc-[0-9]*", "gcc-12.tar"),
        ] {
            assert!(covers(word, name), "{word} {name}");
        }
        for (word, name) in [
            ("*", "a"),
            ("$x", "a"),
            ("hello-*.xz", "hello-1.gz"),
            ("a", "ab"),
            ("", "a"),
        ] {
            assert!(!covers(word, name), "{word} {name}");
        }
    }
}
