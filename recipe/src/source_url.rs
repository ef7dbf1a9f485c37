//! Where a source may be had: the kinds of `url:` a recipe may name.
//!
//! URLs never count for the package hash and are never trusted: whatever they deliver is compared with the `sha256:`.

use std::fmt;

use base::{Cid, PackageName, parse_cid};

use crate::fault::Fault;
use crate::limits::URL_BYTES_MAX;

/// One `url:` of a source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SourceUrl {
    /// `https://…` or `http://…`, whole.
    Web(String),
    /// `file:///absolute/path`; the path.
    File(String),
    /// `ipfs://CID`: a file named by its content.
    Ipfs(Cid),
    /// `mirror://NAME/path`: the path below any of the mirrors that the network configuration lists under that name.
    Mirror {
        /// Name of the list.
        name: String,
        /// The path, without a slash in front.
        path: String,
    },
    /// `bootstrap:NAME`: a seed that `bootstrap` makes from the host's C compiler.
    Bootstrap(String),
}

impl SourceUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`Fault`] naming what is wrong, for an unknown scheme the ones that are known.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        if text.len() > URL_BYTES_MAX {
            return Err(Fault::UrlTooLong(text.len()));
        }
        if let Some(c) = text.chars().find(|c| c.is_control() || c.is_whitespace()) {
            return Err(Fault::UrlCharacter(c));
        }
        let (scheme, rest) = text
            .split_once(':')
            .ok_or_else(|| Fault::NotAUrl(text.to_owned()))?;
        let form = |form| Fault::UrlForm {
            url: text.to_owned(),
            form,
        };
        match scheme.to_ascii_lowercase().as_str() {
            "https" if has_host(rest) => Ok(Self::Web(text.to_owned())),
            "https" => Err(form("https://HOST/path")),
            "http" if has_host(rest) => Ok(Self::Web(text.to_owned())),
            "http" => Err(form("http://HOST/path")),
            "file" => parse_file(rest).ok_or_else(|| form("file:///absolute/path")),
            "mirror" => parse_mirror(rest).ok_or_else(|| form("mirror://NAME/path")),
            "bootstrap" if is_label(rest) => Ok(Self::Bootstrap(rest.to_owned())),
            "bootstrap" => Err(form("bootstrap:NAME")),
            "ipfs" => {
                let cid = rest.strip_prefix("//").ok_or_else(|| form("ipfs://CID"))?;
                parse_cid(cid)
                    .map(Self::Ipfs)
                    .map_err(|reason| Fault::UrlCid {
                        url: text.to_owned(),
                        reason,
                    })
            }
            _ => Err(Fault::UnknownScheme(format!("{scheme}:"))),
        }
    }

    /// The file name a source gets when the recipe gives none: the last component of the path, as upstream takes it.
    ///
    /// None where upstream's rule gives a name that nobody means: no path, a path that ends in a slash, or one with a
    /// query or fragment behind it (`make.tar.gz?download=1`). There the recipe says `file:`.
    pub fn file_name(&self) -> Option<&str> {
        let path = match self {
            Self::Web(url) => url.split_once("://")?.1.split_once('/')?.1,
            Self::File(path) | Self::Mirror { path, .. } => path,
            Self::Bootstrap(name) => name,
            Self::Ipfs(_) => return None,
        };
        let is_ambiguous = |c| matches!(c, '?' | '#');
        path.rsplit('/')
            .next()
            .filter(|n| !n.is_empty() && !path.contains(is_ambiguous))
    }
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Web(url) => f.write_str(url),
            Self::File(path) => write!(f, "file://{path}"),
            Self::Ipfs(cid) => write!(f, "ipfs://{cid}"),
            Self::Mirror { name, path } => write!(f, "mirror://{name}/{path}"),
            Self::Bootstrap(name) => write!(f, "bootstrap:{name}"),
        }
    }
}

/// `//host…` with something that can be a host.
fn has_host(rest: &str) -> bool {
    rest.strip_prefix("//")
        .and_then(|r| r.split(['/', '?', '#']).next())
        .is_some_and(|host| !host.is_empty())
}

fn parse_file(rest: &str) -> Option<SourceUrl> {
    rest.strip_prefix("//")
        .filter(|path| path.starts_with('/') && path.len() > 1)
        .map(|path| SourceUrl::File(path.to_owned()))
}

