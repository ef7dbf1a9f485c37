//! The subset of GNU recutils' file format that this system reads and writes, with line numbers for errors.
//!
//! Records are separated by blank lines; a field is `name: value` on one line; `+ ` continues the value on the next;
//! `#` starts a comment line; `%rec:` descriptors are skipped. Recipes' `fetch` files, mirror lists and seed lists share it.

use std::fmt;

/// Largest rec file in bytes; upstream's largest is below 10 kB, a list of ten thousand sources below this.
pub const FILE_BYTES_MAX: usize = 4 << 20;

/// One `name: value` pair and the line it starts on, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Field name, case-sensitive.
    pub name: String,
    /// Field value without the blank after the colon and without trailing blanks.
    pub value: String,
    /// Line of the field name.
    pub line: usize,
}

/// A run of fields between blank lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The fields in the order of the file; a name may occur several times.
    pub fields: Vec<Field>,
}

impl Record {
    /// The value of the first field with that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|f| f.name == name)
            .map(|f| f.value.as_str())
    }

    /// The values of all fields with that name, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields
            .iter()
            .filter(move |f| f.name == name)
            .map(|f| f.value.as_str())
    }

    /// Line of the record's first field.
    pub fn line(&self) -> usize {
        self.fields.first().map_or(0, |f| f.line)
    }

    /// Appends a field; its line is 0, for it has none yet.
    pub fn push(&mut self, name: &str, value: impl Into<String>) {
        self.fields.push(Field {
            name: name.into(),
            value: value.into(),
            line: 0,
        });
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for field in &self.fields {
            writeln!(f, "{}: {}", field.name, field.value.replace('\n', "\n+ "))?;
        }
        Ok(())
    }
}

/// Why a text is no rec file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecError {
    /// More than [`FILE_BYTES_MAX`] bytes.
    #[error("rec file of {0} bytes is larger than {FILE_BYTES_MAX}")]
    TooLarge(usize),
    /// Bytes that are not UTF-8.
    #[error("line {line}: not UTF-8")]
    NotUtf8 {
        /// Where, counted from 1.
        line: usize,
    },
    /// A line that is neither a field, a continuation, a comment nor blank.
    #[error("line {line}: expected `name: value`")]
    NotAField {
        /// Where, counted from 1.
        line: usize,
    },
    /// A continuation line with no field before it.
    #[error("line {line}: continuation of nothing")]
    NothingToContinue {
        /// Where, counted from 1.
        line: usize,
    },
}

impl RecError {
    /// The line the error is about; 1 when it is about the whole file.
    pub const fn line(&self) -> usize {
        match self {
            Self::TooLarge(_) => 1,
            Self::NotUtf8 { line }
            | Self::NotAField { line }
            | Self::NothingToContinue { line } => *line,
        }
    }
}

/// Parses a rec file.
///
/// # Errors
/// [`RecError`] with the line of the first thing that is wrong.
pub fn parse(bytes: &[u8]) -> Result<Vec<Record>, RecError> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(RecError::TooLarge(bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = 1 + bytes[..e.valid_up_to()]
            .iter()
            .filter(|b| **b == b'\n')
            .count();
        RecError::NotUtf8 { line }
    })?;
    let mut records = Vec::new();
    let mut current = Record::default();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() {
            flush(&mut current, &mut records);
        } else if !line.starts_with('#') {
            take_line(&mut current, line, number)?;
        }
    }
    flush(&mut current, &mut records);
    Ok(records)
}

/// Prints records so that [`parse`] reads them back, one blank line between two.
pub fn print(records: &[Record]) -> String {
    records
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

fn flush(current: &mut Record, records: &mut Vec<Record>) {
    let record = std::mem::take(current);
    // `%rec:` descriptors tell recutils what to check; what is checked here stands in the callers.
    if record
        .fields
        .first()
        .is_some_and(|f| !f.name.starts_with('%'))
    {
        records.push(record);
    }
}

fn take_line(current: &mut Record, line: &str, number: usize) -> Result<(), RecError> {
    if let Some(more) = line.strip_prefix('+') {
        let field = current
            .fields
            .last_mut()
            .ok_or(RecError::NothingToContinue { line: number })?;
        field.value.push('\n');
        field.value.push_str(more.strip_prefix(' ').unwrap_or(more));
        return Ok(());
    }
    let (name, value) = line
        .split_once(':')
        .ok_or(RecError::NotAField { line: number })?;
    if !is_field_name(name) {
        return Err(RecError::NotAField { line: number });
    }
    current.fields.push(Field {
        name: name.into(),
        value: value.trim().into(),
        line: number,
    });
    Ok(())
}

fn is_field_name(name: &str) -> bool {
    let rest = name.strip_prefix('%').unwrap_or(name);
    rest.starts_with(|c: char| c.is_ascii_alphabetic())
        && rest
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_fields_comments_and_continuations_are_read() {
        let text =
            b"%rec: source\n%key: url\n\n# note\nurl: http://a/b:c\nsha256: 00\n\n\nurl:x\n+ y\n";
        let records = parse(text).unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].get("url"), Some("http://a/b:c"));
        assert_eq!(records[0].line(), 5);
        assert_eq!(records[1].get("url"), Some("x\ny"));
        assert_eq!(records[1].get("none"), None);
    }

    #[test]
    fn errors_name_the_line() {
        assert_eq!(parse(b"a: 1\nwhat\n"), Err(RecError::NotAField { line: 2 }));
        assert_eq!(
            parse(b"\n+ x\n"),
            Err(RecError::NothingToContinue { line: 2 })
        );
        assert_eq!(
            parse(b"a: 1\nb: \xff\n"),
            Err(RecError::NotUtf8 { line: 2 })
        );
        assert_eq!(
            parse(&vec![b'a'; FILE_BYTES_MAX + 1]).unwrap_err().line(),
            1
        );
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(
            values in vec(vec("[!-~]([ -~]{0,20}[!-~])?", 1..4), 1..8),
        ) {
            let mut record = Record::default();
            for lines in values {
                record.push("field", lines.join("\n"));
            }
            let parsed = parse(print(&[record.clone()]).as_bytes()).unwrap();
            let expected: Vec<_> = record.all("field").map(str::to_owned).collect();
            let got: Vec<_> = parsed[0].all("field").map(str::to_owned).collect();
            prop_assert_eq!(parsed.len(), 1);
            prop_assert_eq!(got, expected);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
