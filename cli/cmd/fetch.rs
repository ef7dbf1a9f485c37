//! `p2pkgs fetch`

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use base::{CidError, Sha256};
use node::{ContentPath, ContentPathError, Doors, PathError, fetch_path};
use store::substitute::{FetchError, Fetched, NoProgress, SourceFetcher as _, SourceRequest};
use store::{Blob, Store};

use crate::blobs;
use crate::cmd::venv::refuse_existing;
use crate::context::Context;
use crate::error::{CmdResult, Failure};
use crate::network::Remote;
use crate::placing::place_tree;
use crate::session::{GetArgs, Session, TrustArgs};
use crate::sources::SourceSet;
use crate::summary::Tally;
use crate::watch::Watch;

/// Get built packages, sources, or any content by its identifier; never builds
///
/// `fetch PKG…` gets packages with their run closures and prints where their outputs lie. `fetch --sources PKG…` gets their
/// source tarballs. `fetch CID -o FILE` and `fetch sha256:HEX -o FILE` get a single file, `fetch ipfs://CID/path -o FILE` and
/// `fetch ipns://NAME/path -o FILE` one below a directory or a name; with `--into DIR` they get a whole directory.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Packages of the tree, or with `-o` one CID, path below a CID or name, or `sha256:` and 64 digits
    #[arg(required_unless_present = "all", value_name = "PKG|CID|sha256:HEX")]
    items: Vec<String>,
    /// The sources of the packages instead of the packages
    #[arg(long)]
    sources: bool,
    /// With `--sources`: of all packages of the tree
    #[arg(long, requires = "sources", conflicts_with = "items")]
    all: bool,
    /// Place the files of the packages, the sources, or a directory of content, in this directory
    #[arg(long, value_name = "DIR", conflicts_with = "output")]
    into: Option<PathBuf>,
    /// Write a single file here; `-` is stdout
    #[arg(short, long, value_name = "FILE", conflicts_with = "sources")]
    output: Option<PathBuf>,
    #[command(flatten)]
    trust: TrustArgs,
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    args.trust.apply(context);
    match (&args.output, args.sources) {
        (Some(output), _) => content(context, &args.items, output),
        (None, true) => sources(context, args),
        (None, false) => packages(context, args),
    }
}

fn packages(context: &Context, args: &Args) -> CmdResult {
    if let ([item], Some(dir)) = (&args.items[..], &args.into)
        && let Some(Content::Path(path)) = Content::parse(item)
    {
        return place_tree(context, &path, dir);
    }
    if let Some(item) = args
        .items
        .iter()
        .find(|item| Content::parse(item).is_some())
    {
        let item = crate::sanitize::line(item);
        return Err(
            Failure::usage(format!("`{item}` is content, not a package")).hint(format!(
                "say where to put it: `p2pkgs fetch {item} -o FILE`"
            )),
        );
    }
    if let Some(dir) = &args.into {
        refuse_existing(dir)?;
    }
    let get = GetArgs {
        jobs: None,
        substitute_only: true,
        no_substitutes: false,
    };
    let options = get.options(context)?;
    let session = Session::open(context, get.jobs, &args.items)?;
    let report = session.realise(&options)?;
    if let Some(dir) = &args.into {
        session.place(&report, dir)?;
    }
    session.print_outputs(&report)
}

fn sources(context: &Context, args: &Args) -> CmdResult {
    let set = if args.all {
        SourceSet::of_whole_tree(context)?
    } else {
        SourceSet::of_packages(context, &args.items)?
    };
    let failed = set.fetch(context);
    if let Some(dir) = &args.into {
        set.copy_into(context.store()?, dir)?;
    }
    set.print(context)?;
    failed
}

/// Content by identifier.
#[derive(Clone, Debug)]
pub enum Content {
    /// By its path below a root or a name.
    Path(ContentPath),
    /// By its plain digest.
    Sha256(Sha256),
}

