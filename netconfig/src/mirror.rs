//! The list of mirrored sources in upstream's format: which CID holds the tarball of a given sha256.
//!
//! Our own nodes need no such list, they find a source by its sha256. The table is read so that the files upstream's users
//! have keep their worth, and written sorted by URL, as upstream's `%sort: source_url` asks.

use std::collections::BTreeMap;

use base::rec::{self, Record};
use base::{Cid, CidError, ParseDigestError, Sha256, parse_root};

/// What the written file says about itself to the recutils.
const HEADER: &str = "%rec: ipfs_source\n%unique: sha256 cid\n%mandatory: sha256 cid source_url\n\
                      %allowed: sha256 cid source_url\n%sort: source_url\n";

/// Where a source can be found by content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorRecord {
    /// Root of the UnixFS file that holds it.
    pub cid: Cid,
    /// Where it was first fetched from.
    pub source_url: String,
}

/// Sources by their sha256.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MirrorTable {
    records: BTreeMap<Sha256, MirrorRecord>,
}

/// Why a text is no table of mirrored sources.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MirrorTableError {
    /// The text is no rec file.
    #[error("not a list of mirrored sources")]
    Syntax(#[source] rec::RecError),
    /// A record lacks a field.
    #[error("line {line}: the record has no `{field}`")]
    Missing {
        /// Line of the record.
        line: usize,
        /// The missing field.
        field: &'static str,
    },
    /// A sha256 that is none.
    #[error("line {line}: bad `sha256`")]
    Sha256 {
        /// Line of the record.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: ParseDigestError,
    },
    /// A CID that is none of ours.
    #[error("line {line}: bad `cid`")]
    Cid {
        /// Line of the record.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: CidError,
    },
    /// Two records of one source that name different CIDs.
    #[error("line {line}: `{sha256}` is listed twice with different content identifiers")]
    Twice {
        /// Line of the second record.
        line: usize,
        /// The source.
        sha256: Sha256,
    },
}

impl MirrorTable {
    /// Reads a table.
    ///
    /// # Errors
    /// [`MirrorTableError`] with the line of the first bad record.
    pub fn parse(bytes: &[u8]) -> Result<Self, MirrorTableError> {
        let mut table = Self::default();
        for record in rec::parse(bytes).map_err(MirrorTableError::Syntax)? {
            let line = record.line();
            let sha256 = field(&record, "sha256")?
                .parse()
                .map_err(|source| MirrorTableError::Sha256 { line, source })?;
            let cid = parse_root(field(&record, "cid")?)
                .map_err(|source| MirrorTableError::Cid { line, source })?;
            let source_url = field(&record, "source_url")?.to_owned();
            if table.get(&sha256).is_some_and(|known| known.cid != cid) {
                return Err(MirrorTableError::Twice { line, sha256 });
            }
            table.insert(sha256, MirrorRecord { cid, source_url });
        }
        Ok(table)
    }

    /// Where the source of that sha256 lies.
    pub fn get(&self, sha256: &Sha256) -> Option<&MirrorRecord> {
        self.records.get(sha256)
    }

    /// Adds or replaces a source.
    pub fn insert(&mut self, sha256: Sha256, record: MirrorRecord) {
        self.records.insert(sha256, record);
    }

    /// All sources by sha256.
    pub fn iter(&self) -> impl Iterator<Item = (&Sha256, &MirrorRecord)> {
        self.records.iter()
    }

    /// The text of the table, sorted by URL.
    pub fn print(&self) -> String {
        let mut sorted: Vec<_> = self.records.iter().collect();
        sorted.sort_by_key(|(sha256, record)| (record.source_url.as_str(), **sha256));
        let records: Vec<_> = sorted
            .into_iter()
            .map(|(sha256, record)| {
                let mut fields = Record::default();
                fields.push("source_url", record.source_url.as_str());
                fields.push("sha256", sha256.to_hex());
                fields.push("cid", record.cid.to_string());
                fields
            })
            .collect();
        format!("{HEADER}\n{}", rec::print(&records))
    }
}

fn field<'a>(record: &'a Record, name: &'static str) -> Result<&'a str, MirrorTableError> {
    record.get(name).ok_or(MirrorTableError::Missing {
        line: record.line(),
        field: name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "%rec: ipfs_source\n%sort: source_url\n\n\
        source_url: https://ftp.gnu.org/gnu/bash/bash-5.1.8.tar.gz\n\
        sha256: 0cfb5c9bb1a29f800a97bd242d19511c997a1013815b805e0fdd32214113d6be\n\
        cid: QmTAqFBr3HA7WeM1k18Kk2NZ3via5osR68EGYzVKXXiZkr\n\n\
        source_url: https://distfiles.dereferenced.org/pkgconf/pkgconf-1.6.3.tar.xz\n\
        sha256: 61f0b31b0d5ea0e862b454a80c170f57bad47879c0c42bd8de89200ff62ea210\n\
        cid: QmdB6f9sQZurX4rfnpr68GwYr3o8aWMXK6hLkD84korTF2\n";

    #[test]
    fn upstreams_records_are_read_and_written_back_sorted() {
        let table = MirrorTable::parse(TWO.as_bytes()).unwrap();
        let bash = "0cfb5c9bb1a29f800a97bd242d19511c997a1013815b805e0fdd32214113d6be";
        let cid = table.get(&bash.parse().unwrap()).unwrap().cid;
        assert_eq!(
            cid.to_string(),
            "QmTAqFBr3HA7WeM1k18Kk2NZ3via5osR68EGYzVKXXiZkr"
        );
        let printed = table.print();
        assert!(printed.find("pkgconf").unwrap() < printed.find("bash").unwrap());
        assert_eq!(MirrorTable::parse(printed.as_bytes()), Ok(table));
    }

    #[test]
    fn broken_records_are_refused_with_their_line() {
        let error = |text: &str| MirrorTable::parse(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(error("sha256: 00\n"), "line 1: bad `sha256`");
        assert_eq!(error("\ncid: x\n"), "line 2: the record has no `sha256`");
        assert_eq!(error(&TWO.replace("QmTA", "QmTB0")), "line 4: bad `cid`");
        assert_eq!(error("what\n"), "not a list of mirrored sources");
        let other = TWO.replace(
            "QmTAqFBr3HA7WeM1k18Kk2NZ3via5osR68EGYzVKXXiZkr",
            "QmdB6f9sQZurX4rfnpr68GwYr3o8aWMXK6hLkD84korTF2",
        );
        assert!(error(&format!("{TWO}\n{other}")).contains("listed twice"));
    }
}
