//! Where package directories come from: the caller reads them, one at a time and only those that are needed.
//!
//! Loading on demand is what keeps a broken package from standing in the way of those that do not need it, and what
//! makes `hash make` read eight directories of ten thousand.

use std::collections::BTreeMap;
use std::convert::Infallible;

use base::PackageName;

use crate::package::PackageFiles;

/// A package tree that hands out one package directory at a time.
pub trait PackageSource {
    /// Why a directory that exists cannot be read.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The bytes of one package directory; `None` if the tree has no such package. Called once per package.
    ///
    /// # Errors
    /// When the package is there and cannot be read. A part of it that is merely wrong is not this method's business.
    fn load(&mut self, name: &PackageName) -> Result<Option<PackageFiles>, Self::Error>;

    /// All names in the tree. Asked only after a miss, to suggest a similar one; a source that cannot tell says none.
    fn names(&self) -> Vec<PackageName> {
        Vec::new()
    }
}

/// A package tree in memory, for tests, benchmarks and trees that came out of an archive.
#[derive(Clone, Debug, Default)]
pub struct MemoryTree(BTreeMap<PackageName, PackageFiles>);

impl MemoryTree {
    /// Adds a package directory, or replaces it.
    pub fn insert(&mut self, name: PackageName, files: PackageFiles) {
        self.0.insert(name, files);
    }

    /// A package directory, to change it.
    pub fn get_mut(&mut self, name: &PackageName) -> Option<&mut PackageFiles> {
        self.0.get_mut(name)
    }
}

impl PackageSource for MemoryTree {
    type Error = Infallible;

    fn load(&mut self, name: &PackageName) -> Result<Option<PackageFiles>, Infallible> {
        Ok(self.0.get(name).cloned())
    }

    fn names(&self) -> Vec<PackageName> {
        self.0.keys().cloned().collect()
    }
}
