//! The one build that sees the host: stage 0 of a seed, from the host's C compiler.
//!
//! Everything else is as in any build: no network, no other processes, the same user, clock and environment, and a
//! writable home, `/tmp` and `$DESTDIR` only. What it makes is not used as it is: the following stages rebuild it
//! without the host until the bytes stop changing.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use base::{PackageName, Sha256};
use recipe::Recipe;

use crate::build::{Finished, Workshop};
use crate::error::Error;
use crate::observe::{Event, Phase};
use crate::probe::find_program;
use crate::request::{BuildRequest, DESTDIR, Mount, build_env};
use crate::root::{Input, add_files, add_sources, below, make_dir, unpack_all, write_file};
use crate::scratch::Scratch;
use crate::surroundings::Surroundings;

/// Where each recipe's script, sources and files lie, in a folder of its name.
const SOURCES: &str = "/src";
/// Where the inputs are mounted, read-only: not in the root, for there the host is.
const STAGE: &str = "/stage";
/// Where the script is mounted.
const SCRIPT: &str = "/stage0";
/// Where the host's compiler and tools are looked for. Not the caller's own path: that may begin with wrappers.
pub(crate) const HOST_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";
/// Top-level names of the host where compilers and their libraries lie, beside all that begin with `lib`.
const SHOWN: [&str; 7] = ["bin", "etc", "gnu", "nix", "opt", "sbin", "usr"];

/// A build that sees the host's programs, read-only.
#[derive(Clone, Copy, Debug)]
pub struct HostedBuild<'a> {
    /// Its name in logs and events.
    pub name: &'a PackageName,
    /// The script.
    pub script: &'a [u8],
    /// The recipes whose scripts, sources and files it finds in `/src`.
    pub recipes: &'a [&'a Recipe],
    /// What earlier builds on the host have made; it finds it in `/stage`.
    pub inputs: &'a [Input],
    /// The host's C compiler with its options, for `$CC`.
    pub compiler: &'a str,
}

impl<'a> Workshop<'a> {
    /// Runs such a build; the recipes' sources and the inputs must be in the store.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn build_on_host(
        &self,
        build: &HostedBuild<'_>,
        log: &Path,
    ) -> Result<Finished<'a>, Error> {
        let sandbox = self.sandbox.get()?;
        let package = build.name;
        let compiler = by_path(build.compiler).ok_or_else(|| Error::NoCompiler {
            compiler: build.compiler.to_owned(),
        })?;
        let begun = self.begin(package)?;
        self.observer.event(&Event::Building {
            package,
            phase: Phase::Unpacking,
        });
        let scratch = Scratch::new(self.scratch)?;
        let root = scratch.root();
        let home = Surroundings::Usual.home();
        for dir in ["", SOURCES, STAGE, "/home", home, DESTDIR, "/tmp"] {
            make_dir(&below(&root, dir))?;
        }
        unpack_all(
            &below(&root, STAGE),
            &build.inputs.iter().collect::<Vec<_>>(),
            self.store,
        )?;
        for recipe in build.recipes {
            self.lay_out(recipe, &below(&root, SOURCES).join(recipe.name().as_str()))?;
        }
        let script = scratch.path().join("stage0");
        write_file(&script, build.script, true)?;
        let mut mounts = host_mounts(Path::new("/"))?;
        for at in ["/home", DESTDIR, "/tmp"] {
            mounts.push(Mount::Writable {
                from: below(&root, at),
                at: at.into(),
            });
        }
        for at in [SOURCES, STAGE] {
            mounts.push(Mount::ReadOnly {
                from: below(&root, at),
                at: at.into(),
            });
        }
        mounts.push(Mount::ReadOnly {
            from: script,
            at: SCRIPT.into(),
        });
        mounts.extend([Mount::Proc, Mount::Dev]);
        let mut env = build_env(HOST_PATH, self.jobs.jobs());
        env.insert("CC".into(), compiler.into());
        let command = vec![SCRIPT.into()];
        let mut request = BuildRequest {
            surroundings: Surroundings::Usual,
            interactive: false,
            in_memory: None,
            stack: None,
            mounts,
            env,
            directory: home.into(),
            command,
        };
        sandbox.mask(&mut request);
        self.run(package, &request, scratch, begun, log)
    }

    fn lay_out(&self, recipe: &Recipe, dir: &Path) -> Result<(), Error> {
        make_dir(dir)?;
        add_sources(dir, recipe.sources(), self.store)?;
        add_files(dir, recipe.name(), recipe.files(), self.files)?;
        match recipe.build() {
            Some(script) => write_file(&dir.join("build"), &script.bytes, true),
            None => Ok(()),
        }
    }
}

