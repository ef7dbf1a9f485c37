//! `fetch`: the sources of a package, as a rec file of `url:`, `file:` and `sha256:`.
//!
//! A record (fields up to a blank line) with one `sha256:` is one source, its fields in any order: upstream's style.
//! In a record with several, each `sha256:` ends a source: lists without blank lines. Several `url:` are alternatives.
//! Upstream passes over fields it does not know; here they are errors, for `ulr:` would silently lose a mirror.

use std::collections::HashMap;

use base::rec::{self, Field, RecError, Record};

use crate::deps::{At, line_of};
use crate::fault::Fault;
use crate::files::check_name;
use crate::limits::{FETCH_BYTES_MAX, URLS_MAX};
use crate::recipe::Source;
use crate::source_url::SourceUrl;

/// Reads a `fetch` file.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<Source>, At> {
    if let Some(position) = bytes.iter().take(FETCH_BYTES_MAX).position(|b| *b == 0) {
        return Err((Some(line_of(bytes, position)), Fault::Nul));
    }
    let records = rec::parse(bytes).map_err(|e| explain(&e))?;
    let mut sources = Vec::new();
    for record in &records {
        check_fields(record)?;
        for item in items(record) {
            sources.push(parse_item(item)?);
        }
    }
    check_names(&sources)?;
    Ok(sources)
}

fn explain(error: &RecError) -> At {
    let line = Some(error.line());
    match error {
        RecError::TooLarge(bytes) => (
            None,
            Fault::TooLarge {
                bytes: *bytes as u64,
                max: FETCH_BYTES_MAX as u64,
            },
        ),
        RecError::NotUtf8 { .. } => (line, Fault::NotUtf8),
        RecError::NothingToContinue { .. } => (line, Fault::NothingToContinue),
        _ => (line, Fault::NotAField),
    }
}

fn check_fields(record: &Record) -> Result<(), At> {
    let is_known = |f: &&Field| matches!(f.name.as_str(), "url" | "file" | "sha256");
    match record.fields.iter().find(|f| !is_known(f)) {
        Some(field) => Err((Some(field.line), Fault::UnknownField(field.name.clone()))),
        None => Ok(()),
    }
}

/// Cuts a record into the fields of single sources.
fn items(record: &Record) -> Vec<&[Field]> {
    let digests = record.fields.iter().filter(|f| f.name == "sha256").count();
    if digests <= 1 {
        return vec![&record.fields];
    }
    record
        .fields
        .split_inclusive(|f| f.name == "sha256")
        .collect()
}

fn parse_item(fields: &[Field]) -> Result<Source, At> {
    let named = |name: &'static str| fields.iter().filter(move |f| f.name == name);
    let start = fields.first().map(|f| f.line);
    let digest = named("sha256").next().ok_or((start, Fault::NoSha256))?;
    let sha256 = digest
        .value
        .parse()
        .map_err(|reason| (Some(digest.line), Fault::Sha256(reason)))?;
    let mut urls = Vec::new();
    for field in named("url") {
        let at = |fault| (Some(field.line), fault);
        if urls.len() == URLS_MAX {
            return Err(at(Fault::TooManyUrls));
        }
        urls.push(SourceUrl::parse(&field.value).map_err(at)?);
    }
    let first = named("url")
        .next()
        .ok_or((Some(digest.line), Fault::NoUrl))?;
    if let Some(second) = named("file").nth(1) {
        return Err((Some(second.line), Fault::SecondFile));
    }
    let (line, name) = match named("file").next() {
        Some(field) => (field.line, field.value.as_str()),
        None => {
            let name = urls.first().and_then(SourceUrl::file_name);
            let needs_file = || (Some(first.line), Fault::NeedsFile(first.value.clone()));
            (first.line, name.ok_or_else(needs_file)?)
        }
    };
    check_name(name).map_err(|fault| (Some(line), fault))?;
    Ok(Source {
        file: name.to_owned(),
        sha256,
        urls,
        line: digest.line,
    })
}

