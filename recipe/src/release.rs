//! Releases of one program: what of a tarball's name is its version, and which names in a listing are newer.
//!
//! There is no standard for either. What is read here is what tarballs are called in practice: `hello-2.10.tar.gz`,
//! `lua5.4_5.4.4.orig.tar.gz`, `mksh-R59c.tgz`, `v1.9.4.tar.gz`. A name that cannot be read has no newer release.

use std::cmp::Ordering;
use std::fmt;

/// Endings of archives that sources come in.
const ARCHIVES: [&str; 9] = [
    ".tar.gz", ".tar.xz", ".tar.bz2", ".tar.lz", ".tar.zst", ".tgz", ".txz", ".tbz2", ".zip",
];
/// Words in a version that say it is no release yet.
const UNFINISHED: [&str; 7] = ["alpha", "beta", "dev", "git", "pre", "rc", "snapshot"];
/// Most bytes of a listing's link that are looked at; longer ones name no tarball.
const LINK_BYTES_MAX: usize = 512;

/// A tarball's name in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// What stands before the version, the separator included.
    stem: String,
    version: Version,
    /// What Debian puts between version and ending: `.orig`, or nothing.
    origin: &'static str,
    /// How the archive is packed.
    ending: &'static str,
}

/// A version, ordered as people mean it: `1.10` is above `1.9`, `1.0` above `1.0rc1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(String);

impl Release {
    /// Reads the last part of a URL or the name of a file.
    pub fn parse(name: &str) -> Option<Self> {
        let ending = ARCHIVES.into_iter().find(|ending| name.ends_with(ending))?;
        let rest = name.strip_suffix(ending)?;
        let (rest, origin) = match rest.strip_suffix(".orig") {
            Some(rest) => (rest, ".orig"),
            None => (rest, ""),
        };
        let at = start_of_version(rest)?;
        let (stem, version) = rest.split_at(at);
        Some(Self {
            stem: stem.to_owned(),
            version: Version(version.to_owned()),
            origin,
            ending,
        })
    }

    /// The version.
    pub const fn version(&self) -> &Version {
        &self.version
    }

    /// The program's name as the tarball has it; empty where it has none.
    pub fn program(&self) -> &str {
        self.stem.trim_end_matches(['-', '_', 'v', 'R'])
    }

    /// The newest release of the same program among names, if it is newer than this one. What is no finished release is
    /// passed over, unless this one is none either.
    pub fn newest<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Option<(Self, &'a str)> {
        let of_same = |name: &'a str| {
            let other = Self::parse(name)?;
            let same = other.stem == self.stem && other.origin == self.origin;
            let finished = self.version.is_unfinished() || !other.version.is_unfinished();
            (same && finished && other.version > self.version).then_some((other, name))
        };
        let newer = names.into_iter().filter_map(of_same);
        // Of several archives of one version the one packed as before.
        newer.max_by(|(a, _), (b, _)| {
            let packed = |release: &Self| release.ending == self.ending;
            let by_version = a.version.partial_cmp(&b.version).unwrap_or(Ordering::Equal);
            by_version.then_with(|| packed(a).cmp(&packed(b)))
        })
    }
}

/// Where in a name the version begins: behind Debian's last `_`, else behind the first `-`, `v` or `R` before a digit.
fn start_of_version(name: &str) -> Option<usize> {
    let bytes = name.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    if let Some(at) = name.rfind('_')
        && digit(at + 1)
    {
        return Some(at + 1);
    }
    if digit(0) {
        return Some(0);
    }
    let starts = |at: &usize| match bytes[*at] {
        b'-' => digit(at + 1),
        b'v' | b'R' => digit(at + 1) && (*at == 0 || bytes[at - 1] == b'-'),
        _ => false,
    };
    (0..bytes.len()).find(starts).map(|at| at + 1)
}

impl Version {
    /// Whether it says of itself that it is no release yet.
    fn is_unfinished(&self) -> bool {
        let lower = self.0.to_ascii_lowercase();
        pieces(&lower).any(|piece| UNFINISHED.contains(&piece))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let (mut ours, mut theirs) = (pieces(&self.0), pieces(&other.0));
        loop {
            let order = match (ours.next(), theirs.next()) {
                (None, None) => return Some(Ordering::Equal),
                (Some(a), Some(b)) => compare(a, b),
                (Some(more), None) => weight(more),
                (None, Some(more)) => weight(more).reverse(),
            };
            if order != Ordering::Equal {
                return Some(order);
            }
        }
    }
}

/// Runs of digits and runs of letters.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        let first = rest.chars().next()?;
        let other =
            |c: char| !c.is_ascii_alphanumeric() || c.is_ascii_digit() != first.is_ascii_digit();
        let end = rest.find(other).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}

fn compare(a: &str, b: &str) -> Ordering {
    let number = |piece: &str| piece.starts_with(|c: char| c.is_ascii_digit());
    match (number(a), number(b)) {
        (true, true) => {
            let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
            // As many digits as there are: no number type holds them all.
            a.len().cmp(&b.len()).then_with(|| a.cmp(b))
        }
        (true, false) => weight(b).reverse().then(Ordering::Greater),
        (false, true) => weight(a).then(Ordering::Less),
        (false, false) => weight(a).cmp(&weight(b)).then_with(|| a.cmp(b)),
    }
}