/// The host's compiler by its full path, with its options, and the digest of that program, so that another one, or
/// another version, is told apart.
///
/// # Errors
/// [`Error::NoCompiler`] where there is none of that name, [`Error::Io`] when it cannot be read.
pub fn host_compiler(compiler: &str) -> Result<(String, Sha256), Error> {
    let found = by_path(compiler).ok_or_else(|| Error::NoCompiler {
        compiler: compiler.to_owned(),
    })?;
    let program = Path::new(found.split(' ').next().unwrap_or(&found));
    let bytes = fs::read(program).map_err(|e| Error::io("read", program, e))?;
    Ok((found, Sha256::of(&bytes)))
}

/// A compiler by its full path, with its options: the script puts programs of the same name before the host's.
fn by_path(compiler: &str) -> Option<String> {
    let (program, options) = compiler.split_once(' ').unwrap_or((compiler, ""));
    let found = if program.contains('/') {
        Some(PathBuf::from(program)).filter(|p| p.is_absolute() && p.is_file())
    } else {
        find_program(program, OsStr::new(HOST_PATH))
    };
    let found = found?.into_os_string().into_string().ok()?;
    Some(format!("{found} {options}").trim_end().to_owned())
}

/// The host's top-level directories, read-only, and its links, as links.
pub(crate) fn host_mounts(host: &Path) -> Result<Vec<Mount>, Error> {
    let read_error = |e| Error::io("read", host, e);
    let mut mounts = Vec::new();
    for entry in fs::read_dir(host).map_err(read_error)? {
        let entry = entry.map_err(read_error)?;
        let name = entry.file_name();
        let kind = entry.file_type().map_err(read_error)?;
        let is_shown = |n: &str| SHOWN.contains(&n) || n.starts_with("lib");
        if !name.to_str().is_some_and(is_shown) {
            continue;
        }
        let at: PathBuf = Path::new("/").join(&name);
        if kind.is_symlink() {
            let target = fs::read_link(entry.path()).map_err(read_error)?;
            mounts.push((at.clone(), Mount::Symlink { target, at }));
        } else if kind.is_dir() {
            mounts.push((
                at.clone(),
                Mount::ReadOnly {
                    from: entry.path(),
                    at,
                },
            ));
        }
    }
    mounts.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(mounts.into_iter().map(|(_, mount)| mount).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_compiler_is_named_by_its_path_and_keeps_its_options() {
        assert_eq!(
            by_path("sh -O2  -w"),
            by_path("sh").map(|path| path + " -O2  -w")
        );
        assert!(by_path("sh").unwrap().starts_with('/'));
        assert_eq!(by_path("/bin/sh").as_deref(), Some("/bin/sh"));
        for missing in ["no-such-compiler", "/no/such/compiler", "./cc", "", " -O2"] {
            assert_eq!(by_path(missing), None, "{missing}");
        }
    }

    #[test]
    fn another_compiler_has_another_digest() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("cc");
        fs::write(&program, "version 1").unwrap();
        let named = format!("{} -O2", program.display());
        let expected = (named.clone(), Sha256::of(b"version 1"));
        assert_eq!(host_compiler(&named).unwrap(), expected);
        fs::write(&program, "version 2").unwrap();
        assert_ne!(host_compiler(&named).unwrap(), expected);
        let missing = host_compiler("no-such-compiler").unwrap_err();
        assert!(matches!(missing, Error::NoCompiler { .. }), "{missing}");
    }

    #[test]
    fn the_host_is_shown_read_only_without_homes_and_with_its_links() {
        let host = tempfile::tempdir().unwrap();
        for dir in [
            "usr", "etc", "home", "root", "tmp", "var", ".hidden", "data",
        ] {
            fs::create_dir(host.path().join(dir)).unwrap();
        }
        fs::write(host.path().join("swapfile"), "").unwrap();
        symlink("usr/bin", host.path().join("bin")).unwrap();
        let expected = [
            Mount::Symlink {
                target: "usr/bin".into(),
                at: "/bin".into(),
            },
            Mount::ReadOnly {
                from: host.path().join("etc"),
                at: "/etc".into(),
            },
            Mount::ReadOnly {
                from: host.path().join("usr"),
                at: "/usr".into(),
            },
        ];
        assert_eq!(host_mounts(host.path()).unwrap(), expected);
    }
}
