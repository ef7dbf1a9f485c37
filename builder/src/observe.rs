//! What a caller sees while packages are realised, and how it stops the work.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::PackageName;
use store::substitute::{Origin, Progress};

use crate::error::Error;

/// Something that happened. Text in it came from builds and peers: whoever prints it strips control characters.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A package is being looked up.
    Looking {
        /// Which.
        package: &'a PackageName,
    },
    /// A package's output was in the store.
    Present {
        /// Which.
        package: &'a PackageName,
    },
    /// Bytes of an output, seed or source have arrived.
    Fetching {
        /// For which package.
        package: &'a PackageName,
        /// The source's file name; `None` for an output or seed.
        source: Option<&'a str>,
        /// Bytes so far.
        bytes: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
    },
    /// An output, seed or source is in the store now.
    Fetched {
        /// For which package.
        package: &'a PackageName,
        /// The source's file name; `None` for an output or seed.
        source: Option<&'a str>,
        /// Its size in bytes.
        bytes: u64,
        /// Who sent how many bytes.
        received: &'a [(Origin, u64)],
    },
    /// A build entered a phase.
    Building {
        /// Which package.
        package: &'a PackageName,
        /// The phase.
        phase: Phase,
    },
    /// A build printed something; not necessarily whole lines.
    Output {
        /// Which package.
        package: &'a PackageName,
        /// What it printed.
        text: &'a [u8],
    },
    /// A package was built.
    Built {
        /// Which.
        package: &'a PackageName,
        /// Size of its output in bytes.
        bytes: u64,
        /// How long its script ran.
        elapsed: Duration,
    },
    /// A build is over, whatever came of it; others tell that.
    Over {
        /// Which package's.
        package: &'a PackageName,
    },
    /// Something looks wrong but stops nothing.
    Warning {
        /// About which package.
        package: &'a PackageName,
        /// What.
        text: &'a str,
    },
    /// A package cannot be had.
    Failed {
        /// Which.
        package: &'a PackageName,
        /// Why.
        error: &'a Error,
    },
}

/// The phases of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its sources are fetched.
    Sources,
    /// It waits until others leave it a job.
    Waiting,
    /// Its scratch root is filled.
    Unpacking,
    /// Its script runs.
    Running,
    /// Its output is checked and packed.
    Packing,
}

/// Who watches, and remembers. Called from several threads at once.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event<'_>);

    /// Whether everything should stop. Asked often; builds that run are killed.
    fn cancelled(&self) -> bool;

    /// How long a package's script ran when it was built last, for whoever remembers: by that the order is chosen.
    fn expected(&self, package: &PackageName) -> Option<Duration> {
        let _ = package;
        None
    }
}

/// Tells when a build is over, by being dropped.
pub(crate) struct Busy<'a> {
    observer: &'a dyn Observer,
    package: PackageName,
}

impl<'a> Busy<'a> {
    pub fn new(observer: &'a dyn Observer, package: &PackageName) -> Self {
        let package = package.clone();
        Self { observer, package }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let package = &self.package;
        self.observer.event(&Event::Over { package });
    }
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn event(&self, _event: &Event<'_>) {}

    fn cancelled(&self) -> bool {
        false
    }
}

/// Passes the progress of one fetch on to an observer.
pub(crate) struct FetchProgress<'a> {
    pub observer: &'a dyn Observer,
    pub package: &'a PackageName,
    pub source: Option<&'a str>,
    pub bytes: AtomicU64,
}

impl<'a> FetchProgress<'a> {
    pub fn new(
        observer: &'a dyn Observer,
        package: &'a PackageName,
        source: Option<&'a str>,
    ) -> Self {
        Self {
            observer,
            package,
            source,
            bytes: AtomicU64::new(0),
        }
    }
}

impl Progress for FetchProgress<'_> {
    fn bytes(&self, n: u64, total: Option<u64>) {
        let bytes = self.bytes.fetch_add(n, Ordering::Relaxed).saturating_add(n);
        let Self {
            package, source, ..
        } = *self;
        self.observer.event(&Event::Fetching {
            package,
            source,
            bytes,
            total,
        });
    }

    fn cancelled(&self) -> bool {
        self.observer.cancelled()
    }
}
