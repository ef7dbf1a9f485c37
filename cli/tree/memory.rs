//! What is remembered of the recipes of one tree, as one file that is read and written whole.
//!
//! The file holds bytes as they were read and nothing that was concluded from them, so a change of what recipes mean, or of
//! how they are hashed, needs no other file. It begins with the version of the program, the tree and its device, and ends with
//! a digest of the rest: a file of another version or tree, a damaged one, or half a file, is no memory at all.
//!
//! ```text
//! text magic, text version, text tree, u64 device
//! package, sorted by name: u32 length, text name, u32 count × seen, 6 × file, u32 count × entry, u32 count × text
//! seen: text path, u64 inode, u32 mode, u64 size, i64 mtime, i64 ctime
//! file: u8 kind (0 none, 1 plain, 2 executable), bytes: build, check, build-deps, run-deps, fetch, check-deps
//! entry: bytes path, u8 kind (1 plain, 2 executable, 3 link), digest and u64 size, or bytes target
//! sha256
//! ```
//!
//! Numbers are little-endian; text and bytes have their length in front, a u32.

use std::ops::Range;

use base::{PackageName, Sha256};
use recipe::{FileBytes, FileContent, FileEntry, PackageFiles};

use super::belief::{Facts, Seen, Survey};

/// What the file is, and the version of its form.
const MAGIC: &str = "p2pkgs recipes 1";
/// The program that reads folders: another one may read them otherwise.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Largest package that is remembered, in bytes of the file; usual ones have some hundred. Bytes of `files/` do not count.
pub const PACKAGE_BYTES_MAX: usize = 64 << 10;
/// Largest file, in bytes: tens of thousands of usual packages.
pub const FILE_BYTES_MAX: usize = 128 << 20;

/// Which tree it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The folder of the tree.
    pub tree: &'a [u8],
    /// The device that its packages lie on.
    pub device: u64,
}

/// A package that is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// What was seen when it was read.
    pub survey: Survey,
    /// What was read.
    pub files: PackageFiles,
}

/// A package as it lies in the file.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    name: &'a str,
    survey: Reader<'a>,
    files: Reader<'a>,
}

impl<'a> Entry<'a> {
    /// The package's name.
    pub const fn name(&self) -> &'a str {
        self.name
    }

    /// The names of packages that it seems to need: what lines of its files that may be dependencies say. What they mean is
    /// not for this file to know.
    pub fn dependencies(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut reader = self.files;
        let mut files = || {
            reader.skip_file()?;
            reader.skip_file()?;
            Some([reader.skip_file()?, reader.skip_file()?])
        };
        let files = files().unwrap_or_default();
        let texts = files
            .into_iter()
            .filter_map(|file| str::from_utf8(file).ok());
        texts
            .flat_map(str::lines)
            .filter_map(|line| line.trim().strip_prefix("../"))
            .map(|name| name.trim_end_matches('/'))
    }

    /// What was seen when it was read.
    pub fn survey(&self) -> impl Iterator<Item = (&'a str, Facts)> + use<'a> {
        let mut reader = self.survey;
        let count = reader.u32().unwrap_or_default();
        // That there are so many was found out when the entry was made.
        (0..count).map_while(move |_| reader.seen())
    }

    /// What was read; `None` if it makes no sense.
    pub fn files(&self) -> Option<PackageFiles> {
        let mut reader = self.files;
        let files = reader.files()?;
        reader.0.is_empty().then_some(files)
    }
}

/// The packages of a tree that are remembered.
#[derive(Debug, Default)]
pub struct Memory {
    bytes: Vec<u8>,
    /// Where each package stands in the bytes, its length not counted; sorted by name.
    packages: Vec<Range<usize>>,
}

