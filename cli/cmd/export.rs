//! `p2pkgs export`

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use builder::{Image, ImageSettings, Input, venv};
use clap::builder::NonEmptyStringValueParser;

use crate::bench::search_path;
use crate::cmd::venv::refuse_existing;
use crate::context::Context;
use crate::error::{CmdResult, Failure};
use crate::outfile::OutFile;
use crate::session::{GetArgs, Session};
use crate::units;

/// Write packages and their run closures as one archive, image or directory
///
/// The bytes depend on the packages alone (and of an image on what is said of running it), so two machines export the same
/// file. An OCI image has a layer for each package, which is the package's own archive, and a bill of materials (SPDX) in
/// /var/lib/db/sbom; `docker load`, `podman load` and `skopeo copy oci-archive:OUT` take it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to write
    #[arg(long, value_name = "FORMAT")]
    format: Format,
    /// Where to; `-` is stdout
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Packages of the tree
    #[arg(required = true, value_name = "PKG")]
    packages: Vec<String>,
    #[command(flatten)]
    image: ImageArgs,
    #[command(flatten)]
    get: GetArgs,
}

/// What an OCI image does when it is run.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "OCI image")]
struct ImageArgs {
    /// Name of the image [default: the first package, `:latest`]
    #[arg(long, value_name = "NAME:TAG", value_parser = NonEmptyStringValueParser::new())]
    name: Option<String>,
    /// What is always run; repeated for its first arguments
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// What is run, or given to the entry point, unless the user says otherwise; repeated for its arguments [default: the
    /// program of the first package's name in /bin, if there is one and no entry point]
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// A variable; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// The working directory
    #[arg(long, value_name = "DIR")]
    workdir: Option<String>,
    /// The user, a name, UID or UID:GID
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// A label; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A tar archive compressed with zstd
    Tar,
    /// An OCI image in one file
    Oci,
    /// A squashfs image; needs `mksquashfs`
    Squashfs,
    /// A directory that does not exist yet
    Dir,
    /// The bill of materials alone, SPDX 2.3 in JSON
    Spdx,
}

impl ImageArgs {
    const fn is_empty(&self) -> bool {
        self.name.is_none()
            && self.entrypoint.is_empty()
            && self.cmd.is_empty()
            && self.env.is_empty()
            && self.workdir.is_none()
            && self.user.is_none()
            && self.label.is_empty()
    }
}

pub fn run(context: &Context, args: &Args) -> CmdResult {
    check(args)?;
    let options = args.get.options(context)?;
    let session = Session::open(context, args.get.jobs, &args.packages)?;
    let report = session.realise(&options)?;
    let export = Export {
        args,
        session: &session,
        inputs: session.closure(&report)?,
    };
    match args.format {
        Format::Dir => {
            venv::compose(&session.bench.store, &export.inputs, &args.output)?;
        }
        Format::Squashfs => export.squashfs()?,
        Format::Tar | Format::Oci | Format::Spdx if args.output == Path::new("-") => {
            let mut stdout = std::io::stdout().lock();
            export.stream(&mut stdout)?;
            return Ok(stdout.flush()?);
        }
        Format::Tar | Format::Oci | Format::Spdx => {
            let mut out = OutFile::create(&args.output)?;
            let told = export.stream(out.file())?;
            out.finish()?;
            let size = File::open(&args.output)?.metadata()?.len();
            context.ui.status(format!("{told}, {}", units::bytes(size)));
        }
    }
    context.ui.data(args.output.display())
}

/// Refuses what makes no sense together, before anything is built.
fn check(args: &Args) -> CmdResult {
    if args.format != Format::Oci && !args.image.is_empty() {
        return Err(Failure::usage("what an image does is for `--format oci`"));
    }
    let to_stdout = args.output == Path::new("-");
    match args.format {
        Format::Dir | Format::Squashfs if to_stdout => Err(Failure::usage(
            "a directory or squashfs image cannot be written to stdout",
        )),
        Format::Dir => refuse_existing(&args.output),
        _ => Ok(()),
    }
}

/// What is written, and of what.
struct Export<'a> {
    args: &'a Args,
    session: &'a Session,
    inputs: Vec<Input>,
}

impl Export<'_> {
    /// Writes a format that is a stream of bytes; returns what there is to be told of it.
    fn stream(&self, writer: &mut dyn Write) -> CmdResult<String> {
        let (bench, graph) = (&self.session.bench, &self.session.graph);
        match self.args.format {
            Format::Oci => {
                let image = Image {
                    store: &bench.store,
                    graph,
                    roots: graph.roots(),
                    inputs: &self.inputs,
                    settings: &self.settings()?,
                    scratch: &bench.scratch,
                };
                let summary = image.write(writer)?;
                let (layers, manifest) = (summary.layers, summary.manifest);
                Ok(format!("{layers} layers, manifest sha256:{manifest}"))
            }
            Format::Spdx => {
                writer.write_all(&builder::sbom(graph, graph.roots(), &self.inputs))?;
                Ok("SPDX 2.3".to_owned())
            }
            Format::Tar | Format::Squashfs | Format::Dir => {
                let summary = venv::export(&bench.store, &self.inputs, &bench.scratch, writer)?;
                Ok(format!("{} entries", summary.entries))
            }
        }
    }

    fn squashfs(&self) -> CmdResult {
        let bench = &self.session.bench;
        let out = OutFile::create(&self.args.output)?;
        let path = out.path().to_owned();
        builder::squashfs(
            &bench.store,
            &self.inputs,
            &bench.scratch,
            &search_path(),
            &path,
        )?;
        out.finish()
    }

    fn settings(&self) -> CmdResult<ImageSettings> {
        let image = &self.args.image;
        let graph = &self.session.graph;
        let first = graph.name(graph.roots()[0]);
        let mut command = image.cmd.clone();
        if command.is_empty() && image.entrypoint.is_empty() {
            let program = format!("bin/{first}");
            let store = &self.session.bench.store;
            if venv::has_file(store, &self.inputs, first.as_str(), &program)? {
                command.push(format!("/{program}"));
            }
        }
        let reference = image.name.clone();
        Ok(ImageSettings {
            reference: Some(reference.unwrap_or_else(|| format!("{first}:latest"))),
            entrypoint: image.entrypoint.clone(),
            command,
            env: image.env.clone(),
            directory: image.workdir.clone(),
            user: image.user.clone(),
            labels: image.label.clone(),
        })
    }
}

/// Reads `NAME=VALUE`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("this is written NAME=VALUE".to_owned()),
    }
}