fn parse_mirror(rest: &str) -> Option<SourceUrl> {
    let (name, path) = rest.strip_prefix("//")?.split_once('/')?;
    // A mirror's base URL has the path put behind it: `..` would climb out of what the mirror serves.
    let is_plain = path.split('/').all(|c| !matches!(c, "" | "." | ".."));
    (is_label(name) && is_plain).then(|| SourceUrl::Mirror {
        name: name.to_owned(),
        path: path.to_owned(),
    })
}

/// Names of mirror lists and bootstrap seeds are written like names of packages.
fn is_label(text: &str) -> bool {
    text.parse::<PackageName>().is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_known_kind_is_read_and_printed_back() {
        for text in [
            "https://ftp.gnu.org/gnu/make/make-4.2.tar.gz",
            "http://localhost:8080/x",
            "file:///var/src/make.tar.gz",
            "ipfs://bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4",
            "mirror://gnu/make/make-4.2.tar.gz",
            "bootstrap:tiny-seed",
        ] {
            assert_eq!(
                SourceUrl::parse(text).map(|u| u.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn an_unknown_scheme_is_answered_with_the_known_ones() {
        let fault = SourceUrl::parse("ftp://ftp.gnu.org/make").unwrap_err();
        let text = fault.to_string();
        for known in [
            "`ftp:`",
            "https:",
            "http:",
            "file:",
            "ipfs:",
            "mirror:",
            "bootstrap:",
        ] {
            assert!(text.contains(known), "{text}");
        }
        assert_eq!(
            SourceUrl::parse("make.tar.gz"),
            Err(Fault::NotAUrl("make.tar.gz".to_owned()))
        );
    }

    #[test]
    fn known_kinds_written_wrongly_are_told_the_right_form() {
        for text in [
            "https:x",
            "https:///x",
            "http://?x",
            "file://relative",
            "file:///",
            "mirror://gnu",
            "mirror://gnu/",
            "mirror:///x",
            "mirror://GNU/x",
            "mirror://gnu/../x",
            "mirror://gnu//x",
            "bootstrap:",
            "bootstrap:a/b",
            "ipfs:bafk",
        ] {
            let got = SourceUrl::parse(text);
            assert!(matches!(got, Err(Fault::UrlForm { .. })), "{text}: {got:?}");
        }
        assert!(matches!(
            SourceUrl::parse("ipfs://x/y"),
            Err(Fault::UrlCid { .. })
        ));
        assert_eq!(
            SourceUrl::parse("https://a/b c"),
            Err(Fault::UrlCharacter(' '))
        );
        assert_eq!(
            SourceUrl::parse("https://a/\u{1b}c"),
            Err(Fault::UrlCharacter('\u{1b}'))
        );
        let long = format!("https://a/{}", "b".repeat(URL_BYTES_MAX));
        assert_eq!(SourceUrl::parse(&long), Err(Fault::UrlTooLong(long.len())));
    }

    #[test]
    fn the_file_name_is_the_last_component_or_nothing() {
        let name = |text: &str| {
            SourceUrl::parse(text)
                .unwrap()
                .file_name()
                .map(str::to_owned)
        };
        assert_eq!(
            name("https://a/b/c%2B+.tar.gz"),
            Some("c%2B+.tar.gz".to_owned())
        );
        assert_eq!(
            name("mirror://gnu/make/make.tar"),
            Some("make.tar".to_owned())
        );
        assert_eq!(name("file:///a/b"), Some("b".to_owned()));
        assert_eq!(name("bootstrap:seed"), Some("seed".to_owned()));
        for text in [
            "https://a",
            "https://a/",
            "https://a/b/",
            "https://a/b?c",
            "https://a/b#c",
        ] {
            assert_eq!(name(text), None, "{text}");
        }
        assert_eq!(name("https://a/get?file=/b.tar.gz"), None);
    }

    proptest! {
        #[test]
        fn whatever_is_read_prints_to_something_that_reads_the_same(text in "(https?|file|mirror|ipfs|bootstrap):[ -~]{0,30}") {
            if let Ok(url) = SourceUrl::parse(&text) {
                prop_assert_eq!(SourceUrl::parse(&url.to_string()), Ok(url));
            }
        }
    }
}
