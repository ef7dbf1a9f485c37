//! What `mirror://NAME/path` means: an ordered list of real URLs.
//!
//! A recipe names a mirror network, not a machine, so that it outlives any one of them. The bytes are checked by the
//! recipe's sha256, so mirrors need no trust and the nearest ones come first: the user's, the machine's own, ours.

use std::collections::BTreeMap;

use base::rec;

use crate::nearest::nearest;

/// Most base URLs tried for one source: a dead network must not cost a deadline per mirror in the world.
const URLS_MAX: usize = 8;
const SCHEME: &str = "mirror://";
const BUILT_IN: &str = include_str!("../mirrors/mirrors.rec");

/// Base URLs by the name of the mirror network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirrors {
    names: BTreeMap<String, Vec<String>>,
}

/// Why a `mirror://` URL cannot be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MirrorError {
    /// No slash after the name, no name, or a path that climbs.
    #[error("`{0}` is not of the form `mirror://NAME/path`")]
    Malformed(String),
    /// A name without any base URL.
    #[error("no mirror is called `{name}`, known: {known}")]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The names there are, or the nearest of them.
        known: String,
    },
}

impl Mirrors {
    /// The mirrors that come with the program.
    pub fn built_in() -> Self {
        let records = rec::parse(BUILT_IN.as_bytes()).expect("the built-in mirror list is valid");
        let mut mirrors = Self::default();
        for record in records {
            let name = record
                .get("mirror")
                .expect("each built-in mirror has a name");
            mirrors
                .names
                .insert(name.into(), record.all("url").map(str::to_owned).collect());
        }
        mirrors
    }

    /// Puts base URLs in front of those known for `name`.
    pub fn prefer(&mut self, name: &str, urls: impl IntoIterator<Item = String>) {
        let known = self.names.entry(name.to_owned()).or_default();
        let mut all: Vec<String> = Vec::new();
        for url in urls.into_iter().chain(std::mem::take(known)) {
            let url = url.trim_end_matches('/').to_owned();
            if !all.contains(&url) {
                all.push(url);
            }
        }
        *known = all;
    }

    /// The URLs behind a `mirror://` URL, best first; any other URL is returned as it is.
    ///
    /// # Errors
    /// [`MirrorError`] when the name is unknown or the form is wrong.
    pub fn resolve(&self, url: &str) -> Result<Vec<String>, MirrorError> {
        let Some(rest) = url.strip_prefix(SCHEME) else {
            return Ok(vec![url.to_owned()]);
        };
        let malformed = || MirrorError::Malformed(url.to_owned());
        let (name, path) = rest.split_once('/').ok_or_else(malformed)?;
        if name.is_empty() || path.is_empty() || path.split('/').any(|part| part == "..") {
            return Err(malformed());
        }
        let bases = self.names.get(name).ok_or_else(|| self.unknown(name))?;
        Ok(bases
            .iter()
            .take(URLS_MAX)
            .map(|base| format!("{base}/{path}"))
            .collect())
    }

    fn unknown(&self, name: &str) -> MirrorError {
        let names: Vec<_> = self.names.keys().map(String::as_str).collect();
        let known =
            nearest(name, names.iter().copied()).map_or_else(|| names.join(", "), str::to_owned);
        MirrorError::Unknown {
            name: name.to_owned(),
            known: format!("`{known}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_url_becomes_the_urls_of_its_network_in_order() {
        let mut mirrors = Mirrors::built_in();
        let path = "pool/main/h/hello/hello_2.10.orig.tar.gz";
        let before = mirrors.resolve(&format!("mirror://debian/{path}")).unwrap();
        assert!(before.len() >= 2 && before.iter().all(|url| url.ends_with(path)));
        mirrors.prefer(
            "debian",
            ["http://near/debian/".into(), "http://near/debian".into()],
        );
        let after = mirrors.resolve(&format!("mirror://debian/{path}")).unwrap();
        assert_eq!(after[0], format!("http://near/debian/{path}"));
        assert_eq!(after[1..], before);
    }

    #[test]
    fn other_urls_pass_and_bad_ones_are_named() {
        let mirrors = Mirrors::built_in();
        assert_eq!(mirrors.resolve("https://x/y").unwrap(), ["https://x/y"]);
        for url in [
            "mirror://debian",
            "mirror:///x",
            "mirror://debian/",
            "mirror://debian/../x",
        ] {
            assert_eq!(
                mirrors.resolve(url),
                Err(MirrorError::Malformed(url.into()))
            );
        }
        let error = mirrors
            .resolve("mirror://debain/x")
            .unwrap_err()
            .to_string();
        assert_eq!(error, "no mirror is called `debain`, known: `debian`");
    }
}
