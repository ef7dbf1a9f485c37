//! Every bound on what a recipe and a derivation may hold, each with its unit and its reason.

/// Largest `build` script in bytes; upstream's largest is below 4 kB, a script of a mebibyte is a mistake.
pub const BUILD_BYTES_MAX: usize = 1 << 20;
/// Largest `build-deps` or `run-deps` in bytes: four thousand dependencies of the longest name.
pub const DEPS_BYTES_MAX: usize = 256 << 10;
/// Largest `fetch` file in bytes: what the rec reader takes.
pub const FETCH_BYTES_MAX: usize = base::rec::FILE_BYTES_MAX;
/// Most bytes in `files/` of one package together; what is larger belongs into a source.
pub const FILES_BYTES_MAX: u64 = 64 << 20;
/// Most entries in `files/` of one package; as many with usual paths just fit a derivation.
pub const FILES_MAX: usize = 10_000;
/// Longest path below `files/` in bytes: a quarter of Linux's `PATH_MAX`, so that it fits below any sandbox root.
pub const PATH_BYTES_MAX: usize = 1024;
/// Most components of a path below `files/`.
pub const PATH_DEPTH_MAX: usize = 32;
/// Longest file name in bytes, Linux's `NAME_MAX`.
pub const FILE_NAME_BYTES_MAX: usize = 255;
/// Longest URL in bytes: twice what browsers and servers agree on.
pub const URL_BYTES_MAX: usize = 4096;
/// Most URLs of one source; more are a mirror list and belong into one.
pub const URLS_MAX: usize = 32;
/// Largest derivation text in bytes: one block on the wire, and every block of up to a mebibyte is served by every peer.
pub const DERIVATION_BYTES_MAX: usize = 1 << 20;