impl Memory {
    /// What a file holds; `None` if it is about something else, or damaged.
    pub fn parse(bytes: Vec<u8>, subject: Subject<'_>) -> Option<Self> {
        let (body, digest) = bytes.split_last_chunk::<{ Sha256::LEN }>()?;
        let mut reader = Reader(body);
        let is_ours = reader.bytes()? == MAGIC.as_bytes()
            && reader.bytes()? == VERSION.as_bytes()
            && reader.bytes()? == subject.tree
            && reader.u64()? == subject.device;
        if !is_ours || Sha256::of(body).as_bytes() != digest {
            return None;
        }
        let mut packages = Vec::new();
        let mut last: &[u8] = &[];
        while !reader.0.is_empty() {
            let package = reader.bytes()?;
            let end = body.len() - reader.0.len();
            packages.push(end - package.len()..end);
            let name = Reader(package).bytes()?;
            if name <= last {
                return None;
            }
            last = name;
        }
        Some(Self { bytes, packages })
    }

    /// How many packages there are.
    pub const fn len(&self) -> usize {
        self.packages.len()
    }

    /// The names of all, in their order.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.packages.iter().map(|package| self.name(package))
    }

    /// Where a package is in the order of all.
    pub fn find(&self, name: &PackageName) -> Option<usize> {
        let found = self
            .packages
            .binary_search_by(|package| self.name(package).cmp(name.as_str().as_bytes()));
        found.ok()
    }

    /// What is remembered of the package at a position; `None` if it makes no sense.
    pub fn entry(&self, position: usize) -> Option<Entry<'_>> {
        let package = self.packages.get(position)?.clone();
        let mut survey = Reader(&self.bytes[package]);
        let name = survey.text()?;
        let mut files = survey;
        let count = files.u32()?;
        // Of nothing at all one cannot say that it is as it was.
        if count == 0 {
            return None;
        }
        for _ in 0..count {
            files.seen()?;
        }
        Some(Entry {
            name,
            survey,
            files,
        })
    }

    /// The file that holds the same and `fresh`, which was encoded by [`encode`] and takes the place of what was known of
    /// the same packages. What would make it too large is left out.
    pub fn with(&self, mut fresh: Vec<(PackageName, Vec<u8>)>, subject: Subject<'_>) -> Vec<u8> {
        fresh.sort();
        let mut out = Vec::with_capacity(self.bytes.len());
        put_bytes(&mut out, MAGIC.as_bytes());
        put_bytes(&mut out, VERSION.as_bytes());
        put_bytes(&mut out, subject.tree);
        out.extend(subject.device.to_le_bytes());
        let mut put = |package: &[u8]| {
            if out.len() + package.len() < FILE_BYTES_MAX - 2 * Sha256::LEN {
                put_bytes(&mut out, package);
            }
        };
        let mut known = self.packages.iter().peekable();
        for (name, package) in &fresh {
            let name = name.as_str().as_bytes();
            while let Some(range) = known.next_if(|range| self.name(range) < name) {
                put(&self.bytes[range.clone()]);
            }
            known.next_if(|range| self.name(range) == name);
            put(package);
        }
        known.for_each(|range| put(&self.bytes[range.clone()]));
        let digest = Sha256::of(&out);
        out.extend(digest.as_bytes());
        out
    }

    fn name(&self, package: &Range<usize>) -> &[u8] {
        let name = Reader(&self.bytes[package.clone()]).bytes();
        name.unwrap_or_default()
    }
}

/// A package as the file holds it; `None` for one that is too large to be remembered.
pub fn encode(name: &PackageName, remembered: &Remembered) -> Option<Vec<u8>> {
    let Remembered { survey, files } = remembered;
    let mut out = Vec::new();
    put_bytes(&mut out, name.as_str().as_bytes());
    put_length(&mut out, survey.len());
    for Seen { path, facts } in survey {
        put_bytes(&mut out, path.as_bytes());
        out.extend(facts.inode.to_le_bytes());
        out.extend(facts.mode.to_le_bytes());
        out.extend(facts.size.to_le_bytes());
        out.extend(facts.mtime_ns.to_le_bytes());
        out.extend(facts.ctime_ns.to_le_bytes());
    }
    let PackageFiles {
        build,
        build_deps,
        run_deps,
        fetch,
        check,
        check_deps,
        files,
        other,
    } = files;
    put_script(&mut out, build.as_ref());
    put_script(&mut out, check.as_ref());
    for file in [build_deps, run_deps, fetch, check_deps] {
        put_file(&mut out, file.as_deref().map(|bytes| (false, bytes)));
    }
    put_length(&mut out, files.len());
    files.iter().for_each(|entry| put_entry(&mut out, entry));
    put_length(&mut out, other.len());
    for name in other {
        put_bytes(&mut out, name.as_bytes());
    }
    (out.len() <= PACKAGE_BYTES_MAX).then_some(out)
}