fn check_names(sources: &[Source]) -> Result<(), At> {
    let mut first_lines = HashMap::new();
    for source in sources {
        if let Some(first_line) = first_lines.insert(source.file.as_str(), source.line) {
            let fault = Fault::DuplicateSource {
                file: source.file.clone(),
                first_line,
            };
            return Err((Some(source.line), fault));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use base::ParseDigestError;
    use proptest::prelude::*;

    use super::*;

    fn hex(digit: &str) -> String {
        digit.repeat(64)
    }

    fn read(text: &str) -> Vec<(String, String, usize)> {
        let sources = parse(text.as_bytes()).unwrap();
        sources
            .into_iter()
            .map(|s| {
                let urls: Vec<_> = s.urls.iter().map(ToString::to_string).collect();
                (s.file, urls.join(" "), s.line)
            })
            .collect()
    }

    fn fault(text: &str) -> At {
        parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn upstreams_style_with_blank_lines_is_read() {
        let text = format!(
            "\nurl: https://a/x.tar.gz\nsha256: {}\n\n# the same\nsha256: {}\nfile: y\nurl: http://a/b\n\n",
            hex("1"),
            hex("2")
        );
        let expected = vec![
            ("x.tar.gz".to_owned(), "https://a/x.tar.gz".to_owned(), 3),
            ("y".to_owned(), "http://a/b".to_owned(), 6),
        ];
        assert_eq!(read(&text), expected);
        assert_eq!(read(""), vec![]);
    }

    #[test]
    fn a_list_without_blank_lines_and_with_alternatives_is_read() {
        let text = format!(
            "url: https://a/x\nurl: mirror://gnu/y\nsha256: {0}\nfile: z\nurl: http://a/b\nsha256: {0}",
            hex("a")
        );
        let expected = vec![
            ("x".to_owned(), "https://a/x mirror://gnu/y".to_owned(), 3),
            ("z".to_owned(), "http://a/b".to_owned(), 6),
        ];
        assert_eq!(read(&text), expected);
    }

    #[test]
    fn a_bad_digest_is_named_with_its_line() {
        let short = ParseDigestError::Length(2);
        assert_eq!(
            fault("url: http://a/b\nsha256: ab\n"),
            (Some(2), Fault::Sha256(short))
        );
        let upper = ParseDigestError::Digit('A');
        let text = format!("url: http://a/b\n\n\nsha256: {}\nurl: http://a/b", hex("A"));
        assert_eq!(fault(&text[17..]), (Some(2), Fault::Sha256(upper)));
    }

    #[test]
    fn half_sources_are_refused() {
        assert_eq!(fault("url: http://a/b\n"), (Some(1), Fault::NoSha256));
        assert_eq!(
            fault(&format!("sha256: {}\n", hex("1"))),
            (Some(1), Fault::NoUrl)
        );
        let text = format!("url: http://a/b\nsha256: {0}\nsha256: {0}\n", hex("1"));
        assert_eq!(fault(&text), (Some(3), Fault::NoUrl));
        let text = format!(
            "url: http://a/b\nsha256: {0}\nurl: http://a/c\nsha256: {0}\nfile: x",
            hex("1")
        );
        assert_eq!(fault(&text), (Some(5), Fault::NoSha256));
        let text = format!("url: http://a/b\n\nsha256: {}\n", hex("1"));
        assert_eq!(fault(&text), (Some(1), Fault::NoSha256));
    }

    #[test]
    fn file_names_are_names_and_occur_once() {
        let with = |file: &str| format!("url: http://a/b?c\nfile: {file}\nsha256: {}\n", hex("1"));
        assert_eq!(
            fault(&with("a/b")),
            (Some(2), Fault::FileWithSlash("a/b".into()))
        );
        assert_eq!(fault(&with("..")), (Some(2), Fault::FileName("..".into())));
        assert_eq!(fault(&with(".")), (Some(2), Fault::FileName(".".into())));
        assert_eq!(fault(&with("")), (Some(2), Fault::FileName(String::new())));
        assert_eq!(
            fault(&with("a\n+ b")),
            (Some(2), Fault::ControlCharacter('\n'))
        );
        assert_eq!(
            fault(&with(&"a".repeat(256))),
            (Some(2), Fault::FileNameTooLong(256))
        );
        assert_eq!(fault(&with("a\nfile: b")), (Some(3), Fault::SecondFile));
        let nameless = format!("url: http://a/b?c\nsha256: {}\n", hex("1"));
        assert_eq!(
            fault(&nameless),
            (Some(1), Fault::NeedsFile("http://a/b?c".into()))
        );
        let twice = format!("{}\nurl: http://c/x\nsha256: {}\n", with("x"), hex("2"));
        let fault_twice = Fault::DuplicateSource {
            file: "x".into(),
            first_line: 3,
        };
        assert_eq!(fault(&twice), (Some(6), fault_twice));
    }

    #[test]
    fn unknown_fields_and_broken_lines_are_refused_with_the_line() {
        let text = format!("url: http://a/b\nulr: http://c/b\nsha256: {}\n", hex("1"));
        assert_eq!(fault(&text), (Some(2), Fault::UnknownField("ulr".into())));
        assert_eq!(
            fault("url: http://a/b\nsha256\n"),
            (Some(2), Fault::NotAField)
        );
        assert_eq!(fault("+ a\n"), (Some(1), Fault::NothingToContinue));
        assert_eq!(parse(b"\nurl: \xff"), Err((Some(2), Fault::NotUtf8)));
        assert_eq!(parse(b"\n\nurl: \0"), Err((Some(3), Fault::Nul)));
        let huge = vec![b'#'; FETCH_BYTES_MAX + 1];
        assert!(matches!(parse(&huge), Err((None, Fault::TooLarge { .. }))));
    }

    #[test]
    fn a_bad_url_among_good_ones_and_too_many_are_refused() {
        let text = format!("url: http://a/b\nurl: ftp://a/b\nsha256: {}\n", hex("1"));
        assert_eq!(fault(&text), (Some(2), Fault::UnknownScheme("ftp:".into())));
        let many = format!("{}sha256: {}\n", "url: http://a/b\n".repeat(33), hex("1"));
        assert_eq!(fault(&many), (Some(33), Fault::TooManyUrls));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        #[test]
        fn arbitrary_lines_of_known_fields_never_panic(
            lines in proptest::collection::vec("((url: http://a/[a-c])|(file: [a-c])|(sha256: a{64})|)", 0..12)
        ) {
            if let Ok(sources) = parse(lines.join("\n").as_bytes()) {
                prop_assert!(sources.iter().all(|s| !s.urls.is_empty() && !s.file.is_empty()));
            }
        }
    }
}
