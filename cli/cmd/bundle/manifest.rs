//! What a bundle holds: the file behind its first root, as JSON.

use base::{Cid, PackageName};
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::as_text::Text;

/// Longest manifest that is read, in bytes: a hundred thousand packages.
pub const BYTES_MAX: u64 = 64 << 20;
/// Longest file name of a source, in bytes, as file systems have it.
const FILE_BYTES_MAX: usize = 255;

/// What kind of file it is, and which version of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// The only one so far.
    #[serde(rename = "p2pkgs-bundle-1")]
    Bundle1,
}

/// What a bundle holds. Each CID is a root of the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What this is.
    pub format: Format,
    /// The archive of the recipes.
    pub tree: Text<Cid>,
    /// Sources and seeds.
    pub sources: Vec<Source>,
    /// Built packages.
    pub packages: Vec<Package>,
    /// What keys said of keys, if that is known.
    #[serde(
        rename = "key-statements",
        skip_serializing_if = "Option::is_none",
        default
    )]
    pub key_statements: Option<Text<Cid>>,
}

/// A source or seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its file name, for people: recipes know it by its sha256.
    pub file: FileName,
    /// The file.
    pub content: Text<Cid>,
}

/// A built package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Its name, for people.
    pub name: Text<PackageName>,
    /// The text whose digest is the package hash.
    pub derivation: Text<Cid>,
    /// The output.
    pub output: Text<Cid>,
    /// Who vouches for it.
    pub statements: Text<Cid>,
}

impl Manifest {
    /// Every CID it names, in its order.
    pub fn roots(&self) -> impl Iterator<Item = Cid> {
        let sources = self.sources.iter().map(|source| source.content.0);
        let packages = self
            .packages
            .iter()
            .flat_map(|package| [package.derivation.0, package.output.0, package.statements.0]);
        let said = self.key_statements.iter().map(|said| said.0);
        let tree = std::iter::once(self.tree.0);
        tree.chain(sources).chain(packages).chain(said)
    }
}

/// The name of a file, without a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileName(String);

impl FileName {
    /// `None` for what is no name of a file.
    pub fn new(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= FILE_BYTES_MAX && text != "." && text != "..";
        let plain = !text.chars().any(|c| c == '/' || c.is_control());
        (fits && plain).then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for FileName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::new(&text).ok_or_else(|| de::Error::custom("no name of a file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";

    fn text(file: &str, name: &str) -> String {
        format!(
            r#"{{"format":"p2pkgs-bundle-1","tree":"{CID}","sources":[{{"file":"{file}","content":"{CID}"}}],"packages":[{{"name":"{name}","derivation":"{CID}","output":"{CID}","statements":"{CID}"}}]}}"#
        )
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let text = text("lua-5.4.4.tar.gz", "lua");
        let manifest: Manifest = serde_json::from_str(&text).unwrap();
        assert_eq!(manifest.roots().count(), 5);
        assert_eq!(serde_json::to_string(&manifest).unwrap(), text);
        let more = format!(r#"],"key-statements":"{CID}"}}"#);
        let text = format!("{}{more}", text.strip_suffix("]}").unwrap());
        let manifest: Manifest = serde_json::from_str(&text).unwrap();
        assert_eq!(manifest.roots().count(), 6);
        assert_eq!(serde_json::to_string(&manifest).unwrap(), text);
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        let good = text("a", "a");
        for bad in [
            text("../a", "a"),
            text("a\\u001b", "a"),
            text("", "a"),
            text("a", "../a"),
            good.replace("bundle-1", "bundle-2"),
            good.replace(CID, "x"),
            good.replacen("{", r#"{"more":1,"#, 1),
            good[..good.len() - 1].to_owned(),
        ] {
            assert!(serde_json::from_str::<Manifest>(&bad).is_err(), "{bad}");
        }
    }
}
