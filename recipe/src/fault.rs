//! The ways in which a file of a package directory can be wrong, in words; [`crate::Place`] says where.

use base::{CidError, NameError, PackageName, ParseDigestError};

use crate::limits::{
    FILE_NAME_BYTES_MAX, FILES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX, URL_BYTES_MAX, URLS_MAX,
};

/// Most characters of foreign text quoted in a message: enough to find the line again.
const QUOTE_CHARS_MAX: usize = 80;

/// What is wrong with a file of a package directory.
///
/// The text of an inner error is part of the sentence, so it is not a `source` as well: it would be printed twice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// More bytes than [`crate::limits`] allows.
    #[error("{bytes} bytes or more, at most {max} are allowed")]
    TooLarge {
        /// How many there are, or were read before giving up.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// Bytes that are not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// A NUL byte where text belongs.
    #[error("holds a NUL byte")]
    Nul,
    /// No bytes where some are needed.
    #[error("is empty")]
    Empty,

    /// A dependency that is not written `../name`.
    #[error("a dependency is written `../name`, one a line, found `{}`", quote(.0))]
    NotADependency(String),
    /// A dependency outside the package tree.
    #[error("dependency `{}` escapes the package tree", quote(.0))]
    EscapesTree(String),
    /// `../` followed by what cannot be a package's name.
    #[error("dependency `{}` names no package: {reason}", quote(.text))]
    DependencyName {
        /// The line.
        text: String,
        /// What is wrong with the name.
        reason: NameError,
    },
    /// A package that needs itself.
    #[error("`{0}` depends on itself")]
    SelfDependency(PackageName),
    /// The same dependency twice in one file.
    #[error("`{name}` is listed twice, first on line {first_line}")]
    DuplicateDependency {
        /// The dependency.
        name: PackageName,
        /// Where it stands first.
        first_line: usize,
    },

    /// A line of `fetch` that is no field.
    #[error("expected `name: value`")]
    NotAField,
    /// A `+` line of `fetch` with no field before it.
    #[error("continuation of nothing")]
    NothingToContinue,
    /// A field of `fetch` that means nothing.
    #[error("unknown field `{}`, known are `url`, `file` and `sha256`", quote(.0))]
    UnknownField(String),
    /// A second `file:` for one source.
    #[error("a source has at most one `file:`")]
    SecondFile,
    /// A source that cannot be fetched.
    #[error("source without `url:`")]
    NoUrl,
    /// A source that could not be verified.
    #[error("source without `sha256:`")]
    NoSha256,
    /// A digest that is none.
    #[error("bad sha256: {0}")]
    Sha256(ParseDigestError),
    /// A file name with a slash in it.
    #[error("`file: {}` is a path, a source lies directly in the build's home directory", quote(.0))]
    FileWithSlash(String),
    /// A name that no file can have.
    #[error("`{}` cannot be a file name", quote(.0))]
    FileName(String),
    /// A file name longer than [`FILE_NAME_BYTES_MAX`].
    #[error("a file name of {0} bytes is longer than {FILE_NAME_BYTES_MAX}")]
    FileNameTooLong(usize),
    /// A URL without a plain last component.
    #[error("no file name can be taken from `{}`", quote(.0))]
    NeedsFile(String),
    /// Two sources with one name.
    #[error("a second source named `{}`, the first ends on line {first_line}", quote(.file))]
    DuplicateSource {
        /// Their name.
        file: String,
        /// Where the first has its `sha256:`.
        first_line: usize,
    },
    /// A source that has the name of something in `files/`.
    #[error("source `{}` has the name of an entry in `files/`", quote(.0))]
    SourceMeetsFiles(String),
    /// More URLs than [`URLS_MAX`].
    #[error("a source has at most {URLS_MAX} `url:`")]
    TooManyUrls,
    /// A URL longer than [`URL_BYTES_MAX`].
    #[error("a url of {0} bytes is longer than {URL_BYTES_MAX}")]
    UrlTooLong(usize),
    /// A character that no URL may hold.
    #[error("{0:?} in a url")]
    UrlCharacter(char),
    /// A URL of a kind that nobody here can fetch.
    #[error(
        "unknown scheme `{}`, known are `https:`, `http:`, `file:`, `ipfs:`, `mirror:` and `bootstrap:`",
        quote(.0)
    )]
    UnknownScheme(String),
    /// A text without a scheme.
    #[error("`{}` is not a url", quote(.0))]
    NotAUrl(String),
    /// A URL of a known kind, written wrongly.
    #[error("`{}` is not of the form `{form}`", quote(.url))]
    UrlForm {
        /// The URL.
        url: String,
        /// How it should look.
        form: &'static str,
    },
    /// An `ipfs:` URL without a CID we read.
    #[error("`{}` names no content: {reason}", quote(.url))]
    UrlCid {
        /// The URL.
        url: String,
        /// What is wrong with the CID.
        reason: CidError,
    },

    /// No `build`, and not the one source of a seed.
    #[error(
        "has no `build` and {sources} sources; without `build` it is a seed and needs exactly one"
    )]
    NotASeed {
        /// How many there are.
        sources: usize,
    },
    /// A seed with something that only a build could use.
    #[error("has no `build`, so it is a seed, and a seed takes no `{0}`")]
    SeedWith(&'static str),

    /// More entries than [`FILES_MAX`].
    #[error("{0} entries, at most {FILES_MAX} are allowed")]
    TooManyFiles(usize),
    /// A path with an empty, `.` or `..` component, or an absolute one.
    #[error("not a plain relative path")]
    Path,
    /// A path with more than [`PATH_BYTES_MAX`] bytes or [`PATH_DEPTH_MAX`] components.
    #[error("path of more than {PATH_BYTES_MAX} bytes or {PATH_DEPTH_MAX} components")]
    PathTooLong,
    /// A control character in a path or a file name: it would garble listings and logs.
    #[error("control character {0:?} in a name")]
    ControlCharacter(char),
    /// The same path twice.
    #[error("listed twice")]
    DuplicatePath,
    /// A path below something that is not a directory.
    #[error("lies below `files/{}`, which is not a directory", quote(.0))]
    BelowAFile(String),
    /// A symbolic link with an absolute target.
    #[error("symbolic link to `{}`, which is absolute", quote(.0))]
    LinkAbsolute(String),
    /// A symbolic link that leads out of `files/`.
    #[error("symbolic link to `{}` leads out of `files/`", quote(.0))]
    LinkEscapes(String),
    /// A symbolic link whose target goes down and up again.
    #[error("symbolic link to `{}` has `..` behind a name", quote(.0))]
    LinkWanders(String),
}

