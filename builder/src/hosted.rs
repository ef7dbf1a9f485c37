//! The one build that sees the host: stage 0 of a seed, from the host's C compiler.
//!
//! Everything else is as in any build: no network, no other processes, the same user, clock and environment, and a
//! writable home, `/tmp` and `$DESTDIR` only. What it makes is not used as it is: the following stages rebuild it
//! without the host until the bytes stop changing.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base::{PackageName, Sha256};
use recipe::Recipe;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

use crate::build::{Finished, Workshop};
use crate::error::Error;
use crate::observe::{Event, Phase};
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
/// Top-level names of this machine where compilers and their libraries lie, beside all that begin with `lib`.
const SHOWN: [&str; 7] = ["bin", "etc", "gnu", "nix", "opt", "sbin", "usr"];
/// Top-level names that a build has for itself: what another root has there is not shown.
const OWN: [&str; 8] = [
    "dev", "destdir", "home", "proc", "src", "stage", "stage0", "tmp",
];

/// Where the first compiler comes from.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// The root whose programs the build sees: `/`, or a directory that holds another system.
    pub root: &'a Path,
    /// The C compiler with its options: a name, or a path below that root.
    pub compiler: &'a str,
}

/// A build that sees a host's programs, read-only.
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
    /// Whose programs, with the C compiler for `$CC`.
    pub host: Host<'a>,
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
        let (compiler, _) = build.host.find()?;
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
        let mut mounts = build.host.mounts()?;
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

impl Host<'_> {
    /// The compiler by its full path, with its options, and the digest of that program, so that another one, or another
    /// version, is told apart.
    ///
    /// # Errors
    /// [`Error::NoCompiler`] where there is none of that name, [`Error::Io`] when it cannot be read.
    pub fn compiler(&self) -> Result<(String, Sha256), Error> {
        let (found, mut program) = self.find()?;
        let mut bytes = Vec::new();
        program
            .read_to_end(&mut bytes)
            .map_err(|e| Error::io("read", Path::new(&found), e))?;
        Ok((found, Sha256::of(&bytes)))
    }

    fn mounts(&self) -> Result<Vec<Mount>, Error> {
        if self.root == Path::new("/") {
            machine_mounts()
        } else {
            host_mounts(self.root, is_not_in_the_way)
        }
    }

    /// The compiler by its full path, for the script puts programs of the same name before the host's; and that program.
    fn find(&self) -> Result<(String, File), Error> {
        let (program, options) = self.compiler.split_once(' ').unwrap_or((self.compiler, ""));
        let found = if program.contains('/') {
            Some(program.to_owned()).filter(|path| path.starts_with('/'))
        } else {
            HOST_PATH
                .split(':')
                .map(|dir| format!("{dir}/{program}"))
                .find(|path| !program.is_empty() && open_program(self.root, path).is_ok())
        };
        let opened = found.and_then(|path| Some((open_program(self.root, &path).ok()?, path)));
        let Some((file, path)) = opened else {
            return Err(Error::NoCompiler {
                compiler: self.compiler.to_owned(),
            });
        };
        Ok((format!("{path} {options}").trim_end().to_owned(), file))
    }
}

/// Opens a program as processes with that root would: links lead to where they do there.
fn open_program(root: &Path, path: &str) -> io::Result<File> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, root, directory, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
    let file = File::from(file);
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
        Ok(file)
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// Whether something at the top of this machine may belong to a compiler.
fn may_be_compilers(name: &str) -> bool {
    SHOWN.contains(&name) || name.starts_with("lib")
}

/// Whether something at the top of another root is not in the way of what the build has there.
fn is_not_in_the_way(name: &str) -> bool {
    !OWN.contains(&name)
}

/// What of this machine a program of it needs, read-only.
pub(crate) fn machine_mounts() -> Result<Vec<Mount>, Error> {
    host_mounts(Path::new("/"), may_be_compilers)
}

/// A host's top-level directories, read-only, and its links, as links.
fn host_mounts(host: &Path, is_shown: fn(&str) -> bool) -> Result<Vec<Mount>, Error> {
    let read_error = |e| Error::io("read", host, e);
    let mut mounts = Vec::new();
    for entry in fs::read_dir(host).map_err(read_error)? {
        let entry = entry.map_err(read_error)?;
        let name = entry.file_name();
        let kind = entry.file_type().map_err(read_error)?;
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

    fn compiler_of(root: &Path, compiler: &str) -> Option<(String, Sha256)> {
        match (Host { root, compiler }).compiler() {
            Ok(found) => Some(found),
            Err(Error::NoCompiler { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_compiler_is_named_by_its_path_and_keeps_its_options() {
        let here = |compiler| compiler_of(Path::new("/"), compiler).map(|(path, _)| path);
        assert_eq!(here("sh -O2  -w"), here("sh").map(|path| path + " -O2  -w"));
        assert!(here("sh").unwrap().starts_with('/'));
        assert_eq!(here("/bin/sh").as_deref(), Some("/bin/sh"));
        for missing in [
            "no-such-compiler",
            "/no/such/compiler",
            "./cc",
            "",
            " -O2",
            "/bin",
            "/etc/passwd",
        ] {
            assert_eq!(here(missing), None, "{missing}");
        }
    }

    #[test]
    fn in_another_root_links_lead_to_where_they_do_there() {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("usr/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join("real"), "version 1").unwrap();
        fs::set_permissions(bin.join("real"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("/usr/bin/real", bin.join("cc")).unwrap();
        symlink("/bin/sh", bin.join("sh")).unwrap();
        let expected = ("/usr/bin/cc -g".to_owned(), Sha256::of(b"version 1"));
        assert_eq!(compiler_of(root.path(), "cc -g"), Some(expected));
        assert_eq!(
            compiler_of(root.path(), "sh"),
            None,
            "the machine's is not taken"
        );
        fs::write(bin.join("real"), "version 2").unwrap();
        let changed = compiler_of(root.path(), "cc").unwrap();
        assert_eq!(
            changed,
            ("/usr/bin/cc".to_owned(), Sha256::of(b"version 2"))
        );
    }

    #[test]
    fn another_root_is_shown_with_all_but_what_a_build_has_for_itself() {
        let host = tempfile::tempdir().unwrap();
        for dir in ["include", "share", "home", "tmp", "stage", "bin"] {
            fs::create_dir(host.path().join(dir)).unwrap();
        }
        let host = Host {
            root: host.path(),
            compiler: "cc",
        };
        let shown = host.mounts().unwrap();
        let shown: Vec<_> = shown
            .iter()
            .map(|mount| match mount {
                Mount::ReadOnly { at, .. } => at.to_str().unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(shown, ["/bin", "/include", "/share"]);
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
        assert_eq!(
            host_mounts(host.path(), may_be_compilers).unwrap(),
            expected
        );
    }
}
