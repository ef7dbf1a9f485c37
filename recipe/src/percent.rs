//! Percent-encoding for names inside a derivation text, with one spelling for every name.
//!
//! Printable ASCII except `%` stands for itself; every other byte is `%` and two upper-case digits (RFC 3986 section 2.1).
//! A blank or a newline in a name thus never looks like the end of a word or of a line.

/// Encodes a name.
pub(crate) fn encode(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if is_literal(byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push(digit(byte >> 4));
            text.push(digit(byte & 15));
        }
    }
    text
}

/// Decodes what [`encode`] writes, and nothing else: `None` for any other spelling and for names that are not UTF-8.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => (value(rest.next()?)? << 4) | value(rest.next()?)?,
            _ => byte,
        });
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|name| encode(name) == text)
}

const fn is_literal(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'%'
}

/// The digit of a value below 16.
const fn digit(value: u8) -> char {
    (if value < 10 {
        b'0' + value
    } else {
        b'A' + value - 10
    }) as char
}

const fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_could_be_misread_is_encoded() {
        assert_eq!(encode("a/b-1.2+~é %\n"), "a/b-1.2+~%C3%A9%20%25%0A");
    }

    #[test]
    fn other_spellings_of_the_same_name_are_refused() {
        for text in ["%61", "%c3%A9", "é", "a b", "%", "%2", "%FF", "%G0", "a\n"] {
            assert_eq!(decode(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_name_survives(name: String) {
            let text = encode(&name);
            prop_assert!(text.bytes().all(|b| b.is_ascii_graphic()));
            prop_assert_eq!(decode(&text), Some(name));
        }

        #[test]
        fn whatever_decodes_is_the_one_spelling(text in "[a-c%0-9A-F ]{0,12}") {
            if let Some(name) = decode(&text) {
                prop_assert_eq!(encode(&name), text);
            }
        }
    }
}