impl Fault {
    /// What the user can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NeedsFile(_) => Some("add a `file:` line before `sha256:`".to_owned()),
            Self::NoUrl | Self::NoSha256 => {
                Some("a source is `url:` (one or more), perhaps `file:`, then `sha256:`".to_owned())
            }
            Self::LinkAbsolute(_) => Some("make the link in the `build` script instead".to_owned()),
            _ => None,
        }
    }
}

/// Foreign text fit for one line of a message: control characters escaped, long text cut.
pub(crate) fn quote(text: &str) -> String {
    let escaped = |c: char| c.escape_debug().collect::<String>();
    let plain = |c: char| matches!(c, '\'' | '"' | '\\');
    let mut quoted: String = text
        .chars()
        .take(QUOTE_CHARS_MAX)
        .map(|c| if plain(c) { c.to_string() } else { escaped(c) })
        .collect();
    if text.chars().nth(QUOTE_CHARS_MAX).is_some() {
        quoted.push('…');
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_stays_on_one_line_and_short() {
        assert_eq!(
            quote("a\n\x1b[31mb\u{202e}c\\'"),
            "a\\n\\u{1b}[31mb\\u{202e}c\\'"
        );
        assert_eq!(quote(&"é".repeat(100)).chars().count(), QUOTE_CHARS_MAX + 1);
    }
}