/// What one piece more does to a version: `rc` makes it older, everything else newer.
fn weight(piece: &str) -> Ordering {
    let lower = piece.to_ascii_lowercase();
    if UNFINISHED.contains(&lower.as_str()) {
        Ordering::Less
    } else {
        Ordering::Greater
    }
}

/// The last parts of all links in a directory listing, in HTML or as plain names, one a line.
pub fn links(listing: &str) -> impl Iterator<Item = &str> {
    let quoted = |quote: char| {
        listing
            .split("href=")
            .skip(1)
            .filter_map(move |rest| rest.strip_prefix(quote)?.split(quote).next())
    };
    let plain = listing.lines().filter(|line| !line.contains('<'));
    quoted('"')
        .chain(quoted('\''))
        .chain(plain)
        .filter(|link| link.len() <= LINK_BYTES_MAX)
        .filter_map(|link| {
            let path = link.split(['?', '#']).next()?;
            path.rsplit('/').next().filter(|name| !name.is_empty())
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(name: &str) -> String {
        Release::parse(name).unwrap().version.0
    }

    #[test]
    fn the_version_is_found_in_names_of_all_sorts() {
        for (name, program, expected) in [
            ("hello-2.10.tar.gz", "hello", "2.10"),
            ("lua5.4_5.4.4.orig.tar.gz", "lua5.4", "5.4.4"),
            ("mksh-R59c.tgz", "mksh", "59c"),
            ("v1.9.4.tar.gz", "", "1.9.4"),
            ("Python-3.11.2.tar.xz", "Python", "3.11.2"),
            ("gcc-12_12.2.0.orig.tar.gz", "gcc-12", "12.2.0"),
            ("libevent-2.1.12-stable.tar.gz", "libevent", "2.1.12-stable"),
            ("tcc-0.9.27-62c30a4a.tar.bz2", "tcc", "0.9.27-62c30a4a"),
            ("xz-utils_5.4.1.orig.tar.xz", "xz-utils", "5.4.1"),
            ("3.3a.zip", "", "3.3a"),
        ] {
            let release = Release::parse(name).unwrap();
            assert_eq!(
                (release.program(), &*version(name)),
                (program, expected),
                "{name}"
            );
        }
        for name in ["latest.tar.gz", "hello-2.10", "", ".tar.gz", "README"] {
            assert_eq!(Release::parse(name), None, "{name}");
        }
    }

    #[test]
    fn versions_are_ordered_as_people_mean_it() {
        let ascending = [
            "0.9",
            "1.0alpha2",
            "1.0rc1",
            "1.0",
            "1.0.1",
            "1.0.1a",
            "1.0.2",
            "1.9",
            "1.10",
            "12.2.0",
            "20221112",
        ];
        for (older, newer) in ascending.iter().zip(&ascending[1..]) {
            let (older, newer) = (Version((*older).into()), Version((*newer).into()));
            assert!(older < newer, "{older} {newer}");
            assert!(newer > older, "{newer} {older}");
        }
        assert_eq!(
            Version("1.01".into()).partial_cmp(&Version("1.1".into())),
            Some(Ordering::Equal)
        );
    }

    #[test]
    fn the_newest_release_of_the_same_program_is_found_in_a_listing() {
        let listing = r#"<a href="../">up</a> <a href="/pub/hello-2.10.tar.gz">x</a>
            <a href='hello-2.12.1.tar.xz'>x</a> <a href="hello-2.12.1.tar.gz?x=1">x</a>
            <a href="hello-2.13rc1.tar.gz">x</a> <a href="hello-doc-9.tar.gz">x</a>"#;
        let here = Release::parse("hello-2.10.tar.gz").unwrap();
        let (newest, name) = here.newest(links(listing)).unwrap();
        assert_eq!(
            (newest.version().to_string().as_str(), name),
            ("2.12.1", "hello-2.12.1.tar.gz")
        );
        let newest = Release::parse("hello-2.12.1.tar.gz").unwrap();
        assert_eq!(newest.newest(links(listing)), None);
        let plain = "hello-2.11.tar.gz\nhello-2.9.tar.gz\n";
        assert_eq!(here.newest(links(plain)).unwrap().1, "hello-2.11.tar.gz");
    }

    proptest! {
        #[test]
        fn whatever_a_server_sends_is_read_without_panic(listing in ".{0,400}", name in "[a-zA-Z0-9_.+-]{0,40}") {
            let here = Release::parse("hello-2.10.tar.gz").unwrap();
            let _ = here.newest(links(&listing).chain([name.as_str()]));
        }

        #[test]
        fn no_version_is_both_older_and_newer(a in "[0-9a-z.-]{1,12}", b in "[0-9a-z.-]{1,12}") {
            let (a, b) = (Version(a), Version(b));
            prop_assert_eq!(a.partial_cmp(&b), b.partial_cmp(&a).map(Ordering::reverse));
        }
    }
}