fn put_script(out: &mut Vec<u8>, script: Option<&FileBytes>) {
    put_file(
        out,
        script.map(|script| (script.executable, &script.bytes[..])),
    );
}

fn put_file(out: &mut Vec<u8>, file: Option<(bool, &[u8])>) {
    let (kind, bytes) = match file {
        None => (0, &[][..]),
        Some((executable, bytes)) => (1 + u8::from(executable), bytes),
    };
    out.push(kind);
    put_bytes(out, bytes);
}

fn put_entry(out: &mut Vec<u8>, entry: &FileEntry) {
    put_bytes(out, &entry.path);
    match &entry.content {
        FileContent::Regular {
            executable,
            digest,
            size,
        } => {
            out.push(1 + u8::from(*executable));
            out.extend(digest.as_bytes());
            out.extend(size.to_le_bytes());
        }
        FileContent::Symlink { target } => {
            out.push(3);
            put_bytes(out, target);
        }
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend(bytes);
}

/// What is longer than a u32 says is too large for the file by far.
fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

/// The bytes that are still to be read.
#[derive(Clone, Copy, Debug)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        str::from_utf8(self.bytes()?).ok()
    }

    /// So many as a number in front says; a wrong number ends where the bytes do.
    fn list<T>(&mut self, one: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u32()?;
        (0..count).map(|_| one(self)).collect()
    }

    fn files(&mut self) -> Option<PackageFiles> {
        let (build, check) = (self.script()?, self.script()?);
        Some(PackageFiles {
            build,
            check,
            build_deps: self.file()?,
            run_deps: self.file()?,
            fetch: self.file()?,
            check_deps: self.file()?,
            files: self.list(Self::entry)?,
            other: self.list(|reader| reader.text().map(str::to_owned))?,
        })
    }

    fn seen(&mut self) -> Option<(&'a str, Facts)> {
        let path = self.text()?;
        let facts = Facts {
            inode: self.u64()?,
            mode: self.u32()?,
            size: self.u64()?,
            mtime_ns: self.i64()?,
            ctime_ns: self.i64()?,
        };
        Some((path, facts))
    }

    /// The bytes of a file, if there is one.
    fn skip_file(&mut self) -> Option<&'a [u8]> {
        self.u8()?;
        self.bytes()
    }

    fn script(&mut self) -> Option<Option<FileBytes>> {
        let (kind, bytes) = (self.u8()?, self.bytes()?.to_vec());
        let script = |executable| Some(FileBytes { executable, bytes });
        match kind {
            0 => Some(None),
            1 => Some(script(false)),
            2 => Some(script(true)),
            _ => None,
        }
    }

    fn file(&mut self) -> Option<Option<Vec<u8>>> {
        Some(self.script()?.map(|file| file.bytes))
    }

    fn entry(&mut self) -> Option<FileEntry> {
        let path = self.bytes()?.to_vec();
        let content = match self.u8()? {
            kind @ (1 | 2) => FileContent::Regular {
                executable: kind == 2,
                digest: Sha256::from_bytes(self.array()?),
                size: self.u64()?,
            },
            3 => FileContent::Symlink {
                target: self.bytes()?.to_vec(),
            },
            _ => return None,
        };
        Some(FileEntry { path, content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: Subject<'_> = Subject {
        tree: b"/tree",
        device: 5,
    };

    fn name(text: &str) -> PackageName {
        text.parse().unwrap()
    }

    /// A package with something of every kind.
    fn remembered(number: u8) -> Remembered {
        let facts = Facts {
            inode: number.into(),
            mode: 1,
            size: 2,
            mtime_ns: -3,
            ctime_ns: 4,
        };
        let seen = |path: &str| Seen {
            path: path.to_owned(),
            facts,
        };
        let files = PackageFiles {
            build: Some(FileBytes {
                executable: true,
                bytes: vec![number; 3],
            }),
            check: Some(FileBytes {
                executable: false,
                bytes: Vec::new(),
            }),
            build_deps: Some(b"../a\n".to_vec()),
            fetch: Some(Vec::new()),
            files: vec![
                FileEntry::regular("a", true, b"x"),
                FileEntry::regular("b", false, b""),
                FileEntry::symlink("c", "a"),
            ],
            other: vec!["notes".to_owned()],
            ..PackageFiles::default()
        };
        let survey = vec![seen(""), seen("build")];
        Remembered { survey, files }
    }

    fn encoded(names: &[(&str, u8)]) -> Vec<(PackageName, Vec<u8>)> {
        let one = |(text, number): &(&str, u8)| {
            let name = name(text);
            let package = encode(&name, &remembered(*number)).unwrap();
            (name, package)
        };
        names.iter().map(one).collect()
    }

    fn get(memory: &Memory, text: &str) -> Option<Remembered> {
        let entry = memory.entry(memory.find(&name(text))?)?;
        let seen = |(path, facts): (&str, Facts)| Seen {
            path: path.to_owned(),
            facts,
        };
        let survey = entry.survey().map(seen).collect();
        let files = entry.files()?;
        Some(Remembered { survey, files })
    }

    fn file(names: &[(&str, u8)]) -> Vec<u8> {
        Memory::default().with(encoded(names), SUBJECT)
    }

    #[test]
    fn what_is_written_is_read_back_and_what_is_fresh_replaces_what_was_known() {
        let memory = Memory::parse(file(&[("c", 1), ("a", 2), ("d", 3)]), SUBJECT).unwrap();
        assert_eq!(memory.packages.len(), 3);
        assert_eq!(get(&memory, "a"), Some(remembered(2)));
        assert_eq!(get(&memory, "b"), None);
        let later = memory.with(encoded(&[("e", 6), ("c", 4), ("b", 5)]), SUBJECT);
        let memory = Memory::parse(later, SUBJECT).unwrap();
        let found = ["a", "b", "c", "d", "e"].map(|text| get(&memory, text));
        assert_eq!(
            found,
            [2, 5, 4, 3, 6].map(|number| Some(remembered(number)))
        );
    }

    #[test]
    fn another_tree_another_device_and_another_version_are_not_ours() {
        let file = file(&[("a", 1)]);
        let tree = Subject {
            tree: b"/other",
            ..SUBJECT
        };
        let device = Subject {
            device: 6,
            ..SUBJECT
        };
        assert!(Memory::parse(file.clone(), SUBJECT).is_some());
        assert!(Memory::parse(file.clone(), tree).is_none());
        assert!(Memory::parse(file.clone(), device).is_none());
        let body = &file[..file.len() - Sha256::LEN];
        let text = body
            .windows(MAGIC.len())
            .position(|w| w == MAGIC.as_bytes());
        let mut other = body.to_vec();
        other[text.unwrap() + MAGIC.len() - 1] = b'0';
        other.extend(Sha256::of(&other).as_bytes());
        assert!(Memory::parse(other, SUBJECT).is_none());
    }

    #[test]
    fn a_damaged_file_is_no_memory_wherever_the_damage_is() {
        let whole = file(&[("a", 1), ("b", 2)]);
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(Memory::parse(damaged, SUBJECT).is_none(), "{at}");
            assert!(
                Memory::parse(whole[..at].to_vec(), SUBJECT).is_none(),
                "{at}"
            );
        }
    }

    #[test]
    fn whatever_a_file_with_the_right_digest_holds_nothing_panics() {
        let whole = file(&[("a", 1), ("b", 2)]);
        let body = &whole[..whole.len() - Sha256::LEN];
        for at in 0..body.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut odd = body.to_vec();
                odd[at] = value;
                odd.extend(Sha256::of(&odd).as_bytes());
                if let Some(memory) = Memory::parse(odd, SUBJECT) {
                    let _ = ["a", "b"].map(|text| get(&memory, text));
                }
            }
        }
    }

    #[test]
    fn a_large_package_is_not_remembered() {
        let mut large = remembered(1);
        large.files.fetch = Some(vec![b'x'; PACKAGE_BYTES_MAX]);
        assert_eq!(encode(&name("a"), &large), None);
    }
}
