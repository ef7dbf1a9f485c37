//! Text from peers, builds and package trees, made safe to print.
//!
//! A build log or an agent name may hold escape sequences that move the cursor, set the window title or hide text. Whole
//! sequences are dropped, not only their first byte, so that no rest of them is left to confuse the reader.

/// Takes terminal escape sequences and control characters out of a line; tabs stay, other line breaks become blanks.
pub fn line(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => skip_sequence(&mut characters),
            '\u{9b}' => skip_csi(&mut characters),
            '\t' => clean.push('\t'),
            '\n' | '\r' => clean.push(' '),
            c if c.is_control() || reorders(c) => {}
            c => clean.push(c),
        }
    }
    clean
}

/// As [`fn@line`], for bytes that may not be UTF-8, with a bound on the length of what is shown.
pub fn bytes(raw: &[u8], characters_max: usize) -> String {
    let text = line(&String::from_utf8_lossy(raw));
    match text.char_indices().nth(characters_max) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

/// What follows an ESC: CSI, OSC and its kin up to their terminator, or one character.
fn skip_sequence(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match characters.next() {
        Some('[') => skip_csi(characters),
        Some(']' | 'P' | 'X' | '^' | '_') => skip_string(characters),
        // Intermediate bytes (ECMA-48: 0x20-0x2f) come before the final one.
        Some(' '..='/') => {
            while characters.next_if(|c| matches!(c, ' '..='/')).is_some() {}
            characters.next();
        }
        _ => {}
    }
}

/// Parameters and intermediates up to the final byte 0x40-0x7e.
fn skip_csi(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while characters.next_if(|c| matches!(c, ' '..='?')).is_some() {}
    characters.next_if(|c| matches!(c, '@'..='~'));
}

/// A control string up to BEL or ESC `\`.
fn skip_string(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while let Some(character) = characters.next() {
        match character {
            '\u{7}' | '\u{9c}' => return,
            '\u{1b}' => {
                characters.next_if_eq(&'\\');
                return;
            }
            _ => {}
        }
    }
}

/// Characters that reorder or hide the text around them (Unicode bidirectional controls, zero width).
const fn reorders(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_leave_nothing_behind() {
        assert_eq!(line("\u{1b}[31mred\u{1b}[0m"), "red");
        assert_eq!(line("a\u{1b}]0;evil title\u{7}b"), "ab");
        assert_eq!(line("a\u{1b}]8;;http://evil\u{1b}\\link"), "alink");
        assert_eq!(line("a\u{1b}(Bb\u{9b}2Jc"), "abc");
        assert_eq!(line("ends in \u{1b}"), "ends in ");
        assert_eq!(line("\u{1b}]never ends"), "");
    }

    #[test]
    fn control_and_reordering_characters_are_dropped_and_tabs_stay() {
        assert_eq!(line("a\u{8}\u{7}\0b\tc\rd"), "ab\tc d");
        assert_eq!(line("exe\u{202e}gpj.txt"), "exegpj.txt");
        assert_eq!(line("naïve ünïcödé 日本"), "naïve ünïcödé 日本");
    }

    #[test]
    fn long_and_broken_bytes_are_cut_and_replaced() {
        assert_eq!(bytes(b"abc\xffdef", 5), "abc\u{fffd}d…");
        assert_eq!(bytes(b"short", 5), "short");
    }
}
