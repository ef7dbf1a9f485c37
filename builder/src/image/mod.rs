//! Packages as an OCI image (image-spec 1.1.0) in one file that `docker load`, `podman load` and `skopeo` take.
//!
//! Each package is a layer, and the layer *is* the package's archive as it lies in the store: nothing is packed again, images
//! share the layers of the packages they share, and a layer's digest is the one that builders signed. Two layers are added:
//! below all others what programs expect of a root (`/tmp`, names for users), above them the bill of materials. The bytes of
//! the file depend on packages and settings alone.

mod json;
mod layer;
mod sbom;

use std::io::{self, Read, Write};
use std::path::Path;

use base::Sha256;
use recipe::{Graph, PackageId};
use store::Store;
use store::archive::MTIME_UNIX_SECS;

use self::json::{Config, Descriptor, Execution, History, Index, LegacyManifest, Manifest, RootFs};
use self::layer::{Content, Layer, composed, of_files, of_package};
use crate::error::Error;
use crate::root::{Input, open, sorted};
use crate::scratch::Scratch;

pub use self::sbom::sbom;

/// Layers of packages in one image. Docker's overlay driver takes 128 in all; what is beyond shares one more.
const PACKAGE_LAYERS_MAX: usize = 100;
/// Where programs are looked for unless the settings say otherwise.
const SEARCH_PATH: &str = "/bin:/sbin:/usr/bin:/usr/sbin";
/// Where the bill of materials lies in the image: scanners look there.
const SBOM_DIR: &str = "var/lib/db/sbom";

/// What an image does when it is run. All texts are taken as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageSettings {
    /// Its name, `NAME:TAG`.
    pub reference: Option<String>,
    /// What is always run, program and first arguments.
    pub entrypoint: Vec<String>,
    /// What is run, or given to the entry point, unless the user says otherwise.
    pub command: Vec<String>,
    /// Variables, in addition to `PATH`.
    pub env: Vec<(String, String)>,
    /// The working directory.
    pub directory: Option<String>,
    /// The user, `NAME` or `UID` or `UID:GID`.
    pub user: Option<String>,
    /// Labels.
    pub labels: Vec<(String, String)>,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageSummary {
    /// How many layers.
    pub layers: usize,
    /// Digest of the image's manifest: by that registries name the image.
    pub manifest: Sha256,
}

/// Packages that become an image.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// Where the outputs lie.
    pub store: &'a Store,
    /// What the bill of materials tells of.
    pub graph: &'a Graph,
    /// The packages that were asked for.
    pub roots: &'a [PackageId],
    /// The outputs of them and their run closures.
    pub inputs: &'a [Input],
    /// What the image does.
    pub settings: &'a ImageSettings,
    /// Where scratch directories are made.
    pub scratch: &'a Path,
}

impl Image<'_> {
    /// Writes the image.
    ///
    /// # Errors
    /// [`Error`] when an output cannot be read, has a name that means something else in an image, or the file cannot be
    /// written.
    pub fn write(&self, writer: impl Write) -> Result<ImageSummary, Error> {
        let scratch = Scratch::new(self.scratch)?;
        let layers = self.layers(&scratch)?;
        let config = json::bytes(&self.config(&layers));
        let manifest = json::bytes(&Manifest::new(
            Descriptor::config(&config),
            layers.iter().map(Layer::descriptor).collect(),
        ));
        let summary = ImageSummary {
            layers: layers.len(),
            manifest: Sha256::of(&manifest),
        };
        let reference = self.settings.reference.as_deref();
        let index = json::bytes(&Index::new(Descriptor::manifest(&manifest), reference));
        let legacy = LegacyManifest::new(
            &Sha256::of(&config),
            reference,
            layers.iter().map(|layer| &layer.sha256),
        );
        let mut files = vec![
            ("oci-layout".to_owned(), Content::Bytes(json::layout())),
            ("index.json".to_owned(), Content::Bytes(index)),
            (
                "manifest.json".to_owned(),
                Content::Bytes(json::bytes(&[legacy])),
            ),
        ];
        let mut blobs: Vec<_> = [config, manifest]
            .into_iter()
            .map(|bytes| (json::blob_path(&Sha256::of(&bytes)), Content::Bytes(bytes)))
            .chain(
                layers
                    .into_iter()
                    .map(|layer| (json::blob_path(&layer.sha256), layer.content)),
            )
            .collect();
        blobs.sort_by(|a, b| a.0.cmp(&b.0));
        // Two packages may have one output.
        blobs.dedup_by(|a, b| a.0 == b.0);
        files.extend(blobs);
        self.write_tar(files, writer)?;
        Ok(summary)
    }

    fn layers(&self, scratch: &Scratch) -> Result<Vec<Layer>, Error> {
        let inputs = sorted(self.inputs);
        let (own, shared) = inputs.split_at(inputs.len().min(PACKAGE_LAYERS_MAX));
        let mut layers = vec![of_files(
            "what programs expect of a root",
            &layer::ROOT_FILES,
        )];
        for input in own {
            layers.push(of_package(self.store, input)?);
        }
        if !shared.is_empty() {
            layers.push(composed(self.store, shared, scratch)?);
        }
        let bill = sbom(self.graph, self.roots, self.inputs);
        let name = self.graph.name(self.roots[0]);
        let path = format!("{SBOM_DIR}/{name}.spdx.json");
        layers.push(of_files(
            "bill of materials",
            &[layer::File::plain(&path, &bill)],
        ));
        Ok(layers)
    }

    fn config(&self, layers: &[Layer]) -> Config {
        let settings = self.settings;
        let mut env = vec![("PATH".to_owned(), SEARCH_PATH.to_owned())];
        for (name, value) in &settings.env {
            env.retain(|(known, _)| known != name);
            env.push((name.clone(), value.clone()));
        }
        Config {
            created: json::CREATED,
            architecture: json::architecture(),
            os: "linux",
            config: Execution {
                user: settings.user.clone(),
                env: env.into_iter().map(|(n, v)| format!("{n}={v}")).collect(),
                entrypoint: settings.entrypoint.clone(),
                cmd: settings.command.clone(),
                working_dir: settings.directory.clone(),
                labels: settings.labels.iter().cloned().collect(),
            },
            rootfs: RootFs::new(layers.iter().map(|layer| &layer.diff_id)),
            history: layers
                .iter()
                .map(|layer| History::new(&layer.title))
                .collect(),
        }
    }

    fn write_tar(&self, files: Vec<(String, Content)>, writer: impl Write) -> Result<(), Error> {
        let mut tar = tar::Builder::new(writer);
        for (path, content) in files {
            let error = |e| Error::io("write", Path::new(&path), e);
            match content {
                Content::Bytes(bytes) => {
                    append(&mut tar, &path, bytes.len() as u64, &bytes[..]).map_err(error)?;
                }
                Content::Output(input) => {
                    let mut archive = open(self.store, &input)?;
                    append(&mut tar, &path, input.blob.size, &mut archive).map_err(error)?;
                    archive.finish()?;
                }
                Content::File { path: file, size } => {
                    let packed = std::fs::File::open(&file).map_err(error)?;
                    append(&mut tar, &path, size, packed).map_err(error)?;
                }
            }
        }
        let finished = tar.into_inner().and_then(|mut writer| writer.flush());
        finished.map_err(|e| Error::io("write", Path::new("image"), e))
    }
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    path: &str,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(MTIME_UNIX_SECS);
    tar.append_data(&mut header, path, content)
}