impl Content {
    /// Reads what names content; anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("sha256:") {
            Some(digits) => digits.parse().ok().map(Self::Sha256),
            None => text.parse().ok().map(Self::Path),
        }
    }

    /// Why a CID or a path below one cannot be used; `None` for what is nothing of the kind.
    fn unsupported(text: &str) -> Option<CidError> {
        match text.parse::<ContentPath>() {
            Err(ContentPathError::Cid(error @ (CidError::Codec(_) | CidError::Hash(_)))) => {
                Some(error)
            }
            _ => None,
        }
    }

    /// The blob it means, if it is here. A name is never taken for it: it may have been pointed elsewhere.
    ///
    /// # Errors
    /// When the store cannot be read, or the path leads to something else than a file.
    pub fn local(&self, store: &Store) -> CmdResult<Option<Blob>> {
        match self {
            Self::Path(path) if path.begins_with_name() => Ok(None),
            Self::Path(path) => match fetch_path(Doors::default(), path, store, &NoProgress) {
                Ok(fetched) => Ok(Some(fetched.blob)),
                Err(PathError::Fetch(FetchError::Missing { .. })) => Ok(None),
                Err(error) => Err(failed(error, &path.to_string())),
            },
            Self::Sha256(sha256) => Ok(store.blob(sha256)?),
        }
    }
}

fn content(context: &Context, items: &[String], output: &Path) -> CmdResult {
    let [item] = items else {
        return Err(Failure::usage("`-o` takes one item"));
    };
    let content = Content::parse(item).ok_or_else(|| {
        let unsupported = Content::unsupported(item);
        let item = crate::sanitize::line(item);
        if let Some(error) = unsupported {
            return Failure::usage(error.to_string()).context(format!("cannot fetch `{item}`"));
        }
        Failure::usage(format!(
            "`{item}` is neither a CID, a path below one, nor `sha256:` and 64 digits"
        ))
        .hint("packages are placed with `--into DIR`")
    })?;
    let store = context.store()?;
    let blob = match content.local(store)? {
        Some(blob) => blob,
        None => fetch_content(context, &content, item)?,
    };
    write_blob(store, &blob, output)
}

fn fetch_content(context: &Context, content: &Content, shown: &str) -> CmdResult<Blob> {
    let store = context.store()?;
    let remote = Remote::new(context)?;
    let watch = Watch::new(&context.ui, &context.interrupt);
    let progress = watch.transfer(format!("fetching {shown}"));
    let fetched: Result<Fetched, PathError> = match content {
        Content::Path(path) => fetch_path(remote.doors()?, path, store, &progress),
        Content::Sha256(sha256) => {
            let request = SourceRequest {
                sha256: *sha256,
                file_name: "",
                urls: &[],
            };
            remote
                .fetch(&request, store, &progress)
                .map_err(PathError::from)
        }
    };
    let fetched = fetched.map_err(|error| failed(error, shown))?;
    drop(progress);
    let mut tally = Tally::default();
    tally.add(fetched.blob.size, &fetched.received);
    if let Some(line) = tally.line() {
        context.ui.status(line);
    }
    Ok(fetched.blob)
}

fn failed(error: PathError, shown: &str) -> Failure {
    let hint = match &error {
        PathError::Fetch(FetchError::Cancelled) => return Failure::interrupted(),
        PathError::NotAFile {
            found: "directory", ..
        } => Some(
            "get a file of it with `p2pkgs fetch CID/NAME -o FILE`, all of it with `--into DIR`",
        ),
        _ => None,
    };
    let failure = Failure::from(error).context(format!("cannot fetch `{shown}`"));
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn write_blob(store: &Store, blob: &Blob, output: &Path) -> CmdResult {
    if output != Path::new("-") {
        return blobs::write(store, blob, output);
    }
    let mut out = io::stdout().lock();
    blobs::open(store, blob)?.copy_to(&mut out)?;
    Ok(out.flush()?)
}
