//! `p2pkgs new`

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base::PackageName;
use recipe::{Release, SourceUrl};
use store::{Blob, Expected, Store};

use crate::context::Context;
use crate::error::{CmdResult, Failure};
use crate::origins::Origins;
use crate::units;

/// Largest source that is taken, in bytes: four times the largest of the tree.
const SOURCE_BYTES_MAX: u64 = 1 << 30;

/// Begin a package: a folder with the files that it needs
///
/// With `--from URL` its source is fetched into the store and its sha256 is written into `fetch`: compare it with what its
/// authors publish, for nothing else vouches for it. Prints the folder.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the package
    #[arg(value_name = "NAME")]
    name: String,
    /// Its source: a URL or mirror://NAME/path; may be given several times, the first is the one that is fetched
    #[arg(long, value_name = "URL")]
    from: Vec<String>,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    let tree = context.tree()?;
    let name = tree.package_name(&args.name)?;
    let dir = tree.package_dir(&name);
    if fs::symlink_metadata(&dir).is_ok() {
        let message = format!("there is a package `{name}` already");
        return Err(Failure::usage(message).hint(format!("it lies in `{}`", dir.display())));
    }
    let source = match &args.from[..] {
        [] => None,
        urls => Some(fetch(context, urls)?),
    };
    write(&dir, &name, source.as_ref())
        .map_err(|e| Failure::from(e).context(format!("cannot write `{}`", dir.display())))?;
    context.ui.status(format!(
        "edit `build` and `check`, then: p2pkgs build {name}; p2pkgs check {name}; p2pkgs lint {name}"
    ));
    context.ui.data(dir.display())
}

/// A source that was fetched.
struct Source {
    urls: Vec<String>,
    file: String,
    blob: Blob,
}

fn fetch(context: &Context, urls: &[String]) -> CmdResult<Source> {
    for url in urls {
        SourceUrl::parse(url)
            .map_err(|fault| Failure::usage(format!("`{url}` is no source: {fault}")))?;
    }
    let url = &urls[0];
    let file = url.rsplit('/').next().unwrap_or_default().to_owned();
    let origins = Origins::open(context, None)?;
    let cannot = |failure: Failure| failure.context(format!("cannot fetch `{url}`"));
    let page = origins.web().page(url).map_err(|e| cannot(e.into()))?;
    let store = context.store()?.holding()?;
    let blob = ingest(&store, page.body).map_err(cannot)?;
    context.ui.status(format!(
        "fetched {file} ({}) from {}: nobody vouches for its sha256 but you",
        units::bytes(blob.size),
        page.url
    ));
    let urls = urls.to_vec();
    Ok(Source { urls, file, blob })
}

fn ingest(store: &Store, body: impl io::Read) -> CmdResult<Blob> {
    let mut ingest = store.ingest()?;
    let length = ingest.copy_from(&mut body.take(SOURCE_BYTES_MAX + 1))?;
    if length > SOURCE_BYTES_MAX {
        let most = units::bytes(SOURCE_BYTES_MAX);
        return Err(Failure::usage(format!("it is larger than {most}")));
    }
    Ok(ingest.finish(&Expected::anything())?)
}

fn write(dir: &Path, name: &PackageName, source: Option<&Source>) -> io::Result<()> {
    fs::create_dir(dir)?;
    let file = |file: &str, mode: u32, text: &str| {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(dir.join(file))?;
        file.write_all(text.as_bytes())
    };
    if let Some(source) = source {
        file("fetch", 0o644, &fetch_text(source))?;
    }
    file("build", 0o755, &build_text(name, source))?;
    file("build-deps", 0o644, "../seed\n")?;
    file("check", 0o755, &check_text(name))?;
    file("check-deps", 0o644, "../dash\n")
}

fn fetch_text(source: &Source) -> String {
    let urls: String = source
        .urls
        .iter()
        .map(|url| format!("url: {url}\n"))
        .collect();
    format!("{urls}sha256: {}\n", source.blob.sha256)
}

fn build_text(name: &PackageName, source: Option<&Source>) -> String {
    let file = source.map_or("", |source| source.file.as_str());
    let unpack = match Release::parse(file) {
        // The next version needs no other script.
        Some(release) => {
            let version = release.version().to_string();
            let pattern = file.replace(&version, "*");
            let program = release.program();
            let folder = if program.is_empty() {
                name.as_str()
            } else {
                program
            };
            format!("tar -xf {pattern}\ncd {folder}-*/\n")
        }
        None if file.is_empty() => String::new(),
        None => format!("tar -xf {file}\ncd {name}-*/\n"),
    };
    format!(
        "#!/bin/sh\n# {name}: what it is, and what is unusual about this build.\nset -eu\n{unpack}\
         ./configure --prefix=\nmake\nmake install\n"
    )
}

fn check_text(name: &PackageName) -> String {
    format!("#!/bin/sh\nset -eu\n# Run what it is for, not only this.\n{name} --version\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_survives_the_next_version() {
        let name: PackageName = "lua".parse().unwrap();
        assert!(build_text(&name, None).contains("set -eu\n./configure"));
        for (file, expected) in [
            ("lua-5.4.4.tar.gz", "tar -xf lua-*.tar.gz\ncd lua-*/\n"),
            ("v5.4.tar.gz", "tar -xf v*.tar.gz\ncd lua-*/\n"),
            ("latest.zip", "tar -xf latest.zip\ncd lua-*/\n"),
        ] {
            let blob = store::Blob {
                sha256: base::Sha256::of(b""),
                root: base::block_cid(base::Codec::Raw, &base::Sha256::of(b"")),
                size: 0,
            };
            let source = Source {
                urls: vec![format!("https://example.org/{file}")],
                file: file.into(),
                blob,
            };
            let text = build_text(&name, Some(&source));
            assert!(text.contains(expected), "{text}");
        }
    }
}
